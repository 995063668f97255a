"""`kidrails` on a machine whose clock jumps: python jumping_clock.py FILE ARGUMENTS….

The file holds the seconds by which the wall clock is off. Time since boot is not changed, as it is
not when somebody sets a real clock.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

FILE = Path(sys.argv[1])
_time = time.time


def wrong() -> float:
    return _time() + float(FILE.read_text() or 0)


time.time = wrong

if __name__ == "__main__":
    from kidrails_guard.cli import main

    sys.exit(main(sys.argv[2:]))
