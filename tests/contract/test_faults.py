"""What breaks in a real service, broken on purpose: kind endings, nothing unchecked, all recorded.

Every test runs `kidrails serve` as an operator does, breaks one thing that it needs, under load,
and looks at what callers got, at the metrics and at the audit log.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from planted import INTERRUPTED, is_kind
from processes import (
    ASK,
    HELLO,
    KIT,
    PLAIN,
    SERVE,
    TALK,
    Listener,
    Load,
    answers,
    faulty_model,
    metric,
    model,
    proxy,
    quick_policy,
)
from redis_process import RedisProcess
from upstreams import Says, free_port, served, wait_until

from kidrails_guard.audit import AuditRecord, iterate_records, log_files, read_inbox, verify

pytestmark = pytest.mark.slow
UNSAFE = "i dont want to be alive anymore"
DAY = 86_400


def say(text: str) -> dict:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def ask(port: int, text: str = HELLO, **more: object) -> httpx.Response:
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return httpx.post(url, json={**say(text), **more}, timeout=60, verify=PLAIN)


def records(folder: Path) -> list[AuditRecord]:
    """The records of a log, which must be untouched."""
    found = verify(folder)
    assert found.problems == ()
    read = list(iterate_records(folder))
    assert len(read) == found.lines
    return read


def messages(folder: Path) -> list[AuditRecord]:
    return [record for record in records(folder) if record.stage == "input"]


def stopped(guard) -> str:
    """End the service as a supervisor does; return what it wrote."""
    guard.send_signal(signal.SIGTERM)
    out, err = guard.communicate(timeout=40)
    assert guard.returncode == 0, err
    assert "Traceback" not in out + err
    assert "wolves" not in (out + err).lower()
    assert "alive" not in (out + err).lower()
    return out + err


# --- the model server


@dataclass
class Faulty:
    """A service in front of a model server whose faults a test chooses.

    Attributes:
        slow: callers whose requests never become whole, there from the beginning.
    """

    upstream: int
    port: int
    audit: Path
    slow: list[socket.socket]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> Iterator[Faulty]:
    upstream, port = free_port(), free_port()
    folder = tmp_path_factory.mktemp("faulty")
    more = ["--policy", quick_policy(folder), "--audit", str(folder / "audit"), "--metrics"]
    with (
        proxy(upstream, port, "--read-timeout", "1.5", *more) as guard,
        contextlib.ExitStack() as stack,
    ):
        slow = []
        for _ in range(200):
            caller = socket.create_connection(("127.0.0.1", port), timeout=30)
            slow.append(stack.enter_context(caller))
            caller.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nX: ")
        yield Faulty(upstream, port, folder / "audit", slow)
        stopped(guard)


FAULTS = {
    "kill": ("upstream_broken_off", 502),
    "hang": ("upstream_timeout", 504),
    "half": ("upstream_broken_off", 502),
    "garbage": ("upstream_garbage", 502),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_server_that_fails_in_mid_answer(faulty: Faulty, fault: str) -> None:
    upstream, port, audit = faulty.upstream, faulty.port, faulty.audit
    failure, status = FAULTS[fault]
    counted = metric(port, "kidrails_failures_total", kind=failure)
    with faulty_model(upstream):
        listeners = [Listener(port, model=fault) for _ in range(4)]
        for listener in listeners:
            listener.start()
        for listener in listeners:
            listener.join(30)
    for listener in listeners:
        assert (listener.done, listener.finish, listener.status) == (True, "length", 200)
        shown, _, kind = listener.text.rpartition("\n\n")
        assert kind in INTERRUPTED
        assert TALK.startswith(shown)
        assert len(shown) > 40  # what had passed was not taken back
    wait_until(
        lambda: metric(port, "kidrails_failures_total", kind=failure) >= counted + 4,
        what=f"four {failure}",
    )
    ended = [r for r in records(audit) if r.model == fault and r.stage == "output"]
    assert [r.note for r in ended] == ["upstream_failed"] * 4
    # What was held when it broke is counted as withheld and was never shown.
    for record in ended:
        assert record.length >= record.withheld_characters >= 0
    with faulty_model(upstream):
        whole = ask(port, model=fault)
    assert whole.status_code in {status, 502, 503}
    assert whole.json()["error"]["code"].startswith("upstream")
    assert "wolves" not in whole.text.lower()


@pytest.mark.parametrize("fault", ["silent", "rude", "absent"])
def test_a_model_server_that_does_not_answer_at_all(faulty: Faulty, fault: str) -> None:
    upstream, port, audit = faulty.upstream, faulty.port, faulty.audit
    running = faulty_model(upstream) if fault != "absent" else contextlib.nullcontext()
    with running:
        for stream in (False, True):
            response = ask(port, model=fault, stream=stream)
            assert response.status_code in {502, 503, 504}
            assert response.json()["error"]["code"].startswith("upstream")
        # What the guard answers itself needs no model.
        refused = ask(port, UNSAFE, model=fault)
        assert refused.status_code == 200
        assert is_kind(refused.json()["choices"][0]["message"]["content"])
    assert sum(r.model == fault for r in messages(audit)) == 3


def test_slow_callers_are_let_go_and_kept_nobody_out(faulty: Faulty) -> None:
    for caller in faulty.slow:
        assert caller.recv(65_536).startswith(b"HTTP/1.1 408")
    assert answers(f"http://127.0.0.1:{faulty.port}/health")


# --- the judge


def test_a_judge_that_is_down_hangs_or_talks_nonsense_refuses_kindly(tmp_path: Path) -> None:
    upstream, port, audit = free_port(), free_port(), tmp_path / "audit"
    place = free_port()
    options = {"base_url": f"http://127.0.0.1:{place}/v1", "model": "g", "format": "llama_guard"}
    judge = {"name": "judge", "timeout_ms": 600, "options": {**options, "timeout_ms": 400}}
    more = ["--policy", quick_policy(tmp_path, judge), "--audit", str(audit), "--metrics"]
    with model(upstream, pause_s=0), proxy(upstream, port, *more) as guard:
        for fault, judging in (
            ("down", contextlib.nullcontext()),
            ("hangs", socket.create_server(("127.0.0.1", place))),
            ("nonsense", served(Says("I am fine, thank you.").app, port=place)),
        ):
            with judging:
                streamed = ask(port, stream=True)
                assert (fault, streamed.status_code) == (fault, 200)
                assert streamed.headers["x-kidrails-action"] == "refuse"
                answer = ask(port).json()["choices"][0]
                assert is_kind(answer["message"]["content"])
                assert answer["finish_reason"] == "content_filter"
                # The rules still see what they see.
                assert ask(port, UNSAFE).headers["x-kidrails-action"] == "crisis"
        assert metric(port, "kidrails_check_failures_total", check="judge") == 9
        stopped(guard)
    assert [tuple(record.failed) for record in messages(audit)] == [("judge",)] * 9
    kinds = [entry.kind for entry in read_inbox(audit)]
    assert (kinds.count("crisis"), kinds.count("check_failed")) == (3, 1)


# --- Redis


def test_redis_killed_under_load_changes_no_verdict(tmp_path: Path) -> None:
    redis = RedisProcess(tmp_path)
    upstream, port, audit = free_port(), free_port(), tmp_path / "audit"

    def asked(caller: int) -> dict:
        text = UNSAFE if caller == 0 else HELLO
        return {"json": say(text), "headers": {"x-kidrails-session": f"s{caller}"}}

    more = ["--sessions", redis.url, "--audit", str(audit), "--metrics"]
    with (
        model(upstream, pause_s=0),
        proxy(upstream, port, "--policy", quick_policy(tmp_path), *more) as guard,
    ):
        failed = lambda: metric(port, "kidrails_failures_total", kind="session_store")  # noqa: E731
        try:
            with Load(port, 4, asked) as load:
                load.more(20)
                assert failed() == 0
                redis.kill()
                load.more(40)
                assert failed() > 0
                redis.start()
                wait_until(lambda: "program" in first_words(port), what="sessions again")
                load.more(20)
        finally:
            redis.kill()
        assert load.problems == []
        assert set(load.answered) == {200}
        said = stopped(guard)
    assert "Redis does not answer" in said
    assert "Redis answers again" in said
    asked_for = messages(audit)
    unsafe = [r for r in asked_for if r.action == "crisis"]
    assert {r.session for r in asked_for if r.action != "crisis"} & {
        r.session for r in unsafe
    } == set()
    assert len(unsafe) > 5


def first_words(port: int) -> str:
    """The first reply of a new session, which begins by saying that this is a program."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    headers = {"x-kidrails-session": f"new-{time.monotonic_ns()}"}
    response = httpx.post(url, json=ASK, headers=headers, timeout=30, verify=PLAIN)
    return str(response.json()["choices"][0]["message"]["content"])


