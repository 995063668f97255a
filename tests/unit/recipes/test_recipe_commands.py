from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from kidrails_guard.cli import main
from kidrails_guard.recipes.library import recipe_names
from kidrails_guard.recipes.rendered import load_rendered


def test_list_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("kidrails ")
    assert main(["recipe", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(recipe_names())


def test_show_prints_the_file_or_the_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "show", "kidrails-small"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["attn_implementation"] == "sdpa"
    assert main(["recipe", "show", "kidrails-small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "kidrails-small"


def test_what_ships_is_as_its_specs_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "render", "--all", "--check"]) == 0
    assert main(["recipe", "render", "kidrails", "--check"]) == 0
    assert main(["recipe", "render", "kidrails", "--to", "unsloth", "--check"]) == 0
    assert "as their specs say" in capsys.readouterr().out


def test_render_writes_a_file_and_unsloth_a_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yml"
    assert main(["recipe", "render", "kidrails-lora", "-o", str(out)]) == 0
    assert yaml.safe_load(out.read_text())["adapter"] == "lora"
    assert main(["recipe", "render", "kidrails-lora", "--to", "unsloth"]) == 0
    assert 'method="lora"' in capsys.readouterr().out


def test_copy_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.yml"
    assert main(["recipe", "copy", "kidrails", str(out)]) == 0
    assert main(["recipe", "copy", "kidrails", str(out)]) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_the_commands_in_a_head_name_the_file_itself(tmp_path: Path) -> None:
    spec = tmp_path / "own.yaml"
    spec.write_text("extends: kidrails-qlora\nname: own\ntitle: my own title\n")
    for name, arguments in {
        "copied.yml": ["copy", "kidrails-lora"],
        "of my own.yml": ["render", str(spec), "-o"],
        "shipped.yml": ["render", "kidrails-lora", "-o"],
        "script.py": ["render", str(spec), "--to", "unsloth", "-o"],
    }.items():
        out = tmp_path / name
        assert main(["recipe", *arguments, str(out)]) == 0
        words = ("Check ", "Train ", "or ", "Change ", "Result ")
        lines = [line.removeprefix("# ") for line in out.read_text().splitlines()]
        commands = [line for line in lines if line.startswith(words)]
        assert len(commands) >= 2
        assert all(shlex.quote(str(out)) in command for command in commands), commands


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["render"], "render what?"),
        (["render", "kidrials"], "did you mean 'kidrails'"),
        (["validate", "none.yml"], "cannot be read"),
        (["validate", "kidrails", "--gpu", "voodoo"], "not one of h100"),
        (["validate", "kidrails", "--gpu", "cpu", "--gpus", "2"], "--gpus 2: a cpu has none"),
        (["copy", "kidrails", "/proc/none/mine.yml"], "cannot write"),
        (["render", "kidrails", "-o", "/proc/none/mine.yml"], "cannot write"),
    ],
)
def test_wrong_use_is_status_two(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_validate_finds_what_is_wrong_without_axolotl(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "mine.yml"
    assert main(["recipe", "copy", "kidrails", str(out)]) == 0
    text = out.read_text().replace(
        "^model.layers.0.mlp.down_proj", "^model.layers.99.mlp.down_proj"
    )
    out.write_text(text)
    capsys.readouterr()
    assert main(["recipe", "validate", str(out), "--without-axolotl", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)[0]
    texts = [r["text"] for r in report["results"] if r["level"] == "problem"]
    assert any("1 of 112 patterns match nothing" in text for text in texts)
    assert any("there is no" in text for text in texts)


def test_train_refuses_a_broken_recipe_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "none.yml"]) == 2
    assert main(["train", "kidrails-small", "--accelerate", '--config "x']) == 2
    assert "No closing quotation" in capsys.readouterr().err
    assert main(["train", "kidrails-small", "--on", "cpu", "--set", "nonsense"]) == 2
    assert "KEY=VALUE" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_line_ends_are_another_file(tmp_path: Path) -> None:
    out = tmp_path / "mine.yml"
    assert main(["recipe", "render", "kidrails-lora", "-o", str(out)]) == 0
    check = ["recipe", "render", "kidrails-lora", "-o", str(out), "--check"]
    assert main(check) == 0
    out.write_bytes(out.read_bytes().replace(b"\n", b"\r\n"))
    assert main(check) == 1


def test_away_from_the_checkout_every_file_that_is_named_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("kidrails-zero3", "kidrails-nodes"):
        out = tmp_path / f"{name}.yml"
        assert main(["recipe", "copy", name, str(out)]) == 0
        capsys.readouterr()
        assert main(["recipe", "show", name]) == 0
        for text in (out.read_text(), capsys.readouterr().out):
            named = re.findall(r"\S*recipes/\S+\.(?:yaml|yml|json)", text)
            assert named
            assert all(Path(file).is_file() for file in named), named
    shipped = load_rendered("kidrails-zero3")
    assert Path(shipped.config["deepspeed"]).is_file()
    assert "yours to change" not in text
