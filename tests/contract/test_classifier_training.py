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


TRAIN = ("-m", "kidrails_guard", "guard", "train", "--limit", "6", "--epochs", "1", "--json")


def call(repository: Path, *arguments: str, shared: str = "") -> subprocess.CompletedProcess[str]:
    python = repository / ".venv-train/bin/python"
    if not python.is_file():
        pytest.skip("no training environment; run: make .venv-train/.stamp")
    return subprocess.run(
        [str(python), *arguments],
        cwd=repository,
        env={"KIDRAILS_SHARED": shared, "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def run(repository: Path, *arguments: str, shared: str = "") -> subprocess.CompletedProcess[str]:
    done = call(repository, *arguments, shared=shared)
    assert done.returncode == 0, done.stderr[-2_000:]
    return done


def train(repository: Path, out: Path, *more: str, runs: int = 2) -> str:
    where = ["--data", str(repository / "data"), "--out", str(out), "--runs", str(runs)]
    done = run(repository, *TRAIN, *where, *more, shared=str(out))
    assert json.loads(done.stdout)["format"] == 1
    return done.stderr


def test_nothing_is_dropped_inside_the_encoder_while_it_learns(repository: Path) -> None:
    script = """
import torch
from kidrails_guard.classifier.network import HazardNetwork
from kidrails_guard.classifier.checkpoint import minilm

encoder = HazardNetwork(minilm().folder).train().encoder
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


@pytest.fixture(scope="module")
def small_bert(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "small-bert"
    script = f"""
import shutil, torch
from transformers import BertConfig, BertModel
from kidrails_guard.classifier.checkpoint import minilm

torch.manual_seed(0)
config = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                    intermediate_size=128, max_position_embeddings=256)
BertModel(config).save_pretrained({str(folder)!r})
shutil.copy(minilm().folder / "tokenizer.json", {str(folder)!r})
"""
    run(repository, "-c", script)
    return folder


def test_another_encoder_can_be_trained(
    trained: Path, small_bert: Path, repository: Path, tmp_path: Path
) -> None:
    shutil.copy(trained / "run-1.safetensors", tmp_path)
    said = train(repository, tmp_path, "--encoder", str(small_bert), runs=1)
    assert "run 1: epoch 1" in said, "a run from MiniLM was taken for one from another encoder"
    manifest = read_manifest(tmp_path)
    assert manifest["encoder"]["name"] == "small-bert"
    assert manifest["files"]["model.onnx"]["bytes"] < 10_000_000
    found = build(load_policy(), model=str(tmp_path)).find(
        NO_TURNS, "why is the sky blue", AgeBand.MIDDLE, Stage.INPUT
    )
    assert isinstance(found, tuple)


@pytest.mark.parametrize("shape", ["another", "the same"])
def test_weights_of_another_encoder_are_refused(
    trained: Path, small_bert: Path, repository: Path, tmp_path: Path, shape: str
) -> None:
    other, out = tmp_path / "other-bert", tmp_path / "out"
    shutil.copytree(small_bert, other)
    weights = trained / "weights.safetensors"
    if shape == "the same":
        script = f"""
from pathlib import Path
from kidrails_guard.classifier.export import save_weights
from kidrails_guard.classifier.network import HazardNetwork

record = {{"settings": {{}}, "sources": {{}}, "encoder": "0" * 64}}
save_weights(HazardNetwork(Path({str(other)!r})), Path({str(other / "w.safetensors")!r}),
             record=record)
"""
        run(repository, "-c", script)
        weights = other / "w.safetensors"
    where = ["--weights", str(weights), "--encoder", str(other), "--out", str(out)]
    done = call(repository, *TRAIN, *where)
    assert done.returncode != 0
    assert f"{weights}: {'trained from' if shape == 'the same' else 'weights of'} another" in (
        done.stderr
    )
    assert "--encoder" in done.stderr
    assert not list(out.iterdir())
