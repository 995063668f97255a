"""The audit log: what the guard did, hash-chained, without a child's words.

A folder holds one file a day and writer (``audit-2026-11-23.0.jsonl``), a key, the inbox of the
grown-ups, and, where the operator switched that on, encrypted texts in files of their own that are
deleted sooner. Every line carries the keyed hash of the line before it, so a changed, removed or
reordered line shows; ``head`` files show a removed end, ``anchor`` files where retention began.

Source: COPPA rule of 2025 and the UK Age Appropriate Design Code (keep no child's words without
need, enforce retention); California SB 243 (count crisis referrals without identities).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from kidrails_guard.errors import UsageError
from kidrails_guard.files import write_atomic
from kidrails_guard.proxy.seams import AuditEvent, AuditFailed

START: Final = "0" * 64
_NAME = re.compile(r"audit-(\d{4}-\d\d-\d\d)\.(\d+)\.jsonl")
_MODEL = re.compile(r"[\w./:@+-]{1,80}")
InboxKind = Literal["crisis", "tell_a_grown_up", "check_failed", "audit_failed"]


class AuditError(UsageError):
    """An audit folder cannot be read or does not hold what it must."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the log as it is read back; no field holds anybody's words."""

    time: str
    request_id: str
    tenant: str
    session: str
    band: str
    stage: str
    action: str
    hazard: str
    severity: str
    case: str
    findings: tuple[dict[str, Any], ...]
    failed: tuple[str, ...]
    text_hash: str
    length: int
    withheld_characters: int
    policy: str
    model: str
    elapsed_ms: float
    streamed: bool
    note: str
    seq: int
    prev: str
    hash: str = field(default="")


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """Something a grown-up should look at."""

    time: str
    kind: InboxKind
    band: str = ""
    hazard: str = ""
    tenant: str = ""
    request_id: str = ""


def audit_key(folder: Path) -> bytes:
    """Return the folder's key, made on first use, readable by its owner only."""
    path = folder / "key"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Written aside and linked into place: two starters agree on one key, and a kill leaves
        # either no key or a whole one.
        aside = folder / f".key.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(aside)
        aside.unlink()
    try:
        return bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise AuditError(
            f"{path}: not a readable audit key ({type(error).__name__}); it must hold 64 "
            "hexadecimal digits; move the folder away to start a new log"
        ) from None


