"""Scores by stochastic Lanczos quadrature: an estimate with its own error bound, no eigenvalues.

For a random sign vector z, the Lanczos process on ``A Aᵀ`` gives a Gauss quadrature of the
spectrum's distribution as seen by z. Averaged over probes it estimates the quantiles and sums that
a score is made from. It replaces the reduction to tridiagonal form, not the Gram product, and it
is noisy: with 16 probes a score is off by about a percent, which is more than what neighbouring
layers differ by. So it is an option for a first look at a large model, never the default.

Source: Ubaru, Chen, Saad, *Fast estimation of tr(f(A)) via stochastic Lanczos quadrature*, SIAM J.
Matrix Anal. Appl. 38 (2017).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kidrails_guard.spectrum.snr import Estimator, Score, score

Array = npt.NDArray[Any]

PROBES: Final = 16
STEPS: Final = 64
_GROUPS: Final = 4
#: 97.5 % quantile of Student's distribution with three degrees of freedom.
_STUDENT: Final = 3.182


def lanczos_scores(
    gram: Array, shape: tuple[int, int], *, probes: int = PROBES, steps: int = STEPS, seed: int = 0
) -> dict[Estimator, Score]:
    """Estimate both scores.

    Args:
        gram: n × n of the matrix's short side, Fortran order, lower triangle filled; kept.
        shape: the matrix's rows and columns.
        probes: random vectors, at least 4; the error falls with their root.
        steps: Lanczos steps, at most n.
        seed: of the random vectors.

    Returns:
        The scores; `Score.error` is the half-width of a 95 % interval, from four groups of probes
        (leaving out one probe at a time fails on quantiles, which are not smooth).
    """
    nodes, weights = _quadrature(gram, probes=probes, steps=min(steps, len(gram)), seed=seed)
    results: dict[Estimator, Score] = {}
    for estimator in Estimator:
        whole = _score_of(estimator, nodes, weights, shape)
        groups = [
            _score_of(estimator, nodes[g::_GROUPS], weights[g::_GROUPS], shape).snr
            for g in range(_GROUPS)
        ]
        known = 0 < whole.snr < float("inf") and all(np.isfinite(groups))
        half_width = _STUDENT * float(np.std(groups, ddof=1)) / _GROUPS**0.5 if known else 0.0
        results[estimator] = replace(whole, error=half_width / whole.snr if known else 1.0)
    return results


def _quadrature(gram: Array, *, probes: int, steps: int, seed: int) -> tuple[Array, Array]:
    """Return the nodes (probes × steps, singular values) and weights (each row sums to 1)."""
    from scipy.linalg import blas, eigh_tridiagonal

    size, dtype = len(gram), gram.dtype
    multiply = blas.ssymm if dtype == np.float32 else blas.dsymm
    signs = np.random.default_rng(seed).integers(0, 2, (probes, size)) * 2 - 1
    basis = np.zeros((steps, probes, size), dtype)
    basis[0] = signs / np.sqrt(size)
    alpha, beta = np.zeros((probes, steps)), np.zeros((probes, steps))
    for step in range(steps):
        current = basis[step]
        # `current.T` is in Fortran order: all probes in one product, which is what makes it fast.
        image = multiply(1.0, gram, current.T, lower=1).T
        alpha[:, step] = np.einsum("pn,pn->p", image, current)
        if step + 1 == steps:
            break
        # Twice against all earlier vectors: without it, found eigenvalues return as ghosts.
        for _ in range(2):
            known = basis[: step + 1]
            overlap = np.einsum("kpn,pn->kp", known, image, optimize=True)
            image = image - np.einsum("kp,kpn->pn", overlap, known, optimize=True)
        length = np.linalg.norm(image, axis=1)
        beta[:, step] = length
        basis[step + 1] = image / np.maximum(length, np.finfo(dtype).tiny)[:, None]
    nodes, weights = np.zeros((probes, steps)), np.zeros((probes, steps))
    for probe in range(probes):
        found, vectors = eigh_tridiagonal(alpha[probe], beta[probe, : steps - 1])
        nodes[probe], weights[probe] = np.sqrt(np.maximum(found, 0.0)), vectors[0] ** 2
    return nodes, weights


def _score_of(estimator: Estimator, nodes: Array, weights: Array, shape: tuple[int, int]) -> Score:
    """Score the n singular values at the estimated distribution's quantiles (i - 1/2) / n."""
    order = np.argsort(nodes, axis=None)
    places, masses = nodes.ravel()[order], weights.ravel()[order] / len(nodes)
    middle = np.cumsum(masses) - masses / 2
    size = min(shape)
    values = np.interp((np.arange(size) + 0.5) / size, middle, places)[::-1].copy()
    values[0] = places[-1]  # Lanczos finds the largest one exactly
    return score(estimator, values, shape=shape)
