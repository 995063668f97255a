from __future__ import annotations

import json
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from kidrails_guard.errors import RecipeError
from kidrails_guard.recipes import launch
from kidrails_guard.recipes.launch import (
    Identity,
    follow,
    hold_output,
    identify,
    is_finished,
    launch_arguments,
    newest_checkpoint,
    prepare_output,
    tail,
)
from kidrails_guard.recipes.rendered import Rendered


def identity(**changes: Any) -> Identity:
    values: Mapping[str, Any] = {"recipe": "r", "overrides": {}, "data": {"d": "1"}, "base": "b"}
    return Identity(**{**values, **changes})


def checkpoint(output: Path, step: int, *, last: int = 20) -> Path:
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"a.weight": np.zeros(4, np.float32)}, folder / "model.safetensors")
    with zipfile.ZipFile(folder / "optimizer.pt", "w") as file:
        file.writestr("data", b"x" * 1000)
    state = {"global_step": step, "max_steps": last, "log_history": []}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def test_an_empty_folder_begins_anew(tmp_path: Path) -> None:
    start = prepare_output(tmp_path / "out", identity(), fresh=False)
    assert (start.done, start.checkpoint) == (False, None)


def test_the_same_run_goes_on_from_its_newest_whole_checkpoint(tmp_path: Path) -> None:
    prepare_output(tmp_path, identity(), fresh=False)
    first = checkpoint(tmp_path, 5)
    checkpoint(tmp_path, 10)
    assert prepare_output(tmp_path, identity(), fresh=False).checkpoint == newest_checkpoint(
        tmp_path
    )
    # The second was cut off while it was written.
    (tmp_path / "checkpoint-10" / "trainer_state.json").unlink()
    assert newest_checkpoint(tmp_path) == first


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt"])
def test_a_cut_off_checkpoint_is_not_used(tmp_path: Path, file: str) -> None:
    folder = checkpoint(tmp_path, 5)
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2])
    assert newest_checkpoint(tmp_path) is None


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    prepare_output(tmp_path, identity(), fresh=False)
    checkpoint(tmp_path, 20)
    assert not is_finished(tmp_path)
    save_file({"a.weight": np.zeros(4, np.float32)}, tmp_path / "model.safetensors")
    assert prepare_output(tmp_path, identity(), fresh=False).done


@pytest.mark.parametrize(
    ("changes", "named"), [({"data": {"d": "2"}}, "data"), ({"overrides": {"lr": 1}}, "overrides")]
)
def test_another_run_is_never_overwritten(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    prepare_output(tmp_path, identity(), fresh=False)
    with pytest.raises(RecipeError, match=f"another {named}"):
        prepare_output(tmp_path, identity(**changes), fresh=False)


def test_a_foreign_folder_is_moved_aside_only_when_asked(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "model.safetensors").write_bytes(b"x")
    with pytest.raises(RecipeError, match="--fresh"):
        prepare_output(output, identity(), fresh=False)
    prepare_output(output, identity(), fresh=True)
    assert (tmp_path / "out.1" / "model.safetensors").read_bytes() == b"x"
    assert not (output / "model.safetensors").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_two_runs_do_not_write_one_folder(tmp_path: Path, fresh: bool) -> None:
    output = tmp_path / "out"
    prepare_output(output, identity(), fresh=False)
    with hold_output(output):
        with pytest.raises(RecipeError, match="another training is writing into"):
            prepare_output(output, identity(), fresh=fresh)
        assert (output / launch.RUN_FILE).is_file()
    assert prepare_output(output, identity(), fresh=fresh).checkpoint is None


def test_a_folder_that_cannot_be_written_is_an_error() -> None:
    with pytest.raises(RecipeError, match="cannot be written"):
        prepare_output(Path("/proc/nowhere/out"), identity(), fresh=False)


def test_what_decides_the_outcome_is_in_the_identity(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("1")
    config = {"base_model": "hub/name", "datasets": [{"path": "d.jsonl"}]}
    recipe = Rendered(tmp_path / "r.yml", config, None, config, {})
    first = identify(recipe, tmp_path)
    assert identify(recipe, tmp_path).digest == first.digest
    assert identify(recipe.override({"output_dir": "elsewhere"}), tmp_path).digest == first.digest
    assert identify(recipe.override({"learning_rate": 1}), tmp_path).digest != first.digest
    (tmp_path / "d.jsonl").write_text("2")
    assert identify(recipe, tmp_path).digest != first.digest


def test_a_base_model_of_other_weights_is_another_run(tmp_path: Path) -> None:
    def base(value: float) -> str:
        (tmp_path / "base").mkdir(exist_ok=True)
        weights = {"model.layers.0.mlp.up_proj.weight": np.full((4, 4), value, np.float32)}
        save_file(weights, tmp_path / "base" / "model.safetensors")
        config = {"base_model": "base"}
        return identify(Rendered(tmp_path / "r.yml", config, None, config, {}), tmp_path).digest

    first = base(1.0)
    assert base(1.0) == first
    assert base(2.0) != first  # the same names, shapes and sizes


def test_the_command_is_accelerates_or_rays() -> None:
    recipe = Rendered(Path("r.yml"), {}, None, {}, {})
    command = launch_arguments(
        recipe, python=Path("py"), flags={"bf16": False}, accelerate=("--num_processes", "2")
    )
    expected = "py -m accelerate.commands.launch --num_processes 2 -m axolotl.cli.train r.yml"
    assert " ".join(command) == f"{expected} --bf16=false"
    ray = launch_arguments(recipe.override({"use_ray": True}), python=Path("py"), flags={})
    assert ray == ["py", "-m", "axolotl.cli.train", "r.yml"]


SCRIPT = r"""
import sys, time
sys.stderr.write("  5%| | 1/20 [00:00<00:03,  5.20it/s]\r")
print("{'loss': '5.784', 'grad_norm': '0.2'}", flush=True)
print("{'eval_loss': '4.1'}", flush=True)
sys.stderr.write(" 10%| | 2/20 [00:00<00:03,  5.20it/s]\r")
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("status", [0, 3])
def test_a_run_is_followed_to_its_end(tmp_path: Path, status: int) -> None:
    seen: list[tuple[int, int, float | None]] = []
    outcome = follow(
        [sys.executable, "-c", SCRIPT, str(status)],
        root=tmp_path,
        log=tmp_path / "log",
        offline=True,
        progress=lambda *step: seen.append(step),
    )
    assert outcome.status == status
    assert seen[-1][:2] == (2, 20)
    assert 5.784 in [loss for _, _, loss in seen]
    assert "eval_loss" in tail(tmp_path / "log")


def interrupt(script: str, folder: Path) -> None:
    """Follow a script until it reports its first step, and be interrupted then."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(
            [sys.executable, "-c", script],
            root=folder,
            log=folder / "log",
            offline=True,
            progress=stop,
        )


def test_an_interrupt_stops_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    real = launch.subprocess.Popen

    def remember(*args: Any, **kwargs: Any) -> Any:
        started.append(real(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(launch.subprocess, "Popen", remember)
    script = "import sys, time; print('| 1/2 [', flush=True); time.sleep(60)"
    interrupt(script, tmp_path)
    assert started[0].poll() is not None


def test_an_interrupt_stops_what_the_launcher_started(tmp_path: Path) -> None:
    # As accelerate does: the training is a child that hears nothing of its launcher's end.
    worker = (
        "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid()));"
        "print('| 1/2 [', flush=True); time.sleep(60)"
    )
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    interrupt(script, tmp_path)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the training goes on")
