"""Words that were written letter by letter: ``k i l l``, ``k.i.l.l``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from kidrails_guard.disguises import EUPHEMISMS
from kidrails_guard.readings import spell, spellings, undo
from kidrails_guard.words import Vocabulary


class Edit(NamedTuple):
    """A part of the folded text and what stands in its place."""

    start: int
    end: int
    text: str


_SEPARATOR: Final = r"(?:[ .\-_]'[ .\-_]|[ .,\-_*/|~+:;=]{1,3})"
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
_RUN: Final = re.compile(
    rf"(?<![a-z0-9'])[a-z0-9@$€!](?:{_SEPARATOR}[a-z0-9@$€]){{2,}}(?![a-z0-9'])"
)
_STOPS: Final = frozenset(",.;:")
_ENDS: Final = frozenset(["", ".", ",", "?", "!"])
_CLITICS: Final = ("ll", "ve", "re", "s", "d", "m", "t")
"""What follows an apostrophe: I'll, we've, you're, it's, I'd, I'm, don't."""


def _read_run(chunk: str, words: Vocabulary) -> tuple[int, list[str]]:
    """Return the words in letters that stood apart, and how many letters are in none."""
    if "'" in chunk:
        return _read_around_apostrophes(chunk, words)
    if chunk.isalpha():
        is_one = chunk in words or chunk in EUPHEMISMS
        whole, unknown = ([chunk], 0) if is_one else words.segment(chunk)
        return unknown, whole
    kept, strange = [], 0
    for piece in re.split(r"(\d+)", chunk):
        if piece.isdigit():
            kept.append(piece)
        elif piece:
            cut, unknown = words.segment(piece)
            kept += cut
            strange += unknown
    best = strange, kept
    for spelling in islice(dict.fromkeys(spellings(chunk)), 4):
        cut, unknown = ([spelling], 0) if spelling in words else words.segment(spelling)
        if unknown < best[0] or (unknown == best[0] and cut == [spelling] and len(chunk) > 3):
            best = unknown, cut  # "5 w e a r" is one word, not a number and a word
    return best


def _read_around_apostrophes(chunk: str, words: Vocabulary) -> tuple[int, list[str]]:
    """Do `_read_run` where apostrophes stand among the letters: ``i'ddie`` is ``i'd die``."""
    strange, read = 0, list[str]()
    for number, part in enumerate(chunk.split("'")):
        ending = next((e for e in _CLITICS if part.startswith(e)), "") if number and read else ""
        if ending:
            read[-1] += f"'{ending}"
        rest = part[len(ending) :]
        if rest:
            unknown, cut = _read_run(rest, words)
            strange += unknown
            read += cut
    return strange, read


def _chunks(body: str, usual: str) -> Iterator[tuple[str, str]]:
    """Yield the letters between wider gaps, each with the comma or stop that follows."""
    current = ""
    pieces = re.split(f"({_SEPARATOR})", body)
    for letter, gap in zip(pieces[0::2], [*pieces[1::2], ""], strict=True):
        current += letter + ("'" if "'" in gap else "")
        wider = len(gap) > len(usual) or (gap.isspace() and not usual.isspace())
        if (wider and "'" not in gap) or not gap:
            stops = gap.replace(usual, "", 1).strip()
            yield current, stops[-1:] if stops[-1:] in _STOPS else ""
            current = ""


def _is_word(letters: str) -> bool:
    """Return whether letters that stood apart are likely one word that is not known."""
    vowels = sum(c in "aeiou" for c in letters)
    return letters.isalpha() and letters not in _ALPHABET and 0 < vowels < len(letters) - 1


def spelled_out(folded: str, words: Vocabulary) -> Iterator[Edit]:
    """Yield the words that were written letter by letter: ``k i l l``, ``k.i.l.l``."""
    for match in _RUN.finditer(folded):
        body = match[0]
        gaps = re.findall(rf"{_SEPARATOR}(?=[a-z0-9@$€])", body)
        letters = re.sub(_SEPARATOR, "", body)
        if sum(c.isalpha() for c in letters) * 2 < len(letters):
            continue
        # Of two that are as common, the blank; never by a hash, which differs between processes.
        usual = max(dict.fromkeys(gaps), key=lambda gap: (gaps.count(gap), gap.isspace()))
        parts: list[str] = []
        unknown = longest = 0
        chunks = list(_chunks(body, usual))
        for chunk, stop in chunks:
            strange, cut = (0, [chunk]) if chunk.isdigit() else _read_run(chunk, words)
            if strange and len(chunks) > 1 and not usual.isspace() and len(chunk) < 17:
                # Wider gaps say where words end: a name or a slip is one word like the others.
                undone = undo(chunk, words) if chunk.isalpha() else None
                strange, cut = strange if len(chunk) < 3 else 0, [undone[0] if undone else chunk]
            unknown += strange
            longest = max([longest, *map(len, cut)])
            parts.append(spell(cut) + stop)
        if unknown * 3 > len(letters) or longest < 3 or (unknown and len(letters) < 7):
            if len(letters) < 5 or len(parts) > 1 or not _is_word(letters):
                continue  # letters of the alphabet, initials, a grid
            parts = [letters]
        end = match.end()
        if (
            not usual.isspace()
            and folded[end : end + 1] == usual
            and (folded[end + 1 : end + 2] in _ENDS)
        ):
            end += 1  # the gap before a full stop
        yield Edit(match.start(), end, " ".join(parts))
