"""Where exactly personal data stands in a match: one reader for each way of writing it down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import re2

from kidrails_guard.answers import load_helplines

Reader = Callable[[str, Any, str], Iterator[tuple[int, int]]]
"""Takes the text, a match and the kind; yields spans. A start below zero (``-start - 1``) marks a
find that says little by itself."""


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


_NAME_ENDS: Final = word_set(
    "and i im i'm is am my the a an not so but or from in at on to of for with can you me it its "
    "what who how like likes because cuz just that this he she we they his her your our are was "
    "were do does did want wanna love loves have has go goes going play playing called too also "
    "mr mrs miss ms please pls year years old here there now today then when where why he's she's "
    "it's live lives living age aged mean means hi hello hey lol tell will would could bored sad "
    "happy good bad boy girl robot bot nobody none secret cool funny weird common unknown long "
    "short nice pretty beautiful spelled spelt written harder hard easy about after before always "
    "super very really only never maybe best captain king queen princess prince sir lord lady "
    "agent doctor dr dont don't cant can't if be no yes ok all some one two first last new both "
    "same actually nearly almost turning exactly over under stupid ugly boring great awesome "
    "amazing as by into out up down off"
)
"""Words that are no part of a name."""

_NO_SECRET: Final = word_set(
    "is not a the my that this so too very really good bad strong weak wrong right secret hidden "
    "safe long short easy hard incorrect stolen gone what for in on to and or it called forgotten "
    "named name names stars never something anything everything nothing you your mine user "
    "username because but important private required changed invalid broken lost has was videos "
    "video games game account accounts channel channels app apps online password passwords page "
    "says said want wants wont can may should get got she he they him her them free friends "
    "friend streamer filters story stories dance dances character skins code codes works working "
    "hacked"
)

_NO_SCHOOL: Final = word_set(
    "the a an my our this that his her their big new old primary elementary high middle junior "
    "nursery any another secondary public private same different art music dance ballet sunday "
    "summer swimming football wizard magic driving medical boarding attack play like is bed sleep "
    "bring take walk love hate learn cool closed open starting over at for it and so first night "
    "haunted making how what why when closing to go do be because going from after before real"
)

_NO_STREET: Final = word_set(
    "minutes minute hours hour days day years year times meters metres miles km kids people "
    "friends dogs cats dinosaurs dollars euros pounds pieces players points blocks in of the to a "
    "on at by for and is was per from steps sheep cars coins levels more like that just do "
    "science maths spelling plus movies test pages lines words seconds weeks week months inches "
    "feet my your their his her how what which or you we they i"
)

_PLACE_ENDS: Final = (
    r"(?i)\s(?:and|but|so|with|because|cuz|wif|where|when|which|who|he|she|can|come|please|pls|in "
    r"case|if|my|it|its|is|i|im|i'm|to|for|since|near me|right now|now|u|do|that|thats|he's|age|"
    r"call|text)\b"
    r"|,\s*(?:and|can|come|i|im|my|do|please|she|he|it|top|where|near|you|so|but|call|text|phone|"
    r"ring|email|mail)\b|;| - "
)
_VAGUE: Final = (
    r"(?i)^(?:a|an|my|our|his|her|their|the|this|that|it|there|here|peace|fear|hope|space|england|"
    r"scotland|wales|ireland|london|paris|berlin|spain|france|germany|italy|india|china|japan|"
    r"america|usa|us|uk|canada|australia|texas|california|florida|new york|europe|africa|asia|"
    r"mexico|brazil|turkey|poland|russia|ukraine|syria|egypt|nigeria|kenya|one|two|three|some|"
    r"trees?|water|nests?|caves?|houses?|antarctica|mars|heaven|hogwarts|narnia|\p{L}+s)\b"
)
_WHOSE: Final = r"(?i)^(?:my|our|his|her|their|this|that|a|an|another|the same|which|what) "
_TELLS_PHONE: Final = (
    r"(?i)\b(?:phone|number|call|text|tel|telephone|mobile|cell|whatsapp|ring|sms|handy|contact|"
    r"nummer|numero|fax|office|answering|registered|reach me|dial|messages? to|llamame)\b"
)
_TELLS_STREET: Final = (
    r"(?i)\p{L}{2,}\s(?:street|str|st|road|rd|lane|avenue|ave|drive|close|court|crescent|gardens|"
    r"grove|terrace|place|square|boulevard|hill|mews|way|alley)\b|(?:stra\x{df}e|strasse|gasse)\b"
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


FEWEST_DIGITS: Final = {"phone": 7, "card": 13}
"""How many digits these readers need: a text with fewer holds nothing for them."""


def _read_phone(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    start, end = match.span()
    found, digits = match[0], _digits(match[0])
    if not FEWEST_DIGITS["phone"] <= len(digits) <= 15 or digits in _public_numbers():
        return
    before, after = text[max(0, start - 60) : start], text[end : end + 30]
    if before.rstrip()[-1:] in tuple("=*+x-/$£€") or after.lstrip()[:1] in tuple("=*+/%"):
        return  # a sum, a price
    told = regex(_TELLS_PHONE).search(before) or regex(_TELLS_PHONE).search(after)
    groups = sum(c in " .-/" for c in found.strip())
    starts = found[0] in "+(0"
    if told or (starts and (groups or len(digits) >= 9)) or (groups == 2 and len(digits) == 10):
        yield start, end


def _read_card(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    digits = _digits(match[0])
    if not FEWEST_DIGITS["card"] <= len(digits) <= 19 or len(set(digits)) < 2:
        return
    doubled = (int(c) * (2 if place % 2 else 1) for place, c in enumerate(reversed(digits)))
    if sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0:
        yield match.span()


def _following(text: str, start: int, most: int) -> list[tuple[int, int]]:
    """Return up to ``most`` words from a place on, ending before a word that is no name."""
    found: list[tuple[int, int]] = []
    position = start
    for match in regex(r"\p{L}[\p{L}'\x{2019}-]{0,24}").finditer(text[start : start + 120]):
        low, high = start + match.start(), start + match.end()
        if text[position:low].strip(" .") or match[0].lower() in _NAME_ENDS:
            break
        found.append((low, high))
        position = high
        if len(found) == most:
            break
    return found


def _read_name(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    if match.lastindex and match.re.groups and match[0].rstrip().endswith(("lives", "goes", "in")):
        words = _following(text, match.start() + len(match[0].split()[0]) + 1, 3)
    else:
        words = _following(text, match.end(), 4)
    words = [w for w in words if text[w[0] : w[1]].lower() not in ("lives", "goes")]
    if words:
        yield words[0][0], words[-1][1]


def _read_capitals(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    start = match.start() + len(match[0]) - len(match[0].split(None, 1)[1])
    if match[0].lower().startswith(("i am", "this is", "call me")):
        start = match.start() + len(match[0]) - len(match[0].split(None, 2)[2])
    if not any(word.lower() in _NAME_ENDS for word in text[start : match.end()].split()):
        yield start, match.end()


def _read_introduced(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    opening = regex(r"(?i)^(?:hi im|i'?m|i am|its|it's|this is|i is) ").match(match[0])
    if opening is not None:
        words = _following(text, match.start() + opening.end(), 2)
        if words:
            yield words[0][0], words[-1][1]


def _read_place(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    end = match.end()
    start = match.start(match.lastindex or 0)
    stop = regex(_PLACE_ENDS).search(text[start:end])
    place = text[start : start + stop.start() if stop else end].rstrip(" ,")
    if not place:
        return
    numbered = any(c.isdigit() for c in place)
    detailed = numbered or (regex(_TELLS_STREET).search(place) and not regex(_WHOSE).match(place))
    invited = "come" in text[end : end + 16].lower() or "come" in text[start:end].lower()
    if detailed or invited:
        yield start, start + len(place)
    elif len(place.split()) <= 3 and not regex(_VAGUE).search(place):
        yield -start - 1, start + len(place)  # says little by itself


def _read_here(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    start, end = match.span(match.lastindex or 0)
    stop = regex(_PLACE_ENDS).search(text[start:end])
    place = text[start : start + stop.start() if stop else end].rstrip(" ,")
    numbered = regex(r"(?i)\b(?:number|nr\.?|house|flat|door) \d").search(place)
    if regex(_TELLS_STREET).search(place) or numbered:
        yield start, start + len(place)


def _read_address(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    words = match[0].lower().split()
    if len(words) > 1 and not any(word.strip(",.") in _NO_STREET for word in words[1:]):
        yield match.span()


def _read_school(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    start, end = match.start(), match.end()
    opening = regex(
        r"(?i)^(?:(?:go|goes|going|went|study|attend|student|pupil|am|in)? ?"
        r"(?:(?:year|class|grade|klasse) \w+ )?(?:to|at|in) (?:the )?"
        r"|(?:my|our) school(?:'?s name)?(?: is|:|,) (?:called |named )?)"
    ).match(match[0])
    if opening is not None:
        start += opening.end()
    name = text[start:end]
    stop = regex(_PLACE_ENDS).search(name)
    name = (name[: stop.start()] if stop else name).strip(" ,")
    words = name.lower().split()
    if words and words[0].strip(",") not in _NO_SCHOOL and not words[0].isdigit():
        yield start, start + len(name)


def _read_group(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    group = match.lastindex or 0
    value = match[group].rstrip(" .,!?\"'-")
    yield match.start(group), match.start(group) + len(value)


def _read_secret(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    for start, end in _read_group(text, match, kind):
        value = text[start:end].lower()
        if value.lstrip("@") in _NO_SECRET | _NAME_ENDS or len(value) < 3:
            continue
        telling = match[0].lower().startswith(("user", "gamer", "handle", "login", "logn"))
        if kind == "handle" and value.isalpha() and not (telling and " is " in match[0].lower()):
            continue  # "youtube videos", "a snap streak"
        yield start, end


def _read_whole(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    before = text[max(0, match.start() - 6) : match.start()].lower()
    if kind == "time_alone" and before.endswith(("if ", "when ")):
        return  # "what do i do if i am home alone"
    yield match.start(), match.start() + len(match[0].rstrip(" ,.!?"))


READERS: Final[dict[str, Reader]] = {
    "whole": _read_whole,
    "group": _read_group,
    "phone": _read_phone,
    "card": _read_card,
    "name": _read_name,
    "capitals": _read_capitals,
    "introduced": _read_introduced,
    "place": _read_place,
    "here": _read_here,
    "address": _read_address,
    "school": _read_school,
    "secret": _read_secret,
}
