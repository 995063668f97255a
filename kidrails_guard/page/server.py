"""Serves the pages with uvicorn, says when they are ready, and stops without a fuss."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from typing import Any

import uvicorn
from starlette.types import ASGIApp

#: Open pages hold a connection for as long as they live; waiting for them would be in vain.
_GRACE_S = 1


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: str) -> None:
        super().__init__(config)
        self._line = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(self._line, flush=True)


def serve(app: ASGIApp, *, host: str, port: int, ready: str) -> int:
    """Serve until SIGINT or SIGTERM.

    Args:
        app: the pages.
        host: the address to listen on.
        port: the port to listen on.
        ready: printed as soon as they answer.

    Returns:
        The exit status: 0 when it was asked to end, 1 when it could not start.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("kidrails demo: %(message)s"))
    handler.addFilter(_unexpected)
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    server = _Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,  # paths of a child's page are nobody's business
            timeout_graceful_shutdown=_GRACE_S,
            server_header=False,
        ),
        ready,
    )
    # Uvicorn raises the signal again once it has stopped, for whoever would like to see it.
    previous = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run()
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
    return 0 if server.started else 1


class _Formatter(logging.Formatter):
    """Names an exception by its type: its text, and a traceback, could hold a child's words."""

    def formatException(self, ei: Any) -> str:
        """Return the exception's type."""
        return f"  ({ei[0].__name__})"


def _unexpected(record: logging.LogRecord) -> bool:
    """Leave out that connections were cut at the end: that is how open pages end."""
    if record.exc_info and record.exc_info[0] is asyncio.CancelledError:
        return False
    said = record.getMessage()
    # The second is Starlette's, a whole traceback as its message: Ctrl-C was pressed twice.
    return not (
        "timeout graceful shutdown exceeded" in said
        or said.rstrip().endswith("asyncio.exceptions.CancelledError")
    )
