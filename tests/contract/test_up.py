"""`kidrails up`: one command, one tree of processes, one ready line, and nothing left behind."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from page_server import free_port, running

pytest.importorskip("gradio", reason="the page's extra is not installed; run: make install")

from kidrails_guard.audit import read_events
from kidrails_guard.cli import main
from kidrails_guard.commands import up, up_parts
from kidrails_guard.errors import EngineError, UsageError

START_S = 600


class Upstream(http.server.BaseHTTPRequestHandler):
    """A model server that says one sentence, streamed."""

    def do_GET(self) -> None:
        self._send(json.dumps({"object": "list", "data": [{"id": "stand-in", "object": "model"}]}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": "Wolves howl to find each other."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send(json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}))

    def _send(self, body: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


class Running:
    """A `kidrails up` that is ready."""

    def __init__(self, process: subprocess.Popen[str], log: Path, folder: Path) -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"it ended with {process.wait(10)}: {log.read_text()}")
        self.process, self.log, self.folder = process, log, folder
        self.facts: dict[str, Any] = json.loads(line)
        self.root = psutil.Process(process.pid)
        self.tree = [self.root, *self.root.children(recursive=True)]

    def ask(self, text: str) -> httpx.Response:
        return httpx.post(
            f"{self.facts['api']}/chat/completions",
            headers={"authorization": f"Bearer {self.facts['api_key']}"},
            json={
                "model": "any",
                "messages": [{"role": "user", "content": text}],
                "max_tokens": 12,
            },
            timeout=120,
            trust_env=False,
        )

    def part(self, word: str) -> psutil.Process:
        """Return the leash of a part, by a word of its command."""
        (found,) = [p for p in self.root.children() if word in p.cmdline()]
        return found

    def gone(self) -> list[str]:
        """Wait for the tree to end; return what has not."""
        _, alive = psutil.wait_procs(self.tree, timeout=20)
        return [" ".join(p.cmdline()) for p in alive if p.status() != psutil.STATUS_ZOMBIE]


@contextlib.contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Running]:
    log = folder / "log"
    environment = {"KIDRAILS_CONFIG": str(folder / "config"), "TMPDIR": str(folder)}
    command = ["up", "--json", "--audit", str(folder / "audit")]
    for option in ("--port", "--guard-port"):
        command += [option, str(free_port())]
    with running([*command, *arguments], log=log, environment=environment) as process:
        yield Running(process, log, folder)


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "it did not happen within a minute"
        time.sleep(0.1)


def reachable(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, trust_env=False).status_code < 500
    return False


@pytest.mark.timeout(START_S)
def test_model_guard_and_page_come_up_and_go_together(tmp_path: Path) -> None:
    with started(tmp_path, "--engine-port", str(free_port()), "--band", "5-6") as it:
        page, api = it.facts["page"], it.facts["api"]
        assert httpx.get(f"{page}ready", trust_env=False).text == "ready"
        assert httpx.get(page, trust_env=False).headers["location"] == "/grown-up/setup"
        assert httpx.get(f"{api.removesuffix('/v1')}/ready", trust_env=False).status_code == 200
        # A real model, and a real guard in front of it.
        answer = it.ask("Why do wolves howl?")
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"]
        held = it.ask("my uncle hits me and says i must not tell")
        assert held.json()["choices"][0]["finish_reason"] == "content_filter"
        assert held.headers["x-kidrails-action"] == "crisis"
        assert {e.band for e in read_events(tmp_path / "audit")} == {"5-6"}
        # Without this run's key nobody gets in: the band hangs on it.
        assert httpx.get(f"{api}/models", trust_env=False).status_code == 401
        assert len(it.root.children()) == 3
        assert list(tmp_path.glob("kidrails-*/keys.yaml"))
        it.process.send_signal(signal.SIGINT)
        assert it.process.wait(30) == 0
        assert it.gone() == []
        left = {path.name for path in tmp_path.glob("kidrails-*")}
        assert left <= {f"kidrails-page-{os.getuid()}"}  # Gradio's, of all runs
        assert "Traceback" not in it.log.read_text()
        assert it.process.stdout is not None
        assert it.process.stdout.read() == ""  # one line, the ready one


@pytest.mark.timeout(START_S)
def test_a_guard_that_dies_comes_back_and_a_kill_leaves_nothing(
    tmp_path: Path, upstream: str
) -> None:
    with started(tmp_path, "--upstream", upstream) as it:
        assert it.facts["upstream"] == upstream
        assert len(it.root.children()) == 2  # no model of our own
        guard = it.part("serve")
        for process in [*guard.children(recursive=True), guard]:
            process.kill()
        wait_until(lambda: "the guard answers again" in it.log.read_text())
        wait_until(lambda: reachable(f"{it.facts['api'].removesuffix('/v1')}/health"))
        assert it.ask("Why do wolves howl?").status_code == 200
        it.tree = [it.root, *it.root.children(recursive=True)]
        it.process.kill()  # nobody can tidy up now
        it.process.wait(10)
        assert it.gone() == []


def test_what_is_wrong_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIDRAILS_CONFIG", str(tmp_path))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        bad = tmp_path / "bad.yaml"
        bad.write_text("name: x\nodd: 1\n")
        for arguments, said in (
            (["--policy", str(bad)], "odd: unknown key"),
            (["--policy", str(tmp_path / "none.yaml")], "no such file"),
            (["--band", "13-15"], "5-6, 7-9, 10-12"),
            (["--model", str(tmp_path / "none.gguf")], "no such file"),
            (["--upstream", "http://localhost:1/v1", "--model", "x"], "leave out --model"),
            (["--upstream", "notaurl"], "is neither an http(s) URL"),
            (["--guard-args", "--keys other"], "set by `kidrails up`"),
            (["--guard-args", "--hos 0.0.0.0"], "set by `kidrails up`"),
            (["--port", "99999"], "1 to 65535"),
        ):
            assert main(["up", *arguments]) == 2, arguments
            assert said in capsys.readouterr().err
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_two_that_start_at_once_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIDRAILS_CONFIG", str(tmp_path / "config"))
    order: list[str] = []

    def start_too() -> None:
        with up._alone():
            order.append("second")

    second = threading.Thread(target=start_too)
    with up._alone():
        second.start()
        end = time.monotonic() + 60
        while not (said := capsys.readouterr().err) and time.monotonic() < end:
            time.sleep(0.01)
        assert "another one is starting" in said
        order.append("first")
    second.join(60)
    assert order == ["first", "second"]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KIDRAILS_CONFIG", str(tmp_path / "file" / "nowhere"))
    with up._alone():
        order.append("third")
    assert order[-1] == "third"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield int(server.getsockname()[1])


def test_a_usual_port_in_use_is_said_and_the_next_one_taken(
    taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    used = {taken + 1}
    port = up_parts._port("--port", None, taken, "127.0.0.1", used)
    assert port > taken + 1
    assert port in used
    said = capsys.readouterr().err
    assert f"port {taken} is in use by another program; using {port}" in said


def test_a_chosen_port_in_use_is_an_error_with_the_next_one(taken: int) -> None:
    with pytest.raises(EngineError, match=rf"port {taken} .* in use .* --port \d+"):
        up_parts._port("--port", taken, 7860, "127.0.0.1", set())
    with pytest.raises(UsageError, match="has this port already"):
        up_parts._port("--port", 4000, 7860, "127.0.0.1", {4000})


@pytest.mark.parametrize(
    ("platform", "display", "wanted", "terminal", "opens"),
    [
        ("linux", "", True, True, False),
        ("linux", ":0", True, True, True),
        ("linux", ":0", False, True, False),
        ("linux", ":0", True, False, False),
        ("darwin", "", True, True, True),
    ],
)
def test_a_browser_opens_only_where_somebody_sees_it(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    display: str,
    wanted: bool,
    terminal: bool,
    opens: bool,
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    up._open_browser("http://127.0.0.1:7860/", wanted=wanted)
    assert opened == (["http://127.0.0.1:7860/"] if opens else [])
