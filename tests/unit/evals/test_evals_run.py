"""Running, resuming, comparing and reporting; errors are counted and never pass."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from kidrails_guard.errors import DataError, UsageError
from kidrails_guard.evals.cases import TASKS, disguised, sample, task_cases
from kidrails_guard.evals.compare import compare, regressions, to_text
from kidrails_guard.evals.endpoint import Endpoint
from kidrails_guard.evals.measures import summarise
from kidrails_guard.evals.public import load_or_skip
from kidrails_guard.evals.runner import ANSWERS, Result, run_cases
from kidrails_guard.evals.session import Outcome, finish, load_outcome
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy, parse_policy
from kidrails_guard.types import Action, Stage

POLICY = load_policy()


class Nothing:
    name = "nothing"
    stages = frozenset(Stage)

    async def __call__(self, conversation, text, band, stage):
        return ()


GUARD = Guard(checks=[Nothing()])
CASES = [*task_cases("crisis", POLICY)[:6], *task_cases("over_refusal", POLICY)[:6]]


def reply(text: str, *, stream: bool, action: str | None = None) -> httpx.Response:
    headers = {"x-kidrails-action": action} if action else {}
    if not stream:
        choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
        return httpx.Response(200, json={"choices": [choice]}, headers=headers)
    parts = [
        {"choices": [{"delta": {"content": w + " "}, "finish_reason": None}]} for w in text.split()
    ]
    parts.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    parts.append({"choices": [], "usage": {"total_tokens": 3}})
    body = "".join(f"data: {json.dumps(p)}\n\n" for p in parts) + "data: [DONE]\n\n"
    return httpx.Response(
        200, content=body.encode(), headers=headers | {"content-type": "text/event-stream"}
    )


async def run(handler, tmp_path: Path, *, cases=CASES, target="t", **endpoint) -> list[Result]:
    return await run_cases(
        cases,
        Endpoint("http://x/v1", **endpoint),
        target=target,
        out=tmp_path,
        guard=GUARD,
        retry_seconds=(0.0,),
        transport=httpx.MockTransport(handler),
    )


@pytest.mark.parametrize("stream", [True, False])
async def test_answers_are_read_whole_and_streamed(tmp_path: Path, stream: bool) -> None:
    results = await run(
        lambda request: reply("Bees dance in the hive.", stream=stream, action="care"),
        tmp_path, stream=stream, guarded=True,
    )  # fmt: skip
    assert {r.answer.text.strip() for r in results} == {"Bees dance in the hive."}
    assert all(r.score is not None and r.score.action is Action.CARE for r in results)
    assert (results[0].answer.first_token_seconds is not None) is stream


def _raise(error: Exception):
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (lambda r: httpx.Response(500), "status"),
        (lambda r: httpx.Response(429), "status"),
        (lambda r: httpx.Response(200, json={"choices": []}), "empty"),
        (lambda r: reply(" ", stream=False), "empty"),
        (lambda r: httpx.Response(200, text="<html>proxy error</html>"), "not_json"),
        (lambda r: httpx.Response(200, json=["x"]), "not_json"),
        (
            lambda r: httpx.Response(
                200,
                content=b'data: {"choices":[{"delta":{"content":"half"}}]}\n\n',
                headers={"content-type": "text/event-stream"},
            ),
            "broken_off",
        ),
        (_raise(httpx.ReadTimeout("slow")), "timeout"),
        (_raise(httpx.ConnectError("gone")), "unreachable"),
        (_raise(httpx.RemoteProtocolError("cut")), "broken_off"),
    ],
)
async def test_what_is_not_an_answer_is_an_error_and_never_safe(tmp_path, handler, kind) -> None:
    calls = []

    def counted(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return handler(request)

    results = await run(counted, tmp_path, cases=CASES[:3])
    assert {r.answer.error for r in results} == {kind}
    assert all(r.score is None for r in results)
    assert len(calls) == 6  # each was tried again
    summary = summarise(results, target="t")
    assert summary.errors == {kind: 3}
    assert summary.overall["acceptable"].n == 0
    assert summary.overall["unsafe_allow"].value is None


async def test_a_killed_run_goes_on_without_asking_twice(tmp_path: Path) -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) > 5:
            return httpx.Response(500)
        return reply("Bees dance.", stream=False)

    await run(handler, tmp_path)
    path = tmp_path / ANSWERS
    with path.open("ab") as stream:
        stream.write(b'{"key": "half a li')  # a kill in the middle of writing
    asked.clear()
    results = await run(lambda r: asked.append(r) or reply("Ants walk.", stream=False), tmp_path)
    assert len(asked) == len(CASES) - 5
    assert all(r.score is not None for r in results)
    assert sorted({r.answer.text for r in results}) == ["Ants walk.", "Bees dance."]


async def test_a_file_of_something_else_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / ANSWERS).write_text('{"x": 1}\n')
    with pytest.raises(DataError, match=r"answers\.jsonl:1"):
        await run(lambda r: reply("x", stream=False), tmp_path)


def test_an_endpoint_must_be_a_url() -> None:
    with pytest.raises(UsageError, match="--base-url"):
        Endpoint("localhost:8000")


def guarded_by(policy):
    """An endpoint whose guard knows every case's hazard, and acts by a policy."""
    by_words = {c.message: c for c in CASES}

    def handler(request: httpx.Request) -> httpx.Response:
        asked = by_words[json.loads(request.content)["messages"][-1]["content"]]
        action = policy.action(
            asked.hazard, asked.severity, band=asked.band, stage=Stage.INPUT, case=asked.case
        )
        text = "Please tell a grown-up now." if action.answers else "Bees dance in the hive."
        return reply(text, stream=False, action=action.label)

    return handler


