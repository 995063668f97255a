"""Writes the audit log."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from kidrails_guard.audit.days import Days, since_boot
from kidrails_guard.audit.files import (
    AuditError,
    audit_key,
    canonical,
    check_in_place,
    claim_writer,
    keyed_digest,
    lock_path,
    sealed,
    write_whole,
)
from kidrails_guard.audit.inbox import InboxKind, note_inbox
from kidrails_guard.audit.lines import line_values
from kidrails_guard.audit.resuming import resume
from kidrails_guard.audit.retention import enforce_retention
from kidrails_guard.audit.texts import text_cipher
from kidrails_guard.proxy.seams import AuditEvent, AuditFailed

_log: Final = logging.getLogger("kidrails.audit")
_MOST_DAYS: Final = 100_000
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
        AuditError: the folder cannot be written, or its key is broken or missing.
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
        for option, days in (
            ("--audit-days", retention_days),
            ("--audit-text-days", text_retention_days),
        ):
            if days is not None and not 1 <= days <= _MOST_DAYS:
                raise AuditError(f"{option}: {days}; at least 1 and at most {_MOST_DAYS} days")
        self.folder, self.retention_days = folder, retention_days
        self.text_retention_days, self.on_failure = text_retention_days, on_failure
        self._on_lost, self._elapsed = on_lost, elapsed
        self._days = Days(clock, elapsed)
        self._failed_noted: dict[str, float] = {}
        self._failing = False
        try:
            self.key = audit_key(folder, make=True)
            self._writer, lock = claim_writer(folder)
            self._lock: int | None = lock
            self._head = self._open_head()
            self._last, self._seq, self._prev = resume(folder, self.key, self._writer)
            if not os.fstat(self._head).st_size:
                self._seal()  # from here on, an empty one was emptied by somebody
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
                    "space there or put the folder back, or start with --audit-on-failure continue"
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

    @property
    def _head_path(self) -> Path:
        return self.folder / f"head.{self._writer}"

    def _append(self, event: AuditEvent) -> None:
        self._check_in_place()
        values = {**line_values(event, self.key), "seq": self._seq + 1, "prev": self._prev}
        values["hash"] = keyed_digest(self.key, "chain", canonical(values))
        write_whole(self._open(), canonical(values) + "\n")
        self._seq, self._prev = values["seq"], values["hash"]
        self._seal()

    def _open_head(self) -> int:
        return os.open(self._head_path, os.O_WRONLY | os.O_CREAT, 0o600)

    def _seal(self) -> None:
        # Always the same length, so that it is replaced in place, on a full disk too.
        seal = sealed(self.key, "head", self._writer, self._seq, self._prev)
        os.pwrite(self._head, seal.encode("ascii"), 0)

    def _check_in_place(self) -> None:
        """Raise where an event would vanish, since the open files are not those of the folder.

        A folder that is put back goes on; of a file alone that was deleted, a new one is made for
        the next event, and `verify` names what is missing.

        Raises:
            OSError: the folder or a file in it was deleted or moved.
        """
        if self._lock is not None:
            check_in_place(self._lock, lock_path(self.folder, self._writer))
        try:
            check_in_place(self._head, self._head_path)
        except FileNotFoundError:
            gone, self._head = self._head, self._open_head()
            os.close(gone)
            raise
        # An earlier day's file may have grown too old, and another worker have deleted it.
        today = self._days.today().isoformat()
        if self._file is not None and self._last is not None and self._day == today:
            try:
                check_in_place(self._file, self._last)
            except FileNotFoundError:
                self._close_file()
                raise

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
            gone = enforce_retention(
                self.folder,
                self.key,
                self._days.today(),
                days=self.retention_days,
                text_days=self.text_retention_days,
            )
            if self._last in gone:
                self._close_file()
                self._last = None
        except (OSError, AuditError) as error:
            # Kept too long is better than not recorded; the next hour tries again.
            _log.error("%s: nothing could be deleted (%s)", self.folder, error)
