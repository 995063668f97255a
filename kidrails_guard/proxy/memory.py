"""Verdicts on texts that were checked before, so that each turn of a talk costs once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from kidrails_guard.types import Verdict


class VerdictMemory:
    """Remembers verdicts on texts that were checked before, by hash: a bounded number.

    A verdict belongs to a text and to everything before it, so the key is a chain over all turns.
    Neither texts nor plain hashes of them are kept: the hash is keyed with a random secret.
    """

    def __init__(self, most: int, *, secret: bytes) -> None:
        self._most, self._secret = most, secret
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()

    def key(self, before: bytes, *parts: str) -> bytes:
        """Return the key of a text that follows what ``before`` stands for."""
        state = hashlib.blake2b(before, key=self._secret, digest_size=16)
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            state.update(len(data).to_bytes(8, "big") + data)
        return state.digest()

    def get(self, key: bytes) -> Verdict | None:
        """Return the verdict, if it is remembered."""
        verdict = self._verdicts.get(key)
        if verdict is not None:
            self._verdicts.move_to_end(key)
        return verdict

    def put(self, key: bytes, verdict: Verdict) -> None:
        """Remember a verdict; one with failed checks is not: the next look may be better."""
        if not verdict.failed:
            self._verdicts[key] = verdict
            while len(self._verdicts) > self._most:
                self._verdicts.popitem(last=False)

    def __len__(self) -> int:
        """Return how many verdicts are remembered."""
        return len(self._verdicts)
