"""Disguises: how letters are hidden on purpose. For guard rows, so that it learns to see through.

Harmless messages are disguised as often as risky ones: a disguise alone must not be the signal.
"""

from __future__ import annotations

import random
import re
from typing import Final

LEET: Final = str.maketrans("aeiost", "431057")
LOOK_ALIKES: Final = str.maketrans("aeopcxy", "аеорсху")  # Cyrillic
ZERO_WIDTH: Final = "\u200b"


def _leet(word: str, rng: random.Random) -> str:
    return word.translate(LEET)


def _look_alike(word: str, rng: random.Random) -> str:
    return word.translate(LOOK_ALIKES)


def _spaced(word: str, rng: random.Random) -> str:
    return rng.choice(" .-_").join(word)


def _zero_width(word: str, rng: random.Random) -> str:
    return ZERO_WIDTH.join(word)


def _stretched(word: str, rng: random.Random) -> str:
    vowels = [i for i, letter in enumerate(word) if letter in "aeiou"]
    at = rng.choice(vowels or [len(word) - 1])
    return word[:at] + word[at] * rng.randint(3, 6) + word[at + 1 :]


def _mixed_case(word: str, rng: random.Random) -> str:
    return "".join(c.upper() if i % 2 else c.lower() for i, c in enumerate(word))


KINDS: Final = {
    "leet": _leet,
    "look-alike": _look_alike,
    "spaced": _spaced,
    "zero-width": _zero_width,
    "stretched": _stretched,
    "mixed case": _mixed_case,
}


def disguise(text: str, rng: random.Random) -> tuple[str, str]:
    """Return the text with one or two of its longer words disguised, and the kind of disguise."""
    found = {match.group() for match in re.finditer(r"[A-Za-z]{4,}", text)}
    words = sorted(found, key=lambda word: (-len(word), word))
    kind = rng.choice(list(KINDS))
    for word in words[: rng.randint(1, 2)]:
        text = re.sub(rf"\b{word}\b", KINDS[kind](word, rng).replace("\\", r"\\"), text, count=1)
    return text, kind
