"""A Llama checkpoint in safetensors → one GGUF file for the embedded engine."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kidrails_guard.engine.checkpoint import Checkpoint
from kidrails_guard.engine.gguf_file import LlamaShape, import_gguf
from kidrails_guard.engine.layout import rotated_heads, to_gguf_name, to_neighbours
from kidrails_guard.engine.vocabulary import Vocabulary, read_vocabulary
from kidrails_guard.errors import EngineError, UsageError

if TYPE_CHECKING:
    from kidrails_guard.engine.layout import Array

#: Accepted types of weights, with GGUF's number of the file type.
WEIGHT_TYPES: Final = {"f32": 0, "f16": 1, "q8_0": 7, "q4_1": 3}
DEFAULT_TYPE: Final = "q8_0"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """One tensor to write: its name in both formats, its shape and its type in the file."""

    source: str
    name: str
    shape: tuple[int, ...]
    kind: str


def convert_checkpoint(
    folder: Path,
    target: Path,
    *,
    weight_type: str = DEFAULT_TYPE,
    name: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a Llama checkpoint as GGUF; the file appears whole or not at all.

    Args:
        folder: ``config.json``, ``tokenizer.json``, ``tokenizer_config.json``, safetensors.
        target: the GGUF file to write.
        weight_type: one of ``WEIGHT_TYPES``; norms stay float32.
        name: the model's name in the metadata; the folder's name by default.
        progress: called with (tensors done, tensors in all).

    Returns:
        Counts: tensors, parameters, bytes and the type.

    Raises:
        EngineError: the checkpoint is damaged, or no Llama that llama.cpp would understand.
        UsageError: no such type of weights.
    """
    if weight_type not in WEIGHT_TYPES:
        raise UsageError(f"weight type {weight_type!r} is not one of {', '.join(WEIGHT_TYPES)}")
    checkpoint = Checkpoint(folder)
    shape = llama_shape(checkpoint)
    vocabulary = checkpoint_vocabulary(checkpoint, size=shape.vocabulary)
    plans = list(_plan_tensors(checkpoint, weight_type=weight_type))
    frequencies = rope_factors(checkpoint.config, shape, where=str(folder / "config.json"))
    gguf = import_gguf()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as work:
        part = Path(work) / "part.gguf"
        writer = gguf.GGUFWriter(part, "llama")
        try:
            _write_metadata(writer, shape, weight_type=weight_type, name=name or folder.name)
            _write_rope(writer, checkpoint.config)
            _write_vocabulary(writer, vocabulary)
            if frequencies is not None:
                _announce(writer, Plan("", "rope_freqs.weight", frequencies.shape, "f32"))
            for plan in plans:
                _announce(writer, plan)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            if frequencies is not None:
                writer.write_tensor_data(frequencies)
            for done, plan in enumerate(plans, start=1):
                values = checkpoint.tensor(plan.source)
                heads = rotated_heads(plan.name, heads=shape.heads, kv_heads=shape.kv_heads)
                writer.write_tensor_data(
                    encode(to_neighbours(values, heads=heads) if heads else values, plan.kind)
                )
                if progress is not None:
                    progress(done, len(plans))
        finally:
            writer.close()
        part.replace(target)
    return {
        "file": str(target),
        "weight_type": weight_type,
        "tensors": len(plans),
        "parameters": sum(math.prod(plan.shape) for plan in plans),
        "bytes": target.stat().st_size,
    }


def encode(values: Array, kind: str) -> Array:
    """Return float32 values in one of ``WEIGHT_TYPES``, quantised along the last axis."""
    gguf = import_gguf()
    encoded: Array = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind.upper()])
    return np.ascontiguousarray(encoded)


