"""Where a writer's chain goes on after a restart, so that a restart covers nothing up."""

from __future__ import annotations

import contextlib
import logging
import shlex
from pathlib import Path
from typing import Final

from kidrails_guard.audit.files import (
    START,
    AuditError,
    chain_files,
    cut_half_line,
    last_line,
    read_seal,
)

_log: Final = logging.getLogger("kidrails.audit")


def resume(folder: Path, key: bytes, writer: int) -> tuple[Path | None, int, str]:
    """Return a writer's last file, number and hash; cut a half last line off.

    Where the sealed head does not agree with the lines, the chain goes on in such a way that
    `verify` names the place for as long as the next line is kept.

    Raises:
        OSError: a file cannot be read or cut.
        AuditError: the last line is none of this log.
    """

    def seal(kind: str) -> tuple[int, str] | None:
        with contextlib.suppress(AuditError):  # a touched one vouches for nothing
            return read_seal(folder, key, kind, writer)
        return None

    path, number, value = None, *(seal("anchor") or (0, START))
    for one, _ in reversed(chain_files(folder, writer)):
        cut_half_line(one)
        last = last_line(one)
        if last is not None:
            path, number, value = one, last["seq"], last["hash"]
            break
    head = seal("head")
    if head is not None and head[0] > number:
        _log.error(
            "%s: writer %d: the end of the log was removed or lost: its last line was number %d, "
            "found %d; run: kidrails audit verify %s",
            folder, writer, head[0], number, shlex.quote(str(folder)),
        )  # fmt: skip
        return path, *head
    if head is None and number:
        _log.error(
            "%s: head.%d: missing or changed, so the end of the log cannot be vouched for; run: "
            "kidrails audit verify %s",
            folder, writer, shlex.quote(str(folder)),
        )  # fmt: skip
        return path, number + 1, value  # the number left out says so from now on
    return path, number, value
