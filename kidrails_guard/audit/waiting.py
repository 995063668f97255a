"""Alerts that were not delivered when the service stopped: kept, sealed, for the next start."""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from kidrails_guard.audit.files import (
    audit_key,
    canonical,
    keyed_digest,
    locked,
    parse_json,
    write_whole,
)

_FILE: Final = "alerts.jsonl"
_LOCK: Final = "alerts.lock"
_log: Final = logging.getLogger("kidrails.audit")


def keep_alert(folder: Path, values: Mapping[str, str]) -> None:
    """Add an alert to those that wait.

    Args:
        folder: the audit folder.
        values: the alert, without a child's words.

    Raises:
        OSError: it cannot be written.
        AuditError: the folder's key cannot be read.
    """
    mark = keyed_digest(audit_key(folder), "alert", canonical(dict(values)))
    line = {**values, "mark": mark}
    with locked(folder / _LOCK, wait=True):
        descriptor = os.open(folder / _FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            write_whole(descriptor, canonical(line) + "\n")
        finally:
            os.close(descriptor)


def take_alerts(folder: Path) -> list[dict[str, str]]:
    """Return the alerts that wait, and forget them: of several workers, one gets them.

    Raises:
        OSError: they cannot be read or deleted.
        AuditError: the folder's key cannot be read.
    """
    path = folder / _FILE
    if not path.exists():
        return []
    key = audit_key(folder)
    with locked(folder / _LOCK, wait=True):
        if not path.exists():
            return []
        found = list(_genuine(path, key))
        path.unlink()
    return found


def _genuine(path: Path, key: bytes) -> Iterator[dict[str, str]]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            values = parse_json(line)
            mark = str(values.pop("mark", ""))
            if hmac.compare_digest(mark, keyed_digest(key, "alert", canonical(values))):
                yield values
                continue
        _log.error("%s:%d: none of our alerts; look at the inbox", path, number)
