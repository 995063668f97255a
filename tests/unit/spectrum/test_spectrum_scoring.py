from __future__ import annotations

import json

import numpy as np
import pytest

from kidrails_guard.spectrum.checkpoint import read_index
from kidrails_guard.spectrum.scoring import (
    TOLERANCE,
    MatrixResult,
    Solver,
    is_exact_enough,
    score_matrix,
)
from kidrails_guard.spectrum.singular import Precision
from kidrails_guard.spectrum.snr import Estimator, score


@pytest.fixture
def tensor_of(write_checkpoint):
    def make(array: np.ndarray, *, dtype: str = "F32", name: str = "one"):
        return read_index(write_checkpoint({"a.weight": array}, dtype=dtype, name=name))["a.weight"]

    return make


def test_scores_are_those_of_a_full_svd(tensor_of, llama, decode) -> None:
    """Upstream's method written down again: SVD of the whole matrix, then the formula."""
    array = llama(layers=1)["model.layers.0.mlp.down_proj.weight"]
    result = score_matrix(tensor_of(array, dtype="BF16"))
    values = np.linalg.svd(decode(array, "BF16"), compute_uv=False)
    upper, lower = np.quantile(values, 0.75), np.quantile(values, 0.25)
    eps = (upper - lower) / 1.349 * (1 + np.sqrt(64 / 128))
    expected = values[values > eps].sum() / values[values <= eps].sum() / values[0]
    assert result.scores[Estimator.SPECTRUM].snr == pytest.approx(expected, rel=TOLERANCE)
    assert result.reason == ""
    assert result.largest == pytest.approx(values[0])


def test_float32_is_kept_while_it_cannot_matter(tensor_of, llama) -> None:
    tensor = tensor_of(llama(layers=1)["model.layers.0.self_attn.q_proj.weight"])
    result = score_matrix(tensor)
    assert result.arithmetic.startswith("fp32")
    assert is_exact_enough(result)


@pytest.mark.parametrize("spike", [3.0, 30.0, 300.0, 3000.0])
def test_auto_is_exact_to_the_tolerance_whatever_the_outlier(tensor_of, spiked, spike) -> None:
    array = spiked(192, 400, spike)
    result = score_matrix(tensor_of(array))
    values = np.linalg.svd(array.astype(np.float64), compute_uv=False)
    for estimator, found in result.scores.items():
        exact = score(estimator, values, shape=array.shape)
        assert found.snr == pytest.approx(exact.snr, rel=TOLERANCE)
    assert result.arithmetic.startswith("fp32" if spike < 100 else "fp64")


def test_auto_goes_to_float64_where_float32_overflows(tensor_of, llama) -> None:
    array = llama(layers=1)["model.layers.0.self_attn.q_proj.weight"]
    small = score_matrix(tensor_of(array, name="a"))
    huge = score_matrix(tensor_of(array * 1e30, name="b"))
    assert huge.arithmetic.startswith("fp64")
    assert huge.scores[Estimator.MP].snr == pytest.approx(small.scores[Estimator.MP].snr, rel=1e-3)


def test_a_given_precision_is_kept(tensor_of, spiked) -> None:
    tensor = tensor_of(spiked(64, 64, 3000.0))
    assert score_matrix(tensor, Precision.FP32).arithmetic.startswith("fp32")
    assert score_matrix(tensor, Precision.FP64).arithmetic.startswith("fp64")
    overflowing = tensor_of(np.full((4, 4), 1e30), name="b")
    assert "overflow fp32" in score_matrix(overflowing, Precision.FP32).reason


def test_infinite_scores_come_from_float64(tensor_of) -> None:
    noise = np.random.default_rng(0).standard_normal((64, 512))
    result = score_matrix(tensor_of(noise))
    assert result.scores[Estimator.SPECTRUM].snr == float("inf")
    assert result.arithmetic.startswith("fp64")


