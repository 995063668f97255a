"""Why a server ended, in words: from its exit status, and from what it printed."""

from __future__ import annotations

import re
import signal
from collections import deque


def describe_status(status: int) -> str:
    """Return a process's exit status in words.

    >>> describe_status(-9), describe_status(137), describe_status(1)
    ('killed by SIGKILL', 'killed by SIGKILL', 'exit status 1')
    """
    number = -status if status < 0 else status - 128
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"exit status {status}"


def find_reason(lines: deque[str] | list[str]) -> str:
    """Return the line of a server's output that says best why it ended.

    llama.cpp names the cause first and follows it with what failed in turn; a Python traceback
    names it last.

    Args:
        lines: what the server printed, in order.
    """
    for pattern in (
        r"\bE llama_model_load: error loading model: (.+)",
        r"\bE [\w ]+?: (.+)",
    ):
        for line in lines:
            if found := re.search(pattern, line):
                return found[1].strip()
    for line in reversed(lines):
        if found := re.search(r"(?:^|\s)((?:\w+\.)*\w*(?:Error|Exception|Exit): .+)", line):
            return found[1].strip()
    last = [line for line in lines if line.strip()][-3:]
    return " | ".join(last) if last else "it printed nothing"
