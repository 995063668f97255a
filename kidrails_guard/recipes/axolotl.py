"""Renders a `Recipe` as the YAML that ``accelerate launch -m axolotl.cli.train`` takes.

Source: https://docs.axolotl.ai/docs/config-reference.html (axolotl 0.19).
"""

from __future__ import annotations

import textwrap
from typing import Any, Final

import yaml

from kidrails_guard.recipes.heading import WIDTH, found_at, heading
from kidrails_guard.recipes.plan import LORA_TARGETS, Plan
from kidrails_guard.recipes.schema import Method, Precision, Recipe, Stage, Strategy
from kidrails_guard.spectrum.targeting import Selection

Section = tuple[str, dict[str, Any]]

DEEPSPEED_CONFIG: Final = "recipes/deepspeed/zero3.json"


def render_axolotl(
    recipe: Recipe,
    plan: Plan,
    *,
    selection: Selection | None = None,
    memory: str = "",
    spec: str | None = None,
    file: str | None = None,
) -> str:
    """Return the recipe as an axolotl YAML file that opens with what it is and how to run it.

    Args:
        recipe: what to render.
        plan: what it trains, for the header and the line that preflight reads.
        selection: the layers, for Spectrum.
        memory: what it takes, in words; an estimate says so itself.
        spec: the file that it is rendered from; the one that ships where None.
        file: where it will stand, for the commands in its head; `recipe_file` where None.
    """
    parts = [heading(recipe, plan, selection=selection, memory=memory, spec=spec, file=file)]
    for comment, values in _sections(recipe, selection, ships=file is None):
        lines = textwrap.wrap(comment, WIDTH, initial_indent="# ", subsequent_indent="# ")
        parts.append("\n".join(lines) + "\n" + _dump(values))
    return "\n".join(parts)


def axolotl_config(recipe: Recipe, selection: Selection | None = None) -> dict[str, Any]:
    """Return the same as one map, as parsing the rendered file gives it."""
    return {key: value for _, part in _sections(recipe, selection) for key, value in part.items()}


