from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kidrails_guard.content import content_path
from kidrails_guard.errors import RecipeError, ScanError
from kidrails_guard.recipes.axolotl import axolotl_config
from kidrails_guard.recipes.gallery import overview, render_one, shipped_files
from kidrails_guard.recipes.heading import launch_command
from kidrails_guard.recipes.library import load_recipe, load_selection, recipe_names
from kidrails_guard.recipes.plan import read_plan
from kidrails_guard.recipes.schema import Method, Strategy
from kidrails_guard.recipes.with_unsloth import read_conversations

NAMES = recipe_names()


def test_every_checked_in_file_is_what_its_spec_says() -> None:
    files = shipped_files()
    stale = [p.name for p, text in files.items() if p.read_text(encoding="utf-8") != text]
    assert stale == [], "run: kidrails recipe render --all"
    on_disk = {
        *content_path("recipes").glob("*.yml"),
        *content_path("recipes/unsloth").glob("*.py"),
    }
    assert on_disk <= set(files), "a rendered file has no spec"


def test_what_a_spec_changes_reaches_unsloth(tmp_path: Path) -> None:
    spec = tmp_path / "own.yaml"
    spec.write_text(
        "extends: kidrails-lora\nname: own\nlora: {dropout: 0.05}\n"
        "training: {weight_decay: 0.1, max_grad_norm: 0.5}\n"
    )
    text = render_one(str(spec), to="unsloth")
    assert "lora_dropout=0.05" in text
    assert "weight_decay=0.1" in text
    assert "max_grad_norm=0.5" in text


def test_unsloth_reads_rows_with_any_line_separator_in_a_text(tmp_path: Path) -> None:
    turns = [{"role": "assistant", "content": "one\u2028two\u0085three"}]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": turns}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_conversations(file) == [turns]


def test_a_key_that_stands_twice_in_a_spec_is_refused(tmp_path: Path) -> None:
    spec = tmp_path / "own.yaml"
    spec.write_text("extends: kidrails\nname: own\noutput: outputs/a\noutput: outputs/b\n")
    with pytest.raises(RecipeError, match="the key 'output' stands twice"):
        render_one(str(spec))


def test_several_machines_are_not_started_by_one_command() -> None:
    assert "kidrails train " not in render_one("kidrails-nodes")
    assert "kidrails train " in render_one("kidrails-ray")


@pytest.mark.parametrize("name", NAMES)
def test_the_file_parses_to_the_keys_that_were_meant(name: str) -> None:
    recipe = load_recipe(name)
    parsed = yaml.safe_load(render_one(name))
    assert parsed == axolotl_config(recipe, load_selection(recipe))


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_what_how_and_from_where(name: str) -> None:
    recipe, text = load_recipe(name), render_one(name)
    assert text.startswith(f"# {recipe.title}\n")
    header = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    command = launch_command(recipe, f"recipes/{name}.yml")
    assert f"# Train   {command}\n" in header
    assert f"# Change  {command} --learning_rate 1e-5" in header
    assert "estimated" in header
    assert recipe.hardware.needs in header
    plan = read_plan(text)
    assert plan is not None
    assert plan.recipe == name
    if recipe.method is Method.SPECTRUM:
        selection = load_selection(recipe)
        assert selection is not None
        assert selection.scan_sha256 == plan.scan_sha256
        assert selection.scan_sha256 in header


@pytest.mark.parametrize("name", NAMES)
def test_layers_stand_inline_and_anchored_never_in_the_plugin(name: str) -> None:
    config = yaml.safe_load(render_one(name))
    assert "plugins" not in config
    patterns = config.get("unfrozen_parameters", [])
    assert bool(patterns) is (load_recipe(name).method is Method.SPECTRUM)
    assert all(p.startswith("^model.layers.") and p.endswith(".weight$") for p in patterns)
    assert not any("\\" in pattern for pattern in patterns)


@pytest.mark.parametrize("name", NAMES)
def test_no_row_is_ever_dropped_silently(name: str) -> None:
    assert yaml.safe_load(render_one(name))["excess_length_strategy"] == "raise"


def test_accelerate_and_deepspeed_files_exist_and_parse() -> None:
    root = content_path("recipes").parent
    for name in NAMES:
        config = yaml.safe_load(render_one(name))
        if "deepspeed" in config:
            assert yaml.safe_load((root / config["deepspeed"]).read_text())["zero_optimization"]
        words = launch_command(load_recipe(name), "x.yml").split()
        if "--config_file" in words:
            file = root / words[words.index("--config_file") + 1]
            recipe = load_recipe(name)
            settings = yaml.safe_load(file.read_text())
            assert settings["num_processes"] == recipe.hardware.devices
            assert settings["num_machines"] == recipe.hardware.machines


def test_ray_uses_axolotls_own_launcher() -> None:
    recipe = load_recipe("kidrails-ray")
    config = axolotl_config(recipe, load_selection(recipe))
    assert recipe.hardware.strategy is Strategy.RAY
    assert config["use_ray"] is True
    assert config["ray_num_workers"] == recipe.hardware.devices
    assert launch_command(recipe, "x.yml") == "python -m axolotl.cli.train x.yml"


def test_another_model_than_the_selections_is_refused() -> None:
    with pytest.raises(ScanError, match="another model"):
        render_one("kidrails", base_model="meta-llama/Llama-3.2-1B")


def test_layers_are_only_for_spectrum(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--selection is for Spectrum"):
        render_one("kidrails-lora", selection_file=tmp_path / "s.json")


def test_unsloth_scripts_are_thin_and_say_the_same() -> None:
    for path in sorted(content_path("recipes/unsloth").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 60
        recipe = load_recipe(path.stem.replace("_", "-"))
        call = next(n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call))
        job = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        assert job["selection"] == recipe.selection
        assert job["data"] == recipe.data.train
        assert job["learning_rate"] == recipe.training.learning_rate
        plan = read_plan(render_one(recipe.name))
        assert plan is not None
        assert job["trainable"] == plan.trainable


def test_an_unsloth_script_answers_help_without_torch() -> None:
    path = content_path("recipes/unsloth/kidrails.py")
    done = subprocess.run(
        [sys.executable, str(path), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--learning_rate" in done.stdout


def test_unsloth_cannot_do_pairs_or_several_gpus() -> None:
    for name in ("kidrails-dpo", "kidrails-fsdp2"):
        with pytest.raises(RecipeError, match="cannot be rendered for Unsloth"):
            render_one(name, to="unsloth")


def test_the_overview_has_every_recipe() -> None:
    assert [row["name"] for row in overview()] == list(NAMES)


def test_the_overview_names_files_as_they_are_found_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As after an install by pip: the folder at hand holds no recipes.
    monkeypatch.chdir(tmp_path)
    for row in overview():
        assert Path(row["file"]).is_file()
        words = shlex.split(row["command"])
        files = [word for word in words if word.endswith((".yml", ".yaml"))]
        assert row["file"] in files
        assert all(Path(file).is_file() for file in files)
    # What ships in the repository is named from its root all the same.
    assert all(row["file"].startswith("recipes/") for row in overview(ships=True))
