"""Real runs of axolotl on a tiny random Llama: what is trained, what is not, and after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kidrails_guard.cli import main
from kidrails_guard.recipes.card import losses
from kidrails_guard.recipes.environment import train_environ
from kidrails_guard.recipes.launch import newest_checkpoint, read_state
from kidrails_guard.recipes.proof import check_changes, compare_checkpoints
from kidrails_guard.spectrum.checkpoint import read_index

if TYPE_CHECKING:
    from conftest import Workshop

# A busy machine may take ten times as long.
pytestmark = [pytest.mark.train, pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS = 40
SPEC = f"""
extends: kidrails-small
base_model: tiny
architecture: null
data: {{train: sft.jsonl, held_out: 0.125}}
sequence_len: 128
training: {{max_steps: {STEPS}, epochs: 9, learning_rate: 0.01, save_every: 8}}
output: outputs/tiny
"""


@pytest.fixture(scope="module")
def recipe(workshop: Workshop, write_spec: Any) -> Path:
    """The small recipe that ships, for the tiny model and its layers."""
    spec = write_spec("tiny-run", SPEC)
    out = workshop.root / "tiny-run.yml"
    selection = str(workshop.root / "selection.json")
    cwd = Path.cwd()
    os.chdir(workshop.root)
    try:
        assert main(["recipe", "render", str(spec), "--selection", selection, "-o", str(out)]) == 0
    finally:
        os.chdir(cwd)
    return out


@pytest.fixture(scope="module")
def plain(workshop: Workshop, recipe: Path) -> Path:
    """The recipe trained by accelerate alone, without any command of ours."""
    done = workshop.run(
        *("-m", "accelerate.commands.launch", "-m", "axolotl.cli.train", str(recipe)),
        "--output_dir=outputs/plain",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return workshop.root / "outputs" / "plain"


def test_plain_accelerate_trains_the_rendered_recipe(plain: Path) -> None:
    train, held_out = losses(read_state(plain)["log_history"])
    assert len(train) == STEPS
    assert train[-1][1] < train[0][1] - 0.4
    assert held_out[0][0] == 0
    assert held_out[-1][1] < held_out[0][1] - 0.4


def test_exactly_the_selected_tensors_change(plain: Path, workshop: Workshop) -> None:
    changes = compare_checkpoints(read_index(workshop.model), read_index(plain))
    assert changes.changed == workshop.trained
    assert len(changes.same) == len(read_index(workshop.model).names) - len(workshop.trained)
    assert check_changes(changes, workshop.trained) == []


def kill_after_checkpoint(command: list[str], output: Path, step: int, *, root: Path) -> None:
    """Start training in a process group, and kill all of it once a checkpoint is whole."""
    process = subprocess.Popen(
        command,
        cwd=root,
        env=train_environ(offline=True) | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 900
        while time.monotonic() < until and process.poll() is None:
            found = newest_checkpoint(output)
            if found is not None and int(found.name.split("-")[1]) >= step:
                break
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_after_sigkill_it_goes_on_to_the_same_end(
    in_workshop: Workshop, recipe: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = in_workshop.root, in_workshop.root / "outputs" / "tiny"
    command = [sys.executable, "-m", "kidrails_guard", "train", str(recipe), "--on", "cpu"]
    kill_after_checkpoint(command, output, 8, root=root)
    left = newest_checkpoint(output)
    assert left is not None
    stopped_at = int(left.name.split("-")[1])
    assert stopped_at < STEPS, "the run was over before it could be killed"
    assert not (output / "training.json").exists()

    assert main(["train", str(recipe), "--on", "cpu", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["complaints"] == []
    assert (record["steps"], record["changed"]) == (STEPS, len(in_workshop.trained))
    assert "resume_from_checkpoint" in (output / "kidrails_train.log").read_text()

    # The same numbers as the run that nobody killed.
    train, held_out = losses(read_state(plain)["log_history"])
    assert record["train_loss"][-1][1] == pytest.approx(train[-1][1], abs=1e-5)
    assert record["held_out_loss"][-1][1] == pytest.approx(held_out[-1][1], abs=1e-5)
    assert record["held_out_loss"][-1][1] < record["held_out_loss"][0][1] - 0.4

    for name in ("TRAINING.md", "loss.svg", "model.safetensors", "tokenizer.json"):
        assert (output / name).stat().st_size > 0
    changes = compare_checkpoints(read_index(in_workshop.model), read_index(output))
    assert check_changes(changes, in_workshop.trained) == []


def test_preference_pairs_train_an_adapter_beside_an_untouched_base(
    in_workshop: Workshop, write_spec: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(
        "pairs",
        "extends: kidrails-dpo\nbase_model: tiny\narchitecture: null\n"
        "chat: {template: tokenizer_default, eos_token: <|im_end|>, pad_token: <|im_end|>}\n"
        "data: {train: preference.jsonl, held_out: 0.125}\nsequence_len: 256\n"
        "training: {max_steps: 6, accumulation: 2, learning_rate: 0.01, save_every: 6}\n"
        "output: outputs/pairs\n",
    )
    assert main(["recipe", "render", str(spec), "-o", "pairs.yml"]) == 0
    before = (in_workshop.model / "model.safetensors").read_bytes()
    capsys.readouterr()
    # A recipe for a GPU: --on cpu changes what has to be changed.
    assert yaml.safe_load(Path("pairs.yml").read_text())["bf16"] is True
    assert main(["train", "pairs.yml", "--on", "cpu", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["complaints"] == []
    assert record["method"] == "lora"
    assert record["changed"] == 2 * 7 * 4
    first, last = record["held_out_loss"][0][1], record["held_out_loss"][-1][1]
    assert first == pytest.approx(0.6931, abs=1e-3)
    assert last < first
    assert (in_workshop.model / "model.safetensors").read_bytes() == before
