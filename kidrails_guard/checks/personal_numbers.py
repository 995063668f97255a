"""Which numbers are private: telephones, cards, dates of birth; and which are anybody's to say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, Final

import re2

from kidrails_guard.answers import load_helplines

Reader = Callable[[str, Any, str], Iterator[tuple[int, int]]]
"""Takes the text, a match and the kind; yields spans. A start below zero (``-start - 1``) marks a
find that says little by itself."""

FEWEST_DIGITS: Final = {"phone": 7, "card": 13}
"""How many digits these readers need: a text with fewer holds nothing for them."""

_TELLS_PHONE: Final = (
    r"(?i)\b(?:phone|call|text|tel|telephone|mobile|cell|whatsapp|ring|sms|handy|contact|nummer|"
    r"numero|fax|office|answering|registered|reach me|dial|messages? to|llamame|"
    r"(?:my|our|his|her|their|your|new|work|home|house|mums|moms|dads|\p{L}+'s)"
    r" (?:new |own |real )?(?:number|numbr|no))\b"
    r"|^\W{0,3}(?:is|was|that'?s|its|it's) (?:\p{L}+ )?(?:my|our|his|her)\b"
)
"""Beside a number: it is somebody's. "Number" alone does not say so."""
_TELLS_BEFORE: Final = r"(?i)\bnumber(?:'s| is|:)? ?$"
_COUNTED: Final = (
    r"(?i)\b(?:visitor|prime|lucky|favou?rite|what|which|big|the|write|a|this) number ?$"
)
"""Right before one: a number to talk about."""

_YEAR: Final = re.compile(r"1[0-9]{3}|20[0-9]{2}")
_GROUP: Final = re.compile(r"[0-9]+")
_DECIMAL: Final = re.compile(r"[0-9]\.[0-9]{5,}")
_ROUND: Final = re.compile(r"[1-9][0-9]{0,2}(?:[ .,][0-9]{3})*[ .,]000")
_FREE: Final = re.compile(
    r"1?(?:800|888|877|866|855|844|833)[0-9]{7}|0(?:800|808)[0-9]{4,7}|116[0-9]{3}"
)
_OFFERED: Final = (
    r"(?i)\b(?:poison (?:control|centre|center|help)|emergenc(?:y|ies)|"
    r"(?:help|hot|child|life|crisis|text|advice|support) ?line)"
    r"(?:[ ,]+(?:now|today|free|at|on|is|are|the|number|services?|team|please|can|be|reached)){0,4}"
    r"[ :,(\x{2013}-]*$"
)


@cache
def regex(pattern: str) -> Any:
    """Return a compiled RE2 pattern; each is compiled once."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isdigit())


@cache
def _public_numbers() -> frozenset[str]:
    """Return the digits of helplines and emergency numbers, which may be said."""
    lines = load_helplines().helplines
    return frozenset(_digits(line.contact) for line in lines) | {"911", "112", "999", "000", "110"}


def offered(text: str, start: int, end: int) -> bool:
    """Return whether a number in a reply is nobody's own: toll-free, or named as a help line's."""
    free = _FREE.fullmatch(_digits(text[start:end]))
    return bool(free or regex(_OFFERED).search(text[max(0, start - 60) : start]))


def _counts(found: str) -> bool:
    """Return whether groups of digits are years, a row (12 24 36 48) or a decimal number."""
    if found[0] in "+0":
        return False
    groups = _GROUP.findall(found)
    if _DECIMAL.fullmatch(found) or all(_YEAR.fullmatch(group) for group in groups):
        return True
    if len(groups) < 3 or any(group[0] == "0" for group in groups):
        return False
    steps = list(pairwise(map(int, groups)))
    rising = len(groups) >= 5 and all(a < b for a, b in steps)
    return rising or len({b - a for a, b in steps}) == 1 or len({b / a for a, b in steps}) == 1


def _told(before: str, after: str) -> bool:
    """Return whether what stands beside a number says that it is a telephone's."""
    if regex(_TELLS_BEFORE).search(before):
        return True
    return any(regex(_TELLS_PHONE).search(beside) for beside in (before, after))


def read_phone(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    """Yield a telephone number."""
    start, end = match.span()
    found, digits = match[0], _digits(match[0])
    if not FEWEST_DIGITS["phone"] <= len(digits) <= 15 or digits in _public_numbers():
        return
    before, after = text[max(0, start - 60) : start], text[end : end + 30]
    if before.rstrip()[-1:] in tuple("=*+x-/$£€") or after.lstrip()[:1] in tuple("=*+/%"):
        return  # a sum, a price
    if _counts(found.strip("( )")):
        return
    told = _told(before, after)
    if told and (regex(_COUNTED).search(before) or _ROUND.fullmatch(found)):
        return  # "write the number 1000000 in words"
    groups = sum(c in " .-/" for c in found.strip())
    starts = found[0] in "+(0"
    if told or (starts and (groups or len(digits) >= 9)) or (groups == 2 and len(digits) == 10):
        yield start, end


_DIGIT_OF: Final = {
    **{"zero": "0", "oh": "0", "nought": "0", "one": "1", "two": "2", "three": "3", "four": "4"},
    **{"five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"},
}
_TIMES: Final = {"double": 2, "triple": 3}
_COUNTING: Final = "0123456789012345678909876543210"


def read_spoken(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    """Yield a telephone number in words, or digit by digit with a zero in front."""
    parts = re.findall("[a-z]+|[0-9]+", match[0].lower())
    if sum(part in _DIGIT_OF for part in parts) < 3 and not (
        parts[0] == "0" and all(len(part) == 1 for part in parts)
    ):
        return
    digits, times = "", 1
    for part in parts:
        digits += "" if part in _TIMES else _DIGIT_OF.get(part, part) * times
        times = _TIMES.get(part, 1)
    start, end = match.span()
    told = _told(text[max(0, start - 60) : start], text[end : end + 30])
    if told and FEWEST_DIGITS["phone"] <= len(digits) <= 15 and digits not in _COUNTING:
        yield start, end


def read_card(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    """Yield the number of a payment card, whose check digit fits."""
    digits = _digits(match[0])
    if not FEWEST_DIGITS["card"] <= len(digits) <= 19 or len(set(digits)) < 2:
        return
    doubled = (int(c) * (2 if place % 2 else 1) for place, c in enumerate(reversed(digits)))
    if sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0:
        yield match.span()


_FOUR: Final = re.compile("[0-9]{4}")
_OLDEST: Final = 1925
_CHILD_FROM: Final = 2005
_OURS: Final = r"(?i)\b(?:i|im|i'm|me|my|our|mums?|moms?|dads?|he|she|his|her)\b"


def read_birth(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    """Yield the date of a birth, unless it is one out of a history book."""
    group = match.lastindex or 0
    start, value = match.start(group), match[group].rstrip(" .,!?\"'-")
    year = next(map(int, _FOUR.findall(value)), _CHILD_FROM)
    ours = regex(_OURS).search(text[max(0, start - 40) : start])
    if year >= _CHILD_FROM or (year >= _OLDEST and ours):
        yield start, start + len(value)
