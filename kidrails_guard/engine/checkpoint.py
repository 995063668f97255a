"""Reads a checkpoint's configuration and weights, bfloat16 included, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kidrails_guard.errors import EngineError
from kidrails_guard.spectrum.checkpoint import read_index

if TYPE_CHECKING:
    from kidrails_guard.engine.layout import Array

#: safetensors' names of types → how numpy reads them; BF16 is widened by hand.
_TYPES: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}


class Checkpoint:
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
        self.index = read_index(folder)

    def optional_json(self, name: str) -> dict[str, Any]:
        """Return a JSON file's content, empty where there is no such file."""
        path = self.folder / name
        return read_json(path) if path.is_file() else {}

    def tensor(self, name: str) -> Array:
        """Return a tensor as float32.

        Raises:
            EngineError: its type is not a floating-point one, or it holds NaN or infinity.
        """
        info = self.index[name]
        if info.dtype not in _TYPES or info.file is None:
            raise EngineError(
                f"{info.file}: tensor {name} has the type {info.dtype}; accepted are "
                f"{', '.join(_TYPES)} (a quantised checkpoint: serve it with --backend vllm)"
            )
        values: Array = np.fromfile(
            info.file, dtype=_TYPES[info.dtype], count=info.size, offset=info.start
        )
        if info.dtype == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        values = values.astype(np.float32, copy=False).reshape(info.shape)
        if not np.isfinite(values).all():
            raise EngineError(f"{info.file}: tensor {name} holds NaN or infinity; train it again")
        return values


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
