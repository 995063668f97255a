"""How long a browser has been talking, so that a break is suggested in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: So long without a message counts as a break that was taken.
_PAUSE_S: Final = 20 * 60
_MOST: Final = 10_000


@dataclass(slots=True)
class _Visit:
    since: float
    last: float


class Visits:
    """Remembers since when each browser talks; nothing else, and only in memory.

    Args:
        break_after_s: seconds of talk after which a break is suggested, and again after as many.
        clock: seconds that only grow (for tests).

    Source: California SB 243 asks for a reminder at least every three hours.
    """

    def __init__(
        self, break_after_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._break_after_s = break_after_s
        self._clock = clock
        self._visits: dict[str, _Visit] = {}
        self._lock = threading.Lock()

    def break_is_due(self, visit: str) -> bool:
        """Note one message of a browser and return whether a break is to be suggested now."""
        now = self._clock()
        with self._lock:
            known = self._visits.pop(visit, None)
            if known is None or now - known.last > _PAUSE_S:
                known = _Visit(now, now)
            due = now - known.since >= self._break_after_s
            if due:
                known.since = now
            known.last = now
            self._visits[visit] = known  # at the end: the first one is the longest unseen
            if len(self._visits) > _MOST:
                del self._visits[next(iter(self._visits))]
            return due
