"""Scores that mean what they say, and thresholds that follow the stated cost."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kidrails_guard.classifier.calibrate import (
    ALARM_COST,
    MISS_COST,
    SCALED,
    Calibration,
    best_threshold,
    features,
    input_action,
    platt,
)
from kidrails_guard.classifier.labels import HAZARDS, RISK, RISK_AT, SLICES, WIDTH, combine
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action, AgeBand, Hazard


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_scaling_finds_the_slope_that_made_the_truth() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, 2, (40_000, 2))
    truth = (rng.random(40_000) < sigmoid(inputs @ [1.3, 0.4] - 1.0)).astype(float)
    found = platt(inputs, truth, np.ones(40_000))
    assert np.abs(found - [1.3, 0.4, -1.0]).max() < 0.08


def test_scaling_of_few_rows_stays_near_the_start() -> None:
    inputs = np.array([[9.0, 9.0], [-9.0, -9.0]])
    found = platt(inputs, np.array([1.0, 0.0]), np.ones(2))
    assert np.abs(found - [0.5, 0.5, 0]).max() < 0.5


def test_scaled_scores_are_calibrated_on_average() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.normal(0, 3, (20_000, 2))
    truth = (rng.random(20_000) < sigmoid(inputs @ [0.8, 0.1] + 0.5)).astype(float)
    a, b, c = platt(inputs, truth, np.ones(20_000))
    scores = sigmoid(inputs @ [a, b] + c)
    for low in np.arange(0, 1, 0.2):
        inside = (scores >= low) & (scores < low + 0.2)
        assert abs(scores[inside].mean() - truth[inside].mean()) < 0.03


def threshold(miss: float, alarm: float) -> float:
    rng = np.random.default_rng(2)
    scores = rng.random(4_000)
    truth = (rng.random(4_000) < scores).astype(float)
    ones = np.ones(4_000)
    return best_threshold(scores, truth, ones * miss, ones * alarm, bayes=alarm / (alarm + miss))


def test_a_threshold_is_where_the_two_costs_meet() -> None:
    for miss, alarm in [(1.0, 1.0), (9.0, 1.0), (1.0, 9.0), (40.0, 24.0)]:
        assert threshold(miss, alarm) == pytest.approx(alarm / (alarm + miss), abs=0.1)


def test_a_dearer_miss_lowers_it_and_a_dearer_alarm_raises_it() -> None:
    assert threshold(10, 1) < threshold(2, 1) < threshold(1, 1) < threshold(1, 4)


def test_no_rows_at_all_leave_the_bayes_threshold() -> None:
    empty = np.zeros(0)
    assert best_threshold(empty, empty, empty, empty, bayes=0.3) == pytest.approx(0.3, abs=0.02)


def test_a_child_in_danger_costs_most() -> None:
    assert MISS_COST[Action.CRISIS] == max(MISS_COST.values())
    ratios = {a: MISS_COST[a] / ALARM_COST[a] for a in Action if a.answers}
    assert max(ratios, key=ratios.get) is Action.CRISIS
    assert list(MISS_COST) == list(ALARM_COST) == list(Action)


def test_the_gravest_case_counts_for_a_hazard() -> None:
    policy = load_policy()
    assert input_action(policy, Hazard.BULLYING, AgeBand.MIDDLE) is Action.REFUSE
    assert input_action(policy, Hazard.SUBSTANCES, AgeBand.UPPER) is Action.REFUSE
    assert input_action(policy, Hazard.DISTRESS, AgeBand.EARLY) is Action.CARE


def test_features_turn_benign_round_for_risk() -> None:
    logits = np.zeros((1, WIDTH), np.float32)
    logits[0, SLICES["kind"].stop - 1] = 8  # surely benign
    odds = features(logits)[0, :, 1]
    assert odds.shape == (SCALED,)
    assert odds[RISK_AT] < -4
    logits[0, SLICES["kind"].stop - 1] = -8
    assert features(logits)[0, RISK_AT, 1] > 4


def test_a_calibration_survives_the_manifest() -> None:
    names = [*map(str, HAZARDS), RISK]
    table = dict.fromkeys(names, 0.25)
    bands = dict.fromkeys(AgeBand, table)
    weights = np.tile([1.25, 0.5, -0.75], (SCALED, 1))
    calibration = Calibration(weights, bands, bands, table, table)
    again = Calibration.parse(json.loads(json.dumps(calibration.record())))
    logits = np.random.default_rng(0).normal(size=(5, WIDTH)).astype(np.float32)
    assert np.allclose(again.apply(logits), calibration.apply(logits))
    assert again.thresholds == calibration.thresholds
    assert again.output == table


def test_windows_combine_to_the_gravest_and_who_comes_from_the_riskiest() -> None:
    logits = np.zeros((2, WIDTH), np.float32)
    logits[0, 0], logits[1, 1] = 3, 2
    logits[1, RISK_AT] = 5
    logits[0, SLICES["about"].start], logits[1, SLICES["about"].start + 1] = 9, 4
    row = combine(logits)
    assert (row[0], row[1], row[RISK_AT]) == (3, 2, 5)
    assert row[SLICES["about"]][0] == 0
    assert row[SLICES["about"]][1] == 4
