"""What a child gives away about itself: name with place, school, address, phone, … as spans.

Matched on the text as it was written, apart from invisible characters and full-width forms:
digits and capitals mean something here. All patterns are RE2: linear time.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import re2

from kidrails_guard.answers import load_helplines
from kidrails_guard.errors import PolicyError
from kidrails_guard.policy import Policy
from kidrails_guard.types import About, AgeBand, Conversation, Finding, Hazard, Severity, Stage

KINDS: Final = (
    "name",
    "phone",
    "email",
    "address",
    "location",
    "school",
    "class",
    "handle",
    "password",
    "url",
    "id_number",
    "age",
    "time_alone",
    "other",
)
"""Kinds of personal data: each has a mask in ``serve/policies/answers/<locale>.yaml``."""

_STREET: Final = (
    r"(?:street|str\.?|st\.?|road|rd\.?|lane|ln|avenue|ave\.?|av\.|drive|dr\.?|close|court|ct\.?"
    r"|way|crescent|gardens?|grove|terrace|place|pl\.?|square|boulevard|blvd\.?|hill|row|mews"
    r"|walk|park|parkway|circle|highway|hwy|alley|path|quay|rise|view|straat|laan|weg|gasse"
    r"|stra\x{df}e|strasse|platz|allee)"
)
_NUMBER: Final = r"\d{1,5}[a-z]?"
_NAME_WORD: Final = r"\p{L}[\p{L}'\x{2019}-]{1,20}"
_CAPITAL: Final = r"\p{Lu}[\p{L}'\x{2019}-]{1,20}"
_STOP: Final = frozenset(
    [
        "and",
        "i",
        "im",
        "is",
        "am",
        "my",
        "the",
        "a",
        "an",
        "not",
        "so",
        "but",
        "or",
        "from",
        "in",
        "at",
        "on",
        "to",
        "of",
        "for",
        "with",
        "can",
        "you",
        "me",
        "it",
        "what",
        "who",
        "how",
        "like",
        "likes",
        "because",
        "cuz",
        "just",
        "that",
        "this",
        "he",
        "she",
        "we",
        "they",
        "his",
        "her",
        "your",
        "our",
        "its",
        "are",
        "was",
        "were",
        "do",
        "does",
        "did",
        "want",
        "wanna",
        "love",
        "loves",
        "have",
        "has",
        "go",
        "goes",
        "going",
        "play",
        "playing",
        "called",
        "too",
        "also",
        "mr",
        "mrs",
        "miss",
        "ms",
        "please",
        "pls",
        "year",
        "years",
        "old",
        "here",
        "there",
        "now",
        "today",
        "then",
        "when",
        "where",
        "why",
        "he's",
        "she's",
        "it's",
        "i'm",
        "live",
        "lives",
        "living",
        "age",
        "aged",
        "mean",
        "means",
        "hi",
        "hello",
        "hey",
        "lol",
        "tell",
        "will",
        "would",
        "could",
        "bored",
        "sad",
        "happy",
        "good",
        "bad",
        "boy",
        "girl",
        "robot",
        "bot",
        "nobody",
        "none",
        "secret",
        "cool",
        "funny",
        "weird",
        "common",
        "unknown",
        "long",
        "short",
        "nice",
        "pretty",
        "beautiful",
        "spelled",
        "spelt",
        "written",
        "harder",
        "hard",
        "easy",
        "about",
        "after",
        "before",
        "always",
        "super",
        "very",
        "really",
        "only",
        "never",
        "maybe",
        "best",
        "captain",
        "king",
        "queen",
        "princess",
        "prince",
        "sir",
        "lord",
        "lady",
        "and,",
        "but,",
        "dont",
        "don't",
        "cant",
        "can't",
        "if",
    ]
)
"""Words that end a name."""


def _compile(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = False
    return re2.compile(pattern, options)


def _cased(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of personal data: where, what kind, and whether it says enough on its own."""

    start: int
    end: int
    kind: str
    alone: bool = True


