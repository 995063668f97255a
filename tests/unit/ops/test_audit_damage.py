"""What is changed, removed or moved away shows, also after a restart and while it is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from audited import event, write

from kidrails_guard.audit import (
    AuditError,
    AuditLog,
    iterate_records,
    log_files,
    read_events,
    read_inbox,
    read_texts,
    verify,
)
from kidrails_guard.cli import main
from kidrails_guard.proxy.seams import AuditFailed
from kidrails_guard.transparency import count_by_month
from kidrails_guard.types import Action


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: [*lines[:3], *lines[4:]], "removed or reordered"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "removed or reordered"),
        (lambda lines: [lines[0].replace(b'"allow"', b'"refuse"'), *lines[1:]], "changed"),
        (lambda lines: [*lines[:-1]], "end of the log was removed"),
        (lambda lines: [], "end of the log was removed"),
        (lambda lines: [lines[0], b"{}\n", *lines[1:]], "not a line"),
        (lambda lines: [lines[0], b"[" * 100_000 + b"\n", *lines[1:]], "not a line"),
        (lambda lines: [*lines, lines[-1]], "removed or reordered"),
    ],
)
async def test_every_kind_of_damage_is_named(tmp_path: Path, damage, said: str) -> None:
    await write(tmp_path, *(event(i) for i in range(8)))
    path = log_files(tmp_path)[0][0]
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    assert any(said in problem for problem in verify(tmp_path).problems)


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values | {"findings": None},
        lambda values: values | {"findings": ["K01"]},
        lambda values: values | {"failed": [None]},
        lambda values: values | {"time": 5},
        lambda values: values | {"withheld_characters": "many"},
        lambda values: [[[]]] * 3,
    ],
)
async def test_a_line_that_holds_other_values_stops_neither_report_nor_page(
    tmp_path: Path, damage
) -> None:
    await write(tmp_path, *(event(i) for i in range(4)))
    path = log_files(tmp_path)[0][0]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = json.dumps(damage(json.loads(lines[1]))).encode() + b"\n"
    lines[2] = b"[" * 100_000 + b"\n"
    path.write_bytes(b"".join(lines))
    assert [record.seq for record in read_events(tmp_path)] == [4, 1]
    (counts,) = count_by_month(iterate_records(tmp_path))
    assert counts.messages + counts.replies == 2
    assert len(verify(tmp_path).problems) >= 2


async def test_a_broken_inbox_does_not_stop_the_log(tmp_path: Path) -> None:
    (tmp_path / "inbox.jsonl").write_bytes(b"[" * 100_000 + b"\n5\n\xff\n")
    await write(tmp_path, event(0, action=Action.CRISIS))
    assert [entry.kind for entry in read_inbox(tmp_path)] == ["crisis"]


@pytest.mark.parametrize("seal", ["head", "anchor"])
async def test_a_removed_end_or_beginning_cannot_be_covered_up_without_the_key(
    tmp_path: Path, seal: str
) -> None:
    await write(tmp_path, *(event(i) for i in range(8)))
    path = log_files(tmp_path)[0][0]
    lines = path.read_bytes().splitlines(keepends=True)
    kept = lines[:-2] if seal == "head" else lines[2:]
    path.write_bytes(b"".join(kept))
    last = json.loads(lines[5] if seal == "head" else lines[1])
    (tmp_path / f"{seal}.0").write_text(f"{last['seq']:020d} {last['hash']} {'0' * 64}\n")
    assert f"{seal}.0: changed after it was written" in verify(tmp_path).problems


async def test_a_head_or_a_whole_chain_that_is_gone_is_missed(tmp_path: Path) -> None:
    await write(tmp_path, event(0))
    (tmp_path / "head.0").unlink()
    assert "head.0: missing" in verify(tmp_path).problems[0]
    await write(tmp_path, event(1))
    assert "expected 2" in verify(tmp_path).problems[0]  # a new head does not cover it up
    log_files(tmp_path)[0][0].unlink()
    assert "end of the log was removed" in verify(tmp_path).problems[0]


@pytest.mark.parametrize("removed", ["end", "file", "end and head", "all but one and head"])
async def test_a_restart_does_not_cover_up_what_was_removed(
    tmp_path: Path, removed: str, caplog: pytest.LogCaptureFixture
) -> None:
    await write(tmp_path, *(event(i) for i in range(5)))
    path = log_files(tmp_path)[0][0]
    if removed == "file":
        path.unlink()
    else:
        kept = 1 if "one" in removed else 3
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
    if "head" in removed:
        (tmp_path / "head.0").write_bytes(b"")
    await write(tmp_path)
    assert len(verify(tmp_path).problems) == 1
    for number in range(5, 8):  # also after more restarts
        await write(tmp_path, event(number))
        assert len(verify(tmp_path).problems) == 1, verify(tmp_path)
    assert f"kidrails audit verify {tmp_path}\n" in caplog.text


async def test_a_kill_before_the_first_head_leaves_no_suspicion(tmp_path: Path) -> None:
    await write(tmp_path)
    assert verify(tmp_path).problems == ()  # nothing is written yet
    head = (tmp_path / "head.0").read_bytes()
    await write(tmp_path, event(0))
    (tmp_path / "head.0").write_bytes(head)
    await write(tmp_path, event(1))
    assert verify(tmp_path).problems == ()


async def test_a_folder_that_is_moved_away_refuses_until_it_is_back(tmp_path: Path) -> None:
    folder, aside = tmp_path / "audit", tmp_path / "aside"
    log = AuditLog(folder)
    await log.record(event(0))
    folder.rename(aside)
    for _ in range(2):
        with pytest.raises(AuditFailed, match="moved away"):
            await log.record(event(1, action=Action.CRISIS))
    assert not folder.exists()  # no empty log stands in its place
    folder.mkdir()
    with pytest.raises(AuditFailed):
        await log.record(event(2))
    folder.rmdir()
    aside.rename(folder)
    await log.record(event(3))
    await log.close()
    assert verify(folder).problems == ()
    assert verify(folder).lines == 2
    assert [entry.kind for entry in read_inbox(folder)] == ["audit_failed"]


@pytest.mark.parametrize("name", ["audit-*.jsonl", "head.0"])
async def test_a_file_that_is_deleted_while_it_is_written_is_told(
    tmp_path: Path, name: str
) -> None:
    lost: list[int] = []
    log = AuditLog(tmp_path, on_failure="continue", on_lost=lambda: lost.append(1))
    for number in range(3):
        await log.record(event(number))
    next(tmp_path.glob(name)).unlink()
    for number in range(3, 5):
        await log.record(event(number))
    await log.close()
    assert lost == [1]
    assert len(log_files(tmp_path)) == 1
    assert bool(verify(tmp_path).problems) is (name != "head.0")


async def test_a_missing_key_is_never_replaced_where_something_was_written(tmp_path: Path) -> None:
    await write(tmp_path, event(0), text_retention_days=1)
    key = tmp_path / "key"
    kept = key.read_bytes()
    key.unlink()
    for use in (verify, AuditLog, lambda folder: read_texts(folder, ["r0"])):
        with pytest.raises(AuditError, match="kept copy of the key back"):
            use(tmp_path)
    assert not key.exists()
    key.write_bytes(kept)
    assert verify(tmp_path).problems == ()


async def test_an_outsider_without_the_key_cannot_make_a_line(tmp_path: Path) -> None:
    await write(tmp_path / "a", event(0))
    await write(tmp_path / "b", event(0))
    source, target = (log_files(tmp_path / n)[0][0] for n in "ab")
    target.write_bytes(source.read_bytes())
    assert verify(tmp_path / "b").problems


async def test_a_half_line_from_a_kill_is_cut_off(tmp_path: Path) -> None:
    await write(tmp_path, event(0), event(1))
    path = log_files(tmp_path)[0][0]
    with path.open("ab") as stream:
        stream.write(b'{"action":"all')
    await write(tmp_path, event(2))
    assert verify(tmp_path).problems == ()
    assert verify(tmp_path).lines == 3


async def test_a_report_says_which_lines_it_could_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "audit", tmp_path / "out"
    await write(folder, *(event(i) for i in range(4)))
    path = log_files(folder)[0][0]
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, b"\xff\n", second, b"{}\n", *rest, b'{"half']))
    command = ["audit", "report", str(folder), "--out", str(out), "--json"]
    assert main(command) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["months"][0]["messages"] + found["months"][0]["replies"] == 4
    assert found["unreadable"] == [f"{path.name}:2", f"{path.name}:4"]
    assert f"2 lines are not of this log and not counted ({path.name}:2, " in said.err
    assert f"run: kidrails audit verify {folder}" in said.err
    assert "could not be read: 2 lines of the log" in (out / "report.md").read_text()
    path.write_bytes(b"".join([first, second, *rest]))
    assert main(command) == 0
    said = capsys.readouterr()
    assert (json.loads(said.out)["unreadable"], said.err) == ([], "")
    assert "could not be read" not in (out / "report.md").read_text()


async def test_a_file_that_retention_deletes_meanwhile_stops_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(tmp_path, *(event(i) for i in range(4)))
    there = log_files(tmp_path)
    gone = (tmp_path / "audit-2020-01-01.0.jsonl", "2020-01-01", 0)
    monkeypatch.setattr("kidrails_guard.audit.reading.log_files", lambda _: [gone, *there])
    assert len(list(iterate_records(tmp_path))) == len(read_events(tmp_path)) == 4
