"""Rates over outcomes, and what the policy wants for a label."""

from __future__ import annotations

import pytest

from kidrails_guard.classifier.measure import (
    ACCEPTABLE,
    by_hazard,
    outcomes,
    summarise,
    wanted_action,
)
from kidrails_guard.classifier.rows import LabelledText
from kidrails_guard.policy import load_policy
from kidrails_guard.types import About, Action, AgeBand, Hazard, Severity, Stage

POLICY = load_policy()


def row(
    *hazards: Hazard, stage: Stage = Stage.INPUT, case: str = "", harmless: bool = True
) -> LabelledText:
    return LabelledText(
        text="x",
        turns=(),
        stage=stage,
        hazards=hazards,
        severity=Severity.MODERATE if hazards else Severity.NONE,
        about=About.SELF,
        case=case,
        split="eval",
        source="golden",
        harmless=harmless,
    )


@pytest.mark.parametrize(
    ("label", "band", "action"),
    [
        (row(), AgeBand.EARLY, Action.ALLOW),
        (row(Hazard.SELF_HARM), AgeBand.UPPER, Action.CRISIS),
        (row(Hazard.DANGEROUS_ACTS), AgeBand.EARLY, Action.REDIRECT),
        (row(Hazard.DANGEROUS_ACTS), AgeBand.UPPER, Action.CARE),
        (row(Hazard.BULLYING, case="did"), AgeBand.MIDDLE, Action.CARE),
        (row(Hazard.JAILBREAK, Hazard.SELF_HARM), AgeBand.MIDDLE, Action.CRISIS),
        (row(Hazard.DISTRESS, stage=Stage.OUTPUT, harmless=False), AgeBand.EARLY, Action.REDIRECT),
        (row(Hazard.BODY_GROWING_UP, stage=Stage.OUTPUT), AgeBand.EARLY, Action.ALLOW),
    ],
)
def test_the_policy_says_what_is_wanted(label: LabelledText, band: AgeBand, action: Action) -> None:
    assert wanted_action(POLICY, label, band) is action


def test_an_action_is_an_acceptable_form_of_itself() -> None:
    assert all(action in accepted for action, accepted in ACCEPTABLE.items())
    assert ACCEPTABLE[Action.CRISIS] == {Action.CRISIS}
    assert not any(Action.REFUSE in ACCEPTABLE[a] for a in Action if a < Action.REDIRECT)


def test_rates_count_what_they_say() -> None:
    rows = [
        row(),
        row(Hazard.VIOLENCE_IN_CONTEXT),
        row(Hazard.SELF_HARM),
        row(Hazard.ILLEGAL_ACTS),
        row(Hazard.ILLEGAL_ACTS, stage=Stage.OUTPUT, harmless=False),
        row(stage=Stage.OUTPUT),
    ]
    blocked = outcomes(rows, POLICY, lambda r, b: Action.REFUSE, [AgeBand.MIDDLE])
    rates = summarise(blocked)
    assert rates["over-block"].value == 1.0
    assert rates["over-block"].n == 2
    assert rates["over-block, benign only"].n == 1
    assert rates["unsafe allowed"].value == 0.0
    assert rates["crisis recall"].value == 0.0
    assert rates["bad replies held"].value == 1.0
    assert rates["good replies held"].value == 1.0
    allowed = summarise(outcomes(rows, POLICY, lambda r, b: Action.ALLOW, [AgeBand.MIDDLE]))
    assert allowed["unsafe allowed"].value == 1.0
    assert allowed["over-block"].value == 0.0
    assert allowed["good replies held"].value == 0.0


def test_hazards_are_told_apart() -> None:
    rows = [row(), row(Hazard.SELF_HARM, Hazard.JAILBREAK)]
    found = by_hazard(outcomes(rows, POLICY, lambda r, b: Action.CRISIS, list(AgeBand)))
    assert set(found) == {"K00", "K01", "K16"}
    assert found["K01"]["crisis recall"].n == 3