_EMAIL = _compile(
    r"[a-z0-9][a-z0-9._%+-]{0,63}\s?@\s?[a-z0-9][a-z0-9-]{0,62}(?:\.[a-z0-9-]{1,63}){1,4}"
)
_AT_EMAIL = _compile(
    r"[a-z0-9][a-z0-9._-]{1,40} ?\(?(?: at |\[at\])\)? ?(?:gmail|hotmail|outlook|yahoo|icloud|web|gmx)(?: ?(?:\.| dot ) ?[a-z]{2,4})?\b"
)
_PHONE = _compile(
    r"(?:\+|\b00|\()?\d{1,4}\)?(?:[ .\-/]{0,2}\(?\d{2,5}\)?){1,5}(?: ?(?:x|ext\.?) ?\d{1,5})?\b"
)
_PHONE_WORD = _compile(
    r"\b(?:phone|number|call|text|tel|telephone|mobile|cell|whatsapp|ring|sms|handy|contact|nummer|numero)\b"
)
_ADDRESS = _compile(
    rf"\b{_NUMBER}(?:st|nd|rd|th)?,?\s+(?:{_NAME_WORD}\.?\s+){{1,4}}?{_STREET}\b"
    rf"(?:,?\s+(?:flat|apt\.?|apartment|unit|floor|room)\s?\d{{1,4}}[a-z]?)?"
)
_ADDRESS_AFTER = _compile(
    rf"\b(?:calle|via|rue|avenida|rua|piazza|plaza|ulica|ul\.|avenue|unter den|am|an der)\s+(?:{_NAME_WORD}\s+){{1,3}}{_NUMBER}\b"
    rf"|\b{_NAME_WORD}(?:stra\x{{df}}e|strasse|str\.|weg|gasse|platz|allee|straat|laan|gatan|gasse)\s+{_NUMBER}\b"
)
_FLAT = _compile(r"\b(?:flat|apt\.?|apartment|door|house number|house no\.?)\s?#?\d{1,4}[a-z]?\b")
_NUMBER_STREET = _compile(rf"\bnumber\s+{_NUMBER}\s+(?:{_NAME_WORD}\s+){{1,3}}{_STREET}\b")
_MY_ADDRESS = _compile(
    r"\b(?:my|our|his|her|moms|mums|dads|home|house) (?:home |house |full )?(?:address|adress|adres|adresse)(?: is|:|=| its| it's)? ([^.!?\n]{4,70})"
)
_POSTCODE = _cased(r"\b[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}\b")
_ZIP = _compile(
    r"\b(?:zip|zip code|zipcode|postcode|post code|postal code|plz)(?: is|:)? ?([a-z]{0,2}\d[a-z0-9 ]{2,8})\b"
)
_LIVE = _compile(
    r"\b(?:i|we|ella|he|she|my (?:\p{L}+ ){1,3}) ?(?:live|lives|am living|living)s? (?:at|on|in|near|next to|by|above|behind|opposite)\s+([^.!?\n]{2,80})"
)
_AT_NOW = _compile(
    r"\b(?:i'?m|i am|we are|we're) (?:right now |now |currently |just |sat |sitting |standing |waiting |alone |here )*(?:at|on|in|outside|near|by) ([^.!?\n]{3,60})"
)
_NAME = _compile(
    r"\b(?:my|the|moms|mums|dads|his|her|sisters|brothers|friends|my (?:mum|mom|dad|sister|brother|teacher|friend)'?s) (?:full |real |whole |last |complete )*name(?:s| is|'s|:|=)\s+(?:is )?"
)
_I_AM = _cased(rf"\b(?:[Ii]'?m|[Ii] am|[Tt]his is|[Ii] ?m) ({_CAPITAL}(?: {_CAPITAL}){{1,3}})\b")
_I_AM_NAME_AGE = _compile(
    rf"\b(?:i'?m|i am|hi im|its|it's|this is) ({_NAME_WORD}(?: {_NAME_WORD})?),? (?:and )?(?:i'?m |i am |age |aged )?\d{{1,2}}\b"
)
_SCHOOL_WORD = r"(?:school|primary|elementary|academy|kindergarten|nursery|college|high|middle|junior|infants?|gymnasium|grundschule|prep|preschool|escuela|escola|schule)"
_SCHOOL = _compile(
    rf"\b(?:go|goes|going|went|study|attend|student|pupil|am|year \d+|class \w+|grade \w+|in) (?:to|at|in) ((?:{_NAME_WORD}\.? ){{1,4}}{_SCHOOL_WORD}(?: school)?)\b"
)
_SCHOOL_CASED = _cased(
    rf"\b((?:(?:St\.?|Saint) )?{_CAPITAL}(?:'s)?(?: {_CAPITAL}){{0,3}} (?:School|Primary|Elementary|Academy|Kindergarten|Nursery|College|High School|Primary School|Middle School|Junior School))\b"
)
_MY_SCHOOL = _compile(
    r"\b(?:my|our|the) school(?:'s name)? is (?:called |named )?([^.!?,\n]{3,40})"
)
_CLASS = _compile(
    r"\b(?:class|year|grade|form|room|klasse) (?:\d{1,2}[a-z]?|[a-z])\b|\b\d(?:st|nd|rd|th) grade\b"
)
_HANDLE = _compile(
    r"\b(?:insta|instagram|snap|snapchat|tiktok|tik tok|discord|roblox|username|user name|user|gamertag|gamer tag|twitch|youtube|yt|kik|telegram|psn|xbox|steam|twitter|skype|handle|nick|nickname|account)(?: name| user| username| id| account)?(?: is|:|=| its| it's| called)? (@?[a-z0-9][a-z0-9_.\-]{2,30}[a-z0-9_])"
)
_AT_HANDLE = _compile(r"(?:^|[\s(,:;])(@[a-z0-9_][a-z0-9_.]{2,30})")
_PASSWORD = _compile(
    r"\b(?:pass ?word|pasword|passwrd|pass ?code|pin(?: code| number)?|pw|wifi code|wi-?fi password|wifi key|key ?code|alarm code|door code|gate code|code of (?:our|the|my) [a-z]+|code to (?:our|the|my) [a-z]+|login|log in|logn)(?: for (?:my |the |our )?[a-z]+(?: [a-z]+)?| of (?:my |the |our )?[a-z]+)?(?: is|:|=| its| it's|'s)+ (?:the name of [a-z ]+, ?|just |still |now )?[\"']?([^\s\"',!?]{3,40})"
)
_CODE_IS = _compile(r"\b(?:code|key) (?:is|its|it's|:) ?(\d{3,8}|[a-z]+\d+[a-z0-9]*)\b")
_URL = _compile(
    r"\b(?:https?://)?(?:www\.)?(?:instagram\.com|tiktok\.com|snapchat\.com|facebook\.com|fb\.com|discord\.gg|discord\.com/invite|t\.me|wa\.me|youtube\.com/(?:@|channel|c)|twitter\.com|x\.com|roblox\.com/users|photos\.app\.goo\.gl|drive\.google\.com|icloud\.com|maps\.app\.goo\.gl|goo\.gl/maps|google\.[a-z.]{2,6}/maps)/?[^\s\"'<>]{0,200}"
)
_CARD = _compile(r"\b(?:\d[ -]?){12,18}\d\b")
_IBAN = _cased(r"\b[A-Z]{2}\d{2} ?(?:[A-Z0-9]{4} ?){2,7}[A-Z0-9]{1,4}\b")
_ID = _compile(
    r"\b(?:student|passport|id|id card|identity|social security|ssn|insurance|case|library card|membership|bank|account|card|credit card|driver'?s? licen[sc]e|nhs)(?: card)?(?: number| no\.?| nr\.?| #)(?: is|:| its| it's)? ?([a-z]{0,3}\d[a-z0-9 -]{3,20})"
)
_SSN = _compile(r"\b\d{3}-\d{2}-\d{4}\b")
_BIRTH = _compile(
    r"\b(?:my (?:birthday|birth ?day|bday|b-day|birth ?date|date of birth|dob)|date of birth|born(?: on)?|dob)(?: is|:| was|'s)?(?: on| the)* (\d{1,2}(?:st|nd|rd|th)?(?: of)? ?[./ -]?(?: ?[a-z]{3,9}| ?\d{1,2})[./ ,-]{1,2}\d{2,4}|[a-z]{3,9} \d{1,2}(?:st|nd|rd|th)?,? \d{4})"
)
_ALONE = _compile(
    r"\b(?:i'?m|i am|we'?re|we are|im) (?:all |here |at |now |right now )*(?:home alone|alone (?:at home|in the house|till|until|til)|by (?:myself|my self) (?:at home|at the house|till|until|til)|home by (?:myself|my self)|on my own (?:at home|till|until))[^.!?\n]{0,30}"
    r"|\b(?:my )?(?:mum|mom|mummy|mommy|dad|daddy|parents|mum and dad|mom and dad)(?:s| is| are|'s|'re)? (?:at work|out|away|not home|not hom|gone|asleep) (?:till|until|til|from|every|all) [^.!?\n]{1,30}"
    r"|\b(?:nobody|no one|noone)(?: else)? is (?:at )?home\b[^.!?\n]{0,30}"
    r"|\b(?:our|my|the) (?:house|flat|home) (?:is|will be) empty[^.!?\n]{0,30}"
    r"|\b(?:the |our |my |spare |house )*key(?:s)? (?:is|are) (?:under|in|behind|on|hidden|inside) [^.!?\n]{3,40}"
    r"|\b(?:i|we) (?:walk|go|come) (?:home|to school) alone (?:at|every|each)[^.!?\n]{0,30}"
)
_PHOTO = _compile(
    r"\b(?:here'?s|here is|this is|i(?:'ll| will)? (?:send|sent|show)|can i (?:send|show)|want to (?:send|show)|wanna (?:send|show)|let me (?:send|show)|sending) (?:you |u |him |her )?(?:a |an |my |some |the )*(?:real )?(?:photo|pic|picture|selfie|video|photos|pics|pictures|pic)s?(?: (?:of|with) (?:me|my|us|mine|our)[^.!?\n]{0,20}| to (?:him|her|them)| of my face|$|[.!?])"
    r"|\b(?:can|may|should|could) i (?:send|show) (?:you|u) (?:a )?(?:selfie|pic of me|picture of me|photo of me|picture of my face)\b"
)

