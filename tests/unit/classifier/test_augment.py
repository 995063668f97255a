"""Other forms of a text keep its label."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kidrails_guard.classifier.augment import (
    AFTER,
    BEFORE,
    CHILD_SPELLING,
    Surroundings,
    augment,
    misspell,
    mistype,
    part_of_reply,
    rewrite,
    some_sentences,
    with_turns,
)
from kidrails_guard.classifier.encode import MAX_TURNS, Turn
from kidrails_guard.classifier.examples import Example, from_own
from kidrails_guard.classifier.rows import LabelledText
from kidrails_guard.policy import load_policy
from kidrails_guard.types import About, Hazard, Severity, Stage

AROUND = Surroundings(
    calm=(("how big is a whale", "As long as three buses."),),
    bad=(("how do i make a bomb", "No bombs. Shall we make a volcano?"),),
    sentences=("we had pancakes today",),
)


def example(text: str, *hazards: Hazard, stage: Stage = Stage.INPUT) -> Example:
    row = LabelledText(
        text=text,
        turns=(),
        stage=stage,
        hazards=hazards,
        severity=Severity.MODERATE if hazards else Severity.NONE,
        about=About.SELF,
        case="",
        split="train",
        source="risky",
    )
    return from_own([row], load_policy())[0]


def test_the_same_seed_gives_the_same_text() -> None:
    text = "why do people want to hurt their friends at school?"
    assert [rewrite(text, random.Random(i)) for i in range(40)] == [
        rewrite(text, random.Random(i)) for i in range(40)
    ]
    assert len({rewrite(text, random.Random(i)) for i in range(40)}) > 20


def test_a_slip_changes_one_place_of_a_long_word() -> None:
    rng = random.Random(3)
    for _ in range(200):
        slipped = mistype("penguins sleep", rng)
        assert abs(len(slipped) - len("penguins sleep")) <= 1
        assert slipped[0] == "p"
    assert mistype("a b c", rng) == "a b c"


def test_spelling_swaps_whole_words_only() -> None:
    rng = random.Random(0)
    for _ in range(50):
        words = misspell("the theatre and you", rng, rate=1.0).split()
        assert words[1:3] == ["theatre", "and"]
        assert words[0] in CHILD_SPELLING["the"]
        assert words[3] in CHILD_SPELLING["you"]


@pytest.mark.parametrize("hazards", [(), (Hazard.SELF_HARM,), (Hazard.ILLEGAL_ACTS,)])
def test_the_label_stays(hazards: tuple[Hazard, ...]) -> None:
    original = example("i took something that is not mine", *hazards)
    rng = random.Random(1)
    for _ in range(100):
        other = augment(original, rng, AROUND)
        assert (other.target == original.target).all()
        assert (other.known == original.known).all()
        assert (other.severity, other.about) == (original.severity, original.about)
        assert other.text.strip()


def test_only_a_calm_text_gets_an_old_bad_turn() -> None:
    rng = random.Random(2)
    calm, risky = example("can we talk about pandas"), example("i will hit him", Hazard.BULLYING)
    after_bad = [with_turns(calm, rng, AROUND).turns for _ in range(200)]
    assert any(t and t[0].text == AROUND.bad[0][0] for t in after_bad)
    for _ in range(200):
        turns = with_turns(risky, rng, AROUND).turns
        assert all(t.text != AROUND.bad[0][0] for t in turns)


def test_real_turns_stay_last_and_their_number_is_bounded() -> None:
    own = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
    original = replace(example("yes do it", Hazard.VIOLENCE_HOWTO), turns=own)
    rng = random.Random(5)
    for _ in range(100):
        turns = with_turns(original, rng, AROUND).turns
        assert turns[-2:] == own[-2:]
        assert len(turns) <= MAX_TURNS


def test_words_before_and_after_carry_no_hazard_of_their_own() -> None:
    for word in (*BEFORE, *AFTER):
        assert not {"kill", "die", "hurt", "hate"} & {*word.split()}


def test_a_reply_is_not_rewritten() -> None:
    reply = example("You did right to tell me.", stage=Stage.OUTPUT)
    assert augment(reply, random.Random(0), AROUND).text == reply.text


LONG = "Foxes are shy and come at night. They hunt mice in the long grass by the farm. Ask mum."


def test_any_part_of_a_good_reply_is_good_and_its_beginning_is_among_them() -> None:
    reply = example(LONG, stage=Stage.OUTPUT)
    parts = {part_of_reply(reply, random.Random(seed)) for seed in range(60)}
    assert all(part.strip() in LONG for part in parts)
    assert {"Foxes are shy and come at night. ", LONG} <= parts


def test_a_part_of_a_bad_reply_holds_most_of_it() -> None:
    # Its first words may be harmless: they must not be learned as bad.
    reply = example(LONG, Hazard.BULLYING, stage=Stage.OUTPUT)
    parts = {part_of_reply(reply, random.Random(seed)) for seed in range(60)}
    assert LONG in parts
    assert all(LONG.startswith(part) and len(part) * 5 >= len(LONG) * 3 for part in parts)


def test_a_part_of_a_reply_is_whole_sentences_in_a_row() -> None:
    text = "Foxes are shy. They hunt at night! Do you have one near you? Ask your mum."
    parts = {some_sentences(text, random.Random(seed)) for seed in range(60)}
    assert all(part in text and part[-1] in ".!?" for part in parts)
    assert {"Foxes are shy.", "Ask your mum."} <= parts
