"""GGUF → a folder of safetensors that transformers, axolotl and vLLM load: dequantised."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kidrails_guard import __version__
from kidrails_guard.engine.gguf_file import GgufFile, LlamaShape
from kidrails_guard.engine.layout import rotated_heads, to_halves, to_hub_name
from kidrails_guard.engine.vocabulary import Vocabulary, tokenizer_config, tokenizer_json
from kidrails_guard.errors import EngineError, MissingDependency, UsageError
from kidrails_guard.files import dump_json, sha256_file

if TYPE_CHECKING:
    from kidrails_guard.engine.layout import Array

#: Says what the folder was made from; a second export of the same file has nothing to do.
MANIFEST: Final = "kidrails_export.json"
_FORMAT: Final = 1
_SHARD_BYTES: Final = 1 << 30

Progress = Callable[[int, int], None]


def export_safetensors(
    source: Path, folder: Path, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Write a GGUF file's model as a folder of float32 safetensors with its tokenizer.

    The folder appears whole or not at all.

    Args:
        source: the GGUF file (Llama architecture, byte-level BPE).
        folder: where to write; may exist when an earlier export made it.
        progress: called with (tensors done, tensors in all).

    Returns:
        The manifest: source, its sha256, tensors, parameters, files, and whether it was there
        already.

    Raises:
        EngineError: the file cannot be read or exported.
        UsageError: the folder holds something else.
        MissingDependency: safetensors is not installed.
    """
    model = GgufFile(source)
    digest = sha256_file(source)
    if folder.exists():
        earlier = read_manifest(folder)
        if earlier is None and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(
                f"--export {folder}: it exists and was not made by an export; give a new folder "
                f"or remove it"
            )
        if earlier and (earlier["source_sha256"], earlier["format"]) == (digest, _FORMAT):
            return {**earlier, "reused": True}
    shape, vocabulary = model.shape(), model.vocabulary()
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        parameters, files, tied = _write_tensors(model, shape, work, progress=progress)
        dump_json(work / "config.json", llama_config(shape, vocabulary, tied=tied))
        dump_json(work / "generation_config.json", _generation_config(vocabulary))
        # Long lists on one line each would be a file of 1.5 million lines: no indent.
        dump_json(work / "tokenizer.json", tokenizer_json(vocabulary), indent=None)
        dump_json(
            work / "tokenizer_config.json", tokenizer_config(vocabulary, context=shape.context)
        )
        manifest = {
            "format": _FORMAT,
            "source": source.name,
            "source_sha256": digest,
            "kidrails": __version__,
            "tensors": len(model.tensor_names),
            "parameters": parameters,
            "dtype": "float32",
            "files": files,
        }
        dump_json(work / MANIFEST, manifest)
        work.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        work.replace(folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return {**manifest, "reused": False}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of an earlier export, or None where the folder is not one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and "source_sha256" in manifest else None


def llama_config(shape: LlamaShape, vocabulary: Vocabulary, *, tied: bool) -> dict[str, Any]:
    """Return the content of ``config.json``.

    Args:
        shape: the model's sizes.
        vocabulary: for the ids of the special tokens.
        tied: whether the head shares the embedding's weights.
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_eps,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        "torch_dtype": "float32",
        "use_cache": True,
    }


def _generation_config(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
    }


def _write_tensors(
    model: GgufFile, shape: LlamaShape, folder: Path, *, progress: Progress | None
) -> tuple[int, list[str], bool]:
    """Write the shards and, where there are several, their index; return what was written."""
    try:
        from safetensors.numpy import save_file
    except ImportError:
        raise MissingDependency(
            "safetensors",
            command="pip install 'kidrails-guard[spectrum]'",
            purpose="writing a checkpoint",
        ) from None
    shards: list[list[str]] = []
    pending: dict[str, Array] = {}
    parameters = size = 0

    def flush() -> None:
        nonlocal pending
        if pending:
            part = folder / f"part-{len(shards)}.safetensors"
            save_file(pending, part, {"format": "pt"})
            part.chmod(0o644)  # the library makes it readable by its owner only
            shards.append(list(pending))
            pending = {}

    names = model.tensor_names
    for done, name in enumerate(names, start=1):
        target = to_hub_name(name)
        if target is None:
            raise EngineError(
                f"{model.path}: tensor {name!r} has no place in a plain Llama checkpoint; use the "
                "model's original checkpoint"
            )
        values = model.tensor(name)
        heads = rotated_heads(name, heads=shape.heads, kv_heads=shape.kv_heads)
        pending[target] = to_halves(values, heads=heads) if heads else values
        parameters += values.size
        size += values.nbytes
        if sum(v.nbytes for v in pending.values()) >= _SHARD_BYTES:
            flush()
        if progress is not None:
            progress(done, len(names))
    flush()
    files = ["model.safetensors"]
    if len(shards) > 1:
        files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
        weight_map = {n: file for file, part in zip(files, shards, strict=True) for n in part}
        dump_json(
            folder / "model.safetensors.index.json",
            {"metadata": {"total_size": size}, "weight_map": weight_map},
        )
    for index, file in enumerate(files):
        (folder / f"part-{index}.safetensors").replace(folder / file)
    return parameters, files, "output.weight" not in names