_PLACE_WORD: Final = _cased(rf"^(?:the )?{_CAPITAL}")


def visible(text: str) -> tuple[str, Sequence[int]]:
    """Return the text without invisible characters and with plain digits, and the way back."""
    if text.isascii() and "\x00" not in text:
        return text, range(len(text) + 1)
    pieces: list[str] = []
    offsets: list[int] = []
    for place, char in enumerate(text):
        if char < "\x7f":
            piece = "" if char == "\x00" else char
        elif unicodedata.category(char) in {"Cf", "Cs"}:
            piece = ""
        elif unicodedata.category(char)[0] == "Z":
            piece = " "
        else:
            piece = unicodedata.normalize("NFKC", char)
        pieces.append(piece)
        offsets.extend([place] * len(piece))
    offsets.append(len(text))
    return "".join(pieces), offsets


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isdigit())


@cache
def _public_numbers() -> frozenset[str]:
    """Return the digits of helplines and emergency numbers, which may be said."""
    lines = load_helplines().helplines
    return frozenset(_digits(line.contact) for line in lines) | {"911", "112", "999", "000", "110"}


def _phones(text: str) -> Iterator[Span]:
    for match in _PHONE.finditer(text):
        digits = _digits(match[0])
        if not 7 <= len(digits) <= 15 or digits in _public_numbers():
            continue
        start, end = match.span()
        before, after = text[max(0, start - 60) : start], text[end : end + 30]
        if before.rstrip()[-1:] in ("=", "*", "+", "x", "-", "/", "$", "£", "€") or after.lstrip()[
            :1
        ] in ("=", "*", "+", "/"):
            continue  # a sum
        told = _PHONE_WORD.search(before) or _PHONE_WORD.search(after)
        shaped = match[0][0] in "+(0" or (match[0].count("-") >= 1 and len(digits) >= 7)
        groups = len([c for c in match[0].strip() if c in " .-/"])
        if (
            told
            or (shaped and (groups or len(digits) >= 9) and match[0][0] in "+(0")
            or (shaped and groups == 2 and len(digits) == 10)
        ):
            yield Span(start, end, "phone")