async def test_a_planted_regression_is_caught_and_named_first(tmp_path: Path) -> None:
    raw = POLICY.model_dump(mode="json", by_alias=True)
    values = json.loads(json.dumps(raw))
    for rule in values["hazards"].values():
        rule["actions"] = {b: _label(a) for b, a in rule["actions"].items()}
        rule["output"] = _label(rule["output"])
        rule["cases"] = {
            k: _label(v) if not isinstance(v, dict) else {b: _label(a) for b, a in v.items()}
            for k, v in rule["cases"].items()
        }
    values["conduct"] = {k: _label(v) for k, v in values["conduct"].items()}
    values["on_check_failure"] = _label(values["on_check_failure"])
    off = json.loads(json.dumps(values))
    off["hazards"]["K01"]["actions"] = dict.fromkeys(("5-6", "7-9", "10-12"), "allow")
    before = await run(guarded_by(POLICY), tmp_path / "a", target="before", guarded=True)
    weakened = parse_policy(off, source="weak.yaml")
    after = await run(guarded_by(weakened), tmp_path / "b", target="after", guarded=True)
    found = compare(before, after)
    worse = regressions(found)
    assert worse
    assert {d.where for d in worse} <= {"all", "hazard K01"} | {f"band {b}" for b in POLICY.bands}
    assert any(d.where == "hazard K01" and d.measure == "crisis_met" for d in worse)
    assert to_text(found).splitlines()[1].startswith("!!")
    assert regressions(compare(before, before)) == []


def _label(value: object) -> object:
    return Action(value).label if isinstance(value, int) else value


def test_runs_without_a_shared_case_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="share no answered case"):
        compare([], [])


async def test_the_report_is_one_page_without_network_and_comes_back(tmp_path: Path) -> None:
    off = await run(lambda r: reply("Bees dance.", stream=False), tmp_path / "off")
    on = await run(guarded_by(POLICY), tmp_path / "on", target="on", guarded=True)
    outcome = Outcome(
        {"guard off": off, "guard on": on}, {"model": "m", "policy": "p"}, ("csb: x",)
    )
    files = finish(outcome, tmp_path / "out")
    html = (tmp_path / "out/report.html").read_text()
    for outside in ("http://", "https://", "<script", "@import", "url("):
        assert outside not in html
    assert "95 % interval" in html
    assert "skipped, not passed: csb: x" in html
    assert "<details>" in html
    card = (tmp_path / "out/model-card.md").read_text()
    assert "model-index" in card
    from huggingface_hub import ModelCard

    metrics = {r.metric_type for r in ModelCard(card).data.eval_results}
    assert {"acceptable", "crisis_met", "over_block"} <= metrics
    first = {p.name: p.read_bytes() for p in files}
    again = finish(load_outcome(tmp_path / "out"), tmp_path / "out")
    assert {p.name: p.read_bytes() for p in again} == first


def test_loading_what_is_no_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="kidrails eval run"):
        load_outcome(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(DataError, match="not the results"):
        load_outcome(tmp_path)


@pytest.mark.parametrize("task", [t for t in TASKS if t != "child_safety"])
def test_the_written_cases_are_read_and_agree_with_the_policy(task: str) -> None:
    cases = task_cases(task, POLICY)
    assert len(cases) >= 40
    assert len({c.id for c in cases}) == len(cases)
    for c in cases:
        expected = POLICY.action(c.hazard, c.severity, band=c.band, stage=Stage.INPUT, case=c.case)
        assert c.expected is expected


def test_disguises_keep_the_case_and_change_the_words() -> None:
    plain = task_cases("crisis", POLICY)[0]
    found = list(disguised(plain, seed=1))
    assert found[0].message == plain.message
    assert len({c.message for c in found}) == len(found) >= 6
    assert {c.expected for c in found} == {Action.CRISIS}
    assert list(disguised(plain, seed=1)) == found


def test_a_sample_is_spread_and_repeats() -> None:
    cases = task_cases("over_refusal", POLICY)
    few = sample(cases, 9, seed=3)
    assert few == sample(cases, 9, seed=3)
    assert {c.hazard for c in few} == {c.hazard for c in cases}


def test_an_absent_public_set_is_skipped_with_a_line_and_not_passed(tmp_path: Path) -> None:
    found, reason = load_or_skip("xstest", tmp_path, POLICY)
    assert found == []
    assert "kidrails data fetch xstest" in reason
