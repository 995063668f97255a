from __future__ import annotations

from pathlib import Path

import pytest

from kidrails_guard.errors import RecipeError
from kidrails_guard.recipes.library import (
    load_recipe,
    load_selection,
    load_spec,
    merge,
    parse_recipe,
    recipe_names,
)
from kidrails_guard.recipes.plan import make_plan, planned_index, read_plan
from kidrails_guard.recipes.schema import Method, Stage, Strategy


def values(**changes: object) -> dict[str, object]:
    return {**load_recipe("kidrails").model_dump(mode="json"), **changes}


def test_every_shipped_recipe_loads_and_main_comes_first() -> None:
    names = recipe_names()
    assert names[0] == "kidrails"
    assert {load_recipe(name).name for name in names} == set(names)


def test_the_siblings_that_the_project_promises_are_there() -> None:
    recipes = [load_recipe(name) for name in recipe_names()]
    assert {r.method for r in recipes} == set(Method)
    assert {r.stage for r in recipes} == set(Stage)
    assert {r.hardware.strategy for r in recipes} == set(Strategy)
    assert any(r.hardware.machines > 1 and r.hardware.strategy is Strategy.FSDP2 for r in recipes)
    assert any(r.hardware.gpus == 0 for r in recipes)
    assert load_recipe("kidrails-guard").base_model == "meta-llama/Llama-3.2-1B"


def test_a_child_keeps_what_it_does_not_change() -> None:
    parent, child = load_recipe("kidrails"), load_recipe("kidrails-fsdp2")
    assert child.selection == parent.selection
    assert child.training.learning_rate == parent.training.learning_rate
    assert child.training.micro_batch == 1


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(RecipeError, match="did you mean 'kidrails-qlora'"):
        load_recipe("kidrails-qlore")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "lora"}, "selection is for method spectrum"),
        ({"selection": None}, "selection is for method spectrum"),
        ({"stage": "dpo"}, "dpo is for stage dpo"),
        ({"lora": {"rank": 8}}, "lora is for the methods"),
        ({"sequence_len": 0}, "sequence_len"),
        ({"learning_rte": 1}, "learning_rte: Extra inputs"),
        ({"hardware": {"needs": "eight GPUs", "gpus": 8}}, "say how several GPUs"),
        ({"hardware": {"needs": "one GPU", "strategy": "fsdp2"}}, "needs several GPUs"),
        ({"hardware": {"needs": "a CPU", "gpus": 0}}, "a CPU trains in fp32"),
        ({"name": "Kid Rails"}, "name"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(values(**changes), where="x.yaml")


def test_pairs_cannot_be_packed() -> None:
    raw = load_recipe("kidrails-dpo").model_dump(mode="json")
    raw["training"]["packing"] = True
    with pytest.raises(RecipeError, match="cannot be packed"):
        parse_recipe(raw, where="x.yaml")


def test_a_spec_of_ones_own_extends_a_shipped_one(tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text("extends: kidrails\nname: mine\ntraining:\n  epochs: 1\n")
    recipe = load_spec(spec)
    assert (recipe.name, recipe.training.epochs) == ("mine", 1)
    assert recipe.training.micro_batch == load_recipe("kidrails").training.micro_batch


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "extends: nobody\n"])
def test_a_broken_spec_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    spec = tmp_path / "broken.yaml"
    spec.write_text(text)
    with pytest.raises(RecipeError, match=r"broken\.yaml|nobody\.yaml"):
        load_spec(spec)


def test_a_circle_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: a\n")
    with pytest.raises(RecipeError, match=r"circle: \S*a\.yaml -> \S*b\.yaml -> \S*a\.yaml"):
        load_spec(tmp_path / "a.yaml")
    (tmp_path / "self.yaml").write_text("extends: self\n")
    with pytest.raises(RecipeError, match=r"circle: \S*self\.yaml -> \S*self\.yaml"):
        load_spec(tmp_path / "self.yaml")


def test_a_spec_with_the_name_of_one_that_ships_extends_that_one(tmp_path: Path) -> None:
    spec = tmp_path / "kidrails.yaml"
    spec.write_text("extends: kidrails\ntraining:\n  epochs: 1\n")
    assert load_spec(spec).training.epochs == 1


@pytest.mark.parametrize("parent", ["5", "[kidrails]", "kidrails.yaml", "nobody"])
def test_what_cannot_be_extended_says_what_can(tmp_path: Path, parent: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"extends: {parent}\n")
    with pytest.raises(RecipeError, match=r"mine\.yaml: extends is .*kidrails-25"):
        load_spec(tmp_path / "mine.yaml")


def test_merging_replaces_lists_and_removes_nulls() -> None:
    assert merge({"a": [1, 2], "b": 1}, {"a": [3], "b": None}) == {"a": [3]}


def test_the_plan_counts_what_the_shapes_say() -> None:
    recipe = load_recipe("kidrails")
    plan = make_plan(recipe, load_selection(recipe), planned_index(recipe))
    assert (plan.trainable, plan.total, plan.tensors) == (3_489_660_928, 8_030_261_248, 112)
    assert plan.share == pytest.approx(0.4346, abs=1e-4)


def test_adapters_are_rank_times_both_sides() -> None:
    recipe = load_recipe("kidrails-lora")
    plan = make_plan(recipe, None, planned_index(recipe))
    # q, o: 2 x 4096; k, v: 4096 + 1024; gate, up, down: 4096 + 14336; 32 layers, rank 16.
    one_layer = 16 * (2 * 8192 + 2 * 5120 + 3 * 18432)
    assert (plan.trainable, plan.tensors) == (32 * one_layer, 2 * 7 * 32)


def test_the_plan_survives_its_line() -> None:
    recipe = load_recipe("kidrails-25")
    plan = make_plan(recipe, load_selection(recipe), planned_index(recipe))
    assert read_plan(f"# other\n{plan.line()}\nbase_model: x\n") == plan
    assert read_plan("base_model: x\n") is None
    with pytest.raises(RecipeError, match="render the recipe again"):
        read_plan('# kidrails-plan: {"recipe": 1')