def _words_until_stop(text: str, start: int, most: int) -> list[tuple[int, int]]:
    """Return up to ``most`` word spans from a place on, ending before a word that ends a name."""
    found: list[tuple[int, int]] = []
    position = start
    for match in _WORD.finditer(text[start : start + 120]):
        low, high = start + match.start(), start + match.end()
        if text[position:low].strip(" ") or match[0].lower() in _STOP:
            break
        found.append((low, high))
        position = high
        if len(found) == most:
            break
    return found


_WORD = _compile(rf"{_NAME_WORD}")


def _names(text: str) -> Iterator[Span]:
    for match in _NAME.finditer(text):
        words = _words_until_stop(text, match.end(), 4)
        if words:
            yield Span(words[0][0], words[-1][1], "name", alone=len(words) > 1)
    for match in _I_AM.finditer(text):
        yield Span(*match.span(1), "name")
    for match in _I_AM_NAME_AGE.finditer(text):
        words = _words_until_stop(text, match.start(1), 3)
        if words:
            yield Span(words[0][0], words[-1][1], "name", alone=False)


_PLACE_END: Final = _compile(
    r"\s(?:and|but|so|with|because|cuz|wif|where|when|which|who|he|she|can|come|please|pls|in case|if|my|it|its|is|i|im|i'm|to|for|since|near me|right now|now|u|do)\b|,\s*(?:and|can|come|i|im|my|do|please|she|he|it)\b"
)
_VAGUE: Final = _compile(
    r"^(?:a|an|my|our|his|her|their|the|this|that|it|there|here|peace|fear|hope|space|england|scotland|wales|ireland|london|paris|berlin|spain|france|germany|italy|india|china|japan|america|usa|the usa|the us|uk|the uk|canada|australia|texas|california|florida|new york|europe|africa|asia|mexico|brazil|turkey|poland|russia|ukraine|syria|egypt|nigeria|kenya|one|two|three|some|trees?|water|nests?|caves?|houses?|\p{L}+s)\b"
)


