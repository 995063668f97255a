"""Reads an audit folder: records, kept texts, and whether the log is untouched."""

from __future__ import annotations

import contextlib
import hmac
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from kidrails_guard.audit.files import (
    START,
    AuditError,
    audit_key,
    canonical,
    chain_files,
    keyed_digest,
    last_line,
    log_files,
    parse_json,
    read_seal,
    writers,
)
from kidrails_guard.audit.texts import text_cipher


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


def _forget(place: str) -> None:
    """Tell nobody; broken lines are `verify`'s business."""


_KINDS: Final[dict[str, type | tuple[type, ...]]] = {
    "findings": list,
    "failed": list,
    "length": int,
    "withheld_characters": int,
    "elapsed_ms": (int, float),
    "streamed": bool,
    "seq": int,
}
"""What a line's fields hold; the others hold texts."""


def parse_record(line: str | bytes) -> AuditRecord:
    """Return one line as a record.

    Raises:
        ValueError: it is not a line of this log.
    """
    values = parse_json(line)
    if (
        not isinstance(values, dict)
        or set(values) != set(AuditRecord.__dataclass_fields__)
        or not all(isinstance(value, _KINDS.get(name, str)) for name, value in values.items())
        or not all(isinstance(finding, dict) for finding in values["findings"])
        or not all(isinstance(check, str) for check in values["failed"])
    ):
        raise ValueError("not a line of the audit log")
    values["findings"], values["failed"] = tuple(values["findings"]), tuple(values["failed"])
    return AuditRecord(**values)


def iterate_records(
    folder: Path, on_unreadable: Callable[[str], None] = _forget
) -> Iterator[AuditRecord]:
    """Yield every readable record, by day and writer.

    Args:
        folder: the audit folder.
        on_unreadable: told of each line that is none of this log, as ``FILE:LINE``. A last line
            that is not complete yet is none of them: somebody may be writing it.
    """
    for path, _, _ in log_files(folder):
        try:
            stream = path.open("rb")
        except FileNotFoundError:  # retention was quicker
            continue
        with stream:
            for number, line in enumerate(stream, 1):
                try:
                    yield parse_record(line)
                except ValueError:
                    if line.endswith(b"\n"):
                        on_unreadable(f"{path.name}:{number}")


def read_events(folder: Path, *, limit: int = 200, since: str = "") -> list[AuditRecord]:
    """Return the newest records, newest first.

    Args:
        folder: the audit folder; an absent one has no records.
        limit: at most so many, unless more are of `since` or later.
        since: a time (UTC, ISO 8601); no record of it or later is left out.
    """
    newest: list[AuditRecord] = []
    for path, day, _ in reversed(log_files(folder)):
        whole = bool(since) and day >= since[:10]
        if len(newest) >= limit and not whole:
            break
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:  # retention was quicker
            continue
        for line in lines if whole else lines[-limit:]:
            with contextlib.suppress(ValueError):
                newest.append(parse_record(line))
    newest.sort(key=lambda r: (r.time, r.seq), reverse=True)
    wanted = sum(record.time >= since for record in newest) if since else 0
    return newest[: max(limit, wanted)]


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
        fernet = text_cipher(audit_key(folder))
        for line in path.read_bytes().splitlines():
            # A half line, or one of another key: there is nothing to show.
            with contextlib.suppress(Exception):
                values = json.loads(line)
                if values["stage"] == stage and values["request_id"] in wanted:
                    text = fernet.decrypt(values["text"].encode()).decode("utf-8", "replace")
                    found[values["request_id"]] = text
    return found


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found: counts, and each problem with its file and line."""

    files: int
    lines: int
    problems: tuple[str, ...]


def verify(folder: Path) -> Verification:
    """Check every line's hash, number and link; name what was changed, removed or reordered.

    A log that is being written meanwhile verifies as well.

    Raises:
        AuditError: there is no log in the folder.
    """
    chains = writers(folder)
    if not chains:
        raise AuditError(f"{folder}: no audit-*.jsonl in it; name the folder given to --audit")
    key = audit_key(folder)
    problems: list[str] = []
    lines = 0
    for writer in chains:
        lines += _verify_chain(folder, key, writer, problems)
    return Verification(len(log_files(folder)), lines, tuple(problems))


def _verify_chain(folder: Path, key: bytes, writer: int, problems: list[str]) -> int:
    """Add the problems of one writer's chain; return how many lines it has."""

    def seal(kind: str) -> tuple[int, str] | None:
        try:
            return read_seal(folder, key, kind, writer)
        except AuditError as error:
            problems.append(str(error))
            return None

    head = seal("head")  # before the lines: what is written meanwhile stands behind it
    anchor = seal("anchor")
    seq, prev = anchor or (0, START)
    seen = head is not None and head == (seq, prev)
    lines = 0
    for path, _ in chain_files(folder, writer):
        if anchor is not None and _ends_with(path, anchor):
            continue  # retention was interrupted between noting and deleting it
        for number, line in enumerate(_whole_lines(path), 1):
            lines += 1
            where = f"{path.name}:{number}"
            try:
                values = parse_json(line)
                claimed = values.pop("hash")
                good = hmac.compare_digest(claimed, keyed_digest(key, "chain", canonical(values)))
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
            seen = seen or head == (seq, prev)
    if head is None:
        if not any(f"head.{writer}" in problem for problem in problems):
            problems.append(f"head.{writer}: missing, so the end of the log cannot be vouched for")
    elif not seen:
        problems.append(
            f"writer {writer}: the end of the log was removed: its last line was number {head[0]}, "
            f"found {seq}"
        )
    return lines


def _ends_with(path: Path, seal: tuple[int, str]) -> bool:
    with contextlib.suppress(AuditError, FileNotFoundError):
        last = last_line(path)
        return last is not None and (last.get("seq"), last.get("hash")) == seal
    return False


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file; the last one only when it is complete."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # retention was quicker
        return
    yield from data[: data.rfind(b"\n") + 1].splitlines()
