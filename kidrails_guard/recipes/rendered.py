"""A rendered recipe as it stands in a file: its keys, its plan, and overrides on top."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kidrails_guard.content import content_path
from kidrails_guard.errors import RecipeError
from kidrails_guard.recipes.plan import Plan, read_plan


@dataclass(frozen=True, slots=True)
class Rendered:
    """An axolotl YAML file.

    Attributes:
        path: where it stands.
        config: its keys, overrides applied.
        plan: what it means to train, where it says so.
        original: its keys as they stand in the file.
        overrides: what was changed for this run, by key.
    """

    path: Path
    config: Mapping[str, Any]
    plan: Plan | None
    original: Mapping[str, Any]
    overrides: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    def override(self, changes: Mapping[str, Any]) -> Rendered:
        """Return the same with some keys changed."""
        return Rendered(
            self.path,
            apply_overrides(self.config, changes),
            self.plan,
            self.original,
            {**self.overrides, **changes},
        )

    def with_data(self, path: str) -> Rendered:
        """Return the same that learns from another file.

        Raises:
            RecipeError: it names no data set, or several.
        """
        entries = self.config.get("datasets")
        if not isinstance(entries, list) or len(entries) != 1 or not isinstance(entries[0], dict):
            raise RecipeError(f"{self.path}: datasets does not name exactly one file to replace")
        return self.override({"datasets": [{**entries[0], "path": path}]})


def load_rendered(argument: str) -> Rendered:
    """Return a rendered recipe by path, or by the name of one that ships.

    Raises:
        RecipeError: there is no such file or recipe, or the file is no map of keys.
    """
    path = Path(argument)
    shipped = content_path("recipes") / f"{argument}.yml"
    if not path.suffix and shipped.is_file():
        path = shipped
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        names = sorted(p.stem for p in content_path("recipes").glob("*.yml"))
        raise RecipeError(
            f"RECIPE {argument!r} cannot be read ({error}); accepted are a YAML file, or one of "
            f"{', '.join(names)}"
        ) from None
    try:
        config = yaml.load(text, Loader=StrictLoader)  # noqa: S506 (a subclass of SafeLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {error}") from None
    if not isinstance(config, dict):
        raise RecipeError(f"{path}: a recipe is a map of keys, not {type(config).__name__}")
    recipe = Rendered(path, config, read_plan(text), config, {})
    deepspeed = config.get("deepspeed")
    if path == shipped and isinstance(deepspeed, str) and not Path(deepspeed).is_file():
        # Named from the repository's root; elsewhere it lies where it was installed.
        recipe = recipe.override({"deepspeed": str(content_path(deepspeed))})
    return recipe


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML would take the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a map's keys and values.

        Raises:
            ConstructorError: a key stands twice, or is no plain value.
        """
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is no word", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` pairs as axolotl would read them.

    >>> parse_overrides(["learning_rate=1e-5", "trl__beta=0.2"])
    {'learning_rate': 1e-05, 'trl__beta': 0.2}

    Raises:
        RecipeError: something else stands there.
    """
    changes: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not equals or not key.isidentifier():
            raise RecipeError(
                f"override {argument!r}: expected KEY=VALUE with a key of axolotl's, as in "
                "learning_rate=1e-5 (nested: PARENT__KEY=VALUE)"
            )
        changes[key] = _value(value)
    return changes


def apply_overrides(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with some keys changed; ``parent__child`` reaches one level down."""
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    for key, value in changes.items():
        parent, nested, child = key.partition("__")
        if not nested:
            changed[key] = value
            continue
        inner = changed.get(parent)
        changed[parent] = {**inner, child: value} if isinstance(inner, dict) else {child: value}
    return changed


def override_flags(changes: Mapping[str, Any]) -> list[str]:
    """Return overrides as command-line flags for axolotl."""
    flags = []
    for key, value in changes.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        flags.append(f"--{key}={text}")
    return flags


def _value(text: str) -> Any:
    if text.lower() in {"true", "yes"}:
        return True
    if text.lower() in {"false", "no"}:
        return False
    if text.lower() in {"null", "none", "~"}:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
