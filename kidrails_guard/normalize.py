"""Undo disguises (case, look-alikes, invisible characters, digits for letters, spacing, …).

The result keeps a map back to the original offsets. Whatever a child or a prankster does to the
letters, checks see one form; personal data alone is matched on the original text.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from anyascii import anyascii

from kidrails_guard.disguises import CONFUSABLES, EMOJI
from kidrails_guard.markup import shown_text
from kidrails_guard.spelled_out import Edit
from kidrails_guard.undisguise import EMOJI_MARK, Tokens
from kidrails_guard.words import vocabulary


@dataclass(frozen=True, slots=True)
class Normalized:
    """A text without its disguises.

    Attributes:
        text: lower case, ASCII where possible, one space between words, punctuation kept.
        offsets: for each character of ``text``, where it comes from in ``original``; one more
            entry, the original's length, closes it.
        original: what was given.
        disguised: whether letters had been hidden on purpose; case, stretched letters and chat
            spelling do not count.
    """

    text: str = field(repr=False)
    offsets: Sequence[int] = field(repr=False)
    original: str = field(repr=False)
    disguised: bool = False

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in the original that a span of ``text`` comes from."""
        low, high = self.offsets[start], self.offsets[end]
        while high > low + 1 and self.original[high - 1].isspace():
            high -= 1
        return low, max(low, high)


_SPACES: Final = str.maketrans(dict.fromkeys("\t\n\r\f\v\x1c\x1d\x1e\x1f\x85", " "))
_LATIN: Final = re.compile(r"[A-Za-z]")


@lru_cache(maxsize=4096)
def _fold_char(char: str, latin: bool) -> str:
    """Return what one character that is not plain ASCII becomes."""
    if char in EMOJI:
        return f" {EMOJI_MARK}{EMOJI[char]} "
    category = unicodedata.category(char)
    if category in {"Cf", "Mn", "Me", "Cs", "Cc", "Cn", "Co"} or char in "\u3164\u115f\u1160\uffa0":
        return " " if char in "\t\n\r\f\v\x85" else ""
    if category[0] == "Z" or char == "\u2800":
        return " "
    lower = unicodedata.normalize("NFKC", char).lower()
    if lower in "€£¢":
        return lower
    if latin:
        mapped = "".join(CONFUSABLES.get(c, c) for c in lower if not unicodedata.combining(c))
        if mapped.isascii():
            return mapped
        lower = mapped
    plain = str(anyascii(lower)).lower()
    if plain.startswith(":") and len(plain) > 2:
        return " "  # an emoji that stands for no word
    return plain


def _fold(text: str) -> tuple[str, Sequence[int], bool]:
    """Return the text character by character in lower-case ASCII, with offsets."""
    spaced = text.translate(_SPACES)
    if spaced.isascii() and spaced.isprintable():
        return spaced.lower(), range(len(text) + 1), False
    latin = _LATIN.search(unicodedata.normalize("NFKC", text)) is not None
    pieces: list[str] = []
    offsets: list[int] = []
    hidden = False
    for place, char in enumerate(spaced):
        piece = char.lower() if " " <= char <= "~" else _fold_char(char, latin)
        if len(piece) == 1:
            pieces.append(piece)
            offsets.append(place)
            hidden = hidden or (piece.isalpha() and char > "\u024f" and char.isalpha())
        else:
            pieces.append(piece)
            offsets.extend([place] * len(piece))
            hidden = hidden or (not piece and char in "\u200b\u200c\u2060\ufeff\u00ad\x00")
    offsets.append(len(text))
    return "".join(pieces), offsets, hidden and latin


