"""Trains with Unsloth what axolotl would train: the same rows, template and layers.

Unsloth knows no Spectrum: ``full_finetuning=True`` makes every parameter trainable while loading,
so that the mask is set afterwards, checked against the selection, and proved by the first step's
gradients. On a machine without a GPU, Unsloth's own CPU fallback runs the same code.

Imported where Unsloth is; torch and Unsloth are imported when it trains.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from kidrails_guard.content import content_path
from kidrails_guard.errors import KidRailsError, MissingDependency, RecipeError
from kidrails_guard.files import dump_json
from kidrails_guard.recipes.library import selection_path
from kidrails_guard.recipes.masking import IGNORED, Example, label_conversation
from kidrails_guard.recipes.plan import LORA_TARGETS
from kidrails_guard.spectrum.targeting import Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class UnslothJob:
    """What to train, as the rendered script says it.

    Attributes:
        name: the recipe's.
        base_model: Hub id or folder.
        method: ``spectrum``, ``lora``, ``qlora`` or ``full``.
        selection: the layers: a file, or one below ``recipes/``.
        trainable: how many numbers are meant to be trained.
        lora: rank and alpha.
        lora_dropout: share of an adapter's inputs that is left out, 0 to 1.
        template: a chat template below ``recipes/``; None keeps the tokenizer's.
        eos: token that ends a turn; None keeps the tokenizer's.
        pad: token that fills a batch; None keeps the tokenizer's.
        data: JSONL with ``messages``.
        held_out: another such file, or the share of the rows, from the end, that is not trained on.
        held_out_part: use one in so many rows of that other file.
        sequence_len: a longer row stops the run.
        bf16: numbers to train in; fp32 where False.
        epochs: passes over the data.
        max_steps: stop earlier.
        micro_batch: rows at once.
        accumulation: micro batches a step.
        learning_rate: the highest.
        scheduler: its shape.
        warmup_ratio: share of the steps in which it rises.
        weight_decay: decoupled.
        max_grad_norm: gradients are clipped to it.
        optimizer: transformers' name.
        checkpointing: recompute activations.
        save_every: steps between evaluations.
        seed: of shuffling.
        output: folder of the trained model.
    """

    name: str
    base_model: str
    method: str
    selection: str | None
    trainable: int
    lora: tuple[int, int] | None
    lora_dropout: float
    template: str | None
    eos: str | None
    pad: str | None
    data: str
    held_out: str | float
    held_out_part: int
    sequence_len: int
    bf16: bool
    epochs: float
    max_steps: int | None
    micro_batch: int
    accumulation: int
    learning_rate: float
    scheduler: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    optimizer: str
    checkpointing: bool
    save_every: int
    seed: int
    output: str


def main(job: UnslothJob, arguments: Sequence[str] | None = None) -> int:
    """Train a job, with any of its values changed by ``--name value``; return the exit status."""
    parser = argparse.ArgumentParser(description=f"Train {job.name} with Unsloth.")
    for field in fields(job):
        parser.add_argument(f"--{field.name}", help=f"now {getattr(job, field.name)!r}")
    given = vars(parser.parse_args(arguments))
    try:
        changes = {key: _typed(job, key, text) for key, text in given.items() if text is not None}
        record = train(replace(job, **changes))
    except KidRailsError as error:
        print(f"{job.name}: {error}", file=sys.stderr)
        return 2
    print(
        f"trained: {record['steps']} steps, held-out loss {record['held_out_before']:.3f} -> "
        f"{record['held_out_after']:.3f}, {record['trainable']:,} parameters; in {record['output']}"
    )
    return 0


def _typed(job: UnslothJob, key: str, text: str) -> Any:
    old = getattr(job, key)
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        if key in {"max_steps"} or isinstance(old, int):
            return int(text)
        if isinstance(old, float):
            return float(text)
        if key == "lora":
            rank, alpha = (int(part) for part in text.split(","))
            return rank, alpha
    except (KeyError, ValueError):
        raise RecipeError(f"--{key} {text!r}: expected something like {old!r}") from None
    return text


def read_conversations(path: Path) -> list[list[dict[str, str]]]:
    """Return the turns of every row.

    Raises:
        RecipeError: the file is missing or empty, or a row has no turns.
    """
    try:
        # Not splitlines(): it also cuts at U+2028, which JSON leaves as it is.
        lines = path.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line)["messages"] for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{path} cannot be read ({error}); make it with: kidrails data build"
        ) from None
    if not rows:
        raise RecipeError(f"{path} holds no row; make it with: kidrails data build")
    return rows


def split_rows(job: UnslothJob, rows: list[Example]) -> tuple[list[Example], list[Example] | None]:
    """Return the rows to train on and the held-out ones; None where those are in another file."""
    if isinstance(job.held_out, str):
        return rows, None
    count = max(1, round(len(rows) * job.held_out)) if job.held_out else 0
    return rows[: len(rows) - count], rows[len(rows) - count :]


def train(job: UnslothJob) -> dict[str, Any]:
    """Train, prove what is trained, save; return the record that is written beside the model.

    Raises:
        MissingDependency: Unsloth is not installed.
        RecipeError: data or selection do not fit, a row is too long, or the model disagrees with
            the plan.
        KidRailsError: the first step's gradients are zero.
    """
    # Before minutes of loading: what is missing here would end the run after them.
    talks = read_conversations(Path(job.data))
    held_talks: list[list[dict[str, str]]] | None = None
    if isinstance(job.held_out, str):
        held_talks = read_conversations(Path(job.held_out))[:: job.held_out_part]
    try:
        # Unsloth patches transformers and trl, and has to come before them.
        from unsloth import FastLanguageModel  # isort: skip
    except ModuleNotFoundError as error:
        raise MissingDependency(
            str(error.name), command="pip install unsloth", purpose="training with Unsloth"
        ) from None

    import torch
    from transformers import DataCollatorForSeq2Seq
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]

    tuned = job.method in {"spectrum", "full"}
    model, tokenizer = FastLanguageModel.from_pretrained(
        job.base_model,
        max_seq_length=job.sequence_len,
        dtype=torch.bfloat16 if job.bf16 else torch.float32,
        load_in_4bit=job.method == "qlora",
        full_finetuning=tuned,
        use_gradient_checkpointing=job.checkpointing,
        local_files_only=Path(job.base_model).is_dir(),
    )
    if not tuned:
        rank, alpha = job.lora or (16, 32)
        model = FastLanguageModel.get_peft_model(
            model,
            r=rank,
            lora_alpha=alpha,
            lora_dropout=job.lora_dropout,
            target_modules=list(LORA_TARGETS),
            use_gradient_checkpointing=job.checkpointing,
            random_state=job.seed,
        )
    names = set_trainable(model, job)
    _set_tokens(tokenizer, job)
    train_rows, held = split_rows(job, [label(turns, tokenizer, job) for turns in talks])
    if held_talks is not None:
        held = [label(turns, tokenizer, job) for turns in held_talks]
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=_dataset(train_rows),
        eval_dataset=_dataset(held) if held else None,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
        args=SFTConfig(
            output_dir=job.output,
            num_train_epochs=job.epochs,
            max_steps=job.max_steps or -1,
            per_device_train_batch_size=job.micro_batch,
            per_device_eval_batch_size=job.micro_batch,
            gradient_accumulation_steps=job.accumulation,
            learning_rate=job.learning_rate,
            lr_scheduler_type=job.scheduler,
            warmup_steps=job.warmup_ratio,
            weight_decay=job.weight_decay,
            max_grad_norm=job.max_grad_norm,
            optim=job.optimizer if torch.cuda.is_available() else "adamw_torch",
            bf16=job.bf16 and torch.cuda.is_available(),
            max_length=job.sequence_len,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            eval_strategy="steps" if held else "no",
            eval_on_start=bool(held),
            eval_steps=job.save_every,
            save_strategy="no",
            logging_steps=1,
            seed=job.seed,
            report_to=[],
        ),
    )
    trainer.add_callback(_first_step_check(names))
    trainer.train()
    final = trainer.evaluate()["eval_loss"] if held else float("nan")
    model.save_pretrained(job.output)
    tokenizer.save_pretrained(job.output)
    return _record(job, trainer, names=names, final=float(final))


def set_trainable(model: Any, job: UnslothJob) -> dict[str, int]:
    """Freeze all but what the job trains, and return what that is.

    Args:
        model: as Unsloth loaded it.
        job: what to train.

    Returns:
        Sizes of the trainable parameters, by name.

    Raises:
        RecipeError: it is not exactly what was meant.
    """
    if job.method == "spectrum":
        selection = load_layers(job)
        wanted = set(selection.parameters)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in wanted)
        # The first trained layer's input comes from a frozen embedding and carries no gradient.
        model.enable_input_require_grads()
    names = {n: int(p.numel()) for n, p in model.named_parameters() if p.requires_grad}
    if job.method == "spectrum" and set(names) != wanted:
        missing = sorted(wanted - set(names))
        raise RecipeError(
            f"{job.base_model} has no parameter {missing[0]!r} ({len(missing)} of {len(wanted)} "
            "are missing): the selection is for another model"
        )
    if sum(names.values()) != job.trainable:
        raise RecipeError(
            f"{sum(names.values()):,} parameters would be trained, and {job.trainable:,} are "
            "planned; render the script again for this base model"
        )
    return names


def load_layers(job: UnslothJob) -> Selection:
    """Return the job's selection: a file, or one below ``recipes/``.

    Raises:
        ScanError: it cannot be read.
    """
    return Selection.load(selection_path(str(job.selection)))


def label(turns: Sequence[dict[str, str]], tokenizer: Any, job: UnslothJob) -> Example:
    """Return a conversation's tokens and labels.

    Raises:
        RecipeError: it is longer than ``sequence_len``.
        DataError: the template cannot be followed.
    """

    def encode(part: Sequence[Any], header: bool) -> list[int]:
        text = tokenizer.apply_chat_template(
            list(part), tokenize=False, add_generation_prompt=header
        )
        tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    example = label_conversation(turns, encode, eos=int(tokenizer.eos_token_id))
    if len(example.tokens) > job.sequence_len:
        raise RecipeError(
            f"a row has {len(example.tokens)} tokens, more than sequence_len {job.sequence_len}; "
            f"--sequence_len {-(-len(example.tokens) // 64) * 64}"
        )
    return example


def _set_tokens(tokenizer: Any, job: UnslothJob) -> None:
    vocabulary = tokenizer.get_vocab()
    for key, token in (("eos_token", job.eos), ("pad_token", job.pad)):
        if token is None:
            continue
        if token not in vocabulary:
            raise RecipeError(f"{key} {token!r} is not in the vocabulary of {job.base_model}")
        setattr(tokenizer, key, token)
    if job.template is not None:
        tokenizer.chat_template = (content_path("recipes") / job.template).read_text("utf-8")
    if not tokenizer.chat_template:
        raise RecipeError(f"{job.base_model} has no chat template; name one with --template")


def _dataset(rows: Sequence[Example]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [list(row.tokens) for row in rows],
            "attention_mask": [[1] * len(row.tokens) for row in rows],
            "labels": [list(row.labels) for row in rows],
        }
    )


def _first_step_check(names: dict[str, int]) -> Any:
    from transformers import TrainerCallback

    class FirstStep(TrainerCallback):  # type: ignore[misc]
        """Stops the run when the first step would change nothing, or something else."""

        def on_pre_optimizer_step(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            if state.global_step > 0:
                return
            moved = {n: p for n, p in model.named_parameters() if p.grad is not None}
            moved = {n: p for n, p in moved.items() if float(p.grad.norm()) > 0}
            astray = sorted(set(moved) - set(names))
            if astray:
                raise KidRailsError(f"{astray[0]} has a gradient, and was to stay frozen")
            if not moved:
                raise KidRailsError(
                    "the first step's gradient norm is zero: nothing would be learnt. Are all "
                    "labels masked, or is the input cut off from the graph?"
                )

    return FirstStep()


def _record(
    job: UnslothJob, trainer: Any, *, names: dict[str, int], final: float
) -> dict[str, Any]:
    from importlib.metadata import version

    history = trainer.state.log_history
    held = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    record = {
        **asdict(job),
        "tensors": len(names),
        "steps": trainer.state.global_step,
        "train_loss": [[e["step"], e["loss"]] for e in history if "loss" in e],
        "held_out_before": held[0] if held else float("nan"),
        "held_out_after": final,
        "unsloth": version("unsloth"),
    }
    plain = {k: None if isinstance(v, float) and v != v else v for k, v in record.items()}
    dump_json(Path(job.output) / "training.json", plain)
    return record
