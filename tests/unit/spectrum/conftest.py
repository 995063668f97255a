"""Small checkpoints, written without the package's own reader."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]
WriteCheckpoint = Callable[..., Path]


def encode(array: Array, dtype: str) -> bytes:
    if dtype == "BF16":
        # Cut off, not rounded: the test compares with what `decode` gives back.
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16
        return bits.astype("<u2").tobytes()
    kinds = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1", "F8_E4M3": "u1"}
    return np.ascontiguousarray(array).astype(kinds[dtype]).tobytes()


def _decode(array: Array, dtype: str) -> Array:
    raw = encode(array, dtype)
    if dtype == "BF16":
        bits = np.frombuffer(raw, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64).reshape(array.shape)
    kinds = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
    return np.frombuffer(raw, kinds[dtype]).astype(np.float64).reshape(array.shape)


def write_shard(path: Path, tensors: Mapping[str, Array], dtype: str) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    payload = b""
    for name, array in tensors.items():
        data = encode(array, dtype)
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(payload), len(payload) + len(data)],
        }
        payload += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + payload)


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> WriteCheckpoint:
    """Write tensors as a folder of one or several shards; returns the folder."""

    def write(
        tensors: Mapping[str, Array], *, dtype: str = "F32", shards: int = 1, name: str = "tiny"
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        if shards == 1:
            write_shard(folder / "model.safetensors", tensors, dtype)
            return folder
        names = list(tensors)
        weight_map = {}
        for number in range(shards):
            file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
            part = names[number::shards]
            write_shard(folder / file, {key: tensors[key] for key in part}, dtype)
            weight_map.update(dict.fromkeys(part, file))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        return folder

    return write


@pytest.fixture
def llama() -> Callable[..., dict[str, Array]]:
    """Random weights in the shape of a small Llama, each layer with another signal in it."""

    def make(layers: int = 4, hidden: int = 64, *, seed: int = 0) -> dict[str, Array]:
        rng = np.random.default_rng(seed)

        def matrix(rows: int, columns: int, strength: float) -> Array:
            noise = rng.standard_normal((rows, columns)) * 0.02
            left, right = rng.standard_normal((rows, 3)), rng.standard_normal((3, columns))
            return (noise + strength * 0.002 * left @ right).astype(np.float32)

        tensors = {"model.embed_tokens.weight": matrix(200, hidden, 1.0)}
        for layer in range(layers):
            prefix = f"model.layers.{layer}"
            strength = 1.0 + rng.random() * 5
            for name, rows, columns in (
                ("self_attn.q_proj", hidden, hidden),
                ("self_attn.k_proj", hidden // 2, hidden),
                ("mlp.up_proj", 2 * hidden, hidden),
                ("mlp.down_proj", hidden, 2 * hidden),
            ):
                tensors[f"{prefix}.{name}.weight"] = matrix(rows, columns, strength)
            tensors[f"{prefix}.input_layernorm.weight"] = np.ones(hidden, np.float32)
        tensors["model.norm.weight"] = np.ones(hidden, np.float32)
        return tensors

    return make


@pytest.fixture
def decode() -> Callable[[Array, str], Array]:
    """What a checkpoint of a dtype holds of an array, as float64."""
    return _decode


@pytest.fixture
def spiked() -> Callable[..., Array]:
    """Noise of about size 1 and one singular value, the spike's height above it."""

    def make(rows: int, columns: int, spike: float, *, seed: int = 0) -> Array:
        rng = np.random.default_rng(seed)
        left, right = rng.standard_normal(rows), rng.standard_normal(columns)
        signal = np.outer(left / np.linalg.norm(left), right / np.linalg.norm(right))
        noise = rng.standard_normal((rows, columns)) / max(rows, columns) ** 0.5
        return (noise + spike * signal).astype(np.float32)

    return make
