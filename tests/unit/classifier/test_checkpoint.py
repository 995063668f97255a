"""Which checkpoints may take MiniLM's place, and what is said of those that may not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kidrails_guard.classifier.checkpoint import FILES, LONGEST, in_folder
from kidrails_guard.classifier.encode import Turn, encode
from kidrails_guard.classifier.model import SHIPPED
from kidrails_guard.errors import DataError
from kidrails_guard.types import Stage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "small-bert"
    found.mkdir()
    (found / "config.json").write_text(
        json.dumps({"model_type": "bert", "max_position_embeddings": 512})
    )
    shutil.copy(SHIPPED / "tokenizer.json", found)
    (found / "model.safetensors").write_bytes(b"weights")
    return found


def test_a_bert_is_named_after_its_folder(folder: Path) -> None:
    encoder = in_folder(folder)
    assert encoder.record["name"] == "small-bert"
    assert len(encoder.record["sha256"]) == 64


def test_the_longest_window_is_as_long_as_positions_are_asked_for(folder: Path) -> None:
    turns = [Turn("user", "a b " * 99)] * 9
    windows = encode(in_folder(folder).tokenizer(), "a " * 999, turns, stage=Stage.INPUT)
    assert max(len(window.ids) for window in windows) == LONGEST


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"small-bert: lacks {name}"):
        in_folder(folder)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", "{", r"config\.json: not JSON"),
        ("config.json", "[]", r"config\.json: model_type: \[\]; accepted: 'bert'"),
        ("tokenizer.json", "{}", r"tokenizer\.json: not a tokenizer"),
    ],
)
def test_a_broken_file_is_named(folder: Path, name: str, text: str, said: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=said):
        in_folder(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "roberta"}, r"config\.json: model_type: 'roberta'; accepted: 'bert'"),
        ({"max_position_embeddings": 128}, r"max_position_embeddings: 128; accepted: 248 or more"),
        ({"max_position_embeddings": None}, "max_position_embeddings: None; accepted: 248 or more"),
        ({"type_vocab_size": 1}, r"type_vocab_size: 1; accepted: 2 or more"),
    ],
)
def test_another_kind_of_model_is_refused(folder: Path, change: dict[str, Any], said: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=said):
        in_folder(folder)


@pytest.mark.parametrize(
    ("token", "said"),
    [("[CLS]", r"id 101 is '\[cls\]'; accepted: '\[CLS\]'"), ("[unused1]", r"id 2 is 'used'")],
)
def test_another_vocabulary_is_refused(folder: Path, token: str, said: str) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["used" if token == "[unused1]" else token.lower()] = vocabulary.pop(token)
    tokenizer["added_tokens"] = []
    tokenizer["post_processor"] = None
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(DataError, match=said):
        in_folder(folder)
