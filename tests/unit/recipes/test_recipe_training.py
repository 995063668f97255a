"""`train` around a training that is played: what comes before it, and what is said after."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from kidrails_guard.errors import RecipeError
from kidrails_guard.recipes import training
from kidrails_guard.recipes.findings import Report, problem
from kidrails_guard.recipes.launch import Identity, Outcome, prepare_output
from kidrails_guard.recipes.preflight import Machine
from kidrails_guard.recipes.rendered import load_rendered
from kidrails_guard.recipes.training import Settings, Trained

Tensors = dict[str, np.ndarray]
BAD = problem("model", "played")
HUB = "someone/some-llama"
ADAPTER = {
    "base_model.model.m.q_proj.lora_A.weight": np.ones((2, 4), np.float32),
    "base_model.model.m.q_proj.lora_B.weight": np.ones((4, 2), np.float32),
}


def weights(*, seed: int = 1) -> Tensors:
    random = np.random.default_rng(seed)
    return {f"layers.{i}.weight": random.normal(size=(4, 4)).astype(np.float32) for i in range(3)}


def trained_weights() -> Tensors:
    changed = weights()
    changed["layers.1.weight"] += 1
    return changed


@dataclass
class Played:
    """A folder for one recipe, and the commands that would have trained it."""

    root: Path
    commands: list[list[str]] = field(default_factory=list)

    def train(self, config: dict[str, Any], **settings: Any) -> Trained:
        """Train a recipe on the CPU, as the command does."""
        rows = {"messages": [{"role": "assistant", "content": "Hi."}]}
        (self.root / "rows.jsonl").write_text(json.dumps(rows) + "\n")
        config = {"base_model": HUB, "datasets": [{"path": "rows.jsonl"}], **config}
        (self.root / "mine.yml").write_text(yaml.safe_dump(config))
        return training.train(
            load_rendered(str(self.root / "mine.yml")),
            Settings(
                machine=Machine.cpu(), root=self.root, python=Path(sys.executable), **settings
            ),
            say=lambda _: None,
        )


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Played]:
    """Return a folder in which a training leaves these tensors and losses."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def start(
        tensors: Tensors, *, file: str = "model", loss: float = 2.0, dies: bool = False
    ) -> Any:
        played = Played(tmp_path)

        def follow(command: list[str], *, log: Path, **_: Any) -> Outcome:
            played.commands.append(command)
            with pytest.raises(RecipeError, match="another training is writing into"):
                prepare_output(log.parent, Identity("", {}, {}, ""), fresh=True)
            log.write_text("it said this\n")
            step = 1 if dies and len(played.commands) == 1 else 2
            folder = log.parent / f"checkpoint-{step}"
            folder.mkdir()
            save_file(tensors, folder / f"{file}.safetensors")
            history = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": loss}]
            state = {"global_step": step, "max_steps": 2, "log_history": history}
            (folder / "trainer_state.json").write_text(json.dumps(state))
            if step == 1:
                return Outcome(1, 1.0, 1)
            save_file(tensors, log.parent / f"{file}.safetensors")
            return Outcome(0, 1.0, 1)

        monkeypatch.setattr(training, "preflight", lambda *_, **__: [Report("mine.yml", ())])
        monkeypatch.setattr(training, "follow", follow)
        return played

    return start


def test_an_adapter_on_a_base_from_the_hub_gets_its_record(play: Callable[..., Played]) -> None:
    made = play(ADAPTER, file="adapter_model").train(
        {"adapter": "lora", "lora_r": 2, "output_dir": "out"}
    )
    assert made.complaints == ()
    assert (made.record.changed, made.record.trainable, made.record.total) == (2, 16, 0)
    assert "| Trained | 16 parameters |" in (made.output / "TRAINING.md").read_text()


def test_without_the_base_nothing_is_said_to_be_proved(play: Callable[..., Played]) -> None:
    made = play(trained_weights()).train(
        {"unfrozen_parameters": ["^layers.1.weight$"], "output_dir": "out"}
    )
    assert not made.record.compared
    text = (made.output / "TRAINING.md").read_text()
    assert "NOT compared with the base" in text
    assert "equal to the base" not in text


