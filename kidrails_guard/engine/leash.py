"""Ends a model server with the program that started it, however that one ended.

A parent that is killed cannot tidy up. It holds the write end of a pipe that is the server's
standard input; the kernel closes it with the parent, and that is the signal. Servers of our own
call :func:`exit_with_parent`; any other is run as ``python -m kidrails_guard.engine.leash CMD…``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

#: Set by the starter for a server of our own. Run by hand, with /dev/null as standard input say,
#: it must not end at once.
LEASH: Final = "KIDRAILS_LEASH"
_GRACE_S: Final = 5.0


def exit_with_parent(action: Callable[[], None]) -> None:
    """Call ``action`` in a thread as soon as standard input is closed."""

    def watch() -> None:
        # Unbuffered and by descriptor: sys.stdin's lock would hold up the interpreter's exit.
        while os.read(0, 4096):
            pass
        action()

    threading.Thread(target=watch, name="leash", daemon=True).start()


def main(command: Sequence[str]) -> int:
    """Run a command until it ends or standard input is closed.

    Args:
        command: program and arguments.

    Returns:
        The command's exit status, negative signals as 128 + number.
    """
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    released = threading.Event()

    def end() -> None:
        released.set()
        process.terminate()
        time.sleep(_GRACE_S)
        _end_group()

    exit_with_parent(end)
    # The parent signals the whole group: the command ends by itself, and its status is passed on.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    status = process.wait()
    if released.is_set():
        _end_group()
    return status if status >= 0 else 128 - status


def _end_group() -> None:
    """Kill what is left of this process group, this process included."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
