"""Which letter strings are words, and where joined words are to be cut."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from kidrails_guard.content import content_path
from kidrails_guard.disguises import EUPHEMISMS

LEXICONS = "data/lexicons"
WORDS = f"{LEXICONS}/words.txt"
RARE_WORDS = f"{LEXICONS}/rare_words.txt"
PAIRS = f"{LEXICONS}/word_pairs.txt"
SLURS = "slurs.txt"

LONGEST = 16
_UNKNOWN = 16.0
"""Cost of a chunk that is no word, before its length: more than any two known words."""
_INFLECTED = 9_000
"""Of so many of the commonest words, the forms with an ending are known as well."""
_RARE_EXTRA = 3.0
"""What a rare word costs more than the last common one: letters are cut into common words first."""
PAIR_EXTRA = 0.7
"""What a pair costs beyond its share, since a few counted texts say it, not many."""
_PIECE = 400
"""Letters that are cut at a time, so that memory and time stay linear."""


class Vocabulary:
    """Known words with a cost each: the negative logarithm of how common the word is.

    Args:
        words: commonest first.
        rare: known as well, and all rarer than these.
        pairs: word to the words that it often follows, with a cost each.

    Attributes:
        costs: each known word with its cost.
    """

    def __init__(
        self,
        words: Iterable[str],
        rare: Iterable[str] = (),
        pairs: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self._pairs = pairs or {}
        ordered = list(dict.fromkeys(words))
        # Zipf's law: the n-th word has a share of about 1/n.
        harmonic = math.log(sum(1 / (rank + 10) for rank in range(len(ordered))) or 1.0)
        last = math.log(len(ordered) + 10) + harmonic + _RARE_EXTRA
        self.costs: Mapping[str, float] = dict.fromkeys(rare, last) | {
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

        A word after one that it often follows costs what the pair costs, else what it costs alone.

        Args:
            letters: lower-case letters without spaces.

        Returns:
            The words, and how many letters lie in chunks that are no words.

        Source: Viterbi over words and pairs, as in Norvig, "Natural Language Corpus Data" (2009).
        """
        if len(letters) <= _PIECE:
            return self._segment(letters)
        words: list[str] = []
        for start in range(0, len(letters), _PIECE):
            # The last word may have been cut: begin the next piece with it.
            rest = words.pop() if words else ""
            words += self._segment(rest[-LONGEST:] + letters[start : start + _PIECE])[0]
        return words, sum(len(word) for word in words if word not in self.costs)

    def _segment(self, letters: str) -> tuple[list[str], int]:
        lookup, pairs = self.costs.get, self._pairs
        # For each end: the chunks that may end there, as (cost of all so far, start, chunk before).
        ends: list[dict[str, tuple[float, int, str]]] = [{"": (0.0, 0, "")}]
        cheapest = [(0.0, "")]  # of each end: the least of these costs, and its chunk
        for end in range(1, len(letters) + 1):
            here: dict[str, tuple[float, int, str]] = {}
            strange = (math.inf, end - 1, "", "")
            for start in range(max(0, end - LONGEST), end):
                word = letters[start:end]
                least, last = cheapest[start]
                cost = lookup(word)
                if cost is None:
                    strange = min(strange, (least + _UNKNOWN + 3.0 * len(word), start, last, word))
                    continue
                best = (least + cost, start, last)
                follows = pairs.get(word)
                if follows:
                    for other, (so_far, _, _) in ends[start].items():
                        pair = follows.get(other)
                        if pair is not None and so_far + pair + PAIR_EXTRA < best[0]:
                            best = (so_far + pair + PAIR_EXTRA, start, other)
                here[word] = best
            # One chunk that is no word is enough: the others would be longer ways round.
            if strange[3] and not any(cost < strange[0] - _UNKNOWN for cost, _, _ in here.values()):
                here[strange[3]] = strange[:3]
            ends.append(here)
            cheapest.append(min(((c[0], w) for w, c in here.items()), key=lambda pair: pair[0]))
        end, words = len(letters), []
        word = cheapest[end][1]
        while end:
            _, start, previous = ends[end][word]
            words.append(word)
            end, word = start, previous
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
    ordered = _listed(WORDS)
    # Made-up forms come last: they are known, but never likelier than a word of the list.
    return Vocabulary(
        [*ordered, *hidden_words(SLURS), *EUPHEMISMS, *_inflected(ordered)],
        rare=_listed(RARE_WORDS),
        pairs=_listed_pairs(),
    )


def _listed_pairs() -> dict[str, dict[str, float]]:
    pairs: dict[str, dict[str, float]] = {}
    for line in _listed(PAIRS):
        first, second, cost = line.split()
        pairs.setdefault(second, {})[first] = float(cost)
    return pairs


def _listed(name: str) -> list[str]:
    lines = content_path(name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and line[0] != "#"]
