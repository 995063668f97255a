"""Which day it is, on a machine whose clock may jump."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Final

_log = logging.getLogger("kidrails.audit")
JUMP_S: Final = 24 * 3600.0
"""A clock that is off by less is taken at its word: no file is deleted a day too early for it."""
SETTLED_S: Final = 24 * 3600.0
"""After a jump, the new time is believed once it has held for so long."""


def since_boot() -> float:
    """Return seconds that no setting of the clock changes, suspended time included."""
    number = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(number) if number is not None else time.monotonic()


class Days:
    """Tells the day by the wall clock, and by elapsed time where that has jumped.

    A clock that is set years ahead by mistake must not delete the whole log. For a day after a jump
    the day is counted on from before; the operator reads of it in the log and can set the clock
    right. A jump that holds for a day was meant.

    Args:
        clock: seconds since the epoch.
        elapsed: seconds that only grow.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = since_boot,
    ) -> None:
        self._clock, self._elapsed = clock, elapsed
        self._began = clock() - elapsed()
        self._jumped_to: float | None = None
        self._jumped_at = 0.0

    def today(self) -> date:
        """Return the day, UTC."""
        elapsed = self._elapsed()
        began = self._clock() - elapsed
        if abs(began - self._began) <= JUMP_S:
            self._began, self._jumped_to = began, None
        elif self._jumped_to is None or abs(began - self._jumped_to) > JUMP_S:
            self._jumped_to, self._jumped_at = began, elapsed
            _log.error(
                "the clock has jumped by %.1f days; audit files keep their days for now, set the "
                "clock right",
                (began - self._began) / 86_400,
            )
        elif elapsed - self._jumped_at >= SETTLED_S:
            self._began, self._jumped_to = began, None
        return datetime.fromtimestamp(self._began + elapsed, UTC).date()
