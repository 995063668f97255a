"""All singular values of a matrix, by the Gram matrix of its short side.

``S = sqrt(eigenvalues(A Aᵀ))``, in four steps: product, reduction to tridiagonal form, eigenvalues
of that, square root. A Gram matrix squares the condition number: what rounding does to an
eigenvalue λ = s² reaches the singular value divided by 2s. The path is float32 while that cannot
matter to a score and float64 otherwise; `SingularValues.errors` carries the estimate along.

The eigenvalues of the tridiagonal matrix are always computed in float64: LAPACK's ``ssterf`` loses
two more digits than both float32 stages before it, at little gain in time. The two-stage reduction
wins from about 3,000 rows. Both are measured in `benchmarks/spectrum_scan.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kidrails_guard.spectrum import twostage
from kidrails_guard.spectrum.weights import MatrixFile

Array = npt.NDArray[Any]

#: From this size on the two-stage reduction is the faster one.
TWO_STAGE_FROM: Final = 3000
# What rounding does to an eigenvalue λ of G = A Aᵀ, fitted to spectra from 80 to 4,096 rows: flat,
# falling, spiked, rank-deficient, random (and tested on such). The error matrix E has a norm of
# about u·‖G‖ (Frobenius: rounding errors add up like a random walk). A λ that stands clear of E
# moves by vᵀE v, smaller by √n, and by ‖E‖² / λ in second order; one that drowns in E moves by all
# of ‖E‖; and a large one has a relative error of some roundings.
_NORM: Final = 2.0
_FIRST_ORDER: Final = 4.0
_RELATIVE: Final = 12.0


class Precision(StrEnum):
    """The arithmetic of the product and the reduction."""

    AUTO = "auto"
    """float32, again in float64 where float32 could move the score."""
    FP32 = "fp32"
    FP64 = "fp64"


class WeightsError(ValueError):
    """A matrix that cannot be scored; the text is the reason."""


class RangeError(WeightsError):
    """The squares of the weights leave this precision's range; a wider one may do."""


@dataclass(frozen=True, slots=True)
class SingularValues:
    """Singular values with what is known about their error.

    Attributes:
        values: float64, descending, min(shape) of them; 0 where not told apart from 0.
        errors: an estimate of each one's absolute error.
        precision: ``fp32`` or ``fp64``.
        reduction: ``one-stage``, ``two-stage``, ``svd`` or ``cuda``.
    """

    values: Array
    errors: Array
    precision: str
    reduction: str


def from_gram(gram: Array, *, reduction: str = "") -> SingularValues:
    """Return the singular values of a matrix, given its Gram matrix.

    Args:
        gram: n × n, float32 or float64, Fortran order, lower triangle filled; overwritten.
        reduction: ``one-stage`` or ``two-stage``; chosen by size where empty.

    Raises:
        WeightsError: the eigenvalues do not add up to the trace.
    """
    size, dtype = gram.shape[0], gram.dtype
    trace = float(np.sum(np.diagonal(gram), dtype=np.float64))
    if not reduction:
        large = size >= TWO_STAGE_FROM and twostage.available(dtype)
        reduction = "two-stage" if large else "one-stage"
    diagonal, off_diagonal = (
        twostage.tridiagonalise(gram) if reduction == "two-stage" else _one_stage(gram)
    )
    eigenvalues = _tridiagonal_eigenvalues(diagonal, off_diagonal)
    unit = float(np.finfo(dtype).eps) / 2
    # A reduction that went wrong (a foreign LAPACK) would show here, at no cost.
    if not abs(float(eigenvalues.sum()) - trace) <= 10 * size * unit * trace:
        raise WeightsError("its eigenvalues do not add up to its trace; please report this matrix")
    return from_eigenvalues(eigenvalues, unit, reduction)


def from_eigenvalues(eigenvalues: Array, unit: float, reduction: str) -> SingularValues:
    """Return singular values with their errors, given the Gram matrix's eigenvalues.

    Args:
        eigenvalues: ascending, float64.
        unit: the unit roundoff of the arithmetic that they come from.
        reduction: how they were found.
    """
    clipped = np.maximum(eigenvalues[::-1], 0.0)
    values = np.sqrt(clipped)
    noise = _NORM * unit * float(np.linalg.norm(clipped))
    drowned = clipped <= noise
    # A matrix of low rank has zeros here, which come out as roots of rounding errors.
    values[drowned] = 0.0
    above = np.maximum(clipped, noise) if noise > 0 else np.ones_like(clipped)
    moved = np.minimum(noise, _FIRST_ORDER * noise / len(clipped) ** 0.5 + noise**2 / above)
    # sqrt(λ ± e) - sqrt(λ) is e / 2·sqrt(λ) above the noise, and sqrt(e) within it.
    errors = (moved + _RELATIVE * unit * above) / (2 * np.sqrt(above))
    errors[drowned] = noise**0.5
    return SingularValues(values, errors, "fp32" if unit > 1e-9 else "fp64", reduction)


def _one_stage(gram: Array) -> tuple[Array, Array]:
    from scipy.linalg import lapack

    letter = "s" if gram.dtype == np.float32 else "d"
    if gram.shape[0] == 1:
        return gram.diagonal().copy(), np.zeros(0, gram.dtype)
    length, _ = getattr(lapack, f"{letter}sytrd_lwork")(gram.shape[0], lower=1)
    _, diagonal, off_diagonal, _, info = getattr(lapack, f"{letter}sytrd")(
        gram, lower=1, lwork=int(length), overwrite_a=1
    )
    if info:
        raise WeightsError(f"LAPACK's reduction returned info {info}")
    return diagonal, off_diagonal


def _tridiagonal_eigenvalues(diagonal: Array, off_diagonal: Array) -> Array:
    from scipy.linalg import LinAlgError, eigvalsh_tridiagonal

    try:
        found: Array = eigvalsh_tridiagonal(
            diagonal.astype(np.float64),
            off_diagonal.astype(np.float64),
            lapack_driver="sterf",
            check_finite=False,
        )
    except LinAlgError as error:
        raise WeightsError(f"its eigenvalues did not converge ({error})") from None
    return found


def singular_values(matrix: MatrixFile, precision: Precision) -> SingularValues:
    """Return all singular values in one given precision.

    Args:
        matrix: where the weights lie.
        precision: ``fp32`` or ``fp64``; with ``auto`` it is for the caller to say which, since only
            the score tells whether float32 is enough (`kidrails_guard.spectrum.scoring`).

    Raises:
        WeightsError: NaN, infinite or zero weights.
        RangeError: their squares leave the range of this precision.
    """
    if precision is Precision.AUTO:
        raise ValueError("precision must be fp32 or fp64 here")
    dtype = np.float32 if precision is Precision.FP32 else np.float64
    if min(matrix.shape) < 1:
        raise WeightsError(f"its shape {matrix.info.shape} has an empty side")
    # Overflow is looked for below, by name; numpy's warning would say less.
    with np.errstate(over="ignore", invalid="ignore"):
        gram = matrix.gram(dtype)
    largest = float(np.max(np.diagonal(gram)))
    if not np.isfinite(largest):
        bad = matrix.count_bad()
        if bad:
            raise WeightsError(f"{bad:,} of its {matrix.info.size:,} weights are NaN or infinite")
        raise RangeError(f"the squares of its weights overflow {precision.value}")
    if largest == 0.0 and precision is Precision.FP64:
        raise WeightsError("all its weights are zero")
    if largest < 1e6 * float(np.finfo(dtype).tiny):
        raise RangeError(f"the squares of its weights underflow {precision.value}")
    return from_gram(gram)
