"""Where exactly personal data stands in a match: one reader for each way of writing it down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kidrails_guard.checks.personal_numbers import (
    Reader,
    read_birth,
    read_card,
    read_phone,
    read_spoken,
    regex,
)


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

_SURNAMES: Final = word_set("best long good short king prince love will hope may")
"""Words that are a part of one after a first name, with a capital."""
_OPENS_NAME: Final = (
    r"(?i)^(?:(?:i'?m|i am|this is|it'?s|call me)(?: called| named)?"
    r"|ich hei(?:\x{df}|ss)e|mein(?: ganzer)? name ist|me llamo"
    r"|mi nombre(?: completo)? es|je m['\x{2019}]appelle|mon nom est|mi chiamo"
    r"|meu nome(?: completo)? \x{e9}|me chamo|ik heet|mijn naam is) "
)
_HEROES: Final = word_set("man woman iron captain america panther skywalker potter hood claus bond")
"""Words of which the names in a game are made: "I am Iron Man"."""

_NO_SECRET: Final = word_set(
    "is not a the my that this so too very really good bad strong weak wrong right secret hidden "
    "safe long short easy hard incorrect stolen gone what for in on to and or it called forgotten "
    "named name names stars never something anything everything nothing you your mine user "
    "username because but important private required changed invalid broken lost has was videos "
    "video games game account accounts channel channels app apps online password passwords page "
    "says said want wants wont can may should get got she he they him her them free friends "
    "friend streamer filters story stories dance dances character skins code codes works working "
    "hacked glitched locked plus backwards everyone here all"
)

_GIVES: Final = r"(?i)(?::|=|\b(?:name|user|username|id) (?:is|called)) ?$"
"""Ends in what a name of letters alone needs before it to be one: "my snap: lilymoon"."""

_NO_SCHOOL: Final = word_set(
    "the a an my our this that his her their big new old primary elementary high middle junior "
    "nursery any another secondary public private same different art music dance ballet sunday "
    "summer swimming football wizard magic driving medical boarding attack play like is bed sleep "
    "bring take walk love hate learn cool closed open starting over at for it and so first night "
    "haunted making how what why when closing to go do be because going from after before real "
    "jump buy get see other prison which cash best worst"
)
_NOT_IN_SCHOOL: Final = word_set("after before my our his her their your buy get see and i")
"""Words that no school's name holds: "the dentist after school"."""

_NO_STREET: Final = word_set(
    "minutes minute hours hour days day years year times meters metres miles km kids people "
    "friends dogs cats dinosaurs dollars euros pounds pieces players points blocks in of the to a "
    "on at by for and is was per from steps sheep cars coins levels more like that just do "
    "science maths spelling plus movies test pages lines words seconds weeks week months inches "
    "feet my your their his her how what which or you we they i metre meter mile km kms min mins "
    "i'm im wonders nations fun"
)
_WEAK_STREET: Final = word_set("run trail way path walk park loop circle")
"""Words that end more sentences than addresses: capitals or a word before must tell the address."""
_TELLS_ADDRESS: Final = (
    r"(?i)\b(?:lives?|living|liv|address|adress|adresse?|house|home|at|on|in|from|near|to|flat|"
    r"number|deliver\w*|send|come|by)\W+$"
)

_NOT_ALONE: Final = (
    r"(?i)home alone (?:is|was|[1-6]\b|the movie|movie|film)|\bempty of\b"
    r"|\bkeys?\b.*\b(?:piano|keyboard|laptop|computer|rainbow|riddle|map)\b"
)
"""A film, a cupboard, a piano."""
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
_NO_PLACE: Final = r"^\p{Ll}+ (?:way|place|hill)\b"
"""Words before which only a capital tells a street: "on my way", "the best hiding place"."""
_WHOSE: Final = r"(?i)^(?:my|our|his|her|their|this|that|a|an|another|the same|which|what) "
_TELLS_STREET: Final = (
    r"(?i)\p{L}{2,}\s(?:street|str|st|road|rd|lane|avenue|ave|drive|close|court|crescent|gardens|"
    r"grove|terrace|place|square|boulevard|hill|mews|way|alley)\b|(?:stra\x{df}e|strasse|gasse)\b"
)


