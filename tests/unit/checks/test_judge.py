"""Guard models are asked in their own format, and what cannot be read counts as unsafe."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidrails_guard.checks import judge_formats as formats
from kidrails_guard.checks.judge import JudgeCheck, build
from kidrails_guard.checks.judge_formats import UnreadableReply
from kidrails_guard.errors import PolicyError, UpstreamError
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy
from kidrails_guard.types import (
    NO_TURNS,
    Action,
    AgeBand,
    Conversation,
    Finding,
    Hazard,
    Message,
    Severity,
    Stage,
)

POLICY = load_policy()
URL = {"base_url": "http://judge.test/v1", "model": "guard"}


def answering(reply: str, seen: list | None = None, status: int = 200) -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(
                json.loads(request.content) | {"auth": request.headers.get("authorization")}
            )
        return httpx.Response(status, json={"choices": [{"message": {"content": reply}}]})

    return httpx.MockTransport(handle)


@pytest.mark.parametrize(
    ("reply", "hazards"),
    [
        ("safe", []),
        ("\n\nsafe", []),
        ("unsafe\nS1", [Hazard.VIOLENCE_HOWTO]),
        ("\n\nunsafe\nS10,S12\n", [Hazard.HATE, Hazard.SEXUAL_CONTENT]),
        ("unsafe\nS11", [Hazard.SELF_HARM_QUESTION]),
        ("unsafe\nS13", []),  # elections are no hazard for children
    ],
)
def test_llama_guard(reply: str, hazards: list[Hazard]) -> None:
    assert [j.hazard for j in formats.read_llama_guard(reply)] == hazards


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "SAFE",
        "unsafe",
        "unsafe\nS99",
        "safe\nS1",
        "The text is safe.",
        "unsafe\nS1\nsafe",
        "safe safe",
    ],
)
def test_llama_guard_unreadable(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        formats.read_llama_guard(reply)


@pytest.mark.parametrize(
    "read",
    [
        formats.read_llama_guard,
        formats.read_qwen3guard,
        lambda reply: formats.read_granite(reply, "violence"),
        lambda reply: formats.read_shieldgemma(reply, "hate"),
        formats.read_kidrails,
    ],
)
@pytest.mark.parametrize("begins", ["safe", "yes", "Safety: Safe", "<think>", "K13 mild self", ""])
@pytest.mark.parametrize("blank", ["\n", " ", "\n \n"])
def test_a_model_that_goes_on_writing_blanks_holds_nobody_up(
    read: Callable[[str], object], begins: str, blank: str
) -> None:
    start = time.perf_counter()
    with contextlib.suppress(UnreadableReply):
        read(begins + blank * 6_000 + "x\ny")
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    ("reply", "hazards", "weak"),
    [
        ("Safety: Safe\nCategories: None", [], False),
        ("Safety: Safe\nCategories: None\nRefusal: Yes", [], False),
        ("Safety: Unsafe\nCategories: Violent", [Hazard.VIOLENCE_HOWTO], False),
        (
            "Safety: Unsafe\nCategories: Sexual Content or Sexual Acts, PII",
            [Hazard.SEXUAL_CONTENT, Hazard.PERSONAL_DATA],
            False,
        ),
        ("Safety: Controversial\nCategories: Unethical Acts", [Hazard.HATE], True),
    ],
)
def test_qwen3guard(reply: str, hazards: list[Hazard], weak: bool) -> None:
    judged = formats.read_qwen3guard(reply)
    assert [j.hazard for j in judged] == hazards
    assert all(j.weak is weak for j in judged)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Safe",
        "Safety: Safe",
        "Safety: Unsafe\nCategories: None",
        "Safety: Safe\nSafety: Unsafe\nCategories: Violent",
        "Safety: Unsafe\nCategories: Weather",
    ],
)
def test_qwen3guard_unreadable(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        formats.read_qwen3guard(reply)


@pytest.mark.parametrize(
    ("reply", "found", "weak"),
    [
        ("Yes", True, False),
        ("No", False, False),
        ("Yes\n<confidence> High </confidence>", True, False),
        ("Yes\n<confidence> Low </confidence>", True, True),
        ("<score> yes </score>", True, False),
        ("<score> no </score>", False, False),
        ("<think>is it yes or no?</think>\n<score> no </score>", False, False),
    ],
)
def test_granite_guardian(reply: str, found: bool, weak: bool) -> None:
    judged = formats.read_granite(reply, "violence")
    assert [j.hazard for j in judged] == [Hazard.VIOLENCE_HOWTO] * found
    assert all(j.weak is weak for j in judged)


@pytest.mark.parametrize(
    "reply", ["", "Yes and no", "maybe", "<think>no", "<score>perhaps</score>"]
)
def test_granite_guardian_unreadable(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        formats.read_granite(reply, "violence")


def test_shieldgemma() -> None:
    assert formats.read_shieldgemma("No. The text is kind.", "hate") == []
    assert formats.read_shieldgemma("**Yes**, it demeans", "hate")[0].hazard is Hazard.HATE
    for reply in ("", "The answer is Yes", "Yesterday", "None"):
        with pytest.raises(UnreadableReply):
            formats.read_shieldgemma(reply, "hate")


def test_our_own_guard_model() -> None:
    (judged,) = formats.read_kidrails("K01 severe self")
    assert (judged.hazard, judged.severity) == (Hazard.SELF_HARM, Severity.SEVERE)
    assert formats.read_kidrails("K00 none none") == []
    for reply in ("", "K99 mild self", "K01 severe", "K01 severe self\nK00 none none"):
        with pytest.raises(UnreadableReply):
            formats.read_kidrails(reply)


@given(st.text(max_size=80))
def test_no_reply_passes_by_accident(reply: str) -> None:
    readers = [
        formats.read_llama_guard,
        formats.read_qwen3guard,
        lambda r: formats.read_granite(r, "harm"),
        lambda r: formats.read_shieldgemma(r, "hate"),
        formats.read_kidrails,
    ]
    for read in readers:
        with contextlib.suppress(UnreadableReply):
            assert isinstance(read(reply), list)


async def test_the_question_holds_the_turns_and_the_key(monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "k")
    seen: list = []
    check = build(
        POLICY,
        **URL,
        format="llama_guard",
        api_key_env="JUDGE_KEY",
        transport=answering("safe", seen),
    )
    turns = Conversation((Message("user", "a"), Message("user", "b"), Message("assistant", "c")))
    assert await check(turns, "how?", AgeBand.MIDDLE, Stage.INPUT) == []
    (body,) = seen
    assert body["auth"] == "Bearer k"
    assert [m["role"] for m in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][0]["content"] == "a\nb"
    assert body["temperature"] == 0
    await check.aclose()


@pytest.mark.parametrize(
    ("form", "questions"),
    [("granite_guardian", len(formats.GRANITE)), ("shieldgemma", len(formats.SHIELDGEMMA))],
)
async def test_one_question_for_each_risk(form: str, questions: int) -> None:
    seen: list = []
    check = build(POLICY, **URL, format=form, transport=answering("Yes", seen))
    found = await check(NO_TURNS, "text", AgeBand.MIDDLE, Stage.OUTPUT)
    assert len(seen) == len(found) == questions
    assert len({json.dumps(s["chat_template_kwargs"]) for s in seen}) == questions
    assert all(m["role"] == "assistant" for s in seen for m in s["messages"][-1:])
    await check.aclose()


async def test_our_model_is_told_the_band_and_its_findings_reach_the_verdict() -> None:
    seen: list = []
    check = build(POLICY, **URL, format="kidrails", transport=answering("K02 severe self", seen))
    verdict = await Guard(POLICY, checks=[check]).check_input("…", band=AgeBand.EARLY)
    assert verdict.action is Action.CRISIS
    assert "Age: 5-6" in seen[0]["messages"][1]["content"]
    await check.aclose()


@pytest.mark.parametrize(
    "transport",
    [
        answering("I think it is fine"),
        answering("", status=500),
        httpx.MockTransport(lambda r: httpx.Response(200, text="<html>")),
    ],
)
async def test_what_cannot_be_read_is_a_failed_check(transport) -> None:
    check = build(POLICY, **URL, format="llama_guard", transport=transport)
    verdict = await Guard(POLICY, checks=[check]).check_input("hello", band=AgeBand.EARLY)
    assert verdict.action is Action.REFUSE
    assert verdict.failed == ("judge",)
    await check.aclose()


async def test_no_connection_says_so_without_the_text() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("secret words")

    check = build(POLICY, **URL, format="llama_guard", transport=httpx.MockTransport(refuse))
    with pytest.raises(UpstreamError, match="cannot be reached") as caught:
        await check(NO_TURNS, "secret words", AgeBand.EARLY, Stage.INPUT)
    assert "secret" not in str(caught.value)
    await check.aclose()


async def test_a_sure_classifier_spares_the_question() -> None:
    class Classifier:
        score = 0.99

        async def __call__(self, conversation, text, band, stage):
            return [Finding("classifier", Hazard.HATE, Severity.MILD, score=self.score)]

    seen: list = []
    check = JudgeCheck(
        URL["base_url"],
        "guard",
        form="llama_guard",
        unsure=Classifier(),
        transport=answering("unsafe\nS10", seen),
    )
    assert await check(NO_TURNS, "text", AgeBand.EARLY, Stage.INPUT) == ()
    assert seen == []
    Classifier.score = 0.6
    (found,) = await check(NO_TURNS, "text", AgeBand.EARLY, Stage.INPUT)
    assert found.hazard is Hazard.HATE
    assert len(seen) == 1
    await check.aclose()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "gpt"}, "format"),
        ({"format": "kidrails", "base_url": "localhost:8000"}, "base_url"),
        ({"format": "kidrails", "api_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE is not set"),
        ({"format": "kidrails", "when": "never"}, "when"),
        ({"format": "kidrails", "stages": ["both"]}, "stages"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        build(POLICY, **(URL | options))
