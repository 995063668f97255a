"""A reply that is asked about again and again while it grows is written down once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from kidrails_guard.proxy.records import Recorder
from kidrails_guard.proxy.seams import AuditEvent
from kidrails_guard.types import Verdict

QUIET_S: Final = 60.0
"""Nobody says which sample of a reply is its last; after so long without another, it was."""
_MOST: Final = 4_096

Key = tuple[str, str]
"""Whose call, and which."""


@dataclass(slots=True)
class _Reply:
    recorder: Recorder
    event: AuditEvent
    written: bool
    timer: asyncio.TimerHandle


class Samples:
    """Writes the gravest sample of each reply down, of equal ones the last.

    What is held back is written at once, a calm reply after `QUIET_S` without a further sample,
    when too many are open, or at `close`. One that rests for longer and goes on counts twice.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Key, _Reply] = OrderedDict()
        self._writing: set[asyncio.Task[None]] = set()

    async def take(
        self, key: Key, recorder: Recorder, text: str, verdict: Verdict, withheld: int
    ) -> None:
        """Take a sample: all of a reply that has come so far.

        Args:
            key: whose call, and which; without a name for the call, the sample is the reply.
            recorder: of the request that the reply answers.
            text: the reply so far.
            verdict: on it.
            withheld: how many characters of it do not leave.

        Raises:
            Problem: a reply without a name cannot be written down.
        """
        held = verdict.action.answers
        event = recorder.event(text, verdict, withheld=withheld)
        if not key[1]:
            await recorder.write(event, needed=not held)
            return
        before = self._open.pop(key, None)
        written = False
        if before is not None:
            before.timer.cancel()
            written = before.written
            event = recorder.event(text, verdict, withheld=withheld, streamed=True)
            if before.event.verdict.action > verdict.action:
                event = before.event
        timer = asyncio.get_running_loop().call_later(QUIET_S, self._settle, key)
        self._open[key] = _Reply(recorder, event, written or held, timer)
        while len(self._open) > _MOST:
            self._settle(next(iter(self._open)))
        if held and not written:
            await recorder.write(event, needed=False)

    def _settle(self, key: Key) -> None:
        """Forget a reply that is over; write it down if that has not been done."""
        reply = self._open.pop(key)
        reply.timer.cancel()
        if not reply.written:
            # It has left; the next message is the first to be refused on a full disk.
            task = asyncio.create_task(reply.recorder.write(reply.event, needed=False))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Write down what is open."""
        for key in list(self._open):
            self._settle(key)
        await asyncio.gather(*self._writing)
