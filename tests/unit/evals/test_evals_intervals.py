"""Intervals agree with scipy's and with what is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kidrails_guard.evals.intervals import (
    NOTHING,
    f1_macro,
    mean,
    paired_difference,
    proportion,
    share,
)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The interval from Wilson's formula itself."""
    z = stats.norm.ppf(0.975)
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return centre - half, centre + half


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_wilsons_formula(pair: tuple[int, int]) -> None:
    hits, n = pair
    found = proportion(hits, n)
    assert (found.low, found.high) == pytest.approx(wilson(hits, n), abs=1e-9)
    assert found.low <= found.value <= found.high


def test_bootstrap_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, 3.0, size=80)
    ours = mean(list(values), seed=2)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4_000, method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    assert ours.low == pytest.approx(theirs.low, rel=0.03)
    assert ours.high == pytest.approx(theirs.high, rel=0.03)
    assert ours == mean(list(values), seed=2)


def test_nothing_measured_is_not_zero() -> None:
    assert share([]) == NOTHING == mean([])
    assert NOTHING.as_text() == "not measured (n = 0)"
    assert proportion(1, 3).as_text().endswith("n = 3)")


def test_pairing_matters() -> None:
    a = [float(i % 7) for i in range(60)]
    b = [v + 0.5 for v in a]
    found = paired_difference(a, b)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="60 and 2"):
        paired_difference(a, [1.0, 2.0])


def test_f1_counts_every_expected_label_once() -> None:
    assert f1_macro(["a", "a", "b"], ["a", "a", "b"]) == 1.0
    assert f1_macro(["a", "a", "b"], ["a", "a", "a"]) == pytest.approx(0.4)