def _splice(
    folded: str, offsets: Sequence[int], edits: Sequence[Edit]
) -> tuple[str, Sequence[int]]:
    """Return the text with the edits made, and its offsets."""
    if not edits:
        return folded, offsets
    pieces: list[str] = []
    places: list[int] = []
    end = 0
    for edit in edits:
        pieces += [folded[end : edit.start], edit.text]
        places += offsets[end : edit.start]
        width, length = edit.end - edit.start, len(edit.text)
        places += [offsets[edit.start + i * width // length] for i in range(length)]
        end = edit.end
    pieces.append(folded[end:])
    places += offsets[end:]
    return "".join(pieces), places


_GAPS: Final = re.compile(
    # Each part begins with the sign: most characters are letters, and begin none.
    r" [ ,.!?;:]|\x01|[,!?;:](?<=[a-z].)[a-z]|\.(?<=[a-z]{2}\.)[a-z]{2}"
)

_STOP: Final = re.compile(
    r"[a-z](?P<at>[,!?;:])[a-z]|(?P<before>[a-z]{2,})(?P<dot>\.)(?P<after>[a-z]{2,})"
)


def _after_stops(text: str) -> frozenset[int]:
    """Return where a comma or full stop stands between words without a space after it."""
    known = vocabulary().costs
    found = set()
    for match in _STOP.finditer(text):
        if match["at"]:
            found.add(match.start("at"))
        elif match["before"] in known and match["after"] in known:
            found.add(match.start("dot"))
    return frozenset(found)


def _squeeze(text: str, offsets: Sequence[int]) -> tuple[str, Sequence[int]]:
    """Return the text with single spaces only, and none at its ends."""
    inner = text.strip(" ")
    if _GAPS.search(inner) is None:
        if len(inner) == len(text):
            return text, offsets
        start = len(text) - len(text.lstrip(" "))
        return inner, [*offsets[start : start + len(inner)], offsets[-1]]
    kept: list[str] = []
    places: list[int] = []
    spaced = _after_stops(text)
    for index, (char, place) in enumerate(zip(text, offsets, strict=False)):
        if char == EMOJI_MARK or (char == " " and (not kept or kept[-1] == " ")):
            continue
        if char in ",.!?;:" and kept and kept[-1] == " ":
            kept.pop()
            places.pop()
        kept.append(char)
        places.append(place)
        if index in spaced:
            kept.append(" ")
            places.append(place)
    if kept and kept[-1] == " ":
        kept.pop()
        places.pop()
    places.append(offsets[-1])
    return "".join(kept), places


@lru_cache(maxsize=64)
def normalize(text: str) -> Normalized:
    """Return a text without its disguises; linear in its length.

    Args:
        text: any string, also with lone surrogates, NUL or nothing but emoji.

    Example:
        >>> normalize("K1LL my s.e.l.f").text
        'kill my self'
    """
    shown, where = shown_text(text)
    folded, offsets, hidden = _fold(shown)
    if where is not None:
        offsets = [where[place] for place in offsets]
    tokens = Tokens(folded, vocabulary())
    plain, places = _splice(folded, offsets, tokens.collect())
    plain, places = _squeeze(plain, places)
    told = _decode(shown, plain, read=tokens.ordinary)
    if told is not None:
        length = len(told)
        places = [i * len(text) // max(length, 1) for i in range(length)] + [len(text)]
        return Normalized(told, places, text, disguised=True)
    return Normalized(plain, places, text, hidden or tokens.disguised)


_WORDS: Final = re.compile(r"[a-z]+(?:'[a-z]+)*")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{12,}={0,2}")
_LONGEST_CODE: Final = 4_000
_TURNED: Final = frozenset("ǝɐɹʇʌʍɥᴉʞɯʎɔɟƃɾ")
"""Letters upside down; the others of such a text are those that turn into each other."""
_TURN: Final = str.maketrans("undpbq", "nupdqb")


def _readable(text: str) -> float:
    """Return the share of a text's words that are known; 0 where there are fewer than two."""
    return _known_share(_WORDS.findall(text))


def _known_share(words: list[str]) -> float:
    if len(words) < 2:
        return 0.0
    known = vocabulary().costs
    # A comprehension without a call a word: this runs on every text.
    return sum(
        [(word if word.isalpha() else word.replace("'", "")) in known for word in words]
    ) / len(words)


def _is_gibberish(text: str) -> bool:
    words = _WORDS.findall(text)
    return len(words) > 1 and _known_share(words) < 0.4


def _decode(original: str, plain: str, *, read: bool) -> str | None:
    """Return what a text says that is code from end to end: turned round, ROT13 or base64.

    Turned round is backwards or, where letters are upside down, the whole text upside down.

    Morse and other codes are left: a child that uses them asks the model nothing.

    Args:
        original: as it came.
        plain: the same without other disguises.
        read: whether all its words are known.
    """
    code = _BASE64.fullmatch(original.strip())
    if len(original) > _LONGEST_CODE:
        return None
    turned = sum(char in _TURNED for char in original) > 1
    if code is None and not turned and (read or not _is_gibberish(plain)):
        return None
    attempts = [original[::-1], codecs.encode(original, "rot13")]
    if turned:
        attempts = [original[::-1].translate(_TURN)]
    if code is not None:
        try:
            attempts = [base64.b64decode(code[0] + "=" * (-len(code[0]) % 4)).decode("ascii")]
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
    for attempt in attempts:
        folded, _, _ = _fold(attempt)
        if _readable(folded) > 0.8:
            tokens = Tokens(folded, vocabulary())
            told, places = _splice(folded, range(len(folded) + 1), tokens.collect())
            return _squeeze(told, places)[0]
    return None
