"""Starts a server again when it has died, with growing pauses."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TextIO

from kidrails_guard.engine.base import EnginePlan, Progress
from kidrails_guard.engine.endings import describe_status
from kidrails_guard.engine.process import EngineProcess, ServerProcess
from kidrails_guard.errors import EngineError


class EventKind(StrEnum):
    """What a supervisor tells."""

    DIED = "died"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something that happened to a supervised server.

    Attributes:
        kind: it died, it is ready again, or a new start failed.
        detail: how it died or why the start failed, in words; never what a child wrote.
        pause_s: seconds until the next start; 0 when it is ready.
    """

    kind: EventKind
    detail: str = ""
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long to wait before the next start.

    Attributes:
        first_s: seconds after the first death.
        factor: growth with every further death.
        most_s: the longest pause.
        steady_s: after so many seconds without a death the count begins anew.
    """

    first_s: float = 0.5
    factor: float = 2.0
    most_s: float = 30.0
    steady_s: float = 60.0

    def pause(self, deaths: int) -> float:
        """Return the pause in seconds after that many deaths in a row (1 or more).

        >>> [BackOff().pause(n) for n in (1, 2, 3, 9)]
        [0.5, 1.0, 2.0, 30.0]
        """
        return min(self.first_s * self.factor ** min(deaths - 1, 63), self.most_s)


class Keeper:
    """Keeps a server running.

    A start that fails the first time is an error for the caller (``wait_ready``): trying again
    would hide its cause. Only what has been ready once is restarted, without end, because other
    programs wait for it.

    Args:
        make: returns the server's process, not yet started; called anew for every start.
        on_event: called from the watching thread.
        back_off: the pauses.
    """

    def __init__(
        self,
        make: Callable[[], ServerProcess],
        *,
        on_event: Callable[[EngineEvent], None] | None = None,
        back_off: BackOff | None = None,
    ) -> None:
        self.restarts = 0
        self._make = make
        self._on_event = on_event
        self._back_off = back_off or BackOff()
        self._process = make()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the server's process runs (it may still be loading)."""
        return self._process.alive

    @property
    def pid(self) -> int | None:
        """The present process's id."""
        return self._process.pid

    def start(self) -> None:
        """Start the server and return at once.

        Raises:
            EngineError: the port is in use, or the program cannot be run.
        """
        self._process.start()

    def wait_ready(
        self, *, timeout_s: float | None = None, progress: Progress | None = None
    ) -> None:
        """Wait until the server answers; from then on it is watched.

        Raises:
            EngineError: the server died or took too long.
        """
        self._process.wait_ready(timeout_s=timeout_s, progress=progress)
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="engine-watch", daemon=True)
            self._watcher.start()

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Stop watching, then the server and every process it started."""
        self._stopping.set()
        with self._lock:
            self._process.stop(grace_s=grace_s)
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join()

    def _tell(self, event: EngineEvent) -> None:
        if self._on_event is not None:
            # Nobody may be left to be told, and the server is started again all the same.
            with contextlib.suppress(OSError, ValueError):
                self._on_event(event)

    def _watch(self) -> None:
        deaths, since = 0, time.monotonic()
        while True:
            status = self._process.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - since > self._back_off.steady_s:
                deaths = 0
            deaths += 1
            event = EngineEvent(
                EventKind.DIED, describe_status(status or 0), self._back_off.pause(deaths)
            )
            while not self._restart(event):
                if self._stopping.is_set():
                    return
                deaths += 1
                event = EngineEvent(EventKind.FAILED, self._failure, self._back_off.pause(deaths))
            since = time.monotonic()

    _failure = ""

    def _restart(self, event: EngineEvent) -> bool:
        """Tell what happened, wait, start anew; return whether it is ready."""
        self._tell(event)
        if self._stopping.wait(event.pause_s):
            return False
        fresh = self._make()
        try:
            with self._lock:
                if self._stopping.is_set():
                    return False
                self._process.stop(grace_s=0.0)  # what is left of the dead one's group
                self._process = fresh
                fresh.start()
            fresh.wait_ready()
        except EngineError as error:
            self._failure = str(error)
            return False
        self.restarts += 1
        self._tell(EngineEvent(EventKind.READY))
        return True


class Supervisor(Keeper):
    """A model server that is started again when it dies; see ``Engine`` for the interface.

    Args:
        plan: what to start.
        on_event: called from the watching thread.
        back_off: the pauses.
        echo: where to copy what the server prints; nothing by default.
    """

    def __init__(
        self,
        plan: EnginePlan,
        *,
        on_event: Callable[[EngineEvent], None] | None = None,
        back_off: BackOff | None = None,
        echo: TextIO | None = None,
    ) -> None:
        super().__init__(
            lambda: EngineProcess(plan, echo=echo), on_event=on_event, back_off=back_off
        )
        self.plan = plan

    @property
    def name(self) -> str:
        """The name under which the model is offered."""
        return self.plan.name

    @property
    def url(self) -> str:
        """The base URL for OpenAI clients, with ``/v1``."""
        return self.plan.url

    @property
    def command(self) -> tuple[str, ...]:
        """Program and arguments."""
        return self.plan.command
