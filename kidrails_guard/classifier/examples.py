"""Labelled texts as training targets: what is known of each output, and what is left open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kidrails_guard.classifier.encode import Turn
from kidrails_guard.classifier.labels import (
    ABOUTS,
    BINARY,
    CASE_INDEX,
    CASE_NAMES,
    HAZARD_INDEX,
    HAZARDS,
    RISK_AT,
    SEVERITIES,
)
from kidrails_guard.classifier.public import PublicText
from kidrails_guard.classifier.rows import LabelledText
from kidrails_guard.policy import Policy
from kidrails_guard.types import Action, AgeBand, Hazard, Severity, Stage

OPEN: Final = -1
"""A choice that is not known."""

OVERDONE: Final = frozenset(
    {Hazard.BODY_GROWING_UP, Hazard.VIOLENCE_IN_CONTEXT, Hazard.SCHOOL_CHEATING}
)
"""Where a bad reply is mostly one that refuses too much: poor, but nothing to hold back."""

# A grave miss costs a child more than a grave false alarm costs a conversation.
CRISIS_WEIGHT: Final = 1.5


@dataclass(frozen=True, slots=True)
class Example:
    """One text with its targets.

    Attributes:
        target: shape (BINARY,), 0 or 1.
        known: shape (BINARY,), 1 where the target counts.
        severity: index into `SEVERITIES`, or `OPEN`.
        about: index into `ABOUTS`, or `OPEN`.
        kind: shape (hazards + 1,), sums to 1, benign last; all 0 where it is not known.
        own: the project's own row, where it is one.
    """

    text: str
    turns: tuple[Turn, ...]
    stage: Stage
    target: NDArray[np.float32]
    known: NDArray[np.float32]
    severity: int
    about: int
    kind: NDArray[np.float32]
    weight: float
    split: str
    source: str
    own: LabelledText | None = field(default=None, repr=False)

    @property
    def benign(self) -> bool:
        """Whether nothing is to be found in it."""
        return not self.target[: RISK_AT + 1].any() and bool(self.known[RISK_AT])


def risky(policy: Policy, row: LabelledText) -> bool | None:
    """Return whether the policy answers this text itself: in most bands, in few (None), in none."""
    if row.stage is Stage.OUTPUT:
        if not row.harmless and OVERDONE.intersection(row.hazards):
            return None
        return bool(row.hazards) and row.hazards != (Hazard.BODY_GROWING_UP,)
    answered = sum(
        any(
            policy.action(h, row.severity, band=band, stage=row.stage, case=row.case)
            >= Action.REDIRECT
            for h in row.hazards
        )
        for band in AgeBand
    )
    return None if answered == 1 else answered > 1


def kind_of(hazards: Iterable[Hazard], *, benign: bool) -> NDArray[np.float32]:
    """Return the choice of one that a text trains: shared between hazards, or benign, or none."""
    kind: NDArray[np.float32] = np.zeros(len(HAZARDS) + 1, np.float32)
    for hazard in hazards:
        kind[HAZARD_INDEX[hazard]] = 1
    kind[-1] = benign
    kind /= max(float(kind.sum()), 1.0)
    return kind


def from_own(rows: Iterable[LabelledText], policy: Policy) -> list[Example]:
    """Return the project's own rows as examples."""
    examples = []
    for row in rows:
        target = np.zeros(BINARY, np.float32)
        known = np.zeros(BINARY, np.float32)
        known[: len(HAZARDS)] = 1
        for hazard in row.hazards:
            target[HAZARD_INDEX[hazard]] = 1
        risk = risky(policy, row)
        if risk is not None:
            target[RISK_AT], known[RISK_AT] = risk, 1
        for hazard, case in CASE_NAMES:
            if hazard in row.hazards and row.stage is Stage.INPUT:
                at = RISK_AT + 1 + CASE_INDEX[hazard, case]
                target[at], known[at] = case == row.case, 1
        crisis = {Hazard.SELF_HARM, Hazard.ABUSE_DISCLOSURE} & {*row.hazards}
        examples.append(
            Example(
                row.text,
                row.turns,
                row.stage,
                target,
                known,
                SEVERITIES.index(row.severity) if row.severity > Severity.NONE else OPEN,
                ABOUTS.index(row.about) if row.stage is Stage.INPUT else OPEN,
                kind_of(row.hazards, benign=not row.hazards),
                row.weight * (CRISIS_WEIGHT if crisis else 1.0),
                row.split,
                row.source,
                row,
            )
        )
    return examples


def from_public(rows: Iterable[PublicText]) -> list[Example]:
    """Return public rows as examples; what their set does not say is left open."""
    examples = []
    for row in rows:
        target = np.zeros(BINARY, np.float32)
        known = np.zeros(BINARY, np.float32)
        for hazard, at in HAZARD_INDEX.items():
            target[at] = hazard in row.hazards
            known[at] = hazard not in row.open
        if row.risky is not None:
            target[RISK_AT], known[RISK_AT] = row.risky, 1
        examples.append(
            Example(
                row.text,
                row.turns,
                row.stage,
                target,
                known,
                OPEN,
                OPEN,
                kind_of(row.hazards, benign=row.risky is False and not row.hazards),
                row.weight,
                row.split,
                row.source,
            )
        )
    return examples
