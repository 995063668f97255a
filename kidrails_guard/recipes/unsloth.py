"""Renders a `Recipe` as a thin Unsloth script: the same data, template and layers on one GPU.

The work is in `kidrails_guard.recipes.with_unsloth`; the script only says what is to be done, so
that one can read and change it.
"""

from __future__ import annotations

import json
import shlex
import textwrap
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import RecipeError
from kidrails_guard.recipes.plan import Plan
from kidrails_guard.recipes.schema import Method, Precision, Recipe, Stage, Strategy

_WIDTH: Final = 98


def can_render(recipe: Recipe) -> bool:
    """Return whether Unsloth can train it: fine-tuning on one device."""
    return recipe.stage is Stage.SFT and recipe.hardware.strategy is Strategy.SINGLE


def script_file(name: str) -> str:
    """Return where the script stands, seen from the repository's root."""
    return f"recipes/unsloth/{name.replace('-', '_')}.py"


def render_unsloth(
    recipe: Recipe,
    plan: Plan,
    *,
    selection_file: Path | None = None,
    spec: str | None = None,
    file: str | None = None,
) -> str:
    """Return the recipe as a Python script.

    Args:
        recipe: what to render.
        plan: what it trains; the script refuses to start when the model disagrees.
        selection_file: other layers than the recipe's.
        spec: the file that it is rendered from; the one that ships where None.
        file: where it will stand, for the commands in its head; `script_file` where None.

    Raises:
        RecipeError: it needs several GPUs, or learns from preference pairs.
    """
    if not can_render(recipe):
        raise RecipeError(
            f"{recipe.name} cannot be rendered for Unsloth, which fine-tunes on one GPU here; "
            "accepted are stage sft and strategy single"
        )
    about = _doc(textwrap.fill(" ".join(recipe.about.split()), _WIDTH))
    command = f"python {shlex.quote(file or script_file(recipe.name))}"
    ships = f"recipes/specs/{recipe.name}.yaml" if file is None else "the recipe that ships"
    origin = spec or ships
    arguments = _arguments(recipe, plan, selection_file)
    body = "\n".join(f"    {key}={_literal(value)}," for key, value in arguments.items())
    title, needs = _doc(" ".join(recipe.title.split())), _doc(recipe.hardware.needs)
    return f'''"""{title}, with Unsloth.

{about}

Needs   {needs}
        pip install unsloth kidrails-guard
Data    {_doc(recipe.data.made_by)}
Train   {_doc(command)}
Change  {_doc(command)} --learning_rate 1e-5 --max_steps 10

Rendered from {origin}: kidrails recipe render {spec or recipe.name} --to unsloth
"""

from kidrails_guard.recipes.with_unsloth import UnslothJob, main

JOB = UnslothJob(
{body}
)

if __name__ == "__main__":
    raise SystemExit(main(JOB))
'''


def _arguments(recipe: Recipe, plan: Plan, selection_file: Path | None) -> dict[str, Any]:
    training = recipe.training
    selection = str(selection_file) if selection_file else recipe.selection
    held = recipe.data.held_out
    template = recipe.chat.template
    return {
        "name": recipe.name,
        "base_model": recipe.base_model,
        "method": recipe.method.value,
        "selection": selection if recipe.method is Method.SPECTRUM else None,
        "trainable": plan.trainable,
        "lora": (recipe.lora.rank, recipe.lora.alpha) if recipe.lora else None,
        "lora_dropout": recipe.lora.dropout if recipe.lora else 0.0,
        "template": None if template == "tokenizer_default" else f"templates/{template}.jinja",
        "eos": recipe.chat.eos_token,
        "pad": recipe.chat.pad_token,
        "data": recipe.data.train,
        "held_out": held,
        "held_out_part": recipe.data.held_out_part,
        "sequence_len": recipe.sequence_len,
        "bf16": training.precision is Precision.BF16,
        "epochs": training.epochs,
        "max_steps": training.max_steps,
        "micro_batch": training.micro_batch,
        "accumulation": training.accumulation,
        "learning_rate": training.learning_rate,
        "scheduler": training.scheduler,
        "warmup_ratio": training.warmup_ratio,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optimizer": training.optimizer,
        "checkpointing": training.checkpointing,
        "save_every": training.save_every,
        "seed": training.seed,
        "output": f"{recipe.output}-unsloth",
    }


def _doc(text: str) -> str:
    """Return a text as it may stand in a docstring."""
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')


def _literal(value: Any) -> str:
    """Return a value as Python source, with the double quotes that ruff wants."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**6:
        return f"{value:_}"
    return repr(value)
