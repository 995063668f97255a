"""Several servers as one tree, with stand-ins for model, guard and page."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from page_server import free_port

from kidrails_guard.commands import up, up_parts
from kidrails_guard.engine.process import ServerProcess
from kidrails_guard.engine.supervisor import BackOff, EngineEvent, EventKind, Keeper
from kidrails_guard.errors import EngineError
from kidrails_guard.supervisor import Interrupted, Part, Tree, ends_on_signals, kidrails_part

SERVER = """
import http.server, os, sys, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(str(os.getpid()).encode())
    def log_message(self, *_):
        pass
time.sleep(float(sys.argv[2]))
if len(sys.argv) > 3:
    sys.exit("PlantedError: no such thing")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


class Stage:
    """Makes parts and remembers what they told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, EngineEvent]] = []
        self.changed = threading.Condition()

    def part(self, name: str, *, delay: float = 0.0, fails: bool = False) -> tuple[Part, int]:
        port = free_port()
        command = (sys.executable, "-c", SERVER, str(port), str(delay), *(["x"] if fails else []))

        def make() -> ServerProcess:
            process = ServerProcess(command, host="127.0.0.1", port=port)
            process.what = name
            return process

        def tell(event: EngineEvent) -> None:
            with self.changed:
                self.events.append((name, event))
                self.changed.notify_all()

        keeper = Keeper(make, on_event=tell, back_off=BackOff(first_s=0.05))
        return Part(name, keeper), port

    def wait_for(self, name: str, kind: EventKind) -> None:
        def told() -> bool:
            return any(n == name and e.kind is kind for n, e in self.events)

        with self.changed:
            assert self.changed.wait_for(told, timeout=30)


def pid_at(port: int) -> int:
    return int(httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).text)


def test_all_parts_answer_and_none_is_left() -> None:
    stage = Stage()
    parts = [stage.part(name) for name in ("the model", "the guard", "the page")]
    tree = Tree([part for part, _ in parts])
    tree.start()
    try:
        tree.wait_ready()
        pids = [pid_at(port) for _, port in parts]
        assert len(set(pids)) == 3
    finally:
        tree.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_part_that_cannot_start_ends_the_others_and_says_why_at_once() -> None:
    stage = Stage()
    slow, _ = stage.part("the model", delay=3_600.0)
    broken, _ = stage.part("the page", fails=True)
    tree = Tree([slow, broken])
    tree.start()
    with pytest.raises(EngineError, match=r"the page ended while starting.*PlantedError"):
        tree.wait_ready()
    assert not slow.keeper.alive


def test_a_port_in_use_stops_what_was_started() -> None:
    stage = Stage()
    first, port = stage.part("the model")
    second = Part(
        "the guard",
        Keeper(lambda: ServerProcess((sys.executable, "-V"), host="127.0.0.1", port=port)),
    )
    tree = Tree([first])
    tree.start()
    tree.wait_ready()
    other = Tree([stage.part("the page")[0], second])
    try:
        with pytest.raises(EngineError, match="in use"):
            other.start()
        assert not other.parts[0].keeper.alive
    finally:
        tree.stop()


def test_a_part_that_dies_is_told_and_comes_back() -> None:
    stage = Stage()
    guard, port = stage.part("the guard")
    tree = Tree([guard])
    tree.start()
    try:
        tree.wait_ready()
        before = pid_at(port)
        psutil.Process(before).kill()
        stage.wait_for("the guard", EventKind.READY)
        assert pid_at(port) != before
    finally:
        tree.stop()
    assert [e.kind for _, e in stage.events] == [EventKind.DIED, EventKind.READY]


def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    part, _ = Stage().part("the page")
    tree = Tree([part])
    tree.start()
    tree.stop()
    tree.stop()
    assert not part.keeper.alive


def test_a_part_comes_back_and_is_drained_where_nobody_can_be_told(tmp_path: Path) -> None:
    class Closed:
        """A stderr whose reader has gone."""

        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    def gone(_event: EngineEvent) -> None:
        raise BrokenPipeError

    port, flag = free_port(), tmp_path / "said all"
    talks = "print(1, flush=True); print('x' * 999_999, flush=True)"
    talks += f"; open({str(flag)!r}, 'w'); {SERVER}"
    command = (sys.executable, "-c", talks, str(port), "0")
    keeper = Keeper(
        lambda: ServerProcess(command, host="127.0.0.1", port=port, echo=Closed()),
        on_event=gone,
        back_off=BackOff(first_s=0.05),
    )
    keeper.start()
    try:
        keeper.wait_ready(timeout_s=60)
        assert flag.exists()
        psutil.Process(pid_at(port)).kill()
        end = time.monotonic() + 60
        while not keeper.restarts and time.monotonic() < end:
            time.sleep(0.05)
        assert keeper.restarts == 1
    finally:
        keeper.stop()


@pytest.mark.parametrize("ignored", [True, False], ids=["nohup", "usual"])
def test_a_closed_terminal_ends_it_but_not_under_nohup(ignored: bool) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        ends_on_signals()
        if ignored:
            signal.raise_signal(signal.SIGHUP)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM if ignored else signal.SIGHUP)
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)


def test_a_part_has_as_long_as_was_asked_for_at_every_start() -> None:
    part = kidrails_part(
        "the page", "demo", ["--port", "1"], host="127.0.0.1", port=1, probe_path="/ready",
        start_timeout_s=700.0,
    )  # fmt: skip
    assert part.keeper._make()._start_timeout_s == 700.0


def test_up_hands_the_limit_to_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIDRAILS_CONFIG", str(tmp_path / "config"))
    parser = argparse.ArgumentParser()
    up.add_arguments(parser)
    options = ["--start-timeout", "700", "--audit", str(tmp_path)]
    for option in ("--port", "--guard-port", "--engine-port"):
        options += [option, str(free_port())]
    planned = up_parts.plan_parts(parser.parse_args(options), None, tmp_path)
    assert [part.name for part in planned.parts] == ["the model", "the guard", "the page"]
    assert {part.keeper._make()._start_timeout_s for part in planned.parts} == {700.0}
    for wrong in ("0", "-5", "nan", "inf", "soon"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--start-timeout", wrong])
