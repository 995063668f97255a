"""Estimates what training takes on a GPU: full, Spectrum, LoRA and QLoRA.

A sum of what must be there: weights, gradients, optimiser states, kept activations, logits. It is
an estimate: kernels' work space and fragmentation vary, and a measurement on the machine at hand
decides. Assumed is what the recipes set: bf16 weights, gradients and AdamW states, gradient
checkpointing (one layer's inputs kept, one layer recomputed), flash attention (no score matrix).

Source: Hu et al., arXiv 2106.09685 (LoRA); Dettmers et al., arXiv 2305.14314 (NF4: 4 bits and 0.127
bits of constants a weight); Chen et al., arXiv 1604.06174 (gradient checkpointing).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.checkpoint import ModelIndex

GB: Final = 1e9
_NF4_BYTES: Final = (4 + 0.127) / 8
#: CUDA's context, cuBLAS work space and the allocator's slack.
_OVERHEAD: Final = 1.5 * GB
_OPTIMIZER_BYTES: Final[dict[str, float]] = {
    "adamw_torch_fused": 4.0,  # two states in bf16, the weights' own type
    "adamw_bnb_8bit": 2.0,
    "adamw_fp32": 12.0,  # fp32 master weights and two fp32 states (mixed precision in FSDP2)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """What a memory estimate depends on besides the model.

    Attributes:
        tokens: sequence length × micro batch size.
        optimizer: one of ``adamw_torch_fused``, ``adamw_bnb_8bit``, ``adamw_fp32``.
        gpus: over how many GPUs weights, gradients and states are sharded.
        lora_rank: rank of the adapters on every linear layer.
    """

    tokens: int = 2048
    optimizer: str = "adamw_torch_fused"
    gpus: int = 1
    lora_rank: int = 16

    def __post_init__(self) -> None:
        if self.optimizer not in _OPTIMIZER_BYTES:
            raise ScanError(
                f"optimizer {self.optimizer!r} is not one of {', '.join(_OPTIMIZER_BYTES)}"
            )
        for name in ("tokens", "gpus", "lora_rank"):
            if getattr(self, name) < 1:
                raise ScanError(f"{name} {getattr(self, name)!r} is not 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes on each GPU.

    Attributes:
        trainable: parameters that are trained.
        weights: of the model, adapters included.
        gradients: of the trainable parameters.
        states: of the optimiser.
        activations: kept and recomputed ones, and the logits.
        overhead: CUDA's own.
    """

    trainable: int
    weights: float
    gradients: float
    states: float
    activations: float
    overhead: float = _OVERHEAD

    @property
    def total(self) -> float:
        """All of it, in bytes."""
        return self.weights + self.gradients + self.states + self.activations + self.overhead

    def to_json(self) -> dict[str, Any]:
        """Return plain values, bytes rounded, with the total."""
        plain = {key: round(value) for key, value in asdict(self).items()}
        return plain | {"total": round(self.total)}


def estimate_tuning(
    index: ModelIndex, trainable: int, setup: TrainingSetup | None = None
) -> MemoryEstimate:
    """Estimate training a part of the weights themselves: all of them, or a selection.

    Args:
        index: the model's tensors.
        trainable: how many parameters are trained.
        setup: sequence, optimiser and sharding.
    """
    setup = setup or TrainingSetup()
    return MemoryEstimate(
        trainable=trainable,
        weights=2 * index.total_parameters / setup.gpus,
        gradients=2 * trainable / setup.gpus,
        states=_OPTIMIZER_BYTES[setup.optimizer] * trainable / setup.gpus,
        activations=_activations(index, setup),
    )


def estimate_lora(
    index: ModelIndex, setup: TrainingSetup | None = None, *, quantised: bool = False
) -> MemoryEstimate:
    """Estimate LoRA on every linear layer, or QLoRA (those layers in NF4).

    Args:
        index: the model's tensors.
        setup: sequence, optimiser, sharding and rank.
        quantised: whether the base's linear layers are in NF4.
    """
    setup = setup or TrainingSetup()
    linear = [t for t in index.tensors if len(t.shape) == 2 and ".layers." in f".{t.name}"]
    adapter = sum(setup.lora_rank * sum(tensor.shape) for tensor in linear)
    packed = sum(tensor.size for tensor in linear) if quantised else 0
    weights = _NF4_BYTES * packed + 2 * (index.total_parameters - packed)
    # Adapters are kept, and their states with them, in fp32 (peft's default for a bf16 base).
    states = 8 if setup.optimizer != "adamw_bnb_8bit" else 2
    return MemoryEstimate(
        trainable=adapter,
        weights=(weights + 4 * adapter) / setup.gpus,
        gradients=4 * adapter / setup.gpus,
        states=states * adapter / setup.gpus,
        activations=_activations(index, setup),
    )


def _activations(index: ModelIndex, setup: TrainingSetup) -> float:
    embedding = next((t for t in index.tensors if t.name.endswith("embed_tokens.weight")), None)
    if embedding is None:
        raise ScanError(f"{index.model} has no embed_tokens.weight; its memory cannot be estimated")
    vocab, hidden = embedding.shape
    # Beside the embedding: a model for pictures keeps its text model one level down.
    stack = embedding.name.removesuffix("embed_tokens.weight") + "layers."
    inside_stack = [t for t in index.tensors if t.name.startswith(stack)]
    layers = {t.name.removeprefix(stack).split(".")[0] for t in inside_stack}
    first = [t for t in inside_stack if t.name.startswith(f"{stack}0.") and len(t.shape) == 2]
    # One layer, recomputed: the output of each linear layer, the same again for the products and
    # residuals between them, and the two norms' inputs in fp32.
    inside = 2 * 2 * sum(t.shape[0] for t in first) + 2 * 4 * hidden
    kept = len(layers) * 2 * hidden
    logits = vocab * (2 + 4 + 4)  # bf16, their fp32 copy, its gradient
    return float(setup.tokens * (kept + inside + logits))
