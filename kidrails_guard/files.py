"""Small file operations that leave no half file behind, whatever kills the process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one.

    Args:
        path: the file; its folder is made where missing.
        data: text (stored as UTF-8) or bytes.

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
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        # Who reads of it knows the file, not the temporary one beside it.
        raise OSError(error.errno, error.strerror, str(path)) from error


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
