"""Finds near-copies: MinHash with locality-sensitive hashing proposes, exact counting decides."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

from datasketch import MinHash, MinHashLSH

from kidrails_guard.golden.textform import jaccard, shingles

NEAR: Final = 0.8
"""From this share of common five-letter runs on, two texts count as near-copies."""

_BANDS: Final = (32, 4)
"""Bands and rows: a pair at 0.8 is missed once in 20 million, one at 0.1 is looked at once in 300.

Source: Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3.4.
"""


class NearIndex:
    """Texts that were seen, and which of them a new one nearly copies.

    Args:
        threshold: from this Jaccard similarity on, two texts are near-copies.
    """

    def __init__(self, threshold: float = NEAR) -> None:
        self.threshold = threshold
        self._lsh = MinHashLSH(num_perm=_BANDS[0] * _BANDS[1], params=_BANDS)
        self._shingles: dict[Hashable, frozenset[int]] = {}
        self._order: dict[Hashable, int] = {}
        self._empty = MinHash(num_perm=_BANDS[0] * _BANDS[1], hashfunc=int)

    def _sign(self, runs: frozenset[int]) -> MinHash:
        sign = self._empty.copy()
        sign.update_batch(sorted(runs))
        return sign

    def find(self, text: str) -> tuple[Hashable, ...]:
        """Return the keys of all texts that ``text`` nearly copies, in the order they came."""
        runs = shingles(text)
        return self._alike(runs, self._sign(runs))

    def add(self, key: Hashable, text: str) -> tuple[Hashable, ...]:
        """Add a text and return the keys of those before it that it nearly copies."""
        runs = shingles(text)
        sign = self._sign(runs)
        found = self._alike(runs, sign)
        self._keep(key, runs, sign)
        return found

    def add_new(self, key: Hashable, text: str) -> Hashable | None:
        """Add a text unless it nearly copies one; return the first such key, or None if added."""
        runs = shingles(text)
        sign = self._sign(runs)
        found = self._alike(runs, sign)
        if found:
            return found[0]
        self._keep(key, runs, sign)
        return None

    def _alike(self, runs: frozenset[int], sign: MinHash) -> tuple[Hashable, ...]:
        found = [
            key
            for key in self._lsh.query(sign)
            if jaccard(runs, self._shingles[key]) >= self.threshold
        ]
        return tuple(sorted(found, key=self._order.__getitem__))

    def _keep(self, key: Hashable, runs: frozenset[int], sign: MinHash) -> None:
        self._lsh.insert(key, sign)
        self._order[key] = len(self._order)
        self._shingles[key] = runs


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
