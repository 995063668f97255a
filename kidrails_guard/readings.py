"""What one token stands for: digits and stars for letters, stretching, joined words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice, product
from typing import Final

from kidrails_guard.disguises import (
    CONTRACTIONS,
    EUPHEMISMS,
    I_VERBS,
    JOINT_STARTS,
    JOINTS,
    KEY,
    LEET,
    MASKED,
    TWO_LETTERS,
    UNIT_WORDS,
)
from kidrails_guard.words import SLURS, Vocabulary, hidden_words

_REPEAT: Final = re.compile(r"(.)\1+")
_UNIT: Final = re.compile(
    r"\d+(?:st|nd|rd|th|s|m|cm|mm|km|kg|g|mg|ml|l|am|pm|p|x|d|k|h|hr|hrs|min|mins|sec|secs|yo|yr"
    r"|yrs|ft|in|lb|lbs|oz|gb|mb|tb|kb|c|f|v|w|er|ers|ish|days|year|years)"
)
_ENDINGS: Final = (
    *(("s", ""), ("es", ""), ("ies", "y"), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e")),
    *(("er", ""), ("er", "e"), ("ers", ""), ("ly", ""), ("ness", ""), ("less", ""), ("d", "")),
)
_LONGEST_TOKEN: Final = 20_000
_COMMON: Final = 9.6
"""Joined words are cut apart only where their average cost is at most this (see `Vocabulary`)."""
_RARE: Final = 12.2
_SENTENCE: Final = 12
"""Letters; from here on, known words in a row need no word that joins them."""
_LONG: Final = 20
"""Letters; no name and no rare word falls apart into so many known ones."""
_ENDLESS: Final = 400
"""Letters; from here on, digits for letters are read in one way only."""
_FAMILIAR: Final = 8.6
"""A doubled letter is taken for a stretched one only where the word is as common as this."""


def spellings(token: str) -> Iterator[str]:
    """Yield the words that digits and signs in a token may stand for, the likeliest first."""
    letters = [LEET.get(c, c) if not c.isalpha() else c for c in token if c != "'"]
    # One reading for each sign throughout: 1 is i everywhere or l everywhere, then mixtures.
    yield "".join(options[0] for options in letters)
    yield "".join(options[-1] for options in letters)
    yield from ("".join(choice) for choice in islice(product(*letters), 64))


def unleet(token: str, words: Vocabulary, *, eager: bool = False) -> str | None:
    """Return the word that a token with digits or signs stands for, if it is one."""
    unit = _UNIT.fullmatch(token)
    if not eager and (token.isdigit() or (unit and len(token) < 5 and token[0] != "0")):
        rare = UNIT_WORDS if len(token) < 5 else KEY
        return next((s for s in spellings(token) if s in rare), None)
    if any(not c.isalpha() and c not in LEET and c != "'" for c in token):
        return None
    if len(token) > _ENDLESS:  # no word is so long, and each reading costs its length
        undone = undo(next(spellings(token)), words)
        return undone[0] if undone and undone[1] else None
    found = next((s for s in spellings(token) if s in EUPHEMISMS), None) or words.best(
        s for s in spellings(token) if len(s) > 2 or s in TWO_LETTERS or (eager and s in "ia")
    )
    if found or token.isdigit() or len(token) < 4 or unit:
        return found
    for spelling in islice(dict.fromkeys(spellings(token)), 4):
        undone = undo(spelling, words)
        if undone and undone[1]:
            return undone[0]
    # A number inside joined words: "iam11andhehitsme".
    pieces = [p for p in re.split(r"(\d+)", token) if p]
    if len(token) < 10 or not all(p.isdigit() or p in words or len(p) > 4 for p in pieces):
        return None
    read = [p if p.isdigit() or p in words else _cut(p, words) for p in pieces]
    return " ".join(read) if all(read) else None  # type: ignore[arg-type]


def _unstretch(token: str, words: Vocabulary) -> str | None:
    """Return the word behind a stretched one: ``killlll`` is ``kill``, ``sooo`` is ``so``."""
    runs = list(_REPEAT.finditer(token))
    if not runs or len(runs) > 6:
        return None
    best, least = None, float("inf")
    short = all(len(run[0]) == 2 for run in runs)
    for kept in product((2, 1), repeat=len(runs)):
        parts, end, bonus = [], 0, 0.0
        for run, count in zip(runs, kept, strict=True):
            parts += [token[end : run.start()], run[1] * count]
            end = run.end()
            # Where both are words (good, god), a stretched double letter is the likelier.
            bonus += 4.0 if count == 2 else 0.0
        word = "".join(parts) + token[end:]
        cost = words.cost(word) - bonus
        if short and cost + bonus > _FAMILIAR and word not in KEY:
            continue  # a name or a rare word: Emmett, stoop
        if cost < least and word != token:
            best, least = word, cost
    return best


def spell(parts: Iterable[str]) -> str:
    """Return words with spaces between them, contractions and code words written out."""
    return " ".join(CONTRACTIONS.get(part) or EUPHEMISMS.get(part, part) for part in parts)


def _inflected(token: str, words: Vocabulary) -> bool:
    """Return whether a token is a known word with an ending: ``daddies``, ``cherished``."""
    return any(
        token.endswith(ending) and token[: -len(ending)] + stem in words
        for ending, stem in _ENDINGS
    )


def _cut(token: str, words: Vocabulary) -> str | None:
    """Return joined words with spaces between them, if the letters are surely words."""
    if not 5 <= len(token) <= _LONGEST_TOKEN or _inflected(token, words):
        return None
    if token[0] == "i" and token[1:] in I_VERBS:
        return f"i {token[1:]}"
    parts, unknown = words.segment(token)
    costs = [0.0 if part in KEY else words.cost(part) for part in parts if part in words]
    if len(parts) < 2 or len(token) < 2.4 * len(parts):
        return None
    if unknown and (len(costs) < 3 or unknown * 3 > len(token)):
        return None
    if len(token) >= _LONG and not unknown and len(parts) > 3 and len(token) >= 3 * len(parts):
        return spell(parts)  # a sentence may have a rare word in it
    # Names and rare words fall apart into rare or tiny pieces; joined sentences do not.
    if sum(costs) > _COMMON * len(costs) or max(costs) > _RARE:
        return None
    joints = sum(part in JOINTS for part in parts) + sum(
        middle == "a" and len(before) > 3 < len(after)
        for before, middle, after in zip(parts, parts[1:], parts[2:], strict=False)
    )
    if len(token) >= _SENTENCE and not unknown and 3 <= len(parts) <= len(token) / 2.8:
        return spell(parts)  # no word is as long as that
    if (
        not unknown
        and any(part in KEY for part in parts)
        and min(map(len, parts)) >= (4 if len(parts) == 2 else 3)
    ):
        return spell(parts)
    if not joints or (len(parts) == 2 and not (parts[1] in JOINTS or parts[0] in JOINT_STARTS)):
        return None
    return spell(parts)


def _unturn(token: str) -> str | None:
    """Return the hidden word behind one written backwards or in pig latin."""
    if token[::-1] in KEY:
        return token[::-1]
    if token.endswith("ay") and len(token) > 4:
        for stem in (token[:-2], token[:-2].removesuffix("w")):
            for moved in range(min(4, len(stem))):
                word = stem[len(stem) - moved :] + stem[: len(stem) - moved]
                if word in KEY:
                    return word
    return None


def undo(token: str, words: Vocabulary) -> tuple[str, bool] | None:
    """Return what an unknown word of letters stands for, and whether that is a real reading."""
    stretched = _unstretch(token, words)
    if stretched:
        return stretched, True
    turned = _unturn(token)
    if turned:
        return turned, True
    single = _REPEAT.sub(lambda m: m[1] if len(m[0]) > 2 else m[0], token)
    for candidate in dict.fromkeys((token, single)):
        joined = _cut(candidate, words)
        if joined:
            return joined, True
    return (single, False) if single != token else None


def unmask(token: str) -> str | None:
    """Return the word behind stars: ``sh*t``."""
    if "*" not in token or not token[0].isalpha() or len(token) > 12:
        return None
    if len(token) < 3:
        return None
    body = token.rstrip("*") if token.count("*") == 1 and token.endswith("*") else token
    if "*" not in body:
        return None
    candidates = (*MASKED, *hidden_words(SLURS))
    for word in candidates:
        if len(word) == len(body) and all(a in ("*", b) for a, b in zip(body, word, strict=True)):
            return word
    short = re.sub(r"\*+", "*", body)
    head, _, tail = short.partition("*")
    if head and tail and "*" not in tail:
        for word in candidates:
            if word.startswith(head) and word.endswith(tail) and len(word) > len(head + tail):
                return word
    return None