def _places(text: str) -> Iterator[Span]:
    for match in _LIVE.finditer(text):
        start, end = match.span(1)
        stop = _PLACE_END.search(text[start:end])
        end = start + stop.start() if stop else end
        place = text[start:end].rstrip(" ,")
        detailed = any(c.isdigit() for c in place) or _STREET_END.search(place) is not None
        if detailed:
            yield Span(start, start + len(place), "address")
        elif place and len(place.split()) <= 3 and not _VAGUE.search(place):
            yield Span(start, start + len(place), "location", alone=False)
    for match in _AT_NOW.finditer(text):
        start, end = match.span(1)
        stop = _PLACE_END.search(text[start:end])
        place = text[start : start + stop.start() if stop else end].rstrip(" ,")
        if _STREET_END.search(place) or (
            any(c.isdigit() for c in place) and _AT_NUMBER.search(place)
        ):
            yield Span(start, start + len(place), "location")
    for match in _MY_ADDRESS.finditer(text):
        start, end = match.span(1)
        stop = _PLACE_END.search(text[start:end])
        place = text[start : start + stop.start() if stop else end].rstrip(" ,")
        if any(c.isdigit() for c in place) or _STREET_END.search(place):
            yield Span(start, start + len(place), "address")


_STREET_END: Final = _compile(
    rf"\p{{L}}{{2,}}\s{_STREET}(?:\s|,|$)|(?:stra\x{{df}}e|strasse|gasse)\b"
)
_AT_NUMBER: Final = _compile(r"\b(?:number|no\.?|nr\.?|house|flat|door) \d")


