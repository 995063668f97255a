"""A folder for as long as a command runs; what a killed one left is removed at the next start."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PREFIX: Final = "kidrails-up-"
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def run_folder() -> Iterator[Path]:
    """Yield a new folder that only this user may enter; it is removed at the end.

    It is locked for as long as this process lives, however that one ends: a folder of ours that
    nobody has locked was left behind.

    Raises:
        OSError: the folder for temporary files cannot be written.
    """
    _remove_stale()
    path, descriptor = _make()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _make() -> tuple[Path, int]:
    """Return a new folder and the descriptor that holds its lock."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            descriptor = os.open(path, _OPEN)
        except FileNotFoundError:
            continue  # another start came before the lock, and took it for a stale one
        with contextlib.suppress(OSError):  # where nothing can be locked, nobody removes either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.is_dir():
            return path, descriptor
        os.close(descriptor)


def _remove_stale() -> None:
    """Remove this user's folders that no living process has locked."""
    try:
        found = list(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"))
    except OSError:
        return
    for path in found:
        with contextlib.suppress(OSError):  # another user's, not a folder, or gone meanwhile
            descriptor = os.open(path, _OPEN)
            try:
                held = os.fstat(descriptor)
                # What others may write in is none that we made.
                if held.st_uid == os.geteuid() and not stat.S_IMODE(held.st_mode) & 0o077:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
            finally:
                os.close(descriptor)
