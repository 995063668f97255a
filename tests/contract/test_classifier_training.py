"""A training run from end to end where torch is, on a handful of rows."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from kidrails_guard.checks.classifier import build
from kidrails_guard.classifier.model import read_manifest
from kidrails_guard.policy import load_policy
from kidrails_guard.types import NO_TURNS, AgeBand, Stage

pytestmark = [pytest.mark.train, pytest.mark.slow]


@pytest.fixture(scope="module")
def trained(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hazard")
    train(repository, out)
    return out


def run(repository: Path, *arguments: str, shared: str = "") -> subprocess.CompletedProcess[str]:
    python = repository / ".venv-train/bin/python"
    if not python.is_file():
        pytest.skip("no training environment; run: make .venv-train/.stamp")
    done = subprocess.run(
        [str(python), *arguments],
        cwd=repository,
        env={"KIDRAILS_SHARED": shared, "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return done


def train(repository: Path, out: Path, *, runs: int = 2) -> str:
    command = ["-m", "kidrails_guard", "guard", "train", "--limit", "6", "--epochs", "1", "--json"]
    where = ["--data", str(repository / "data"), "--out", str(out), "--runs", str(runs)]
    done = run(repository, *command, *where, shared=str(out))
    assert json.loads(done.stdout)["format"] == 1
    return done.stderr


def test_nothing_is_dropped_inside_the_encoder_while_it_learns(repository: Path) -> None:
    script = """
import torch
from kidrails_guard.classifier.network import HazardNetwork
from kidrails_guard.classifier.training import encoder_folder

encoder = HazardNetwork(encoder_folder()).train().encoder
first, second = (encoder(torch.arange(2000, 2040)[None]).last_hidden_state for _ in range(2))
print(torch.equal(first, second))
"""
    assert run(repository, "-c", script).stdout.strip() == "True"


def test_a_run_leaves_a_model_that_the_check_takes(trained: Path) -> None:
    manifest = read_manifest(trained)
    assert manifest["settings"]["limit"] == 6
    assert manifest["texts"]["train"]
    check = build(load_policy(), model=str(trained))
    found = check.find(NO_TURNS, "why is the sky blue", AgeBand.MIDDLE, Stage.INPUT)
    assert isinstance(found, tuple)


def test_the_weights_are_the_best_of_the_runs_and_their_mean(trained: Path) -> None:
    first, second, kept = (
        load_file(trained / f"{name}.safetensors") for name in ("run-1", "run-2", "weights")
    )
    assert not np.array_equal(first["head.weight"], second["head.weight"])
    history = read_manifest(trained)["history"]
    assert [epoch["run"] for epoch in history] == [1, 2, "average"]
    assert history[-1]["dev"] not in {epoch["dev"] for epoch in history[:-1]}
    mean = {name: (first[name] + second[name]) / 2 for name in first}
    best = min(zip(history, (first, second, mean), strict=True), key=lambda pair: pair[0]["dev"])[1]
    for name, tensor in kept.items():
        assert np.allclose(tensor, best[name], atol=1e-6), name


def test_runs_that_are_done_are_not_done_again(trained: Path, repository: Path) -> None:
    weights = (trained / "weights.safetensors").read_bytes()
    (trained / "run-2.safetensors").unlink()
    said = train(repository, trained)
    assert "run 1:" not in said
    assert "run 2: epoch 1" in said
    assert (trained / "weights.safetensors").read_bytes() == weights, "a run is not reproducible"


def test_more_runs_can_be_asked_for_later(trained: Path, repository: Path, tmp_path: Path) -> None:
    for name in ("run-1", "run-2"):
        shutil.copy(trained / f"{name}.safetensors", tmp_path)
    said = train(repository, tmp_path, runs=3)
    assert "run 1:" not in said
    assert "run 2:" not in said
    assert "run 3: epoch 1" in said
    manifest = read_manifest(tmp_path)
    assert manifest["settings"]["runs"] == 3
    assert [epoch["run"] for epoch in manifest["history"]] == [1, 2, 3, "average"]


def test_own_rows_train_alone_when_no_public_set_is_there(trained: Path, repository: Path) -> None:
    own = {path.stem for path in (repository / "data/messages").glob("*.tsv")} | {"golden"}
    assert set(read_manifest(trained)["texts"]["train"]) <= own
