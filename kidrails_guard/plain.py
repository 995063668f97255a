"""A text as rules see it: plain words, one spelling each, one space apart."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
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


@dataclass(frozen=True)
class Plain:
    """Plain words with a space before, between and after them.

    Attributes:
        text: such as ``" i want to die "``: apostrophes and punctuation are gone.
        source: the normalised text that the words come from.
    """

    text: str = field(repr=False)
    source: Normalized = field(repr=False)

    @cached_property
    def _words(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Where each word starts in `text`, and where it lies in the normalised text.

        Only a find needs it, and most texts have none.
        """
        starts: list[int] = []
        places: list[tuple[int, int]] = []
        length = 1
        for match in _WORD.finditer(self.source.text):
            starts.append(length)
            places.append(match.span())
            length += len(_plain_word(match[0])) + 1
        return starts, places

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """Return where a span of ``text`` lies in the original text, in whole words."""
        starts, places = self._words
        first = max(0, bisect_right(starts, start) - 1)
        while first + 1 < len(starts) and self.text[start : starts[first + 1]] == " ":
            first += 1  # the match begins with the space before a word
        last = bisect_right(starts, max(start, end - 1)) - 1
        if last < first or not starts:
            return None
        return self.source.span(places[first][0], places[last][1])


@cache
def _spellings() -> dict[str, str]:
    table = read_yaml(content_path(SPELLING))
    return {other: word for word, others in table.items() for other in str(others).split()}


def _plain_word(word: str) -> str:
    if "'" in word:
        word = _CONTRACTED.get(word) or word.replace("'", "")
    return _spellings().get(word, word)


@lru_cache(maxsize=64)
def plain_words(text: str) -> Plain:
    """Return a text as rules see it; linear in its length.

    Example:
        >>> plain_words("I'm gonna tell ur MOMMY!!").text
        ' i am going to tell your mum '
    """
    source = normalize(text)
    words = _WORD.findall(source.text)
    # Most texts have nothing to respell, which is told without a look at each word.
    if "'" in source.text or not _spellings().keys().isdisjoint(words):
        words = list(map(_plain_word, words))
    return Plain(" ".join(["", *words, ""]), source)
