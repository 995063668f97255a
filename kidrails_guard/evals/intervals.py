"""Proportions and means with 95 % intervals: a figure without one is not reported."""

from __future__ import annotations

import math
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
        low: lower bound of the 95 % interval; None where too few cases stand behind it to tell.
        high: upper bound; None with `low`.
        n: how many cases it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    def complement(self) -> Estimate:
        """Return the share of the other cases."""
        value, low, high = (None if x is None else 1 - x for x in (self.value, self.high, self.low))
        return Estimate(value, low, high, self.n)

    def as_text(self, *, percent: bool = True) -> str:
        """Return the figure as people read it, e.g. ``97.1 % (94.0–98.6, n = 210)``."""
        if self.value is None:
            return "not measured (n = 0)"
        if self.low is None or self.high is None:
            return (
                f"{self.value:{'.1%' if percent else '.2f'}} (no interval, n = {self.n})".replace(
                    "%", " %"
                )
            )
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
    return Estimate(hits / n, *_wilson(hits / n, float(n)), n)


def _wilson(p: float, n: float) -> tuple[float, float]:
    from scipy.stats import norm

    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At 0 and 1 rounding would put the figure itself just outside.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def share(flags: Sequence[bool], clusters: Sequence[str] | None = None) -> Estimate:
    """Return the share of true values with its Wilson interval.

    Args:
        flags: one a case.
        clusters: of each case; cases of one cluster (a question under several disguises) are not
            independent, so the interval is that of the effective number of cases. Where all flags
            are alike, or all are of one cluster, a cluster counts as one case.

    Source: E. L. Korn and B. I. Graubard, "Confidence intervals for proportions with small expected
    number of positive counts", Survey Methodology 24 (1998), with Wilson's interval and without
    their widening by degrees of freedom: with 50 clusters that would be 3 % of the width, with 16
    clusters 9 %.
    """
    n, hits = len(flags), sum(flags)
    if clusters is None or len(set(clusters)) == n:
        return proportion(hits, n)
    p = hits / n
    sums, sizes = _by_cluster(np.asarray(flags, dtype=float), clusters)
    count = len(sizes)
    if 0 < hits < n and count > 1:
        spread = float(((sums - p * sizes) ** 2).sum()) / n**2 * count / max(1, count - 1)
        effect = spread / (p * (1 - p) / n)
    else:
        effect = float((sizes**2).sum()) / n
    return Estimate(p, *_wilson(p, n / max(1.0, effect)), n)


def mean(
    values: Sequence[float], clusters: Sequence[str] | None = None, *, seed: int = 0
) -> Estimate:
    """Return a mean with its percentile bootstrap interval (seeded); clusters are drawn whole."""
    return _bootstrap(np.asarray(values, dtype=float), clusters, seed)


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> Estimate:
    """Return the mean of ``b - a`` over the same cases, with its bootstrap interval.

    Args:
        a: one value a case, before.
        b: one value a case, after, in the same order.
        clusters: of each case; drawn whole.
        seed: of the resampling.

    Raises:
        ValueError: the two do not hold the same number of cases.
    """
    if len(a) != len(b):
        raise ValueError(f"paired values differ in number: {len(a)} and {len(b)}")
    return _bootstrap(np.asarray(b, dtype=float) - np.asarray(a, dtype=float), clusters, seed)


def _by_cluster(
    values: NDArray[np.float64], clusters: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum and the number of the values of every cluster."""
    at = np.unique(np.asarray(clusters), return_inverse=True)[1]
    return np.bincount(at, weights=values).astype(np.float64), np.bincount(at).astype(np.float64)


def _bootstrap(values: NDArray[np.float64], clusters: Sequence[str] | None, seed: int) -> Estimate:
    """Percentile bootstrap of the mean, over clusters; one alone has no interval.

    Source: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    n = len(values)
    if n == 0:
        return NOTHING
    if n == 1 or (clusters is not None and len(set(clusters)) == 1):
        return Estimate(float(values.mean()), None, None, n)
    if not np.any(values - values[0]):  # all alike: no draw would differ
        same = float(values[0])
        return Estimate(same, same, same, n)
    sums, sizes = (values, np.ones(n)) if clusters is None else _by_cluster(values, clusters)
    count = len(sums)
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    # In blocks: 4,000 x 10,000 draws at once would take 300 MB.
    step = max(1, 2_000_000 // count)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = generator.integers(0, count, (rows, count))
        means[start : start + rows] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high), n)


def quantile(values: Sequence[float], q: float) -> Estimate:
    """Return a quantile with its interval from order statistics (no assumption on the shape).

    Where even the least or the greatest value does not bound it at 95 % (a 95th percentile of fewer
    than 72 values, say) it has no interval.

    Source: W. J. Conover, "Practical Nonparametric Statistics" (1999), section 3.2.
    """
    n = len(values)
    if n == 0:
        return NOTHING
    from scipy.stats import binom

    ordered = np.sort(np.asarray(values, dtype=float))
    tail = (1 - CONFIDENCE) / 2
    value = float(np.quantile(ordered, q))
    low, high = int(binom.ppf(tail, n, q)) - 1, int(binom.ppf(1 - tail, n, q))
    if low < 0 or high >= n:
        return Estimate(value, None, None, n)
    return Estimate(value, float(ordered[low]), float(ordered[high]), n)


def f1_macro(
    expected: Sequence[str], got: Sequence[str], clusters: Sequence[str], *, seed: int = 0
) -> Estimate:
    """Return the unweighted mean of the F1 scores of every expected label, with its interval.

    The interval is a percentile bootstrap over clusters; one alone has none.
    """
    n = len(expected)
    if n == 0:
        return NOTHING
    labels = sorted({*expected, *got})
    at = {label: index for index, label in enumerate(labels)}
    wanted = np.array([at[label] for label in expected])
    said = np.array([at[label] for label in got])
    which = np.unique(np.asarray(clusters), return_inverse=True)[1]
    count, size = int(which.max()) + 1, len(labels)
    tables = np.zeros((count, size, size))
    np.add.at(tables, (which, wanted, said), 1.0)
    flat = tables.reshape(count, size * size)
    value = float(_f1(flat.sum(axis=0, keepdims=True), size)[0])
    if count == 1:
        return Estimate(value, None, None, n)
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES // 2)
    drawn = _f1(weights @ flat, size)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high), n)


def _f1(tables: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the macro F1 of every confusion table, given as rows of ``size * size`` counts."""
    counts = tables.reshape(-1, size, size)
    real, said = counts.sum(axis=2), counts.sum(axis=1)
    hit = np.diagonal(counts, axis1=1, axis2=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = np.where(real > 0, 2 * hit / (real + said), np.nan)
    found = np.isfinite(scores)
    total: NDArray[np.float64] = np.where(found, scores, 0.0).sum(axis=1)
    total /= np.maximum(1, found.sum(axis=1))
    return total
