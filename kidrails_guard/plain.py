"""A text as rules see it: plain words, one spelling each, one space apart."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Final

from kidrails_guard.content import content_path
from kidrails_guard.normalize import Normalized, normalize
from kidrails_guard.policy import read_yaml

SPELLING: Final = "data/lexicons/spelling.yaml"

_WORD: Final = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")
_CONTRACTED: Final = {
    "i'll": "i will",
    "he'll": "he will",
    "she'll": "she will",
    "we'll": "we will",
    "i'd": "i would",
    "he'd": "he would",
    "she'd": "she would",
    "we're": "we are",
    "let's": "lets",
}


@dataclass(frozen=True, slots=True)
class Plain:
    """Plain words with a space before, between and after them.

    Attributes:
        text: such as ``" i want to die "``: apostrophes and punctuation are gone.
        source: the normalised text that the words come from.
    """

    text: str = field(repr=False)
    source: Normalized = field(repr=False)
    _starts: tuple[int, ...] = field(repr=False, default=())
    _places: tuple[tuple[int, int], ...] = field(repr=False, default=())

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """Return where a span of ``text`` lies in the original text, in whole words."""
        first = max(0, bisect_right(self._starts, start) - 1)
        while first + 1 < len(self._starts) and self.text[start : self._starts[first + 1]] == " ":
            first += 1  # the match begins with the space before a word
        last = bisect_right(self._starts, max(start, end - 1)) - 1
        if last < first or not self._starts:
            return None
        return self.source.span(self._places[first][0], self._places[last][1])


@cache
def _spellings() -> dict[str, str]:
    table = read_yaml(content_path(SPELLING))
    return {other: word for word, others in table.items() for other in str(others).split()}


@lru_cache(maxsize=64)
def plain_words(text: str) -> Plain:
    """Return a text as rules see it; linear in its length.

    Example:
        >>> plain_words("I'm gonna tell ur MOMMY!!").text
        ' i am going to tell your mum '
    """
    source = normalize(text)
    spelling = _spellings()
    parts = [""]
    starts: list[int] = []
    places: list[tuple[int, int]] = []
    length = 1
    for match in _WORD.finditer(source.text):
        word = match[0]
        if "'" in word:
            word = _CONTRACTED.get(word) or word.replace("'", "")
        word = spelling.get(word, word)
        starts.append(length)
        places.append(match.span())
        parts.append(word)
        length += len(word) + 1
    parts.append("")
    return Plain(" ".join(parts), source, tuple(starts), tuple(places))
