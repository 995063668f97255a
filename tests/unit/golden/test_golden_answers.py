"""Good replies of the labelled texts become training conversations; what is no answer does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from golden_rows import text_row

from kidrails_guard.content import content_path
from kidrails_guard.golden.answers import answer_rows, asks, is_whole
from kidrails_guard.golden.make import Ledger
from kidrails_guard.golden.replies import reply_problems
from kidrails_guard.golden.rows import Row
from kidrails_guard.golden.schema import Turn
from kidrails_guard.golden.splits import rule_split, split_golden
from kidrails_guard.policy import load_policy
from kidrails_guard.types import About, Action, AgeBand, Hazard, Severity, Stage

POLICY = load_policy()
REPLY = "Cats purr when they feel safe. Small muscles in the throat open and shut very fast."


def said(name: str, question: str, reply: str = REPLY, **change: object) -> Row:
    """A labelled good reply to a question, as it comes out of ``data/messages``."""
    usual = {
        "stage": Stage.OUTPUT,
        "about": About.NONE,
        "conversation": (Turn(role="user", content=question),),
    }
    return text_row(name, reply, **usual | change)


def made(rows: Sequence[Row], golden: Sequence[Row] = ()) -> tuple[list[Row], Ledger]:
    ledger = Ledger()
    return answer_rows(rows, golden, policy=POLICY, ledger=ledger), ledger


def test_a_good_reply_becomes_the_childs_question_with_its_answer() -> None:
    (row,), _ = made([said("answers:7", "why do cats purr")])
    assert (row.kind, row.stage, row.text, row.golden) == (
        "qa",
        Stage.INPUT,
        "why do cats purr",
        REPLY,
    )
    assert row.conversation == ()
    assert row.action is None
    assert row.unsafe == ""
    assert row.split in {"train", "dev"}
    assert row.band is not None
    low, high = row.band.ages
    assert row.age is not None
    assert low <= row.age <= high


def test_earlier_turns_stay_before_the_question() -> None:
    turns = (
        Turn(role="user", content="hi"),
        Turn(role="assistant", content="Hello there."),
        Turn(role="user", content="why do cats purr"),
    )
    (row,), _ = made([said("answers:7", "(below)", conversation=turns)])
    assert row.conversation == turns[:2]
    assert row.text == "why do cats purr"


@pytest.mark.parametrize(
    "change",
    [
        {"hazards": (Hazard.BULLYING,), "severity": Severity.MODERATE},
        {"stage": Stage.INPUT},
        {"conversation": ()},
        {"conversation": (Turn(role="assistant", content="Hello."),)},
        {"source": "some public set"},
        {"id": "rejoinders:3"},
    ],
)
def test_what_is_no_good_reply_of_ours_to_a_child_is_not_taken(change: dict[str, Any]) -> None:
    assert made([said("answers:7", "why do cats purr", **change)])[0] == []


@pytest.mark.parametrize(
    "reply",
    [
        "They crawl low, since the smoke is above.",
        "And then the cat goes back to sleep. It dreams of fish and of a warm sofa all day.",
        "the throat opens and shuts very fast. Small muscles in there do that all the time.",
        "Cats purr when they feel safe. Small muscles in the throat open and shut and",
        "Cats purr when they feel safe and small muscles in the throat open and shut very fast.",
    ],
)
def test_a_part_of_a_reply_is_no_answer(reply: str) -> None:
    assert not is_whole(reply)
    rows, ledger = made([said("spoken:1", "why do cats purr", reply)])
    assert rows == []
    assert [item.drop.reason for item in ledger.rejected] == ["no whole reply"]


def test_a_reply_may_end_with_quoted_words() -> None:
    assert is_whole(
        'Please go to your mum now. Say to her, "I feel so sad that it hurts inside me."'
    )


def test_a_reply_that_no_band_may_hear_is_left_out_with_the_reason() -> None:
    long = " ".join(["The cat sat on the mat and then it ran off again."] * 20)
    canned = f"That's a great question! {REPLY}"
    rows, ledger = made([said("a:1", "tell me about cats", long), said("a:2", "why", canned)])
    assert rows == []
    assert {i.drop.reason for i in ledger.rejected} == {"too long", "canned opening"}


def test_of_near_equal_questions_the_one_with_the_fullest_reply_stays() -> None:
    fuller = f"{REPLY} Some cats also purr when they are hurt."
    rows, _ = made(
        [
            said("answers:1", "why do cats purr"),
            said("answers:2", "Why do cats purr?", fuller),
            said("answers:3", "how do planes stay up in the sky"),
        ]
    )
    assert sorted(row.golden for row in rows) == sorted([fuller, REPLY])


def test_longer_replies_go_to_older_bands_and_hard_ones_to_no_younger_one() -> None:
    short = "It was Ben's turn on the swing. He let his sister go first, since she was sad."
    middle = f"{short} Then they ran home. Mum had made soup, and the cat had a bit as well."
    longest = f"{middle} At bed time they told Dad. He laughed. He said that was kind of Ben."
    hard = (
        "Leaves use sunlight to turn water and air into sugar. Oxygen is released into the "
        "atmosphere again."
    )
    hard_too = (
        "Magma rises when the pressure under a volcano gets too high. Ash is scattered over "
        "neighbouring countries."
    )
    texts = {
        "tell me a": short,
        "sing about b": middle,
        "draw me some c": short + " Well done, Ben.",
        "what of d": longest,
        "why is e": hard,
        "who made f": hard_too,
    }
    rows, _ = made([said(f"answers:{n}", *pair) for n, pair in enumerate(texts.items())])
    bands = {row.golden: row.band for row in rows}
    assert bands == {
        short: AgeBand.EARLY,
        short + " Well done, Ben.": AgeBand.EARLY,
        middle: AgeBand.MIDDLE,
        longest: AgeBand.MIDDLE,
        hard: AgeBand.UPPER,
        hard_too: AgeBand.UPPER,
    }
    for row in rows:
        assert row.band is not None
        assert list(reply_problems(row.golden, row.band, policy=POLICY)) == []


def test_a_question_near_an_evaluation_row_is_held_out_and_near_a_dev_row_stays_with_it() -> None:
    numbers = [f"why does my cat hide her toy mouse number {n} under the sofa" for n in range(60)]
    held = next(text for text in numbers if rule_split(text) == "eval")
    golden = split_golden(
        [
            text_row(
                f"g{n:012d}",
                text,
                kind="qa",
                golden=REPLY,
                unsafe="No.",
                band=AgeBand.MIDDLE,
                age=8,
                action=Action.ALLOW,
            )
            for n, text in enumerate([held, "how do i tie my shoes with two loops"])
        ]
    )
    assert golden[0].split == "eval"
    rows, ledger = made([said("answers:1", held), said("answers:2", golden[1].text)], golden)
    assert [row.text for row in rows] == [golden[1].text]
    assert (rows[0].group, rows[0].split) == (golden[1].group, golden[1].split)
    assert [item.drop.reason for item in ledger.rejected] == ["near-copy of an evaluation row"]


def test_the_same_texts_give_the_same_rows_in_any_order() -> None:
    texts = [
        said(f"answers:{n}", f"what is {thing} made of")
        for n, thing in enumerate(["glass", "paper", "a rainbow", "the moon", "snow", "an atom"])
    ]
    assert made(texts)[0] == made(texts[::-1])[0]


def test_only_questions_are_worded_anew() -> None:
    (question,), _ = made([said("answers:1", "why do cats purr")])
    (told,), _ = made([said("answers:2", "i cant sleep because of the thunder")])
    assert asks(question)
    assert not asks(told)


def test_the_file_that_is_no_model_is_there() -> None:
    """A renamed file would let its replies in unseen."""
    assert content_path("data/messages/rejoinders.tsv").is_file()
