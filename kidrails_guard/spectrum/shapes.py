"""Names and shapes of Llama-like models, worked out from their config: no checkpoint needed.

For parameter counts and memory estimates before anything is downloaded, and for benchmarks at the
exact shapes of a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.checkpoint import ModelIndex, TensorInfo, name_order, read_index
from kidrails_guard.spectrum.hub_cache import cached_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaShape:
    """The sizes that decide every tensor's shape in a Llama-like model.

    Attributes:
        layers: number of decoder layers.
        hidden: width of the residual stream.
        intermediate: width of the MLP.
        heads: query heads.
        kv_heads: key and value heads.
        vocab: rows of the embedding.
        head_dim: width of a head; hidden / heads where 0.
        tied: whether the head shares the embedding's weights.
        qkv_bias: biases on the three projections (Qwen2).
        qk_norm: norms on queries and keys (Qwen3).
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    head_dim: int = 0
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False


LLAMA_3_8B: Final = LlamaShape(
    layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, vocab=128256
)
LLAMA_3_70B: Final = LlamaShape(
    layers=80, hidden=8192, intermediate=28672, heads=64, kv_heads=8, vocab=128256
)
LLAMA_32_1B: Final = LlamaShape(
    layers=16, hidden=2048, intermediate=8192, heads=32, kv_heads=8, vocab=128256, tied=True
)
LLAMA_32_3B: Final = LlamaShape(
    layers=28, hidden=3072, intermediate=8192, heads=24, kv_heads=8, vocab=128256, tied=True
)
SMOLLM_135M: Final = LlamaShape(
    layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, vocab=49152, tied=True
)

KNOWN_MODELS: Final[dict[str, LlamaShape]] = {
    "meta-llama/Meta-Llama-3-8B": LLAMA_3_8B,
    "meta-llama/Meta-Llama-3-8B-Instruct": LLAMA_3_8B,
    "meta-llama/Meta-Llama-3.1-8B": LLAMA_3_8B,
    "meta-llama/Meta-Llama-3.1-8B-Instruct": LLAMA_3_8B,
    "meta-llama/Llama-3.1-8B": LLAMA_3_8B,
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA_3_8B,
    "meta-llama/Llama-3.1-70B": LLAMA_3_70B,
    "meta-llama/Llama-3.1-70B-Instruct": LLAMA_3_70B,
    "meta-llama/Llama-3.2-1B": LLAMA_32_1B,
    "meta-llama/Llama-3.2-1B-Instruct": LLAMA_32_1B,
    "meta-llama/Llama-3.2-3B": LLAMA_32_3B,
    "meta-llama/Llama-3.2-3B-Instruct": LLAMA_32_3B,
    "HuggingFaceTB/SmolLM-135M": SMOLLM_135M,
    "HuggingFaceTB/SmolLM2-135M": SMOLLM_135M,
    "HuggingFaceTB/SmolLM2-135M-Instruct": SMOLLM_135M,
}
"""Sizes from each model's published ``config.json``; extend it with one line."""

_FAMILIES: Final = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def index_from_shape(model: str, shape: LlamaShape, *, dtype: str = "BF16") -> ModelIndex:
    """Return the tensors that a model of that shape has (no files, no fingerprint)."""
    head_dim = shape.head_dim or shape.hidden // shape.heads
    queries, keys = shape.heads * head_dim, shape.kv_heads * head_dim
    hidden, wide = shape.hidden, shape.intermediate
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "mlp.down_proj.weight": (hidden, wide),
        "mlp.gate_proj.weight": (wide, hidden),
        "mlp.up_proj.weight": (wide, hidden),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
    }
    if shape.qkv_bias:
        for name, side in (("q", queries), ("k", keys), ("v", keys)):
            layer[f"self_attn.{name}_proj.bias"] = (side,)
    if shape.qk_norm:
        layer["self_attn.q_norm.weight"] = layer["self_attn.k_norm.weight"] = (head_dim,)
    sides: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocab, hidden),
        "model.norm.weight": (hidden,),
    }
    if not shape.tied:
        sides["lm_head.weight"] = (shape.vocab, hidden)
    for number in range(shape.layers):
        sides.update({f"model.layers.{number}.{name}": side for name, side in layer.items()})
    return ModelIndex(
        model,
        tuple(TensorInfo(name, dtype, sides[name]) for name in sorted(sides, key=name_order)),
    )


def index_from_config(model: str, config: Mapping[str, Any]) -> ModelIndex:
    """Return the tensors that a ``config.json`` describes.

    Args:
        model: the model's name, for messages.
        config: the parsed file; families llama, mistral, qwen2 and qwen3.

    Raises:
        ScanError: another family, or a size is missing.
    """
    family = config.get("model_type")
    if family not in _FAMILIES:
        raise ScanError(
            f"{model}: model_type {family!r} in config.json is not one of "
            f"{', '.join(sorted(_FAMILIES))}; its shapes are read from the safetensors files only"
        )
    try:
        shape = LlamaShape(
            layers=int(config["num_hidden_layers"]),
            hidden=int(config["hidden_size"]),
            intermediate=int(config["intermediate_size"]),
            heads=int(config["num_attention_heads"]),
            kv_heads=int(config.get("num_key_value_heads") or config["num_attention_heads"]),
            vocab=int(config["vocab_size"]),
            head_dim=int(config.get("head_dim") or 0),
            tied=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=family == "qwen2" or bool(config.get("attention_bias", False)),
            qk_norm=family == "qwen3",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ScanError(f"{model}: config.json lacks a size or has a bad one: {error}") from None
    return index_from_shape(model, shape)


def model_index(model: str | Path) -> ModelIndex:
    """Return a model's tensors from the nearest source that has them, without downloading.

    A local checkpoint's headers, else a local ``config.json``, else the sizes of a well-known
    model, else what the Hub's cache holds of it.

    Raises:
        ScanError: none of these is at hand.
    """
    folder = Path(model)
    if folder.is_dir():
        if any(folder.glob("*.safetensors")) or not (folder / "config.json").is_file():
            return read_index(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise ScanError(f"{folder / 'config.json'} is not JSON: {error}") from None
        if not isinstance(config, dict):
            raise ScanError(
                f"{folder / 'config.json'} holds a {type(config).__name__}, not an object"
            )
        return index_from_config(folder.resolve().name, config)
    if folder.is_file():
        return read_index(folder)
    shape = KNOWN_MODELS.get(str(model))
    if shape is None:
        cached = cached_index(str(model))
        if cached is not None:
            return cached
        raise ScanError(
            f"the shapes of {str(model)!r} are not known, and the Hub's cache has no files of it; "
            "give a folder with its config.json or safetensors files, or one of: "
            f"{', '.join(sorted(KNOWN_MODELS))}"
        )
    return index_from_shape(str(model), shape)


def cached_index(model: str, *, revision: str | None = None) -> ModelIndex | None:
    """Return the tensors of a model in the Hub's cache; None where it does not tell them.

    Args:
        model: an id on the Hub.
        revision: branch, tag or commit; the main branch where None.
    """
    folder = cached_folder(model, revision=revision)
    if folder is None:
        return None
    try:
        return replace(read_index(folder), model=model)
    except ScanError:  # of a part, such as tokenizer and config, the config may still tell
        pass
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return index_from_config(model, config) if isinstance(config, dict) else None
    except (OSError, ValueError, ScanError):
        return None
