"""Runs the proxy with uvicorn: one process or several, and an end that cuts nobody off."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import replace
from types import FrameType
from typing import Final

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from kidrails_guard.errors import KidRailsError, UsageError
from kidrails_guard.proxy.connection import BoundedConnection
from kidrails_guard.proxy.deployment import Deployment, describe
from kidrails_guard.proxy.service import Service

ENVIRONMENT: Final = "KIDRAILS_DEPLOYMENT"
_MULTIPROCESS_METRICS: Final = "PROMETHEUS_MULTIPROC_DIR"
_STARTUP_S: Final = 180.0
_log: Final = logging.getLogger("kidrails.proxy")


class LogLines(logging.Formatter):
    """One JSON object a line, so that a log collector needs no pattern."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON; exceptions by type only, since their text may quote."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
        return json.dumps(line, ensure_ascii=False)


def set_up_logging(level: str, form: str) -> None:
    """Log to stderr, as lines for people or as JSON for collectors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        LogLines()
        if form == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if level != "debug":
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def drain_on_signal(service: Service) -> None:
    """Begin to end open streams when the process is told to stop; uvicorn waits for them."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if not callable(before):
            continue

        def handle(number: int, frame: FrameType | None, then: object = before) -> None:
            loop.call_soon_threadsafe(service.drain)
            if callable(then):
                then(number, frame)

        signal.signal(number, handle)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # it would cut streams and records off
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def worker_app() -> Starlette:
    """Return the application of a worker process, from its environment."""
    level, form = os.environ.get("KIDRAILS_LOG", "info,text").split(",")
    set_up_logging(level, form)
    try:
        return Deployment.from_json(os.environ[ENVIRONMENT]).app(on_start=drain_on_signal)
    except KidRailsError as error:
        _log.error("%s", error)
        raise SystemExit(STARTUP_FAILURE) from None


class Workers(Multiprocess):
    """Worker processes: says which one died, and gives up when none can start.

    Attributes:
        ready: set once one of them has answered.
        failed: whether it has given up.
    """

    def __init__(
        self, config: uvicorn.Config, sockets: list[socket.socket], ready: threading.Event
    ) -> None:
        super().__init__(config, sockets=sockets)
        self.ready, self.failed = ready, False
        self._died = 0

    def keep_subprocess_alive(self) -> None:
        """Start another worker in the place of one that has died."""
        stopping, before = self.should_exit.is_set(), list(self.processes)
        super().keep_subprocess_alive()
        for process in before:
            code = process.exitcode
            if stopping or code is None:
                continue
            self._died += 1
            _log.warning("worker %s ended with %s", process.pid, code)
            lost = not self.ready.is_set() and self._died >= 3 * len(before)
            if code == STARTUP_FAILURE or lost:
                _log.error("no worker can start: giving up; the reason stands above")
                self.failed = True
                self.should_exit.set()
                return


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """Return a socket that listens.

    Args:
        host: address.
        port: 0 for any free one.
        option: which names the port, for the error.

    Raises:
        UsageError: the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{option}: cannot listen on {host}:{port} ({reason}); choose another with {option} N"
        ) from None
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener


def serve(
    deployment: Deployment,
    *,
    host: str,
    port: int,
    workers: int = 1,
    log_level: str = "info",
    log_form: str = "text",
) -> int:
    """Run the proxy until it is told to stop; return an exit status.

    Raises:
        KidRailsError: something that the operator chose does not hold.
    """
    set_up_logging(log_level, log_form)
    if workers > 1:
        deployment.check()
    listeners = [bind(host, port)]
    port = listeners[0].getsockname()[1]
    if deployment.metrics_port is not None:
        listeners.append(bind(host, deployment.metrics_port, "--metrics-port"))
        # Workers know the page's port from here; 0 stood for any free one.
        deployment = replace(deployment, metrics_port=listeners[1].getsockname()[1])
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    os.environ[ENVIRONMENT] = deployment.to_json()
    os.environ["KIDRAILS_LOG"] = f"{log_level},{log_form}"
    config = uvicorn.Config(
        "kidrails_guard.proxy.server:worker_app",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        http=BoundedConnection,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nothing reads a caller's address, so no header may name one
        server_header=False,
        date_header=False,
        backlog=2048,
        timeout_keep_alive=65,
        # A worker that is still loading its checks on a busy machine must not be taken for hung.
        timeout_worker_healthcheck=30,
        timeout_graceful_shutdown=int(deployment.settings.shutdown_s) + 5,
    )
    up = threading.Event()
    ready = threading.Thread(
        target=_say_when_ready,
        args=(describe(deployment, url=url, workers=workers), host, port, up),
    )
    ready.daemon = True
    with contextlib.ExitStack() as stack:
        if workers == 1:
            config.app = deployment.app(on_start=drain_on_signal)
            config.factory = False
            ready.start()
            server = uvicorn.Server(config)
            # uvicorn ends gracefully and then raises the signal again; that is no failure.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            with contextlib.suppress(KeyboardInterrupt):
                server.run(sockets=listeners)
            return 0 if server.started else 1
        if deployment.measured and _MULTIPROCESS_METRICS not in os.environ:
            folder = _temporary_folder()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            os.environ[_MULTIPROCESS_METRICS] = folder
        ready.start()
        supervisor = Workers(config, listeners, up)
        supervisor.run()
    return 1 if supervisor.failed else 0


def _temporary_folder() -> str:
    try:
        return tempfile.mkdtemp(prefix="kidrails-metrics-")
    except OSError:
        raise UsageError(
            "--metrics: several workers add their counts up in a folder, and no temporary one can "
            "be written; mount a tmpfs at /tmp, or set TMPDIR"
        ) from None


def _say_when_ready(text: str, host: str, port: int, up: threading.Event) -> None:
    """Print the ready line once the proxy answers; a wildcard address is asked at home."""
    asked = f"[{host}]" if ":" in host else host
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:
            asked = "[::1]" if ":" in host else "127.0.0.1"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + _STARTUP_S
    while time.monotonic() < end:
        with (
            contextlib.suppress(OSError),
            opener.open(f"http://{asked}:{port}/health", timeout=5) as response,
        ):
            if response.status == 200:
                up.set()
                print(text, flush=True)
                return
        time.sleep(0.05)
