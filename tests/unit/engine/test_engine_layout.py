from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidrails_guard.engine.layout import (
    rotated_heads,
    to_gguf_name,
    to_halves,
    to_hub_name,
    to_neighbours,
)

NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj.weight",
    "blk.17.attn_output.bias": "model.layers.17.self_attn.o_proj.bias",
    "blk.2.ffn_down.weight": "model.layers.2.mlp.down_proj.weight",
    "blk.2.ffn_norm.weight": "model.layers.2.post_attention_layernorm.weight",
}


@pytest.mark.parametrize(("gguf", "hub"), NAMES.items())
def test_names_translate_both_ways(gguf: str, hub: str) -> None:
    assert to_hub_name(gguf) == hub
    assert to_gguf_name(hub) == gguf


@pytest.mark.parametrize("name", ["rope_freqs.weight", "blk.0.attn_rot.weight", "blk.x.attn_q", ""])
def test_a_gguf_tensor_that_no_llama_has_has_no_name(name: str) -> None:
    assert to_hub_name(name) is None


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.mlp.experts.weight", "model.layers.0.self_attn.q_proj.lora_A.weight", "x"],
)
def test_a_checkpoint_tensor_that_no_llama_has_has_no_name(name: str) -> None:
    assert to_gguf_name(name) is None


def test_rows_of_a_head_move_from_halves_to_pairs() -> None:
    rows = np.arange(8).reshape(8, 1)  # two heads of four rows
    assert to_neighbours(rows, heads=2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@given(
    heads=st.integers(1, 5),
    half=st.integers(1, 6),
    columns=st.integers(0, 4),
)
def test_reordering_is_undone(heads: int, half: int, columns: int) -> None:
    shape = (heads * half * 2, columns) if columns else (heads * half * 2,)
    array = np.arange(np.prod(shape)).reshape(shape)
    moved = to_neighbours(array, heads=heads)
    assert np.array_equal(to_halves(moved, heads=heads), array)
    assert moved.flags.c_contiguous


def test_only_queries_and_keys_are_reordered() -> None:
    found = {name: rotated_heads(name, heads=9, kv_heads=3) for name in NAMES}
    assert {name: heads for name, heads in found.items() if heads} == {"blk.0.attn_q.weight": 9}
    assert rotated_heads("blk.0.attn_k.weight", heads=9, kv_heads=3) == 3
    assert rotated_heads("blk.0.attn_v.weight", heads=9, kv_heads=3) == 0
