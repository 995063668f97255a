"""What all requests share, and their end when the server is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.types import Receive

from kidrails_guard.proxy.body import while_caller_waits
from kidrails_guard.proxy.memory import VerdictMemory
from kidrails_guard.proxy.problems import Problem
from kidrails_guard.proxy.reply import StreamedReply
from kidrails_guard.proxy.seams import AuditSink, Meter
from kidrails_guard.proxy.settings import Settings
from kidrails_guard.proxy.sittings import Sittings
from kidrails_guard.proxy.upstream import Upstream


class ShuttingDown(Exception):
    """The server was told to stop, and this stream has had its time."""


@dataclass(slots=True)
class Service:
    """What all requests share.

    Attributes:
        settings: the operator's choices.
        upstream: the model server.
        audit: writes down what was decided.
        meter: counts.
        memory: verdicts on earlier turns.
        sittings: what children's sessions add up to.
        gate: bounds how many texts are checked at once; the others wait before their checks'
            deadlines begin, so that a rush of requests is slow and not refused.
        open_streams: to end kindly when the server stops.
        draining: whether the server was told to stop.
    """

    settings: Settings
    upstream: Upstream
    audit: AuditSink
    meter: Meter
    memory: VerdictMemory
    sittings: Sittings
    gate: asyncio.Semaphore
    open_streams: set[StreamedReply] = field(default_factory=set)
    draining: bool = False
    _waits: set[asyncio.Task[object]] = field(default_factory=set)
    _over: bool = False

    def drain(self) -> None:
        """Let what is open finish within the operator's time, then end it."""
        if not self.draining:
            self.draining = True
            loop = asyncio.get_running_loop()
            loop.call_later(self.settings.shutdown_s, self._end)

    def _end(self) -> None:
        self._over = True
        for stream in list(self.open_streams):
            stream.stop(ShuttingDown())
        for task in list(self._waits):
            task.cancel()

    def opened(self, stream: StreamedReply) -> None:
        """Note a stream that is open now; one that opens too late ends at once, kindly."""
        self.open_streams.add(stream)
        if self._over:
            stream.stop(ShuttingDown())

    @asynccontextmanager
    async def waiting(self, receive: Receive) -> AsyncIterator[None]:
        """Wait for the model in the block, for as long as the caller and the server do.

        Args:
            receive: of the request, whose body has been read.

        Raises:
            CallerLeft: the caller left before the block's end.
            Problem: the server was told to stop, and the time for what was open is over.
        """
        task = asyncio.current_task()
        assert task is not None
        if self._over:
            raise _stopping()
        self._waits.add(task)
        try:
            async with while_caller_waits(receive):
                yield
        except asyncio.CancelledError:
            if not self._over or task.uncancel():
                raise
            raise _stopping() from None
        finally:
            self._waits.discard(task)

    def count_failure(self, problem: Problem) -> None:
        """Count what went wrong."""
        if problem.failure is not None:
            self.meter.failure(problem.failure)


def _stopping() -> Problem:
    return Problem(
        503,
        "shutting_down",
        "the service was told to stop before the answer was there; send the request again",
        failure=None,
        retry_after_s=1,
    )
