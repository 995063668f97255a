"""Small file operations that leave no half file behind, whatever kills the process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from kidrails_guard.errors import UsageError


def write_atomic(path: Path, data: str | bytes, *, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old one or the whole new one.

    The owner stays, where we may set it: what root changes, its service can still read.

    Args:
        path: the file; its folder is made where missing.
        data: text (stored as UTF-8) or bytes.
        mode: who may read it, from its first moment on.

    Raises:
        OSError: the disk is full or the folder is not writable; the old file is untouched.
    """
    payload = data.encode("utf-8") if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(payload)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(mode)
            with contextlib.suppress(OSError):
                before = path.stat()
                if before.st_uid != os.geteuid():
                    os.chown(name, before.st_uid, before.st_gid)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        # Who reads of it knows the file, not the temporary one beside it.
        raise OSError(error.errno, error.strerror, str(path)) from error


def holds(path: Path, text: str) -> bool:
    """Return whether a file is there and holds exactly this text as UTF-8, line ends included."""
    return path.is_file() and path.read_bytes() == text.encode("utf-8")


def dump_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write strict JSON (no NaN, no Infinity), keys in the given order, atomically."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text + "\n")


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def with_home(name: str, text: str) -> Path:
    """Return a path that was given, its ``~`` replaced.

    Args:
        name: what it was given for.
        text: the path.

    Raises:
        UsageError: it begins in a home that is not there (``~somebody``, or a user without one).
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{name} {text!r}: there is no home folder for its beginning; give the whole path"
        ) from None


def own_folder(own: str, base: str, below_home: str) -> Path:
    """Return a folder of this user's for KidRails.

    Args:
        own: the variable that names the folder itself.
        base: the variable of the XDG base folder that holds it otherwise.
        below_home: where that one lies below the home, where neither is set.

    Raises:
        UsageError: it would lie in a home that is not there.
    """
    if chosen := os.environ.get(own):
        return with_home(own, chosen)
    if given := os.environ.get(base):
        return Path(given) / "kidrails"
    try:
        home = Path.home()
    except RuntimeError:  # a container's user that the machine does not know
        raise UsageError(
            f"HOME is not set, and user {os.getuid()} has no home; set {own} to a folder that "
            "this user may write"
        ) from None
    return home / below_home / "kidrails"
