"""One matrix's numbers, read from its shard piece by piece; and the Gram matrix of its short side.

bf16 is widened to float32 through its bits (numpy has no bf16): exact, no rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.checkpoint import FLOAT_DTYPES, TensorInfo

Array = npt.NDArray[Any]

_STORED: Final[dict[str, str]] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
#: Numbers widened at once: 16 MiB of float32. Larger pieces gain nothing, smaller ones starve BLAS.
_PIECE: Final = 4 << 20


@dataclass(slots=True)
class MatrixFile:
    """A matrix in a safetensors shard.

    Attributes:
        info: which tensor; a vector counts as one row.
        sha256: of the tensor's bytes, set once a Gram matrix has been built from them.
    """

    info: TensorInfo
    sha256: str = field(default="", init=False)

    def __post_init__(self) -> None:
        if self.info.file is None:
            raise ScanError(f"{self.info.name}: only its shape is known, there is no file to read")
        if self.info.dtype not in FLOAT_DTYPES:
            raise ScanError(
                f"{self.info.name}: dtype {self.info.dtype} cannot be scored; accepted: "
                f"{', '.join(sorted(FLOAT_DTYPES))}; scan the model before quantisation"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; a vector is one row."""
        sides = self.info.shape
        if len(sides) == 1:
            return 1, sides[0]
        return sides[0], sides[1]

    def read_rows(self, start: int, stop: int) -> Array:
        """Return rows as they are stored (bf16 as 16-bit integers)."""
        rows, columns = self.shape
        if self.info.file is None or not 0 <= start <= stop <= rows:
            raise ScanError(f"{self.info.name}: no rows {start}..{stop} in {self.shape}")
        stored = np.dtype(_STORED[self.info.dtype])
        count = (stop - start) * columns
        try:
            block = np.fromfile(
                self.info.file,
                stored,
                count,
                offset=self.info.start + start * columns * stored.itemsize,
            )
        except OSError as error:
            raise ScanError(f"cannot read {self.info.file}: {error.strerror}") from None
        if block.size != count:
            raise ScanError(
                f"{self.info.file} ends inside {self.info.name!r}: it changed while it was read"
            )
        return block.reshape(stop - start, columns)

    def gram(self, dtype: npt.DTypeLike) -> Array:
        """Return the Gram matrix of the short side, n × n with n = min(shape), Fortran order.

        Only its lower triangle is filled. Sets `sha256`. Peak memory: the stored matrix once where
        it is wide (its pieces are columns, which do not lie together in the file), else one piece;
        and the result.

        Args:
            dtype: float32 or float64, of the products and their sum.
        """
        from scipy.linalg import blas

        rank_update = blas.ssyrk if np.dtype(dtype) == np.float32 else blas.dsyrk
        size = min(self.shape)
        result = np.zeros((size, size), dtype, order="F")
        tall = self.shape[0] > self.shape[1]
        for piece in self._pieces(np.dtype(dtype)):
            # Transposed, a piece is in Fortran order, and BLAS copies nothing: it adds XᵀX of a
            # tall matrix's rows, or XXᵀ of a wide one's columns.
            rank_update(
                1.0, piece.T, trans=0 if tall else 1, beta=1.0, c=result, lower=1, overwrite_c=1
            )
        return result

    def _pieces(self, dtype: np.dtype[Any]) -> Iterator[Array]:
        """Yield blocks of rows of a tall matrix, or of columns of a wide one, in C order.

        All share one buffer: a block is gone when the next one is asked for.
        """
        rows, columns = self.shape
        digest = hashlib.sha256()
        tall = rows > columns
        length, width = (rows, columns) if tall else (columns, rows)
        step = min(length, max(1, _PIECE // width))
        buffer = np.empty(step * width, dtype)
        whole = None
        if not tall:
            whole = self.read_rows(0, rows)
            digest.update(whole.data)
        for start in range(0, length, step):
            stop = min(start + step, length)
            if whole is None:
                block = self.read_rows(start, stop)
                digest.update(block.data)
            else:
                block = whole[:, start:stop]
            out = buffer[: block.size].reshape(block.shape)
            yield widen(block, self.info.dtype, dtype, out=out)
        self.sha256 = digest.hexdigest()

    def hash_bytes(self) -> str:
        """Return the SHA-256 of the tensor's bytes, in far less time than its score takes."""
        rows, columns = self.shape
        step = max(1, _PIECE // max(1, columns))
        digest = hashlib.sha256()
        for start in range(0, rows, step):
            digest.update(self.read_rows(start, min(start + step, rows)).data)
        return digest.hexdigest()

    def count_bad(self) -> int:
        """Return how many weights are NaN or infinite."""
        rows, columns = self.shape
        step = max(1, _PIECE // columns)
        return sum(
            int(np.count_nonzero(~np.isfinite(widen(block, self.info.dtype, np.dtype(np.float64)))))
            for block in (
                self.read_rows(start, min(start + step, rows)) for start in range(0, rows, step)
            )
        )


def widen(block: Array, stored: str, dtype: np.dtype[Any], out: Array | None = None) -> Array:
    """Return stored numbers as float32 or float64, in the same memory order.

    Args:
        block: as read from the file; bf16 as unsigned 16-bit integers.
        stored: safetensors' name of the type, such as ``BF16``.
        dtype: float32 or float64.
        out: filled and returned, where given; of the block's shape and this dtype, in C order.
    """
    if stored == "BF16":
        if out is None or out.dtype != np.float32:
            bits = np.left_shift(block, 16, dtype=np.uint32)
            block = bits.view(np.float32)
        else:  # one pass, whatever the block's strides are
            np.left_shift(block, 16, out=out.view(np.uint32), dtype=np.uint32)
            return out
    if out is None:
        return block.astype(dtype, copy=False)
    out[...] = block
    return out
