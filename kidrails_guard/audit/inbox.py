"""The grown-ups' inbox: what somebody should look at, never a child's words."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from kidrails_guard.audit.files import canonical, locked, parse_json, utc, write_whole
from kidrails_guard.files import write_atomic

InboxKind = Literal["crisis", "tell_a_grown_up", "check_failed", "audit_failed"]
_FILE: Final = "inbox.jsonl"
_LOCK: Final = "inbox.lock"


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """Something a grown-up should look at."""

    time: str
    kind: InboxKind
    band: str = ""
    hazard: str = ""
    tenant: str = ""
    request_id: str = ""


def note_inbox(
    folder: Path,
    kind: InboxKind,
    *,
    band: str = "",
    hazard: str = "",
    tenant: str = "",
    request_id: str = "",
    now: float | None = None,
) -> None:
    """Put an entry into the grown-ups' inbox of a folder that is there.

    The folder is not made: in the place of one that was moved away, it would look like a log.

    Raises:
        OSError: it cannot be written.
    """
    entry = InboxEntry(
        utc(time.time() if now is None else now), kind, band, hazard, tenant, request_id
    )
    with locked(folder / _LOCK, wait=True):
        descriptor = os.open(folder / _FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            write_whole(descriptor, canonical(asdict(entry)) + "\n")
        finally:
            os.close(descriptor)


def read_inbox(folder: Path, *, limit: int = 100) -> list[InboxEntry]:
    """Return the inbox, newest first.

    Args:
        folder: the audit folder; an absent one has an empty inbox.
        limit: at most so many of each kind, so that a crisis is not lost among failed checks.
    """
    path = folder / _FILE
    if not path.exists():
        return []
    entries: list[InboxEntry] = []
    counts: Counter[str] = Counter()
    for line in reversed(path.read_bytes().splitlines()):
        with contextlib.suppress(ValueError, TypeError):
            entry = InboxEntry(**parse_json(line))
            counts[entry.kind] += 1
            if counts[entry.kind] <= limit:
                entries.append(entry)
    return entries


def trim_inbox(folder: Path, *, oldest: str) -> None:
    """Forget entries from before a day, as the log does.

    Args:
        folder: the audit folder.
        oldest: the first day that is kept, ``2026-11-23``.
    """
    path = folder / _FILE
    if not path.exists():
        return
    with locked(folder / _LOCK, wait=True):
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if _day(line) >= oldest]
        if len(kept) < len(lines):
            write_atomic(path, b"".join(kept))
            path.chmod(0o600)


def _day(line: bytes) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(parse_json(line)["time"])[:10]
    return ""  # half a line says nothing to anybody