def _digest(key: bytes, purpose: str, data: str) -> str:
    subkey = hmac.digest(key, purpose.encode(), "sha256")
    return hmac.new(subkey, data.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _canonical(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


class AuditLog:
    """Appends events; an `AuditSink` of the proxy.

    Args:
        folder: where the log lives; made when missing.
        retention_days: files older than this are deleted when a day begins and at start.
        text_retention_days: keep the texts too, encrypted, for so many days; None keeps none.
        on_failure: ``refuse`` raises when a line cannot be written, so that the proxy answers
            kindly without the model; ``continue`` goes on and counts.
        clock: seconds since the epoch (for tests).

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
        clock: Callable[[], float] = time.time,
    ) -> None:
        if retention_days < 1 or (text_retention_days is not None and text_retention_days < 1):
            raise AuditError(
                f"retention of {retention_days}/{text_retention_days} days: at least 1 is accepted"
            )
        self.folder, self.retention_days, self.clock = folder, retention_days, clock
        self.text_retention_days, self.on_failure = text_retention_days, on_failure
        self.failures = 0
        try:
            self.key = audit_key(folder)
            self._writer, lock = _claim_writer(folder)
            self._lock: int | None = lock
            self._head = os.open(folder / f"head.{self._writer}", os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError as error:
            raise AuditError(
                f"{folder}: the audit log cannot be written there ({error.strerror}); choose "
                "another folder with --audit DIR"
            ) from None
        self._seq, self._prev = self._resume()
        self._day = ""
        self._file: int | None = None

    async def record(self, event: AuditEvent) -> None:
        """Append one event; crisis verdicts and failed checks also go into the inbox.

        Raises:
            AuditFailed: it could not be written and ``on_failure`` is ``refuse``.
        """
        try:
            self._append(event)
        except OSError as error:
            self.failures += 1
            if self.on_failure == "refuse":
                raise AuditFailed(
                    f"{self.folder}: the audit log cannot be written ({error.strerror}); free "
                    "space there, or start with --audit-on-failure continue"
                ) from None

    async def close(self) -> None:
        """Flush and release the files."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._file)
            os.close(self._file)
            self._file = None
        if self._lock is not None:
            os.close(self._lock)
            os.close(self._head)
            self._lock = None

    def hashed_session(self, session: str) -> str:
        """Return the keyed hash that stands for a session header, or empty for none."""
        return _digest(self.key, "session", session)[:16] if session else ""

    def _append(self, event: AuditEvent) -> None:
        verdict = event.verdict
        values: dict[str, Any] = {
            "time": _utc(event.time),
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
            "text_hash": _digest(self.key, "text", event.text)[:32],
            "length": len(event.text),
            "withheld_characters": event.withheld_characters,
            "policy": event.policy_digest,
            "model": event.model if _MODEL.fullmatch(event.model) else "other",
            "elapsed_ms": round(verdict.elapsed_ms, 3),
            "streamed": event.streamed,
            "note": event.note,
            "seq": self._seq + 1,
            "prev": self._prev,
        }
        values["hash"] = _digest(self.key, "chain", _canonical(values))
        descriptor = self._open_for(event.time)
        _write_whole(descriptor, _canonical(values) + "\n")
        self._seq, self._prev = values["seq"], values["hash"]
        # Always the same length, so that it is replaced in place.
        os.pwrite(self._head, f"{self._seq:020d} {self._prev}\n".encode(), 0)
        if self.text_retention_days is not None:
            self._keep_text(event)
        if verdict.action.label == "crisis" or verdict.failed:
            kind: InboxKind = "crisis" if verdict.action.label == "crisis" else "check_failed"
            note_inbox(
                self.folder,
                kind,
                band=str(event.band),
                hazard=str(verdict.hazard),
                tenant=event.tenant,
                request_id=event.request_id,
                now=event.time,
            )

    def _open_for(self, now: float) -> int:
        # A clock that jumps back does not reorder days: lines stay in the order of writing.
        day = max(self._day, datetime.fromtimestamp(now, UTC).date().isoformat())
        if self._file is None or day != self._day:
            self.enforce_retention(date.fromisoformat(day))
            if self._file is not None:
                os.fsync(self._file)
                os.close(self._file)
                self._file = None
            path = self.folder / f"audit-{day}.{self._writer}.jsonl"
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            self._day = day
        return self._file

    def _keep_text(self, event: AuditEvent) -> None:
        token = _fernet(self.key).encrypt(event.text.encode("utf-8", "surrogatepass")).decode()
        line = _canonical(
            {"request_id": event.request_id, "stage": str(event.verdict.stage), "text": token}
        )
        path = self.folder / f"texts-{self._day}.{self._writer}.jsonl"
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            _write_whole(descriptor, line + "\n")
        finally:
            os.close(descriptor)

    def enforce_retention(self, today: date | None = None) -> list[Path]:
        """Delete what is older than the retention allows; return the deleted files.

        Where the log begins after that is kept in ``anchor.<writer>``, so that the rest verifies.
        """
        today = today or datetime.fromtimestamp(self.clock(), UTC).date()
        gone: list[Path] = []
        oldest = (today - timedelta(days=self.retention_days)).isoformat()
        for path, day, writer in log_files(self.folder):
            if day < oldest:
                last = _last_line(path)
                if last is not None:
                    write_atomic(
                        self.folder / f"anchor.{writer}", f"{last['seq']} {last['hash']}\n"
                    )
                path.unlink(missing_ok=True)
                gone.append(path)
        days = self.text_retention_days or self.retention_days
        oldest_text = (today - timedelta(days=days)).isoformat()
        for path in self.folder.glob("texts-*.jsonl"):
            if path.name[6:16] < oldest_text:
                path.unlink(missing_ok=True)
                gone.append(path)
        return gone

    def _resume(self) -> tuple[int, str]:
        """Return the last number and hash of this writer's chain; cut a half last line off."""
        files = [path for path, _, writer in log_files(self.folder) if writer == self._writer]
        for path in reversed(files):
            _cut_half_line(path)
            last = _last_line(path)
            if last is not None:
                return int(last["seq"]), str(last["hash"])
        return read_anchor(self.folder, self._writer)


def _claim_writer(folder: Path) -> tuple[int, int]:
    """Return the first writer number that no living process holds, and its lock."""
    for writer in range(256):
        descriptor = os.open(folder / f"writer.{writer}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return writer, descriptor
    raise AuditError(f"{folder}: 256 writers hold it already; use a folder for each service")


def _write_whole(descriptor: int, line: str) -> None:
    """Append a line, or leave the file as it was: a full disk must not leave half a line."""
    data, before = line.encode("utf-8"), os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, data)
        if written != len(data):
            raise OSError(28, "No space left on device")
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, before)
        raise


def _cut_half_line(path: Path) -> None:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def _last_line(path: Path) -> dict[str, Any] | None:
    lines = path.read_bytes().splitlines()
    try:
        return dict(json.loads(lines[-1])) if lines else None
    except ValueError:
        raise AuditError(f"{path}: its last line is not JSON; run: kidrails audit verify") from None


def read_anchor(folder: Path, writer: int) -> tuple[int, str]:
    """Return the number and hash before the first line that retention left."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        number, value = (folder / f"anchor.{writer}").read_text(encoding="ascii").split()
        return int(number), value
    return 0, START


def log_files(folder: Path) -> list[tuple[Path, str, int]]:
    """Return the log's files as (path, day, writer), oldest first."""
    found = []
    for path in folder.glob("audit-*.jsonl"):
        match = _NAME.fullmatch(path.name)
        if match:
            found.append((path, match[1], int(match[2])))
    return sorted(found, key=lambda entry: (entry[1], entry[2]))


def _fernet(key: bytes) -> Any:
    from base64 import urlsafe_b64encode

    from cryptography.fernet import Fernet

    return Fernet(urlsafe_b64encode(hmac.digest(key, b"encrypt", "sha256")))


def parse_record(line: str | bytes) -> AuditRecord:
    """Return one line as a record.

    Raises:
        ValueError: it is not a line of this log.
    """
    values = json.loads(line)
    if not isinstance(values, dict) or set(values) != set(AuditRecord.__dataclass_fields__):
        raise ValueError("not a line of the audit log")
    values["findings"], values["failed"] = tuple(values["findings"]), tuple(values["failed"])
    return AuditRecord(**values)


def iterate_records(folder: Path) -> Iterator[AuditRecord]:
    """Yield every readable record, by day and writer; broken lines are `verify`'s business."""
    for path, _, _ in log_files(folder):
        with path.open("rb") as stream:
            for line in stream:
                with contextlib.suppress(ValueError):
                    yield parse_record(line)


def read_events(folder: Path, *, limit: int = 200) -> list[AuditRecord]:
    """Return the newest records, newest first.

    Args:
        folder: the audit folder; an absent one has no records.
        limit: at most so many.
    """
    newest: list[AuditRecord] = []
    for path, _, _ in reversed(log_files(folder)):
        lines = path.read_bytes().splitlines()[-limit:]
        for line in lines:
            with contextlib.suppress(ValueError):
                newest.append(parse_record(line))
        if len(newest) >= limit:
            break
    return sorted(newest, key=lambda r: (r.time, r.seq), reverse=True)[:limit]


def read_texts(
    folder: Path, request_ids: Iterable[str], *, stage: Literal["input", "output"] = "input"
) -> dict[str, str]:
    """Return kept texts by request id; none unless the operator switched keeping on.

    Args:
        folder: the audit folder.
        request_ids: whose texts.
        stage: the child's messages, or the model's replies.
    """
    wanted, found = set(request_ids), {}
    for path in sorted(folder.glob("texts-*.jsonl")):
        fernet = _fernet(audit_key(folder))
        for line in path.read_bytes().splitlines():
            # A half line, or one of another key: there is nothing to show.
            with contextlib.suppress(Exception):
                values = json.loads(line)
                if values["stage"] == stage and values["request_id"] in wanted:
                    text = fernet.decrypt(values["text"].encode()).decode("utf-8", "replace")
                    found[values["request_id"]] = text
    return found


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
    """Put an entry into the grown-ups' inbox; it never holds a child's words."""
    entry = InboxEntry(_utc(time.time() if now is None else now), kind, band, hazard, tenant,
                       request_id)  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "inbox.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        _write_whole(descriptor, _canonical(asdict(entry)) + "\n")
    finally:
        os.close(descriptor)


def read_inbox(folder: Path, *, limit: int = 100) -> list[InboxEntry]:
    """Return the inbox, newest first."""
    path = folder / "inbox.jsonl"
    if not path.exists():
        return []
    entries = []
    for line in path.read_bytes().splitlines()[-limit:]:
        with contextlib.suppress(ValueError, TypeError):
            entries.append(InboxEntry(**json.loads(line)))
    return entries[::-1]


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found: counts, and each problem with its file and line."""

    files: int
    lines: int
    problems: tuple[str, ...]


def verify(folder: Path) -> Verification:
    """Check every line's hash, number and link; name what was changed, removed or reordered.

    Raises:
        AuditError: there is no log in the folder.
    """
    files = log_files(folder)
    if not files:
        raise AuditError(f"{folder}: no audit-*.jsonl in it; name the folder given to --audit")
    key, problems, lines = audit_key(folder), [], 0
    for writer in sorted({w for _, _, w in files}):
        seq, prev = read_anchor(folder, writer)
        for path in (p for p, _, w in files if w == writer):
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                lines += 1
                where = f"{path.name}:{number}"
                try:
                    values = json.loads(line)
                    claimed = values.pop("hash")
                    good = hmac.compare_digest(claimed, _digest(key, "chain", _canonical(values)))
                except (ValueError, KeyError, AttributeError, TypeError):
                    problems.append(f"{where}: not a line of this log")
                    continue
                if not good:
                    problems.append(f"{where}: changed after it was written")
                elif values["prev"] != prev or values["seq"] != seq + 1:
                    problems.append(
                        f"{where}: is number {values['seq']}, expected {seq + 1}: lines before it "
                        "were removed or reordered"
                    )
                seq, prev = values.get("seq", seq + 1), claimed
        head = folder / f"head.{writer}"
        told = head.read_text(encoding="ascii").split() if head.exists() else []
        if told and told != [f"{seq:020d}", prev]:
            problems.append(f"writer {writer}: the end of the log was removed after {seq} lines")
    return Verification(len(files), lines, tuple(problems))
