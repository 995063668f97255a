"""Two scores of a matrix's singular values: Spectrum's own, and a corrected one.

**`spectrum`** is what the paper's code computes, bit for bit in its formula::

    sigma = (Q75(S) - Q25(S)) / 1.349
    eps   = sigma · (1 + √β),   β = short side / long side
    SNR   = (Σ S>eps / Σ S≤eps) / S₀

Published scans hold it, so a selection that should equal Spectrum's must use it. It has two flaws,
and the tests state both as facts:

* *It depends on the scale.* The ratio has no unit and S₀ has one: W → 10·W gives SNR / 10, though
  nothing about signal and noise has changed.
* *It calls pure noise infinitely good.* The Marchenko–Pastur edge of an n × m noise matrix with
  standard deviation σ is ``σ·(√n + √m)``. The formula takes for σ the spread of the *singular
  values*, which for noise is about ``0.4·σ·√n``, and leaves out the √m. At shapes of 1:4 the
  whole noise spectrum then lies above eps: nothing is left below it, and the score is infinite
  (Gaussian 256 × 1024). At 512 × 1792 it is about 2. Llama's k, v and MLP projections have these
  shapes, so their scores compare spreads rather than signal with noise.

**`mp`** keeps the idea and mends both: σ from the median singular value by the median of the
Marchenko–Pastur law, the true edge, and no division by S₀::

    sigma = median(S) / √(m · μ_β)
    edge  = sigma · (√n + √m)
    SNR   = Σ S>edge / Σ S≤edge

It does not change with the scale and is about 0 for pure noise of any shape.

Source: Hartford et al., arXiv 2406.06623 and https://github.com/cognitivecomputations/spectrum;
Gavish and Donoho, *The Optimal Hard Threshold for Singular Values is 4/√3*, IEEE Trans. Inf. Theory
60 (2014), for the median estimate of σ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: The interquartile range of a standard normal variable.
_NORMAL_IQR: Final = 1.349


class Estimator(StrEnum):
    """Which of the two scores."""

    SPECTRUM = "spectrum"
    MP = "mp"


@dataclass(frozen=True, slots=True)
class Score:
    """A matrix's signal-to-noise ratio, and what it was made from.

    Attributes:
        snr: the score; infinite where nothing lies below the threshold.
        threshold: singular values above it count as signal.
        sigma: the estimate of the noise.
        signal: sum of the singular values above the threshold.
        noise: sum of the others.
        above: how many lie above.
        error: an estimate of the score's relative error, from those of the singular values.
        degenerate: why the score does not compare, or an empty text.
    """

    snr: float
    threshold: float
    sigma: float
    signal: float
    noise: float
    above: int
    error: float
    degenerate: str = ""


def score(
    estimator: Estimator, values: Array, *, shape: tuple[int, int], errors: Array | None = None
) -> Score:
    """Return one of the two scores.

    Args:
        estimator: which.
        values: all singular values, descending.
        shape: the matrix's rows and columns, in any order.
        errors: an estimate of each value's absolute error; none are assumed where absent.

    Returns:
        The score; it has no unit (``mp``), or that of 1 / weights (``spectrum``).
    """
    compute = _COMPUTE[estimator]
    uncertain = np.zeros_like(values) if errors is None else errors
    return compute(np.asarray(values, np.float64), shape, uncertain)


def spectrum_score(values: Array, shape: tuple[int, int], errors: Array) -> Score:
    """Return Spectrum's score as its code computes it.

    Source: cognitivecomputations/spectrum, ``spectrum.py``, ``calculate_snr_for_layer``.
    """
    beta = min(shape) / max(shape)
    upper, lower = np.quantile(values, (0.75, 0.25))
    factor = (1 + beta**0.5) / _NORMAL_IQR
    threshold = float(upper - lower) * factor
    threshold_error = (_error_at(errors, 0.75) + _error_at(errors, 0.25)) * factor
    result = _ratio(values, errors, threshold=threshold, threshold_error=threshold_error)
    signal, noise, above, error = result
    # `noise == 0` and an empty noise set are both infinite, as in the files that were published.
    snr = signal / noise / float(values[0]) if noise > 0 else float("inf")
    degenerate = "" if noise > 0 else "nothing lies below the threshold: the score is infinite"
    sigma = float(upper - lower) / _NORMAL_IQR
    return Score(snr, threshold, sigma, signal, noise, above, error, degenerate)


def mp_score(values: Array, shape: tuple[int, int], errors: Array) -> Score:
    """Return the corrected score: true Marchenko–Pastur edge, scale-invariant."""
    short, long = min(shape), max(shape)
    median = float(np.median(values))
    unit = (long * marchenko_pastur_median(short / long)) ** 0.5
    factor = (short**0.5 + long**0.5) / unit
    threshold, threshold_error = median * factor, _error_at(errors, 0.5) * factor
    signal, noise, above, error = _ratio(
        values, errors, threshold=threshold, threshold_error=threshold_error
    )
    if noise <= 0:
        degenerate = "nothing lies below the noise's edge: the score is infinite"
    elif above == 0:
        degenerate = "nothing lies above the noise's edge: the score is 0"
    else:
        degenerate = ""
    snr = signal / noise if noise > 0 else float("inf")
    return Score(snr, threshold, median / unit, signal, noise, above, error, degenerate)


_COMPUTE: Final[dict[Estimator, Callable[[Array, tuple[int, int], Array], Score]]] = {
    Estimator.SPECTRUM: spectrum_score,
    Estimator.MP: mp_score,
}


def _error_at(errors: Array, quantile: float) -> float:
    # Values descend, so that the q-quantile stands at (1 - q) of the way.
    place = (1 - quantile) * (len(errors) - 1)
    return float(np.interp(place, np.arange(len(errors)), errors))


def _ratio(
    values: Array, errors: Array, *, threshold: float, threshold_error: float
) -> tuple[float, float, int, float]:
    """Return signal, noise, the count above, and the ratio's relative error."""
    is_signal = values > threshold
    signal, noise = float(values[is_signal].sum()), float(values[~is_signal].sum())
    unsure_noise, unsure_signal = float(errors[~is_signal].sum()), float(errors[is_signal].sum())
    # A shifted threshold carries the values beside it from one sum to the other.
    crossing = np.abs(values - threshold) < threshold_error
    moved = float(values[crossing & (values > 0)].sum())
    error = 0.0
    if noise > 0:
        error += (unsure_noise + moved) / noise
    if signal > 0:
        error += (unsure_signal + moved) / signal
    return signal, noise, int(np.count_nonzero(is_signal)), error


@cache
def marchenko_pastur_median(beta: float) -> float:
    """Return the median of the Marchenko–Pastur law of ratio β and variance 1.

    With x = 1 + β + 2√β·cos θ the law's density becomes smooth: ``2 sin²θ / (π x) dθ``.

    Args:
        beta: short side / long side, above 0 and at most 1.

    >>> round(marchenko_pastur_median(1.0), 4)
    0.6528
    """
    angle = np.linspace(0.0, np.pi, 20_001)
    place = 1 + beta + 2 * beta**0.5 * np.cos(angle)
    with np.errstate(divide="ignore", invalid="ignore"):
        density = 2 * np.sin(angle) ** 2 / (np.pi * place)
    if beta == 1.0:
        density[-1] = 1 / np.pi  # the limit of 0 / 0 at θ = π: sin²θ / (1 + cos θ) → 2
    steps = (density[1:] + density[:-1]) / 2 * np.diff(angle)
    above = np.concatenate(([0.0], np.cumsum(steps)))
    return float(np.interp(0.5, above / above[-1], place))
