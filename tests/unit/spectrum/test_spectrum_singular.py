"""Singular values against a float64 SVD of the same numbers: values, errors, ways to get there."""

from __future__ import annotations

import numpy as np
import pytest

from kidrails_guard.spectrum import singular, twostage
from kidrails_guard.spectrum.checkpoint import read_index
from kidrails_guard.spectrum.singular import (
    Precision,
    RangeError,
    WeightsError,
    from_gram,
    singular_values,
)
from kidrails_guard.spectrum.snr import Estimator, score
from kidrails_guard.spectrum.weights import MatrixFile


@pytest.fixture
def matrix_of(write_checkpoint):
    def make(array: np.ndarray, *, dtype: str = "F32", name: str = "one") -> MatrixFile:
        return MatrixFile(read_index(write_checkpoint({"a": array}, dtype=dtype, name=name))["a"])

    return make


def _with_values(values: np.ndarray, columns: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    right, _ = np.linalg.qr(rng.standard_normal((columns, len(values))))
    return ((left * values) @ right.T).astype(np.float32)


@pytest.mark.parametrize("shape", [(96, 384), (384, 96), (200, 200), (1, 50), (50, 1), (2, 2)])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP64])
def test_equal_to_an_svd(matrix_of, shape: tuple[int, int], precision: Precision) -> None:
    array = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    found = singular_values(matrix_of(array), precision)
    expected = np.linalg.svd(array.astype(np.float64), compute_uv=False)
    assert found.precision == precision.value
    assert len(found.values) == min(shape)
    tolerance = {Precision.FP32: 5e-6, Precision.FP64: 1e-12}[precision]
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=tolerance * expected[0])


SPECTRA = {
    "flat": np.geomspace(1, 0.1, 150),
    "steep": np.geomspace(1, 0.001, 150),
    "steepest": np.geomspace(1, 0.00001, 150),
    "linear": np.linspace(2, 0.01, 150),
    "spiked": np.r_[100.0, np.linspace(1, 0.1, 149)],
    "low rank": np.r_[np.linspace(2, 1, 110), np.zeros(40)],
    "lower rank": np.r_[np.linspace(2, 1, 40), np.zeros(110)],
}


@pytest.mark.parametrize("columns", [150, 300, 1000])
@pytest.mark.parametrize("name", list(SPECTRA))
def test_no_error_exceeds_its_estimate(matrix_of, name: str, columns: int) -> None:
    array = _with_values(SPECTRA[name], columns)
    found = singular_values(matrix_of(array), Precision.FP32)
    expected = np.linalg.svd(array.astype(np.float64), compute_uv=False)
    assert (np.abs(found.values - expected) <= found.errors).all()
    # And the estimates are not so wide that they would say nothing.
    clear = expected > 0.03 * expected[0]
    assert (found.errors[clear] < 1e-3 * expected[clear]).all()


@pytest.mark.parametrize("estimator", list(Estimator))
@pytest.mark.parametrize("seed", range(4))
def test_no_score_is_further_off_than_it_says(matrix_of, spiked, estimator, seed) -> None:
    array = spiked(200, 260, 10.0**seed, seed=seed)
    array *= np.geomspace(1, 0.2, 200).astype(np.float32)[:, None]
    found = singular_values(matrix_of(array), Precision.FP32)
    expected = np.linalg.svd(array.astype(np.float64), compute_uv=False)
    short = score(estimator, found.values, shape=array.shape, errors=found.errors)
    exact = score(estimator, expected, shape=array.shape)
    assert abs(short.snr / exact.snr - 1) <= short.error


def test_low_rank_has_zeros(matrix_of) -> None:
    array = _with_values(np.r_[np.linspace(2, 1, 20), np.zeros(60)], 100)
    for precision in (Precision.FP32, Precision.FP64):
        found = singular_values(matrix_of(array, name=precision.value), precision)
        # Storing the matrix in float32 leaves about 1e-7 of each zero, which float64 sees.
        assert np.count_nonzero(found.values > 1e-6) == 20


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 2, 3, 64, 65, 66, 200, 333])
def test_both_reductions_agree(dtype: type, size: int) -> None:
    if not twostage.available(dtype):
        pytest.skip("SciPy's LAPACK has no two-stage reduction")
    array = np.random.default_rng(size).standard_normal((size, size + 5))
    gram = np.asfortranarray((array @ array.T).astype(dtype))
    expected = np.linalg.eigvalsh(gram.astype(np.float64))[::-1]
    for reduction in ("one-stage", "two-stage"):
        found = from_gram(gram.copy(order="F"), reduction=reduction)
        assert found.reduction == reduction
        tolerance = 100 * float(np.finfo(dtype).eps) * expected[0]
        np.testing.assert_allclose(found.values**2, expected, rtol=0, atol=tolerance)


