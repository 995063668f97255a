"""Ordinary talk is measured and never learned."""

from __future__ import annotations

from pathlib import Path

from kidrails_guard.classifier.rows import COLUMNS, read_own

ROW = "K00\tnone\tnone\tinput\t\t\t"


def test_no_run_sees_the_held_out_texts(tmp_path: Path) -> None:
    for folder, texts in (
        ("held_out", ["my snail is called bob", "what is two and two"]),
        ("messages", ["My snail is called Bob!", "why do bees hum"]),
    ):
        (tmp_path / folder).mkdir()
        lines = ["\t".join(COLUMNS), *(ROW + text for text in texts)]
        (tmp_path / folder / "talk.tsv").write_text("\n".join(lines) + "\n")
    found = {row.text: row.split for row in read_own(tmp_path)}
    assert found.pop("why do bees hum") != "eval"
    assert found == {"my snail is called bob": "eval", "what is two and two": "eval"}
