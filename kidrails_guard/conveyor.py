"""Reads a reply on while its units are checked, so that a check's time hides behind the model's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection
from typing import Generic, TypeVar

from kidrails_guard.streaming import Release, ReleaseWindow

_T = TypeVar("_T")


class Conveyor(Generic[_T]):
    """Reads on while units are checked, and hands out what has passed, in order.

    Args:
        source: what arrives, e.g. chunks of an answer.
        take: feeds one item into the windows; called for each item, in order.
        windows: the windows that are open now; several where there are several answers.
        most_waiting: units that may wait before reading pauses.
        tick_s: after so long without a release, None is handed out, so that the caller can tell
            its own reader that it is still there.

    Attributes:
        error: what ended the source too early, if anything did.
    """

    def __init__(
        self,
        source: AsyncIterator[_T],
        take: Callable[[_T], None],
        *,
        windows: Callable[[], Collection[ReleaseWindow]],
        most_waiting: int = 64,
        tick_s: float = 15.0,
    ) -> None:
        self._source, self._take, self._windows = source, take, windows
        self._most_waiting, self._tick_s = most_waiting, tick_s
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._at_end = False
        self._reader: asyncio.Task[None] | None = None
        self.error: Exception | None = None

    async def __aenter__(self) -> Conveyor[_T]:
        """Start reading."""
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop reading and close the source, whatever it is waiting for."""
        await self._stop_reading()

    def stop(self, error: Exception) -> None:
        """End early, from outside: what has passed still leaves, nothing more is read."""
        if not self._at_end:
            self.error = self.error or error
            self._at_end = True
            self._news.set()

    async def _read(self) -> None:
        try:
            async for item in self._source:
                self._take(item)
                self._news.set()
                while self._full():
                    self._room.clear()
                    await self._room.wait()
                if self._at_end:
                    break
        except Exception as error:
            self.error = self.error or error
        self._at_end = True
        self._news.set()

    def _full(self) -> bool:
        waiting = 0
        for window in self._windows():
            waiting += window.waiting
        return waiting >= self._most_waiting

    async def _stop_reading(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None
            close = getattr(self._source, "aclose", None)
            if close is not None:
                await close()

    async def __aiter__(self) -> AsyncIterator[tuple[ReleaseWindow, Release | None] | None]:
        """Give ``(window, release)`` for each checked unit; release None: the window stopped."""
        while True:
            self._news.clear()
            ready = [window for window in self._windows() if window.ready]
            if ready:
                for window in ready:
                    yield window, await window.advance()
                self._room.set()
                windows = self._windows()
                if windows and all(window.stopped for window in windows):
                    await self._stop_reading()
                    return
                continue
            if self._at_end:
                return
            early = [(s, w) for w in self._windows() if (s := w.early_in()) is not None]
            due_s, waiting = min(early, key=lambda pair: pair[0], default=(self._tick_s, None))
            if due_s <= 0 and waiting is not None:
                release = await waiting.advance_early()
                if release is not None:
                    yield waiting, release
            elif not await self._something(min(due_s, self._tick_s)) and due_s >= self._tick_s:
                yield None

    async def _something(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return True


async def guard_stream(window: ReleaseWindow, chunks: AsyncIterable[str]) -> AsyncIterator[str]:
    """Give of a stream of text what has passed; ``window.verdict`` is final after the last piece.

    Raises:
        Exception: whatever ``chunks`` raised, after everything that had passed.
    """

    async def source() -> AsyncIterator[str]:
        async for chunk in chunks:
            yield chunk
        window.finish()

    async with Conveyor(source(), window.feed, windows=lambda: (window,)) as conveyor:
        async for step in conveyor:
            if step is not None and step[1] is not None:
                yield step[1].text
        if conveyor.error is not None:
            raise conveyor.error
