"""A caller's connection that cannot be kept open for nothing.

uvicorn waits without end for a request's headers and for a caller that does not read its answer.
Each such connection costs memory and a file descriptor, and a stream that nobody reads keeps the
model busy, so both waits are bounded here. A slow body is bounded in ``body.py``.

Source: CWE-400; the attack on slow headers is known as Slowloris.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from kidrails_guard.proxy.problems import Problem


class BoundedConnection(H11Protocol):
    """One connection over HTTP/1.1.

    Attributes:
        headers_within_s: from the first byte of a request (of a new connection, from its
            beginning) to the end of its headers; also for a body whose request has been answered.
        read_within_s: for a caller to take anything at all of what is written to it.
    """

    headers_within_s: float = 10.0
    read_within_s: float = 60.0

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._headers_timer: asyncio.TimerHandle | None = None
        self._reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._headers_timer = self.loop.call_later(self.headers_within_s, self._headers_missing)

    def data_received(self, data: bytes) -> None:
        """Take what the caller sends; the wait ends when the headers are complete."""
        super().data_received(data)
        between = self.cycle is None or self.cycle.response_complete
        # A body that comes behind its answer, as after a wrong key, has no more time than headers.
        if not between:
            self._stop_waiting()
        elif self._headers_timer is None:
            self._headers_timer = self.loop.call_later(self.headers_within_s, self._headers_missing)

    def pause_writing(self) -> None:
        """Begin to wait for the caller to read."""
        super().pause_writing()
        if self._reading_timer is None:
            self._reading_timer = self.loop.call_later(self.read_within_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that the caller reads."""
        super().resume_writing()
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all waits."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _headers_missing(self) -> None:
        self._headers_timer = None
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:  # half of a request
            self.transport.write(self._too_slow())
        self.transport.close()

    def _too_slow(self) -> bytes:
        problem = Problem(
            408,
            "request_timeout",
            f"headers: not complete after {self.headers_within_s:g} s; send them at once",
        )
        body = json.dumps(problem.body()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        parts = (
            h11.Response(status_code=408, headers=headers, reason=b"Request Timeout"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        return b"".join(self.conn.send(part) or b"" for part in parts)
