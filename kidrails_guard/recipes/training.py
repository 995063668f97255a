"""`kidrails train`: preflight, axolotl, the proof of what changed, the record."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kidrails_guard.errors import KidRailsError, RecipeError
from kidrails_guard.recipes.card import PAGE, TrainingRecord, cpu_name, losses, write_record
from kidrails_guard.recipes.findings import Report
from kidrails_guard.recipes.launch import (
    LOG_FILE,
    Identity,
    Outcome,
    Progress,
    follow,
    hold_output,
    identify,
    is_finished,
    launch_arguments,
    prepare_output,
    read_state,
    tail,
)
from kidrails_guard.recipes.patterns import match_patterns
from kidrails_guard.recipes.preflight import Machine, preflight
from kidrails_guard.recipes.proof import (
    adapter_state,
    base_checkpoint,
    check_changes,
    compare_checkpoints,
    read_checkpoint,
)
from kidrails_guard.recipes.rendered import Rendered
from kidrails_guard.recipes.static_checks import cuda_kernels, trained_method
from kidrails_guard.spectrum.checkpoint import ModelIndex

CPU_VALUES: Mapping[str, Any] = {
    "bf16": False,
    "tf32": False,
    "attn_implementation": "sdpa",
}
"""What a GPU recipe needs changed on a CPU, beside base model and sequence length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train.

    Attributes:
        machine: what it runs on.
        root: where relative paths start.
        python: the interpreter that has axolotl.
        fresh: move an older run aside instead of going on with it.
        accelerate: options for accelerate, such as ``--config_file FILE``; where empty, a recipe
            that is shared by several GPUs takes all of this machine's, any other one takes one.
    """

    machine: Machine
    root: Path
    python: Path
    fresh: bool = False
    accelerate: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trained:
    """How training ended.

    Attributes:
        output: the model's folder.
        record: what the run was.
        complaints: what differs from the plan; empty where all is as meant.
        reused: nothing had to be done.
    """

    output: Path
    record: TrainingRecord
    complaints: tuple[str, ...]
    reused: bool


class TrainingFailed(KidRailsError):
    """The training process ended before its last step."""


def cpu_overrides(config: Mapping[str, Any], *, longest: int = 0) -> dict[str, Any]:
    """Return what has to change so that a recipe for a GPU runs on a CPU.

    Args:
        config: the recipe's keys.
        longest: tokens of the longest row; a shorter sequence saves most of the time. 0 keeps it.
    """
    changes = {key: value for key, value in CPU_VALUES.items() if config.get(key) != value}
    if config.get("flash_attention"):
        changes["flash_attention"] = False
    if "8bit" in str(config.get("optimizer")):
        changes["optimizer"] = "adamw_torch_fused"
    changes |= dict.fromkeys(cuda_kernels(config), False)
    needed = -(-longest // 64) * 64
    if 0 < needed < int(config.get("sequence_len") or 0):
        changes["sequence_len"] = needed
    return changes


def train(
    recipe: Rendered,
    settings: Settings,
    *,
    say: Callable[[Report], None],
    progress: Progress | None = None,
) -> Trained:
    """Train a recipe, with every override already applied.

    Args:
        recipe: what to train.
        settings: how.
        say: called with the preflight report before anything starts.
        progress: called with (step, steps, loss or None).

    Raises:
        RecipeError: preflight found a problem, the output folder holds something else, or the
            recipe is for several machines and ``accelerate`` does not say which one this is.
        TrainingFailed: axolotl ended before the last step.
        ScanError: a checkpoint is damaged.
    """
    root, cpu = settings.root, settings.machine.gpus == 0
    machines = recipe.plan.machines if recipe.plan else 1
    if machines > 1 and not cpu and not settings.accelerate:
        raise RecipeError(
            f"{recipe.path}: is for {machines} machines, and this command alone would train on one "
            'of them; on every machine say which it is: --accelerate "--config_file FILE '
            '--machine_rank N --main_process_ip IP" (the head of the recipe has the file)'
        )
    if cpu:
        recipe = recipe.override(cpu_overrides(recipe.config))
    report = preflight([recipe], machines=[settings.machine], root=root, python=settings.python)[0]
    say(report)
    if not report.ok:
        raise RecipeError(
            f"{recipe.path}: {len(report.problems)} problems, training not started; they are "
            f"above, and again with: kidrails recipe validate {recipe.path}"
        )
    if cpu:
        recipe = recipe.override(cpu_overrides(recipe.config, longest=report.longest))
    identity = identify(recipe, root)
    output = output_folder(recipe.config, root)
    start = prepare_output(output, identity, fresh=settings.fresh)
    # axolotl names its cache by the data's path; by its bytes it cannot be stale.
    flags = dict(recipe.overrides)
    flags["dataset_prepared_path"] = str(_prepared(recipe, identity))
    if start.checkpoint is not None:
        flags["resume_from_checkpoint"] = str(start.checkpoint)
    command = launch_arguments(
        recipe,
        python=settings.python,
        flags=flags,
        accelerate=settings.accelerate or _spread(recipe.config, settings.machine.gpus),
    )
    outcome = Outcome(0, 0.0, 0)
    if not start.done:
        with hold_output(output):
            outcome = follow(
                command,
                root=root,
                log=output / LOG_FILE,
                offline=(root / str(recipe.config["base_model"])).is_dir(),
                progress=progress,
            )
        if outcome.status != 0 or not is_finished(output):
            raise TrainingFailed(
                f"training ended early (exit {outcome.status}); the same command goes on from the "
                f"last checkpoint. All it said is in {output / LOG_FILE}; its end:\n"
                f"{tail(output / LOG_FILE)}"
            )
    record = _conclude(
        recipe, output, settings=settings, identity=identity, outcome=outcome, command=command
    )
    # The page is written last: without it, what came after the training was stopped.
    if not (start.done and (output / PAGE).is_file()):
        begun = int(start.checkpoint.name.rpartition("-")[2]) if start.checkpoint else 0
        write_record(output, replace(record, resumed_at=begun))
    return Trained(output, record, record.complaints, start.done)


def _spread(config: Mapping[str, Any], gpus: int) -> tuple[str, ...]:
    """Return accelerate's options for as many of this machine's GPUs as the recipe is for.

    Without any, accelerate takes all GPUs for every recipe: one that is written for one of them
    would train with so many times its batch.
    """
    if config.get("fsdp_config") or config.get("deepspeed"):
        return ("--num_processes", str(gpus))
    if gpus < 2:
        return ()
    # The number alone is not enough: the one process would still see the others.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    return ("--num_processes", "1", "--gpu_ids", first)


def output_folder(config: Mapping[str, Any], root: Path) -> Path:
    """Return where the model goes: ``output_dir``, or axolotl's own default.

    Raises:
        RecipeError: it is the folder that training is started in, or one above it.
    """
    output = root / str(config.get("output_dir") or "model-out")
    start = root.resolve()
    # --fresh would move all of it aside.
    if output.resolve() in {start, *start.parents}:
        raise RecipeError(
            f"output_dir {config.get('output_dir')!r} holds the folder that training is started "
            f"in, {start}; give a folder of its own: --output DIR"
        )
    return output


def _prepared(recipe: Rendered, identity: Identity) -> Path:
    base = str(recipe.config.get("dataset_prepared_path") or "build/prepared")
    return Path(base) / identity.digest[:12]


def _conclude(
    recipe: Rendered,
    output: Path,
    *,
    settings: Settings,
    identity: Identity,
    outcome: Outcome,
    command: list[str],
) -> TrainingRecord:
    """Prove what changed, and gather the record."""
    config, root = recipe.config, settings.root
    method = trained_method(config)
    revision = config.get("revision_of_model")
    base = base_checkpoint(
        str(config["base_model"]), root=root, revision=str(revision) if revision else None
    )
    planned = recipe.plan.total if recipe.plan else 0
    total, same = base.total_parameters if base else planned, 0
    if method in {"lora", "qlora"}:
        adapter = adapter_state(output)
        changed, trainable, idle = adapter.tensors, adapter.parameters, adapter.idle
        complaints = [f"{len(idle)} adapters were never trained, first {idle[0]}"] if idle else []
    else:
        result = read_checkpoint(output)
        total = result.total_parameters
        meant = _meant(config, base or result)
        trainable = (base or result).count_parameters(meant)
        changed, complaints = len(meant), []
        if base is not None:
            changes = compare_checkpoints(base, result)
            changed, same = len(changes.changed), len(changes.same)
            # Trained as a whole, a norm may round back to where it was.
            whole = changes.changed if method == "full" and changes.changed else meant
            complaints = check_changes(changes, whole)
    state = read_state(output)
    train_loss, held_out = losses(state.get("log_history", ()))
    if not all(value == value and abs(value) != float("inf") for _, value in train_loss):
        complaints.append("the training loss was NaN or infinite")
    gpu = settings.machine.name
    return TrainingRecord(
        recipe=recipe.name,
        base_model=str(config["base_model"]),
        method=method,
        trainable=trainable,
        total=total,
        changed=changed,
        same=same,
        compared=base is not None,
        steps=int(state.get("global_step", 0)),
        train_loss=train_loss,
        held_out_loss=held_out,
        seconds=round(outcome.seconds, 1),
        peak_mb=outcome.peak_mb,
        machine=f"{gpu}, {cpu_name()}" if gpu else cpu_name(),
        command=_shown_command(command, root),
        identity=identity.to_json(),
        versions=_versions(command[0]),
        complaints=tuple(complaints),
    )


def _meant(config: Mapping[str, Any], index: ModelIndex) -> tuple[str, ...]:
    patterns = config.get("unfrozen_parameters")
    return match_patterns(patterns, index.names).names if patterns else index.names


def _shown_command(command: list[str], root: Path) -> str:
    """Return the command as a person would type it: without the interpreter's place."""
    ours = ("--resume_from_checkpoint=", "--dataset_prepared_path=")
    words = [word.removeprefix(f"{root}/") for word in command[1:] if not word.startswith(ours)]
    if words[:2] == ["-m", "accelerate.commands.launch"]:
        return shlex.join(["accelerate", "launch", *words[2:]])
    return shlex.join(["python", *words])


def _versions(python: str) -> dict[str, str]:
    """Return the versions of what trained, read from its environment's metadata."""
    found: dict[str, str] = {}
    for site in Path(python).parent.parent.glob("lib/python*/site-packages"):
        for name in ("axolotl", "torch", "transformers", "trl", "peft", "accelerate"):
            for folder in site.glob(f"{name}-[0-9]*.dist-info"):
                found[name] = folder.name.removeprefix(f"{name}-").removesuffix(".dist-info")
    return found
