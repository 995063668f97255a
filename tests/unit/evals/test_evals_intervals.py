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
    quantile,
    share,
)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(pair: tuple[int, int]) -> None:
    hits, n = pair
    found = proportion(hits, n)
    theirs = stats.binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert found.low <= found.value <= found.high


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_single_cases_are_no_clusters(flags: list[bool]) -> None:
    assert share(flags, [str(i) for i in range(len(flags))]) == share(flags)


def test_copies_of_a_case_do_not_narrow_the_interval() -> None:
    flags = [i % 3 == 0 for i in range(30)]
    names = [str(i) for i in range(30)]
    once, copied = share(flags), share(flags * 7, names * 7)
    assert copied.value == once.value
    assert copied.n == 210
    assert copied.high - copied.low >= 0.98 * (once.high - once.low)
    every = share([True] * 70, [str(i % 10) for i in range(70)])
    assert (every.low, every.high) == pytest.approx((share([True] * 10).low, 1.0))


def test_a_bootstrap_draws_clusters_whole() -> None:
    rng = np.random.default_rng(5)
    ten = rng.normal(size=10)
    values, names = np.repeat(ten, 8), np.repeat(np.arange(10), 8).astype(str)
    ours, few = mean(list(values), list(names)), mean(list(ten))
    assert (ours.low, ours.high) == pytest.approx((few.low, few.high), abs=0.1)
    naive = mean(list(values))
    assert ours.high - ours.low > 2 * (naive.high - naive.low)


def test_one_cluster_is_one_case_and_no_certainty() -> None:
    found = share([True, False] * 5, ["one"] * 10)
    assert (found.value, found.n) == (0.5, 10)
    assert found.high - found.low > 0.85  # ten independent cases would have 0.53
    for alone in (mean([3.0]), mean([1.0, 5.0], ["one", "one"])):
        assert (alone.value, alone.low, alone.high) == (3.0, None, None)
    assert mean([3.0]).as_text(percent=False) == "3.00 (no interval, n = 1)"


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_a_quantiles_interval_is_scipys(q: float) -> None:
    values = list(np.random.default_rng(4).exponential(size=300))
    found = quantile(values, q)
    theirs = stats.quantile_test(values, p=q).confidence_interval(confidence_level=0.95)
    assert found.value == pytest.approx(np.quantile(values, q))
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=0.05)
    assert quantile([], 0.5) == NOTHING


def test_a_figure_of_too_few_cases_claims_no_interval() -> None:
    for found in (quantile([2.0], 0.95), quantile(list(range(71)), 0.95), quantile([1, 2, 3], 0.5)):
        assert (found.low, found.high) == (None, None)
    assert quantile(list(range(72)), 0.95).high == 71
    alone = f1_macro(["allow", "crisis"], ["allow", "allow"], ["talk", "talk"])
    assert (alone.low, alone.high, alone.n) == (None, None, 2)


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


def test_f1_is_the_mean_over_expected_labels_and_has_an_interval() -> None:
    rng = np.random.default_rng(6)
    expected = list(rng.choice(["allow", "care", "crisis"], size=120))
    got = [e if rng.random() < 0.8 else "allow" for e in expected]
    names = [str(i) for i in range(120)]
    each = []
    for label in ("allow", "care", "crisis"):
        hit = sum(e == g == label for e, g in zip(expected, got, strict=True))
        precision, recall = hit / got.count(label), hit / expected.count(label)
        each.append(2 * precision * recall / (precision + recall))
    found = f1_macro(expected, got, names)
    assert found.value == pytest.approx(sum(each) / 3)
    assert found.low < found.value < found.high
    assert f1_macro(["a", "a", "b"], ["a", "a", "b"], names[:3]).value == 1.0
    assert f1_macro(["a", "a", "b"], ["a", "a", "a"], names[:3]).value == pytest.approx(0.4)
    assert f1_macro(["a"], ["z"], names[:1]).value == 0.0
    assert f1_macro([], [], []) == NOTHING
