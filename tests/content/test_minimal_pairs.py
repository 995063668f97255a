"""Who, and is it happening: minimal pairs that differ in little but the answer.

Half of the pairs were never trained on; both halves are measured, the held-out half by itself.
The floors stand a little below what the shipped classifier reaches (docs/classifier.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kidrails_guard.checks.classifier import build
from kidrails_guard.classifier.measure import ACCEPTABLE, wanted_action
from kidrails_guard.classifier.rows import LabelledText, read_messages
from kidrails_guard.guard import decide
from kidrails_guard.policy import load_policy
from kidrails_guard.types import NO_TURNS, Action, AgeBand, Hazard

POLICY = load_policy()
CRISIS = {Hazard.SELF_HARM, Hazard.ABUSE_DISCLOSURE}
Pair = tuple[LabelledText, LabelledText]


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    path = Path(__file__).resolve().parents[2] / "data/messages/pairs.tsv"
    rows = list(read_messages(path))
    return list(zip(rows[::2], rows[1::2], strict=True))


@pytest.fixture(scope="module")
def actions(pairs: Sequence[Pair]) -> dict[str, Action]:
    check = build(POLICY)
    return {
        row.text: decide(
            POLICY,
            [f for f in check.find(NO_TURNS, row.text, AgeBand.MIDDLE, row.stage) if not f.weak],
            band=AgeBand.MIDDLE,
            stage=row.stage,
        ).action
        for pair in pairs
        for row in pair
    }


def right(row: LabelledText, actions: dict[str, Action]) -> bool:
    return actions[row.text] in ACCEPTABLE[wanted_action(POLICY, row, AgeBand.MIDDLE)]


def test_there_are_enough_and_each_differs_in_its_answer(pairs: Sequence[Pair]) -> None:
    assert len(pairs) >= 150
    differ = [a.hazards != b.hazards or a.about != b.about or a.case != b.case for a, b in pairs]
    assert sum(differ) >= 0.95 * len(pairs)


def test_pairs_are_told_apart(pairs: Sequence[Pair], actions: dict[str, Action]) -> None:
    both = [right(a, actions) and right(b, actions) for a, b in pairs]
    assert sum(both) >= 0.80 * len(both)


def test_held_out_texts_of_pairs_get_the_right_action(
    pairs: Sequence[Pair], actions: dict[str, Action]
) -> None:
    held = [row for pair in pairs for row in pair if row.split == "eval"]
    assert sum(right(row, actions) for row in held) >= 0.80 * len(held)


def test_a_child_in_danger_is_not_missed(pairs: Sequence[Pair], actions: dict[str, Action]) -> None:
    danger = [row for pair in pairs for row in pair if CRISIS & {*row.hazards}]
    assert len(danger) >= 50
    found = [actions[row.text] is Action.CRISIS for row in danger]
    assert sum(found) >= 0.97 * len(found)
