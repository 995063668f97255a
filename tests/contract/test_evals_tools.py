"""Inspect and lm-evaluation-harness run our tasks for real, against an endpoint on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kidrails_guard.evals.cases import TASKS

BIN = Path(sys.executable).parent
KIND = "Please go to a grown-up you trust right now and stay near them. You did right to tell me."


class Endpoint(BaseHTTPRequestHandler):
    """Answers every question with the same kind words; remembers the headers."""

    headers_seen: list[dict[str, str]] = []  # noqa: RUF012
    bodies_seen: list[dict[str, Any]] = []  # noqa: RUF012

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        self.bodies_seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.headers_seen.append({k.lower(): v for k, v in self.headers.items()})
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": KIND},
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
        answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
        data = json.dumps(answer | {"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment | {"HF_HUB_OFFLINE": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


@pytest.mark.slow
def test_inspect_runs_a_task_and_its_log_holds_our_figures(
    endpoint: str, repository: Path, tmp_path: Path
) -> None:
    Endpoint.headers_seen.clear()
    done = run(
        str(BIN / "inspect"), "eval", "evals/crisis.py", "--model", "openai-api/kidrails/m",
        "-T", "limit=6", "--display", "plain", "--log-format", "json", "--log-dir", str(tmp_path),
        cwd=repository, KIDRAILS_BASE_URL=endpoint, KIDRAILS_API_KEY="x",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    log = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert log["status"] == "success"
    scores = {s["name"]: s["metrics"] for s in log["results"]["scores"]}
    values = {
        name: next(m["value"] for key, m in metrics.items() if key.endswith("value"))
        for name, metrics in scores.items()
    }
    assert values["crisis_met"] == 1.0
    assert values["acceptable"] == 1.0
    assert {h["x-kidrails-band"] for h in Endpoint.headers_seen} <= {"5-6", "7-9", "10-12"}
    assert len(Endpoint.headers_seen) == 6


def test_inspect_says_how_to_get_a_public_set_that_is_absent(
    repository: Path, tmp_path: Path
) -> None:
    done = run(
        sys.executable, "-c",
        "from kidrails_guard.evals.inspect_tasks import build_or_say\n"
        f"build_or_say('public:xstest', folder={str(tmp_path)!r})",
        cwd=repository,
    )  # fmt: skip
    assert done.returncode != 0
    assert "skipped, not passed" in done.stderr
    assert "kidrails data fetch xstest" in done.stderr


@pytest.mark.slow
def test_lm_eval_validates_and_runs_our_tasks(
    endpoint: str, repository: Path, tmp_path: Path
) -> None:
    tasks = [f"kidrails_{task}" for task in TASKS]
    tool = str(BIN / "lm-eval")
    cache = {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    valid = run(tool, "validate", "--include_path", "evals/lm_eval", "--tasks",
                ",".join(["kidrails", *tasks]), cwd=repository, **cache)  # fmt: skip
    assert valid.returncode == 0, valid.stdout + valid.stderr
    assert "valid" in valid.stdout + valid.stderr
    Endpoint.bodies_seen.clear()
    done = run(
        tool, "run", "--include_path", "evals/lm_eval", "--tasks", "kidrails",
        "--model", "local-chat-completions", "--apply_chat_template", "--limit", "6",
        "--model_args", f"model=m,base_url={endpoint}/chat/completions,tokenizer_backend=None",
        "--output_path", str(tmp_path),
        cwd=repository, OPENAI_API_KEY="x", **cache,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    results = json.loads(next(tmp_path.rglob("results_*.json")).read_text())["results"]
    assert set(tasks) <= set(results)
    assert results["kidrails_crisis"]["acceptable,none"] == 1.0
    assert results["kidrails_crisis"]["crisis_met,none"] == 1.0
    assert results["kidrails_crisis"]["unsafe_allow,none"] == 0.0
    assert results["kidrails_over_refusal"]["over_block,none"] == 1.0
    # The model is told how old the child is, and sees the turns before.
    said = [body["messages"] for body in Endpoint.bodies_seen]
    assert all("years old" in m[0]["content"] for m in said)
    assert any("Our talk so far:" in m[-1]["content"] for m in said)


def test_the_harness_scores_an_empty_reply_as_badly_as_can_be(repository: Path) -> None:
    done = run(
        sys.executable, "-c",
        "import json, scoring\n"
        "doc = scoring.load_cases('crisis')['test'][0]\n"
        "good = scoring.process_results(doc, ['Please tell a grown-up you trust right now.'])\n"
        "print(json.dumps([scoring.process_results(doc, [' ']), good]))",
        cwd=repository / "evals/lm_eval",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    empty, good = json.loads(done.stdout)
    assert (empty["acceptable"], empty["crisis_met"], empty["unsafe_allow"]) == (0.0, 0.0, 1.0)
    assert (good["acceptable"], good["crisis_met"], good["unsafe_allow"]) == (1.0, 1.0, 0.0)
    assert "over_block" not in empty
