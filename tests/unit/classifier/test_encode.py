"""Windows, turns and their marks."""

from __future__ import annotations

from itertools import pairwise

from kidrails_guard.classifier.encode import (
    CLS,
    MARKS,
    MAX_TEXT,
    MAX_TURN,
    MAX_TURNS,
    SEP,
    STRIDE,
    Turn,
    encode,
)
from kidrails_guard.types import Stage


class _Ids:
    def __init__(self, ids: list[int]) -> None:
        self.ids = ids


class Letters:
    """One token a word, so that a test can count."""

    def encode(self, sequence: str, *, add_special_tokens: bool) -> _Ids:
        assert not add_special_tokens
        return _Ids([1000 + int(word) for word in sequence.split()])


def words(count: int, start: int = 0) -> str:
    return " ".join(map(str, range(start, start + count)))


def windows(text: str, *turns: Turn, stage: Stage = Stage.INPUT):
    return list(encode(Letters(), text, turns, stage=stage))


def test_a_short_text_is_one_window_with_its_stage() -> None:
    for stage in Stage:
        (window,) = windows("7 8", stage=stage)
        assert window.ids == (CLS, MARKS[stage], 1007, 1008, SEP)
        assert window.types == (0,) * 5


def test_turns_stand_behind_the_text_and_are_marked() -> None:
    (window,) = windows("7", Turn("user", "1 2"), Turn("assistant", "3"))
    tail = (MARKS["user"], 1001, 1002, MARKS["assistant"], 1003, SEP)
    assert window.ids == (CLS, MARKS["input"], 1007, SEP, *tail)
    assert window.types == (0, 0, 0, 0, 1, 1, 1, 1, 1, 1)


def test_only_the_last_turns_count_and_of_each_its_end() -> None:
    turns = [Turn("user", words(MAX_TURN + 5, 100 * i)) for i in range(MAX_TURNS + 2)]
    (window,) = windows("7", *turns)
    assert window.ids.count(MARKS["user"]) == MAX_TURNS
    assert 1000 + 100 not in window.ids
    last = [i for i in window.ids if i >= 1000][-1]
    assert last == 1000 + 100 * (MAX_TURNS + 1) + MAX_TURN + 4
    assert len(window.ids) == 4 + MAX_TURNS * (MAX_TURN + 1) + 1


def test_a_long_text_is_read_whole_in_overlapping_windows() -> None:
    count = MAX_TEXT * 3 + 11
    found = windows(words(count))
    seen = [set(w.ids[2:-1]) for w in found]
    assert set().union(*seen) == {1000 + i for i in range(count)}
    for left, right in pairwise(seen):
        assert len(left & right) >= MAX_TEXT - STRIDE
    assert all(len(w.ids) <= MAX_TEXT + 3 for w in found)


def test_the_number_of_windows_grows_linearly() -> None:
    small, large = len(windows(words(1_000))), len(windows(words(10_000)))
    assert 9 * small <= large + 10 <= 11 * small + 10


def test_exactly_one_window_of_tokens_is_one_window() -> None:
    assert len(windows(words(MAX_TEXT))) == 1
    assert len(windows(words(MAX_TEXT + 1))) == 2


def test_nothing_is_still_one_window() -> None:
    (window,) = windows("")
    assert window.ids == (CLS, MARKS["input"], SEP)