def test_a_base_in_the_hubs_cache_is_compared(play: Callable[..., Played], tmp_path: Path) -> None:
    model = tmp_path / "hub" / "models--someone--some-llama"
    snapshot = model / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("a" * 40)
    save_file(weights(), snapshot / "model.safetensors")
    made = play(trained_weights()).train(
        {"unfrozen_parameters": ["^layers.0.weight$"], "output_dir": "out"}
    )
    assert (made.record.compared, made.record.changed, made.record.same) == (True, 1, 2)
    assert len(made.complaints) == 2
    assert "changed although they were frozen, first layers.1.weight" in made.complaints[0]


def test_a_loss_that_is_no_number_is_a_complaint_with_a_record(
    play: Callable[..., Played],
) -> None:
    made = play(trained_weights(), loss=float("nan")).train({"output_dir": "out"})
    assert made.complaints == ("the training loss was NaN or infinite",)
    record = json.loads((made.output / "training.json").read_text())
    assert record["train_loss"] == [[1, 3.0], [2, None]]


def test_a_run_that_ended_before_its_record_gets_one_from_the_same_command(
    play: Callable[..., Played],
) -> None:
    played = play(trained_weights())
    page = played.train({"output_dir": "out"}).output / "TRAINING.md"
    page.unlink()
    again = played.train({"output_dir": "out"})
    assert again.reused
    assert "| Time | not noted; on" in page.read_text()


def test_the_card_says_what_is_not_as_planned(
    play: Callable[..., Played],
) -> None:
    made = play(trained_weights(), loss=float("nan")).train({"output_dir": "out"})
    text = (made.output / "TRAINING.md").read_text()
    assert "| **Not as planned** | the training loss was NaN or infinite |" in text


def test_a_killed_run_goes_on_in_a_folder_elsewhere(
    play: Callable[..., Played], tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = tmp_path_factory.mktemp("elsewhere") / "out"
    played = play(trained_weights(), dies=True)
    with pytest.raises(training.TrainingFailed):
        played.train({"output_dir": str(output)})
    assert played.train({"output_dir": str(output)}).output == output
    assert f"--resume_from_checkpoint={output / 'checkpoint-1'}" in played.commands[1]


def test_without_an_output_folder_it_is_axolotls_own(play: Callable[..., Played]) -> None:
    assert play(trained_weights()).train({}).output.name == "model-out"


@pytest.mark.parametrize("folder", [".", ".."])
def test_the_folder_that_training_starts_in_is_not_moved_aside(
    play: Callable[..., Played], tmp_path: Path, folder: str
) -> None:
    with pytest.raises(RecipeError, match="holds the folder that training is started in"):
        play(trained_weights()).train({"output_dir": folder}, fresh=True)
    assert (tmp_path / "mine.yml").is_file()


def test_a_recipe_for_several_machines_does_not_train_on_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(**settings: Any) -> None:
        training.train(
            load_rendered("kidrails-nodes"),
            Settings(root=tmp_path, python=Path(sys.executable), **settings),
            say=lambda _: None,
        )

    with pytest.raises(RecipeError, match=r"is for 2 machines.*--machine_rank N"):
        start(machine=Machine("h100", 8))
    assert not list(tmp_path.iterdir())
    # Told which machine this is, it goes on to the preflight.
    monkeypatch.setattr(training, "preflight", lambda *_, **__: [Report("nodes", (BAD,))])
    with pytest.raises(RecipeError, match="1 problems, training not started"):
        start(machine=Machine("h100", 8), accelerate=("--machine_rank", "0"))


def test_a_recipe_for_one_gpu_takes_one_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert training._spread({}, 8) == ("--num_processes", "1", "--gpu_ids", "0")
    assert training._spread({}, 1) == training._spread({}, 0) == ()
    assert training._spread({"fsdp_config": {"x": 1}}, 8) == ("--num_processes", "8")
    # The ones that somebody left to us.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert training._spread({}, 2) == ("--num_processes", "1", "--gpu_ids", "3")
