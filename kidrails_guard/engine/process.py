"""Runs a server as a child process, in a process group of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Final, Protocol

from kidrails_guard.engine.base import START_TIMEOUT_S, EnginePlan, Phase, Progress, url_host
from kidrails_guard.engine.endings import describe_status, find_reason
from kidrails_guard.engine.leash import LEASH
from kidrails_guard.engine.ports import require_free_port
from kidrails_guard.errors import EngineError

_LINES_KEPT: Final = 400
_POLL_S: Final = 0.1
_REQUEST_S: Final = 5.0


class Echo(Protocol):
    """Where a server's lines are copied to: a text stream, or something like it."""

    def write(self, text: str, /) -> object:
        """Take some text."""
        ...

    def flush(self) -> object:
        """Pass on what is held."""
        ...


class ServerProcess:
    """A server that runs as a child process and ends with this one, even when that is killed.

    What it prints is kept only until it is ready, to explain a failed start: later lines could
    hold what a child wrote.

    Args:
        command: program and arguments.
        host: the address it listens on.
        port: the port it listens on.
        environment: variables that are set on top of the caller's.
        leashed: whether the command itself ends when its standard input is closed; otherwise it
            is run behind ``kidrails_guard.engine.leash``.
        start_timeout_s: seconds after which a start counts as failed.
        probe_path: what answers 200 as soon as the server is ready.
        echo: where to copy everything that the server prints; nothing by default.
    """

    #: How messages call it.
    what = "the server"
    #: What a person can do about a start that takes too long.
    advice = "on a slow or busy machine, wait longer with --start-timeout"

    def __init__(
        self,
        command: tuple[str, ...],
        *,
        host: str,
        port: int,
        environment: Mapping[str, str] | None = None,
        leashed: bool = False,
        start_timeout_s: float = START_TIMEOUT_S,
        probe_path: str = "/health",
        echo: Echo | None = None,
    ) -> None:
        self.host, self.port = host, port
        self._probe_path = probe_path
        self._command, self._leashed = command, leashed
        self._environment = dict(environment or {})
        self._start_timeout_s = start_timeout_s
        self._echo = echo
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._ready = False
        self._started = 0.0

    @property
    def shown_command(self) -> str:
        """The command as one would type it into a shell; without its environment."""
        return shlex.join(self._command)

    @property
    def alive(self) -> bool:
        """Whether the server's process runs (it may still be loading)."""
        return self._process is not None and self._process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it has answered since its start."""
        return self._ready

    @property
    def pid(self) -> int | None:
        """The process's id, which is its group's as well; None before the start."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the server and return at once.

        Raises:
            EngineError: the port is in use, or the program cannot be run.
        """
        require_free_port(self.host, self.port)
        command = self._command
        if not self._leashed:
            command = (sys.executable, "-m", "kidrails_guard.engine.leash", *command)
        self._ready, self._started = False, time.monotonic()
        self._lines.clear()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, LEASH: "1", **self._environment},
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(f"cannot run {command[0]}: {error.strerror}") from None
        self._reader = threading.Thread(target=self._read, name="engine-output", daemon=True)
        self._reader.start()

    def wait_ready(
        self, *, timeout_s: float | None = None, progress: Progress | None = None
    ) -> None:
        """Wait until the server answers.

        Args:
            timeout_s: seconds since the start; those it was made with by default.
            progress: called with the phase and the seconds since the start, ten times a second.

        Raises:
            EngineError: the server died, took too long, or another has its port; it is stopped.
        """
        process = self._process
        if process is None:
            raise EngineError(f"{self.what} has not been started; call start() first")
        limit = self._start_timeout_s if timeout_s is None else timeout_s
        try:
            self._wait_ready(process, limit, progress)
        except EngineError:
            self.stop()
            raise

    def _wait_ready(
        self, process: subprocess.Popen[bytes], limit: float, progress: Progress | None
    ) -> None:
        while True:
            elapsed = time.monotonic() - self._started
            phase = self._probe()
            if process.poll() is not None:
                raise EngineError(self._explain(process.returncode))
            if progress is not None:
                progress(phase, elapsed)
            if phase is Phase.READY:
                self._ready = True
                self._lines.clear()
                return
            if elapsed > limit:
                raise EngineError(
                    f"{self.what} did not answer within {limit:g} s: {find_reason(self._lines)}; "
                    f"it was started with: {self.shown_command}; {self.advice}"
                )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until the server has ended; return its status, or None after the time."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Stop the server and every process in its group; harmless when it does not run.

        Args:
            grace_s: seconds between asking (SIGTERM) and killing (SIGKILL).
        """
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            _signal_group(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
        # Also what outlived its parent: vLLM's workers, say.
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        if self._reader is not None:
            self._reader.join(1.0)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _read(self) -> None:
        """Drain the server's output: a full pipe would halt it."""
        assert self._process is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for raw in self._process.stdout:
                line = raw.decode("utf-8", "replace").rstrip()
                if not self._ready:
                    self._lines.append(line)
                if self._echo is not None:
                    # A terminal that has been closed, a full disk: the server is drained all the
                    # same.
                    with contextlib.suppress(OSError, ValueError):
                        print(line, file=self._echo, flush=True)

    def _probe(self) -> Phase:
        """Ask the server how far it is."""
        status, _ = self._get(self._probe_path)
        if status is None:
            return Phase.STARTING
        return Phase.READY if status == 200 else Phase.LOADING

    def _get(self, path: str) -> tuple[int | None, bytes]:
        """Return status and body of a GET request, or None where nothing answers."""
        host = url_host(self.host).strip("[]")
        connection = http.client.HTTPConnection(host, self.port, timeout=_REQUEST_S)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read()
        except (OSError, http.client.HTTPException):
            return None, b""
        finally:
            connection.close()

    def _explain(self, status: int) -> str:
        """Say why the server ended before it was ready."""
        if self._reader is not None:
            self._reader.join(1.0)
        return (
            f"{self.what} ended while starting ({describe_status(status)}): "
            f"{find_reason(self._lines)}; it was started with: {self.shown_command}"
        )


class EngineProcess(ServerProcess):
    """A model server that runs as a child process; see ``Engine`` for the interface.

    Args:
        plan: what to start.
        echo: where to copy everything that the server prints; nothing by default.
    """

    what = "the model server"
    advice = "wait longer with --start-timeout; `kidrails engine` shows more with --verbose"

    def __init__(self, plan: EnginePlan, *, echo: Echo | None = None) -> None:
        super().__init__(
            plan.command,
            host=plan.host,
            port=plan.port,
            environment=plan.environment,
            leashed=plan.leashed,
            start_timeout_s=plan.start_timeout_s,
            echo=echo,
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

    @property
    def shown_command(self) -> str:
        """The command as one would type it into a shell."""
        return self.plan.shown_command

    def _probe(self) -> Phase:
        """Ask the server how far it is."""
        health, _ = self._get("/health")
        if health is None:
            return Phase.STARTING
        if health != 200:
            return Phase.LOADING
        status, body = self._get("/v1/models")
        if status != 200:
            return Phase.LOADING
        try:
            offered = {str(model["id"]) for model in json.loads(body)["data"]}
        except (ValueError, KeyError, TypeError):
            return Phase.LOADING
        if self.plan.name not in offered:
            raise EngineError(
                f"{self.url} offers {', '.join(sorted(offered))}, not {self.plan.name}: another "
                "model server took the port; stop it or choose another with --port"
            )
        return Phase.READY


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
