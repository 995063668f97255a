"""What a story or a game makes up is left alone; what a child says of itself never is."""

from __future__ import annotations

import pytest

from kidrails_guard.checks.personal_data import find_spans


def found(text: str) -> set[str]:
    return {text[span.start : span.end] for span in find_spans(text)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("i love minecraft and my name is Lena Hofer", "Lena Hofer"),
        ("harry potter is cool. my name is Lena Hofer", "Lena Hofer"),
        ("i read harry potter and i live at 14 mill lane", "14 mill lane"),
        ("in my story i live at 14 mill lane", "14 mill lane"),
        ("my character is an elf but my address is 14 mill lane", "14 mill lane"),
        ("write a story about me, my name is Lena Hofer", "Lena Hofer"),
        ("write a story. my friend Anna Bell lives at 3 Rose Road", "3 Rose Road"),
        ("the hero of my story is me, i'm at 9 Rose Road", "9 Rose Road"),
        ("i met tom in minecraft and his name is Tom Low", "Tom Low"),
        ("lets pretend. my name is Lena Hofer", "Lena Hofer"),
        ("my sister goes to oakdale primary and we read sherlock", "oakdale primary"),
        ("the password is dragon123, we play in our den", "dragon123"),
        ("call 07700 900123 in my story", "07700 900123"),
    ],
)
def test_what_is_real_is_found_beside_fiction(text: str, value: str) -> None:
    assert value in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "Once upon a time there was a girl. Her name was Anna Bell. She lived at 3 Rose Road.",
        "write a story about a cat called Anna Bell, she lives at 3 Rose Road",
        "my character is called Elara Nightwind and lives at 7 Moon Street",
        "my doll goes to hillside doll school, class 3c",
        "who lives at 10 downing street",
        "the Dursleys live at number 4 privet drive",
        "pretend my name is Zara Moonbeam",
        "the house is empty in the haunted story",
        "the secret club's password is pickle77",
        "in the escape room puzzle the code is 1234",
    ],
)
def test_what_is_made_up_is_left_alone(text: str) -> None:
    assert found(text) == set()
