"""LoRA adapters as GGUF: from a trained adapter, or from what a training changed.

An adapter adds ``B · A`` to a matrix while the model runs. A full or Spectrum training changes
whole matrices; the best approximation of each change by such a product of rank r is its truncated
singular value decomposition (Eckart and Young), so a tuned model can travel as a small file beside
the base model that everybody has already.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kidrails_guard.engine.checkpoint import Checkpoint, Weights, read_json
from kidrails_guard.engine.gguf_file import LlamaShape, import_gguf
from kidrails_guard.engine.layout import rotated_heads, to_gguf_name, to_neighbours
from kidrails_guard.engine.to_gguf import encode, llama_shape
from kidrails_guard.errors import EngineError, UsageError

if TYPE_CHECKING:
    from kidrails_guard.engine.layout import Array

Progress = Callable[[int, int], None]

_PREFIX: Final = "base_model.model."


@dataclass(frozen=True, slots=True)
class Factors:
    """What an adapter adds to one matrix.

    Attributes:
        down: A, of shape (rank, inputs).
        up: B, of shape (outputs, rank).
    """

    down: Array
    up: Array


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds a LoRA adapter as peft saves it."""
    return (folder / "adapter_config.json").is_file()


def convert_adapter(folder: Path, base: Path | None, target: Path) -> dict[str, Any]:
    """Write a LoRA adapter that peft or axolotl trained as GGUF.

    Args:
        folder: ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: the folder of the model that it was trained on; the one that the adapter's
            configuration names by default.
        target: the GGUF file to write.

    Returns:
        Counts: matrices, rank and bytes.

    Raises:
        EngineError: the adapter is damaged or of a kind that llama.cpp does not know.
        UsageError: the base model is not a folder here.
    """
    config = read_json(folder / "adapter_config.json")
    base = base or Path(str(config.get("base_model_name_or_path") or "."))
    if not (base / "config.json").is_file():
        raise UsageError(
            f"{folder / 'adapter_config.json'} names the base model {str(base)!r}, which is no "
            "folder with config.json here; give it with --base DIR"
        )
    kind = str(config.get("peft_type"))
    if kind.upper() != "LORA" or config.get("use_dora"):
        raise EngineError(
            f"{folder}: an adapter of kind {kind}{' with DoRA' if config.get('use_dora') else ''}; "
            "only plain LoRA can be written; merge it into the model (axolotl merge-lora)"
        )
    weights = _adapter_weights(folder)
    factors = {}
    for stem in sorted({name.rsplit(".lora_", 1)[0] for name in weights if ".lora_" in name}):
        try:
            down, up = weights[f"{stem}.lora_A.weight"], weights[f"{stem}.lora_B.weight"]
        except KeyError as error:
            raise EngineError(
                f"{folder}: {error} is missing; only adapters on linear layers can be written"
            ) from None
        factors[stem.removeprefix(_PREFIX)] = Factors(down, up)
    left_out = [name for name in weights if ".lora_" not in name]
    if left_out or not factors:
        raise EngineError(
            f"{folder}: {len(factors)} matrices with LoRA and {len(left_out)} other tensors "
            f"({', '.join(left_out[:2])}); whole modules cannot travel in an adapter; merge it "
            "into the model (axolotl merge-lora)"
        )
    rank = int(config["r"])
    # llama.cpp multiplies by alpha / rank; rank-stabilised LoRA by alpha / √rank.
    alpha = float(config["lora_alpha"]) * (math.sqrt(rank) if config.get("use_rslora") else 1.0)
    return _write(target, factors, llama_shape(Checkpoint(base)), alpha=alpha, weight_type="f16")


