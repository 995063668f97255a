from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from kidrails_guard.cli import main
from kidrails_guard.errors import DataError
from kidrails_guard.recipes.judge_format import answer, parse_answer, question, write_rows
from kidrails_guard.types import About, AgeBand, Hazard, Message, Severity, Stage

ROW = {
    "id": "g1",
    "text": "is it ok",
    "context": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
    "stage": "input",
    "hazard": "K13",
    "severity": "mild",
    "about": "self",
    "band": "7-9",
    "split": "train",
}


def test_every_answer_reads_back() -> None:
    for labels in itertools.product(Hazard, Severity, About):
        assert parse_answer(answer(*labels)) == labels


@pytest.mark.parametrize(
    "text",
    ["", "safe", "K13", "K13 mild", "K99 mild self", "K13 mild self really", "K13 mild\nself"],
)
def test_anything_else_is_no_answer(text: str) -> None:
    with pytest.raises(ValueError, match=r"guard model|K99|severity"):
        parse_answer(text)


def test_the_question_shows_who_wrote_and_what_came_before() -> None:
    context = [Message("user", f"turn {i}") for i in range(9)]
    asked = question("yes", context=context, stage=Stage.OUTPUT, band=AgeBand.EARLY)[1]["content"]
    assert asked.startswith("Age: 5-6\n")
    assert "turn 2" not in asked
    assert "child: turn 8" in asked
    assert asked.endswith("written by the program:\nyes")


def test_rows_become_conversations_by_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "guard.jsonl"
    source.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "split": "dev"}) + "\n")
    assert main(["recipe", "guard-rows", "--data", str(source), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"guard_chat.jsonl": 1, "guard_chat.dev.jsonl": 1}
    row = json.loads((tmp_path / "guard_chat.jsonl").read_text())
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][2]["content"] == "K13 mild self"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hazard": "K99"}, "line 1: is wrong"),
        ({"severity": "huge"}, "huge"),
        ({"band": "3-4"}, "wrong"),
    ],
)
def test_a_wrong_label_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    source = tmp_path / "guard.jsonl"
    source.write_text(json.dumps({**ROW, **change}) + "\n")
    with pytest.raises(DataError, match=message):
        write_rows(source, tmp_path)


def test_a_missing_key_or_file_is_named(tmp_path: Path) -> None:
    source = tmp_path / "guard.jsonl"
    with pytest.raises(DataError, match="kidrails data build"):
        write_rows(source, tmp_path)
    source.write_text('{"id": "x"}\n')
    with pytest.raises(DataError, match="lacks 'split'"):
        write_rows(source, tmp_path)
    source.write_text(json.dumps(ROW) + "\n")
    with pytest.raises(DataError, match="no rows for one of the splits"):
        write_rows(source, tmp_path)


def test_only_a_new_line_ends_a_row(tmp_path: Path) -> None:
    source = tmp_path / "guard.jsonl"
    rows = [{**ROW, "text": "hello\u2028there"}, {**ROW, "split": "dev"}]
    source.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    assert write_rows(source, tmp_path) == {"guard_chat.jsonl": 1, "guard_chat.dev.jsonl": 1}
    source.write_bytes(b'{"id": "\xe9"}\n')
    with pytest.raises(DataError, match="cannot be read"):
        write_rows(source, tmp_path)
