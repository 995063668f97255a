"""The two estimators: the formula, and both statements of the module's docstring as facts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidrails_guard.spectrum.snr import Estimator, marchenko_pastur_median, score


def _values(array: np.ndarray) -> np.ndarray:
    return np.linalg.svd(array, compute_uv=False)


def _score(estimator: Estimator, array: np.ndarray) -> float:
    return score(estimator, _values(array), shape=array.shape).snr


def _signal(rows: int, columns: int, *, rank: int, strength: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    return rng.standard_normal((rows, columns)) + strength * signal


def test_spectrum_by_hand() -> None:
    values = np.array([10.0, 4.0, 3.0, 2.0, 1.0])
    # Quartiles 4 and 2, so sigma = 2 / 1.349 = 1.4826; beta = 5/20, so eps = 1.5 sigma = 2.2239.
    found = score(Estimator.SPECTRUM, values, shape=(5, 20))
    assert found.sigma == pytest.approx(2 / 1.349)
    assert found.threshold == pytest.approx(1.5 * 2 / 1.349)
    assert (found.signal, found.noise, found.above) == (17.0, 3.0, 3)
    assert found.snr == pytest.approx(17 / 3 / 10)
    assert found.degenerate == ""


def test_mp_by_hand() -> None:
    values = np.array([10.0, 4.0, 3.0, 2.0, 1.0])
    unit = math.sqrt(20 * marchenko_pastur_median(0.25))
    found = score(Estimator.MP, values, shape=(20, 5))
    assert found.sigma == pytest.approx(3 / unit)
    assert found.threshold == pytest.approx(3 / unit * (math.sqrt(5) + math.sqrt(20)))
    assert found.snr == pytest.approx(10 / 10)


def test_spectrum_depends_on_the_scale() -> None:
    array = _signal(64, 128, rank=4, strength=1.0)
    assert _score(Estimator.SPECTRUM, 10 * array) == pytest.approx(
        _score(Estimator.SPECTRUM, array) / 10
    )


@given(exponent=st.floats(-6, 6), seed=st.integers(0, 5))
def test_mp_does_not_depend_on_the_scale(exponent: float, seed: int) -> None:
    array = _signal(32, 64, rank=3, strength=1.0, seed=seed)
    assert _score(Estimator.MP, 10**exponent * array) == pytest.approx(_score(Estimator.MP, array))


@pytest.mark.parametrize("seed", range(3))
def test_spectrum_calls_noise_infinitely_good_at_one_to_four(seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal((256, 1024))
    found = score(Estimator.SPECTRUM, _values(noise), shape=(256, 1024))
    assert math.isinf(found.snr)
    assert (found.noise, found.above) == (0.0, 256)
    assert "infinite" in found.degenerate


def test_spectrum_calls_noise_good_at_the_shape_of_an_mlp() -> None:
    noise = np.random.default_rng(0).standard_normal((512, 1792))
    assert 1.5 < _score(Estimator.SPECTRUM, noise) < 3


@pytest.mark.parametrize("shape", [(256, 1024), (512, 1792), (300, 300), (128, 576), (1024, 256)])
def test_mp_calls_noise_noise(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).standard_normal(shape)
    assert _score(Estimator.MP, noise) < 0.02


@pytest.mark.parametrize("shape", [(256, 1024), (300, 300), (1024, 256)])
def test_mp_rises_with_the_signal(shape: tuple[int, int]) -> None:
    scores = [_score(Estimator.MP, _signal(*shape, rank=8, strength=s)) for s in (0.3, 1, 3)]
    assert scores == sorted(scores)
    assert scores[0] > 0.05


def test_mp_finds_the_noise_level() -> None:
    array = 0.7 * np.random.default_rng(0).standard_normal((400, 900))
    array += 5 * np.outer(np.ones(400), np.ones(900)) / 30
    assert score(Estimator.MP, _values(array), shape=array.shape).sigma == pytest.approx(0.7, 0.02)


@pytest.mark.parametrize("beta", [1.0, 0.75, 0.5, 0.25, 0.05])
def test_mp_median_is_that_of_random_matrices(beta: float) -> None:
    short = round(900 * beta)
    noise = np.random.default_rng(0).standard_normal((short, 900))
    eigenvalues = np.linalg.eigvalsh(noise @ noise.T / 900)
    assert marchenko_pastur_median(beta) == pytest.approx(float(np.median(eigenvalues)), rel=0.02)


def test_mp_median_published_value() -> None:
    # Gavish and Donoho: omega(1) = (4/sqrt(3)) / sqrt(median) is about 2.858.
    assert 4 / math.sqrt(3) / math.sqrt(marchenko_pastur_median(1.0)) == pytest.approx(2.858, 1e-3)


def test_nothing_above_or_below() -> None:
    flat = score(Estimator.MP, np.ones(50), shape=(50, 50))
    assert (flat.snr, flat.above) == (0.0, 0)
    assert "above" in flat.degenerate
    flat = score(Estimator.SPECTRUM, np.ones(50), shape=(50, 50))
    assert math.isinf(flat.snr)
    one = score(Estimator.SPECTRUM, np.array([3.0]), shape=(1, 64))
    assert math.isinf(one.snr)  # a norm's weight, as in the published files
    # Zeros below the threshold sum to nothing: infinite as well, not a division by zero.
    low_rank = score(Estimator.SPECTRUM, np.r_[5.0, 4.0, np.zeros(20)], shape=(22, 30))
    assert math.isinf(low_rank.snr)


@given(
    values=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=60),
    wide=st.integers(0, 200),
    estimator=st.sampled_from(list(Estimator)),
)
def test_sums_are_all_of_it(values: list[float], wide: int, estimator: Estimator) -> None:
    ordered = np.sort(values)[::-1]
    found = score(estimator, ordered, shape=(len(values), len(values) + wide))
    assert found.signal + found.noise == pytest.approx(float(ordered.sum()))
    assert found.above == int((ordered > found.threshold).sum())
    assert found.snr >= 0
    assert found.error == 0  # no error went in


def test_errors_are_carried_into_the_score() -> None:
    values = np.linspace(10, 1, 100)
    errors = np.full(100, 1e-4)
    found = score(Estimator.SPECTRUM, values, shape=(100, 200), errors=errors)
    rng = np.random.default_rng(0)
    for _ in range(50):
        shifted = np.sort(values + rng.uniform(-1, 1, 100) * errors)[::-1]
        other = score(Estimator.SPECTRUM, shifted, shape=(100, 200))
        assert abs(other.snr / found.snr - 1) <= found.error
    assert found.error < 1e-3
