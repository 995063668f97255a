from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kidrails_guard.errors import RecipeError
from kidrails_guard.recipes.proof import (
    Changes,
    adapter_state,
    check_changes,
    compare_checkpoints,
    read_checkpoint,
)
from kidrails_guard.spectrum.checkpoint import read_index

Tensors = dict[str, np.ndarray]


def base() -> Tensors:
    random = np.random.default_rng(1)
    return {f"layers.{i}.weight": random.normal(size=(8, 6)).astype(np.float32) for i in range(3)}


def write(folder: Path, tensors: Tensors) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_bf16(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """Write raw bf16 bits: numpy has no such type."""
    header, data = {}, b""
    for name, bits in tensors.items():
        raw = bits.astype("<u2").tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(bits.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def compare(tmp_path: Path, changed: Tensors) -> Changes:
    first = write(tmp_path / "base", base())
    second = write(tmp_path / "result", changed)
    return compare_checkpoints(read_index(first), read_checkpoint(second))


def test_one_changed_bit_is_a_change(tmp_path: Path) -> None:
    changed = base()
    changed["layers.1.weight"][3, 3] = np.nextafter(changed["layers.1.weight"][3, 3], np.float32(9))
    found = compare(tmp_path, changed)
    assert found.changed == ("layers.1.weight",)
    assert found.same == ("layers.0.weight", "layers.2.weight")
    assert check_changes(found, ["layers.1.weight"]) == []


def test_every_difference_from_the_plan_is_named(tmp_path: Path) -> None:
    changed = base()
    changed["layers.1.weight"] += 1
    changed["layers.2.weight"][0, 0] = np.nan
    changed["new.weight"] = changed.pop("layers.0.weight")
    complaints = " | ".join(check_changes(compare(tmp_path, changed), ["layers.0.weight"]))
    assert "2 tensors changed although they were frozen, first layers.1.weight" in complaints
    assert "did not change although they were trained, first layers.0.weight" in complaints
    assert "missing from the result" in complaints
    assert "new in the result" in complaints
    assert "NaN" in complaints


def test_a_tied_head_may_come_and_go(tmp_path: Path) -> None:
    changed = base()
    changed["lm_head.weight"] = changed["layers.0.weight"].copy()
    assert check_changes(compare(tmp_path, changed), []) == []


def test_another_shape_is_an_error(tmp_path: Path) -> None:
    changed = base()
    changed["layers.0.weight"] = changed["layers.0.weight"][:4].copy()
    with pytest.raises(RecipeError, match="had shape"):
        compare(tmp_path, changed)


def test_types_are_compared_in_the_narrower_one(tmp_path: Path) -> None:
    wide = np.array([[1.0, -2.5], [3.14159, 1e-3]], np.float32)
    bits = wide.view(np.uint32)
    narrow = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    full = read_index(write(tmp_path / "fp32", {"a.weight": wide}))
    half = read_index(write_bf16(tmp_path / "bf16", {"a.weight": narrow}))
    other = read_index(write_bf16(tmp_path / "other", {"a.weight": narrow + np.uint16(1)}))
    assert compare_checkpoints(full, half).same == ("a.weight",)
    assert compare_checkpoints(half, full).same == ("a.weight",)
    assert compare_checkpoints(half, half).same == ("a.weight",)
    assert compare_checkpoints(full, other).changed == ("a.weight",)


def test_numbers_that_cannot_be_compared_are_an_error(tmp_path: Path) -> None:
    file = write(tmp_path / "ints", {"a.weight": np.zeros((2, 2), np.int32)})
    with pytest.raises(RecipeError, match="held as I32"):
        compare_checkpoints(read_index(file), read_index(file))


def test_an_adapter_that_stayed_at_zero_is_named(tmp_path: Path) -> None:
    tensors = {
        "m.q_proj.lora_A.weight": np.ones((2, 4), np.float32),
        "m.q_proj.lora_B.weight": np.ones((4, 2), np.float32),
        "m.k_proj.lora_A.weight": np.ones((2, 4), np.float32),
        "m.k_proj.lora_B.weight": np.zeros((4, 2), np.float32),
    }
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    state = adapter_state(tmp_path)
    assert (state.tensors, state.idle) == (4, ("m.k_proj.lora_B.weight",))
    assert state.parameters == sum(values.size for values in tensors.values())


def test_no_weights_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="made no adapter"):
        adapter_state(tmp_path)
    with pytest.raises(RecipeError, match="did not finish"):
        read_checkpoint(tmp_path)
