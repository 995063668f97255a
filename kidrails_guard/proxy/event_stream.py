"""Sends a stream to its caller, and notices when the caller has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class EventStream(Response):
    """Sends server-sent events, and notices when nobody listens any more.

    Args:
        parts: the stream's bytes; run to its end even when the caller has left, so that what was
            decided is recorded.
        headers: beside the content type.
        finished: told the status at the end.
        caller_left: called when the connection closes before the end.
    """

    def __init__(
        self,
        parts: AsyncGenerator[bytes, None],
        headers: dict[str, str],
        finished: Callable[[int], None],
        *,
        caller_left: Callable[[], None] | None = None,
    ) -> None:
        self._parts, self._finished, self._caller_left = parts, finished, caller_left
        headers = {**headers, "cache-control": "no-store", "x-accel-buffering": "no"}
        self.status_code, self.background = 200, None
        self.media_type = "text/event-stream"
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        watcher = asyncio.create_task(self._watch(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for part in self._parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watcher.cancel()
            await self._parts.aclose()
            self._finished(200)

    async def _watch(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                if self._caller_left is not None:
                    self._caller_left()
                return
