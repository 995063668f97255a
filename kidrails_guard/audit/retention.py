"""What is forgotten, and when: whole files from the beginning of each chain, texts, the inbox."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

from kidrails_guard.audit.files import chain_files, last_line, locked, write_anchor, writers
from kidrails_guard.audit.inbox import trim_inbox


def enforce_retention(
    folder: Path, key: bytes, today: date, *, days: int, text_days: int | None
) -> list[Path]:
    """Delete what is older than the retention allows; return the deleted files.

    Where the log begins after that is kept in ``anchor.<writer>``, so that the rest verifies.
    Only the beginning of a chain is deleted, never its middle.

    Args:
        folder: the audit folder.
        key: its key.
        today: the day, UTC.
        days: how long log and inbox are kept.
        text_days: how long texts are kept; None keeps none, not those of earlier either.

    Raises:
        OSError: something cannot be deleted.
        AuditError: a file's last line cannot be read.
    """
    gone: list[Path] = []
    oldest = (today - timedelta(days=days)).isoformat()
    with locked(folder / "retention.lock", wait=False) as mine:
        if not mine:  # another worker is at it
            return gone
        for writer in writers(folder):
            gone += _trim_chain(folder, key, writer, oldest, today.isoformat())
        oldest_text = None
        if text_days is not None:
            oldest_text = (today - timedelta(days=text_days)).isoformat()
        for path in folder.glob("texts-*.jsonl"):
            # An operator who has switched the keeping off wants no text kept, old ones least.
            if oldest_text is None or path.name[6:16] < oldest_text:
                path.unlink(missing_ok=True)
                gone.append(path)
        trim_inbox(folder, oldest=oldest)
    return gone


def _trim_chain(folder: Path, key: bytes, writer: int, oldest: str, today: str) -> list[Path]:
    gone = []
    for path, day in plausible_days(chain_files(folder, writer), today=today):
        if day >= oldest:
            break
        last = last_line(path)
        # A machine that began with an old clock names its first day's file by that, while its lines
        # bear the time that the clock was set to.
        if last is not None and oldest <= str(last.get("time"))[:10] <= today:
            break
        if last is not None:
            write_anchor(folder, key, writer, int(last["seq"]), str(last["hash"]))
        path.unlink(missing_ok=True)
        gone.append(path)
    return gone


def plausible_days(files: list[tuple[Path, str]], *, today: str) -> list[tuple[Path, str]]:
    """Return a chain's files with days that never go back.

    A clock that was wrong leaves files with days that cannot be: one in the future is taken to be
    as old as the file after it, one before its forerunner as old as that.
    """
    later, known = today, []
    for path, day in reversed(files):
        later = day if day <= today else later
        known.append((path, later))
    found, before = [], ""
    for path, day in reversed(known):
        before = max(before, day)
        found.append((path, before))
    return found
