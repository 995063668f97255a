"""One matrix's result: both scores, with how they were computed and how exact they are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.checkpoint import TensorInfo
from kidrails_guard.spectrum.singular import (
    Precision,
    RangeError,
    SingularValues,
    WeightsError,
    singular_values,
)
from kidrails_guard.spectrum.snr import Estimator, Score, score
from kidrails_guard.spectrum.weights import MatrixFile

#: float32 is kept while rounding moves a score by no more than this share, as estimated; on SmolLM2
#: no true error exceeded its estimate (benchmarks/spectrum_scan.py).
TOLERANCE: Final = 1e-4


class Solver(StrEnum):
    """How a matrix's spectrum is found."""

    EXACT = "exact"
    """All singular values, by the Gram matrix."""
    LANCZOS = "lanczos"
    """An estimate by stochastic Lanczos quadrature."""


@dataclass(frozen=True, slots=True)
class MatrixResult:
    """What the scan knows about one matrix.

    Attributes:
        name: the parameter's full name.
        shape: rows and columns.
        dtype: safetensors' name of the type.
        scores: by estimator; empty where the matrix cannot be scored.
        reason: why it cannot be scored, else empty.
        largest: S₀.
        sha256: of the tensor's bytes.
        arithmetic: precision and reduction, such as ``fp32 two-stage``.
        seconds: of CPU time.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scores: Mapping[Estimator, Score]
    reason: str = ""
    largest: float = 0.0
    sha256: str = ""
    arithmetic: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain values; an infinite score becomes None."""
        plain = asdict(self)
        plain["shape"] = list(self.shape)
        plain["scores"] = {
            estimator.value: {
                key: (value if value not in (float("inf"), float("-inf")) else None)
                for key, value in asdict(one).items()
            }
            for estimator, one in self.scores.items()
        }
        return plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MatrixResult:
        """Build it from what `to_json` returned.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        scores = {
            Estimator(name): Score(**{**one, "snr": float("inf")} if one["snr"] is None else one)
            for name, one in value["scores"].items()
        }
        return cls(**{**value, "shape": tuple(value["shape"]), "scores": scores})


def score_matrix(
    info: TensorInfo,
    precision: Precision = Precision.AUTO,
    solver: Solver = Solver.EXACT,
    known: MatrixResult | None = None,
) -> MatrixResult:
    """Score one tensor of a shard.

    A matrix that cannot be scored comes back with its reason; only a file that cannot be read
    raises.

    Args:
        info: which tensor; a vector counts as one row.
        precision: of the products; ``auto`` takes float32 and repeats in float64 where needed.
        solver: exact, or estimated.
        known: an earlier result, returned as it is where the tensor's bytes are still the same.

    Raises:
        ScanError: the file cannot be read.
    """
    started = time.process_time()
    empty = MatrixResult(info.name, info.shape, info.dtype, {})
    if len(info.shape) not in (1, 2):
        return replace(empty, reason=f"it has {len(info.shape)} dimensions; only matrices count")
    try:
        matrix = MatrixFile(info)
    except ScanError as error:
        return replace(empty, reason=str(error))
    if known is not None and known.sha256 and matrix.hash_bytes() == known.sha256:
        return known
    try:
        result = (
            _estimated(matrix, empty)
            if solver is Solver.LANCZOS
            else _exact(matrix, empty, precision)
        )
    except WeightsError as error:
        return replace(empty, reason=str(error), seconds=time.process_time() - started)
    return replace(result, sha256=matrix.sha256, seconds=time.process_time() - started)


def _exact(matrix: MatrixFile, empty: MatrixResult, precision: Precision) -> MatrixResult:
    first = Precision.FP32 if precision is Precision.AUTO else precision
    try:
        result = from_singular_values(singular_values(matrix, first), empty, matrix.shape)
    except RangeError:
        if precision is not Precision.AUTO:
            raise
        result = None
    if result and (precision is not Precision.AUTO or is_exact_enough(result)):
        return result
    return from_singular_values(singular_values(matrix, Precision.FP64), empty, matrix.shape)


def is_exact_enough(result: MatrixResult) -> bool:
    """Whether rounding moves neither score by more than `TOLERANCE`.

    An infinite score, or a score of 0, is taken from float64 only: whether anything lies on the
    other side of a threshold is just what rounding could change.
    """
    return all(
        one.error <= TOLERANCE and 0 < one.snr < float("inf") for one in result.scores.values()
    )


def from_singular_values(
    found: SingularValues, empty: MatrixResult, shape: tuple[int, int]
) -> MatrixResult:
    """Return both scores of a matrix whose singular values are known.

    Args:
        found: the singular values.
        empty: the result to fill.
        shape: rows and columns.

    Raises:
        WeightsError: a score is not a number.
    """
    scores = {e: score(e, found.values, shape=shape, errors=found.errors) for e in Estimator}
    if any(np.isnan(one.snr) for one in scores.values()):
        raise WeightsError("its score is not a number")
    return replace(
        empty,
        scores=scores,
        largest=float(found.values[0]),
        arithmetic=f"{found.precision} {found.reduction}",
    )


def _estimated(matrix: MatrixFile, empty: MatrixResult) -> MatrixResult:
    from kidrails_guard.spectrum.lanczos import lanczos_scores

    gram = matrix.gram(np.float32)
    if not np.all(np.isfinite(np.diagonal(gram))) or not np.any(np.diagonal(gram)):
        return _exact(matrix, empty, Precision.FP64)  # which says what is wrong with it
    return replace(
        empty, scores=lanczos_scores(gram, matrix.shape), arithmetic="fp32 lanczos (estimate)"
    )
