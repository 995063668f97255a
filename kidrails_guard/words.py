"""Which letter strings are words, and where joined words are to be cut."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache

from kidrails_guard.content import content_path

WORDS = "data/lexicons/words.txt"

_LONGEST = 16
_UNKNOWN = 16.0
"""Cost of a chunk that is no word, before its length: more than any two known words."""
_PIECE = 400
"""Letters that are cut at a time, so that memory and time stay linear."""


class Vocabulary:
    """Known words with a cost each: the negative logarithm of how common the word is.

    Args:
        words: commonest first.
    """

    def __init__(self, words: Iterable[str]) -> None:
        ordered = list(dict.fromkeys(words))
        # Zipf's law: the n-th word has a share of about 1/n.
        harmonic = math.log(sum(1 / (rank + 10) for rank in range(len(ordered))) or 1.0)
        self.costs: Mapping[str, float] = {
            word: math.log(rank + 10) + harmonic for rank, word in enumerate(ordered)
        }

    def __contains__(self, word: str) -> bool:
        return word in self.costs

    def cost(self, word: str) -> float:
        """Return a known word's cost, or infinity."""
        return self.costs.get(word, math.inf)

    def best(self, candidates: Iterable[str]) -> str | None:
        """Return the commonest known candidate, or None when none is known."""
        known = [c for c in candidates if c in self.costs]
        return min(known, key=self.costs.__getitem__) if known else None

    def segment(self, letters: str) -> tuple[list[str], int]:
        """Cut letters into words so that the sum of the words' costs is least.

        Args:
            letters: lower-case letters without spaces.

        Returns:
            The words, and how many letters lie in chunks that are no words.

        Source: Viterbi over a unigram model, as in Norvig, "Natural Language Corpus Data" (2009).
        """
        if len(letters) <= _PIECE:
            return self._segment(letters)
        words: list[str] = []
        for start in range(0, len(letters), _PIECE):
            # The last word may have been cut: begin the next piece with it.
            rest = words.pop() if words else ""
            words += self._segment(rest[-_LONGEST:] + letters[start : start + _PIECE])[0]
        return words, sum(len(word) for word in words if word not in self.costs)

    def _segment(self, letters: str) -> tuple[list[str], int]:
        costs, lookup = [0.0], self.costs.get
        back = [0]
        for end in range(1, len(letters) + 1):
            best, start_of_best = math.inf, end - 1
            for start in range(max(0, end - _LONGEST), end):
                word = letters[start:end]
                cost = lookup(word)
                if cost is None:
                    cost = _UNKNOWN + 3.0 * (end - start)
                if costs[start] + cost < best:
                    best, start_of_best = costs[start] + cost, start
            costs.append(best)
            back.append(start_of_best)
        words, end = [], len(letters)
        while end:
            words.append(letters[back[end] : end])
            end = back[end]
        words.reverse()
        return words, sum(len(word) for word in words if word not in self.costs)


@cache
def vocabulary() -> Vocabulary:
    """Return the vocabulary that ships."""
    lines = content_path(WORDS).read_text(encoding="utf-8").splitlines()
    return Vocabulary(line for line in lines if line and not line.startswith("#"))
