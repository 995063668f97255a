"""The comment that opens a rendered recipe: what it is, what it needs, the exact commands."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path, PurePosixPath
from typing import Final

from kidrails_guard.content import content_path
from kidrails_guard.recipes.plan import Plan
from kidrails_guard.recipes.schema import Method, Recipe, Strategy
from kidrails_guard.spectrum.targeting import Method as Choice
from kidrails_guard.spectrum.targeting import Selection

ACCELERATE_CONFIGS: Final[dict[Strategy, str]] = {
    Strategy.FSDP2: "recipes/accelerate/eight-gpus.yaml",
    Strategy.ZERO3: "recipes/accelerate/eight-gpus.yaml",
}
_CONFIG_GPUS: Final = 8
MACHINES_CONFIG: Final = "recipes/accelerate/two-machines.yaml"
_CONFIG_MACHINES: Final = 2
WIDTH: Final = 98


def found_at(file: str, *, ships: bool) -> str:
    """Return the name of a file that ships for who is to use it.

    Args:
        file: seen from the repository's root.
        ships: whether it is named in a file that ships itself; elsewhere, as after an install by
            pip, it is named in full where the folder at hand does not hold it.
    """
    return file if ships or Path(file).is_file() else str(content_path(file))


def launch_command(recipe: Recipe, file: str, *, ships: bool = True) -> str:
    """Return the shell command that trains a rendered recipe without any command of ours.

    Args:
        recipe: what is trained.
        file: the rendered recipe.
        ships: see `found_at`.
    """
    hardware = recipe.hardware
    if hardware.strategy is Strategy.RAY:
        return f"python -m axolotl.cli.train {file}"
    options = ""
    if hardware.machines > 1:
        config = shlex.quote(found_at(MACHINES_CONFIG, ships=ships))
        options = f"--config_file {config} --machine_rank N --main_process_ip IP "
        if (hardware.machines, hardware.gpus) != (_CONFIG_MACHINES, _CONFIG_GPUS):
            options += f"--num_machines {hardware.machines} --num_processes {hardware.devices} "
    elif hardware.strategy in ACCELERATE_CONFIGS:
        config = shlex.quote(found_at(ACCELERATE_CONFIGS[hardware.strategy], ships=ships))
        options = f"--config_file {config} "
        if hardware.gpus != _CONFIG_GPUS:
            options += f"--num_processes {hardware.gpus} "
    return f"accelerate launch {options}-m axolotl.cli.train {file}"


def recipe_file(recipe: Recipe) -> str:
    """Return where the rendered recipe stands, seen from the repository's root."""
    return str(PurePosixPath("recipes", f"{recipe.name}.yml"))


def heading(
    recipe: Recipe,
    plan: Plan,
    *,
    selection: Selection | None,
    memory: str,
    spec: str | None,
    file: str | None,
) -> str:
    """Return the comment that opens a rendered recipe, the plan's line at its end.

    Args:
        recipe: what is rendered.
        plan: what it trains.
        selection: the layers, for Spectrum.
        memory: what it takes, in words.
        spec: the file that it is rendered from; the one that ships where None.
        file: where it will stand; `recipe_file` where None.
    """
    ships = file is None
    file = shlex.quote(file or recipe_file(recipe))
    command = launch_command(recipe, file, ships=ships)
    ours = f"kidrails train {file}  (checks before, proves what changed after)"
    # Ray finds its machines itself.
    by_hand = recipe.hardware.machines > 1 and recipe.hardware.strategy is not Strategy.RAY
    if by_hand:
        ours = ""  # it starts this machine only, and would train there alone
    share = f"{plan.trainable:,} of {plan.total:,} parameters ({plan.share:.1%})"
    rows = [
        ("Needs", f"{recipe.hardware.needs}."),
        ("Memory", memory),
        ("Trains", f"{share}, in {plan.tensors} tensors, {recipe.batch} sequences a step."),
        ("Layers", _origin(selection)),
        ("Data", f"{recipe.data.made_by}  ->  {recipe.data.train}"),
        ("Check", f"kidrails recipe validate {file}"),
        ("Train", command),
        ("or", ours),
        ("Change", f"{command} --learning_rate 1e-5 --output_dir {_quoted(recipe, '-2')}"),
        ("Result", f"{recipe.output}/  ->  {_use(recipe, file)}"),
    ]
    lines = [
        " ".join(recipe.title.split()),
        "",
        *textwrap.wrap(" ".join(recipe.about.split()), WIDTH),
        "",
    ]
    for label, text in rows:
        if text:
            first, rest = f"{label:<8}", " " * 8
            # Commands stay on one line each, so that they can be copied.
            whole = label in {"Check", "Train", "or", "Change", "Result", "Data"}
            width = 1000 if whole else WIDTH
            lines += textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest)
    if by_hand:
        lines.append("        (on every machine, with N = 0, 1, … and IP of machine 0)")
    lines.append("        (axolotl reports usage to its makers unless DO_NOT_TRACK=1 is set)")
    lines += ["", *_source(recipe, spec, ships=ships, file=file)]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + plan.line() + "\n"


def _source(recipe: Recipe, spec: str | None, *, ships: bool, file: str) -> list[str]:
    """Return what the head says about changing the file."""
    origin = spec or (
        f"recipes/specs/{recipe.name}.yaml" if ships else f"the recipe {recipe.name} that ships"
    )
    first = f"Rendered from {origin} by `kidrails recipe render`"
    copy = f"take a copy that is yours: kidrails recipe copy {recipe.name} mine.yml"
    if spec is None and ships:
        return [f"{first}: change that,", f"or {copy}"]
    if spec is None and file == shlex.quote(str(content_path(recipe_file(recipe)))):
        return [f"{first};", copy]
    return [f"{first}; this file is yours to change."]


def _quoted(recipe: Recipe, more: str = "") -> str:
    return shlex.quote(recipe.output + more)


def _use(recipe: Recipe, file: str) -> str:
    if recipe.method in {Method.LORA, Method.QLORA}:
        return f"axolotl merge-lora {file}  ->  kidrails up --model {_quoted(recipe, '/merged')}"
    if recipe.name.endswith("-guard"):
        return f"vllm serve {_quoted(recipe)}, and its URL as a judge in the policy"
    return f"kidrails up --model {_quoted(recipe)}"


_CHOICES: Final[dict[Choice, str]] = {
    Choice.TOP: "with the highest signal-to-noise ratio",
    Choice.BUDGET: "with the highest signal-to-noise ratio",
    Choice.BOTTOM: "with the lowest signal-to-noise ratio",
    Choice.RANDOM: "drawn at random",
}


def _origin(selection: Selection | None) -> str:
    if selection is None:
        return ""
    seed = f" with seed {selection.seed}" if selection.seed is not None else ""
    how = f"{selection.method}{seed}, {selection.estimator} estimator"
    extras = [name for name in ("embeddings", "head", "norms") if getattr(selection, name)]
    beside = f", and {', '.join(extras)}" if extras else ""
    return (
        f"the {selection.fraction:.0%} {_CHOICES[selection.method]} in each of "
        f"{len(selection.types)} module types ({how}){beside}; scan of {selection.model}: "
        f"{selection.scan_source}, sha256 {selection.scan_sha256}."
    )