@pytest.mark.parametrize(
    ("array", "dtype", "reason"),
    [
        (np.full((4, 6), np.nan), "F32", "24 of its 24 weights are NaN"),
        (np.full((4, 6), np.inf), "BF16", "NaN or infinite"),
        (np.zeros((4, 6)), "F16", "all its weights are zero"),
        (np.ones((2, 4, 6)), "F32", "3 dimensions"),
        (np.ones((4, 6)), "I8", "dtype I8"),
    ],
)
@pytest.mark.parametrize("solver", list(Solver))
def test_what_cannot_be_scored_says_why(tensor_of, array, dtype, reason, solver) -> None:
    result = score_matrix(tensor_of(array, dtype=dtype), solver=solver)
    assert reason in result.reason
    assert result.scores == {}


def test_known_result_is_taken_only_for_the_same_bytes(tensor_of, llama) -> None:
    array = llama(layers=1)["model.layers.0.self_attn.q_proj.weight"]
    first = score_matrix(tensor_of(array, name="a"))
    again = score_matrix(tensor_of(array, name="b"), known=first)
    assert again is first
    changed = array.copy()
    changed[0, 0] += 0.5
    other = score_matrix(tensor_of(changed, name="c"), known=first)
    assert other.sha256 != first.sha256
    assert other.scores != first.scores


def test_json_round_trip(tensor_of, llama) -> None:
    noise = np.random.default_rng(0).standard_normal((64, 512))
    for name, array in {"a": noise, "b": np.zeros((3, 3)), "c": np.eye(5, 9)}.items():
        result = score_matrix(tensor_of(array, name=name))
        text = json.dumps(result.to_json(), allow_nan=False)
        assert MatrixResult.from_json(json.loads(text)) == result


def _with_signal(seed: int, size: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((size, 40)) @ rng.standard_normal((40, size + 200))
    return rng.standard_normal((size, size + 200)) * 0.3 + signal * 0.1


def test_lanczos_is_near_and_says_how_near(tensor_of) -> None:
    """A 95 % interval from four groups, over 2 × 8 cases: fewer than 12 hits would be a defect."""
    hits, worst = 0, 0.0
    for seed in range(8):
        tensor = tensor_of(_with_signal(seed), name=f"m{seed}")
        exact, estimate = score_matrix(tensor), score_matrix(tensor, solver=Solver.LANCZOS)
        assert "estimate" in estimate.arithmetic
        for estimator in Estimator:
            found = estimate.scores[estimator]
            difference = abs(found.snr / exact.scores[estimator].snr - 1)
            hits += difference < found.error
            worst = max(worst, difference)
    assert hits >= 12
    assert worst < 0.5


def test_lanczos_is_the_same_each_time(tensor_of) -> None:
    tensor = tensor_of(_with_signal(0))
    first, second = (score_matrix(tensor, solver=Solver.LANCZOS) for _ in range(2))
    assert first.scores == second.scores


def test_lanczos_with_more_probes_is_nearer() -> None:
    from kidrails_guard.spectrum.lanczos import lanczos_scores
    from kidrails_guard.spectrum.snr import score

    array = _with_signal(1)
    gram = np.asfortranarray(array @ array.T)
    values = np.linalg.svd(array, compute_uv=False)
    exact = score(Estimator.MP, values, shape=array.shape).snr

    def spread(probes: int) -> float:
        found = [
            lanczos_scores(gram, array.shape, probes=probes, seed=seed)[Estimator.MP].snr
            for seed in range(5)
        ]
        return float(np.sqrt(np.mean((np.array(found) / exact - 1) ** 2)))

    assert spread(64) < spread(4)


def test_lanczos_takes_no_more_steps_than_rows() -> None:
    from kidrails_guard.spectrum.lanczos import lanczos_scores

    gram = np.asfortranarray(np.diag([9.0, 4.0, 1.0]))
    found = lanczos_scores(gram, (3, 3), steps=50)[Estimator.MP]
    assert np.isfinite(found.snr)
