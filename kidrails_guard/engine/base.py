"""The one interface of all model servers, and the plan each is started from."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8000
#: Longest time from a server's start to its first answer, where nobody chose another.
START_TIMEOUT_S: Final = 120.0


class Backend(StrEnum):
    """The model servers that KidRails starts."""

    LLAMACPP = "llamacpp"
    VLLM = "vllm"


class Phase(StrEnum):
    """Where a start is: no answer yet, the weights are being loaded, or it answers."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"


#: Called while an engine starts, with the phase and the seconds since the start.
Progress = Callable[[Phase, float], None]


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What would be started, found out without starting it.

    Attributes:
        backend: the model server.
        name: the name under which the model is offered (`model` in requests).
        model: the file, folder or Hub name that is served.
        host: the address it listens on.
        port: the port it listens on.
        command: program and arguments.
        environment: variables that are set on top of the caller's.
        leashed: whether the command itself ends when its standard input is closed; otherwise it
            is run behind ``kidrails_guard.engine.leash``.
        start_timeout_s: seconds after which a start counts as failed.
        notes: what a person should know, one sentence each.
    """

    backend: Backend
    name: str
    model: str
    host: str
    port: int
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    leashed: bool = False
    start_timeout_s: float = START_TIMEOUT_S
    notes: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The base URL for OpenAI clients, with ``/v1``."""
        return f"http://{url_host(self.host)}:{self.port}/v1"

    @property
    def shown_command(self) -> str:
        """The command as one would type it into a shell."""
        variables = [f"{key}={shlex.quote(value)}" for key, value in self.environment.items()]
        return " ".join([*variables, shlex.join(self.command)])

    def as_json(self) -> dict[str, Any]:
        """Return the plan for ``--json``."""
        return {
            "backend": str(self.backend),
            "name": self.name,
            "model": self.model,
            "url": self.url,
            "command": list(self.command),
            "environment": dict(self.environment),
            "notes": list(self.notes),
        }


class Engine(Protocol):
    """A model server that answers OpenAI's API.

    ``EngineProcess`` is one; ``Supervisor`` is one that starts again what has died.
    """

    @property
    def name(self) -> str:
        """The name under which the model is offered."""
        ...

    @property
    def url(self) -> str:
        """The base URL for OpenAI clients, with ``/v1``."""
        ...

    @property
    def command(self) -> tuple[str, ...]:
        """Program and arguments."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the server's process runs (it may still be loading)."""
        ...

    def start(self) -> None:
        """Start the server in a process group of its own and return at once."""
        ...

    def wait_ready(
        self, *, timeout_s: float | None = None, progress: Progress | None = None
    ) -> None:
        """Wait until the server answers; raise EngineError when it dies or takes too long."""
        ...

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Stop the server and every process it started; harmless when it does not run."""
        ...


def url_host(host: str) -> str:
    """Return the host to connect to for an address that a server listens on.

    >>> url_host("0.0.0.0"), url_host("::1"), url_host("127.0.0.1")
    ('127.0.0.1', '[::1]', '127.0.0.1')
    """
    if host in {"0.0.0.0", ""}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
