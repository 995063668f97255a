"""Model teachers against a real HTTP server that misbehaves on purpose; a kill in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kidrails_guard.cli import main
from kidrails_guard.errors import MissingDependency
from kidrails_guard.golden.asking import Asker, Budget, BudgetSpent, Cache, Patience
from kidrails_guard.golden.teachers import (
    HttpTeacher,
    LiteLLMTeacher,
    Price,
    TeacherRejects,
    TeacherUnavailable,
)

CHAT = ({"role": "user", "content": "say something kind"},)
FAST = Patience(attempts=3, base_s=0.0, longest_s=0.0)


class Teacher(ThreadingHTTPServer):
    """A server that answers chat completions, well or in one of many wrong ways.

    Attributes:
        mode: what it does next; see ``Handler``.
        requests: bodies it was sent.
        delay_s: waited before each answer.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mode, self.delay_s, self.retry_after = "good", 0.0, ""
        self.counts = True
        self.requests: list[dict[str, Any]] = []
        self.fails = 0
        self.headers: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


def answer_of(prompt: str) -> str:
    """Return a row that keeps the example's replies and words its message anew."""
    found = dict(
        re.findall(r"^(message of the child|golden reply|unsafe reply): (.*)$", prompt, re.M)
    )
    age = re.search(r"The child: A (\d+)-year-old", prompt)
    assert age is not None
    row: dict[str, Any] = {
        "message": f"so {age[1]} kids in my class said {found['message of the child']}",
        "golden": re.search(r"^golden reply: (.*?)^unsafe reply: ", prompt, re.M | re.S)[1].strip(),  # type: ignore[index]
        "unsafe": found["unsafe reply"],
    }
    if '"conversation"' in prompt:
        row["conversation"] = [
            {"role": "user", "content": "hi there"},
            {"role": "assistant", "content": "Hi! Ask away."},
        ]
    return json.dumps(row)


