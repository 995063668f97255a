"""Text and earlier turns as the token ids that the encoder reads; one way for training and use.

``[CLS] <stage> text [SEP] <child> turn <program> turn … [SEP]``: the text stands first, so that
its positions do not depend on the talk before it; token type 1 marks what came before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kidrails_guard.types import Stage

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_TEXT: Final = 128
"""Tokens of one window of the text."""
STRIDE: Final = 96
"""Tokens from one window to the next: what is said across a cut stands whole in one of them."""
MAX_TURN: Final = 28
"""Tokens kept of one earlier turn: its end, where the question stands."""
MAX_TURNS: Final = 4
"""Earlier turns that are read."""

CLS: Final = 101
SEP: Final = 102
MARKS: Final[dict[str, int]] = {"input": 2, "output": 3, "user": 4, "assistant": 5}
"""BERT's vocabulary keeps the ids 1 to 99 unused; these four say who speaks."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier turn: ``user`` is the child, ``assistant`` the program."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Window:
    """One row for the encoder; ``types`` is 0 for the text and 1 for the turns before it."""

    ids: tuple[int, ...]
    types: tuple[int, ...]


def encode(
    tokenizer: Tokenizer, text: str, turns: Sequence[Turn] = (), *, stage: Stage
) -> Iterator[Window]:
    """Yield the windows of a text: one for a short text, overlapping ones for a long one.

    Args:
        tokenizer: BERT's WordPiece tokenizer.
        text: what is judged; normalised.
        turns: what was said before, oldest first; normalised.
        stage: whose words ``text`` is.
    """
    before: list[int] = []
    for turn in turns[-MAX_TURNS:]:
        tail = tokenizer.encode(turn.text[-400:], add_special_tokens=False).ids[-MAX_TURN:]
        before += [MARKS[turn.role], *tail]
    suffix = [*before, SEP] if before else []
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    start = 0
    while True:
        part = tokens[start : start + MAX_TEXT]
        head = [CLS, MARKS[stage], *part, SEP]
        yield Window((*head, *suffix), (0,) * len(head) + (1,) * len(suffix))
        if start + MAX_TEXT >= len(tokens):
            return
        start += STRIDE
