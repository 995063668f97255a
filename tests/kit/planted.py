"""A guard with small checks over planted words, so that tests know where the hazards are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import cache

from kidrails_guard.answers import load_answers
from kidrails_guard.guard import Guard
from kidrails_guard.policy import Policy, load_policy
from kidrails_guard.types import AgeBand, Finding, Hazard, Severity, Stage

PLANTS: dict[str, tuple[Hazard, str]] = {
    "kaboomium": (Hazard.VIOLENCE_HOWTO, "word"),
    "zorblat": (Hazard.SEXUAL_CONTENT, "word"),
    "i want to vanish": (Hazard.SELF_HARM, "phrase"),
    "grumpflebeast": (Hazard.DISTRESS, "word"),
    "obey the parrot": (Hazard.JAILBREAK, "phrase"),
}
"""Planted text to hazard. Blanks in a phrase match any blanks."""

NUMBER = re.compile(r"\b555[-\s]\d{3}[-\s]\d{4}\b")
MAIL = re.compile(r"\b[a-z]+@[a-z]+\.test\b")
PATTERNS = {
    plant: re.compile(r"\s+".join(map(re.escape, plant.split())), re.IGNORECASE) for plant in PLANTS
}


class Planted:
    """Finds the planted words; optionally waits before it answers."""

    name = "planted"
    stages = frozenset(Stage)

    def __init__(self, pause: Callable[[], float | None] = lambda: None) -> None:
        self.pause = pause
        self.windows: list[str] = []

    async def __call__(self, conversation, text, band, stage):
        seconds = self.pause()
        if seconds is not None:
            await asyncio.sleep(seconds)
        self.windows.append(text)
        found = [
            Finding(self.name, hazard, Severity.SEVERE, span=match.span(), note=note)
            for plant, (hazard, note) in PLANTS.items()
            for match in PATTERNS[plant].finditer(text)
        ]
        for kind, pattern in (("phone", NUMBER), ("email", MAIL)):
            found += [
                Finding(
                    self.name,
                    Hazard.PERSONAL_DATA,
                    Severity.MODERATE,
                    span=match.span(),
                    note=kind,
                    redact=True,
                    case="gives",
                )
                for match in pattern.finditer(text)
            ]
        return found


@cache
def _default() -> Policy:
    return load_policy()


def planted_policy(**updates: object) -> Policy:
    """The default policy, with other values."""
    return _default().model_copy(update=updates)


def planted_guard(check: Planted | None = None, **updates: object) -> Guard:
    """A guard whose only check finds the planted words."""
    return Guard(planted_policy(**updates), checks=[check or Planted()])


@cache
def _kind_words() -> tuple[str, ...]:
    answers = load_answers("en")
    tables = [*answers.answers.values(), answers.withheld, answers.notices["unchecked"]]
    return tuple(text for table in tables for variants in table.values() for text in variants)


def is_kind(text: str) -> bool:
    """Whether a text holds one of the fixed answers."""
    return any(words in text for words in _kind_words())


def notice(name: str, *said: str, band: AgeBand = AgeBand.EARLY) -> str:
    """The notice that is picked for what the child has said."""
    return load_answers("en").notice(name, band, seed=repr(list(said)))


INTERRUPTED = load_answers("en").notices["interrupted"][AgeBand.EARLY]
"""Every way of saying it, as `str.endswith` takes them."""