def llama_shape(checkpoint: Checkpoint) -> LlamaShape:
    """Return a checkpoint's sizes.

    Raises:
        EngineError: it is not a Llama, or a size is missing.
    """
    config, where = checkpoint.config, checkpoint.folder / "config.json"
    found = (config.get("architectures") or [config.get("model_type")])[0]
    if found not in {"LlamaForCausalLM", "llama"} or config.get("hidden_act", "silu") != "silu":
        raise EngineError(
            f"{where}: architecture {found!r} with activation {config.get('hidden_act')!r}; the "
            "embedded engine converts LlamaForCausalLM with silu only; serve this folder with "
            "--backend vllm"
        )
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        rope = config.get("rope_parameters") or {}
        return LlamaShape(
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            feed_forward=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or hidden // heads),
            context=int(config["max_position_embeddings"]),
            rope_theta=float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0),
            norm_eps=float(config["rms_norm_eps"]),
            vocabulary=int(checkpoint.index["model.embed_tokens.weight"].shape[0]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EngineError(
            f"{where}: {error} is missing or no number; save the model again"
        ) from None


def checkpoint_vocabulary(checkpoint: Checkpoint, *, size: int) -> Vocabulary:
    """Return a checkpoint's vocabulary, from ``tokenizer.json`` and what lies beside it."""
    path = checkpoint.folder / "tokenizer.json"
    tokenizer = checkpoint.optional_json("tokenizer.json")
    if not tokenizer:
        raise EngineError(
            f"{path} is missing; save the tokenizer into the folder, or use --backend vllm"
        )
    config = checkpoint.optional_json("tokenizer_config.json")
    template = checkpoint.folder / "chat_template.jinja"
    if template.is_file():  # newer transformers keep it in a file of its own
        config = {**config, "chat_template": template.read_text("utf-8")}
    return read_vocabulary(tokenizer, config, size=size, where=str(path))


def rope_factors(config: dict[str, Any], shape: LlamaShape, *, where: str) -> Array | None:
    """Return what Llama 3.1 divides its rotary frequencies by, or None where nothing is scaled.

    Args:
        config: the content of ``config.json``.
        shape: the model's sizes.
        where: the file, for errors.

    Returns:
        float32 of shape (head size / 2).

    Raises:
        EngineError: another way of scaling.

    Source: https://github.com/ggml-org/llama.cpp, ``convert_hf_to_gguf.py``, ``rope_freqs``.
    """
    rope = rope_settings(config)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind in {"default", "linear"}:
        return None
    if kind != "llama3":
        raise EngineError(
            f"{where}: rope type {kind!r}; accepted are default, linear and llama3; serve this "
            "folder with --backend vllm"
        )
    factor, old = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope.get("low_freq_factor", 1.0)), float(rope.get("high_freq_factor", 4.0))
    steps = np.arange(0, shape.head_size, 2, dtype=np.float64) / shape.head_size
    length = 2 * math.pi * shape.rope_theta**steps
    smooth = np.clip((old / length - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - smooth) / factor + smooth)).astype(np.float32)


def rope_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the rotary settings under their old name or their new one."""
    return config.get("rope_scaling") or config.get("rope_parameters") or {}


def _plan_tensors(checkpoint: Checkpoint, *, weight_type: str) -> Iterator[Plan]:
    tied = bool(checkpoint.config.get("tie_word_embeddings"))
    for info in checkpoint.index.tensors:
        source, name = info.name, to_gguf_name(info.name)
        if name is None:
            if source.endswith("rotary_emb.inv_freq"):  # old checkpoints store what is computed
                continue
            raise EngineError(
                f"{info.file}: tensor {source} has no place in a Llama GGUF; serve this folder "
                "with --backend vllm (a LoRA adapter: merge it first)"
            )
        if name == "output.weight" and tied:
            continue
        yield Plan(source, name, info.shape, _kind(name, info.shape, weight_type))


def _kind(name: str, shape: tuple[int, ...], weight_type: str) -> str:
    """Return the type of one tensor: norms stay float32, rows that no block fits float16."""
    if len(shape) == 1:
        return "f32"
    if weight_type.startswith("q"):
        if shape[-1] % 32:
            return "f16"
        # The embedding is the head as well in small models; four bits there cost the most.
        return "q8_0" if name in {"token_embd.weight", "output.weight"} else weight_type
    return weight_type


def _announce(writer: Any, plan: Plan) -> None:
    gguf = import_gguf()
    kind = gguf.GGMLQuantizationType[plan.kind.upper()]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    nbytes = math.prod(plan.shape) // block * size
    writer.add_tensor_info(plan.name, plan.shape, np.dtype("f4"), nbytes, raw_dtype=kind)


def _write_metadata(writer: Any, shape: LlamaShape, *, weight_type: str, name: str) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(WEIGHT_TYPES[weight_type])
    writer.add_quantization_version(2)


def _write_rope(writer: Any, config: dict[str, Any]) -> None:
    gguf, rope = import_gguf(), rope_settings(config)
    if (rope.get("rope_type") or rope.get("type")) == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))


def _write_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.kinds))
    writer.add_token_merges(list(vocabulary.merges))
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(vocabulary.add_bos)
    for add, index in (
        (writer.add_bos_token_id, vocabulary.bos),
        (writer.add_eos_token_id, vocabulary.eos),
        (writer.add_unk_token_id, vocabulary.unk),
        (writer.add_pad_token_id, vocabulary.pad),
    ):
        if index is not None:
            add(index)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
