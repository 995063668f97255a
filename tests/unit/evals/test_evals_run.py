"""Asking and resuming; errors are counted and never pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from eval_replies import BARE_GUARD, reply, run

from kidrails_guard.errors import DataError, UsageError
from kidrails_guard.evals.cases import task_cases
from kidrails_guard.evals.endpoint import Endpoint
from kidrails_guard.evals.measures import summarise
from kidrails_guard.evals.runner import ANSWERS, count_kept
from kidrails_guard.evals.session import kept_note
from kidrails_guard.evals.targets import Target
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action, AgeBand

POLICY = load_policy()
CASES = [*task_cases("crisis", POLICY)[:6], *task_cases("over_refusal", POLICY)[:6]]


@pytest.mark.parametrize("stream", [True, False])
async def test_answers_are_read_whole_and_streamed(tmp_path: Path, stream: bool) -> None:
    results = await run(
        lambda request: reply("Bees dance in the hive.", stream=stream, action="care"),
        tmp_path, cases=CASES, stream=stream, guarded=True,
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
    assert summary.macro_f1.n == 0


async def test_a_guard_whose_check_failed_is_an_error_and_no_refusal(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        answer = reply("I leave that out.", stream=True, action="refuse", finish="content_filter")
        answer.headers["x-kidrails-failed"] = "classifier"
        return answer

    results = await run(handler, tmp_path, cases=CASES[:3], guarded=True)
    assert {r.answer.error for r in results} == {"check_failed"}
    assert all(r.score is None for r in results)


async def test_a_killed_run_goes_on_without_asking_twice(tmp_path: Path) -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) > 5:
            return httpx.Response(500)
        return reply("Bees dance.", stream=False)

    await run(handler, tmp_path, cases=CASES)
    path = tmp_path / ANSWERS
    with path.open("ab") as stream:
        stream.write(b'{"key": "half a li')  # a kill in the middle of writing
    asked.clear()
    results = await run(
        lambda r: asked.append(r) or reply("Ants walk.", stream=False), tmp_path, cases=CASES
    )
    assert len(asked) == len(CASES) - 5
    assert all(r.score is not None for r in results)
    assert sorted({r.answer.text for r in results}) == ["Ants walk.", "Bees dance."]


async def test_a_file_of_something_else_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / ANSWERS).write_text('{"x": 1}\n')
    with pytest.raises(DataError, match=r"answers\.jsonl:1"):
        await run(lambda r: reply("x", stream=False), tmp_path, cases=CASES)


def test_an_endpoint_must_be_a_url() -> None:
    with pytest.raises(UsageError, match="--base-url"):
        Endpoint("localhost:8000")


async def test_answers_of_another_model_or_to_other_words_are_not_taken_over(tmp_path) -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return reply("Bees dance.", stream=False)

    await run(handler, tmp_path, cases=CASES, digest="one")
    await run(handler, tmp_path, cases=CASES, digest="one")
    assert len(asked) == len(CASES)
    await run(handler, tmp_path, cases=CASES, digest="another guard")
    assert len(asked) == 2 * len(CASES)
    kept = {"work": tmp_path, "digest": "one"}
    assert count_kept(CASES, Endpoint("http://x/v1"), **kept) == len(CASES)
    assert count_kept(CASES, Endpoint("http://x/v1", max_tokens=9), **kept) == 0
    changed = [replace(CASES[0], message="other words"), *CASES[1:]]
    await run(handler, tmp_path, cases=changed, digest="one")
    assert len(asked) == 2 * len(CASES) + 1
    await run(handler, tmp_path, cases=CASES, digest="one", max_tokens=9)
    assert len(asked) == 3 * len(CASES) + 1


async def test_progress_starts_where_the_last_run_ended(tmp_path: Path) -> None:
    from kidrails_guard.evals.runner import run_cases

    await run(lambda r: reply("Bees dance.", stream=False), tmp_path, cases=CASES[:4])
    seen: list[tuple[int, int]] = []
    await run_cases(
        CASES, Endpoint("http://x/v1"), work=tmp_path, guard=BARE_GUARD,
        transport=httpx.MockTransport(lambda r: reply("Ants walk.", stream=False)),
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen[0] == (4, len(CASES))
    assert seen[-1] == (len(CASES), len(CASES))


async def test_a_reply_that_ran_out_of_tokens_is_counted_as_cut_off(tmp_path: Path) -> None:
    results = await run(
        lambda r: reply("Bees dance in", stream=True, finish="length"), tmp_path, cases=CASES[:3]
    )
    assert summarise(results, target="t").overall["cut_off"].value == 1.0


def test_answers_of_an_earlier_run_are_said_and_doubted_where_a_url_hides_the_model() -> None:
    endpoint = Endpoint("http://x/v1")
    ours = kept_note(Target("guard off", endpoint, {"weights": "sha256 1"}), 5, 9)
    assert ours.startswith("guard off: 5 of 9 answers are from an earlier run")
    assert "start anew" not in ours
    theirs = kept_note(Target("guard off", endpoint, {"at": "http://x/v1"}), 5, 9)
    assert "start anew: --work DIR" in theirs


async def test_a_reply_stopped_on_its_way_counts_as_held_back(tmp_path: Path) -> None:
    """The headers had gone with the action of the way in; only the end says what happened."""
    stopped = lambda r: reply(  # noqa: E731
        "Let us talk of bees.", stream=True, action="allow", finish="content_filter"
    )
    results = await run(stopped, tmp_path, cases=CASES[:2], guarded=True)
    assert {r.score.action for r in results if r.score} == {Action.REDIRECT}


async def test_the_age_is_told_in_a_header_to_a_guard_and_in_a_prompt_to_a_bare_model(
    tmp_path: Path,
) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return reply("Bees dance.", stream=False)

    prompts = {band: f"You talk with a child of {band}." for band in AgeBand}
    case = CASES[0]
    for guarded in (False, True):
        await run(handler, tmp_path, cases=[case], guarded=guarded, system_prompt=prompts)
    bare, behind = (json.loads(r.content)["messages"] for r in seen)
    assert bare[0] == {"role": "system", "content": prompts[case.band]}
    assert behind == bare[1:]
    assert [r.headers.get("x-kidrails-band") for r in seen] == [None, str(case.band)]
    # The same words at another age are another question, though a guarded request's body is alike.
    older = replace(case, band=next(band for band in AgeBand if band is not case.band))
    await run(handler, tmp_path, cases=[older], guarded=True, system_prompt=prompts)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("chunks", "text", "error"),
    [
        ([{"choices": [{"delta": "x"}]}], "", "not_json"),
        (
            [
                {"choices": [], "prompt_filter_results": []},
                {"choices": [{"delta": {"content": "Hi \ud83d"}}]},
                {"choices": [{"delta": {"content": "\ude42 \ud83d"}, "finish_reason": "stop"}]},
            ],
            "Hi 🙂 \ufffd",
            "",
        ),
    ],
)
def test_an_odd_stream_neither_ends_the_run_nor_spoils_its_file(
    chunks: list[object], text: str, error: str
) -> None:
    import asyncio
    import json

    from kidrails_guard.evals.cases import Case
    from kidrails_guard.evals.endpoint import Endpoint, ask
    from kidrails_guard.types import Action, AgeBand, Hazard

    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    kind = {"content-type": "text/event-stream"}

    async def once() -> object:
        transport = httpx.MockTransport(lambda r: httpx.Response(200, text=body, headers=kind))
        case = Case("a", "crisis", AgeBand("7-9"), Hazard("K00"), Action.ALLOW, "hi")
        async with httpx.AsyncClient(transport=transport) as client:
            found = await ask(client, case, Endpoint("http://x/v1"), retry_seconds=())
        return found.text, found.error

    assert asyncio.run(once()) == (text, error)
