from __future__ import annotations

import json
from pathlib import Path

import pytest

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.checkpoint import read_index
from kidrails_guard.spectrum.shapes import index_from_config, model_index


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        # As published on the models' cards.
        ("meta-llama/Meta-Llama-3.1-8B", 8_030_261_248),
        ("meta-llama/Llama-3.1-70B", 70_553_706_496),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B", 3_212_749_824),
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
    ],
)
def test_known_models_have_their_published_size(model: str, parameters: int) -> None:
    assert model_index(model).total_parameters == parameters


CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


def test_config_gives_the_shapes() -> None:
    index = index_from_config("m", CONFIG)
    assert index["model.layers.1.self_attn.k_proj.weight"].shape == (16, 32)
    assert index["model.layers.0.mlp.down_proj.weight"].shape == (32, 96)
    assert "lm_head.weight" in index
    tied = index_from_config("m", CONFIG | {"tie_word_embeddings": True})
    assert "lm_head.weight" not in tied


def test_families() -> None:
    qwen2 = index_from_config("m", CONFIG | {"model_type": "qwen2"})
    assert qwen2["model.layers.0.self_attn.v_proj.bias"].shape == (16,)
    qwen3 = index_from_config("m", CONFIG | {"model_type": "qwen3", "head_dim": 16})
    assert qwen3["model.layers.0.self_attn.q_norm.weight"].shape == (16,)
    assert qwen3["model.layers.0.self_attn.o_proj.weight"].shape == (32, 64)


def test_bad_configs() -> None:
    with pytest.raises(ScanError, match=r"'mamba'.*not one of"):
        index_from_config("m", CONFIG | {"model_type": "mamba"})
    with pytest.raises(ScanError, match="lacks a size"):
        index_from_config("m", {k: v for k, v in CONFIG.items() if k != "hidden_size"})


def test_nearest_source(tmp_path: Path, write_checkpoint, llama) -> None:
    folder = write_checkpoint(llama())
    assert model_index(folder).names == read_index(folder).names
    config = tmp_path / "config-only"
    config.mkdir()
    (config / "config.json").write_text(json.dumps(CONFIG))
    assert model_index(config).model == "config-only"
    (config / "config.json").write_text("{")
    with pytest.raises(ScanError, match="not JSON"):
        model_index(config)
    with pytest.raises(ScanError, match=r"not known.*SmolLM2-135M"):
        model_index("owner/unheard-of")
