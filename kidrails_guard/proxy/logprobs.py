"""Log probabilities of a reply's tokens, kept until the words that they are about have left."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from kidrails_guard.streaming import Release
from kidrails_guard.units import clean_surrogates


@dataclass(frozen=True, slots=True)
class _Token:
    start: int
    end: int
    entry: dict[str, Any] = field(repr=False)


class Logprobs:
    """Of one reply: nothing but numbers, and tokens that say exactly what leaves."""

    def __init__(self) -> None:
        self._tokens: deque[_Token] = deque()
        self._size = 0
        self._masked_to = 0
        self._in_step = True

    def take(self, text: str, logprobs: Any) -> None:
        """Keep what an upstream says of a part of the reply, without alternatives.

        Args:
            text: the part, as it came.
            logprobs: of its tokens; what does not say exactly the text is not kept.
        """
        if clean_surrogates(text) != text:
            # Halves of a character that are joined later: places are not the same any more.
            self._in_step = False
            self._tokens.clear()
        if not self._in_step:
            return
        tokens: list[_Token] = []
        start = end = self._size
        self._size += len(text)
        entries = logprobs.get("content") if isinstance(logprobs, dict) else None
        for entry in entries if isinstance(entries, list) else []:
            token = entry.get("token") if isinstance(entry, dict) else None
            number = entry.get("logprob") if isinstance(entry, dict) else None
            if not isinstance(token, str) or not _is_logprob(number):
                return
            start, end = end, end + len(token)
            data = list(token.encode("utf-8", "replace"))
            said = {"token": token, "logprob": number, "bytes": data, "top_logprobs": []}
            tokens.append(_Token(start, end, said))
        if "".join(token.entry["token"] for token in tokens) == text:
            self._tokens.extend(tokens)

    def release(self, release: Release) -> tuple[dict[str, Any], ...]:
        """Return those of the tokens that end in a release; none that began in a masked one."""
        if release.masked:
            self._masked_to = release.through
        leaving = []
        while self._tokens and self._tokens[0].end <= release.through:
            token = self._tokens.popleft()
            if token.start >= self._masked_to:
                leaving.append(token.entry)
        return tuple(leaving)


def _is_logprob(value: Any) -> bool:
    # Also refuses what JSON cannot hold: infinities and NaN.
    return isinstance(value, int | float) and -1e9 <= value <= 1e9
