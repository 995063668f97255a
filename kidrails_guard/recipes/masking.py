"""Which tokens of a conversation are learnt, worked out from its chat template alone.

Used where axolotl is not: the same labels (compared in the contract tests).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kidrails_guard.errors import DataError

IGNORED: Final = -100
"""The label of a token that is not learnt, as PyTorch's cross entropy skips it."""

Turn = Mapping[str, str]
Encode = Callable[[Sequence[Turn], bool], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation as tokens.

    Attributes:
        tokens: shape (n,).
        labels: shape (n,): the token where it is learnt, `IGNORED` elsewhere.
    """

    tokens: tuple[int, ...]
    labels: tuple[int, ...]


def label_conversation(messages: Sequence[Turn], encode: Encode, *, eos: int) -> Example:
    """Return a conversation's tokens, with the assistant's words and their end token labelled.

    Args:
        messages: the turns.
        encode: turns and whether the assistant's header follows -> tokens.
        eos: the token that ends a turn.

    Raises:
        DataError: the template does not put turns one after the other, or does not end the
            assistant's with ``eos``.
    """
    tokens = list(encode(messages, False))
    labels = [IGNORED] * len(tokens)
    for place, turn in enumerate(messages):
        if turn["role"] != "assistant":
            continue
        start = len(_prefix(encode(messages[:place], True), tokens, place))
        stop = len(_prefix(encode(messages[: place + 1], False), tokens, place))
        ends = [i for i in range(start, stop) if tokens[i] == eos]
        if not ends:
            raise DataError(f"the template does not end turn {place} with token {eos}")
        for i in range(start, ends[-1] + 1):
            labels[i] = tokens[i]
    return Example(tuple(tokens), tuple(labels))


def _prefix(part: Sequence[int], whole: Sequence[int], place: int) -> Sequence[int]:
    if list(whole[: len(part)]) != list(part):
        raise DataError(
            f"the chat template changes what stands before turn {place} when turns follow; its "
            "assistant turns cannot be told apart"
        )
    return part