def test_two_stage_is_there_with_the_pinned_scipy() -> None:
    """Not a promise of every SciPy, but of the one in requirements/: notice when it goes."""
    assert twostage.available(np.float32)
    assert twostage.available(np.float64)


def test_one_stage_takes_over_where_two_stage_is_missing(monkeypatch) -> None:
    monkeypatch.setattr(twostage, "_lapack", lambda letter: None)
    monkeypatch.setattr(singular, "TWO_STAGE_FROM", 2)
    gram = np.asfortranarray(np.diag([4.0, 1.0, 9.0]))
    found = from_gram(gram.copy(order="F"))
    assert found.reduction == "one-stage"
    np.testing.assert_allclose(found.values, [3, 2, 1])
    with pytest.raises(ArithmeticError, match="no two-stage"):
        twostage.tridiagonalise(gram)


def test_large_ones_take_two_stages(monkeypatch) -> None:
    monkeypatch.setattr(singular, "TWO_STAGE_FROM", 3)
    found = from_gram(np.asfortranarray(np.diag([4.0, 1.0, 9.0])))
    assert found.reduction == "two-stage"
    np.testing.assert_allclose(found.values, [3, 2, 1])


def test_two_stage_refuses_c_order() -> None:
    with pytest.raises(ValueError, match="Fortran order"):
        twostage.tridiagonalise(np.ones((4, 3)))


def test_a_reduction_that_goes_wrong_is_noticed(monkeypatch) -> None:
    monkeypatch.setattr(
        singular, "_one_stage", lambda gram: (np.ones(len(gram)), np.zeros(len(gram) - 1))
    )
    with pytest.raises(WeightsError, match="do not add up"):
        from_gram(np.asfortranarray(np.diag([4.0, 1.0, 9.0])))


def test_float32_loses_where_float64_does_not(matrix_of, spiked) -> None:
    """Why there are two precisions: one outlier takes the small values' digits."""
    array = spiked(192, 576, 3000.0)
    expected = np.linalg.svd(array.astype(np.float64), compute_uv=False)
    short = singular_values(matrix_of(array, name="a"), Precision.FP32)
    long = singular_values(matrix_of(array, name="b"), Precision.FP64)
    assert np.abs(long.values - expected).max() < 1e-6
    assert np.abs(short.values - expected)[1:].max() > 1e-2
    assert short.errors[100] > 1e-2 > long.errors[100]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_weights_are_counted(matrix_of, bad: float) -> None:
    array = np.ones((20, 30), np.float32)
    array[3, 4] = array[7, 7] = bad
    with pytest.raises(WeightsError, match="2 of its 600 weights are NaN or infinite"):
        singular_values(matrix_of(array), Precision.FP32)


def test_zero_weights(matrix_of) -> None:
    matrix = matrix_of(np.zeros((20, 30), np.float32))
    with pytest.raises(RangeError):
        singular_values(matrix, Precision.FP32)
    with pytest.raises(WeightsError, match="all its weights are zero"):
        singular_values(matrix, Precision.FP64)


@pytest.mark.parametrize(("scale", "word"), [(1e25, "overflow"), (1e-25, "underflow")])
def test_squares_out_of_range(matrix_of, scale: float, word: str) -> None:
    array = np.random.default_rng(0).standard_normal((20, 30)) * scale
    matrix = matrix_of(array, dtype="BF16")
    with pytest.raises(RangeError, match=f"{word} fp32"):
        singular_values(matrix, Precision.FP32)
    assert singular_values(matrix, Precision.FP64).values[0] > scale


def test_empty_matrix(matrix_of) -> None:
    with pytest.raises(WeightsError, match="empty side"):
        singular_values(matrix_of(np.ones((0, 4))), Precision.FP32)


def test_auto_is_not_for_here(matrix_of) -> None:
    with pytest.raises(ValueError, match="fp32 or fp64"):
        singular_values(matrix_of(np.ones((2, 2))), Precision.AUTO)