# --- the disk


def test_a_full_audit_disk_under_load(tmp_path: Path) -> None:
    upstream, port, audit = free_port(), free_port(), tmp_path / "audit"
    more = ["--audit", str(audit), "--metrics"]
    # The kernel refuses to let any file grow beyond this: as on a full disk, in mid-line.
    room = 30_000

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    with (
        model(upstream, pause_s=0),
        proxy(upstream, port, "--policy", quick_policy(tmp_path), *more, preexec_fn=limit) as guard,
    ):
        lost = lambda: metric(port, "kidrails_failures_total", kind="audit")  # noqa: E731
        with Load(port, 4, lambda caller: {"json": ASK}) as load:
            wait_until(lambda: lost() > 5, what="a full disk")
        assert load.problems == []
        full = len(load.answered)
        # A child in danger is answered all the same.
        danger = ask(port, UNSAFE)
        assert danger.status_code == 200
        assert is_kind(danger.json()["choices"][0]["message"]["content"])
        resource.prlimit(guard.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert ask(port).status_code == 200  # without a restart
        stopped(guard)
    answered = load.answered[:full].count(200)
    found = records(audit)
    recorded = [r for r in found if r.stage == "output"]
    assert set(load.answered) == {200, 503}
    # No answer without its line; the one after the disk was freed is the one more.
    assert len(recorded) == answered + 1
    assert sum(path.stat().st_size for path, _, _ in log_files(audit)) > room
    assert "audit_failed" in [entry.kind for entry in read_inbox(audit)]


# --- the clock


def test_a_clock_that_jumps_under_load_loses_nothing(tmp_path: Path) -> None:
    upstream, port, audit = free_port(), free_port(), tmp_path / "audit"
    wrong = tmp_path / "wrong"
    wrong.write_text("0")
    program = (SERVE[0], str(KIT / "jumping_clock.py"), str(wrong), "serve")
    more = ["--policy", quick_policy(tmp_path), "--audit", str(audit), "--audit-days", "3"]
    asked = {"json": ASK, "headers": {"x-kidrails-session": "s"}}
    with (
        model(upstream, pause_s=0),
        proxy(upstream, port, *more, program=program) as guard,
    ):
        with Load(port, 3, lambda caller: asked) as load:
            for days in (0, 400, -400, 0):
                wrong.write_text(str(days * DAY))
                load.more(9)
        said = stopped(guard)
    assert "clock has jumped by 400.0 days" in said
    assert set(load.answered) == {200}
    found = records(audit)
    assert sum(r.stage == "input" for r in found) == len(load.answered)
    assert sum(r.stage == "output" for r in found) == len(load.answered)
    assert len(log_files(audit)) == 1  # nothing was taken for 400 days old, nothing misfiled
    assert len({r.time[:4] for r in found}) > 1  # it really jumped


# --- the end


def test_a_killed_worker_and_a_stop_signal_under_load(tmp_path: Path) -> None:
    upstream, port, audit = free_port(), free_port(), tmp_path / "audit"
    more = ["--policy", quick_policy(tmp_path), "--audit", str(audit), "--workers", "2"]
    with (
        model(upstream, pause_s=0.003),
        proxy(upstream, port, "--shutdown-seconds", "1", *more) as guard,
    ):
        workers = lambda: children(guard.pid)  # noqa: E731
        wait_until(lambda: len(workers()) == 2, what="two workers")
        with Load(port, 4, lambda caller: {"json": say("ok why?")}) as load:
            load.more(8)
            killed = workers()[-1]
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: killed not in workers(), what="its end")
            wait_until(lambda: len(workers()) == 2, what="a new worker")
            load.more(12)
        assert load.problems == []
        assert set(load.answered) <= {200, 0}
        broken = load.answered.count(0)  # those that were under way, and met the dead socket
        assert broken <= 4 * 3
        assert load.answered[-4:] == [200] * 4

        listeners = [Listener(port, n=2, model="long") for _ in range(12)]
        for listener in listeners:
            listener.start()
        wait_until(lambda: all(len(x.text) > 60 for x in listeners), what="first words")
        late = [Listener(port, model="late") for _ in range(6)]  # these meet the signal at the door
        for listener in late:
            listener.start()
        stopped(guard)
        for listener in [*listeners, *late]:
            listener.join(30)
    for listener in listeners:
        assert (listener.done, listener.broken) == (True, "")
        assert listener.finish == "length"
        assert listener.text.endswith(INTERRUPTED)
    came_late = [x for x in late if x.status == 200]
    assert all(x.done and x.finish in {"length", "stop"} for x in came_late)
    found = records(audit)
    replies = Counter(r.model for r in found if r.stage == "output")
    asked_for = Counter(r.model for r in found if r.stage == "input")
    # Everyone who got an answer is in the log; a killed worker may have recorded a few more.
    answered = load.answered.count(200)
    assert answered <= replies["m"] <= asked_for["m"] <= answered + broken
    assert (asked_for["long"], replies["long"]) == (12, 24)
    assert (asked_for["late"], replies["late"]) == (len(came_late), len(came_late))
    assert {r.note for r in found if r.model == "long"} == {"", "shutdown"}
    assert sum(r.note == "shutdown" for r in found if r.model == "long") == 24
    assert {writer for _, _, writer in log_files(audit)} <= {0, 1}


def children(pid: int) -> list[int]:
    """The processes that a process has started and that serve (not multiprocessing's helper)."""
    found = []
    for line in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            command = Path(f"/proc/{line}/cmdline").read_bytes()
            if b"resource_tracker" not in command and command:
                found.append(int(line))
    return found
