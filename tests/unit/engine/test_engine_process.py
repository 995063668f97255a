from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from kidrails_guard.engine.base import EnginePlan, Phase
from kidrails_guard.engine.endings import describe_status, find_reason
from kidrails_guard.engine.ports import next_free_port, port_is_free, require_free_port
from kidrails_guard.engine.process import EngineProcess
from kidrails_guard.engine.supervisor import BackOff, EngineEvent, EventKind, Supervisor
from kidrails_guard.errors import EngineError

Plan = Callable[..., EnginePlan]
QUICK = BackOff(first_s=0.05, most_s=0.2)


def until(condition: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    """Wait for something that another process or thread does; the bound is only a safety net."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return value


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def offered(plan: EnginePlan) -> list[str]:
    connection = http.client.HTTPConnection(plan.host, plan.port, timeout=5)
    try:
        connection.request("GET", "/v1/models")
        return [model["id"] for model in json.loads(connection.getresponse().read())["data"]]
    finally:
        connection.close()


class TestPorts:
    def test_a_taken_port_is_named_with_the_next_free_one(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            assert not port_is_free("127.0.0.1", port)
            following = next_free_port("127.0.0.1", port)
            assert following is not None
            with pytest.raises(EngineError, match=rf"port {port} .* in use .* --port {following}"):
                require_free_port("127.0.0.1", port)
        require_free_port("127.0.0.1", port)

    @pytest.mark.parametrize("host", ["192.0.2.77", "no such host"])
    def test_an_address_that_is_not_ours_is_an_error(self, host: str) -> None:
        with pytest.raises(EngineError, match="address"):
            port_is_free(host, 8000)

    def test_there_is_nothing_above_the_last_port(self) -> None:
        assert next_free_port("127.0.0.1", 65535) is None


class TestProcess:
    def test_it_starts_tells_its_phases_and_stops(self, plan_of: Plan, cleanup: list) -> None:
        engine = EngineProcess(plan_of("late"))
        cleanup.append(engine)
        assert not engine.alive
        engine.start()
        phases: list[Phase] = []
        engine.wait_ready(progress=lambda phase, _: phases.append(phase))
        assert phases[-1] is Phase.READY
        assert Phase.LOADING in phases
        assert engine.alive
        assert offered(engine.plan) == ["fake"]
        pid = engine.pid
        engine.stop()
        assert pid is not None
        assert gone(pid)
        assert not engine.alive
        engine.stop()
        assert port_is_free("127.0.0.1", engine.plan.port)

    @pytest.mark.parametrize(
        ("mode", "message"),
        [
            ("dies", r"\(exit status 3\): the planets stand badly; it was started with: .*dies"),
            ("raises", r"\(exit status 1\): ValueError: the stars as well"),
            ("silent", r"\(exit status 4\): it printed nothing"),
            ("other", r"offers somebody-else, not fake"),
        ],
    )
    def test_a_failed_start_says_why(
        self, plan_of: Plan, cleanup: list, mode: str, message: str
    ) -> None:
        engine = EngineProcess(plan_of(mode))
        cleanup.append(engine)
        engine.start()
        with pytest.raises(EngineError, match=message):
            engine.wait_ready()

    def test_a_start_that_takes_too_long_is_stopped(self, plan_of: Plan, cleanup: list) -> None:
        engine = EngineProcess(plan_of("slow"))
        cleanup.append(engine)
        engine.start()
        with pytest.raises(EngineError, match=r"within 0.3 s: .* --start-timeout"):
            engine.wait_ready(timeout_s=0.3)
        assert not engine.alive

    def test_a_taken_port_is_an_error_before_the_start(self, plan_of: Plan) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            engine = EngineProcess(plan_of("ok", port=taken.getsockname()[1]))
            with pytest.raises(EngineError, match="in use"):
                engine.start()
        assert not engine.alive

    def test_a_missing_program_is_an_error(self, plan_of: Plan) -> None:
        engine = EngineProcess(plan_of("ok", command=("/no/such/program",), leashed=True))
        with pytest.raises(EngineError, match="cannot run /no/such/program"):
            engine.start()

    def test_waiting_without_a_start_is_an_error(self, plan_of: Plan) -> None:
        with pytest.raises(EngineError, match="has not been started"):
            EngineProcess(plan_of("ok")).wait_ready()

    def test_a_server_that_ignores_the_request_to_stop_is_killed(
        self, plan_of: Plan, cleanup: list
    ) -> None:
        engine = EngineProcess(plan_of("stubborn"))
        cleanup.append(engine)
        engine.start()
        engine.wait_ready()
        engine.stop(grace_s=0.2)
        assert not engine.alive
        assert port_is_free("127.0.0.1", engine.plan.port)

    def test_what_the_server_started_ends_with_it(self, plan_of: Plan, cleanup: list) -> None:
        engine = EngineProcess(plan_of("parent"))
        cleanup.append(engine)
        engine.start()
        engine.wait_ready()
        grandchild = int(offered(engine.plan)[1])
        assert not gone(grandchild)
        engine.stop(grace_s=1.0)
        assert until(lambda: gone(grandchild))

    def test_the_server_ends_when_its_starter_is_killed(self, plan_of: Plan) -> None:
        plan = plan_of("parent")
        code = (
            "import sys, time\n"
            "from kidrails_guard.engine.base import Backend, EnginePlan\n"
            "from kidrails_guard.engine.process import EngineProcess\n"
            f"plan = EnginePlan(Backend.VLLM, 'fake', 'm', '127.0.0.1', {plan.port}, "
            f"{plan.command!r}, {{}})\n"
            "engine = EngineProcess(plan); engine.start(); engine.wait_ready()\n"
            "print(engine.pid, flush=True); time.sleep(600)\n"
        )
        starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert starter.stdout is not None
        leash = int(starter.stdout.readline())
        grandchild = int(offered(plan)[1])
        starter.kill()
        starter.wait()
        starter.stdout.close()
        assert until(lambda: gone(leash) and gone(grandchild))
        assert until(lambda: port_is_free("127.0.0.1", plan.port))

    def test_nothing_that_is_printed_later_is_kept(self, plan_of: Plan, cleanup: list) -> None:
        echo = io.StringIO()
        engine = EngineProcess(plan_of("ok"), echo=echo)
        cleanup.append(engine)
        engine.start()
        engine.wait_ready()
        offered(engine.plan)
        assert until(lambda: "secret" in echo.getvalue())
        assert not any("secret" in line for line in engine._lines)

    def test_a_large_output_does_not_halt_the_server(self, plan_of: Plan, cleanup: list) -> None:
        engine = EngineProcess(plan_of("loud"))
        cleanup.append(engine)
        engine.start()
        engine.wait_ready()
        assert offered(engine.plan) == ["fake"]


class TestSupervisor:
    def test_what_was_killed_comes_back(self, plan_of: Plan, cleanup: list) -> None:
        events: list[EngineEvent] = []
        engine = Supervisor(plan_of("ok"), on_event=events.append, back_off=QUICK)
        cleanup.append(engine)
        engine.start()
        engine.wait_ready()
        for round_ in (1, 2):
            first = engine.pid
            assert first is not None
            os.killpg(first, signal.SIGKILL)
            assert until(lambda wanted=round_: engine.restarts == wanted)
            assert engine.pid != first
            assert offered(engine.plan) == ["fake"]
        until(lambda: len(events) == 4)
        assert [event.kind for event in events] == [EventKind.DIED, EventKind.READY] * 2
        assert events[0].detail == "killed by SIGKILL"
        assert [event.pause_s for event in events] == [0.05, 0, 0.1, 0]
        engine.stop()
        assert not engine.alive
        assert engine.restarts == 2

    def test_a_first_start_that_fails_is_not_tried_again(
        self, plan_of: Plan, cleanup: list
    ) -> None:
        events: list[EngineEvent] = []
        engine = Supervisor(plan_of("dies"), on_event=events.append, back_off=QUICK)
        cleanup.append(engine)
        engine.start()
        with pytest.raises(EngineError, match="planets"):
            engine.wait_ready()
        assert events == []
        assert engine.restarts == 0

    def test_a_restart_that_fails_is_tried_again(
        self, plan_of: Plan, cleanup: list, tmp_path: Path
    ) -> None:
        """The first start works, the second finds its port taken, the third works."""
        events: list[EngineEvent] = []
        engine = Supervisor(plan_of("ok"), on_event=events.append, back_off=QUICK)
        cleanup.append(engine)
        engine.start()
        engine.wait_ready()
        assert engine.pid is not None
        os.killpg(engine.pid, signal.SIGKILL)
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

            def take() -> bool:
                try:
                    taken.bind(("127.0.0.1", engine.plan.port))
                except OSError:
                    return False
                taken.listen()
                return True

            until(take)
            until(lambda: any(event.kind is EventKind.FAILED for event in events))
        assert until(lambda: events[-1].kind is EventKind.READY)
        failures = [event for event in events if event.kind is EventKind.FAILED]
        assert all("in use" in event.detail for event in failures)
        assert engine.restarts == 1

    def test_stopping_while_it_waits_to_restart(self, plan_of: Plan, cleanup: list) -> None:
        events: list[EngineEvent] = []
        engine = Supervisor(
            plan_of("ok"), on_event=events.append, back_off=BackOff(first_s=600, most_s=600)
        )
        cleanup.append(engine)
        engine.start()
        engine.wait_ready()
        assert engine.pid is not None
        os.killpg(engine.pid, signal.SIGKILL)
        until(lambda: events)
        engine.stop()
        assert not engine.alive
        assert len(events) == 1

    def test_pauses_grow_to_a_limit(self) -> None:
        pauses = [BackOff(first_s=1, factor=3, most_s=20).pause(n) for n in range(1, 6)]
        assert pauses == [1, 3, 9, 20, 20]
        assert BackOff().pause(10_000) == 30.0


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["0.0 E gguf: bad magic", "0.1 E srv init: exiting"], "bad magic"),
        (["0.0 E srv init: exiting", "0.1 E llama_model_load: error loading model: x"], "x"),
        (["Traceback", "ValueError: one", "RuntimeError: Engine core failed"], "RuntimeError: Eng"),
        (["(EngineCore pid=3) ERROR 11-23 [core.py:9] torch.OutOfMemoryError: CUDA"], "torch.Out"),
        (["a", "b", "c", "d"], "b | c | d"),
        ([], "it printed nothing"),
    ],
)
def test_the_telling_line_is_found(lines: list[str], reason: str) -> None:
    assert find_reason(lines).startswith(reason)


def test_statuses_in_words() -> None:
    assert describe_status(-15) == "killed by SIGTERM"
    assert describe_status(143) == "killed by SIGTERM"
    assert describe_status(200) == "exit status 200"
