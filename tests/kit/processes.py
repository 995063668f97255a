"""The product as processes: `kidrails serve`, its model server, and those who talk with them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml
from upstreams import CALM, wait_until

KIT = Path(__file__).parent
SERVE = (sys.executable, "-m", "kidrails_guard", "serve")
TALK = " ".join([CALM] * 40)
HELLO = "why do wolves howl?"
PLAIN = ssl.create_default_context()  # made once: each takes a while, and none is used
ASK = {"model": "m", "messages": [{"role": "user", "content": HELLO}]}


def answers(url: str) -> bool:
    """Whether a URL answers with success."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def process(
    *command: str, until: str, within_s: float = 120, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Run a process until the end of the block, once a URL answers."""
    pipe = subprocess.PIPE
    running = subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, process_group=0, **options
    )
    try:
        wait_until(
            lambda: answers(until) or running.poll() is not None,
            what=command[-1],
            within_s=within_s,
        )
        assert running.poll() is None, running.stderr.read() if running.stderr else ""
        yield running
    finally:
        # Its workers too: they hold the pipes, whose end `communicate` waits for.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()


@contextlib.contextmanager
def model(port: int, *, pause_s: float = 0.02) -> Iterator[subprocess.Popen[str]]:
    """Run a model server that says `TALK`."""
    url = f"http://127.0.0.1:{port}/v1/models"
    server = str(KIT / "say_server.py")
    with process(sys.executable, server, str(port), str(pause_s), TALK, until=url) as running:
        yield running


@contextlib.contextmanager
def faulty_model(port: int) -> Iterator[subprocess.Popen[str]]:
    """Run a model server that fails as the request's model name says."""
    url = f"http://127.0.0.1:{port}/v1/models"
    server = str(KIT / "faulty_server.py")
    with process(sys.executable, server, str(port), TALK, until=url) as running:
        yield running


@contextlib.contextmanager
def proxy(
    upstream: int, port: int, *more: str, program: tuple[str, ...] = SERVE, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Run `kidrails serve`."""
    command = [*program, "--port", str(port), "--upstream", f"http://127.0.0.1:{upstream}", *more]
    with process(*command, until=f"http://127.0.0.1:{port}/health", **options) as running:
        yield running


def quick_policy(folder: Path, *checks: dict[str, Any], **more: Any) -> str:
    """Write the default policy with rules alone, which load at once; return its path."""
    source = KIT.parent.parent / "serve" / "policies" / "default.yaml"
    policy = yaml.safe_load(source.read_text(encoding="utf-8"))
    policy["checks"] = [{"name": "lexicon"}, {"name": "personal_data"}, *checks]
    path = folder / "quick.yaml"
    path.write_text(yaml.safe_dump({**policy, **more}), encoding="utf-8")
    return str(path)


class Listener(threading.Thread):
    """Reads one stream in the background.

    Attributes:
        status: of the answer; 0 where none came.
        text: what has been said so far.
        finish: why the reply ended.
        done: whether the stream ended as a stream should.
        broken: the type of what broke the connection, if anything did.
    """

    def __init__(self, port: int, **body: Any) -> None:
        super().__init__(daemon=True)
        self.port, self.body = port, {**ASK, "stream": True, **body}
        self.status, self.text, self.finish, self.done = 0, "", None, False
        self.broken = ""

    def run(self) -> None:
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        try:
            with httpx.stream("POST", url, json=self.body, timeout=60, verify=PLAIN) as response:
                self.status = response.status_code
                for line in response.iter_lines():
                    if line == "data: [DONE]":
                        self.done = True
                    elif line.startswith("data: "):
                        for choice in json.loads(line[6:])["choices"]:
                            self.text += choice["delta"].get("content", "")
                            self.finish = choice["finish_reason"] or self.finish
        except httpx.HTTPError as error:
            self.broken = type(error).__name__


class Load:
    """Callers that ask again and again until they are told to stop.

    Attributes:
        answered: each answer's status, or 0 where the connection broke.
        problems: what an answer had that none may have.
    """

    def __init__(self, port: int, callers: int, ask: Callable[[int], dict[str, Any]]) -> None:
        self.port, self.ask = port, ask
        self.answered: list[int] = []
        self.problems: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(callers)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)

    def more(self, number: int) -> None:
        """Wait until so many further answers have come."""
        goal = len(self.answered) + number
        wait_until(lambda: len(self.answered) >= goal, what=f"{number} more answers")

    def _run(self, caller: int) -> None:
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        with httpx.Client(timeout=60, verify=PLAIN) as client:
            while not self._stop.is_set():
                try:
                    response = client.post(url, **self.ask(caller))
                except httpx.HTTPError:
                    self.answered.append(0)
                    continue
                if "Traceback" in response.text or response.status_code == 500:
                    self.problems.append(response.text[:200])
                self.answered.append(response.status_code)


def metric(port: int, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that carry the labels."""
    page = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10, verify=PLAIN).text
    total = 0.0
    for line in page.splitlines():
        key, _, value = line.rpartition(" ")
        wanted = all(f'{label}="{said}"' in key for label, said in labels.items())
        if key.partition("{")[0] == name and wanted:
            total += float(value)
    return total
