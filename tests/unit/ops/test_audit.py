"""The audit log shows when it was touched, keeps no words, and forgets when it must."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kidrails_guard.audit import (
    AuditError,
    AuditLog,
    log_files,
    note_inbox,
    read_events,
    read_inbox,
    verify,
)
from kidrails_guard.proxy.seams import AuditEvent, AuditFailed
from kidrails_guard.types import Action, AgeBand, Finding, Hazard, Severity, Stage, Verdict

DAY = 86_400.0
NOON = 1_790_000_000.0


def event(number: int = 0, *, at: float = NOON, action: Action = Action.ALLOW, text: str = "hi"):
    finding = Finding("lexicon", Hazard.DISTRESS, Severity.MILD, note="rule-7")
    verdict = Verdict(action, (finding,), (), Stage.INPUT, 1.5, Hazard.DISTRESS, Severity.MILD)
    return AuditEvent(
        f"r{number}", "class-4", "child-1", AgeBand.MIDDLE, verdict, text, "d" * 64, "m", time=at
    )


async def write(folder: Path, *events: AuditEvent, **options) -> AuditLog:
    log = AuditLog(folder, **options)
    for one in events:
        await log.record(one)
    await log.close()
    return log


async def test_a_log_verifies_and_reads_back_without_words(tmp_path: Path) -> None:
    await write(tmp_path, *(event(i, text="my very own secret words") for i in range(20)))
    await write(tmp_path, event(20), event(21))  # a restart goes on with the chain
    assert verify(tmp_path).problems == ()
    assert verify(tmp_path).lines == 22
    newest = read_events(tmp_path, limit=5)
    assert [r.request_id for r in newest] == ["r21", "r20", "r19", "r18", "r17"]
    assert newest[-1].length == len("my very own secret words")
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert b"secret words" not in content
        assert b"child-1" not in content
    assert all(not p.stat().st_mode & 0o077 for p, _, _ in log_files(tmp_path))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: [*lines[:3], *lines[4:]], "removed or reordered"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "removed or reordered"),
        (lambda lines: [lines[0].replace(b'"allow"', b'"refuse"'), *lines[1:]], "changed"),
        (lambda lines: [*lines[:-1]], "end of the log was removed"),
        (lambda lines: [lines[0], b"{}\n", *lines[1:]], "not a line"),
        (lambda lines: [*lines, lines[-1]], "removed or reordered"),
    ],
)
async def test_every_kind_of_damage_is_named(tmp_path: Path, damage, said: str) -> None:
    await write(tmp_path, *(event(i) for i in range(8)))
    path = log_files(tmp_path)[0][0]
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    assert any(said in problem for problem in verify(tmp_path).problems)


async def test_an_outsider_without_the_key_cannot_make_a_line(tmp_path: Path) -> None:
    await write(tmp_path / "a", event(0))
    await write(tmp_path / "b", event(0))
    source, target = (log_files(tmp_path / n)[0][0] for n in "ab")
    target.write_bytes(source.read_bytes())
    assert verify(tmp_path / "b").problems


async def test_retention_deletes_days_and_the_rest_still_verifies(tmp_path: Path) -> None:
    events = [event(i, at=NOON + i * DAY) for i in range(10)]
    await write(tmp_path, *events, retention_days=3)
    kept = [day for _, day, _ in log_files(tmp_path)]
    assert len(kept) == 4
    assert verify(tmp_path).problems == ()
    log = AuditLog(tmp_path, retention_days=3, clock=lambda: NOON + 400 * DAY)
    assert len(log.enforce_retention()) == 4
    await log.record(event(99, at=NOON + 400 * DAY))
    await log.close()
    assert verify(tmp_path).problems == ()


async def test_texts_are_encrypted_and_forgotten_sooner(tmp_path: Path) -> None:
    for day in range(4):
        await write(
            tmp_path,
            event(day, at=NOON + day * DAY, text="only for grown-ups"),
            retention_days=30,
            text_retention_days=1,
        )
    texts = sorted(tmp_path.glob("texts-*.jsonl"))
    assert len(texts) == 2
    assert all(b"grown-ups" not in path.read_bytes() for path in texts)
    assert len(log_files(tmp_path)) == 4


async def test_a_clock_that_jumps_back_breaks_nothing(tmp_path: Path) -> None:
    await write(
        tmp_path, event(0, at=NOON + 5 * DAY), event(1, at=NOON), event(2, at=NOON + 6 * DAY)
    )
    assert verify(tmp_path).problems == ()


async def test_two_writers_at_once_keep_chains_of_their_own(tmp_path: Path) -> None:
    first, second = AuditLog(tmp_path), AuditLog(tmp_path)
    for number in range(6):
        await (first if number % 2 else second).record(event(number))
    await first.close()
    await second.close()
    assert {writer for _, _, writer in log_files(tmp_path)} == {0, 1}
    assert verify(tmp_path).problems == ()


async def test_a_half_line_from_a_kill_is_cut_off(tmp_path: Path) -> None:
    await write(tmp_path, event(0), event(1))
    path = log_files(tmp_path)[0][0]
    with path.open("ab") as stream:
        stream.write(b'{"action":"all')
    await write(tmp_path, event(2))
    assert verify(tmp_path).problems == ()
    assert verify(tmp_path).lines == 3


@pytest.mark.parametrize("on_failure", ["refuse", "continue"])
async def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch, on_failure) -> None:
    log = AuditLog(tmp_path, on_failure=on_failure)
    await log.record(event(0))
    real = os.write

    def half(descriptor: int, data: bytes) -> int:
        return real(descriptor, data[: len(data) // 2])

    monkeypatch.setattr("kidrails_guard.audit.os.write", half)
    if on_failure == "refuse":
        with pytest.raises(AuditFailed, match="No space left"):
            await log.record(event(1))
    else:
        await log.record(event(1))
    assert log.failures == 1
    monkeypatch.undo()
    await log.record(event(2))
    await log.close()
    assert verify(tmp_path).problems == ()
    assert verify(tmp_path).lines == 2


async def test_crisis_and_failed_checks_reach_the_inbox(tmp_path: Path) -> None:
    note_inbox(tmp_path, "tell_a_grown_up", band="5-6")
    await write(tmp_path, event(1, action=Action.CRISIS), event(2))
    kinds = [entry.kind for entry in read_inbox(tmp_path)]
    assert kinds == ["crisis", "tell_a_grown_up"]


def test_bad_folders_and_keys_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="at least 1"):
        AuditLog(tmp_path, retention_days=0)
    (tmp_path / "key").write_text("not hex")
    with pytest.raises(AuditError, match="64 hexadecimal"):
        AuditLog(tmp_path)
    with pytest.raises(AuditError, match="no audit-"):
        verify(tmp_path / "nothing")


async def test_the_command_reports_and_exits_by_what_it_found(tmp_path: Path) -> None:
    await write(tmp_path / "log", *(event(i, action=Action.CRISIS) for i in range(6)), event(7))

    def kidrails(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kidrails_guard", "audit", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    assert kidrails("verify", str(tmp_path / "log")).returncode == 0
    done = kidrails("report", str(tmp_path / "log"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "| crisis referrals |" in (tmp_path / "out/report.md").read_text()
    assert json.loads((tmp_path / "out/report.json").read_text())[0]["crisis_referrals"] == 6
    assert (tmp_path / "out/report.png").read_bytes().startswith(b"\x89PNG")
    path = log_files(tmp_path / "log")[0][0]
    path.write_bytes(path.read_bytes().replace(b'"crisis"', b'"allow"', 1))
    changed = kidrails("verify", str(path))
    assert changed.returncode == 1
    assert "changed after it was written" in changed.stdout
    assert kidrails("verify", str(tmp_path / "none")).returncode == 2
