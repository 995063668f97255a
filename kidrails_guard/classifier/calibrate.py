"""Scores that mean what they say, and thresholds for a stated cost. numpy only.

Each output gets its own Platt scaling on the development rows (Platt 1999, "Probabilistic outputs
for support vector machines"), drawn towards leaving the logit as it is, since some hazards have
few rows. The threshold of a hazard and band is where the stated cost on those rows is least, drawn
towards the Bayes threshold of a calibrated score, FA / (FA + MISS).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kidrails_guard.classifier.labels import HAZARDS, RISK, RISK_AT, SLICES
from kidrails_guard.policy import Policy
from kidrails_guard.types import Action, AgeBand, Hazard, Severity, Stage

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]

MISS_COST: Final[dict[Action, float]] = {
    Action.ALLOW: 1.0,
    Action.REDACT: 2.0,
    Action.CARE: 3.0,
    Action.REDIRECT: 13.0,
    Action.REFUSE: 13.0,
    Action.CRISIS: 120.0,
}
"""What it costs not to find a hazard, by the action it would have had."""

ALARM_COST: Final[dict[Action, float]] = {
    Action.ALLOW: 1.0,
    Action.REDACT: 1.0,
    Action.CARE: 2.0,
    Action.REDIRECT: 35.0,
    Action.REFUSE: 35.0,
    Action.CRISIS: 80.0,
}
"""What a false alarm costs on a harmless text; `AMID_RISK` of it on a text that is risky anyway.
Higher than a miss, since in use harmless texts outnumber risky ones far more than in the rows."""

AMID_RISK: Final = 0.15
HARD: Final = frozenset(
    {
        "affairs",
        "aftermaths",
        "appeals",
        "arms",
        "asks",
        "borders",
        "briefs",
        "contrasts",
        "danger",
        "dares",
        "degrees",
        "doubles",
        "edges",
        "endings",
        "everyday",
        "facts",
        "forks",
        "friends",
        "grades",
        "grown",
        "hearth",
        "hinges",
        "homes",
        "hushes",
        "masks",
        "orders",
        "pages",
        "persuasion",
        "prose",
        "requests",
        "rounds",
        "scales",
        "senses",
        "shades",
        "sorrow",
        "touch",
        "turns",
        "twists",
        "verbs",
        "watch",
        "wonders",
    }
)
HARD_ALARM: Final = 0.12
"""The harmless messages of these files were written to look like risky ones: they stand for far
fewer texts in use than a row of plain talk, so a false alarm on one costs this part of all."""
WEAK_DISCOUNT: Final = 8.0
"""A weak finding counts only where the guard is strict: its false alarms cost this much less."""
REPLY_ALARM: Final = 0.6
"""A false alarm on a reply costs three fifths: the child reads kind words and asks again."""
REPLY_WEAK_DISCOUNT: Final = 3.0
"""The same for replies: most that follow a message met with care are good and much needed."""
PRIOR_LOGIT: Final = 0.35
"""Strength of the pull towards the Bayes threshold, in cost a row and squared logit."""

REPLY_PULL: Final = 12.0
"""The same for replies, of which each hazard has few rows."""

SCALED: Final = RISK_AT + 1
"""Hazards and risk have a scaling; cases, severity and about are used as they come."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How each hazard and risk is scaled, and their thresholds.

    Attributes:
        weights: two slopes and an offset each, shape (SCALED, 3).
        thresholds: band to output name to probability.
        weak: the same, for findings that count only where the guard is strict.
        output: output name to probability for the model's replies.
    """

    weights: Doubles
    thresholds: Mapping[AgeBand, Mapping[str, float]]
    weak: Mapping[AgeBand, Mapping[str, float]]
    output: Mapping[str, float]
    output_weak: Mapping[str, float]

    def apply(self, logits: Array) -> Array:
        """Return calibrated probabilities of hazards and risk for logits of shape (…, WIDTH)."""
        scaled = (features(logits) * self.weights[:, :2]).sum(-1) + self.weights[:, 2]
        return np.asarray(1 / (1 + np.exp(-np.clip(scaled, -40, 40))), np.float32)

    def record(self) -> dict[str, Any]:
        """Return it as it stands in a manifest."""
        keys = [*map(str, HAZARDS), RISK]
        return {
            "platt": {
                key: [round(float(w), 4) for w in own]
                for key, own in zip(keys, self.weights, strict=True)
            },
            "thresholds": {str(band): dict(table) for band, table in self.thresholds.items()},
            "weak": {str(band): dict(table) for band, table in self.weak.items()},
            "output": dict(self.output),
            "output_weak": dict(self.output_weak),
        }

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Calibration:
        """Return what `record` wrote."""
        keys = [*map(str, HAZARDS), RISK]
        pairs = np.array([record["platt"][key] for key in keys], np.float64)
        firm, weak = (
            {AgeBand(band): dict(table) for band, table in record[key].items()}
            for key in ("thresholds", "weak")
        )
        return cls(pairs, firm, weak, record["output"], record["output_weak"])


def features(logits: Array) -> Doubles:
    """Return what the scores are made of: the yes-or-no logit and that of the choice of one.

    Args:
        logits: shape (…, WIDTH).

    Returns:
        Shape (…, SCALED, 2).
    """
    choice = logits[..., SLICES["kind"]].astype(np.float64)
    share = np.exp(choice - choice.max(-1, keepdims=True))
    share = np.clip(share / share.sum(-1, keepdims=True), 1e-6, 1 - 1e-6)
    share[..., -1] = 1 - share[..., -1]  # benign, turned round: something is the matter
    odds = np.log(share) - np.log1p(-share)
    return np.stack([logits[..., :SCALED].astype(np.float64), odds], -1)


def platt(
    inputs: Doubles, truth: Doubles, weight: Doubles, *, pull: float = 4.0
) -> NDArray[np.float64]:
    """Return slopes and offset that make ``sigmoid(inputs @ slopes + offset)`` a probability.

    Args:
        inputs: shape (rows, 2).
        truth: 0 or 1, shape (rows,).
        weight: of each row.
        pull: pseudo-rows that hold each slope at a half and the offset at 0.

    Returns:
        Shape (3,): two slopes, offset.
    """
    design = np.column_stack([inputs, np.ones(len(inputs))])
    start = np.array([0.5, 0.5, 0.0])
    strength = pull * np.array([1.0, 1.0, 0.25])
    found = start.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ found, -40, 40)))
        gradient = design.T @ (weight * (p - truth)) + strength * (found - start)
        hessian = (design.T * (weight * p * (1 - p))) @ design + np.diag(strength)
        step = np.linalg.solve(hessian, gradient)
        found -= step
        if float(np.abs(step).max()) < 1e-6:
            break
    return found


def best_threshold(
    scores: Doubles,
    truth: Doubles,
    miss: Doubles,
    alarm: Doubles,
    *,
    bayes: float,
    prior: float = PRIOR_LOGIT,
) -> float:
    """Return the probability from which a finding costs less than its absence.

    Args:
        scores: calibrated probabilities, shape (rows,).
        truth: 0 or 1.
        miss: cost of not finding each row.
        alarm: cost of a false finding on each row.
        bayes: where the threshold lies without rows.
        prior: how strongly it is drawn there.
    """

    def logit(p: Doubles | float) -> Any:
        return np.log(p) - np.log1p(-np.asarray(p))

    grid = 1 / (1 + np.exp(-np.linspace(-5, 5, 201)))
    order = np.argsort(scores)
    ordered = scores[order]
    missed = np.concatenate([[0], np.cumsum((truth * miss)[order])])
    alarms = np.concatenate([np.cumsum(((1 - truth) * alarm)[order][::-1])[::-1], [0]])
    at = np.searchsorted(ordered, grid)
    pull = prior * (logit(grid) - logit(bayes)) ** 2
    return round(float(grid[int(np.argmin(missed[at] + alarms[at] + pull))]), 4)


def input_action(policy: Policy, hazard: Hazard, band: AgeBand) -> Action:
    """Return the gravest action a hazard has in a band, whatever the case."""
    cases = ("", *policy.hazards[hazard].cases)
    return max(
        policy.action(hazard, Severity.MODERATE, band=band, stage=Stage.INPUT, case=case)
        for case in cases
    )


def choose_thresholds(
    scores: Array,
    target: Array,
    known: Array,
    harmless: NDArray[np.bool_],
    action: Mapping[str, Action],
    *,
    share: NDArray[np.float64],
    alarms: float = 1.0,
    discount: float = WEAK_DISCOUNT,
    prior: float = PRIOR_LOGIT,
) -> tuple[dict[str, float], dict[str, float]]:
    """Return thresholds and weak thresholds by output name.

    Args:
        scores: calibrated, shape (rows, SCALED).
        target: 0 or 1, the same shape.
        known: 1 where the target counts.
        harmless: rows on which an alarm costs in full.
        action: what follows from each output.
        share: part of an alarm's cost that each row's alarm has, shape (rows,).
        alarms: part of `ALARM_COST` that false alarms cost here.
        discount: how much less a weak finding's false alarms cost.
        prior: how strongly thresholds are drawn to where they lie without rows.
    """
    firm: dict[str, float] = {}
    weak: dict[str, float] = {}
    for at, name in enumerate([*map(str, HAZARDS), RISK]):
        use = known[:, at] > 0
        truth = target[use, at].astype(np.float64)
        miss_cost, alarm_cost = MISS_COST[action[name]], ALARM_COST[action[name]] * alarms
        alarm = np.where(harmless[use], alarm_cost, alarm_cost * AMID_RISK) * share[use]
        for table, less in ((firm, 1.0), (weak, discount)):
            bayes = alarm_cost / less / (alarm_cost / less + miss_cost)
            table[name] = best_threshold(
                scores[use, at].astype(np.float64),
                truth,
                np.full(len(truth), miss_cost),
                alarm / less,
                bayes=min(max(bayes, 0.02), 0.95),
                prior=prior,
            )
        weak[name] = min(weak[name], firm[name])
    return firm, weak
