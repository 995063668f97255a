"""What children do to a text that does not change what it says.

Typing errors, lower case, lost marks, child's spelling, a word before or after, a calm turn or an
old bad one in front, a harmless sentence beside it. Disguises are the normaliser's work; a few are
mixed in, since it runs before the encoder in use too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from kidrails_guard.classifier.encode import MAX_TURNS, Turn
from kidrails_guard.classifier.examples import Example
from kidrails_guard.classifier.looks import looks
from kidrails_guard.types import Stage

CHILD_SPELLING: Final[dict[str, tuple[str, ...]]] = {
    "you": ("u", "yu"),
    "your": ("ur", "yor"),
    "are": ("r",),
    "because": ("cuz", "cos", "becuz", "bcuz"),
    "please": ("pls", "plz", "pleese"),
    "what": ("wat", "wut", "wot"),
    "want to": ("wanna",),
    "going to": ("gonna",),
    "how to": ("howto", "how 2"),
    "friend": ("frend", "freind"),
    "friends": ("frends", "freinds"),
    "said": ("sed", "sayed"),
    "they": ("thay", "dey"),
    "the": ("teh", "da"),
    "this": ("dis",),
    "that": ("dat",),
    "with": ("wif", "wiv"),
    "my": ("mi",),
    "me": ("mee",),
    "really": ("rly", "reely"),
    "does": ("dos", "duz"),
    "when": ("wen",),
    "know": ("no", "kno"),
    "don't": ("dont",),
    "can't": ("cant",),
    "people": ("peple", "ppl"),
    "school": ("skool", "scool"),
    "mother": ("muther",),
    "tell": ("tel",),
    "for": ("4",),
    "to": ("2",),
    "why": ("y", "wy"),
    "again": ("agen",),
    "love": ("luv",),
    "like": ("liek",),
    "night": ("nite",),
    "hurt": ("hert",),
    "scared": ("scard", "skared"),
    "touch": ("tuch",),
    "touched": ("tuched",),
    "kill": ("kil",),
    "die": ("dye", "dy"),
    "something": ("sumthing", "somthing", "sth"),
    "about": ("abt", "abowt"),
    "through": ("thru",),
    "right now": ("rn",),
    "i don't know": ("idk",),
}
BEFORE: Final = (
    "hey",
    "hi",
    "um",
    "ok so",
    "so",
    "hello",
    "pls",
    "hey robot",
    "question",
    "can i ask something",
    "umm",
    "guess what",
    "btw",
    "well",
    "excuse me",
    "yo",
    "listen",
    "bro",
    "and",
    "but",
)
AFTER: Final = (
    "pls",
    "please",
    "lol",
    "thx",
    "haha",
    "ok?",
    "??",
    "!!",
    "...",
    "tell me",
    "thanks",
    "quick",
    "idk",
    "bye",
    ":)",
    "hehe",
    "yeah",
    "answer me",
)
DIGITS: Final = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7", "l": "1", "b": "8"}
NEAR: Final[dict[str, str]] = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj",
    "i": "uo", "j": "hk", "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o",
    "q": "w", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc",
    "y": "tu", "z": "x",
}  # fmt: skip
NEUTRAL: Final[tuple[tuple[str, str], ...]] = (
    ("hi", "Hello! I am a computer program. What would you like to know?"),
    ("what is 7 times 8", "It is 56."),
    ("tell me a joke", "Why did the cow cross the road? To get to the moo-vies!"),
    ("how big is a whale", "A blue whale is as long as three buses."),
    ("ok", "Is there anything else you would like to know?"),
    ("can we play a game", "Sure. I am thinking of an animal with a long neck."),
    ("why is the sky blue", "Sunlight has many colours, and the air spreads blue the most."),
    ("thanks", "You are welcome."),
)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"[a-z']+")
_SPELLING = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, CHILD_SPELLING), key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where turns and sentences come from that are put beside a text.

    Attributes:
        calm: benign messages with a good reply each.
        bad: risky messages with the good reply that they met.
        sentences: benign sentences of children.
    """

    calm: Sequence[tuple[str, str]]
    bad: Sequence[tuple[str, str]]
    sentences: Sequence[str]


def misspell(text: str, rng: random.Random, *, rate: float) -> str:
    """Return the text with child's spelling where it fits, each word at a rate."""

    def swap(match: re.Match[str]) -> str:
        if rng.random() > rate:
            return match[0]
        return rng.choice(CHILD_SPELLING[match[0].lower()])

    return _SPELLING.sub(swap, text)


