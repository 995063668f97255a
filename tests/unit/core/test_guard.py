"""The guard merges findings by the policy, and whatever a check does, nothing slips through."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidrails_guard.errors import PolicyError
from kidrails_guard.guard import Guard, decide, mask_spans
from kidrails_guard.policy import load_policy
from kidrails_guard.types import (
    CASES,
    Action,
    AgeBand,
    Conversation,
    Finding,
    Hazard,
    Message,
    Severity,
    Stage,
    Verdict,
)

POLICY = load_policy()
BOTH = frozenset(Stage)


class Says:
    """A check that returns what it is given."""

    name = "says"
    stages = BOTH

    def __init__(self, *findings: object) -> None:
        self.findings = findings

    async def __call__(self, conversation, text, band, stage):
        return self.findings


class Raises(Says):
    name = "raises"

    async def __call__(self, conversation, text, band, stage):
        raise ValueError(f"secret words: {text}")


class Hangs(Says):
    name = "hangs"

    async def __call__(self, conversation, text, band, stage):
        await asyncio.sleep(60)
        return ()


def inline(check: Says) -> Says:
    """The same check, one that says that it never waits."""
    check.inline = True
    return check


class NoCoroutine(Says):
    name = "no_coroutine"

    def __call__(self, conversation, text, band, stage):
        return ()


BAD = [Raises(), Hangs(), Says("not a finding"), Says(None), NoCoroutine()]
BAD_INLINE = [
    *(inline(Raises()), inline(Hangs()), inline(Says("not a finding")), inline(Says(None))),
    inline(NoCoroutine()),
]


def found(hazard: Hazard, **more) -> Finding:
    return Finding("says", hazard, more.pop("severity", Severity.MODERATE), **more)


@pytest.mark.parametrize("check", [*BAD, *BAD_INLINE])
@pytest.mark.parametrize("stage", list(Stage))
async def test_a_failing_check_is_named_and_refused(check, stage) -> None:
    policy = POLICY.model_copy(update={"check_timeout_ms": 30})
    seen = []
    guard = Guard(policy, checks=[Says(), check], observer=lambda *a: seen.append(a))
    if isinstance(check, Says) and check.name == "says":
        guard = Guard(policy, checks=[check], observer=lambda *a: seen.append(a))
    run = guard.check_input if stage is Stage.INPUT else guard.check_output
    verdict = await run("hello", band=AgeBand.MIDDLE)
    assert verdict.action is Action.REFUSE
    assert verdict.failed == (check.name,)
    assert [a[0] for a in seen if a[3]] == [check.name]
    assert "secret" not in repr(verdict)
    assert "check" in guard.answer(verdict, AgeBand.MIDDLE, seed="s")


async def test_why_a_check_fails_is_logged_once_a_minute_without_words(caplog, monkeypatch) -> None:
    class Broken(Says):
        async def __call__(self, *given):
            raise ValueError("the secret words")

    guard = Guard(POLICY, checks=[Broken()])
    for _ in range(3):
        await guard.check_input("the secret words", band=AgeBand.MIDDLE)
    assert [r.getMessage() for r in caplog.records] == [
        "check says: raised ValueError; what it was to look at was held back"
    ]
    monkeypatch.setattr("kidrails_guard.guard._LOGGED_AGAIN_S", 0.0)
    await guard.check_input("hello", band=AgeBand.MIDDLE)
    assert len(caplog.records) == 2


async def test_a_score_or_span_that_cannot_be_is_nonsense() -> None:
    for finding in (found(Hazard.HATE, score=1.5), found(Hazard.HATE, span=(5, 2))):
        verdict = await Guard(checks=[Says(finding)]).check_input("x", band=AgeBand.UPPER)
        assert verdict.failed == ("says",)


async def test_inline_and_waiting_checks_are_merged() -> None:
    checks = [
        Says(found(Hazard.HATE)),
        inline(Says(found(Hazard.PROFANITY))),
        inline(Says(found(Hazard.SELF_HARM))),
        Says(found(Hazard.SUBSTANCES)),
    ]
    for some in (checks, checks[:3], checks[1:3]):
        verdict = await Guard(checks=some).check_input("x", band=AgeBand.UPPER)
        assert verdict.action is Action.CRISIS
        assert set(verdict.hazards) == {f.hazard for check in some for f in check.findings}


async def test_a_waiting_check_is_stopped_at_its_deadline() -> None:
    stopped = []

    class Notes(Hangs):
        async def __call__(self, conversation, text, band, stage):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                stopped.append(self)
                raise

    for others in ([], [Says()], [inline(Says())]):
        policy = POLICY.model_copy(update={"check_timeout_ms": 30})
        guard = Guard(policy, checks=[Notes(), *others])
        verdict = await guard.check_input("hello", band=AgeBand.MIDDLE)
        assert verdict.failed == ("hangs",)
    assert len(stopped) == 3


def test_no_checks_for_a_stage_is_an_error_at_load() -> None:
    only_input = Says()
    only_input.stages = frozenset({Stage.INPUT})
    with pytest.raises(PolicyError, match="output stage"):
        Guard(checks=[only_input])


async def test_too_long_a_text_or_conversation_is_not_passed() -> None:
    guard = Guard(checks=[Says()])
    verdict = await guard.check_input("a" * 30_000, band=AgeBand.UPPER)
    assert (verdict.action, verdict.failed) == (Action.REFUSE, ("limits",))
    long = Conversation(tuple(Message("user", "hi") for _ in range(10_000)))
    verdict = await guard.check_input("hi", long, band=AgeBand.UPPER)
    assert verdict.failed == ("limits",)


async def test_a_band_that_the_policy_does_not_serve_is_an_error() -> None:
    policy = POLICY.model_copy(update={"bands": {AgeBand.UPPER: POLICY.bands[AgeBand.UPPER]}})
    with pytest.raises(PolicyError, match="not served"):
        await Guard(policy, checks=[Says()]).check_input("x", band=AgeBand.EARLY)


async def test_weak_findings_count_only_where_strict() -> None:
    guard = Guard(checks=[Says(found(Hazard.VIOLENCE_HOWTO, weak=True))])
    assert (await guard.check_output("x", band=AgeBand.EARLY)).action is Action.ALLOW
    assert (await guard.check_output("x", band=AgeBand.EARLY, strict=True)).action is Action.REFUSE


async def test_sync_and_async_say_the_same_inside_a_running_loop_too() -> None:
    guard = Guard(checks=[Says(found(Hazard.SELF_HARM))])
    inside = guard.check_input_sync("x", band=AgeBand.EARLY)
    outside = await guard.check_input("x", band=AgeBand.EARLY)
    assert (inside.action, inside.findings) == (outside.action, outside.findings)
    assert inside.action is Action.CRISIS


def test_care_adds_the_hazards_guidance_to_the_prompt() -> None:
    guard = Guard(checks=[Says()])
    verdict = decide(POLICY, [found(Hazard.DISTRESS)], band=AgeBand.EARLY, stage=Stage.INPUT)
    plain, guided = (guard.system_prompt(AgeBand.EARLY, v) for v in (None, verdict))
    assert "5 to 6" in plain
    assert guided.startswith(plain)
    assert "the feeling makes sense" in guided


def test_repr_never_shows_a_childs_words() -> None:
    conversation = Conversation((Message("user", "my secret words"),))
    assert "secret" not in repr(conversation)


findings = st.builds(
    lambda hazard, severity, score, pick: Finding(
        "c",
        hazard,
        severity,
        score,
        case=("", *CASES.get(hazard, ()))[pick % (1 + len(CASES.get(hazard, ())))],
    ),
    st.sampled_from(list(Hazard)),
    st.sampled_from([Severity.MILD, Severity.MODERATE, Severity.SEVERE]),
    st.floats(0, 1),
    st.integers(0, 5),
)
verdicts = st.builds(
    lambda fs, band: decide(POLICY, fs, band=band, stage=Stage.INPUT),
    st.lists(findings, max_size=4),
    st.sampled_from(list(AgeBand)),
)


@given(verdicts, verdicts, verdicts)
def test_merge_is_associative_commutative_and_idempotent(
    a: Verdict, b: Verdict, c: Verdict
) -> None:
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a
    assert a.merge(b).action is max(a.action, b.action)
    assert set(a.merge(b).findings) == {*a.findings, *b.findings}


@given(st.text(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))))
def test_masking_hides_every_span(text: str, raw: list[tuple[int, int]]) -> None:
    spans = [
        (min(a, b), max(a, b)) for a, b in raw if min(a, b) < len(text) and max(a, b) <= len(text)
    ]
    masked = mask_spans(text, [(span, "¤") for span in spans])
    kept = [c for i, c in enumerate(text) if not any(s <= i < e for s, e in spans)]
    assert [c for c in masked if c != "¤"] == [c for c in kept if c != "¤"]
