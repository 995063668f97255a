from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from kidrails_guard.recipes.card import (
    TrainingRecord,
    cpu_name,
    draw_losses,
    losses,
    page,
    write_record,
)

RECORD = TrainingRecord(
    recipe="kidrails-small",
    base_model="build/models/x",
    method="spectrum",
    trainable=40,
    total=100,
    changed=2,
    same=36,
    compared=True,
    steps=2,
    train_loss=((1, 3.0), (2, 2.0)),
    held_out_loss=((0, 3.5), (2, 2.5)),
    seconds=12.3,
    peak_mb=900,
    machine="some CPU",
    command="accelerate launch -m axolotl.cli.train recipes/kidrails-small.yml",
    identity={"recipe": "a" * 64, "data": {"sft.jsonl": "b" * 64}},
    versions={"axolotl": "0.19.0"},
)


def test_the_trainers_log_becomes_two_curves() -> None:
    history = [
        {"step": 0, "eval_loss": 3.5},
        {"step": 1, "loss": 3.0, "grad_norm": 1},
        {"step": 2, "loss": 2.0},
        {"step": 2, "eval_loss": 2.5},
        {"step": 2, "train_loss": 2.6, "train_runtime": 3},
    ]
    assert losses(history) == (RECORD.train_loss, RECORD.held_out_loss)


def test_the_record_is_written_whole(tmp_path: Path) -> None:
    file = write_record(tmp_path, RECORD)
    manifest = json.loads((tmp_path / "training.json").read_text())
    assert manifest["held_out_loss"] == [[0, 3.5], [2, 2.5]]
    text = file.read_text()
    assert "3.500 -> 2.500" in text
    assert "40 of 100 parameters (40.0%)" in text
    assert "b" * 64 in text
    ElementTree.fromstring((tmp_path / "loss.svg").read_bytes())


def test_the_same_losses_draw_the_same_picture() -> None:
    assert draw_losses(RECORD) == draw_losses(RECORD)
    assert draw_losses(RECORD) != draw_losses(replace(RECORD, train_loss=((1, 3.0), (2, 1.0))))


def test_the_machine_is_named_by_its_processor_alone() -> None:
    import socket

    assert cpu_name()
    assert socket.gethostname() not in cpu_name()


def test_nothing_measured_is_said_so() -> None:
    bare = replace(RECORD, held_out_loss=(), train_loss=())
    assert bare.held_out_change is None
    assert "not measured" in page(bare)
    assert draw_losses(bare).startswith(b"<?xml")


def test_an_adapters_page_says_that_the_base_is_untouched() -> None:
    assert "the base is untouched" in page(replace(RECORD, method="lora"))