def _following(text: str, start: int, most: int) -> list[tuple[int, int]]:
    """Return up to ``most`` words from a place on, ending before a word that is no name."""
    found: list[tuple[int, int]] = []
    position = start
    for match in regex(r"\p{L}[\p{L}'\x{2019}-]{0,24}").finditer(text[start : start + 120]):
        low, high = start + match.start(), start + match.end()
        surname = found and match[0].istitle() and match[0].lower() in _SURNAMES
        ends = match[0].lower() in _NAME_ENDS and not surname
        if text[position:low].strip(" .") or ends:
            break
        found.append((low, high))
        position = high
        if len(found) == most:
            break
    return found


def _word_end(text: str, end: int) -> int:
    """Return where the word ends that a match ends in: RE2 takes a letter like \u00e9 for none."""
    if not 0 < end < len(text) or not text[end - 1].isalnum():
        return end
    return end + len(regex(r"^[\p{L}\p{N}'\x{2019}]*").match(text[end : end + 40])[0])


def _read_name(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    if match.lastindex and match.re.groups and match[0].rstrip().endswith(("lives", "goes", "in")):
        words = _following(text, match.start() + len(match[0].split()[0]) + 1, 3)
    else:
        words = _following(text, match.end(), 4)
    words = [w for w in words if text[w[0] : w[1]].lower() not in ("lives", "goes")]
    if words:
        yield words[0][0], words[-1][1]


def _read_capitals(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    opening = regex(_OPENS_NAME).match(match[0])
    start = match.start() + (opening.end() if opening else 0)
    words = text[start : match.end()].lower().split()
    if _NAME_ENDS.isdisjoint(words) and _HEROES.isdisjoint(words):
        yield start, _word_end(text, match.end())


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
    numbered = regex(r"(?i)\b(?:house|flat|door) \d|\bnumber \d+\w?(?:,| near\b|$)").search(place)
    street = regex(_TELLS_STREET).search(place)
    if numbered or (street and not regex(_NO_PLACE).search(street[0])):
        yield start, start + len(place)


def _read_address(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    words = [word.strip(",.") for word in match[0].lower().split()]
    if len(words) < 2 or not _NO_STREET.isdisjoint(words[1:]):
        return
    start, end = match.span()
    told = regex(_TELLS_ADDRESS).search(text[max(0, start - 30) : start])
    if told or words[-1] not in _WEAK_STREET or match[0].title() == match[0]:
        yield start, _word_end(text, end)  # but no "10k park run", no "3 peaks trail"


def _read_school(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    start, end = match.start(), match.end()
    opening = regex(
        r"(?i)^(?:(?:go|goes|going|went|study|attend|student|pupil|am|in)? ?"
        r"(?:(?:year|class|grade|klasse) \w+ )?(?:to|at|in) (?:the )?"
        r"|(?:my|our) school(?:'?s name)?(?: is|:|,) (?:called |named )?(?:the )?)"
    ).match(match[0])
    if opening is not None:
        start += opening.end()
    name = text[start:end]
    stop = regex(_PLACE_ENDS).search(name)
    name = (name[: stop.start()] if stop else name).strip(" ,")
    words = name.lower().split()
    named = words and words[0].strip(",") not in _NO_SCHOOL and not words[0].isdigit()
    if named and not _NOT_IN_SCHOOL.intersection(words):
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
        told = (telling and " is " in match[0].lower()) or (
            regex(r"(?i)\b(?:my|our|add me) $").search(
                text[max(0, match.start() - 8) : match.start()]
            )
            and regex(_GIVES).search(text[match.start() : start])
        )
        if kind == "handle" and value.isalpha() and not told:
            continue  # "youtube videos", "a snap streak"
        if kind == "password":
            end += len(regex(r"^[!#$%&*+=@~^]*").match(text[end : end + 20])[0])
        yield start, end


def _read_whole(text: str, match: Any, kind: str) -> Iterator[tuple[int, int]]:
    before = text[max(0, match.start() - 6) : match.start()].lower()
    if kind == "time_alone" and (
        before.endswith(("if ", "when ")) or regex(_NOT_ALONE).search(match[0])
    ):
        return  # "what do i do if i am home alone"
    end = match.start() + len(match[0].rstrip(" ,.!?"))
    yield match.start(), _word_end(text, end) if end == match.end() else end


READERS: Final[dict[str, Reader]] = {
    "whole": _read_whole,
    "group": _read_group,
    "phone": read_phone,
    "spoken": read_spoken,
    "card": read_card,
    "birth": read_birth,
    "name": _read_name,
    "capitals": _read_capitals,
    "introduced": _read_introduced,
    "place": _read_place,
    "here": _read_here,
    "address": _read_address,
    "school": _read_school,
    "secret": _read_secret,
}
