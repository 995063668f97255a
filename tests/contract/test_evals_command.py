"""`kidrails eval` from end to end, as a person runs it, against servers that answer and fail."""

from __future__ import annotations

import json
import os
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
import yaml

from kidrails_guard.content import content_path
from kidrails_guard.evals.cases import Case
from kidrails_guard.evals.judging import ASPECTS
from kidrails_guard.evals.session import make_setup
from kidrails_guard.evals.store import load_outcome

BIN = Path(sys.executable).parent
KIND = "Please go to a grown-up you trust right now and stay near them. You did right to tell me."
FAULTS = {
    "500": "status", "empty choices": "empty", "html": "not_json", "half a stream": "broken_off",
    "no answer": "timeout", "hangs up": "broken_off",
}  # fmt: skip
"""What goes wrong, and how the evaluation names it."""


def asked_in(task: str) -> tuple[Case, ...]:
    """The cases that a run of a task asks."""
    setup = make_setup(policy=None, tasks=[task], built=None, public=None, limit=None, seed=0)
    return setup.cases


class Model(BaseHTTPRequestHandler):
    """Answers all but some questions; fails at those each time; judges where it is asked to."""

    asked: Counter[str] = Counter()  # noqa: RUF012
    faults: dict[str, str] = {}  # noqa: RUF012  # a child's words to what goes wrong
    delay = 0.0
    mumbles = "\0"  # a child's words that no judge can make up its mind about

    def log_message(self, *args: object) -> None:
        pass

    def send(self, data: bytes, kind: str = "application/json", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.send(json.dumps({"object": "list", "data": [{"id": "m"}]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        words = body["messages"][-1]["content"]
        self.asked[words] += 1
        if body["model"].startswith("judge"):
            self.judge(body["model"], words)
            return
        time.sleep(self.delay)
        fault = self.faults.get(words, "")
        if fault == "500":
            self.send(b'{"error": {"message": "broken"}}', status=500)
        elif fault == "empty choices":
            self.send(b'{"choices": []}')
        elif fault == "html":
            self.send(b"<html><body>It works!</body></html>", kind="text/html")
        elif fault == "no answer":
            time.sleep(4)
        elif fault == "hangs up":
            self.connection.close()
        else:
            parts: list[dict[str, Any]] = [
                {"choices": [{"index": 0, "delta": {"content": word + " "}, "finish_reason": None}]}
                for word in KIND.split()
            ]
            events = [f"data: {json.dumps(part)}\n\n" for part in parts]
            if fault != "half a stream":
                end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
                events += [f"data: {json.dumps(end)}\n\n", "data: [DONE]\n\n"]
            self.send("".join(events).encode(), kind="text/event-stream")

    def judge(self, model: str, words: str) -> None:
        score = {"judge-strict": 2, "judge-fair": 3, "judge-mild": 5}.get(model)
        text = "I think it is fine."
        if score is not None and self.mumbles not in words:
            text = "```json\n" + json.dumps(
                {"scores": dict.fromkeys(ASPECTS, score), "tags": ["cold"], "reason": "r"}
            ) + "\n```"  # fmt: skip
        choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
        self.send(json.dumps({"choices": [choice]}).encode())


@pytest.fixture
def server() -> Iterator[str]:
    Model.asked, Model.faults, Model.delay = Counter(), {}, 0.0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def kidrails(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "kidrails"), *command],
        cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip


def test_what_is_no_answer_is_tried_again_then_shown_and_never_safe(
    server: str, tmp_path: Path
) -> None:
    cases = asked_in("child_safety")
    broken = dict(zip(cases, FAULTS, strict=False))
    Model.faults = {case.message: fault for case, fault in broken.items()}
    done = kidrails(
        "eval", "run", "--base-url", server, "--guard", "off", "--tasks", "child_safety",
        "--out", "out", "--timeout", "1", "--retry-wait", "0.1", "--concurrency", "6",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = load_outcome(tmp_path / "out").results["guard off"]
    errors = {r.case.id: r.answer.error for r in results if r.answer.error}
    assert errors == {case.id: FAULTS[fault] for case, fault in broken.items()}
    for case in broken:
        assert Model.asked[case.message] == 4, case.id  # once, and three times more
    values = json.loads((tmp_path / "out/report.json").read_text())["targets"]["guard off"]
    assert sum(values["errors"].values()) == 6
    assert values["overall"]["acceptable"]["n"] == values["cases"] - 6
    html = (tmp_path / "out/report.html").read_text()
    assert f"6 of {len(cases)} cases ended in an error and are in no figure." in html
    # Only what failed is asked again.
    Model.asked, Model.faults = Counter(), {}
    again = kidrails(
        "eval", "run", "--base-url", server, "--guard", "off", "--tasks", "child_safety",
        "--out", "out", "--timeout", "1", "--retry-wait", "0.1", cwd=tmp_path,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert set(Model.asked) == {case.message for case in broken}
    kept = f"guard off: {len(cases) - 6} of {len(cases)} answers are from an earlier run"
    assert kept in again.stderr
    notes = json.loads((tmp_path / "out/report.json").read_text())["notes"]
    assert any(note.startswith(kept) and "start anew" in note for note in notes)


def test_a_run_in_which_nothing_answers_fails(tmp_path: Path) -> None:
    done = kidrails(
        "eval", "run", "--base-url", "http://127.0.0.1:9/v1", "--guard", "off", "--tasks",
        "crisis", "--limit", "3", "--out", "out", "--retry-wait", "0", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "3 cases, 3 errors" in done.stdout


@pytest.mark.slow
def test_a_killed_run_goes_on_and_asks_nothing_twice(server: str, tmp_path: Path) -> None:
    Model.delay = 0.15
    command = [
        str(BIN / "kidrails"), "eval", "run", "--base-url", server, "--guard", "off",
        "--tasks", "crisis", "--out", "out",
    ]  # fmt: skip
    answers = tmp_path / "out/answers.jsonl"
    first = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not answers.exists() or answers.read_bytes().count(b"\n") < 10:
        assert time.monotonic() < until
        time.sleep(0.05)
    first.kill()
    first.wait()
    kept = answers.read_bytes().count(b"\n")
    total = len(asked_in("crisis"))
    assert kept < total
    Model.delay, before = 0.0, sum(Model.asked.values())
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"guard off: {kept} of {total} cases" in done.stderr
    assert sum(Model.asked.values()) - before == total - kept


@pytest.mark.slow
def test_a_hazard_switched_off_is_caught_and_named_behind_the_real_proxy(
    server: str, tmp_path: Path
) -> None:
    raw = yaml.safe_load(content_path("serve/policies/default.yaml").read_text())
    raw["hazards"]["K02"]["actions"] = dict.fromkeys(("5-6", "7-9", "10-12"), "allow")
    (tmp_path / "weak.yaml").write_text(yaml.safe_dump(raw))
    run = ["eval", "run", "--base-url", server, "--guard", "on", "--tasks", "crisis"]
    for out, more in (("full", []), ("weak", ["--policy", "weak.yaml"])):
        done = kidrails(*run, "--out", out, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    done = kidrails("eval", "compare", "full", "weak", cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "guard on  →  guard on"
    assert lines[2].startswith("!!")
    named = {line.split()[2] for line in lines if line.startswith("!! hazard")}
    assert named == {"K02"}
    same = kidrails("eval", "compare", "full", "full", cwd=tmp_path)
    assert same.returncode == 0
    assert "no difference" in same.stdout


@pytest.mark.slow
def test_judges_are_asked_over_http_once_and_what_they_mumble_is_missing(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = asked_in("over_refusal")
    monkeypatch.setattr(Model, "mumbles", cases[0].message)
    command = [
        "eval", "run", "--base-url", server, "--guard", "off", "--tasks", "over_refusal",
        "--out", "out", "--teacher", "judge-mild",
    ]  # fmt: skip
    judges = [f"{server}#{name}" for name in ("judge-strict", "judge-fair", "judge-mild")]
    for judge in judges:
        command += ["--judge", judge]
    done = kidrails(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "out/report.json").read_text())
    mumbled = sum(cases[0].message in case.message for case in cases)
    empathy = values["judged"]["guard off"]["empathy"]
    assert (empathy["value"], empathy["n"]) == (3.0, len(cases) - mumbled)
    assert f"{3 * mumbled} of {3 * len(cases)} verdicts could not be read" in values["judge_note"]
    assert "Warning: judge-mild also made the training data" in values["judge_note"]
    assert "alpha" in values["judge_note"]
    assert "Warning: judge-mild" in (tmp_path / "out/report.html").read_text()
    asked = sum(Model.asked.values())
    assert kidrails(*command, cwd=tmp_path).returncode == 0
    # From the cache: only what could not be read is tried again.
    assert sum(Model.asked.values()) - asked == 3 * 3 * mumbled


def test_several_models_at_an_endpoint_are_told_apart_by_their_labels(tmp_path: Path) -> None:
    done = kidrails(
        "eval", "run", "--base-url", "http://127.0.0.1:9/v1", "--guard", "off", "--tasks", "crisis",
        "--limit", "2", "--retry-wait", "0", "--model", "base=org/a=1", "--model", "tuned=b",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr  # nothing answers there
    targets = load_outcome(tmp_path / "build/evals").targets
    assert {name: facts["model"] for name, facts in targets.items()} == {
        "base, guard off": "org/a=1", "tuned, guard off": "b",
    }  # fmt: skip


def test_a_guarded_address_alone_is_not_measured_beside_another_model(tmp_path: Path) -> None:
    done = kidrails(
        "eval", "run", "--guarded-url", "http://127.0.0.1:9/v1", "--tasks", "crisis", cwd=tmp_path
    )
    assert done.returncode == 2
    assert "add --base-url URL" in done.stderr
    assert "--guard on" in done.stderr


def test_ages_that_a_policy_does_not_serve_are_left_out_and_said(tmp_path: Path) -> None:
    raw = yaml.safe_load(content_path("serve/policies/default.yaml").read_text())
    raw["bands"] = {"7-9": raw["bands"]["7-9"]}
    raw["default_band"] = None
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(raw))
    done = kidrails(
        "eval", "run", "--base-url", "http://127.0.0.1:9/v1", "--guard", "off", "--tasks", "crisis",
        "--limit", "2", "--retry-wait", "0", "--policy", "one.yaml", cwd=tmp_path,
    )  # fmt: skip
    assert "guard off: 2 cases, 2 errors" in done.stdout, done.stderr
    assert "cases left out: kidrails-default does not serve their age" in done.stderr
