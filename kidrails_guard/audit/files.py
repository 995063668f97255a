"""The files of an audit folder: their names, their order, their keyed hashes, whole lines only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import UsageError
from kidrails_guard.files import write_atomic

START: Final = "0" * 64
_NAME: Final = re.compile(r"audit-(\d{4}-\d\d-\d\d)\.(\d+)\.jsonl")
_MOST_WRITERS: Final = 256


class AuditError(UsageError):
    """An audit folder cannot be read or does not hold what it must."""


def audit_key(folder: Path, *, make: bool = False) -> bytes:
    """Return the folder's key.

    Args:
        folder: the audit folder.
        make: make a key, readable by its owner only, where nothing has been written with one yet.

    Raises:
        AuditError: there is no key, or what is there is none.
    """
    path = folder / "key"
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    if make and not path.exists() and not writers(folder):
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
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        # A new one would vouch for nothing that stands there, and call all of it forged.
        raise AuditError(
            f"{path}: missing; put the kept copy of the key back, or move the folder away to "
            "start a new log"
        ) from None
    except (OSError, ValueError) as error:
        raise AuditError(
            f"{path}: not a readable audit key ({type(error).__name__}); it must hold 64 "
            "hexadecimal digits; move the folder away to start a new log"
        ) from None
    if len(key) != 32:
        raise AuditError(
            f"{path}: {len(key)} bytes are no audit key; it must hold 64 hexadecimal digits; put "
            "the kept copy back, or move the folder away to start a new log"
        )
    return key


def keyed_digest(key: bytes, purpose: str, data: str) -> str:
    """Return the keyed hash of a text, in hexadecimal; purposes never share a hash."""
    subkey = hmac.digest(key, purpose.encode(), "sha256")
    return hmac.new(subkey, data.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def canonical(values: dict[str, Any]) -> str:
    """Return the one JSON text that stands for a value."""
    return json.dumps(values, ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def parse_json(line: str | bytes) -> Any:
    """Return the JSON value of a line, whatever has been done to it.

    Raises:
        ValueError: it holds none.
    """
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def utc(seconds: float) -> str:
    """Return seconds since the epoch as ISO 8601 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def log_files(folder: Path) -> list[tuple[Path, str, int]]:
    """Return the log's files as (path, day, writer), oldest day first; none of an absent folder.

    Raises:
        OSError: the folder cannot be read.
    """
    found = []
    for name in _names(folder):
        match = _NAME.fullmatch(name)
        if match:
            found.append((folder / name, match[1], int(match[2])))
    return sorted(found, key=lambda entry: (entry[1], entry[2]))


def _names(folder: Path) -> list[str]:
    # `glob` takes a folder that may not be read for an empty one.
    with contextlib.suppress(FileNotFoundError):
        return [path.name for path in folder.iterdir()]
    return []


def chain_files(folder: Path, writer: int) -> list[tuple[Path, str]]:
    """Return one writer's files as (path, day) in the order in which they were written.

    That is the order of the lines' numbers; the days in the names follow the machine's clock, which
    may have jumped.
    """
    files = [(path, day) for path, day, one in log_files(folder) if one == writer]
    return sorted(files, key=lambda file: (_first_number(file[0]), file[1]))


def _first_number(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        for place, line in enumerate(stream):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                return int(parse_json(line)["seq"]) - place
    return 2**62  # empty, or damaged from its first line to its last


def last_line(path: Path) -> dict[str, Any] | None:
    """Return a log file's last line, or None where it has none.

    Raises:
        AuditError: it is no line of the log.
    """
    lines = path.read_bytes().splitlines()
    try:
        if not lines:
            return None
        values = parse_json(lines[-1])
        return {**values, "seq": int(values["seq"]), "hash": str(values["hash"])}
    except (ValueError, TypeError, KeyError):
        raise AuditError(
            f"{path}: its last line is none of this log; run: kidrails audit verify "
            f"{shlex.quote(str(path.parent))}, then move the folder away to start a new log"
        ) from None


def cut_half_line(path: Path) -> None:
    """Cut off what a kill left of a line."""
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def write_whole(descriptor: int, line: str) -> None:
    """Append a line, or leave the file as it was: a full disk must not leave half a line.

    Raises:
        OSError: there is no room.
    """
    data, before = line.encode("utf-8"), os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, data)
        if written != len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, before)
        raise


def lock_path(folder: Path, writer: int) -> Path:
    """Return the file that a writer holds locked while it lives."""
    return folder / f"writer.{writer}.lock"


def claim_writer(folder: Path) -> tuple[int, int]:
    """Return the first writer number that no living process holds, and its lock.

    Raises:
        AuditError: all are held.
    """
    for writer in range(_MOST_WRITERS):
        descriptor = os.open(lock_path(folder, writer), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return writer, descriptor
    raise AuditError(
        f"{folder}: {_MOST_WRITERS} writers hold it already; use a folder for each service"
    )


def check_in_place(descriptor: int, path: Path) -> None:
    """Raise where an open file is no longer the one at its path.

    Who writes on into a file that was deleted, or moved with its folder, gets no error from it.

    Raises:
        OSError: the file is gone, or another one stands there.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return
    raise FileNotFoundError(errno.ENOENT, f"{path.name} was deleted or moved away", str(path))


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock file; gives whether it is held.

    Args:
        path: made where it is missing.
        wait: until another process lets go of it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def sealed(key: bytes, kind: str, writer: int, number: int, value: str) -> str:
    """Return what a ``head`` or ``anchor`` file holds: always of the same length.

    Args:
        key: the folder's.
        kind: ``head`` or ``anchor``.
        writer: whose chain.
        number: of a line.
        value: that line's hash.
    """
    mark = keyed_digest(key, kind, f"{writer} {number} {value}")
    return f"{number:020d} {value} {mark}\n"


def read_seal(folder: Path, key: bytes, kind: str, writer: int) -> tuple[int, str] | None:
    """Return the number and hash that a ``head`` or ``anchor`` file holds; None without one.

    Raises:
        AuditError: it was not written with this key.
    """
    path = folder / f"{kind}.{writer}"
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        text = "?"
    if not text:
        return None  # made at start, nothing written yet
    with contextlib.suppress(ValueError):
        number, value, _ = text.split()
        if hmac.compare_digest(sealed(key, kind, writer, int(number), value), text):
            return int(number), value
    raise AuditError(f"{path.name}: changed after it was written")


def write_anchor(folder: Path, key: bytes, writer: int, number: int, value: str) -> None:
    """Note where a chain begins now that retention has deleted what was before."""
    write_atomic(folder / f"anchor.{writer}", sealed(key, "anchor", writer, number, value))


def writers(folder: Path) -> list[int]:
    """Return every writer that has left a file or a head."""
    found = {writer for _, _, writer in log_files(folder)}
    for name in _names(folder):
        kind, _, number = name.partition(".")
        if kind == "head" and number.isdigit() and (folder / name).stat().st_size:
            found.add(int(number))
    return sorted(found)
