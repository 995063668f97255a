"""Finds near-copies, exactly: an index of five-letter runs proposes, counting decides."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Final

from kidrails_guard.golden.textform import jaccard, shingles

NEAR: Final = 0.8
"""From this share of common five-letter runs on, two texts count as near-copies."""

_SPARE: Final = 5
"""Rare runs looked up beside those that must be: each asks a candidate for one more in common.

Of 0 to 15 on 122,000 messages, 5 took least time: half of MinHash's, in a 14th of its memory (a
trial; no command here repeats it).
"""


class NearIndex:
    """Texts that were seen, and which of them a new one nearly copies.

    Two texts whose runs have a Jaccard similarity of t or more share at least t·n of the n runs of
    either. So of any p runs of one, the other has all but n - ⌈t·n⌉; the p rarest are looked up,
    and what holds too few of them is never compared. No near-copy is missed, and none is found by
    chance. Source of the bound: Chaudhuri, Ganti, Kaushik, "A Primitive Operator for Similarity
    Joins in Data Cleaning" (2006), with the order taken from the index itself.

    Args:
        threshold: from this Jaccard similarity on, two texts are near-copies, above 0.
    """

    def __init__(self, threshold: float = NEAR) -> None:
        self.threshold = threshold
        self._keys: list[Hashable] = []
        self._runs: list[array[int]] = []
        self._holders: dict[int, array[int]] = {}
        """By run: the texts that have it, as places in ``_keys``."""

    def find(self, text: str) -> tuple[Hashable, ...]:
        """Return the keys of all texts that ``text`` nearly copies, in the order they came."""
        return self._alike(shingles(text))

    def add(self, key: Hashable, text: str) -> tuple[Hashable, ...]:
        """Add a text and return the keys of those before it that it nearly copies."""
        runs = shingles(text)
        found = self._alike(runs)
        self._keep(key, runs)
        return found

    def add_new(self, key: Hashable, text: str) -> Hashable | None:
        """Add a text unless it nearly copies one; return the first such key, or None if added."""
        runs = shingles(text)
        found = self._alike(runs)
        if found:
            return found[0]
        self._keep(key, runs)
        return None

    def _alike(self, runs: frozenset[int]) -> tuple[Hashable, ...]:
        held = sorted((h for run in runs if (h := self._holders.get(run))), key=len)
        # How many of ``runs`` a near-copy may lack; what no text has, it lacks.
        lacking = len(runs) - math.ceil(self.threshold * len(runs) - 1e-9)
        lacking -= len(runs) - len(held)
        if lacking < 0:
            return ()
        rarest = held[: lacking + 1 + _SPARE]
        shared: Counter[int] = Counter()
        for holders in rarest:
            shared.update(holders)
        least = len(rarest) - lacking
        likely = [place for place, count in shared.items() if count >= least]
        return tuple(self._keys[place] for place in sorted(likely) if self._near(runs, place))

    def _near(self, runs: frozenset[int], place: int) -> bool:
        return jaccard(runs, frozenset(self._runs[place])) >= self.threshold

    def _keep(self, key: Hashable, runs: frozenset[int]) -> None:
        place = len(self._keys)
        self._keys.append(key)
        self._runs.append(array("I", runs))
        for run in runs:
            self._holders.setdefault(run, array("I")).append(place)


def clusters(
    texts: Iterable[tuple[Hashable, str]], *, threshold: float = NEAR
) -> list[list[Hashable]]:
    """Return groups of near-copies: two texts are together when a chain of near-copies joins them.

    Args:
        texts: key and text, keys unique.
        threshold: see `NearIndex`.

    Returns:
        Groups in the order of their first member, members in the given order; every key is in one.
    """
    index = NearIndex(threshold)
    root: dict[Hashable, Hashable] = {}

    def find(key: Hashable) -> Hashable:
        while root[key] != key:
            root[key] = root[root[key]]
            key = root[key]
        return key

    order: dict[Hashable, int] = {}
    for key, text in texts:
        order[key] = len(order)
        root[key] = key
        for other in index.add(key, text):
            one, two = find(key), find(other)
            older, newer = sorted((one, two), key=order.__getitem__)
            root[newer] = older
    groups: dict[Hashable, list[Hashable]] = {}
    for key in order:
        groups.setdefault(find(key), []).append(key)
    return list(groups.values())
