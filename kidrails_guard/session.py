"""What a child's session adds up to, without a word of it: pure state, and a store in memory.

Most callers send the whole conversation with every request, and the check `conversation` reads
it. The session is for what such a list does not hold: how long the child has been here (a break is
due), and how heavy the last minutes were even where the caller sends one message at a time. It
holds numbers alone, is bounded, forgives with every calm turn, and expires.
"""

from __future__ import annotations

import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from kidrails_guard.types import Action, Hazard, Verdict

THEMES: Final[dict[str, frozenset[Hazard]]] = {
    "crisis": frozenset({Hazard.SELF_HARM, Hazard.ABUSE_DISCLOSURE}),
    "distress": frozenset({Hazard.DISTRESS, Hazard.SELF_HARM_QUESTION, Hazard.DEPENDENCY}),
    "strangers": frozenset({Hazard.PERSONAL_DATA, Hazard.SEXUAL_CONTENT}),
    "probing": frozenset(
        {
            Hazard.VIOLENCE_HOWTO,
            Hazard.DANGEROUS_ACTS,
            Hazard.SUBSTANCES,
            Hazard.ILLEGAL_ACTS,
            Hazard.HATE,
            Hazard.BULLYING,
            Hazard.JAILBREAK,
        }
    ),
}
"""What is added up separately: a rude joke does not make a worry heavier."""

WEIGHTS: Final[dict[Action, float]] = {
    Action.ALLOW: 0.0,
    Action.REDACT: 0.25,
    Action.CARE: 0.5,
    Action.REDIRECT: 1.0,
    Action.REFUSE: 1.0,
    Action.CRISIS: 2.0,
}
FORGIVEN_PER_TURN: Final = 0.5
"""A turn without a theme leaves half of its weight; three calm turns leave an eighth."""
FORGIVEN_AFTER_S: Final = 15 * 60
"""Without any turn, weights halve in this time."""
WARY_AT: Final = 1.5
"""From this weight on a reply is held to the stricter check: two refusals, or a crisis."""
MOST: Final = 4.0
TTL_S: Final = 60 * 60
"""A session that is silent for so long is forgotten."""
MAX_BYTES: Final = 1_024


@dataclass(frozen=True, slots=True)
class SessionState:
    """What is known of one session: times and weights, never words.

    Attributes:
        started_at: seconds since the epoch, of the first turn.
        seen_at: of the newest turn.
        paused_at: of the last break that was offered, or of the start.
        turns: how many there were.
        disclosed: whether the child was told that it talks with a computer program.
        weights: theme to weight, each from 0 to `MOST`.
    """

    started_at: float
    seen_at: float
    paused_at: float
    turns: int = 0
    disclosed: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)

    def weight(self, theme: str, now: float) -> float:
        """Return a theme's weight, as time has left it.

        Args:
            theme: one of `THEMES`.
            now: seconds since the epoch.
        """
        idle = max(0.0, now - self.seen_at)
        left: float = 0.5 ** (idle / FORGIVEN_AFTER_S)
        return self.weights.get(theme, 0.0) * left

    def wary(self, now: float) -> bool:
        """Return whether the next reply is to be held to the stricter check."""
        return any(self.weight(theme, now) >= WARY_AT for theme in THEMES)

    def break_due(self, now: float, *, after_minutes: float) -> bool:
        """Return whether the child is due a break (California SB 243: every three hours)."""
        return now - self.paused_at >= after_minutes * 60

    def to_bytes(self) -> bytes:
        """Return the state as a few bytes of JSON."""
        record = {
            "v": 1,
            # Downwards: a time rounded up lies in the next turn's future and would begin anew.
            "started": math.floor(self.started_at * 10) / 10,
            "seen": math.floor(self.seen_at * 10) / 10,
            "paused": math.floor(self.paused_at * 10) / 10,
            "turns": self.turns,
            "disclosed": int(self.disclosed),
            "weights": {k: round(v, 3) for k, v in self.weights.items() if v >= 0.01},
        }
        return json.dumps(record, separators=(",", ":")).encode()


def begin(now: float) -> SessionState:
    """Return the state before the first turn."""
    return SessionState(started_at=now, seen_at=now, paused_at=now)


def advance(state: SessionState | None, verdict: Verdict, now: float) -> SessionState:
    """Return the state after one more turn of the child.

    A pure function; the clock may jump either way without harm.

    Args:
        state: before it; None, or one that is too old, begins anew.
        verdict: on the child's message.
        now: seconds since the epoch.
    """
    if state is None or not 0 <= now - state.seen_at <= TTL_S:
        state = begin(now)
    touched = set(verdict.hazards)
    weights = {}
    for theme, hazards in THEMES.items():
        weight = state.weight(theme, now) * FORGIVEN_PER_TURN
        if touched & hazards:
            # What was there before the turn counts in full when the theme goes on.
            weight = state.weight(theme, now) + WEIGHTS[verdict.action]
        if weight >= 0.01:
            weights[theme] = min(weight, MOST)
    return replace(state, seen_at=now, turns=state.turns + 1, weights=weights)


def paused(state: SessionState, now: float) -> SessionState:
    """Return the state after a break was offered."""
    return replace(state, paused_at=now)


def disclosed(state: SessionState) -> SessionState:
    """Return the state after the child was told that it talks with a computer program."""
    return replace(state, disclosed=True)


def load_state(value: bytes | None) -> SessionState | None:
    """Return the state that some bytes hold, or None where they hold none.

    Whatever a shared store returns, it never raises: a broken session begins anew.
    """
    if value is None or len(value) > MAX_BYTES:
        return None
    try:
        record = json.loads(value)
        weights = {
            theme: min(max(float(weight), 0.0), MOST)
            for theme, weight in record["weights"].items()
            if theme in THEMES
        }
        times = [float(record[key]) for key in ("started", "seen", "paused")]
        if record["v"] != 1 or not all(0 <= t < 1e11 for t in times):
            return None
        started, seen, pause = times
        turns, told = max(0, int(record["turns"])), record.get("disclosed") == 1
        return SessionState(started, seen, pause, turns, told, weights)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


class SessionStore(Protocol):
    """Keeps a session's bytes for a while; in memory, or in Redis for several replicas."""

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None where there is none or it has expired."""
        ...

    async def put(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """Keep a value for so long."""
        ...

    async def close(self) -> None:
        """Release what is held."""
        ...


class MemoryStore:
    """A `SessionStore` in this process: bounded, the longest unused session goes first.

    Args:
        most: how many sessions are kept.
        clock: monotonic seconds.
    """

    def __init__(self, most: int = 10_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        if most < 1:
            raise ValueError(f"most: {most!r} sessions; at least 1")
        self._most, self._clock = most, clock
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None where there is none or it has expired."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept[0] <= self._clock():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return kept[1]

    async def put(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """Keep a value for so long; a value above `MAX_BYTES` is not kept."""
        if len(value) > MAX_BYTES:
            return
        self._kept[key] = (self._clock() + ttl_seconds, value)
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    async def close(self) -> None:
        """Forget everything."""
        self._kept.clear()


def describe(state: SessionState, now: float) -> dict[str, Any]:
    """Return a state for a grown-up's page: minutes, turns and weights."""
    return {
        "minutes": round((now - state.started_at) / 60, 1),
        "turns": state.turns,
        "weights": {theme: round(state.weight(theme, now), 2) for theme in state.weights},
    }
