"""The recipes that ship: specs below ``recipes/specs``, with what they inherit filled in."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from kidrails_guard.content import content_path
from kidrails_guard.errors import RecipeError
from kidrails_guard.recipes.rendered import StrictLoader
from kidrails_guard.recipes.schema import Recipe
from kidrails_guard.spectrum.targeting import Selection

_DEPTH: Final = 4


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that ship, the main one first."""
    names = sorted(path.stem for path in content_path("recipes/specs").glob("*.yaml"))
    return tuple(sorted(names, key=lambda name: (len(name.split("-")) > 1, name)))


def load_recipe(name: str) -> Recipe:
    """Return a recipe by its name.

    Raises:
        RecipeError: there is none of that name, or its spec does not hold.
    """
    folder = content_path("recipes/specs")
    path = folder / f"{name}.yaml"
    if not path.is_file():
        names = recipe_names()
        near = get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RecipeError(
            f"recipe {name!r} is not one of {', '.join(names)}{hint}; see: kidrails recipe list"
        )
    recipe = parse_recipe(_resolve(path), where=str(path))
    if recipe.name != name:
        raise RecipeError(f"{path}: name {recipe.name!r} differs from the file's")
    return recipe


def load_spec(path: Path) -> Recipe:
    """Return the recipe in a spec file of one's own; it may extend one that ships.

    Raises:
        RecipeError: the file cannot be read or does not hold a recipe.
    """
    return parse_recipe(_resolve(path), where=str(path))


def parse_recipe(values: Mapping[str, Any], *, where: str) -> Recipe:
    """Return the recipe that plain values describe.

    Args:
        values: as parsed from YAML.
        where: the file's name, for messages.

    Raises:
        RecipeError: a key is unknown or missing, or a value is not accepted.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            key = ".".join(str(part) for part in problem["loc"]) or "recipe"
            lines.append(f"{key}: {problem['msg']} (is {_short(problem.get('input'))})")
        raise RecipeError(f"{where}: " + "; ".join(lines)) from None


def load_selection(recipe: Recipe, *, file: Path | None = None) -> Selection | None:
    """Return the layers that a Spectrum recipe trains; None for the other methods.

    Args:
        recipe: the recipe.
        file: another selection than the recipe names.

    Raises:
        ScanError: the file cannot be read or does not hold a selection.
    """
    if file is not None:
        return Selection.load(file)
    if recipe.selection is None:
        return None
    return Selection.load(selection_path(recipe.selection))


def selection_path(name: str) -> Path:
    """Return a selection's file: as it is named from here, else below ``recipes/``."""
    path = Path(name)
    return path if path.is_file() else content_path("recipes") / path


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``change`` on top: maps key by key, a null removes, the rest replaces.

    >>> merge({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"d": 4}})
    {'b': {'c': 2, 'd': 4}}
    """
    merged = dict(base)
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _resolve(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a spec's values with what it inherits filled in.

    Args:
        path: the spec.
        below: the specs that extend it, the first one first.
    """
    chain = (*below, path)
    if any(path.samefile(one) for one in below):
        raise RecipeError(
            f"{below[0]}: extends goes round in a circle: {' -> '.join(map(str, chain))}"
        )
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, Loader=StrictLoader)  # noqa: S506 (a subclass of SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a map of keys, not {type(values).__name__}")
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if len(chain) > _DEPTH:
        raise RecipeError(f"{path}: extends goes deeper than {_DEPTH} files")
    return merge(_resolve(_parent_file(parent, path), chain), values)


def _parent_file(parent: object, path: Path) -> Path:
    """Return the spec that another extends: one beside it, else one that ships.

    A file of one's own that bears the name of one that ships means the latter by it, not itself.
    """
    shipped = content_path("recipes/specs") / f"{parent}.yaml"
    beside = path.parent / f"{parent}.yaml"
    if beside.is_file() and not (beside.samefile(path) and shipped.is_file()):
        return beside
    if not isinstance(parent, str) or not shipped.is_file():
        raise RecipeError(
            f"{path}: extends is {parent!r}; accepted are the name of a spec in {path.parent}, "
            f"without .yaml, or one that ships: {', '.join(recipe_names())}"
        )
    return shipped


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
