"""Calibration and thresholds of a trained model from its development rows. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kidrails_guard.classifier.calibrate import (
    HARD,
    HARD_ALARM,
    REPLY_ALARM,
    REPLY_PULL,
    REPLY_WEAK_DISCOUNT,
    SCALED,
    Calibration,
    choose_thresholds,
    features,
    input_action,
    platt,
)
from kidrails_guard.classifier.examples import Example
from kidrails_guard.classifier.labels import HAZARDS, RISK
from kidrails_guard.policy import Policy
from kidrails_guard.types import Action, AgeBand, Stage


def calibrate(logits: NDArray[np.float32], dev: Sequence[Example], policy: Policy) -> Calibration:
    """Return scalings and thresholds from the development rows.

    Args:
        logits: of the shipped int8 model, shape (rows, WIDTH).
        dev: the rows.
        policy: says what follows from each hazard in each band.
    """
    target = np.stack([e.target for e in dev])[:, :SCALED]
    known = np.stack([e.known for e in dev])[:, :SCALED]
    weight = np.array([min(e.weight, 1.0) for e in dev])
    inputs = features(logits)
    weights = [
        platt(
            inputs[known[:, at] > 0, at],
            target[known[:, at] > 0, at].astype(np.float64),
            weight[known[:, at] > 0],
        )
        for at in range(SCALED)
    ]
    unset = Calibration(np.array(weights), {}, {}, {}, {})
    scores = unset.apply(logits)
    harmless = np.array([e.benign for e in dev])
    asked = np.array([e.stage is Stage.INPUT for e in dev])
    hard = np.array([e.benign and e.source in HARD for e in dev])
    share = np.where(hard & asked, HARD_ALARM, 1.0)
    firm: dict[AgeBand, dict[str, float]] = {}
    weak: dict[AgeBand, dict[str, float]] = {}
    for band in AgeBand:
        actions = {str(h): input_action(policy, h, band) for h in HAZARDS}
        actions[RISK] = Action.REFUSE
        firm[band], weak[band] = choose_thresholds(
            scores[asked],
            target[asked],
            known[asked],
            harmless[asked],
            actions,
            share=share[asked],
        )
    replies = {str(h): policy.hazards[h].output for h in HAZARDS} | {RISK: Action.REDIRECT}
    output, output_weak = choose_thresholds(
        scores[~asked],
        target[~asked],
        known[~asked],
        harmless[~asked],
        replies,
        share=share[~asked],
        alarms=REPLY_ALARM,
        discount=REPLY_WEAK_DISCOUNT,
        prior=REPLY_PULL,
    )
    return replace(unset, thresholds=firm, weak=weak, output=output, output_weak=output_weak)


def compare(
    exact: NDArray[np.float32], small: NDArray[np.float32], calibration: Calibration
) -> dict[str, float]:
    """Return how far the int8 model's scores stray from the weights', on the development rows."""
    a, b = calibration.apply(exact), calibration.apply(small)
    table = calibration.thresholds[AgeBand.MIDDLE]
    limits = np.array([table[name] for name in (*map(str, HAZARDS), RISK)])
    return {
        "mean_difference": round(float(np.abs(a - b).mean()), 5),
        "largest_difference": round(float(np.abs(a - b).max()), 4),
        "texts_with_all_decisions_equal": round(
            float(((a >= limits) == (b >= limits)).all(1).mean()), 4
        ),
    }


def reliability(
    logits: NDArray[np.float32], dev: Sequence[Example], calibration: Calibration
) -> list[dict[str, float]]:
    """Return the reliability diagram's bins: mean score, share that is true, rows."""
    scores = calibration.apply(logits)
    target = np.stack([e.target for e in dev])[:, :SCALED]
    known = np.stack([e.known for e in dev])[:, :SCALED] > 0
    p, y = scores[known], target[known]
    edges = np.linspace(0, 1, 11)
    bins = []
    for low, high in pairwise(edges):
        inside = (p >= low) & ((p < high) | (high == 1))
        if inside.any():
            bins.append(
                {
                    "score": round(float(p[inside].mean()), 4),
                    "share": round(float(y[inside].mean()), 4),
                    "rows": int(inside.sum()),
                }
            )
    return bins
