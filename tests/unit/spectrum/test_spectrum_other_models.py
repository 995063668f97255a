"""Checkpoints that are no plain Llama: two stacks of layers, shared experts, packed weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kidrails_guard.cli import main
from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.checkpoint import module_type, read_index
from kidrails_guard.spectrum.memory import estimate_tuning
from kidrails_guard.spectrum.report import read_scan
from kidrails_guard.spectrum.scan import ScanOptions, scan_model, targets
from kidrails_guard.spectrum.selecting import Request, select
from kidrails_guard.spectrum.shapes import model_index


def matrix(rows: int, columns: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


@pytest.fixture
def seeing(write_checkpoint) -> Path:
    """A model for pictures: its text model one level down, and a tower with the same names."""
    tensors = {"language_model.model.embed_tokens.weight": matrix(50, 16)}
    tensors["language_model.lm_head.weight"] = matrix(50, 16, seed=1)
    for layer in range(4):
        for stack in ("language_model.model", "vision_tower.vision_model.encoder"):
            name = f"{stack}.layers.{layer}.self_attn.q_proj.weight"
            tensors[name] = matrix(16, 16, seed=layer)
    return write_checkpoint(tensors, name="seeing")


def test_a_towers_layers_are_types_of_their_own(seeing: Path, tmp_path: Path) -> None:
    assert module_type("visual.blocks.3.attn.qkv") == "visual.attn.qkv"
    index = read_index(seeing)
    scan = read_scan(scan_model(index, tmp_path / "out", ScanOptions()).path)
    chosen = select(scan, index, Request(types=("self_attn.q_proj",), head=True))
    assert len(chosen.parameters) == 3
    assert not any("vision" in name for name in chosen.parameters)
    assert "language_model.lm_head.weight" in chosen.parameters
    both = select(scan, index, Request())
    assert both.types == ("self_attn.q_proj", "vision_tower.self_attn.q_proj")
    assert len(both.parameters) == 4


def test_a_nested_text_model_takes_its_memory(seeing: Path) -> None:
    index = read_index(seeing)
    kept_and_inside = 4 * 2 * 16 + 4 * 16 + 8 * 16
    assert estimate_tuning(index, 1).activations == 2048 * (kept_and_inside + 10 * 50)


def test_a_selection_does_not_need_an_estimate(
    write_checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"gpt_neox.layers.{i}.attention.dense.weight" for i in range(4)]
    model = write_checkpoint({name: matrix(16, 16, seed=len(name)) for name in names})
    out, saved = tmp_path / "out", tmp_path / "selection.json"
    assert main(["spectrum", "scan", str(model), "--out", str(out)]) == 0
    scan = str(out / "snr_results_tiny.json")
    assert main(["spectrum", "select", scan, "--save", str(saved)]) == 0
    assert len(json.loads(saved.read_text())["parameters"]) == 2
    said = capsys.readouterr()
    assert "its memory cannot be estimated" in said.err
    assert "estimated GPU memory" not in said.out
    assert main(["spectrum", "select", scan, "--budget-memory", "9"]) == 2


def test_experts_in_one_tensor_are_named_not_passed_over(write_checkpoint, tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray] = {}
    for layer in range(2):
        tensors[f"model.layers.{layer}.self_attn.q_proj.weight"] = matrix(8, 8, seed=layer)
        tensors[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = np.ones((4, 8, 8), np.float32)
    index = read_index(write_checkpoint(tensors))
    with pytest.raises(ScanError, match=r"2 of 4 matrices.*(\n.*)*experts\.gate_up_proj: it has 3"):
        scan_model(index, tmp_path / "out", ScanOptions())
    assert len(targets(index, ["self_attn.q_proj"])) == 2


def test_packed_weights_are_named(write_checkpoint) -> None:
    model = write_checkpoint(
        {"model.layers.0.mlp.up_proj.qweight": np.ones((4, 4), np.int8)}, dtype="I8"
    )
    with pytest.raises(ScanError, match=r"up_proj\.qweight' \(I8\); scan the model before quant"):
        targets(read_index(model))


@pytest.mark.parametrize("nested", [False, True])
def test_a_head_that_is_stored_twice_counts_once(write_checkpoint, nested: bool) -> None:
    embedding = matrix(50, 16)
    tensors = {
        "model.embed_tokens.weight": embedding,
        "model.layers.0.mlp.up_proj.weight": matrix(8, 16),
        "lm_head.weight": embedding,
    }
    model = write_checkpoint(tensors, shards=2)
    assert read_index(model).total_parameters == 2 * 50 * 16 + 8 * 16
    tied = {"tie_word_embeddings": True}
    (model / "config.json").write_text(json.dumps({"text_config": tied} if nested else tied))
    assert read_index(model).total_parameters == 50 * 16 + 8 * 16


def test_a_config_that_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ScanError, match="holds a list, not an object"):
        model_index(tmp_path)
