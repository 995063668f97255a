"""Others' conversations become rows for review, never golden rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kidrails_guard.cli import main
from kidrails_guard.errors import DataError
from kidrails_guard.golden.importers import (
    Imported,
    guess_format,
    import_records,
    write_review,
)
from kidrails_guard.golden.read import Problem, read_golden
from kidrails_guard.golden.records import read_records


def imported(records: list[dict[str, Any]], form: Any, **options: Any) -> Imported:
    return import_records(records, form=form, source="test", licence="MIT", **options)


SEED = {
    "age": 9,
    "system_prompt": "You talk with 9-year-olds.",
    "question": "Why is the sky blue?",
    "response": {
        "choices": [
            {"message": {"role": "assistant", "content": "That's a great question! Light bends."}}
        ]
    },
}


def test_upstreams_seeds_are_read_and_their_tic_is_noted() -> None:
    assert guess_format([SEED]) == "upstream-seed"
    (row,) = imported([SEED], "upstream-seed", claimed="safe").rows
    assert (row.age, row.message, row.claimed) == (9, "Why is the sky blue?", "safe")
    assert row.status == "needs review"
    assert row.provenance.method == "imported"
    assert any("canned opening" in note for note in row.notes)


def test_a_failed_call_stored_as_the_text_none_is_left_out() -> None:
    broken = [
        {"question": "why", "actual_output": "None"},
        {"question": "why", "actual_output": ""},
        {"question": "", "actual_output": "x"},
    ]
    assert imported(broken, "columns").dropped == {
        "an empty turn": 2,
        "the reply is the text 'None'": 1,
    }


def test_columns_can_be_mapped_and_others_are_kept_aside() -> None:
    record = {
        "child_name": "X",
        "child_age": "11",
        "conversation": json.dumps(
            [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "Hello there, reader."},
                {"role": "user", "content": "why do cats purr"},
                {"role": "assistant", "content": "They hum when they are calm."},
            ]
        ),
        "intensity": "mild",
    }
    (row,) = imported([record], "columns", columns={"age": "child_age"}).rows
    assert (row.age, row.message) == (11, "why do cats purr")
    assert len(row.conversation) == 2
    assert row.extra == {"child_name": "X", "intensity": "mild"}
    with pytest.raises(DataError, match="accepted: age, question"):
        imported([record], "columns", columns={"agee": "child_age"})
    with pytest.raises(DataError, match="--map age=child_agee: no record has it; accepted: child_"):
        imported([record], "columns", columns={"age": "child_agee"})


def test_sharegpt_and_messages_are_read() -> None:
    share = {"conversations": [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"}]}
    chat = {
        "messages": [
            {"role": "system", "content": "For age 8."},
            {"role": "user", "content": "a?"},
            {"role": "assistant", "content": "b"},
        ]
    }
    assert guess_format([share]) == "sharegpt"
    assert guess_format([chat]) == "messages"
    for form, record in (("sharegpt", share), ("messages", chat)):
        (row,) = imported([record], form).rows
        assert (row.message, row.reply) == ("a?", "b")
    assert imported([chat], "messages").rows[0].system_prompt == "For age 8."


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "no turns"),
        ([{"from": "human", "value": 3}], "a turn without text"),
        ([{"from": "narrator", "value": "x"}], "an unknown speaker"),
        (
            [{"from": "gpt", "value": "x"}, {"from": "human", "value": "y"}],
            "turns do not alternate between child and model",
        ),
        ([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b" * 5000}], "reply does not"),
    ],
)
def test_a_broken_conversation_is_counted(turns: list[Any], reason: str) -> None:
    (found,) = imported([{"conversations": turns}], "sharegpt").dropped
    assert found.startswith(reason)


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    record = {"question": "why", "actual_output": "so"}
    for name, text in {
        "a.json": json.dumps([record]),
        "b.jsonl": json.dumps(record) + "\n\n" + json.dumps(record),
        "c.csv": "question,actual_output\nwhy,so\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert read_records(tmp_path / name)[0] == record
    for name, text, says in (
        ("d.json", "", "empty"),
        ("e.json", "<html>", "neither JSON"),
        ("f.json", "[1]", "record 1 is int"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=says):
            read_records(tmp_path / name)


def test_a_line_separator_within_a_text_ends_no_line(tmp_path: Path) -> None:
    record = {"question": "one\u2028two\x85three", "actual_output": "so"}
    (tmp_path / "a.jsonl").write_text(json.dumps(record, ensure_ascii=False) + "\n", "utf-8")
    (tmp_path / "b.csv").write_text(
        f"question,actual_output\r\n{record['question']},so\r\n", "utf-8"
    )
    for name in ("a.jsonl", "b.csv"):
        assert read_records(tmp_path / name) == [record]


def test_what_no_reader_takes_is_an_error_with_the_files_name(tmp_path: Path) -> None:
    for name, text, says in (
        ("long.csv", "question\n" + "a" * 200_000, "long.csv: is not CSV"),
        ("deep.json", "[" * 60_000, "deep.json: is neither JSON"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=says):
            read_records(tmp_path / name)
    assert imported([{"conversation": [1]}], "columns").dropped == {"a turn without text": 1}


@pytest.mark.parametrize("key", ["source", "licence"])
def test_where_it_comes_from_and_its_licence_must_be_said(key: str) -> None:
    given = {"source": "test", "licence": "MIT"} | {key: " "}
    with pytest.raises(DataError, match=f"--{key} "):
        import_records([SEED], form="upstream-seed", **given)  # type: ignore[arg-type]


def test_an_unknown_format_says_what_is_accepted() -> None:
    with pytest.raises(DataError, match="ShareGPT"):
        guess_format([{"foo": 1}])


def test_imported_rows_never_become_golden(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps([SEED]))
    where = ["--source", "test", "--licence", "MIT", "--out"]
    folder = tmp_path / "golden"
    assert main(["data", "import", str(tmp_path / "in.json"), *where, f"{folder}/x.jsonl"]) == 2
    assert not folder.exists()
    out = tmp_path / "review.jsonl"
    assert main(["data", "import", str(tmp_path / "in.json"), *where, str(out)]) == 0
    problems: list[Problem] = []
    assert read_golden(out, problems) == []
    assert any(problem.key == "hazard" for problem in problems)


def test_the_published_seeds_can_be_read(shared: Path) -> None:
    folder = shared / "kidrails_upstream"
    if not folder.is_dir():
        pytest.skip(f"no upstream files at {folder}")
    rows = []
    for name in ("safe_api_responses.json", "unsafe_api_responses.json"):
        records = read_records(folder / name)
        rows += imported(records, guess_format(records)).rows
    assert len(rows) == 48
    assert all(5 <= (row.age or 0) <= 12 for row in rows)
    canned = [row for row in rows if any("canned" in note for note in row.notes)]
    assert len(canned) > 20


def test_review_rows_are_written_whole(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    write_review(out, imported([SEED], "upstream-seed"))
    (line,) = out.read_text().splitlines()
    assert json.loads(line)["status"] == "needs review"


def test_rows_that_somebody_reviews_are_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    out.write_text("edited by hand\n")
    with pytest.raises(DataError, match="not overwritten"):
        write_review(out, imported([SEED], "upstream-seed"))
    assert out.read_text() == "edited by hand\n"


def test_a_table_of_pandas_keeps_its_ages_and_one_odd_sign_loses_no_file(tmp_path: Path) -> None:
    records = [
        {"question": "why?", "actual_output": "So.", "age": 7.0, "topic": float("nan")},
        {"question": float("nan"), "actual_output": "So.", "age": 7.0},
        {"question": "a \ud83d b", "actual_output": "So \ud83d.", "age": 14.0, "topic": "\ud83d"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, records)))
    out = tmp_path / "review.jsonl"
    arguments = ["--out", str(out), "--source", "x", "--licence", "MIT"]
    assert main(["data", "import", str(tmp_path / "rows.jsonl"), *arguments]) == 0
    seven, older = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    assert (seven["age"], seven["band"], seven["extra"]) == (7, "7-9", {})
    assert (older["age"], older["extra"]) == (None, {"age": "14.0", "topic": "\ufffd"})


def test_half_a_sign_reads_alike_in_every_format() -> None:
    said = ["wh\ud83dy?", "S\udc00o."]
    share = [{"from": "human", "value": said[0]}, {"from": "gpt", "value": said[1]}]
    for form, record in (
        ("sharegpt", {"conversations": share}),
        ("columns", dict(zip(("question", "actual_output"), said, strict=True))),
    ):
        (row,) = imported([record], form).rows
        assert (row.message, row.reply) == ("wh\ufffdy?", "S\ufffdo.")


def test_a_text_that_a_comma_has_cut_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,actual_output\nwhy?,Because, you see, it is.\nhow?,So.\n")
    where = ["--out", str(tmp_path / "out.jsonl"), "--source", "x", "--licence", "MIT"]
    assert main(["data", "import", str(path), *where]) == 0
    assert "1 left out: more cells than the header has names" in capsys.readouterr().out
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert row["message"] == "how?"
    path.write_text("a,b\n1,2,3\n")
    with pytest.raises(DataError, match=r"no known format: the first record has .*a, b"):
        guess_format(read_records(path))


def test_one_record_over_several_lines_is_json(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    record = {"question": "why?", "actual_output": "So."}
    path.write_text(json.dumps(record, indent=2))
    assert read_records(path) == [record]


def test_the_ending_of_a_table_may_be_in_capitals(tmp_path: Path) -> None:
    path = tmp_path / "ROWS.CSV"
    path.write_text("question,actual_output\nwhy?,So.\n")
    assert read_records(path) == [{"question": "why?", "actual_output": "So."}]
