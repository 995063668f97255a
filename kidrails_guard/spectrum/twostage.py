"""Two-stage tridiagonalisation of a dense symmetric matrix.

The one-stage reduction (``syevd``, what `numpy.linalg.eigvalsh` calls) spends half its work in
matrix-vector products, which wait for memory as soon as the matrix outgrows the cache. LAPACK's
two-stage reduction goes dense → band (matrix products only) → tridiagonal. SciPy's own LAPACK has
it and SciPy has no Python name for it, so it is called here through `ctypes`, out of the library
that SciPy has loaded anyway. Where that library has no such routine, or where it fails a self-test,
`available` is false and the caller takes the one-stage way.

Source: Haidar, Ltaief, Dongarra, *Parallel reduction to condensed forms for symmetric eigenvalue
problems using aggregated fine-grained and memory-aware kernels*, SC 2011; LAPACK 3.7,
``?sytrd_sy2sb``, ``?sytrd_sb2st``.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Band width: measured at n = 4096, 32 to 128 (benchmarks/spectrum_scan.py): flat between 32 and 64.
_BAND: Final = 64
_PREFIXES: Final = ("scipy_", "")


class _Lapack:
    """The two routines in one precision, with LAPACK's Fortran calling convention."""

    def __init__(self, letter: str) -> None:
        from scipy.linalg import cython_lapack

        # A handle on SciPy's extension also finds the symbols of the LAPACK that it is linked to,
        # wherever the wheel or the distribution has put that.
        library = ctypes.CDLL(cython_lapack.__file__)
        for prefix in _PREFIXES:
            names = [f"{prefix}{letter}{stem}_" for stem in ("sytrd_sy2sb", "sytrd_sb2st")]
            if all(hasattr(library, name) for name in names):
                self.to_band, self.to_tridiagonal = (getattr(library, name) for name in names)
                return
        raise LookupError("SciPy's LAPACK has no two-stage reduction")


@cache
def _lapack(letter: str) -> _Lapack | None:
    try:
        routines = _Lapack(letter)
    except (ImportError, OSError, LookupError):
        return None
    dtype = np.float32 if letter == "s" else np.float64
    sample: Array = np.random.default_rng(0).standard_normal((150, 150)).astype(dtype)
    sample = np.matmul(sample, sample.T)
    try:
        diagonal, off_diagonal = _reduce(routines, np.asfortranarray(sample))
    except (ValueError, ArithmeticError):
        return None
    # Orthogonal similarity keeps the trace and the Frobenius norm of every power.
    dense, reduced = sample.astype(np.float64), np.diag(diagonal).astype(np.float64)
    reduced += np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
    tolerance = 100 * float(np.finfo(dtype).eps)
    for power in (1, 2, 3):
        expected = np.trace(np.linalg.matrix_power(dense, power))
        found = np.trace(np.linalg.matrix_power(reduced, power))
        if not abs(found - expected) <= tolerance * power * expected:
            return None
    return routines


def available(dtype: npt.DTypeLike) -> bool:
    """Whether the two-stage reduction is there for float32 or float64 and passes its self-test."""
    return _lapack("s" if np.dtype(dtype) == np.float32 else "d") is not None


def tridiagonalise(matrix: Array) -> tuple[Array, Array]:
    """Reduce a symmetric matrix to a tridiagonal one with the same eigenvalues.

    Args:
        matrix: n × n, float32 or float64, Fortran order; only its lower triangle is read, and it is
            overwritten.

    Returns:
        the diagonal (n) and the off-diagonal (n - 1), in the matrix's own precision.

    Raises:
        ArithmeticError: LAPACK refused, or the routine is not there.
    """
    routines = _lapack("s" if matrix.dtype == np.float32 else "d")
    if routines is None:
        raise ArithmeticError("SciPy's LAPACK has no two-stage reduction")
    return _reduce(routines, matrix)


def _reduce(routines: _Lapack, matrix: Array) -> tuple[Array, Array]:
    size, dtype = matrix.shape[0], matrix.dtype
    if not matrix.flags.f_contiguous or dtype not in (np.float32, np.float64):
        raise ValueError("expected a float32 or float64 matrix in Fortran order")
    band = min(_BAND, size - 1)
    info = ctypes.c_int(0)

    def integer(value: int) -> Any:
        return ctypes.byref(ctypes.c_int(value))

    def pointer(array: Array) -> Any:
        return array.ctypes.data_as(ctypes.c_void_p)

    # The trailing integers are the lengths of the character arguments, which Fortran compilers
    # pass behind the others.
    def to_band(work: Array, length: int) -> None:
        routines.to_band(
            b"L", integer(size), integer(band), pointer(matrix), integer(size), pointer(banded),
            integer(band + 1), pointer(tau), pointer(work), integer(length), ctypes.byref(info),
            ctypes.c_size_t(1),
        )  # fmt: skip

    def to_tridiagonal(house: Array, work: Array, lengths: tuple[int, int]) -> None:
        routines.to_tridiagonal(
            b"Y", b"N", b"L", integer(size), integer(band), pointer(banded), integer(band + 1),
            pointer(diagonal), pointer(off_diagonal), pointer(house), integer(lengths[0]),
            pointer(work), integer(lengths[1]), ctypes.byref(info),
            ctypes.c_size_t(1), ctypes.c_size_t(1), ctypes.c_size_t(1),
        )  # fmt: skip

    banded = np.zeros((band + 1, size), dtype, order="F")
    tau, query, house_query = np.zeros(size, dtype), np.zeros(1, dtype), np.zeros(1, dtype)
    diagonal, off_diagonal = np.zeros(size, dtype), np.zeros(size, dtype)
    to_band(query, -1)
    length = int(query[0]) + 64
    to_band(np.zeros(length, dtype), length)
    _expect_zero(info)
    to_tridiagonal(house_query, query, (-1, -1))
    # float32 cannot hold every length exactly, so that a query's answer may be a little short.
    lengths = (int(house_query[0] * 1.01) + 64, int(query[0] * 1.01) + 64)
    to_tridiagonal(np.zeros(lengths[0], dtype), np.zeros(lengths[1], dtype), lengths)
    _expect_zero(info)
    return diagonal, off_diagonal[: size - 1]


def _expect_zero(info: ctypes.c_int) -> None:
    if info.value:
        raise ArithmeticError(f"LAPACK's two-stage reduction returned info {info.value}")