def _simple() -> tuple[tuple[Any, str, int, bool], ...]:
    """Return patterns with kind, group, and whether the find counts by itself."""
    return (
        (_EMAIL, "email", 0, True),
        (_AT_EMAIL, "email", 0, True),
        (_ADDRESS_AFTER, "address", 0, True),
        (_NUMBER_STREET, "address", 0, True),
        (_ZIP, "address", 1, True),
        (_POSTCODE, "address", 0, True),
        (_FLAT, "address", 0, False),
        (_SCHOOL, "school", 1, True),
        (_SCHOOL_CASED, "school", 1, False),
        (_MY_SCHOOL, "school", 1, False),
        (_CLASS, "class", 0, False),
        (_HANDLE, "handle", 1, True),
        (_AT_HANDLE, "handle", 1, True),
        (_PASSWORD, "password", 1, True),
        (_CODE_IS, "password", 1, True),
        (_URL, "url", 0, True),
        (_IBAN, "id_number", 0, True),
        (_ID, "id_number", 1, True),
        (_SSN, "id_number", 0, True),
        (_BIRTH, "age", 1, True),
        (_ALONE, "time_alone", 0, True),
        (_PHOTO, "other", 0, True),
    )


_NO_SECRET: Final = frozenset(
    [
        "is",
        "not",
        "a",
        "the",
        "my",
        "that",
        "this",
        "so",
        "too",
        "very",
        "really",
        "good",
        "bad",
        "strong",
        "weak",
        "wrong",
        "right",
        "secret",
        "hidden",
        "safe",
        "long",
        "short",
        "easy",
        "hard",
        "incorrect",
        "stolen",
        "gone",
        "what",
        "for",
        "in",
        "on",
        "to",
        "and",
        "or",
        "it",
        "called",
        "forgotten",
        "named",
        "name",
        "names",
        "stars",
        "never",
        "something",
        "anything",
        "everything",
        "nothing",
        "you",
        "your",
        "mine",
        "user",
        "username",
        "because",
        "but",
        "important",
        "private",
        "required",
        "changed",
        "invalid",
        "broken",
        "lost",
    ]
)


def find_spans(text: str, stage: Stage = Stage.INPUT) -> list[Span]:
    """Return personal data in a text, by place; overlapping finds of one kind only once."""
    shown, offsets = visible(text)
    found = list(_phones(shown))
    for match in _ADDRESS.finditer(shown):
        if _plausible_address(match[0]):
            found.append(Span(*match.span(), "address"))
    for match in _CARD.finditer(shown):
        if _luhn(_digits(match[0])):
            found.append(Span(*match.span(), "id_number"))
    if stage is Stage.OUTPUT:
        patterns: tuple[tuple[Any, str, int, bool], ...] = (
            (_EMAIL, "email", 0, True),
            (_URL, "url", 0, True),
            (_IBAN, "id_number", 0, True),
            (_SSN, "id_number", 0, True),
        )
        found = [span for span in found if span.kind != "address"]
    else:
        patterns = _simple()
        found += _names(shown)
        found += _places(shown)
    for pattern, kind, group, alone in patterns:
        for match in pattern.finditer(shown):
            value = match[group].strip(" .,!?\"'")
            if kind in ("handle", "password") and value.lower().lstrip("@") in _NO_SECRET | _STOP:
                continue
            if kind == "handle" and value.isalpha() and not value.startswith("@") and alone:
                continue  # "my nickname is bee", "youtube videos"
            if kind == "school" and value.lower().split()[0] in _NOT_SCHOOL:
                continue
            start = match.start(group)
            found.append(Span(start, start + len(match[group].rstrip(" .,!?\"'")), kind, alone))
    if not any(span.alone for span in found) and len({s.kind for s in found}) < 2:
        return []  # a first name, or a town, says little by itself
    return [
        Span(offsets[s.start], offsets[s.end], s.kind, s.alone)
        for s in sorted(found, key=lambda s: (s.start, -s.end))
        if s.end > s.start
    ]


