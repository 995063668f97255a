"""Proportions and means with 95 % intervals: a figure without one is not reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 4_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: the figure; None where n is 0.
        low: lower bound of the 95 % interval.
        high: upper bound.
        n: how many cases it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    def as_text(self, *, percent: bool = True) -> str:
        """Return the figure as people read it, e.g. ``97.1 % (94.0–98.6, n = 210)``."""
        if self.value is None or self.low is None or self.high is None:
            return "not measured (n = 0)"
        if percent:
            return f"{self.value:.1%} ({self.low:.1%}–{self.high:.1%}, n = {self.n})".replace(
                "%", " %"
            )
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f}, n = {self.n})"


NOTHING: Final = Estimate(None, None, None, 0)


def proportion(hits: int, n: int) -> Estimate:
    """Return a proportion with its Wilson score interval.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927).
    """
    if n == 0:
        return NOTHING
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return Estimate(hits / n, float(interval.low), float(interval.high), n)


def share(flags: Sequence[bool]) -> Estimate:
    """Return the share of true values with its Wilson interval."""
    return proportion(sum(flags), len(flags))


def mean(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Return a mean with its percentile bootstrap interval (seeded)."""
    return _bootstrap(np.asarray(values, dtype=float), seed)


def paired_difference(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> Estimate:
    """Return the mean of ``b - a`` over the same cases, with its bootstrap interval.

    Args:
        a: one value a case, before.
        b: one value a case, after, in the same order.
        seed: of the resampling.

    Raises:
        ValueError: the two do not hold the same number of cases.
    """
    if len(a) != len(b):
        raise ValueError(f"paired values differ in number: {len(a)} and {len(b)}")
    return _bootstrap(np.asarray(b, dtype=float) - np.asarray(a, dtype=float), seed)


def _bootstrap(values: NDArray[np.float64], seed: int) -> Estimate:
    """Percentile bootstrap of the mean.

    Source: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    n = len(values)
    if n == 0:
        return NOTHING
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    # In blocks: 4,000 x 10,000 draws at once would take 300 MB.
    step = max(1, 2_000_000 // n)
    for start in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - start)
        means[start : start + count] = values[generator.integers(0, n, (count, n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high), n)


def f1_macro(expected: Sequence[str], got: Sequence[str]) -> float:
    """Return the unweighted mean of the F1 scores of every expected label."""
    scores = []
    for label in sorted(set(expected)):
        true = sum(e == label and g == label for e, g in zip(expected, got, strict=True))
        said = sum(g == label for g in got)
        real = sum(e == label for e in expected)
        scores.append(2 * true / (said + real) if said + real else 0.0)
    return sum(scores) / len(scores) if scores else 0.0