class Handler(BaseHTTPRequestHandler):
    server: Teacher

    def log_message(self, *args: object) -> None:
        """Stay quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.requests.append(body)
            self.server.headers.append(self.headers.get("authorization", ""))
            failing = self.server.fails > 0
            self.server.fails -= failing
        time.sleep(self.server.delay_s)
        mode = self.server.mode
        if failing or mode in {"429", "500", "401"}:
            self._send(int(mode) if mode.isdecimal() else 503, b"busy", "text/plain")
        elif mode == "html":
            self._send(200, b"<!doctype html><html><h1>Login</h1></html>", "text/html")
        elif mode == "wrong json":
            self._send(200, b'{"result": "ok"}', "application/json")
        elif mode == "half":
            self._send(200, b'{"choices": [{"mess', "application/json")
        elif mode == "refusal field":
            self._chat({"role": "assistant", "content": None, "refusal": "no"})
        else:
            self._chat({"role": "assistant", "content": self._content(mode, body)})

    def _content(self, mode: str, body: dict[str, Any]) -> str:
        texts = {
            "empty": "  ",
            "refusal": "I'm sorry, but I can't help with that.",
            "prose": "Here you are: a nice message.",
            "list": "[1, 2]",
            "wrong keys": '{"message": "hi", "reply": "there"}',
            "inner html": "<p>hello</p>",
        }
        if mode in texts:
            return texts[mode]
        said = answer_of(body["messages"][-1]["content"])
        if mode == "fenced":
            return f"```json\n{said}\n```"
        if mode == "second speaker":
            return json.dumps(json.loads(said) | {"golden": "Stay.\nChild: why?\nAI: It is high."})
        return said

    def _chat(self, message: dict[str, Any]) -> None:
        value = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        if self.server.counts:
            value["usage"] = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        self._send(200, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if self.server.retry_after:
            self.send_header("retry-after", self.server.retry_after)
        self.end_headers()
        try:
            self.wfile.write(body)
        except BrokenPipeError:  # the client was killed
            self.close_connection = True


@pytest.fixture
def server() -> Iterator[Teacher]:
    teacher = Teacher()
    thread = threading.Thread(target=teacher.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield teacher
    teacher.shutdown()
    thread.join()
    teacher.server_close()


def generate(server: Teacher, out: Path, *more: str) -> int:
    """Run the command for the 26 rows of K15 and return its exit status."""
    return main(
        [
            *("data", "generate", "--base-url", server.url, "--model", "m", "--out", str(out)),
            *("--hazard", "K15", "--per-row", "1", "--wait-s", "0", "--attempts", "3"),
            *("--gate", "off", "--cache", str(out.parent / "cache"), "--json", *more),
        ]
    )


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_a_good_teacher_gives_rows_that_keep_their_seeds_labels(
    server: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(server, tmp_path / "g.jsonl") == 0
    said = result(capsys)
    rows = read(tmp_path / "g.jsonl")
    assert said["rows"] == len(rows) == said["jobs"] - sum(said["reasons"].values())
    assert len(rows) >= 12
    assert {row["hazard"] for row in rows} == {"K15"}
    assert all(
        row["method"] == "generated" and "kids in my class" in row["message"] for row in rows
    )
    assert said["spent"] == {
        "requests": len(server.requests),
        "tokens": 150 * len(server.requests),
        "usd": 0.0,
        "from_cache": 0,
    }


def test_the_prompt_states_age_limits_and_what_must_not_be_written(
    server: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(server, tmp_path / "g.jsonl")
    for body in server.requests:
        system, user = (message["content"] for message in body["messages"])
        assert "Never add a method, an amount" in system
        assert re.search(r"for children of \d+ to \d+ years", system)
        assert re.search(r"At most \d+ words", system)
        assert "message of the child: " in user
        assert "{{" not in system + user


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("html", "teacher: HTML"),
        ("inner html", "teacher: HTML"),
        ("empty", "teacher: empty"),
        ("refusal", "teacher: refusal"),
        ("refusal field", "teacher: refusal"),
        ("prose", "teacher: not JSON"),
        ("list", "teacher: not a JSON object"),
        ("wrong keys", "teacher: wrong keys"),
        ("wrong json", "teacher: not a chat completion (application/json)"),
        ("half", "teacher: not a chat completion (application/json)"),
        ("second speaker", "second speaker"),
    ],
)
def test_nonsense_is_a_counted_drop_and_nothing_is_lost(
    server: Teacher,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    reason: str,
) -> None:
    server.mode = mode
    assert generate(server, tmp_path / "g.jsonl") == 0
    said = result(capsys)
    assert said["rows"] == 0
    assert said["reasons"] == {reason: said["jobs"]}
    assert said["finished"] == said["jobs"]
    rejected = read(tmp_path / "g.jsonl.rejected")
    assert len(rejected) == said["jobs"]
    assert {row["reason"] for row in rejected} == {reason}


@pytest.mark.parametrize("mode", ["html", "empty"])
def test_what_was_no_answer_is_asked_for_again(
    server: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    server.mode = mode
    generate(server, tmp_path / "g.jsonl")
    assert result(capsys)["rows"] == 0
    server.mode = "fenced"
    generate(server, tmp_path / "again.jsonl")
    said = result(capsys)
    assert said["rows"] >= 12
    assert said["spent"]["from_cache"] == 0


def test_a_fenced_answer_is_an_answer(
    server: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.mode = "fenced"
    generate(server, tmp_path / "g.jsonl")
    assert result(capsys)["rows"] >= 12


def test_passing_trouble_is_waited_out(
    server: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fails = 6
    assert generate(server, tmp_path / "g.jsonl", "--concurrency", "4") == 0
    said = result(capsys)
    assert said["stopped"] == ""
    assert said["spent"]["requests"] == said["jobs"] + 6


@pytest.mark.parametrize("mode", ["429", "500"])
def test_lasting_trouble_stops_the_run_and_leaves_the_jobs_for_the_next(
    server: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    server.mode = mode
    assert generate(server, tmp_path / "g.jsonl", "--concurrency", "2") == 1
    said = result(capsys)
    assert said["stopped"].startswith("unavailable")
    assert (said["rows"], said["finished"], said["reasons"]) == (0, 0, {})
    server.mode = "good"
    assert generate(server, tmp_path / "g.jsonl") == 0
    assert result(capsys)["rows"] >= 12


def test_a_wrong_key_stops_at_once_and_says_what_to_check(
    server: Teacher,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    server.mode = "401"
    assert generate(server, tmp_path / "g.jsonl", "--api-key-env", "MY_KEY") == 1
    error = capsys.readouterr().err
    assert "401" in error
    assert "--api-key-env" in error
    assert "s3cret" not in error
    assert set(server.headers) == {"Bearer s3cret"}
    assert len(server.requests) <= 8


def test_a_server_that_is_not_there_is_unavailable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = Teacher()
    teacher.server_close()
    assert generate(teacher, tmp_path / "g.jsonl") == 1
    assert "ConnectError" in result(capsys)["stopped"]


def test_a_budget_stops_cleanly_and_a_larger_one_goes_on_without_paying_twice(
    server: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "g.jsonl"
    small = ("--budget-tokens", "3000", "--max-tokens", "200", "--concurrency", "2")
    assert generate(server, out, *small) == 0
    first = result(capsys)
    assert first["stopped"] == "budget"
    assert 0 < first["finished"] < first["jobs"]
    assert first["spent"]["tokens"] <= 3000
    asked = len(server.requests)
    assert generate(server, out, "--max-tokens", "200") == 0
    second = result(capsys)
    assert second["stopped"] == ""
    assert second["resumed"] == first["finished"]
    assert len(server.requests) - asked == second["jobs"] - first["finished"]
    assert len({row["id"] for row in read(out)}) == second["rows"]


def test_a_server_that_does_not_count_is_stopped_by_a_budget_all_the_same(
    server: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.counts = False
    small = ("--budget-tokens", "5000", "--max-tokens", "200", "--concurrency", "2")
    assert generate(server, tmp_path / "g.jsonl", *small) == 0
    found = result(capsys)
    assert found["stopped"] == "budget"
    assert 0 < found["finished"] < found["jobs"]
    assert 0 < found["spent"]["tokens"] <= 5000


def test_a_budget_in_dollars_needs_a_price(
    server: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(server, tmp_path / "g.jsonl", "--budget-usd", "1") == 2
    assert "Give --price IN OUT" in capsys.readouterr().err
    assert not server.requests


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")
def test_litellm_knows_what_a_model_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    pytest.importorskip("litellm")
    assert LiteLLMTeacher("openai/gpt-4o-mini").priced
    assert not LiteLLMTeacher("openai/m").priced


async def test_a_budget_in_dollars_counts_the_price(server: Teacher) -> None:
    teacher = HttpTeacher(server.url, "m", price=Price(prompt=10_000, completion=20_000))
    server.mode = "prose"
    budget = Budget(usd=2.5)
    asker = Asker(teacher, cache=None, budget=budget, patience=FAST)
    await asker.ask(CHAT)
    assert budget.spent_usd == pytest.approx(2.0)
    await asker.ask(CHAT)
    with pytest.raises(BudgetSpent):
        await asker.ask(CHAT)
    await teacher.aclose()


async def test_an_answer_is_paid_for_once(server: Teacher, tmp_path: Path) -> None:
    server.mode = "prose"
    teacher = HttpTeacher(server.url, "m")
    for _ in range(2):
        cache = Cache(tmp_path / "cache")
        asker = Asker(teacher, cache=cache, budget=Budget(), patience=FAST)
        first = await asker.ask(CHAT)
        assert (await asker.ask(CHAT)).text == first.text
    assert len(server.requests) == 1
    await asker.ask(CHAT, attempt=1)
    assert len(server.requests) == 2
    for path in (tmp_path / "cache").rglob("*.json"):
        path.write_text("half a li")
    await asker.ask(CHAT)
    assert len(server.requests) == 3
    await teacher.aclose()


async def test_retries_back_off_and_heed_what_the_server_asks(server: Teacher) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    server.mode, server.retry_after = "429", "7"
    teacher = HttpTeacher(server.url, "m")
    patience = Patience(attempts=5, base_s=1.0, longest_s=10.0)
    asker = Asker(teacher, cache=None, budget=Budget(), patience=patience, sleep=sleep)
    with pytest.raises(TeacherUnavailable, match="HTTP 429 after 5 tries"):
        await asker.ask(CHAT)
    assert len(waits) == 4
    assert all(7 <= wait <= 10 for wait in waits)
    server.retry_after, waits[:] = "", []
    with pytest.raises(TeacherUnavailable):
        await asker.ask(CHAT)
    assert [1 <= waits[0] <= 2, 2 <= waits[1] <= 4, 4 <= waits[2] <= 8] == [True] * 3
    assert waits[3] <= 10
    await teacher.aclose()


COMMAND = """
import sys
from kidrails_guard.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def test_a_kill_in_the_middle_loses_nothing_and_repeats_nothing(
    server: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL, then again: the file equals the uninterrupted one, to the byte."""
    assert generate(server, tmp_path / "whole" / "g.jsonl", "--per-row", "2") == 0
    jobs = result(capsys)["jobs"]
    asked_before = len(server.requests)

    server.delay_s = 0.05
    out = tmp_path / "killed" / "g.jsonl"
    journal = out.with_name("g.jsonl.journal")
    arguments = [
        *("data", "generate", "--base-url", server.url, "--model", "m", "--out", str(out)),
        *("--hazard", "K15", "--per-row", "2", "--wait-s", "0", "--attempts", "3"),
        *("--gate", "off", "--cache", str(out.parent / "cache"), "--concurrency", "3"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        lines = journal.read_bytes().count(b"\n") if journal.exists() else 0
        if lines > 8 or process.poll() is not None:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert not out.exists()
    done = journal.read_bytes().count(b"\n") - 1
    assert 7 < done < jobs
    with journal.open("ab") as stream:  # as if the kill had come in the middle of a line
        stream.write(b'{"job": "half a li')

    server.delay_s = 0.0
    assert main([*arguments, "--json"]) == 0
    said = result(capsys)
    assert said["resumed"] == done
    assert said["finished"] == said["jobs"] == jobs
    for name in ("g.jsonl", "g.jsonl.rejected"):
        assert (out.parent / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows = read(out)
    assert len({row["id"] for row in rows}) == len(rows)
    # At most the requests in flight at the kill were sent a second time.
    asked = Counter(json.dumps(body) for body in server.requests[asked_before:])
    assert len(asked) == jobs
    assert sum(count - 1 for count in asked.values()) <= 3


def test_a_journal_of_another_run_is_not_touched(
    server: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "g.jsonl"
    generate(server, out)
    before = (tmp_path / "g.jsonl.journal").read_bytes()
    assert generate(server, out, "--seed", "8") == 2
    assert "another run" in capsys.readouterr().err
    assert (tmp_path / "g.jsonl.journal").read_bytes() == before


def test_an_address_without_a_scheme_and_a_missing_model_are_wrong_use(tmp_path: Path) -> None:
    out = str(tmp_path / "g.jsonl")
    assert (
        main(["data", "generate", "--base-url", "localhost:1", "--model", "m", "--out", out]) == 2
    )
    assert main(["data", "generate", "--base-url", "http://x/v1", "--out", out]) == 2
    assert main(["data", "generate", "--hazard", "K99", "--out", out]) == 2


# LiteLLM's own models warn about themselves when pydantic reads them.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")
async def test_litellm_reaches_the_same_server(
    server: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    pytest.importorskip("litellm")
    server.mode = "prose"
    options = {"api_base": server.url, "api_key": "x", "timeout": 20}
    teacher = LiteLLMTeacher("openai/m", options=options)
    found = await teacher.complete(CHAT, max_tokens=50)
    assert found.text == "Here you are: a nice message."
    assert found.tokens == 150
    server.mode = "401"
    with pytest.raises(TeacherRejects, match="provider's key"):
        await teacher.complete(CHAT, max_tokens=50)
    server.mode = "500"
    with pytest.raises(TeacherUnavailable):
        await teacher.complete(CHAT, max_tokens=50)


def test_without_litellm_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(MissingDependency, match="kidrails-guard\\[litellm\\]"):
        LiteLLMTeacher("openai/m")
