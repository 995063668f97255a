"""One form of a text for storing, one for comparing, and the parts that comparisons count."""

from __future__ import annotations

import re
import unicodedata
import zlib
from typing import Final

_QUOTES: Final = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " "}
)
_ASCII_WORD: Final = re.compile(r"[a-z0-9]+")
_DROPPED: Final = re.compile(r"[\ufeff\u200b\u2060\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def normalise(text: str) -> str:
    """Return a text as it is stored: composed letters, plain quotes and spaces, no invisible signs.

    Half a sign, as JSON can hold it and no file can, is left out. Line breaks between paragraphs
    stay. Doing it twice changes nothing.
    """
    text = _DROPPED.sub("", unicodedata.normalize("NFC", text).translate(_QUOTES))
    lines = [re.sub(r"[^\S\n]+", " ", line).strip() for line in re.split(r"\r\n?|\n", text)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def fold(text: str) -> str:
    """Return a text as it is compared: letters and digits in lower case, one space between words.

    An apostrophe joins, so that ``don't`` and ``dont`` are one word.
    """
    if text.isascii():
        return " ".join(_ASCII_WORD.findall(text.lower().replace("'", "")))
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = unicodedata.normalize("NFKD", plain).translate(_QUOTES)
    letters = "".join(c for c in plain if not unicodedata.combining(c))
    return " ".join(re.findall(r"[^\W_]+", letters.replace("'", "")))


def shingles(text: str, *, size: int = 5) -> frozenset[int]:
    """Return the hashes of a text's runs of ``size`` characters, after `fold`.

    A text with fewer characters is one run. Hashes are CRC-32, the same on every machine.
    """
    folded = f" {fold(text)} "
    if len(folded) <= size:
        return frozenset({zlib.crc32(folded.encode("utf-8", "surrogatepass"))})
    data = folded.encode("utf-8", "surrogatepass")
    return frozenset(zlib.crc32(data[i : i + size]) for i in range(len(data) - size + 1))


def jaccard(one: frozenset[int], two: frozenset[int]) -> float:
    """Return how alike two sets of runs are: shared over all, from 0 to 1."""
    shared = len(one & two)
    return shared / (len(one) + len(two) - shared) if shared else float(one == two)


def ngrams(text: str, *, words: int = 8) -> frozenset[int]:
    """Return the hashes of a text's runs of ``words`` words, after `fold`; a short one has none."""
    parts = fold(text).split()
    return frozenset(
        zlib.crc32(" ".join(parts[i : i + words]).encode("utf-8", "surrogatepass"))
        for i in range(len(parts) - words + 1)
    )
