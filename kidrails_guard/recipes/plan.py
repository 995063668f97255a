"""How much of a model a recipe trains: counted from tensor shapes, before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from kidrails_guard.errors import RecipeError
from kidrails_guard.recipes.schema import Method, Recipe, Strategy
from kidrails_guard.spectrum.checkpoint import ModelIndex
from kidrails_guard.spectrum.shapes import model_index
from kidrails_guard.spectrum.targeting import Selection

LORA_TARGETS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers inside a Llama block, which get an adapter each."""

MARK: Final = "# kidrails-plan: "
"""Begins the line of a rendered recipe that says what it means to train."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a recipe means to train; preflight compares it with the model at hand.

    Attributes:
        recipe: the spec that the recipe was rendered from.
        method: which parameters are trained.
        trainable: how many numbers are trained.
        total: how many numbers the model holds, adapters not counted.
        tensors: how many tensors are trained (with LoRA: two for each adapted layer).
        scan_sha256: the scan that decided the layers; empty for other methods than Spectrum.
        machines: on how many the same command has to be started; Ray starts its own.
    """

    recipe: str
    method: str
    trainable: int
    total: int
    tensors: int
    scan_sha256: str = ""
    machines: int = 1

    @property
    def share(self) -> float:
        """Trained share of the model, 0 to 1 (of the model with its adapters)."""
        adapters = self.trainable if self.method in {Method.LORA, Method.QLORA} else 0
        return self.trainable / (self.total + adapters)

    def line(self) -> str:
        """Return the comment line that carries the plan in a rendered recipe."""
        values = asdict(self)
        if self.machines == 1:
            del values["machines"]
        return MARK + json.dumps(values, separators=(", ", ": "))


def make_plan(recipe: Recipe, selection: Selection | None, index: ModelIndex) -> Plan:
    """Return what a recipe trains on a model of the given shapes.

    Raises:
        ScanError: the selection is for another model.
        RecipeError: the model has no layer that an adapter could stand beside.
    """
    ray = recipe.hardware.strategy is Strategy.RAY
    common: dict[str, Any] = {
        "recipe": recipe.name,
        "method": recipe.method.value,
        "machines": 1 if ray else recipe.hardware.machines,
    }
    total = index.total_parameters
    if selection is not None:
        selection.check_against(index)
        return Plan(
            **common,
            trainable=selection.trainable_parameters,
            total=total,
            tensors=len(selection.parameters),
            scan_sha256=selection.scan_sha256,
        )
    if recipe.lora is not None:
        trainable, tensors = count_adapters(index, rank=recipe.lora.rank)
        return Plan(**common, trainable=trainable, total=total, tensors=tensors)
    return Plan(**common, trainable=total, total=total, tensors=len(index.names))


def count_adapters(index: ModelIndex, *, rank: int) -> tuple[int, int]:
    """Return the adapters' parameters and tensors: ``rank`` × (rows + columns) for each layer.

    Raises:
        RecipeError: no layer of the model is a target.
    """
    layers = [t for t in index.tensors if t.module.rpartition(".")[2] in LORA_TARGETS]
    layers = [t for t in layers if len(t.shape) == 2]
    if not layers:
        raise RecipeError(f"{index.model} has none of the layers {', '.join(LORA_TARGETS)}")
    return sum(rank * sum(t.shape) for t in layers), 2 * len(layers)


def planned_index(recipe: Recipe) -> ModelIndex:
    """Return the shapes of the model that a recipe is planned for.

    Raises:
        ScanError: they are not known; the recipe's ``architecture`` may say them.
    """
    return model_index(recipe.architecture or recipe.base_model)


def read_plan(text: str) -> Plan | None:
    """Return the plan that a rendered recipe carries; None where it has none.

    Raises:
        RecipeError: the line is there and cannot be read.
    """
    for line in text.splitlines():
        if line.startswith(MARK.rstrip()):
            try:
                values: Mapping[str, Any] = json.loads(line.removeprefix(MARK.rstrip()))
                return Plan(**values)
            except (ValueError, TypeError) as error:
                raise RecipeError(
                    f"the line {MARK.strip()!r} cannot be read ({error}); render the recipe again, "
                    "or remove the line"
                ) from None
    return None