def mistype(text: str, rng: random.Random) -> str:
    """Return the text with one slip of the finger in a word of four letters or more."""
    spots = [m for m in _WORD.finditer(text.lower()) if len(m[0]) >= 4]
    if not spots:
        return text
    spot = rng.choice(spots)
    at = rng.randrange(spot.start() + 1, spot.end())
    letter = text[at]
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + letter + text[at:]
    if kind == 2 and at + 1 < len(text):
        return text[:at] + text[at + 1] + letter + text[at + 2 :]
    return text[:at] + rng.choice(NEAR.get(letter.lower(), "e")) + text[at + 1 :]


def digit_for_letter(text: str, rng: random.Random) -> str:
    """Return the text with a digit in place of one letter, as the normaliser may leave it."""
    spots = [at for at, letter in enumerate(text) if letter.lower() in DIGITS]
    if not spots:
        return text
    at = rng.choice(spots)
    return text[:at] + DIGITS[text[at].lower()] + text[at + 1 :]


def rewrite(text: str, rng: random.Random) -> str:
    """Return the text as another child might have typed it."""
    if rng.random() < 0.35:
        text = misspell(text, rng, rate=0.5)
    if rng.random() < 0.3:
        text = mistype(text, rng)
        if len(text) > 60 and rng.random() < 0.5:
            text = mistype(text, rng)
    if rng.random() < 0.25:
        text = re.sub(r"[.,!?;:'\"]", "", text)
    if rng.random() < 0.1:
        text = text.upper()
    elif rng.random() < 0.15:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.18:
        text = f"{rng.choice(BEFORE)} {text}"
    if rng.random() < 0.18:
        text = f"{text} {rng.choice(AFTER)}"
    if text and text[-1].isalnum() and rng.random() < 0.15:
        text += rng.choice("?.!")
    if rng.random() < 0.04:
        text = digit_for_letter(text, rng)
    return text if text.strip() else "?"


def with_turns(example: Example, rng: random.Random, around: Surroundings) -> Example:
    """Return the example after other turns that do not change what its text says."""
    turns = example.turns
    if example.stage is Stage.OUTPUT and not turns:
        return example
    draw = rng.random()
    pair: tuple[str, str] | None = None
    if draw < 0.16 and around.calm:
        pair = rng.choice(around.calm)
    elif draw < 0.24:
        pair = rng.choice(NEUTRAL)
    elif draw < 0.44 and around.bad and example.benign and not turns and len(example.text) > 16:
        # Forgiveness: an old bad turn does not block a calm new one.
        pair = rng.choice(around.bad)
    if pair is None:
        return example
    before = (Turn("user", pair[0]), Turn("assistant", pair[1]))
    return replace(example, turns=(*before, *turns)[-MAX_TURNS:])


def some_sentences(text: str, rng: random.Random) -> str:
    """Return one to three sentences of a text in a row: a part of a good reply is good.

    A reply is checked while it is written, so its parts are seen alone.
    """
    sentences = _SENTENCE_END.split(text)
    first = rng.randrange(len(sentences))
    return " ".join(sentences[first : first + rng.randint(1, 3)]) or text


def part_of_reply(example: Example, rng: random.Random) -> str:
    """Return a part of a reply that has the whole's label.

    Of a good reply every part is good: what the guard looks at while it arrives, or a few
    sentences. Of a bad one, a part that the guard looks at and that holds most of it.
    """
    if example.benign and rng.random() < 0.3:
        return some_sentences(example.text, rng)
    seen = looks(example.text, example.stage)
    if not example.benign:
        seen = tuple(text for text in seen if len(text) * 5 >= len(example.text) * 3)
    return rng.choice(seen) if seen else example.text


def augment(example: Example, rng: random.Random, around: Surroundings) -> Example:
    """Return one other form of an example with the same label."""
    if example.stage is Stage.OUTPUT:
        return with_turns(replace(example, text=part_of_reply(example, rng)), rng, around)
    text = rewrite(example.text, rng)
    if around.sentences and len(text) < 200 and rng.random() < 0.12:
        other = rng.choice(around.sentences)
        text = f"{other} {text}" if rng.random() < 0.5 else f"{text}. {other}"
    return with_turns(replace(example, text=text), rng, around)