class _Indented(yaml.SafeDumper):
    """Sets a list's items to the right of its key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _dump(values: dict[str, Any]) -> str:
    return yaml.dump(values, Dumper=_Indented, sort_keys=False, allow_unicode=True, width=WIDTH)


def _sections(recipe: Recipe, selection: Selection | None, *, ships: bool = True) -> list[Section]:
    sections = [
        ("The model.", _model(recipe)),
        (
            "Conversations. Only the assistant's turns, with the token that ends them, are learnt."
            if recipe.stage is Stage.SFT
            else "Pairs: the chosen reply is preferred to the rejected one.",
            _data(recipe),
        ),
        (
            "A row longer than sequence_len stops the run; axolotl's default drops it silently.",
            _lengths(recipe),
        ),
    ]
    if selection is not None:
        sections.append(
            (
                "What is trained; all else is frozen. The names stand here, not in the Spectrum "
                "plugin, which trains everything when its scan is missing. axolotl escapes the "
                "dots itself and matches from the start, hence ^ and $.",
                {"unfrozen_parameters": list(selection.patterns)},
            )
        )
    if recipe.lora is not None:
        sections.append(("Adapters beside the linear layers.", _adapters(recipe)))
    sections.append(("Steps.", _steps(recipe)))
    if recipe.hardware.strategy is not Strategy.SINGLE:
        sections.append(("Several GPUs.", _distribution(recipe, ships=ships)))
    sections.append(
        (
            "Held-out loss before the first step and at every save; the newest checkpoints are "
            "kept, so that a killed run goes on: --auto_resume_from_checkpoints true",
            _records(recipe),
        )
    )
    return sections


def _model(recipe: Recipe) -> dict[str, Any]:
    values: dict[str, Any] = {"base_model": recipe.base_model}
    if recipe.method is Method.QLORA:
        values["load_in_4bit"] = True
    return values


def _rows(recipe: Recipe, path: str) -> dict[str, Any]:
    if recipe.stage is Stage.DPO:
        return {
            "path": path,
            "type": "chat_template.default",
            "field_messages": "messages",
            "field_chosen": "chosen",
            "field_rejected": "rejected",
        }
    return {
        "path": path,
        "ds_type": "json",
        "type": "chat_template",
        "field_messages": "messages",
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    }


def _data(recipe: Recipe) -> dict[str, Any]:
    values: dict[str, Any] = {"chat_template": recipe.chat.template}
    tokens = {"eos_token": recipe.chat.eos_token, "pad_token": recipe.chat.pad_token}
    tokens = {key: token for key, token in tokens.items() if token is not None}
    if tokens:
        values["special_tokens"] = tokens
    if recipe.stage is Stage.DPO and recipe.dpo is not None:
        values |= {"rl": "dpo", "rl_beta": recipe.dpo.beta}
    values["datasets"] = [_rows(recipe, recipe.data.train)]
    if isinstance(recipe.data.held_out, str):
        entry = _rows(recipe, recipe.data.held_out)
        if recipe.data.held_out_part > 1:
            entry |= {"shards": recipe.data.held_out_part, "shards_idx": 0}
        values["test_datasets"] = [entry]
    else:
        values["val_set_size"] = recipe.data.held_out
    values["dataset_prepared_path"] = f"build/prepared/{recipe.name}"
    return values


def _lengths(recipe: Recipe) -> dict[str, Any]:
    values: dict[str, Any] = {
        "sequence_len": recipe.sequence_len,
        "excess_length_strategy": "raise",
    }
    if recipe.stage is Stage.SFT:
        values |= {"sample_packing": recipe.training.packing}
        if recipe.training.packing:
            values |= {"eval_sample_packing": True, "pad_to_sequence_len": True}
    return values


def _adapters(recipe: Recipe) -> dict[str, Any]:
    lora = recipe.lora
    assert lora is not None
    return {
        "adapter": recipe.method.value,
        "lora_r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "lora_target_modules": list(LORA_TARGETS),
    }


def _steps(recipe: Recipe) -> dict[str, Any]:
    training = recipe.training
    bf16 = training.precision is Precision.BF16
    values: dict[str, Any] = {
        "num_epochs": training.epochs,
        "micro_batch_size": training.micro_batch,
        "gradient_accumulation_steps": training.accumulation,
        "learning_rate": training.learning_rate,
        "lr_scheduler": training.scheduler,
        "warmup_ratio": training.warmup_ratio,
        "optimizer": training.optimizer,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "bf16": bf16,
        "tf32": bf16,
        "attn_implementation": training.attention,
        "gradient_checkpointing": training.checkpointing,
        "seed": training.seed,
    }
    if training.max_steps is not None:
        values["max_steps"] = training.max_steps
    if training.checkpointing:
        # Re-entrant checkpointing loses the gradients of a partly frozen model.
        values["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    return values


def _distribution(recipe: Recipe, *, ships: bool) -> dict[str, Any]:
    hardware = recipe.hardware
    fsdp = {
        "fsdp_version": 2,
        "fsdp_config": {
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
            "state_dict_type": "FULL_STATE_DICT",
            "reshard_after_forward": True,
            "cpu_ram_efficient_loading": True,
            "offload_params": False,
        },
    }
    if hardware.strategy is Strategy.ZERO3:
        return {"deepspeed": found_at(DEEPSPEED_CONFIG, ships=ships)}
    if hardware.strategy is Strategy.RAY:
        return {
            "use_ray": True,
            "ray_run_name": recipe.name,
            "ray_num_workers": hardware.devices,
            "resources_per_worker": {"GPU": 1},
            **fsdp,
        }
    return fsdp


def _records(recipe: Recipe) -> dict[str, Any]:
    training = recipe.training
    values: dict[str, Any] = {
        "output_dir": recipe.output,
        "save_steps": training.save_every,
        "save_total_limit": 2,
        "logging_steps": 1,
    }
    if recipe.data.held_out:
        values["eval_steps"] = training.save_every
    return values
