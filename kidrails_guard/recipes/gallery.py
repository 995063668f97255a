"""The rendered files that ship: axolotl YAML, Unsloth scripts, the table that lists them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from kidrails_guard.content import content_path
from kidrails_guard.errors import RecipeError
from kidrails_guard.recipes.axolotl import render_axolotl
from kidrails_guard.recipes.heading import found_at, launch_command, recipe_file
from kidrails_guard.recipes.library import load_recipe, load_selection, load_spec, recipe_names
from kidrails_guard.recipes.plan import Plan, make_plan, planned_index
from kidrails_guard.recipes.schema import Method, Precision, Recipe, Stage, Strategy
from kidrails_guard.recipes.unsloth import can_render, render_unsloth, script_file
from kidrails_guard.spectrum.checkpoint import ModelIndex
from kidrails_guard.spectrum.memory import TrainingSetup, estimate_lora, estimate_tuning
from kidrails_guard.spectrum.targeting import Selection

UNSLOTH_NAMES: Final = ("kidrails", "kidrails-qlora", "kidrails-small")
"""The recipes that ship as Unsloth scripts: Unsloth is for one GPU."""

_BEGIN: Final = "<!-- recipes: rendered by `kidrails recipe render --all` -->"
_END: Final = "<!-- /recipes -->"


def render_one(
    name: str,
    *,
    to: str = "axolotl",
    base_model: str | None = None,
    selection_file: Path | None = None,
    file: Path | None = None,
) -> str:
    """Return one recipe, rendered.

    Args:
        name: of a recipe that ships, or the path of a spec.
        to: ``axolotl`` or ``unsloth``.
        base_model: another base than the spec's.
        selection_file: other layers than the spec's.
        file: where it will stand, for the commands in its head; where it ships where None.

    Raises:
        RecipeError: there is no such recipe, or it does not hold.
        ScanError: the selection cannot be read, or is for another model.
    """
    path = Path(name)
    own = path.suffix in {".yaml", ".yml"}
    recipe = load_spec(path) if own else load_recipe(name)
    if selection_file is not None and recipe.method is not Method.SPECTRUM:
        raise RecipeError(f"--selection is for Spectrum; {recipe.name} trains by {recipe.method}")
    if base_model is not None:
        recipe = recipe.model_copy(update={"base_model": base_model, "architecture": None})
    selection = load_selection(recipe, file=selection_file)
    index = planned_index(recipe)
    plan = make_plan(recipe, selection, index)
    place: dict[str, str | None] = {
        "spec": name if own else None,
        "file": str(file) if file is not None else None,
    }
    if to == "unsloth":
        return render_unsloth(recipe, plan, selection_file=selection_file, **place)
    memory = memory_line(recipe, plan, index)
    return render_axolotl(recipe, plan, selection=selection, memory=memory, **place)


def render_shipped(name: str) -> str:
    """Return a recipe that ships, as axolotl YAML, with its file named as it is found from here."""
    file = recipe_file(load_recipe(name))
    return render_one(name, file=None if Path(file).is_file() else content_path(file))


def shipped_files() -> dict[Path, str]:
    """Return the text that every rendered file below ``recipes/`` should have."""
    folder = content_path("recipes")
    files = {folder / f"{name}.yml": render_one(name) for name in recipe_names()}
    for name in UNSLOTH_NAMES:
        if can_render(load_recipe(name)):
            files[content_path(script_file(name))] = render_one(name, to="unsloth")
    readme = folder / "README.md"
    if readme.is_file():
        files[readme] = _with_table(readme.read_text(encoding="utf-8"))
    return files


def memory_line(recipe: Recipe, plan: Plan, index: ModelIndex) -> str:
    """Return the estimated memory on each device, in words that say it is an estimate."""
    training = recipe.training
    if training.precision is Precision.FP32:
        # Weights, and gradient and two AdamW states of what is trained, four bytes each.
        weights = 4 * (plan.total + 3 * plan.trainable)
        return f"about {weights / 1e9:.1f} GB and activations, estimated."
    # DeepSpeed keeps fp32 copies of what it trains, whatever the optimizer's name.
    zero3 = recipe.hardware.strategy is Strategy.ZERO3
    setup = TrainingSetup(
        tokens=recipe.sequence_len * training.micro_batch,
        optimizer="adamw_fp32" if zero3 else training.optimizer,
        gpus=recipe.hardware.devices,
        lora_rank=recipe.lora.rank if recipe.lora else 16,
    )
    if recipe.lora is not None:
        estimate = estimate_lora(index, setup, quantised=recipe.method is Method.QLORA)
    else:
        estimate = estimate_tuning(index, plan.trainable, setup)
    total = estimate.total
    if recipe.stage is Stage.DPO:
        # Chosen and rejected run through the model together, with and without the adapters.
        total += estimate.activations
    return f"about {total / 1e9:.0f} GB on each GPU (estimated, not measured)."


def overview(*, ships: bool = False) -> list[dict[str, str]]:
    """Return the recipes that ship, as plain values.

    Args:
        ships: the values go into a file that ships itself, so that files are named from the
            repository's root; elsewhere as they are found from here, see `found_at`.
    """
    return [_overview_row(load_recipe(name), ships=ships) for name in recipe_names()]


def _overview_row(recipe: Recipe, *, ships: bool) -> dict[str, str]:
    selection: Selection | None = load_selection(recipe)
    method = recipe.method.value
    if selection is not None:
        method += f", top {selection.fraction:.0%}"
    if recipe.stage is Stage.DPO:
        method = f"DPO by {method}"
    file = found_at(recipe_file(recipe), ships=ships)
    return {
        "name": recipe.name,
        "title": recipe.title,
        "file": file,
        "base": recipe.base_model,
        "method": method,
        "needs": recipe.hardware.needs,
        "command": launch_command(recipe, shlex.quote(file), ships=ships),
    }


def _with_table(readme: str) -> str:
    before, begin, rest = readme.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise RecipeError(f"recipes/README.md lacks the lines {_BEGIN} and {_END}")
    lines = ["| recipe | base | method | needs | command |", "|---|---|---|---|---|"]
    for row in overview(ships=True):
        link = f"[`{row['name']}`]({Path(row['file']).name})"
        lines.append(
            f"| {link} | {row['base']} | {row['method']} | {row['needs']} | `{row['command']}` |"
        )
    return before + begin + "\n" + "\n".join(lines) + "\n" + end + after
