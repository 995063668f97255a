"""Writes the audit log."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from kidrails_guard.audit.days import Days, since_boot
from kidrails_guard.audit.files import (
    START,
    AuditError,
    audit_key,
    canonical,
    chain_files,
    claim_writer,
    cut_half_line,
    keyed_digest,
    last_line,
    locked,
    read_seal,
    sealed,
    utc,
    write_anchor,
    write_whole,
    writers,
)
from kidrails_guard.audit.inbox import InboxKind, note_inbox, trim_inbox
from kidrails_guard.audit.texts import text_cipher
from kidrails_guard.proxy.seams import AuditEvent, AuditFailed

_log: Final = logging.getLogger("kidrails.audit")
_MODEL: Final = re.compile(r"[\w./:@+-]{1,80}")
_FAILED_NOTE_S: Final = 3600.0
"""Failed checks of one tenant are noted in the inbox at most once in so long."""


def _nobody() -> None:
    """Tell nobody."""


class AuditLog:
    """Appends events; an `AuditSink` of the proxy.

    Args:
        folder: where the log lives; made when missing.
        retention_days: what is older is deleted at start, when a day begins and by `tend`.
        text_retention_days: keep the texts too, encrypted, for so many days; None keeps none.
        on_failure: ``refuse`` raises when a line cannot be written, so that the proxy answers
            kindly without the model; ``continue`` goes on.
        on_lost: told of each event, text or inbox entry that was lost without a raised error.
        clock: seconds since the epoch (for tests).
        elapsed: seconds that only grow (for tests).

    Raises:
        AuditError: the folder cannot be written, or its key is broken.
    """

    def __init__(
        self,
        folder: Path,
        *,
        retention_days: int = 30,
        text_retention_days: int | None = None,
        on_failure: Literal["refuse", "continue"] = "refuse",
        on_lost: Callable[[], None] = _nobody,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = since_boot,
    ) -> None:
        if retention_days < 1 or (text_retention_days is not None and text_retention_days < 1):
            raise AuditError(
                f"retention of {retention_days}/{text_retention_days} days: at least 1 is accepted"
            )
        self.folder, self.retention_days = folder, retention_days
        self.text_retention_days, self.on_failure = text_retention_days, on_failure
        self._on_lost, self._elapsed = on_lost, elapsed
        self._days = Days(clock, elapsed)
        self._failed_noted: dict[str, float] = {}
        self._failing = False
        try:
            self.key = audit_key(folder)
            self._writer, lock = claim_writer(folder)
            self._lock: int | None = lock
            self._head = os.open(folder / f"head.{self._writer}", os.O_WRONLY | os.O_CREAT, 0o600)
            self._last, self._seq, self._prev = self._resume()
        except OSError as error:
            raise AuditError(
                f"{folder}: the audit log cannot be written there ({error.strerror}); choose "
                "another folder with --audit DIR"
            ) from None
        self._day = ""
        self._file: int | None = None
        self._tend()

    async def record(self, event: AuditEvent) -> None:
        """Append one event; crisis verdicts and failed checks also go into the inbox.

        Raises:
            AuditFailed: it could not be written and ``on_failure`` is ``refuse``.
        """
        try:
            self._append(event)
            self._keep_text(event)
        except OSError as error:
            self._failing = True
            self._note(event)  # somebody may be in danger all the same
            if self.on_failure == "refuse":
                raise AuditFailed(
                    f"{self.folder}: the audit log cannot be written ({error.strerror}); free "
                    "space there, or start with --audit-on-failure continue"
                ) from None
            self._lost("an event", error)
        else:
            self._note(event)
            if self._failing:
                self._recovered(event)

    async def tend(self) -> None:
        """Delete what has grown too old, in a service to which nobody writes."""
        self._tend()

    async def close(self) -> None:
        """Flush and release the files."""
        self._close_file()
        if self._lock is not None:
            os.close(self._lock)
            os.close(self._head)
            self._lock = None

    def hashed_session(self, session: str) -> str:
        """Return the keyed hash that stands for a session header, or empty for none."""
        return keyed_digest(self.key, "session", session)[:16] if session else ""

    def _append(self, event: AuditEvent) -> None:
        values = {**self._values(event), "seq": self._seq + 1, "prev": self._prev}
        values["hash"] = keyed_digest(self.key, "chain", canonical(values))
        write_whole(self._open(), canonical(values) + "\n")
        self._seq, self._prev = values["seq"], values["hash"]
        # Always the same length, so that it is replaced in place, on a full disk too.
        seal = sealed(self.key, "head", self._writer, self._seq, self._prev)
        os.pwrite(self._head, seal.encode("ascii"), 0)

    def _values(self, event: AuditEvent) -> dict[str, Any]:
        verdict = event.verdict
        return {
            "time": utc(event.time),
            "request_id": event.request_id,
            "tenant": event.tenant,
            "session": self.hashed_session(event.session),
            "band": str(event.band),
            "stage": str(verdict.stage),
            "action": verdict.action.label,
            "hazard": str(verdict.hazard),
            "severity": verdict.severity.label,
            "case": verdict.case,
            "findings": [
                {
                    "check": f.check,
                    "hazard": str(f.hazard),
                    "severity": f.severity.label,
                    "score": round(f.score, 4),
                    "case": f.case,
                    "note": f.note,
                }
                for f in verdict.findings
            ],
            "failed": list(verdict.failed),
            "text_hash": keyed_digest(self.key, "text", event.text)[:32],
            "length": len(event.text),
            "withheld_characters": event.withheld_characters,
            "policy": event.policy_digest,
            "model": event.model if _MODEL.fullmatch(event.model) else "other",
            "elapsed_ms": round(verdict.elapsed_ms, 3),
            "streamed": event.streamed,
            "note": event.note,
        }

    def _note(self, event: AuditEvent) -> None:
        verdict = event.verdict
        crisis = verdict.action.label == "crisis"
        if crisis or (verdict.failed and self._failed_anew(event.tenant)):
            self._fill_inbox("crisis" if crisis else "check_failed", event, str(verdict.hazard))

    def _recovered(self, event: AuditEvent) -> None:
        self._failing = False
        _log.warning("%s: the audit log can be written again", self.folder)
        self._fill_inbox("audit_failed", event, "")

    def _fill_inbox(self, kind: InboxKind, event: AuditEvent, hazard: str) -> None:
        """Note something for the grown-ups; what fails here does not undo a written line."""
        try:
            note_inbox(
                self.folder,
                kind,
                band=str(event.band),
                hazard=hazard,
                tenant=event.tenant,
                request_id=event.request_id,
                now=event.time,
            )
        except OSError as error:
            self._lost("an inbox entry", error)

    def _failed_anew(self, tenant: str) -> bool:
        # A judge that is down all night must not bury a crisis under a note a message.
        now, before = self._elapsed(), self._failed_noted.get(tenant)
        if before is not None and now - before < _FAILED_NOTE_S:
            return False
        self._failed_noted[tenant] = now
        return True

    def _lost(self, what: str, error: OSError) -> None:
        self._on_lost()
        _log.error("%s: %s could not be written (%s)", self.folder, what, error.strerror)

    def _open(self) -> int:
        """Return the descriptor of today's file.

        A day's file is never continued behind a newer one, so that the files stay in order when the
        clock goes back.
        """
        day = self._days.today().isoformat()
        if self._file is not None and day == self._day:
            return self._file
        self._tend()
        path = self.folder / f"audit-{day}.{self._writer}.jsonl"
        if self._last not in (None, path) and path.exists() and path.stat().st_size:
            path = self._last or path
        self._close_file()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._day, self._last = day, path
        return self._file

    def _close_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._file)
            os.close(self._file)
            self._file = None

    def _keep_text(self, event: AuditEvent) -> None:
        if self.text_retention_days is None:
            return
        data = event.text.encode("utf-8", "surrogatepass")
        token = text_cipher(self.key).encrypt(data).decode()
        line = canonical(
            {"request_id": event.request_id, "stage": str(event.verdict.stage), "text": token}
        )
        day = self._days.today().isoformat()
        path = self.folder / f"texts-{day}.{self._writer}.jsonl"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                write_whole(descriptor, line + "\n")
            finally:
                os.close(descriptor)
        except OSError as error:
            self._lost("a kept text", error)  # its event is written

    def _tend(self) -> None:
        try:
            self.enforce_retention(self._days.today())
        except (OSError, AuditError) as error:
            # Kept too long is better than not recorded; the next hour tries again.
            _log.error("%s: nothing could be deleted (%s)", self.folder, error)

    def enforce_retention(self, today: date) -> list[Path]:
        """Delete what is older than the retention allows; return the deleted files.

        Where the log begins after that is kept in ``anchor.<writer>``, so that the rest verifies.
        Only the beginning of a chain is deleted, never its middle.
        """
        gone: list[Path] = []
        oldest = (today - timedelta(days=self.retention_days)).isoformat()
        with locked(self.folder / "retention.lock", wait=False) as mine:
            if not mine:  # another worker is at it
                return gone
            for writer in writers(self.folder):
                gone += self._trim_chain(writer, oldest, today.isoformat())
            days = self.text_retention_days or self.retention_days
            oldest_text = (today - timedelta(days=days)).isoformat()
            for path in self.folder.glob("texts-*.jsonl"):
                if path.name[6:16] < oldest_text:
                    path.unlink(missing_ok=True)
                    gone.append(path)
            trim_inbox(self.folder, oldest=oldest)
        if self._last in gone:
            self._last = None
        return gone

    def _trim_chain(self, writer: int, oldest: str, today: str) -> list[Path]:
        gone = []
        for path, day in plausible_days(chain_files(self.folder, writer), today=today):
            if day >= oldest:
                break
            last = last_line(path)
            if last is not None:
                write_anchor(self.folder, self.key, writer, int(last["seq"]), str(last["hash"]))
            path.unlink(missing_ok=True)
            gone.append(path)
        return gone

    def _resume(self) -> tuple[Path | None, int, str]:
        """Return this writer's last file, number and hash; cut a half last line off."""
        for path, _ in reversed(chain_files(self.folder, self._writer)):
            cut_half_line(path)
            last = last_line(path)
            if last is not None:
                return path, int(last["seq"]), str(last["hash"])
        return None, *(read_seal(self.folder, self.key, "anchor", self._writer) or (0, START))


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
