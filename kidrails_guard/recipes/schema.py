"""The `Recipe`: what is trained, on what, how, and where it fits. Frozen, typed, without I/O."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
Line = Annotated[str, Field(min_length=3, max_length=120)]


class Part(BaseModel):
    """Base of every part of a recipe: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(StrEnum):
    """Which parameters are trained."""

    SPECTRUM = "spectrum"
    """Those of a selection; the rest of the model stays bit for bit."""
    LORA = "lora"
    """Low-rank adapters beside the linear layers."""
    QLORA = "qlora"
    """The same beside a base in four bits."""
    FULL = "full"
    """All."""


class Stage(StrEnum):
    """What is learnt from."""

    SFT = "sft"
    """Conversations: the assistant's turns are imitated."""
    DPO = "dpo"
    """Pairs: the chosen reply is preferred to the rejected one."""


class Precision(StrEnum):
    """In which numbers the weights are held and trained."""

    BF16 = "bf16"
    FP32 = "fp32"


class Strategy(StrEnum):
    """How the work is spread."""

    SINGLE = "single"
    FSDP2 = "fsdp2"
    ZERO3 = "zero3"
    RAY = "ray"


class Chat(Part):
    """How a conversation becomes text.

    Attributes:
        template: axolotl's name of a chat template, or ``tokenizer_default``.
        eos_token: ends the assistant's turn; None keeps the tokenizer's.
        pad_token: fills a batch; None keeps the tokenizer's.
    """

    template: str
    eos_token: str | None = None
    pad_token: str | None = None


class Data(Part):
    """Where the rows are.

    Attributes:
        train: a JSONL file, relative to where training is started.
        held_out: a JSONL file that is never trained on, or a share (0 to 0.5) of ``train``.
        held_out_part: use one in so many of the held-out rows, drawn with the seed: a CPU takes
            minutes for all.
        made_by: the command that writes them.
    """

    train: str
    held_out: str | Annotated[float, Field(ge=0, le=0.5)]
    held_out_part: Annotated[int, Field(ge=1, le=1000)] = 1
    made_by: str = "kidrails data build"


class Lora(Part):
    """The adapters' size.

    Source: Hu et al., *LoRA*, arXiv 2106.09685; Dettmers et al., *QLoRA*, arXiv 2305.14314.
    """

    rank: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[int, Field(ge=1, le=1024)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Dpo(Part):
    """Direct preference optimisation.

    Source: Rafailov et al., arXiv 2305.18290.
    """

    beta: Annotated[float, Field(gt=0, le=1)] = 0.1


class Training(Part):
    """How the steps are taken.

    Attributes:
        epochs: passes over the data.
        max_steps: stop earlier; None runs all epochs.
        micro_batch: rows (or packed sequences) a device handles at once.
        accumulation: micro batches a step.
        learning_rate: the highest.
        warmup_ratio: share of the steps in which it rises.
        weight_decay: decoupled.
        max_grad_norm: gradients are clipped to it.
        optimizer: axolotl's or transformers' name.
        scheduler: shape of the learning rate.
        precision: of weights and arithmetic.
        attention: transformers' name of the attention kernel.
        packing: several rows in one sequence, without seeing each other.
        checkpointing: recompute activations instead of keeping them.
        save_every: steps between checkpoints, and between evaluations on the held-out rows.
        seed: of shuffling and dropout.
    """

    epochs: Annotated[float, Field(gt=0, le=100)] = 3
    max_steps: Annotated[int, Field(ge=1)] | None = None
    micro_batch: Annotated[int, Field(ge=1)] = 2
    accumulation: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0, lt=0.1)]
    warmup_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    optimizer: str = "adamw_torch_fused"
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    precision: Precision = Precision.BF16
    attention: str = "flash_attention_2"
    packing: bool = True
    checkpointing: bool = True
    save_every: Annotated[int, Field(ge=1)] = 200
    seed: int = 42


class Hardware(Part):
    """What it runs on.

    Attributes:
        needs: in words, for the header, such as ``one GPU with 80 GB``.
        gpus: on each machine; 0 is a CPU.
        machines: how many.
        strategy: how the work is spread over them.
    """

    needs: Line
    gpus: Annotated[int, Field(ge=0, le=64)] = 1
    machines: Annotated[int, Field(ge=1, le=1024)] = 1
    strategy: Strategy = Strategy.SINGLE

    @property
    def devices(self) -> int:
        """Devices over all machines, at least one (the CPU)."""
        return max(1, self.gpus) * self.machines


class Recipe(Part):
    """One way to train one model.

    Attributes:
        name: file name of the rendered recipe, without its ending.
        title: what it is, in one line.
        about: whom it is for and what to expect.
        base_model: Hub id or folder.
        architecture: the well-known model whose shapes the base has, where that is a folder.
        stage: what is learnt from.
        method: which parameters are trained.
        selection: for Spectrum: a file, or one below ``recipes/``.
        chat: how a conversation becomes text.
        data: where the rows are.
        sequence_len: tokens a sequence; longer rows are dropped by axolotl, and refused by us.
        training: how the steps are taken.
        lora: the adapters' size, for LoRA and QLoRA.
        dpo: for preference pairs.
        hardware: what it runs on.
        output: folder of the trained model.
    """

    name: Name
    title: Line
    about: Annotated[str, Field(min_length=20)]
    base_model: str
    architecture: str | None = None
    stage: Stage = Stage.SFT
    method: Method
    selection: str | None = None
    chat: Chat
    data: Data
    sequence_len: Annotated[int, Field(ge=32, le=131072)]
    training: Training
    lora: Lora | None = None
    dpo: Dpo | None = None
    hardware: Hardware
    output: str

    @model_validator(mode="after")
    def _parts_belong_together(self) -> Self:
        if (self.selection is not None) != (self.method is Method.SPECTRUM):
            raise ValueError("selection is for method spectrum, and needed there")
        if (self.lora is not None) != (self.method in {Method.LORA, Method.QLORA}):
            raise ValueError("lora is for the methods lora and qlora, and needed there")
        if (self.dpo is not None) != (self.stage is Stage.DPO):
            raise ValueError("dpo is for stage dpo, and needed there")
        if self.stage is Stage.DPO and self.training.packing:
            raise ValueError("training.packing: preference pairs cannot be packed; set false")
        if self.hardware.devices == 1 and self.hardware.strategy is not Strategy.SINGLE:
            raise ValueError(f"hardware.strategy {self.hardware.strategy} needs several GPUs")
        if self.hardware.devices > 1 and self.hardware.strategy is Strategy.SINGLE:
            raise ValueError("hardware.strategy: say how several GPUs share the work")
        if self.hardware.gpus == 0 and self.training.precision is not Precision.FP32:
            raise ValueError("training.precision: a CPU trains in fp32")
        return self

    @property
    def batch(self) -> int:
        """Rows (or packed sequences) a step, over all devices."""
        return self.training.micro_batch * self.training.accumulation * self.hardware.devices
