"""Model, guard and page as one tree of processes: started together, kept up, stopped together.

Each part is a server of its own in a process group of its own, and ends with this process however
that one ends (``engine.leash``).
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from kidrails_guard.engine.base import START_TIMEOUT_S, Phase
from kidrails_guard.engine.process import ServerProcess
from kidrails_guard.engine.supervisor import BackOff, EngineEvent, EventKind, Keeper
from kidrails_guard.errors import KidRailsError

_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Part:
    """One server of the tree.

    Attributes:
        name: how messages call it: ``the guard``.
        keeper: starts it, watches it, stops it.
    """

    name: str
    keeper: Keeper


def kidrails_part(
    name: str,
    verb: str,
    arguments: Sequence[str],
    *,
    host: str,
    port: int,
    probe_path: str,
    environment: Mapping[str, str] | None = None,
    start_timeout_s: float | None = None,
    on_event: Callable[[str, EngineEvent], None] | None = None,
    back_off: BackOff | None = None,
) -> Part:
    """Return a part that is a `kidrails` verb.

    Args:
        name: how messages call it.
        verb: ``serve`` or ``demo``.
        arguments: what follows the verb.
        host: the address it listens on.
        port: the port it listens on.
        probe_path: what answers 200 as soon as it is ready.
        environment: variables on top of this process's; keys go here, not into the arguments,
            which every user of the machine can read.
        start_timeout_s: seconds after which a start counts as failed; the usual ones where None.
        on_event: told, with the name, when it died, failed or is back.
        back_off: the pauses between restarts.
    """
    command = (sys.executable, "-m", "kidrails_guard", verb, *arguments)

    def make() -> ServerProcess:
        echo = _AfterReady()
        process = ServerProcess(
            command,
            host=host,
            port=port,
            environment=environment,
            start_timeout_s=start_timeout_s or START_TIMEOUT_S,
            probe_path=probe_path,
            echo=echo,
        )
        process.what, echo.process = name, process
        return process

    def tell(event: EngineEvent) -> None:
        if on_event is not None:
            on_event(name, event)

    return Part(name, Keeper(make, on_event=tell, back_off=back_off))


class _AfterReady:
    """Passes a part's lines on to stderr, but not how it introduces itself."""

    process: ServerProcess | None = None

    def write(self, text: str) -> int:
        if text.strip() and self.process is not None and self.process.ready:
            print(text.rstrip("\n"), file=sys.stderr, flush=True)
        return len(text)

    def flush(self) -> None:
        """Do nothing: every line is flushed."""


class Tree:
    """Several parts that live and end together.

    Args:
        parts: in the order of starting; they are stopped the other way round.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)

    def start(self) -> None:
        """Start every part and return at once.

        Raises:
            EngineError: a port is in use or a program cannot be run; what was started is stopped.
        """
        try:
            for part in self.parts:
                part.keeper.start()
        except KidRailsError:
            self.stop()
            raise

    def wait_ready(self) -> None:
        """Wait until every part answers, with a bar on a terminal.

        Raises:
            EngineError: a part died or took too long; the others are stopped.
        """
        from tqdm import tqdm

        form = "{desc:<28} {bar} {n_fmt}/{total_fmt}  {elapsed}"
        try:
            with tqdm(total=len(self.parts), bar_format=form, disable=None, leave=False) as bar:
                for part in self.parts:
                    part.keeper.wait_ready(progress=self._shower(part, bar))
                    bar.update()
        except BaseException:
            self.stop()
            raise

    def _shower(self, waited_for: Part, bar: Any) -> Callable[[Phase, float], None]:
        def show(phase: Phase, _elapsed_s: float) -> None:
            doing = "loading" if phase is Phase.LOADING else "starting"
            bar.set_description_str(f"{doing} {waited_for.name}")
            for part in self.parts:
                if part is not waited_for and not part.keeper.alive:
                    part.keeper.wait_ready()  # raises, and says why it ended

        return show

    def stop(self) -> None:
        """Stop every part, the last one first; harmless for what does not run."""
        for part in reversed(self.parts):
            part.keeper.stop()


def tell_on_stderr(name: str, event: EngineEvent) -> None:
    """Say on stderr that a part died, did not start again or is back."""
    if event.kind is EventKind.READY:
        said = "answers again"
    else:
        what = "has ended" if event.kind is EventKind.DIED else "did not start"
        said = f"{what} ({event.detail}); the next start is in {event.pause_s:g} s"
    print(f"kidrails up: {name} {said}", file=sys.stderr, flush=True)


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end."""


def ends_on_signals() -> None:
    """Raise `Interrupted` in the main thread on SIGINT, SIGTERM and SIGHUP, once.

    SIGHUP stays ignored where it is: ``nohup`` asks to outlive the terminal.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        # From here on everything is being stopped; being asked again does not make it faster,
        # and an interrupted stop would leave something behind.
        for number in _ENDS:
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted

    for number in _ENDS:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def wait_for_the_end() -> None:
    """Wait until `Interrupted` is raised."""
    threading.Event().wait()
