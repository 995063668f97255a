from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum import weights
from kidrails_guard.spectrum.checkpoint import TensorInfo, read_index
from kidrails_guard.spectrum.weights import MatrixFile


def _lower(gram: np.ndarray) -> np.ndarray:
    return np.tril(gram)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("shape", [(37, 90), (90, 37), (40, 40), (1, 7)])
def test_gram_is_that_of_the_stored_numbers(
    write_checkpoint, decode, monkeypatch, dtype: str, shape: tuple[int, int]
) -> None:
    # Small pieces, so that every matrix is read in several.
    monkeypatch.setattr(weights, "_PIECE", 300)
    array = np.random.default_rng(0).standard_normal(shape)
    index = read_index(write_checkpoint({"x": np.ones(3), "a.weight": array}, dtype=dtype))
    matrix = MatrixFile(index["a.weight"])
    exact = decode(array, dtype)
    expected = exact @ exact.T if shape[0] <= shape[1] else exact.T @ exact
    for precision, tolerance in ((np.float64, 1e-13), (np.float32, 1e-5)):
        gram = matrix.gram(precision)
        assert gram.dtype == precision
        assert gram.flags.f_contiguous
        np.testing.assert_allclose(_lower(gram), _lower(expected), rtol=tolerance, atol=tolerance)


def test_bf16_is_widened_exactly(write_checkpoint, decode) -> None:
    values = np.array([[1.0, -0.0, 3.14159, 1e-40, 1e38, -2.5e-3]])
    matrix = MatrixFile(read_index(write_checkpoint({"a": values}, dtype="BF16"))["a"])
    block = weights.widen(matrix.read_rows(0, 1), "BF16", np.dtype(np.float32))
    np.testing.assert_array_equal(block.astype(np.float64), decode(values, "BF16"))


def test_hash_is_that_of_the_bytes(write_checkpoint) -> None:
    array = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)
    for value, name in ((array, "tall"), (np.ascontiguousarray(array.T), "wide")):
        matrix = MatrixFile(read_index(write_checkpoint({"a": value}, name=name))["a"])
        matrix.gram(np.float64)
        assert matrix.sha256 == matrix.hash_bytes() == hashlib.sha256(value.tobytes()).hexdigest()


def test_counts_bad_weights(write_checkpoint) -> None:
    array = np.zeros((5, 4), np.float32)
    array[1, 2], array[4, 0], array[0, 0] = np.nan, np.inf, -np.inf
    assert MatrixFile(read_index(write_checkpoint({"a": array}))["a"]).count_bad() == 3


def test_quantised_weights_are_refused(write_checkpoint) -> None:
    index = read_index(write_checkpoint({"a": np.ones((4, 4))}, dtype="I8"))
    with pytest.raises(ScanError, match=r"dtype I8 cannot be scored.*BF16"):
        MatrixFile(index["a"])


def test_shape_without_file() -> None:
    with pytest.raises(ScanError, match="no file to read"):
        MatrixFile(TensorInfo("a", "F32", (2, 2)))


def test_file_that_shrinks_while_it_is_read(write_checkpoint) -> None:
    index = read_index(write_checkpoint({"a": np.ones((40, 40))}))
    file = index["a"].file
    assert file is not None
    os.truncate(file, file.stat().st_size - 100)
    with pytest.raises(ScanError, match="changed while it was read"):
        MatrixFile(index["a"]).gram(np.float32)
    file.unlink()
    with pytest.raises(ScanError, match="cannot read"):
        MatrixFile(index["a"]).gram(np.float32)


def test_rows_outside_the_matrix(write_checkpoint) -> None:
    matrix = MatrixFile(read_index(write_checkpoint({"a": np.ones((4, 4))}))["a"])
    with pytest.raises(ScanError, match=r"no rows 2\.\.5"):
        matrix.read_rows(2, 5)
