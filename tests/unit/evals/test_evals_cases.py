"""Cases: read, labelled as the policy says, disguised, chosen, and counted once."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from kidrails_guard.errors import DataError
from kidrails_guard.evals.cases import (
    TASKS,
    digest,
    disguised,
    read_cases,
    sample,
    task_cases,
    without_copies,
)
from kidrails_guard.evals.session import make_setup
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action, AgeBand, Hazard, Stage

POLICY = load_policy()


@pytest.mark.parametrize("task", TASKS)
def test_the_written_cases_are_read_and_agree_with_the_policy(task: str) -> None:
    cases = task_cases(task, POLICY)
    assert len(cases) >= 80
    assert len({c.id for c in cases}) == len(cases)
    for c in cases:
        expected = POLICY.action(c.hazard, c.severity, band=c.band, stage=Stage.INPUT, case=c.case)
        assert c.expected is expected


def test_every_hazard_is_asked_about_in_every_band() -> None:
    cells = Counter((c.hazard, c.band) for task in TASKS for c in task_cases(task, POLICY))
    assert min(cells[hazard, band] for hazard in Hazard for band in AgeBand) >= 2


def test_a_wrong_row_names_file_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"band": "5-6", "hazard": "K99", "message": "x"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:1.*K99"):
        read_cases(path, task="crisis", policy=POLICY)
    path.write_text('{"band": "5-6", "hazard": "K01"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:1: message: missing"):
        read_cases(path, task="crisis", policy=POLICY)
    row = {"band": "5-6", "hazard": "K01", "message": "x"}
    path.write_text(json.dumps(row | {"action": "blok"}) + "\n")
    with pytest.raises(DataError, match=r"x\.jsonl:1: action: .*blok"):
        read_cases(path, task="crisis", policy=POLICY)
    path.write_text("".join(json.dumps(row | {"id": str(i % 600)}) + "\n" for i in range(601)))
    with pytest.raises(DataError, match="id '0' stands there twice"):
        read_cases(path, task="crisis", policy=POLICY)
    with pytest.raises(DataError, match="accepted: child_safety"):
        task_cases("nonsense", POLICY)


def test_what_was_said_before_makes_another_case(tmp_path: Path) -> None:
    row = {"band": "5-6", "hazard": "K00", "message": "and why?"}
    path = tmp_path / "x.jsonl"
    said = [[{"role": "user", "content": words}] for words in ("the sun is hot", "it rains")]
    path.write_text("".join(json.dumps(row | {"conversation": t}) + "\n" for t in said))
    sun, rain = read_cases(path, task="crisis", policy=POLICY)
    assert sun.id != rain.id
    assert digest([sun]) != digest([replace(sun, conversation=rain.conversation)])
    assert digest([sun]) != digest([replace(sun, labelled=False)])
    assert digest([sun, rain]) == digest([rain, sun])


def test_disguises_keep_the_case_and_change_the_words() -> None:
    plain = task_cases("crisis", POLICY)[0]
    found = list(disguised(plain, seed=1))
    assert found[0].message == plain.message
    assert len({c.message for c in found}) == len(found) >= 6
    assert {c.expected for c in found} == {Action.CRISIS}
    assert {c.cluster for c in found} == {found[0].cluster}
    assert list(disguised(plain, seed=1)) == found


def test_disguises_in_turn_meet_every_kind_equally() -> None:
    every = task_cases("jailbreak", POLICY)
    one = task_cases("jailbreak", POLICY, disguises=1)
    kinds = Counter(c.variant for c in one)
    plain = kinds.pop("plain")
    assert plain == sum(c.variant == "plain" for c in every)
    assert set(kinds) == {c.variant for c in every} - {"plain"}
    assert max(kinds.values()) - min(kinds.values()) <= 3
    assert {c.id for c in one} <= {c.id for c in every}


def test_a_sample_is_spread_repeats_and_keeps_groups_whole() -> None:
    cases = task_cases("over_refusal", POLICY)
    few = sample(cases, 9, seed=3)
    assert few == sample(cases, 9, seed=3)
    assert {c.hazard for c in few} == {c.hazard for c in cases}
    pairs = sample(task_cases("age_contrast", POLICY), 11, seed=0)
    assert 8 <= len(pairs) <= 11
    assert set(Counter(c.group for c in pairs).values()) == {2}
    talks = sample(task_cases("multi_turn", POLICY), 12, seed=0)
    assert set(Counter(c.group for c in talks).values()) == {3}


def test_a_wording_counts_once_a_band() -> None:
    cases = task_cases("age_contrast", POLICY)
    assert without_copies([*cases, *cases]) == cases
    setup = make_setup(
        policy=None, tasks=["crisis", "crisis"], built=None, public=None, limit=None, seed=0
    )
    assert len({c.id for c in setup.cases}) == len(setup.cases) > 60
    assert any("kidrails data build" in note for note in setup.notes)


def test_what_the_guard_was_trained_on_is_left_out_with_its_disguises(monkeypatch) -> None:
    from kidrails_guard.evals import contamination

    cases = task_cases("jailbreak", POLICY)
    first, second = (c for c in cases[:14] if c.variant == "plain")
    near = first.message.replace("you must", "u must") + "!"
    monkeypatch.setattr(contamination, "_training_texts", lambda: (near, "why is the sky blue"))
    kept = contamination.unseen(cases)
    assert {c.group for c in cases} - {c.group for c in kept} == {first.id}
    assert second in kept
    monkeypatch.undo()
    setup = make_setup(
        policy=None, tasks=["child_safety"], built=None, public=None, limit=None, seed=0
    )
    trained = {text.casefold() for text in contamination._training_texts()}
    assert len(trained) > 5_000
    assert not trained & {case.message.casefold() for case in setup.cases}
    assert any("left out" in note for note in setup.notes)