_NOT_SCHOOL: Final = frozenset(
    [
        "the",
        "a",
        "an",
        "my",
        "our",
        "this",
        "that",
        "his",
        "her",
        "their",
        "big",
        "new",
        "old",
        "primary",
        "elementary",
        "high",
        "middle",
        "junior",
        "nursery",
        "any",
        "another",
        "secondary",
        "public",
        "private",
        "same",
        "different",
        "art",
        "music",
        "dance",
        "ballet",
        "sunday",
        "summer",
        "swimming",
        "football",
        "wizard",
        "magic",
        "driving",
        "medical",
        "boarding",
    ]
)
_NOT_STREET: Final = frozenset(
    [
        "minutes",
        "minute",
        "hours",
        "hour",
        "days",
        "day",
        "years",
        "year",
        "times",
        "meters",
        "metres",
        "miles",
        "km",
        "kids",
        "people",
        "friends",
        "dogs",
        "cats",
        "dinosaurs",
        "dollars",
        "euros",
        "pounds",
        "pieces",
        "players",
        "points",
        "blocks",
        "in",
        "of",
        "the",
        "to",
        "a",
        "on",
        "at",
        "by",
        "for",
        "and",
        "is",
        "was",
        "per",
        "from",
        "steps",
        "sheep",
        "cars",
        "coins",
        "levels",
    ]
)


def _plausible_address(found: str) -> bool:
    words = found.lower().split()
    return len(words) > 2 and not any(word in _NOT_STREET for word in words[1:-1])


def _luhn(digits: str) -> bool:
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 3:
        return False
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


_SEVERE: Final = frozenset({"address", "phone", "location", "password", "time_alone", "id_number"})


class PersonalDataCheck:
    """Finds personal data, to be masked before the model sees it and in its reply.

    Args:
        kinds: which kinds count.
    """

    name = "personal_data"
    stages = frozenset(Stage)

    def __init__(self, kinds: frozenset[str] = frozenset(KINDS)) -> None:
        self._kinds = kinds

    async def __call__(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> Sequence[Finding]:
        """Return a finding with a span for each piece of personal data."""
        return [
            Finding(
                check=self.name,
                hazard=Hazard.PERSONAL_DATA,
                severity=Severity.MODERATE if span.kind in _SEVERE else Severity.MILD,
                span=(span.start, span.end),
                note=span.kind,
                about=About.SELF,
                redact=True,
                case="gives",
            )
            for span in find_spans(text, stage)
            if span.kind in self._kinds
        ]


def build(policy: Policy, *, skip: Sequence[str] = ()) -> PersonalDataCheck:
    """Return the check for a policy.

    Args:
        policy: the policy.
        skip: kinds that are not looked for.

    Raises:
        PolicyError: no such kind.
    """
    odd = sorted(set(skip) - set(KINDS))
    if odd:
        raise PolicyError(
            f"checks.personal_data.options.skip: {', '.join(odd)} is no kind; "
            f"accepted: {', '.join(KINDS)}"
        )
    return PersonalDataCheck(frozenset(KINDS) - set(skip))
