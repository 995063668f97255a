"""Everything that can be wrong before the first step, looked at before the first step."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from kidrails_guard.errors import RecipeError, ScanError
from kidrails_guard.recipes.axolotl_checks import (
    CAPABILITIES,
    capabilities,
    judge_answer,
    longest_row,
    shown_rows,
)
from kidrails_guard.recipes.environment import (
    INSTALL,
    ask_axolotl,
    find_train_python,
    train_environ,
)
from kidrails_guard.recipes.findings import Level, Report, Result, problem, unchecked
from kidrails_guard.recipes.library import recipe_names
from kidrails_guard.recipes.rendered import Rendered
from kidrails_guard.recipes.static_checks import check_files, check_machine, check_targets
from kidrails_guard.spectrum.checkpoint import ModelIndex
from kidrails_guard.spectrum.hub_cache import cached_folder
from kidrails_guard.spectrum.shapes import (
    KNOWN_MODELS,
    cached_index,
    index_from_shape,
    model_index,
)

_ROWS = 32
_OUR_FOLDERS = ("build", "outputs")
_EXPORTED = "build/models/smollm2-135m-instruct"


@dataclass(frozen=True, slots=True)
class Machine:
    """For which machine a recipe is checked.

    Attributes:
        kind: a key of `CAPABILITIES`.
        gpus: how many GPUs.
        name: what they are called, where they were looked at.
    """

    kind: str = "h100"
    gpus: int = 1
    name: str = field(default="", compare=False)

    @classmethod
    def cpu(cls) -> Machine:
        """Return a machine without a GPU."""
        return cls("cpu", 0)


def preflight(
    recipes: Sequence[Rendered],
    *,
    machines: Sequence[Machine],
    root: Path,
    python: Path | None = None,
    with_axolotl: bool = True,
) -> list[Report]:
    """Check recipes; axolotl is started once for all of them.

    Args:
        recipes: rendered recipes, overrides applied.
        machines: what each is to run on.
        root: where their relative paths start: the folder that training is started in.
        python: the interpreter that has axolotl; found where None.
        with_axolotl: False leaves its half out, and the report says so.

    Returns:
        One report a recipe.

    Raises:
        MissingDependency: axolotl is not installed.
        RecipeError: axolotl could not be asked.
    """
    answers: list[dict[str, Any] | None] = [None] * len(recipes)
    first = [_static(recipe, on, root) for recipe, on in zip(recipes, machines, strict=True)]
    if with_axolotl:
        jobs = [
            _job(recipe, on, root, data=all(r.level is not Level.PROBLEM for r in results))
            for recipe, on, results in zip(recipes, machines, first, strict=True)
        ]
        answers = [*ask_axolotl(jobs, python=python or find_train_python(), root=root)]
    return [
        _report(recipe, results, answer, on)
        for recipe, results, answer, on in zip(recipes, first, answers, machines, strict=True)
    ]


def base_index(recipe: Rendered, root: Path) -> ModelIndex | None:
    """Return the base model's tensors: from its files, its config, or the list of known models.

    The files may lie in a folder, or in the Hub's cache.

    Raises:
        ScanError: the folder is there and damaged.
    """
    base = str(recipe.config.get("base_model", ""))
    folder = root / base
    if folder.exists():
        return model_index(folder)
    cached = cached_index(base, revision=_revision(recipe.config))
    if cached is not None:
        return cached
    shape = KNOWN_MODELS.get(base)
    return None if shape is None else index_from_shape(base, shape)


def base_folder(config: Mapping[str, Any], root: Path) -> Path | None:
    """Return where the base model's files lie: in a folder, or in the Hub's cache; None: nowhere.

    Args:
        config: the recipe's keys.
        root: where a relative folder starts.
    """
    base = str(config.get("base_model") or "")
    if not base:
        return None
    if (root / base).exists():
        return root / base
    return cached_folder(base, revision=_revision(config))


def _revision(config: Mapping[str, Any]) -> str | None:
    revision = config.get("revision_of_model")
    return str(revision) if revision else None


def _static(recipe: Rendered, machine: Machine, root: Path) -> list[Result]:
    results: list[Result] = []
    index = None
    if not recipe.config.get("base_model"):
        results.append(problem("model", "base_model is missing"))
    else:
        results += check_base(recipe.config, root)
        try:
            index = base_index(recipe, root)
        except ScanError as error:
            results.append(problem("model", str(error)))
    results += check_targets(recipe.config, index, recipe.plan)
    results += check_machine(recipe.config, machine.gpus)
    results += check_wrapping(recipe.config, root)
    results += check_files(recipe.config, root)
    return results


def check_base(config: Mapping[str, Any], root: Path) -> list[Result]:
    """Check that a base model that is meant as a folder is one.

    axolotl would ask the Hub for it, where anybody may own that name.

    Args:
        config: the recipe's keys.
        root: where a relative folder starts.
    """
    base = str(config["base_model"])
    parts = PurePosixPath(base).parts
    folder = base.startswith((".", "/", "~")) or len(parts) > 2 or parts[0] in _OUR_FOLDERS
    if not folder or (root / base).exists():
        return []
    hint = "give its folder: --base-model DIR"
    if base == _EXPORTED:
        hint = f"kidrails engine --export {base}"
    elif parts[0] == "outputs" and parts[-1] in recipe_names():
        hint = f"it is what another recipe makes: kidrails train {parts[-1]}"
    text = f"base_model: there is no folder {root / base}, and the Hub would be asked for that name"
    return [problem("model", text, hint)]


def check_wrapping(config: Mapping[str, Any], root: Path) -> list[Result]:
    """Check that FSDP cuts the model at a layer that it has.

    Args:
        config: the recipe's keys.
        root: where a relative base model starts.
    """
    fsdp = config.get("fsdp_config")
    named = fsdp.get("transformer_layer_cls_to_wrap") if isinstance(fsdp, Mapping) else None
    folder = base_folder(config, root) if named else None
    file = folder / "config.json" if folder else None
    if file is None or not file.is_file():
        return []
    try:
        architecture = str(json.loads(file.read_text(encoding="utf-8"))["architectures"][0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return []
    # transformers names a text model's parts alike: MistralForCausalLM, MistralDecoderLayer. Models
    # for pictures take their layers from others.
    family, text, _ = architecture.partition("ForCausalLM")
    if not text or str(named).startswith(family):
        return []
    return [
        problem(
            "model",
            f"fsdp_config.transformer_layer_cls_to_wrap is {named}, and the base is a "
            f"{architecture}: FSDP would not find that layer",
            f"fsdp_config: {{transformer_layer_cls_to_wrap: {family}DecoderLayer}}",
        )
    ]


def _job(recipe: Rendered, machine: Machine, root: Path, *, data: bool) -> dict[str, Any]:
    folder = base_folder(recipe.config, root)
    names = ("tokenizer.json", "tokenizer.model")
    tokenizer = folder is not None and any((folder / name).is_file() for name in names)
    return {
        "config": dict(recipe.config),
        "capabilities": capabilities(machine.kind, machine.gpus),
        "local": data and tokenizer,
        "rows": _ROWS,
    }


def _report(
    recipe: Rendered, first: list[Result], answer: dict[str, Any] | None, machine: Machine
) -> Report:
    if answer is None:
        left_out = unchecked("axolotl", "its schema, tokenizer and labels were not looked at")
        return Report(str(recipe.path), (*first, left_out))
    second = judge_answer(answer, recipe.config, machine=machine.kind, here=bool(machine.name))
    if any(result.level is Level.PROBLEM for result in first):
        # The tokenizer may be at hand, but the data was not worth reading with it.
        second = [r for r in second if r.check != "tokenizer"]
    return Report(str(recipe.path), (*first, *second), shown_rows(answer), longest_row(answer))


def meant_machine(recipe: Rendered, *, gpus: int | None = None) -> Machine:
    """Return the machine that a recipe seems to be written for.

    Args:
        recipe: its keys decide: without bf16 and tf32 it is for a CPU.
        gpus: how many GPUs, where that is known better.
    """
    config = recipe.config
    if not (config.get("bf16") or config.get("tf32") or config.get("fp16") or gpus):
        return Machine.cpu()
    several = config.get("fsdp_config") or config.get("deepspeed")
    found = config.get("ray_num_workers") or (8 if several else 1)
    if not isinstance(found, int) or found < 1:
        raise RecipeError(f"ray_num_workers is {found!r}; expected a whole number of 1 or more")
    return Machine("h100", gpus or found)


def this_machine(python: Path) -> Machine:
    """Return the machine at hand, as torch sees it.

    Args:
        python: the interpreter that has torch.

    Raises:
        RecipeError: torch could not be asked.
    """
    script = (
        "import json, torch; n = torch.cuda.device_count(); "
        "print(json.dumps([torch.cuda.get_device_name(i) for i in range(n)]), "
        "bool(n and torch.cuda.is_bf16_supported()))"
    )
    done = subprocess.run(
        [str(python), "-P", "-c", script],
        env=train_environ(offline=True),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RecipeError(f"{python} has no working torch; {INSTALL} makes an environment that has")
    names, _, bf16 = done.stdout.strip().splitlines()[-1].rpartition(" ")
    found = json.loads(names)
    if not found:
        return Machine.cpu()
    joined = "".join(found).lower().replace(" ", "")
    kind = next((kind for kind in CAPABILITIES if kind in joined), "a100")
    kinds = ", ".join(f"{found.count(one)} x {one}" for one in dict.fromkeys(found))
    return Machine(kind if bf16 == "True" else "t4", len(found), kinds)
