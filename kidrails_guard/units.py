"""Cuts a text that arrives piece by piece into units whose borders depend on the text alone.

A unit ends where a sentence does, or a clause where the sentence is long, or at the last blank
before the cap. However the text was chunked on its way, the same units come out: every border is
decided by characters up to the first one after it, and only once that character is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_BORDER: Final = re.compile(
    r"(?<=\S)\s+(?=\S)"  # blanks between two words
    r"|(?<=[。！？；，、…」』）])(?=[^\s。！？；，、…」』）])"  # scripts that put none after a mark
)
_AFTER_MARK: Final = (
    # Each match begins with a blank, which is quickly found: after a mark, or what closes one,
    r"\s(?:(?<=[.!?…。！？,;:–—；，、\"'”’»)\]}*_`~」』）]\s)"
    r"|(?<=\S\s)(?:(?<=\n)|[^\S\n]*\n))\s*(?=\S)"  # or with a new line among the blanks.
)
_MARKED_ASCII: Final = re.compile(_AFTER_MARK)
_MARKED: Final = re.compile(
    # In scripts without blanks a mark is enough.
    rf"{_AFTER_MARK}|(?<=[。！？；，、…」』）])(?=[^\s。！？；，、…」』）])"
)
"""Those borders that may be more than one between two words: few, so that little is looked at."""
_CLOSERS: Final = "\"'”’»)]}*_`~」』）"
"""Marks that may stand after the mark that ends a sentence or a clause."""
_SENTENCE: Final = frozenset(".!?…。！？")
_CLAUSE: Final = frozenset(",;:–—；，、")
_SHORTENED: Final = re.compile(
    r"(?:^|[^\w])(?:[^\W\d_]|(?:[^\W\d_]\.)+[^\W\d_]|mr|mrs|ms|dr|prof|st|ave|rd|blvd|apt|no|nr|vs|etc|"
    r"approx|tel|str|sr|jr|fig|bzw|ca|sra|srta|avda|núm)\.\Z",
    re.IGNORECASE,
)
_LOOKBACK: Final = 32
"""Characters before a border that decide what kind of border it is."""

_STEP: Final = 4096
"""Characters taken at once, so that cutting a long text stays linear."""

_LONE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the text that leaves as a whole, or not at all.

    Attributes:
        text: the part itself.
        beyond: what follows it and is looked at together with it, but belongs to the next unit.
            Only a cut inside a sentence has it, so that words across the cut are seen.
        final: whether the text ends here.
    """

    text: str
    beyond: str = ""
    final: bool = False


