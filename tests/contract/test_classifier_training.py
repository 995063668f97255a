"""A training run from end to end where torch is, on a handful of rows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kidrails_guard.checks.classifier import build
from kidrails_guard.classifier.model import read_manifest
from kidrails_guard.policy import load_policy
from kidrails_guard.types import NO_TURNS, AgeBand, Stage

pytestmark = [pytest.mark.train, pytest.mark.slow]


@pytest.fixture(scope="module")
def trained(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = repository / ".venv-train/bin/python"
    if not python.is_file():
        pytest.skip("no training environment; run: make .venv-train/.stamp")
    out = tmp_path_factory.mktemp("hazard")
    command = [python, "-m", "kidrails_guard", "guard", "train", "--limit", "6", "--epochs", "1"]
    done = subprocess.run(
        [*map(str, command), "--data", "data", "--out", str(out), "--json"],
        cwd=repository,
        env={"KIDRAILS_SHARED": str(out), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert json.loads(done.stdout)["format"] == 1
    return out


def test_a_run_leaves_a_model_that_the_check_takes(trained: Path) -> None:
    manifest = read_manifest(trained)
    assert manifest["settings"]["limit"] == 6
    assert manifest["texts"]["train"]
    check = build(load_policy(), model=str(trained))
    found = check.find(NO_TURNS, "why is the sky blue", AgeBand.MIDDLE, Stage.INPUT)
    assert isinstance(found, tuple)


def test_own_rows_train_alone_when_no_public_set_is_there(trained: Path, repository: Path) -> None:
    own = {path.stem for path in (repository / "data/messages").glob("*.tsv")} | {"golden"}
    assert set(read_manifest(trained)["texts"]["train"]) <= own
