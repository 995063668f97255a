"""The hands that children write in: the same words, dictated, misspelt, texted or with care."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Final

from kidrails_guard.golden.wording import Wording

QUESTION: Final = re.compile(
    r"(?:why|how|what|where|who|which|when|whats|is|are|do|does|did|can|could|will|would|should|has|"
    r"have|am|was|were|y|wat|wut|wot|wen|wy|duz|dose)\b",
    re.IGNORECASE,
)


def keep_case(old: str, new: str) -> str:
    """Return ``new`` with the case of ``old``: all capitals, a first capital, or neither."""
    if len(old) > 1 and old.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def _drop_marks(text: str) -> str:
    return re.sub(r"\s{2,}", " ", re.sub(r"(?<=\w)'(?=\w)|[,;:!?\"]|\.(?!\d)", "", text)).strip()


def _misspell(wording: Wording, text: str, level: str, share: float, rng: random.Random) -> str:
    def spelled(match: re.Match[str]) -> str:
        if rng.random() > share:
            return match.group()
        forms = wording.spelling[match.group().lower()][level]  # type: ignore[index]
        return keep_case(match.group(), rng.choice(forms))

    return wording.spelled[level].sub(spelled, text)  # type: ignore[index]


def _lower(text: str) -> str:
    """Return the text in lower case, except for words in capitals, which are meant."""
    return re.sub(r"\b(?![A-Z]{3,}\b)\w+", lambda match: match.group().lower(), text)


def _dictated(wording: Wording, text: str, rng: random.Random) -> str:
    words = _drop_marks(text.lower())
    return words if rng.random() < 0.6 else words.replace(" and ", " and um ", 1)


def _early(wording: Wording, text: str, rng: random.Random) -> str:
    return _drop_marks(_misspell(wording, text.lower(), "early", 0.65, rng))


def _casual(wording: Wording, text: str, rng: random.Random) -> str:
    out = _misspell(wording, _lower(text), "casual", 0.35, rng)
    out = re.sub(r"(?<=\w)'(?=\w)", "", out)
    return out.rstrip(".?! ") if rng.random() < 0.5 else out


def _texting(wording: Wording, text: str, rng: random.Random) -> str:
    out = _misspell(wording, _lower(text), "texting", 0.6, rng)
    return re.sub(r"(?<=\w)'(?=\w)", "", out).rstrip(".?! ")


def _careful(wording: Wording, text: str, rng: random.Random) -> str:
    out = re.sub(r"\bi\b(?=[' ]|$)", "I", text.strip())
    out = re.sub(r"(?:^|(?<=[.!?] ))[a-z]", lambda match: match.group().upper(), out)
    if out[-1:] not in ".?!\"'":
        out += "?" if QUESTION.match(out) else "."
    return out


def _excited(wording: Wording, text: str, rng: random.Random) -> str:
    out = _casual(wording, text, rng).rstrip(".?! ")
    return out + rng.choice(
        ["!!", "??", "!!!", "!"] if not QUESTION.match(out) else ["??", "?!", "???"]
    )


STYLES: Final[dict[str, Callable[[Wording, str, random.Random], str]]] = {
    "dictated": _dictated,
    "early": _early,
    "casual": _casual,
    "texting": _texting,
    "careful": _careful,
    "excited": _excited,
}
