"""Which parameters axolotl's ``unfrozen_parameters`` unfreeze, without torch or axolotl.

A pattern is a regular expression in which a dot is a dot (axolotl escapes it, unless a plus sign
follows), matched with `re.match`: fixed at its start, open at its end. A range such as ``[:100]``
may follow; it only zeroes gradients, so that weight decay and optimizer states go on.

Source: axolotl 0.19, ``axolotl.utils.freeze.LayerNamePattern`` (compared in the contract tests).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kidrails_guard.errors import RecipeError

_RANGE: Final = re.compile(r"^(.+)\[([0-9]*)(?::([0-9]*))?\]$")


@dataclass(frozen=True, slots=True)
class Targets:
    """What a list of patterns unfreezes in a model.

    Attributes:
        names: the unfrozen parameters, in the model's order.
        idle: patterns that match nothing, with the reason where it can be seen.
        wide: patterns that match more than one parameter, with what they match.
        ranged: patterns with a range.
    """

    names: tuple[str, ...]
    idle: tuple[tuple[str, str], ...] = ()
    wide: tuple[tuple[str, tuple[str, ...]], ...] = ()
    ranged: tuple[str, ...] = ()


def compile_pattern(pattern: str) -> re.Pattern[str]:
    r"""Return the expression that axolotl matches names with.

    >>> bool(compile_pattern("^layers.1.mlp").match("layers.1.mlp.weight"))
    True
    >>> bool(compile_pattern(r"^layers\.1").match("layers.1"))
    False

    Raises:
        RecipeError: it is no regular expression.
    """
    ranged = _RANGE.match(pattern)
    body = ranged.group(1) if ranged else pattern
    try:
        return re.compile(re.sub(r"\.(?!\+)", r"\\.", body))
    except re.error as error:
        raise RecipeError(
            f"unfrozen_parameters: {pattern!r} is no regular expression: {error}"
        ) from None


def match_patterns(patterns: Sequence[str], names: Sequence[str]) -> Targets:
    """Return what patterns unfreeze among a model's parameters.

    Args:
        patterns: as they stand under ``unfrozen_parameters``.
        names: every parameter's full name.

    Raises:
        RecipeError: a pattern is no regular expression.
    """
    unfrozen: set[str] = set()
    idle, wide, ranged = [], [], []
    for pattern in patterns:
        expression = compile_pattern(pattern)
        found = tuple(name for name in names if expression.match(name))
        unfrozen.update(found)
        if not found:
            idle.append((pattern, _why_idle(pattern, names)))
        elif len(found) > 1:
            wide.append((pattern, found))
        if _RANGE.match(pattern):
            ranged.append(pattern)
    return Targets(
        tuple(name for name in names if name in unfrozen), tuple(idle), tuple(wide), tuple(ranged)
    )


def _why_idle(pattern: str, names: Sequence[str]) -> str:
    """Return the likely reason that a pattern matches nothing."""
    if "\\." in pattern:
        return "its dots are escaped: axolotl escapes them itself, write plain dots"
    bare = pattern.strip("^$")
    if any(name.endswith(bare) and name != bare for name in names):
        return "it is matched from the start of the name: write the whole name"
    if bare.startswith("base_model.model."):
        return "that prefix belongs to PEFT, and the model has no adapters"
    if any(name.rpartition(".")[0] == bare for name in names):
        return "it names a module: add .weight"
    if ".*" in pattern:
        return "axolotl escapes the dot of '.*': write '.+'"
    return "the model has no such parameter"
