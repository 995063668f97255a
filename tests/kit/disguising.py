"""Ways in which children and pranksters hide words: each takes a text and a random generator."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from casefold_fuzz import mutate

from kidrails_guard.disguises import EMOJI, KEY, MASKED

LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7", "l": "1", "b": "8"}
SIGNS = {"a": "@", "s": "$", "i": "!", "e": "3", "o": "0"}
LOOKALIKES = dict(zip("aceijopsxyhkmt", "асеіјорѕхуһкмт", strict=True))
WORDS = {word: sign for sign, word in reversed(EMOJI.items())}

Disguise = Callable[[str, random.Random], str]


def _each(text: str, change: Callable[[str], str]) -> str:
    return re.sub(r"[A-Za-z]+", lambda match: change(match[0]), text)


def _hidden(text: str, change: Callable[[str], str]) -> str:
    """Change the words that somebody would hide; where there is none, the longest word."""
    words = re.findall(r"[A-Za-z]+", text)
    keys = [w for w in words if w.lower() in KEY] or sorted(words, key=len)[-1:]
    return _each(text, lambda word: change(word) if word in keys and len(word) > 2 else word)


def _one(word: str, table: dict[str, str], rng: random.Random) -> str:
    places = [i for i, c in enumerate(word) if c.lower() in table and (i or len(word) > 3)]
    if not places:
        return word
    at = rng.choice(places)
    return word[:at] + table[word[at].lower()] + word[at + 1 :]


def _leet(word: str) -> str:
    other = "".join(LEET.get(c.lower(), c) for c in word)
    # Digits alone are a number to everybody: one letter stays.
    return word[0] + other[1:] if other.isdigit() else other


def _stretch(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word))
    return word[:at] + word[at] * rng.randint(3, 6) + word[at + 1 :]


def _starred(word: str) -> str:
    inner = re.sub(r"[aeiou]", "*", word[1:-1], flags=re.IGNORECASE)
    return word[0] + inner + word[-1] if word.lower() in MASKED else word


DISGUISES: dict[str, Disguise] = {
    "upper case": lambda t, r: t.upper(),
    "mixed case": lambda t, r: "".join(c.upper() if r.random() < 0.5 else c.lower() for c in t),
    "full width": lambda t, r: "".join(
        chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" if c == " " else c for c in t
    ),
    "mathematical letters": lambda t, r: "".join(
        chr(0x1D400 + ord(c) - 65)
        if "A" <= c <= "Z"
        else chr(0x1D41A + ord(c) - 97)
        if "a" <= c <= "z"
        else c
        for c in t
    ),
    "look-alikes": lambda t, r: "".join(
        LOOKALIKES.get(c.lower(), c) if r.random() < 0.6 else c for c in t
    ),
    "zero width": lambda t, r: _each(
        t, lambda w: "".join(c + r.choice(["", "\u200b", "\u200c", "\u2060", "\ufeff"]) for c in w)
    ),
    "soft hyphens": lambda t, r: _each(t, lambda w: "\u00ad".join(w)),
    "combining marks": lambda t, r: _each(
        t, lambda w: "".join(c + r.choice(["", "\u0336", "\u0301\u0327"]) for c in w)
    ),
    "digit for a letter": lambda t, r: _hidden(t, lambda w: _one(w, LEET, r)),
    "digits for letters": lambda t, r: _hidden(t, _leet),
    "signs for letters": lambda t, r: _hidden(t, lambda w: _one(w, SIGNS, r)),
    "stars": lambda t, r: _each(t, _starred),
    "spaced word": lambda t, r: _hidden(t, lambda w: " ".join(w)),
    "dotted word": lambda t, r: _hidden(t, lambda w: ".".join(w)),
    "dashed word": lambda t, r: _hidden(t, lambda w: "-".join(w)),
    "spaced text": lambda t, r: "  ".join(" ".join(w) for w in t.split()),
    "dotted text": lambda t, r: " ".join(".".join(w) for w in t.split()),
    "stretched": lambda t, r: _hidden(t, lambda w: _stretch(w, r)),
    "joined": lambda t, r: t.replace(" ", ""),
    "joined with capitals": lambda t, r: "".join(w.capitalize() for w in t.split()),
    "emoji": lambda t, r: _each(
        t, lambda w: WORDS[w.lower()] if w.lower() in WORDS and w.lower() in KEY else w
    ),
    "backwards": lambda t, r: _each(t, lambda w: w[::-1] if w.lower() in KEY else w),
    "pig latin": lambda t, r: _each(
        t,
        lambda w: re.sub(r"^([^aeiou]*)(.*)$", r"\2\1ay", w.lower()) if w.lower() in KEY else w,
    ),
}


def disguised(text: str, seed: int) -> Iterator[tuple[str, str]]:
    """Yield the text in every disguise, with the disguise's name."""
    for name, change in DISGUISES.items():
        other = change(text, random.Random(f"{seed}{name}{text}"))
        if other != text:
            yield name, other


def fuzzed(text: str) -> Iterator[tuple[str, str]]:
    """Yield the text as `casefold-fuzz` disguises it."""
    for variant in mutate(text, max_variants=0):
        yield f"casefold-fuzz {variant.technique}", variant.text
