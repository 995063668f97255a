"""Which letter strings are words, and where joined words are to be cut."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from kidrails_guard.content import content_path

LEXICONS = "data/lexicons"
WORDS = f"{LEXICONS}/words.txt"
SLURS = "slurs.txt"

_LONGEST = 16
_UNKNOWN = 16.0
"""Cost of a chunk that is no word, before its length: more than any two known words."""
_INFLECTED = 9_000
"""Of so many of the commonest words, the forms with an ending are known as well."""
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
def hidden_words(name: str) -> tuple[str, ...]:
    """Return the words of a file beside the lexicons that is written in ROT13."""
    lines = content_path(f"{LEXICONS}/{name}").read_text(encoding="utf-8").splitlines()
    return tuple(codecs.decode(line, "rot13") for line in lines if line and line[0] != "#")


def _inflected(ordered: list[str]) -> Iterator[str]:
    """Yield common words with an ending: plurals, pasts, ``-ing`` and ``-er``."""
    for word in ordered[:_INFLECTED]:
        if len(word) < 4:
            continue
        stem = word[:-1] if word[-1] in "ey" else word
        if word.endswith("y") and word[-2] not in "aeiou":
            yield from (f"{stem}ies", f"{stem}ied", f"{word}ing")
        elif word.endswith("e"):
            yield from (f"{word}s", f"{word}d", f"{stem}ing", f"{word}r")
        else:
            plural = "es" if word.endswith(("s", "x", "ch", "sh")) else "s"
            yield from (f"{word}{plural}", f"{word}ed", f"{word}ing", f"{word}er")


@cache
def vocabulary() -> Vocabulary:
    """Return the vocabulary that ships."""
    lines = content_path(WORDS).read_text(encoding="utf-8").splitlines()
    ordered = [line for line in lines if line and line[0] != "#"]
    # Made-up forms come last: they are known, but never likelier than a word of the list.
    return Vocabulary([*ordered, *hidden_words(SLURS), *_inflected(ordered)])
