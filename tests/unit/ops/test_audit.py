"""The audit log shows when it was touched, keeps no words, and forgets when it must."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from audited import DAY, NOON, Clocks, event, write

from kidrails_guard.audit import (
    AuditError,
    AuditLog,
    chain_files,
    log_files,
    note_inbox,
    read_events,
    read_inbox,
    verify,
)
from kidrails_guard.audit.days import SETTLED_S, Days
from kidrails_guard.audit.retention import plausible_days
from kidrails_guard.proxy.seams import AuditEvent, AuditFailed
from kidrails_guard.types import Action, Verdict


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


async def test_a_log_that_is_being_written_verifies(tmp_path: Path, monkeypatch) -> None:
    log = await write(tmp_path, event(0))
    head = (tmp_path / "head.0").read_bytes()
    await write(tmp_path, event(1), event(2))
    (tmp_path / "head.0").write_bytes(head)  # as it was when `verify` began, or at a kill
    assert verify(tmp_path).problems == ()
    path = chain_files(tmp_path, 0)[0][0]
    with path.open("ab") as stream:
        stream.write(b'{"half')
    assert verify(tmp_path).problems == ()
    assert log.on_failure == "refuse"


async def test_retention_deletes_days_and_the_rest_still_verifies(tmp_path: Path) -> None:
    events = [event(i, at=NOON + i * DAY) for i in range(10)]
    await write(tmp_path, *events, retention_days=3)
    kept = [day for _, day, _ in log_files(tmp_path)]
    assert len(kept) == 4
    assert verify(tmp_path).problems == ()
    clocks = Clocks(NOON + 400 * DAY)
    log = AuditLog(tmp_path, retention_days=3, **clocks.options())
    assert log_files(tmp_path) == []  # at start already, before anything is written
    assert verify(tmp_path).problems == ()
    await log.record(event(99, at=clocks.now))
    await log.close()
    assert verify(tmp_path).problems == ()
    assert verify(tmp_path).lines == 1


async def test_a_log_to_which_nobody_writes_is_still_forgotten(tmp_path: Path) -> None:
    clocks = Clocks()
    log = AuditLog(tmp_path, retention_days=3, text_retention_days=1, **clocks.options())
    note_inbox(tmp_path, "tell_a_grown_up", now=NOON)
    await log.record(event(0, at=NOON, action=Action.CRISIS))
    clocks.pass_by(2 * DAY)
    await log.tend()
    assert list(tmp_path.glob("texts-*")) == []
    assert len(log_files(tmp_path)) == 1
    assert len(read_inbox(tmp_path)) == 2
    clocks.pass_by(2 * DAY)
    note_inbox(tmp_path, "tell_a_grown_up", now=clocks.now)
    await log.tend()
    assert log_files(tmp_path) == []
    assert [entry.kind for entry in read_inbox(tmp_path)] == ["tell_a_grown_up"]
    await log.record(event(1, at=clocks.now))
    await log.close()
    assert verify(tmp_path).problems == ()
    assert (tmp_path / "inbox.jsonl").stat().st_mode & 0o077 == 0


async def test_two_workers_forget_the_same_days_at_once(tmp_path: Path) -> None:
    clocks = Clocks()
    logs = [AuditLog(tmp_path, retention_days=2, **clocks.options()) for _ in range(2)]
    for day in range(8):
        for number, log in enumerate(logs):
            await log.record(event(10 * day + number, at=clocks.now))
        clocks.pass_by(DAY)
    for log in logs:
        await log.close()
    assert len(log_files(tmp_path)) == 6
    assert verify(tmp_path).problems == ()


async def test_a_kill_between_the_anchor_and_the_deletion_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(tmp_path, *(event(i, at=NOON + i * DAY) for i in range(4)), retention_days=30)

    def killed(path: Path, missing_ok: bool = False) -> None:
        raise OSError(5, "killed")

    clocks = Clocks(NOON + 5 * DAY)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        log = AuditLog(tmp_path, retention_days=3, **clocks.options())
        await log.record(event(9, at=clocks.now))
        await log.close()
    assert len(log_files(tmp_path)) == 5
    assert verify(tmp_path).problems == ()
    await AuditLog(tmp_path, retention_days=3, **clocks.options()).close()
    assert len(log_files(tmp_path)) == 3
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
    await write(tmp_path, event(4, at=NOON + 3 * DAY), retention_days=30)
    assert list(tmp_path.glob("texts-*.jsonl")) == []  # switched off: kept no longer
    assert verify(tmp_path).problems == ()


@pytest.mark.parametrize("jumps", [(400, -400), (-400, 400), (5, -5, 5), (-20_000,), (30_000,)])
@pytest.mark.parametrize("restart", [False, True])
async def test_a_clock_that_jumps_loses_nothing_and_breaks_no_chain(
    tmp_path: Path, jumps: tuple[int, ...], restart: bool
) -> None:
    clocks = Clocks()
    log = AuditLog(tmp_path, retention_days=3, **clocks.options())
    number = 0
    for jump in (0, *jumps, 0):
        clocks.now += jump * DAY
        if restart:
            await log.close()
            log = AuditLog(tmp_path, retention_days=40_000, **clocks.options())
        for _ in range(3):
            await log.record(event(number, at=clocks.now))
            number += 1
            clocks.pass_by(60)
    await log.close()
    assert verify(tmp_path).problems == ()
    assert verify(tmp_path).lines == number
    wrong = [path.name for path, day, _ in log_files(tmp_path) if day != "2026-09-21"]
    assert bool(wrong) is restart  # a running service keeps its days


def test_a_jump_is_believed_after_a_day(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    days = Days(**clocks.options())
    assert str(days.today()) == "2026-09-21"
    clocks.now += 400 * DAY
    assert str(days.today()) == "2026-09-21"
    assert "jumped by 400.0 days" in caplog.text
    clocks.pass_by(SETTLED_S - 60)
    assert str(days.today()) == "2026-09-22"
    assert caplog.text.count("jumped") == 1
    clocks.pass_by(120)
    days.today()
    assert str(days.today()) == "2027-10-27"
    # What stood there for a moment only is never believed.
    clocks.now -= 400 * DAY
    days.today()
    clocks.pass_by(SETTLED_S / 2)
    clocks.now += 400 * DAY
    assert str(days.today()) == "2027-10-28"


async def test_another_workers_retention_is_no_failure_of_a_worker_that_rested(
    tmp_path: Path,
) -> None:
    clocks = Clocks()
    busy, resting = (AuditLog(tmp_path, retention_days=1, **clocks.options()) for _ in range(2))
    await resting.record(event(0, at=clocks.now))
    for number in range(1, 4):
        clocks.pass_by(DAY)
        await busy.record(event(number, at=clocks.now))
    await resting.record(event(4, at=clocks.now))  # its file of three days ago is gone
    await busy.close()
    await resting.close()
    assert read_inbox(tmp_path) == []
    assert verify(tmp_path).problems == ()
    assert "r4" in {r.request_id for r in read_events(tmp_path)}


async def test_what_a_machine_wrote_while_its_clock_was_old_is_kept(tmp_path: Path) -> None:
    clocks = Clocks()
    log = AuditLog(tmp_path, retention_days=30, **clocks.options())
    clocks.now += 60 * DAY  # started before the network told the time
    for number in range(50):
        await log.record(event(number, at=clocks.now))
        clocks.pass_by(3600)
    await log.close()
    assert verify(tmp_path).problems == ()
    assert verify(tmp_path).lines == 50
    AuditLog(tmp_path, retention_days=30, **Clocks(clocks.now + 40 * DAY).options())
    assert log_files(tmp_path) == []


def test_days_that_cannot_be_are_taken_from_their_neighbours() -> None:
    def plausible(*days: str) -> list[str]:
        files = [(Path(str(i)), day) for i, day in enumerate(days)]
        found = plausible_days(files, today="2026-11-30")
        assert [path for path, _ in found] == [path for path, _ in files]
        return [day for _, day in found]

    assert plausible("2026-11-01", "2026-11-02") == ["2026-11-01", "2026-11-02"]
    # One from the future does not stay for ever, nor does it keep the ones behind it.
    assert plausible("2026-10-01", "2099-01-01", "2026-10-05") == [
        "2026-10-01",
        "2026-10-05",
        "2026-10-05",
    ]
    # One from the past does not take with it what is younger.
    assert plausible("2026-11-28", "1970-01-01") == ["2026-11-28", "2026-11-28"]
    assert plausible("2099-01-01") == ["2026-11-30"]


async def test_two_writers_at_once_keep_chains_of_their_own(tmp_path: Path) -> None:
    first, second = AuditLog(tmp_path), AuditLog(tmp_path)
    for number in range(6):
        await (first if number % 2 else second).record(event(number))
    await first.close()
    await second.close()
    assert {writer for _, _, writer in log_files(tmp_path)} == {0, 1}
    assert verify(tmp_path).problems == ()


@pytest.mark.parametrize("on_failure", ["refuse", "continue"])
async def test_a_full_disk_leaves_no_half_line_and_is_told_later(
    tmp_path: Path, monkeypatch, on_failure
) -> None:
    lost: list[int] = []
    log = AuditLog(tmp_path, on_failure=on_failure, on_lost=lambda: lost.append(1))
    await log.record(event(0))
    real = os.write

    def half(descriptor: int, data: bytes) -> int:
        return real(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr("kidrails_guard.audit.files.os.write", half)
        if on_failure == "refuse":
            with pytest.raises(AuditFailed, match="No space left"):
                await log.record(event(1))
        else:
            await log.record(event(1))
        assert len(lost) == (on_failure == "continue")
    await log.record(event(2))
    await log.close()
    assert verify(tmp_path).problems == ()
    assert verify(tmp_path).lines == 2
    assert [entry.kind for entry in read_inbox(tmp_path)] == ["audit_failed"]


async def test_an_inbox_or_text_that_cannot_be_written_undoes_no_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[int] = []
    log = AuditLog(tmp_path, text_retention_days=1, on_lost=lambda: lost.append(1))
    (tmp_path / "inbox.jsonl").mkdir()
    await log.record(event(0, action=Action.CRISIS, text="not for the log"))
    await log.close()
    assert verify(tmp_path).lines == 1
    assert lost == [1]
    assert "inbox entry could not be written" in caplog.text
    assert "not for the log" not in caplog.text


async def test_a_judge_that_is_down_all_night_does_not_bury_a_crisis(tmp_path: Path) -> None:
    clocks = Clocks()
    log = AuditLog(tmp_path, **clocks.options())

    def failing(number: int) -> AuditEvent:
        verdict = Verdict(Action.REFUSE, failed=("judge",))
        one = event(number, at=clocks.now)
        return replace(one, verdict=verdict)

    await log.record(event(0, at=clocks.now, action=Action.CRISIS))
    for number in range(1, 400):
        await log.record(failing(number))
        clocks.pass_by(60)
    await log.close()
    kinds = [entry.kind for entry in read_inbox(tmp_path)]
    assert kinds.count("check_failed") == 7  # in six hours and forty minutes
    assert kinds[-1] == "crisis"
    for _ in range(150):
        note_inbox(tmp_path, "tell_a_grown_up")
    kinds = [entry.kind for entry in read_inbox(tmp_path)]
    assert kinds.count("tell_a_grown_up") == 100
    assert kinds[-1] == "crisis"


async def test_crisis_and_failed_checks_reach_the_inbox(tmp_path: Path) -> None:
    note_inbox(tmp_path, "tell_a_grown_up", band="5-6")
    await write(tmp_path, event(1, action=Action.CRISIS), event(2))
    kinds = [entry.kind for entry in read_inbox(tmp_path)]
    assert kinds == ["crisis", "tell_a_grown_up"]


def test_bad_folders_and_keys_are_clear_errors(tmp_path: Path) -> None:
    for days in (0, 999_999):
        with pytest.raises(AuditError, match=r"--audit-days: .* at least 1 and at most"):
            AuditLog(tmp_path, retention_days=days)
        with pytest.raises(AuditError, match="--audit-text-days"):
            AuditLog(tmp_path, text_retention_days=days)
    for broken in ("not hex", "abcd", ""):
        (tmp_path / "key").write_text(broken)
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
    assert json.loads((tmp_path / "out/internal.json").read_text())[0]["crisis_referrals"] == 6
    assert (tmp_path / "out/report.png").read_bytes().startswith(b"\x89PNG")
    path = log_files(tmp_path / "log")[0][0]
    path.write_bytes(path.read_bytes().replace(b'"crisis"', b'"allow"', 1))
    changed = kidrails("verify", str(path))
    assert changed.returncode == 1
    assert "changed after it was written" in changed.stdout
    assert kidrails("verify", str(tmp_path / "none")).returncode == 2
