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
from collections.abc import Callable, Sequence
from typing import Final

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

    def end() -> None:
        """Stop the command, then whatever else is left in this process group, ourselves too."""
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)

    exit_with_parent(end)
    # The parent signals the whole group: the command ends by itself, and its status is passed on.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
