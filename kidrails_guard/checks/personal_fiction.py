"""Which personal data is made up: a story's, a game's. What a child says of itself never is."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from functools import lru_cache
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict

from kidrails_guard.checks.personal_numbers import regex

_MADE_UP: Final = frozenset(
    ("name", "address", "location", "school", "class", "handle", "time_alone")
)
"""Kinds that a story is full of. A telephone number or a card is none of them."""

_CLAUSE_ENDS: Final = re.compile(
    r"[.!?;\n]+(?=\s|$)|(?:,|\b(?:and|but|so|because|cuz))\s+(?=(?:i|im|i'm|my|we|our)\b)",
    re.IGNORECASE,
)


class Fiction(BaseModel):
    """What makes a find fiction, as patterns, case-insensitive.

    Attributes:
        subject: makes up what its own clause says.
        told: begins a story; what follows is made up.
        pretend: makes up even what the child says of itself, in its own clause.
        real: the child or its people; what its clause says from there on is not made up.
        play: whose password opens nothing, in its own clause.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str
    told: str
    pretend: str
    real: str
    play: str

    def first(self, pattern: str, text: str) -> int:
        """Return where the first match of a pattern ends, or a place behind the text."""
        match = regex(f"(?i){pattern}").search(text)
        return match.end() if match else len(text) + 1


class _Clause(NamedTuple):
    """One clause: what it holds, and where the child's own part of it begins."""

    subject: bool
    pretend: bool
    play: bool
    real: int


class Tale:
    """One text, looked at for what it makes up. Linear in the text, however much is found in it.

    Args:
        fiction: the patterns.
        text: the whole text.
    """

    def __init__(self, fiction: Fiction, text: str) -> None:
        self._fiction, self._text = fiction, text
        self._cuts = [0, *(match.end() for match in _CLAUSE_ENDS.finditer(text)), len(text)]
        self._told = fiction.first(fiction.told, text)
        self._clause = lru_cache(maxsize=None)(self._read)

    def _read(self, low: int, high: int) -> _Clause:
        text, look = self._text[low:high], self._fiction
        return _Clause(
            subject=look.first(look.subject, text) <= len(text),
            pretend=look.first(look.pretend, text) <= len(text),
            play=look.first(look.play, text) <= len(text),
            real=low + look.first(look.real, text),
        )

    def excuses(self, start: int, end: int, kind: str) -> bool:
        """Return whether a find of a kind at a place is made up."""
        at = bisect_right(self._cuts, start)
        until = max(at, bisect_left(self._cuts, end))
        clause = self._clause(self._cuts[at - 1], self._cuts[min(until, len(self._cuts) - 1)])
        if kind == "password":
            return clause.play
        if kind not in _MADE_UP:
            return False
        if clause.pretend:
            return True
        return clause.real > end and (clause.subject or self._told <= start)
