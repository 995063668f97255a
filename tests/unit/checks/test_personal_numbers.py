"""Years, counts and help lines are nobody's number; a child's own is found in words and digits."""

from __future__ import annotations

import pytest

from kidrails_guard.checks.personal_data import find_spans
from kidrails_guard.types import Stage


def found(text: str, stage: Stage = Stage.INPUT) -> set[str]:
    return {text[span.start : span.end] for span in find_spans(text, stage)}


@pytest.mark.parametrize(
    "text",
    [
        "World War II (1939-1945)",
        "Bach (1685-1750) wrote it",
        "from 1861-1865 they fought, call it a war",
        "call of duty 2003 2005 2007",
        "The number of people in India is about 1 428 000 000",
        "digits of pi are 3.1415926535. What number comes next?",
        "is 1234567 a prime number",
        "my number plate is red and on 2 cars",
        "our teacher's ip lesson is in room 3",
        "what does 127.0.0.1 mean",
        "can you write number 1000000 in words",
        "i am visitor number 1000000",
        "the number pattern is 12 24 36 48",
        "my number row: 16 25 36 49 64",
        "text: 1 2 3 4 5 6 7 8 9 10",
        "my phone has 128 256 512 gb",
        "one two three four five six seven is how i count on the phone",
        "seven eight nine ten",
        "pi 3.14159, e 2.71828",
        "Einstein was born on March 14, 1879",
        "Mozart, date of birth January 27, 1756",
        "the queen was born on April 21, 1990",
    ],
)
def test_a_number_to_talk_about_is_left_alone(text: str) -> None:
    assert found(text) == set()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("my number is 5550142", "5550142"),
        ("555 0142 is my number", "555 0142"),
        ("moms number 555 123 4567", "555 123 4567"),
        ("number: 555 0142", "555 0142"),
        ("my number is 612 345 678", "612 345 678"),
        (
            "my number is \u0966\u096d\u096f\u0967\u0967 \u0968\u0968\u096a \u096e\u096d\u0967",
            "\u0966\u096d\u096f\u0967\u0967 \u0968\u0968\u096a \u096e\u096d\u0967",
        ),
        (
            "my phone is oh seven seven double one two three four five six",
            "oh seven seven double one two three four five six",
        ),
        ("call me at seven seven three 555 0199", "seven seven three 555 0199"),
        ("her phone goes 0 7 7 0 0 9 0 0 3 4 5", "0 7 7 0 0 9 0 0 3 4 5"),
        ("my brother was born on May 3, 2001", "May 3, 2001"),
        ("Tom was born on May 3, 2016", "May 3, 2016"),
    ],
)
def test_somebodys_number_is_found(text: str, value: str) -> None:
    assert value in found(text)


@pytest.mark.parametrize(
    "reply",
    [
        "Call Poison Control now: 1-800-222-1222.",
        "You can call 1-800-656-4673 at any time.",
        "The NSPCC answers on 0808 800 5000.",
        "The helpline is 555 123 4567.",
        "Your emergency number there is 555 12 34.",
        "Ring 116 123, it is free.",
    ],
)
def test_a_reply_may_say_where_help_is(reply: str) -> None:
    assert found(reply, Stage.OUTPUT) == set()


@pytest.mark.parametrize(
    "reply",
    [
        "In an emergency call my phone 07700 900123.",
        "Call me at 07700 900123!",
        "The helpline is busy, but you can text me: 07700 900123",
    ],
)
def test_a_reply_may_give_no_private_number(reply: str) -> None:
    assert found(reply, Stage.OUTPUT) == {"07700 900123"}


def test_a_helplines_name_frees_no_number_that_a_child_gives() -> None:
    assert found("the crisis line: 07700 900123") == {"07700 900123"}
