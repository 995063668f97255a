"""How a Llama checkpoint's tensors are named and laid out in GGUF and in safetensors.

llama.cpp rotates pairs of neighbouring rows, Hugging Face's code rotates the two halves of a head,
so the rows of the query and key projections stand in another order in each.

Source: https://github.com/ggml-org/llama.cpp, ``convert_hf_to_gguf.py``, ``LlamaModel.permute``.
"""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_WHOLE: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WHOLE_BACK: Final = {value: key for key, value in _WHOLE.items()}
_BLOCK_BACK: Final = {value: key for key, value in _BLOCK.items()}


def to_hub_name(name: str) -> str | None:
    """Return the safetensors name of a GGUF tensor, or None where a Llama has no such tensor.

    >>> to_hub_name("blk.3.attn_q.weight")
    'model.layers.3.self_attn.q_proj.weight'
    """
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match is None:
        return None
    layer, stem, kind = match.groups()
    if layer is None:
        return f"{_WHOLE[stem]}.{kind}" if stem in _WHOLE else None
    return f"model.layers.{layer}.{_BLOCK[stem]}.{kind}" if stem in _BLOCK else None


def to_gguf_name(name: str) -> str | None:
    """Return the GGUF name of a safetensors tensor, or None where a Llama has no such tensor.

    >>> to_gguf_name("model.layers.3.self_attn.q_proj.weight")
    'blk.3.attn_q.weight'
    """
    stem, _, kind = name.rpartition(".")
    if kind not in {"weight", "bias"}:
        return None
    if stem in _WHOLE_BACK:
        return f"{_WHOLE_BACK[stem]}.{kind}"
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem)
    if match is None or match[2] not in _BLOCK_BACK:
        return None
    return f"blk.{match[1]}.{_BLOCK_BACK[match[2]]}.{kind}"


def rotated_heads(gguf_name: str, *, heads: int, kv_heads: int) -> int:
    """Return the number of heads whose rows are reordered in this tensor, 0 for none."""
    if ".attn_q." in gguf_name:
        return heads
    return kv_heads if ".attn_k." in gguf_name else 0


def to_neighbours(array: Array, *, heads: int) -> Array:
    """Reorder the rows of a query or key projection from halves (safetensors) to pairs (GGUF).

    Args:
        array: weight of shape (heads * head size, inputs), or a bias of shape (heads * head size).
        heads: how many heads the rows are made of.
    """
    half = array.shape[0] // heads // 2
    split = array.reshape(heads, 2, half, *array.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(array.shape))


def to_halves(array: Array, *, heads: int) -> Array:
    """Undo :func:`to_neighbours`: from pairs (GGUF) to halves (safetensors)."""
    half = array.shape[0] // heads // 2
    split = array.reshape(heads, half, 2, *array.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(array.shape))
