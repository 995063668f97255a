from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_checkpoint import tiny_weights, write_tiny

from kidrails_guard.engine.adapter import convert_adapter, extract_delta, is_adapter
from kidrails_guard.engine.gguf_file import GgufFile
from kidrails_guard.engine.layout import to_halves
from kidrails_guard.errors import EngineError, KidRailsError, UsageError

QUERY = "model.layers.1.self_attn.q_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"


def product(file: Path, name: str, *, heads: int = 0) -> np.ndarray:
    """Return B · A of one matrix, in the order of the checkpoint's rows."""
    adapter = GgufFile(file)
    up, down = adapter.tensor(f"{name}.lora_b"), adapter.tensor(f"{name}.lora_a")
    change = up @ down
    return to_halves(change, heads=heads) if heads else change


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "base")


@pytest.fixture
def tuned(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A model with changes of rank 3 in two matrices."""
    rng, weights = np.random.default_rng(1), tiny_weights()
    changes = {}
    for name in (QUERY, DOWN):
        rows, columns = weights[name].shape
        change = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, columns)) * 0.02
        changes[name] = change.astype(np.float32)
        weights[name] = weights[name] + changes[name]
    return write_tiny(tmp_path / "tuned", weights=weights), changes


def test_a_change_of_low_rank_is_held_exactly(tmp_path: Path, base: Path, tuned: tuple) -> None:
    folder, changes = tuned
    record = extract_delta(folder, base, tmp_path / "a.gguf", rank=4, weight_type="f32")
    assert (record["matrices"], record["rank"], record["left_out"]) == (2, 4, [])
    assert record["kept"] == pytest.approx(1.0, abs=1e-6)
    file = tmp_path / "a.gguf"
    assert product(file, "blk.1.attn_q.weight", heads=4) == pytest.approx(changes[QUERY], abs=1e-5)
    assert product(file, "blk.0.ffn_down.weight") == pytest.approx(changes[DOWN], abs=1e-5)
    adapter = GgufFile(file)
    assert adapter.value("general.type") == "adapter"
    assert adapter.value("adapter.lora.alpha") == 4.0
    assert len(adapter.tensor_names) == 4


def test_a_lower_rank_keeps_the_largest_part(tmp_path: Path, base: Path, tuned: tuple) -> None:
    folder, changes = tuned
    kept = [
        extract_delta(folder, base, tmp_path / f"{rank}.gguf", rank=rank, weight_type="f32")["kept"]
        for rank in (1, 2, 3)
    ]
    assert kept == sorted(kept)
    squares = [np.linalg.svd(change, compute_uv=False) ** 2 for change in changes.values()]
    wanted = sum(s[0] for s in squares) / sum(s.sum() for s in squares)
    assert kept[0] == pytest.approx(wanted, rel=1e-4)


def test_a_rank_above_the_matrix_is_filled_with_zeros(
    tmp_path: Path, base: Path, tuned: tuple
) -> None:
    folder, changes = tuned
    extract_delta(folder, base, tmp_path / "a.gguf", rank=96, weight_type="q8_0")
    found = product(tmp_path / "a.gguf", "blk.0.ffn_down.weight")
    assert found == pytest.approx(changes[DOWN], abs=0.01)


def test_what_no_adapter_can_hold_is_named(tmp_path: Path, base: Path) -> None:
    weights = tiny_weights()
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.5
    weights[DOWN] = weights[DOWN] + 0.1
    tuned = write_tiny(tmp_path / "tuned", weights=weights)
    record = extract_delta(tuned, base, tmp_path / "a.gguf", rank=2)
    assert record["left_out"] == ["model.norm.weight"]
    assert 0.5 < record["kept"] < 1.0


def test_equal_models_give_no_adapter(tmp_path: Path, base: Path) -> None:
    with pytest.raises(EngineError, match="nothing to write"):
        extract_delta(write_tiny(tmp_path / "same"), base, tmp_path / "a.gguf", rank=2)
    assert not (tmp_path / "a.gguf").exists()


def test_another_models_descendant_is_an_error(tmp_path: Path, base: Path) -> None:
    weights = tiny_weights()
    weights[DOWN] = np.zeros((64, 64), np.float32)
    other = write_tiny(tmp_path / "other", weights=weights)
    with pytest.raises(EngineError, match=r"shape \(64, 64\) .* not trained from that model"):
        extract_delta(other, base, tmp_path / "a.gguf", rank=2)


@pytest.mark.parametrize(("rank", "kind"), [(0, "f16"), (20, "q8_0"), (32, "q4_1")])
def test_impossible_ranks_and_types_are_wrong_use(
    tmp_path: Path, base: Path, rank: int, kind: str
) -> None:
    with pytest.raises(UsageError, match=r"--rank|--type"):
        extract_delta(base, base, tmp_path / "a.gguf", rank=rank, weight_type=kind)


class TestTrainedAdapter:
    @pytest.fixture
    def folder(self, tmp_path: Path, base: Path) -> Path:
        return self.write(tmp_path / "lora", base)

    def write(self, folder: Path, base: Path, **changes: object) -> Path:
        folder.mkdir()
        rng = np.random.default_rng(2)
        weights = {
            f"base_model.model.{QUERY[:-7]}.lora_A.weight": rng.normal(size=(2, 64)),
            f"base_model.model.{QUERY[:-7]}.lora_B.weight": rng.normal(size=(64, 2)),
        }
        extra = changes.pop("extra", {})
        assert isinstance(extra, dict)
        for name, shape in extra.items():
            weights[name] = np.zeros(shape)
        weights = {name: value.astype(np.float32) for name, value in weights.items()}
        save_file(weights, folder / "adapter_model.safetensors")
        config = {
            "peft_type": "LORA",
            "r": 2,
            "lora_alpha": 8,
            "base_model_name_or_path": str(base),
            **changes,
        }
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    def test_it_is_written_in_llamacpps_order(self, tmp_path: Path, folder: Path) -> None:
        assert is_adapter(folder)
        record = convert_adapter(folder, None, tmp_path / "a.gguf")
        assert (record["matrices"], record["rank"]) == (1, 2)
        rng = np.random.default_rng(2)
        down, up = rng.normal(size=(2, 64)), rng.normal(size=(64, 2))
        found = product(tmp_path / "a.gguf", "blk.1.attn_q.weight", heads=4)
        assert found == pytest.approx(up @ down, abs=0.02)
        assert GgufFile(tmp_path / "a.gguf").value("adapter.lora.alpha") == 8.0

    def test_rank_stabilised_scaling_is_kept(self, tmp_path: Path, base: Path) -> None:
        folder = self.write(tmp_path / "rs", base, use_rslora=True)
        convert_adapter(folder, base, tmp_path / "a.gguf")
        alpha = GgufFile(tmp_path / "a.gguf").value("adapter.lora.alpha")
        assert alpha / 2 == pytest.approx(8 / 2**0.5)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"use_dora": True}, "with DoRA"),
            ({"peft_type": "IA3"}, "of kind IA3"),
            ({"extra": {"base_model.model.lm_head.weight": (4, 4)}}, "1 other tensors"),
            ({"extra": {"base_model.model.x.lora_A.weight": (2, 4)}}, r"x\.lora_B\.weight"),
            ({"base_model_name_or_path": "meta/secret"}, "give it with --base DIR"),
        ],
    )
    def test_other_adapters_are_clear_errors(
        self, tmp_path: Path, base: Path, changes: dict, message: str
    ) -> None:
        folder = self.write(tmp_path / "odd", base, **changes)
        with pytest.raises(KidRailsError, match=message):
            convert_adapter(folder, None, tmp_path / "a.gguf")
        assert not (tmp_path / "a.gguf").exists()

    def test_a_matrix_that_no_llama_has_is_an_error(self, tmp_path: Path, base: Path) -> None:
        extra = {
            "base_model.model.model.layers.0.mlp.router.lora_A.weight": (2, 4),
            "base_model.model.model.layers.0.mlp.router.lora_B.weight": (4, 2),
        }
        folder = self.write(tmp_path / "odd", base, extra=extra)
        with pytest.raises(EngineError, match=r"mlp\.router is no matrix of a Llama"):
            convert_adapter(folder, None, tmp_path / "a.gguf")
        assert not (tmp_path / "a.gguf").exists()
