"""Reads a checkpoint's configuration and weights, bfloat16 included, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kidrails_guard.errors import EngineError
from kidrails_guard.spectrum.checkpoint import read_index
from kidrails_guard.spectrum.weights import MatrixFile, widen

if TYPE_CHECKING:
    from kidrails_guard.engine.layout import Array


class Weights:
    """The tensors of a folder, or of one safetensors file.

    Args:
        path: the folder or file.

    Raises:
        ScanError: a shard is missing, cut short or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.index = read_index(path)

    def tensor(self, name: str) -> Array:
        """Return a tensor as float32.

        Raises:
            EngineError: it holds NaN or infinity.
            ScanError: its type is not a floating-point one, or the file ends too early.
        """
        matrix = MatrixFile(self.index[name])
        rows, _ = matrix.shape
        stored = matrix.read_rows(0, rows)
        values: Array = widen(stored, matrix.info.dtype, np.dtype(np.float32))
        if not np.isfinite(values).all():
            raise EngineError(
                f"{matrix.info.file}: tensor {name} holds NaN or infinity; train it again"
            )
        return values.reshape(matrix.info.shape)


class Checkpoint(Weights):
    """A folder with ``config.json`` and safetensors, in one file or in shards.

    Args:
        folder: the folder.

    Raises:
        EngineError: the configuration is missing or not JSON.
        ScanError: a shard is missing, cut short or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_json(folder / "config.json")
        super().__init__(folder)

    def optional_json(self, name: str) -> dict[str, Any]:
        """Return a JSON file's content, empty where there is no such file."""
        path = self.folder / name
        return read_json(path) if path.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        EngineError: the file is missing, not JSON, or holds no object.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise EngineError(f"{path} is missing; copy the whole checkpoint into the folder") from None
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise EngineError(f"{path} holds a {type(value).__name__}, not an object")
    return value
