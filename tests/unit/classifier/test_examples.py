"""Targets: what is known of a text, and what is left open."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kidrails_guard.classifier.examples import OPEN, from_own, from_public, risky
from kidrails_guard.classifier.labels import (
    ABOUTS,
    CASE_INDEX,
    HAZARD_INDEX,
    HAZARDS,
    RISK_AT,
    SLICES,
    WIDTH,
    names,
)
from kidrails_guard.classifier.public import HELD_OUT, read_public
from kidrails_guard.classifier.rows import LabelledText
from kidrails_guard.policy import load_policy
from kidrails_guard.types import About, Hazard, Severity, Stage

POLICY = load_policy()
ROW = LabelledText(
    text="x",
    turns=(),
    stage=Stage.INPUT,
    hazards=(Hazard.BULLYING,),
    severity=Severity.MILD,
    about=About.SELF,
    case="suffers",
    split="train",
    source="risky",
)


def test_outputs_are_named_once_and_in_order() -> None:
    assert len(names()) == len(set(names())) == WIDTH
    assert names()[SLICES["risk"].start] == "risk"
    assert SLICES["kind"].stop == WIDTH


def test_a_row_knows_all_hazards_and_only_its_own_cases() -> None:
    (example,) = from_own([ROW], POLICY)
    assert example.known[: len(HAZARDS)].all()
    assert example.target[HAZARD_INDEX[Hazard.BULLYING]] == 1
    assert example.target[: len(HAZARDS)].sum() == 1
    at = RISK_AT + 1
    assert example.target[at + CASE_INDEX[Hazard.BULLYING, "suffers"]] == 1
    assert example.target[at + CASE_INDEX[Hazard.BULLYING, "plans"]] == 0
    assert example.known[at + CASE_INDEX[Hazard.BULLYING, "plans"]] == 1
    assert example.known[at + CASE_INDEX[Hazard.HATE, "asks"]] == 0
    assert ABOUTS[example.about] is About.SELF
    assert not example.benign


def test_a_benign_row_is_benign_and_has_no_severity() -> None:
    row = replace(ROW, hazards=(), severity=Severity.NONE, case="")
    (example,) = from_own([row], POLICY)
    assert example.benign
    assert example.severity == OPEN
    assert not example.target.any()


@pytest.mark.parametrize(
    ("hazard", "case", "stage", "harmless", "expected"),
    [
        (Hazard.SELF_HARM, "", Stage.INPUT, True, True),
        (Hazard.SCHOOL_CHEATING, "", Stage.INPUT, True, False),
        (Hazard.SELF_HARM_QUESTION, "", Stage.INPUT, True, None),
        (Hazard.SUBSTANCES, "howto", Stage.INPUT, True, True),
        (Hazard.HATE, "asks", Stage.INPUT, True, False),
        (Hazard.DANGEROUS_ACTS, "", Stage.INPUT, True, True),
        (Hazard.BODY_GROWING_UP, "", Stage.OUTPUT, True, False),
        (Hazard.BODY_GROWING_UP, "", Stage.OUTPUT, False, None),
        (Hazard.DISTRESS, "", Stage.OUTPUT, False, True),
    ],
)
def test_risk_follows_the_policy(
    hazard: Hazard, case: str, stage: Stage, harmless: bool, expected: bool | None
) -> None:
    row = replace(ROW, hazards=(hazard,), case=case, stage=stage, harmless=harmless)
    assert risky(POLICY, row) is expected


def test_public_rows_leave_open_what_their_set_does_not_say(tmp_path: Path) -> None:
    def put(name: str, *rows: dict[str, str]) -> None:
        text = "\n".join(json.dumps({"role": "user", **row}) for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")

    put("ailuminate_demo", {"text": "a", "label": "harmful", "category": "hte"})
    put("strongreject", {"text": "b", "label": "harmful", "category": "Disinformation and x"})
    put("harmbench", {"text": "c", "label": "harmful", "category": "illegal"})
    put("childsafe_half", {"text": "d", "label": "benign", "category": "scenario"})
    put("rtp_threat", {"text": "e", "label": "harmful", "category": "threat"})
    put(
        "diasafety_val",
        {"role": "assistant", "text": "f", "label": "unsafe", "category": "Offending User"},
        {"role": "assistant", "text": "g", "label": "safe", "category": "Offending User"},
        {"role": "assistant", "text": "h", "label": "safe", "category": "Unauthorized Expertise"},
    )
    rows = {row.text: row for row in read_public(tmp_path)}
    assert set(rows) == {"a", "b", "c", "d", "f", "g"}
    assert (rows["f"].risky, rows["g"].risky) == (True, False)
    assert rows["g"].split != "eval"
    assert rows["c"].split == "eval"
    examples = {e.text: e for e in from_public(rows.values())}
    hate = HAZARD_INDEX[Hazard.HATE]
    assert (examples["a"].target[hate], examples["a"].known[hate]) == (1, 1)
    assert examples["a"].known[HAZARD_INDEX[Hazard.BULLYING]] == 0
    assert not examples["b"].known[: len(HAZARDS)].any()
    assert (examples["b"].target[RISK_AT], examples["b"].known[RISK_AT]) == (1, 1)
    assert examples["d"].benign


def test_sets_that_only_measure_are_never_trained_on(shared: Path) -> None:
    rows = list(read_public(shared / "datasets"))
    assert {r.source for r in rows} >= HELD_OUT
    assert not [r for r in rows if r.source in HELD_OUT and r.split == "train"]
    stories = {r.split: set() for r in rows}
    for row in rows:
        if row.source == "fairytaleqa_half":
            stories[row.split].add(row.text)
    assert stories["train"]
    assert stories["dev"]
