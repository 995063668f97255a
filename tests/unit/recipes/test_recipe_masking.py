from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidrails_guard.errors import DataError
from kidrails_guard.recipes.masking import IGNORED, Turn, label_conversation

EOS, HEADER, NEWLINE = 1, 2, 3
ROLES = {"system": 10, "user": 11, "assistant": 12}


def encode(turns: Sequence[Turn], header: bool) -> list[int]:
    tokens: list[int] = []
    for turn in turns:
        words = [100 + ord(letter) for letter in turn["content"]]
        tokens += [HEADER, ROLES[turn["role"]], *words, EOS, NEWLINE]
    return tokens + ([HEADER, ROLES["assistant"]] if header else [])


turns = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(sorted(ROLES)),
        st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=6,
)


@given(turns)
def test_exactly_the_assistants_words_and_their_end_are_learnt(rows: list[dict[str, str]]) -> None:
    example = label_conversation(rows, encode, eos=EOS)
    assert example.tokens == tuple(encode(rows, False))
    learnt = [token for token in example.labels if token != IGNORED]
    meant: list[int] = []
    for turn in rows:
        if turn["role"] == "assistant":
            meant += [*(100 + ord(letter) for letter in turn["content"]), EOS]
    assert learnt == meant
    assert all(
        label in (IGNORED, token)
        for token, label in zip(example.tokens, example.labels, strict=True)
    )


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    def rewriting(rows: Sequence[Turn], header: bool) -> list[int]:
        return [len(rows), *encode(rows, header)]

    rows = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(DataError, match="changes what stands before"):
        label_conversation(rows, rewriting, eos=EOS)


def test_a_turn_without_its_end_is_refused() -> None:
    rows = [{"role": "assistant", "content": "b"}]
    with pytest.raises(DataError, match="does not end turn 0"):
        label_conversation(rows, encode, eos=99)
