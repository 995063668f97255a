"""Which layers get an adapter, as the keys of a recipe say it to axolotl and PEFT.

Source: peft 0.20, ``check_target_module_exists``; axolotl 0.19, ``axolotl.loaders.adapter``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from kidrails_guard.recipes.findings import Result, problem, unchecked
from kidrails_guard.recipes.plan import LORA_TARGETS
from kidrails_guard.spectrum.checkpoint import ModelIndex, TensorInfo

_NOT_COUNTED: Final = (
    "lora_target_parameters",
    "lora_modules_to_save",
    "lora_exclude_modules",
    "peft_layers_to_transform",
    "peft_trainable_token_indices",
    "peft_use_dora",
)
"""Keys that add numbers to an adapter, or take some away, in ways that are not worked out here."""


def count_planned_adapters(
    config: Mapping[str, Any], index: ModelIndex
) -> tuple[int, int] | Result:
    """Return how many parameters and tensors a recipe's adapters have, or why that is not said.

    Args:
        config: the recipe's keys.
        index: the model's tensors.
    """
    rank = config.get("lora_r")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        return problem("targets", f"lora_r is {rank!r}; expected a whole number")
    beyond = [key for key in _NOT_COUNTED if config.get(key)]
    if beyond:
        return unchecked("targets", f"what {beyond[0]} makes of the adapters is not counted here")
    linear = [t for t in index.tensors if len(t.shape) == 2 and t.name.endswith(".weight")]
    found = _adapted(config, linear)
    if isinstance(found, Result):
        return found
    return sum(rank * sum(t.shape) for t in found), 2 * len(found)


def _adapted(config: Mapping[str, Any], linear: list[TensorInfo]) -> list[TensorInfo] | Result:
    targets = config.get("lora_target_modules") or []
    blocks = [t for t in linear if t.type != t.module]
    if targets == "all-linear" or (config.get("lora_target_linear") and not targets):
        return blocks or problem("targets", "the model has no linear layers for an adapter")
    if isinstance(targets, str) and not config.get("lora_target_linear"):
        try:
            expression = re.compile(targets)
        except re.error as error:
            return problem("targets", f"lora_target_modules: {targets!r}: {error}")
        found = [t for t in linear if expression.fullmatch(t.module)]
        return found or problem(
            "targets",
            f"lora_target_modules: {targets!r} matches no layer; PEFT takes a text for an "
            "expression that has to match a layer's whole name",
            f"write a list: [{targets}]",
        )
    names = [targets] if isinstance(targets, str) else targets
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return problem("targets", f"lora_target_modules is {targets!r}; expected a list of names")
    if not names:
        return problem(
            "targets",
            "adapter without lora_target_modules: no layer gets one",
            f"lora_target_modules: [{', '.join(LORA_TARGETS)}]",
        )
    for name in names:
        if not any(_is_target(t, name) for t in linear):
            there = sorted({t.module.rpartition(".")[2] for t in linear})
            near = get_close_matches(name, there, n=1)
            return problem(
                "targets",
                f"lora_target_modules: {name!r} matches no layer of the model, and PEFT passes "
                "over it silently",
                f"did you mean {near[0]!r}?" if near else f"it has {', '.join(there)}",
            )
    wanted = [t for t in linear if any(_is_target(t, name) for name in names)]
    if config.get("lora_target_linear"):
        wanted += [t for t in blocks if t not in wanted]
    return wanted


def _is_target(tensor: TensorInfo, name: str) -> bool:
    return tensor.module == name or tensor.module.endswith(f".{name}")