def extract_delta(
    tuned: Path,
    base: Path,
    target: Path,
    *,
    rank: int,
    weight_type: str = "f16",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the difference of two checkpoints as a LoRA adapter.

    Args:
        tuned: the trained model's folder.
        base: the folder of the model that it was trained from.
        target: the GGUF file to write.
        rank: of each change; a higher one keeps more and takes more space.
        weight_type: ``f16``, or ``q8_0`` for about half the size (rank a multiple of 32).
        progress: called with (matrices done, matrices in all).

    Returns:
        Counts, bytes, `kept`: the share of the changes' squared norm that the adapter holds (0 to
        1, over all matrices), and `left_out`: changed tensors that no adapter can hold.

    Raises:
        EngineError: the checkpoints do not fit together, or nothing changed.
        UsageError: a rank or a type that cannot be.
    """
    if rank < 1 or (weight_type == "q8_0" and rank % 32):
        raise UsageError(
            f"--rank {rank} with --type {weight_type}: must be at least 1, and a multiple of 32 "
            "for q8_0"
        )
    if weight_type not in {"f32", "f16", "q8_0"}:
        raise UsageError(f"--type {weight_type}: an adapter is f32, f16 or q8_0")
    new, old = Checkpoint(tuned), Checkpoint(base)
    shape = llama_shape(old)
    factors: dict[str, Factors] = {}
    left_out: list[str] = []
    total = kept = 0.0
    common = [info for info in new.index.tensors if info.name in old.index]
    for done, info in enumerate(common, start=1):
        if info.shape != old.index[info.name].shape:
            raise EngineError(
                f"{info.name} has the shape {info.shape} in {tuned} and "
                f"{old.index[info.name].shape} in {base}: not trained from that model"
            )
        change = new.tensor(info.name) - old.tensor(info.name)
        if change.any():
            squared = float(np.square(change, dtype=np.float64).sum())
            total += squared
            if len(info.shape) == 2 and ".layers." in info.name:
                factors[info.module], held = _truncate(change, rank)
                kept += held
            else:
                left_out.append(info.name)
        if progress is not None:
            progress(done, len(common))
    if not factors:
        raise EngineError(f"{tuned} and {base} have the same matrices: nothing to write")
    record = _write(target, factors, shape, alpha=float(rank), weight_type=weight_type)
    return {**record, "kept": kept / total, "left_out": left_out}


def _truncate(change: Array, rank: int) -> tuple[Factors, float]:
    """Return the best factors of a rank, and the squared norm that they hold."""
    left, values, right = np.linalg.svd(change, full_matrices=False)
    root = np.sqrt(values[:rank])
    # A short matrix has fewer singular values than the rank asks for: fill with zeros.
    pad = max(0, rank - len(values))
    up = np.pad(left[:, :rank] * root, ((0, 0), (0, pad)))
    down = np.pad(root[:, None] * right[:rank], ((0, pad), (0, 0)))
    return Factors(down, up), float(np.square(values[:rank], dtype=np.float64).sum())


def _adapter_weights(folder: Path) -> dict[str, Array]:
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise EngineError(f"{file} is missing; save the adapter as safetensors")
    weights = Weights(file)
    return {name: weights.tensor(name) for name in weights.index.names}


def _write(
    target: Path,
    factors: Mapping[str, Factors],
    shape: LlamaShape,
    *,
    alpha: float,
    weight_type: str,
) -> dict[str, Any]:
    """Write the adapter; the file appears whole or not at all."""
    gguf = import_gguf()
    kind = gguf.GGMLQuantizationType[weight_type.upper()]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as work:
        part = Path(work) / "part.gguf"
        writer = gguf.GGUFWriter(part, "llama")
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        for module, pair in factors.items():
            name = to_gguf_name(f"{module}.weight")
            if name is None:
                raise EngineError(f"{module} is no matrix of a Llama; the adapter is for another")
            heads = rotated_heads(name, heads=shape.heads, kv_heads=shape.kv_heads)
            up = to_neighbours(pair.up, heads=heads) if heads else pair.up
            writer.add_tensor(f"{name}.lora_a", encode(pair.down, weight_type), raw_dtype=kind)
            writer.add_tensor(f"{name}.lora_b", encode(up, weight_type), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        part.replace(target)
    ranks = {pair.down.shape[0] for pair in factors.values()}
    return {
        "file": str(target),
        "matrices": len(factors),
        "rank": max(ranks),
        "weight_type": weight_type,
        "bytes": target.stat().st_size,
    }
