"""The project's own rows: read, split, refused when wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from kidrails_guard.classifier.rows import (
    COLUMNS,
    EVAL_DIGITS,
    digit,
    golden_case,
    parse_turns,
    read_golden,
    read_messages,
    read_own,
)
from kidrails_guard.errors import DataError
from kidrails_guard.types import CASES, About, Hazard, Severity, Stage


def write(folder: Path, *rows: str, name: str = "risky") -> Path:
    path = folder / f"{name}.tsv"
    path.write_text("\t".join(COLUMNS) + "\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_a_row_says_what_stands_in_it(tmp_path: Path) -> None:
    path = write(tmp_path, "K10+K02\tsevere\tself\tinput\tU: hi || A: Hello!\tmeets\the waits")
    (row,) = read_messages(path)
    assert row.hazards == (Hazard.PERSONAL_DATA, Hazard.ABUSE_DISCLOSURE)
    assert (row.severity, row.about, row.stage) == (Severity.SEVERE, About.SELF, Stage.INPUT)
    assert [(t.role, t.text) for t in row.turns] == [("user", "hi"), ("assistant", "Hello!")]
    assert (row.case, row.text, row.source) == ("meets", "he waits", "risky")


def test_benign_rows_have_no_hazard(tmp_path: Path) -> None:
    (row,) = read_messages(write(tmp_path, "K00\tnone\tasks\tinput\t\t\twhy is it raining"))
    assert row.hazards == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("K99\tmild\tself\tinput\t\t\tx", "K99"),
        ("K01\tawful\tself\tinput\t\t\tx", "awful"),
        ("K01\tmild\tme\tinput\t\t\tx", "me"),
        ("K01\tmild\tself\tinside\t\t\tx", "inside"),
        ("K08\tmild\tself\tinput\t\thowto\tx", "plans"),
        ("K01\tmild\tself\tinput\t\tx", "columns"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = write(tmp_path, "K00\tnone\tasks\tinput\t\t\tfine", line)
    with pytest.raises(DataError, match=r"risky\.tsv:3") as error:
        list(read_messages(path))
    assert said in str(error.value)


def test_a_wrong_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "risky.tsv"
    path.write_text("hazard\ttext\n", encoding="utf-8")
    with pytest.raises(DataError, match="accepted: hazard, severity"):
        list(read_messages(path))


def test_quotes_in_a_text_are_only_quotes(tmp_path: Path) -> None:
    (row,) = read_messages(write(tmp_path, 'K00\tnone\tasks\tinput\t\t\t"why" he said'))
    assert row.text == '"why" he said'


def test_both_halves_of_a_minimal_pair_fall_on_one_side(repository: Path) -> None:
    rows = list(read_messages(repository / "data/messages/pairs.tsv"))
    assert len(rows) % 2 == 0
    splits = Counter(row.split for row in rows)
    assert all(a.split == b.split for a, b in zip(rows[::2], rows[1::2], strict=True))
    assert min(splits["eval"], splits["train"]) > len(rows) // 3


def test_a_golden_row_is_three_texts_on_one_side(repository: Path) -> None:
    rows = list(read_golden(repository / "data/golden/K04.jsonl"))
    message, good, bad = rows[:3]
    assert (message.stage, good.stage, bad.stage) == (Stage.INPUT, Stage.OUTPUT, Stage.OUTPUT)
    assert good.hazards == ()
    assert bad.hazards == (Hazard.VIOLENCE_HOWTO,)
    assert not bad.harmless
    assert good.turns[-1].text == message.text
    assert len({message.split, good.split, bad.split}) == 1


def test_conversation_siblings_share_a_side(repository: Path) -> None:
    sides: dict[str, set[str]] = {}
    for row in read_own(repository / "data"):
        if row.source == "golden":
            first = row.turns[0].text if row.turns else row.text
            sides.setdefault(first, set()).add(row.split)
            assert (row.split == "eval") == (digit(first) in EVAL_DIGITS)
    assert all(len(side) == 1 for side in sides.values())


def test_no_held_out_message_is_trained_on(repository: Path) -> None:
    rows = read_own(repository / "data")
    asked = [r for r in rows if r.stage is Stage.INPUT]
    train = {(r.text.casefold(), r.turns) for r in asked if r.split == "train"}
    held = {(r.text.casefold(), r.turns) for r in asked if r.split == "eval"}
    assert held
    assert not held & train


def test_every_shipped_case_is_one_of_the_hazards_own(repository: Path) -> None:
    for row in read_own(repository / "data"):
        known = {case for hazard in row.hazards for case in CASES.get(hazard, ())}
        assert row.case in {"", *known}


@pytest.mark.parametrize(
    ("hazard", "action", "case"),
    [
        (Hazard.SUBSTANCES, "refuse", "howto"),
        (Hazard.SUBSTANCES, "care", ""),
        (Hazard.BULLYING, "redirect", "suffers"),
        (Hazard.PERSONAL_DATA, "redact", "gives"),
        (Hazard.SELF_HARM, "crisis", ""),
    ],
)
def test_a_golden_action_implies_the_case(hazard: Hazard, action: str, case: str) -> None:
    assert golden_case(hazard, action) == case


def test_turns_without_a_mark_are_the_childs() -> None:
    assert parse_turns("hello")[0].role == "user"
    assert parse_turns("") == ()
