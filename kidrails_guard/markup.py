r"""What a page shows of a text: marks inside words, entities and escapes as a reader sees them.

``f**u**n``, ``f<b>u</b>n``, ``f&#117;n`` and ``f\u0075n`` (in JSON) are all "fun" once they are
shown. Marks around whole words hide nothing and stay.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Final

_SIGN: Final = re.compile(r"[&<\\*_`~]")
"""Each piece of markup holds one of these, and most texts none."""

_INLINE: Final = (
    "abbr|a|big|b|cite|code|del|em|font|ins|i|kbd|mark|small|span|strong|sub|sup|s|tt|u|var|wbr"
)
_LETTER: Final = r"[^\W\d_]"
_VOWEL: Final = re.compile("[aeiouy]", re.IGNORECASE)
_MARKUP: Final = re.compile(
    r"(?P<entity>&(?:#[0-9]{1,7};?|#[xX][0-9a-fA-F]{1,6};?|[A-Za-z][A-Za-z0-9]{1,30};))"
    rf"|(?P<tags>(?:</?(?:{_INLINE})(?:\s[^<>=]{{0,40}}=[^<>]{{0,200}})?\s?/?>"
    r"|<!--[^<>]{0,80}-->){1,8})"
    rf"|(?P<mark>\*{{1,3}}|_{{2,3}}|~{{1,2}}|`)(?P<marked>{_LETTER}{{1,30}})(?P=mark)"
    r"|\\u(?P<code>[0-9a-fA-F]{4})"
    rf"|(?P<blank>\\[nrt])(?={_LETTER})"
    r"|\\(?P<sign>[*_~`$@!|])",
    re.IGNORECASE,
)


def _shown(match: re.Match[str], text: str) -> str:
    """Return what stands on the page in place of a piece of markup."""
    before, after = (
        text[max(0, match.start() - 1) : match.start()],
        text[match.end() : match.end() + 1],
    )
    kind = match.lastgroup
    if kind == "entity":
        return html.unescape(match[0])
    if kind == "tags":
        return "" if before.isalnum() and after.isalnum() else " "
    if kind == "marked":  # the last of its two groups
        if match["mark"] == "*" and not _VOWEL.search(match["marked"]):
            return match[0]  # "n*k*d": the stars stand for vowels
        return match["marked"] if before.isalpha() or after.isalpha() else match[0]
    if kind == "code":
        return chr(int(match["code"], 16))
    return " " if kind == "blank" else match["sign"]


def shown_text(text: str) -> tuple[str, Sequence[int] | None]:
    """Return a text as it is shown, and where each character comes from; linear in its length.

    Returns:
        The text, and for each of its characters (and its end) the place in ``text``; None where
        nothing was marked up.

    Example:
        >>> shown_text("f**u**n")[0]
        'fun'
    """
    if _SIGN.search(text) is None:
        return text, None
    pieces: list[str] = []
    places: list[int] = []
    end = 0
    for match in _MARKUP.finditer(text):
        shown = _shown(match, text)
        if shown == match[0]:
            continue
        pieces += [text[end : match.start()], shown]
        places += range(end, match.start())
        inner = match.start("marked") if match.lastgroup == "marked" else None
        places += [match.start() if inner is None else inner + at for at in range(len(shown))]
        end = match.end()
    if not pieces:
        return text, None
    pieces.append(text[end:])
    places += range(end, len(text) + 1)
    return "".join(pieces), places
