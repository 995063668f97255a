"""Assembling a run without torch: splits, surroundings, hashes, the command's errors."""

from __future__ import annotations

import argparse
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from kidrails_guard.classifier.calibrate import HARD
from kidrails_guard.classifier.labels import SLICES, WIDTH
from kidrails_guard.classifier.thresholds import calibrate, compare, reliability
from kidrails_guard.classifier.training import assemble, source_hashes
from kidrails_guard.commands import guard as command
from kidrails_guard.errors import MissingDependency, UsageError
from kidrails_guard.policy import load_policy
from kidrails_guard.types import AgeBand, Stage


def test_splits_share_no_own_text(repository: Path) -> None:
    corpus = assemble(repository / "data", None)
    held = {(e.text.casefold(), e.stage, e.turns) for e in corpus.held_out}
    assert not held & {(e.text.casefold(), e.stage, e.turns) for e in corpus.train}
    counts = corpus.counts()
    assert counts["train"]["risky"] > 1_500
    assert counts["eval"]["pairs"] > 100
    assert "pairs" not in counts["dev"]


def test_surroundings_come_from_training_rows(repository: Path) -> None:
    corpus = assemble(repository / "data", None)
    train = {e.text for e in corpus.train}
    assert corpus.around.calm
    assert corpus.around.bad
    assert set(corpus.around.sentences) <= train
    assert {reply for _, reply in (*corpus.around.calm, *corpus.around.bad)} <= train


def test_a_trial_takes_few_rows_of_each_source(repository: Path) -> None:
    corpus = assemble(repository / "data", None, limit=5)
    assert all(n <= 5 for counts in corpus.counts().values() for n in counts.values())


def test_the_files_of_hard_messages_are_there(repository: Path) -> None:
    assert {path.stem for path in (repository / "data/messages").glob("*.tsv")} >= HARD


def test_a_run_ends_when_the_command_that_started_it_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from multiprocessing import get_context
            from kidrails_guard.classifier.training import teller

            def run():
                tell = teller(0)
                while True:
                    tell(str(os.getpid()))
                    time.sleep(0.05)

            if __name__ == "__main__":
                get_context("spawn").Process(target=run).start()
                time.sleep(60)
            """
        )
    )
    with subprocess.Popen(  # our own interpreter and file
        [sys.executable, str(script)], stderr=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stderr is not None
        assert parent.stderr.readline().startswith("run 1: ")
        parent.kill()
        # The pipe ends when the last process that holds it does.
        parent.communicate(timeout=30)


def test_every_file_read_is_named_with_its_hash(repository: Path) -> None:
    hashes = source_hashes(repository / "data", None)
    assert {"data/messages/risky.tsv", "data/golden/K01.jsonl"} <= set(hashes)
    assert all(len(value) == 64 for value in hashes.values())


def test_a_perfect_model_gets_thresholds_without_errors(repository: Path) -> None:
    dev = assemble(repository / "data", None).dev
    logits = np.zeros((len(dev), WIDTH), np.float32)
    for row, example in zip(logits, dev, strict=True):
        row[: len(example.target)] = np.where(example.target > 0, 6.0, -6.0)
        row[SLICES["kind"]] = np.where(example.kind > 0, 6.0, -6.0)
    calibration = calibrate(logits, dev, load_policy())
    scores = calibration.apply(logits)
    for at, name in enumerate(calibration.output):
        for band in AgeBand:
            limit = calibration.thresholds[band][name]
            assert calibration.weak[band][name] <= limit
            for example, score in zip(dev, scores[:, at], strict=True):
                if example.stage is Stage.INPUT and example.known[at]:
                    assert (score >= limit) == bool(example.target[at])
    bins = reliability(logits, dev, calibration)
    assert sum(b["rows"] for b in bins) > 10 * len(dev)
    assert compare(logits, logits, calibration)["texts_with_all_decisions_equal"] == 1.0


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_train_without_torch_or_its_environment_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"make \.venv-train/\.stamp"):
        command.run(arguments("train"))


def test_train_hands_the_command_to_the_training_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / ".venv-train/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@" > called\nexit 7\n', encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["kidrails", "guard", "train", "--epochs", "1"])
    assert command.run(arguments("train", "--epochs", "1")) == 7
    called = (tmp_path / "called").read_text(encoding="utf-8")
    assert called.split() == ["-m", "kidrails_guard", "guard", "train", "--epochs", "1"]


@pytest.mark.parametrize("option", ["--epochs", "--runs", "--jobs", "--threads"])
def test_less_than_one_of_what_is_counted_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} 0: accepted: 1 or more"):
        command.run(arguments("train", option, "0"))


def test_a_folder_without_messages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="messages"):
        command.run(arguments("evaluate", "--data", str(tmp_path)))
