"""Reading level and length of the model's reply, for the band."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import copysign, floor
from typing import Any, Final

from kidrails_guard.policy import BandRule, Policy
from kidrails_guard.types import AgeBand, Conversation, Finding, Hazard, Severity, Stage

FEWEST_WORDS: Final = 30
"""Below this, readability formulas say nothing (``docs/safety.md``)."""

_NOT_WORD: Final = re.compile(r"[^\w\s]")
_SENTENCE: Final = re.compile(r"\b[^.!?]+[.!?]*")
_LONGEST_WORD: Final = 40
"""Longer strings are no words; hyphenation dictionaries are slow on them."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How hard a text is to read.

    Attributes:
        grade: Flesch-Kincaid grade (school years), as textstat counts it.
        words: number of words.
        words_per_sentence: average.
    """

    grade: float
    words: int
    words_per_sentence: float


@cache
def _hyphenation() -> Any:
    from pyphen import Pyphen  # type: ignore[import-untyped]

    return Pyphen(lang="en_US")


@lru_cache(maxsize=8_192)
def _syllables(word: str) -> int:
    if len(word) > _LONGEST_WORD:
        return len(word) // 3
    return len(_hyphenation().positions(word)) + 1


def measure(text: str) -> Reading:
    """Return how hard a text is to read; linear in its length.

    The numbers equal textstat 0.7.4's (tested), which counts syllables with the same dictionaries
    but keeps every text it has seen in a cache and takes a second to import.

    Source: Kincaid et al., "Derivation of New Readability Formulas" (1975).
    """
    words = _NOT_WORD.sub("", text.lower()).split()
    count = len(words)
    long_enough = short = 0
    for sentence in _SENTENCE.findall(text):
        if len(_NOT_WORD.sub("", sentence).split()) > 2:
            long_enough += 1
        else:
            short += 1
    sentences = max(1, long_enough)
    syllables = sum(map(_syllables, words))
    per_sentence = _round(count / sentences)
    per_word = _round(syllables / count) if count else 0.0
    grade = _round(0.39 * per_sentence + 11.8 * per_word - 15.59)
    return Reading(grade, count, per_sentence)


def _round(number: float) -> float:
    """Round half up to one decimal, as textstat does."""
    return floor(number * 10 + copysign(0.5, number)) / 10


class ReadabilityCheck:
    """Finds replies that are too hard or too long for the band.

    Args:
        bands: the policy's targets.
    """

    name = "readability"
    inline = True
    stages = frozenset({Stage.OUTPUT})

    def __init__(self, bands: dict[AgeBand, BandRule]) -> None:
        self._bands = bands

    async def __call__(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> Sequence[Finding]:
        """Return a finding for a reply above the band's grade, and one above its length."""
        rule = self._bands.get(band)
        if rule is None or len(text.split(None, FEWEST_WORDS)) <= FEWEST_WORDS:
            return ()
        reading = measure(text)
        found = []
        if reading.words > rule.max_words:
            found.append(
                self._finding("length", f"{reading.words} words, at most {rule.max_words}")
            )
        if reading.words >= FEWEST_WORDS and reading.grade > rule.max_grade:
            note = (
                f"grade {reading.grade:.1f}, at most {rule.max_grade:g}; "
                f"{reading.words_per_sentence:.1f} words a sentence, {reading.words} words"
            )
            found.append(self._finding("reading_level", note))
        return found

    def _finding(self, case: str, note: str) -> Finding:
        return Finding(self.name, Hazard.BENIGN, Severity.MILD, note=note, case=case, whole=True)


def build(policy: Policy) -> ReadabilityCheck:
    """Return the check for a policy: its bands hold the targets."""
    return ReadabilityCheck(policy.bands)
