"""A session adds up, forgives, expires, and holds no words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidrails_guard.guard import decide
from kidrails_guard.policy import load_policy
from kidrails_guard.session import (
    FORGIVEN_AFTER_S,
    MAX_BYTES,
    MOST,
    THEMES,
    TTL_S,
    MemoryStore,
    SessionState,
    advance,
    begin,
    describe,
    disclosed,
    load_state,
    paused,
)
from kidrails_guard.types import Action, AgeBand, Finding, Hazard, Severity, Stage, Verdict

POLICY = load_policy()


def verdict(*hazards: Hazard) -> Verdict:
    found = [Finding("says", hazard, Severity.SEVERE) for hazard in hazards]
    return decide(POLICY, found, band=AgeBand.MIDDLE, stage=Stage.INPUT)


CALM = verdict()


def test_two_refusals_make_wary_and_calm_turns_are_forgiven() -> None:
    state = advance(None, verdict(Hazard.VIOLENCE_HOWTO), 100.0)
    assert not state.wary(100.0)
    state = advance(state, verdict(Hazard.JAILBREAK), 110.0)
    assert state.wary(110.0)
    state = advance(state, CALM, 120.0)
    assert not state.wary(120.0)
    for _ in range(8):
        state = advance(state, CALM, 130.0)
    assert state.weights == {}
    assert state.turns == 11


def test_a_crisis_makes_wary_at_once() -> None:
    assert advance(None, verdict(Hazard.SELF_HARM), 5.0).wary(5.0)


def test_themes_are_added_up_separately() -> None:
    state = None
    for hazard in (Hazard.VIOLENCE_HOWTO, Hazard.DISTRESS, Hazard.SEXUAL_CONTENT):
        state = advance(state, verdict(hazard), 10.0)
    assert not state.wary(10.0)


def test_silence_forgives_too() -> None:
    state = advance(None, verdict(Hazard.SELF_HARM), 0.0)
    full = state.weight("crisis", 0.0)
    assert state.weight("crisis", FORGIVEN_AFTER_S) == pytest.approx(full / 2)


def test_a_session_expires_and_begins_anew() -> None:
    old = advance(None, verdict(Hazard.SELF_HARM), 0.0)
    new = advance(old, CALM, TTL_S + 1.0)
    assert (new.turns, new.started_at, new.weights) == (1, TTL_S + 1.0, {})


def test_a_clock_that_jumps_back_begins_anew() -> None:
    state = advance(advance(None, CALM, 1_000.0), CALM, 10.0)
    assert (state.turns, state.started_at) == (1, 10.0)


def test_a_break_is_due_after_the_policys_minutes() -> None:
    state = begin(0.0)
    assert not state.break_due(179 * 60, after_minutes=180)
    assert state.break_due(180 * 60, after_minutes=180)
    assert not paused(state, 180 * 60).break_due(181 * 60, after_minutes=180)


def test_being_told_is_kept_until_the_session_is_over() -> None:
    state = disclosed(advance(None, CALM, 10.0))
    again = load_state(state.to_bytes())
    assert again is not None
    assert advance(again, CALM, 20.0).disclosed
    assert not advance(again, CALM, 20.0 + TTL_S).disclosed
    # What an earlier version has kept does not say it.
    older = load_state(b'{"v":1,"started":1,"seen":1,"paused":1,"turns":1,"weights":{}}')
    assert older is not None
    assert not older.disclosed


@given(st.lists(st.tuples(st.sampled_from(list(Hazard)), st.floats(0, 4_000)), max_size=60))
def test_the_state_stays_bounded_and_survives_the_store(
    turns: list[tuple[Hazard, float]],
) -> None:
    state, now = None, 1e9
    for hazard, step in turns:
        now += step
        state = advance(state, verdict(hazard), now)
        assert set(state.weights) <= set(THEMES)
        assert all(0 <= weight <= MOST for weight in state.weights.values())
    if state is not None:
        value = state.to_bytes()
        assert len(value) < MAX_BYTES
        again = load_state(value)
        assert again is not None
        assert again.turns == state.turns
        for theme in THEMES:
            assert again.weight(theme, now) == pytest.approx(state.weight(theme, now), abs=0.02)


def test_the_bytes_hold_numbers_alone() -> None:
    record = json.loads(advance(None, verdict(Hazard.SELF_HARM), 7.0).to_bytes())
    assert set(record) == {"v", "started", "seen", "paused", "turns", "disclosed", "weights"}
    assert record["disclosed"] == 0
    assert set(record["weights"]) == {"crisis"}


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"v":2,"started":1,"seen":1,"paused":1,"turns":1,"weights":{}}',
        b'{"v":1,"started":-5,"seen":1,"paused":1,"turns":1,"weights":{}}',
        b'{"v":1,"started":1,"seen":1,"paused":1,"turns":"x","weights":{}}',
        b'{"v":1,"started":1,"seen":1,"paused":1,"turns":1,"weights":[]}',
        b'{"v":1,"started":NaN,"seen":1,"paused":1,"turns":1,"weights":{}}',
        b"x" * (MAX_BYTES + 1),
        b"[" * 1_000,
    ],
)
def test_broken_bytes_are_no_state(value: bytes | None) -> None:
    assert load_state(value) is None


def test_weights_from_outside_are_clamped() -> None:
    value = b'{"v":1,"started":1,"seen":1,"paused":1,"turns":1,"weights":{"crisis":99,"odd":1}}'
    state = load_state(value)
    assert state is not None
    assert dict(state.weights) == {"crisis": MOST}


async def test_the_memory_store_expires_and_is_bounded() -> None:
    now = 0.0
    store = MemoryStore(2, clock=lambda: now)
    await store.put("a", b"1", ttl_seconds=10)
    await store.put("b", b"2", ttl_seconds=20)
    assert await store.get("a") == b"1"
    await store.put("c", b"3", ttl_seconds=20)  # b was used least recently
    assert [await store.get(k) for k in "abc"] == [b"1", None, b"3"]
    now = 15.0
    assert [await store.get(k) for k in "ac"] == [None, b"3"]
    await store.put("big", b"x" * (MAX_BYTES + 1), ttl_seconds=10)
    assert await store.get("big") is None
    assert len(store) == 1
    await store.close()
    assert len(store) == 0


def test_a_store_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MemoryStore(0)


def test_the_description_is_for_a_grown_up() -> None:
    state = advance(None, verdict(Hazard.SELF_HARM), 60.0)
    assert describe(state, 120.0)["turns"] == 1
    assert isinstance(state, SessionState)
    assert Action.CRISIS.answers