@dataclass(frozen=True, slots=True)
class CutRule:
    """How long units are, in characters.

    Attributes:
        longest: nothing longer is held.
        first: a sentence this long may be the first unit, so that the first words come soon.
        sentence: a sentence border counts after so many: each unit costs a look at it and at what
            stood before, and a child reads a hundred characters in several seconds.
        clause: a comma or the like counts after so many.
        overlap: how far a check looks beyond a cut inside a sentence.
    """

    longest: int
    first: int = 16
    sentence: int = 96
    clause: int = 144
    overlap: int = 48

    @classmethod
    def for_longest(cls, longest: int) -> CutRule:
        """Return the rule for a cap; the other lengths shrink with a small one."""
        return cls(
            longest,
            first=min(16, longest // 4),
            sentence=min(96, longest * 2 // 5),
            clause=min(144, longest * 3 // 5),
            overlap=min(48, longest // 4),
        )


class Cutter:
    """Takes text as it comes and gives units, in time linear in the text.

    Example:
        >>> cutter = Cutter(CutRule.for_longest(240))
        >>> [unit.text for unit in cutter.feed("The moon is round. It sh")]
        ['The moon is round. ']
        >>> [unit.text for unit in cutter.finish()]
        ['It sh']
    """

    def __init__(self, rule: CutRule) -> None:
        self.rule = rule
        self._text = ""  # from the start of the unit that is still open
        self._scanned = 0  # borders before this are decided
        self._first = True
        self._high = ""  # the first half of a surrogate pair whose second half has not come

    @property
    def pending(self) -> str:
        """The text of the unit that is still open."""
        return self._text

    def feed(self, text: str) -> list[Unit]:
        """Take more text; return the units that are now complete."""
        text = self._whole_characters(text)
        units = []
        for at in range(0, len(text), _STEP):
            self._text += text[at : at + _STEP]
            while (cut := self._next_cut()) is not None:
                end, beyond = cut
                units.append(Unit(self._text[:end], self._text[end:beyond]))
                # Cut off at once: nothing before a unit's start may decide about its end.
                self._text = self._text[end:]
                self._scanned = 0
                self._first = False
        return units

    def finish(self) -> list[Unit]:
        """Take the end of the text; return the last unit, if any text is left."""
        units = []
        if self._high:
            self._high = ""
            units = self.feed("\ufffd")
        if self._text:
            units.append(Unit(self._text, final=True))
            self._text = ""
        return units

    def safe_part(self) -> int:
        """Return how much of `pending` ends between words, ``overlap`` or more before its end.

        The unit that `pending` becomes is never shorter.
        """
        end, found = len(self._text) - self.rule.overlap, 0
        for match in _BORDER.finditer(self._text, 0, max(0, end)):
            if match.end() < end and self._kind(match.start(), match.end()) != "none":
                found = match.end()
        return found

    def _whole_characters(self, text: str) -> str:
        """Join surrogates that were sent apart; one without its other half becomes U+FFFD."""
        text, self._high = self._high + text, ""
        if not text or not _LONE.search(text):
            return text
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._high = text[:-1], text[-1]
        return clean_surrogates(text)

    def _next_cut(self) -> tuple[int, int] | None:
        """Return where the open unit ends and how far its check looks, once that is decided."""
        rule, text = self.rule, self._text
        shortest = rule.first if self._first else rule.sentence
        marked = _MARKED_ASCII if text.isascii() else _MARKED
        while True:
            match = marked.search(text, self._scanned)
            if match is None or match.end() > rule.longest:
                break
            border = match.end()
            # At least one further: after a mark without a blank the border has no width.
            self._scanned = max(border, self._scanned + 1)
            kind = self._kind(match.start(), border)
            if kind == "sentence" and border >= shortest:
                return border, border
            beyond = border + rule.overlap
            if kind == "clause" and border >= rule.clause and beyond <= rule.longest:
                if len(text) >= beyond:
                    return border, beyond
                self._scanned = match.start()
                return None
        if len(text) > rule.longest:
            room = rule.longest - rule.overlap
            return self._last_border(room) or room, rule.longest
        if match is None:
            # Only blanks at the end, or a last mark, can still become a border.
            self._scanned = max(self._scanned, min(len(text.rstrip()), len(text) - 1))
        return None

    def _last_border(self, room: int) -> int:
        """Return where the last border of any kind is in the first ``room`` characters, or 0."""
        found = 0
        for match in _BORDER.finditer(self._text, 0, room + 1):
            if match.end() <= room and self._kind(match.start(), match.end()) != "none":
                found = match.end()
        return found

    def _kind(self, end: int, border: int) -> str:
        """Return what kind of border lies between ``text[:end]`` and ``text[border:]``."""
        text = self._text
        before, following = text[max(0, end - _LOOKBACK) : end], text[border]
        if _joined(before, following):
            return "none"
        if "\n" in text[end:border]:
            return "sentence"
        mark = before.rstrip(_CLOSERS)[-1:]
        if mark in _SENTENCE:
            dot = before.endswith(".")
            short = dot and (following.islower() or _SHORTENED.search(before))
            return "clause" if short else "sentence"
        return "clause" if mark in _CLAUSE else "word"


def _joined(before: str, following: str) -> bool:
    """Whether blanks stand inside what may be a number, an address or an e-mail address."""
    if following in "@+(" or following.isdigit():
        stripped = before.rstrip(".,;:-–—()/")
        return bool(stripped) and (stripped[-1].isdigit() or following == "@")
    return before.endswith("@")


def clean_surrogates(text: str) -> str:
    """Return text that UTF-8 can hold: pairs joined, halves alone replaced by U+FFFD."""
    if not _LONE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
