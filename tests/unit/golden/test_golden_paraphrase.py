"""The offline teacher changes words and keeps what is said; replies stay faithful."""

from __future__ import annotations

import json
import random
import re
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from kidrails_guard.errors import DataError
from kidrails_guard.golden.compose import SCENARIOS, OfflineTeacher, plan_jobs
from kidrails_guard.golden.disguise import KINDS, disguise
from kidrails_guard.golden.order import GenerateOptions, run_order
from kidrails_guard.golden.paraphrase import Paraphraser, swap_words, tone_of
from kidrails_guard.golden.personas import Persona, sample_personas
from kidrails_guard.golden.read import golden_files, read_all, read_golden
from kidrails_guard.golden.rows import Row, from_golden
from kidrails_guard.golden.splits import split_golden
from kidrails_guard.golden.wording import load_wording
from kidrails_guard.normalize import normalize
from kidrails_guard.types import About, AgeBand, Hazard

PERSONAS = sample_personas(200, seed=5)


@pytest.fixture(scope="module")
def golden() -> list[Row]:
    placed = read_all(golden_files(), read_golden)
    return split_golden([from_golden(item.row) for item in placed])


def speaker(style: str, *, spelling: str = "british", **family: str) -> Persona:
    base = next(p for p in PERSONAS if p.age == 8)
    from dataclasses import replace

    words = {"mum": "mum", "dad": "dad", "grandma": "gran", "grandpa": "grandad"} | family
    return replace(base, style=style, spelling=spelling, family=tuple(words.items()))  # type: ignore[arg-type]


def say(text: str, reply: str, persona: Persona, seed: int = 0) -> tuple[str, str]:
    said = Paraphraser().say(
        [text], [reply], persona=persona, rng=random.Random(seed), tone="statement"
    )
    return said.child[0], said.replies[0]


def test_relatives_are_swapped_on_both_sides() -> None:
    persona = speaker("casual", spelling="american", mum="mom")
    message, reply = say("my mum shouts", "Mum may be tired. Mum's rest helps. Ask her.", persona)
    assert "mom" in message
    assert reply == "Mom may be tired. Mom's rest helps. Ask her."


def test_ones_own_pet_becomes_another_where_its_kind_does_not_matter() -> None:
    def told(text: str, reply: str) -> set[str]:
        said = [
            Paraphraser().say(
                [text], [reply], persona=speaker("casual"), rng=random.Random(n), tone="heavy"
            )
            for n in range(12)
        ]
        for one in said:
            pet = re.search(r"my (guinea pig|\w+)", one.child[0])
            assert pet is not None
            assert pet[1] in one.replies[0]
        return {one.replies[0] for one in said}

    assert len(told("my dog died today", "It hurts to lose your dog. Draw your dog with Mum.")) > 2
    assert len(told("my dog died today", "It hurts. Your dog loved a walk.")) == 1
    assert len(told("my cat and dog died", "It hurts to lose a cat and a dog.")) == 1


def test_places_are_swapped_on_both_sides() -> None:
    found = {
        say("they push me at the park", "Stay near a grown-up at the park.", speaker("casual"), n)
        for n in range(20)
    }
    for message, reply in found:
        assert ("playground" in message) is ("playground" in reply)
    assert len({reply for _, reply in found}) == 2


@pytest.mark.parametrize(
    "reply",
    [
        "Cats store up go-go power in the day.",
        "Lay the paper flat. A tiny flat dish will do.",
        "Then the three of you can play shop.",
        "The city has a peace park now.",
        "The sweets belong to a child, even the tiny ones.",
    ],
)
def test_a_word_that_is_no_place_here_stays(reply: str) -> None:
    for spelling in ("british", "american"):
        persona = speaker("casual", spelling=spelling)
        assert {say("how does it go", reply, persona, n)[1] for n in range(12)} == {reply}


def test_two_grandmothers_stay_two() -> None:
    persona = speaker("casual", grandma="gran")
    _, reply = say("nana and granny fight", "Nana and Granny both love you.", persona)
    assert reply == "Nana and Granny both love you."


def test_a_name_is_swapped_on_both_sides_and_once_only() -> None:
    persona = speaker("casual")
    message, reply = say("mina took leo's swing", "Mina and Leo can take turns.", persona, 3)
    names = re.fullmatch(r"(\w+) and (\w+) can take turns\.", reply)
    assert names is not None
    first, second = names.groups()
    assert first not in {"Mina", "Leo"}
    assert second not in {"Mina", "Leo"}
    assert first != second
    assert first.lower() in message
    assert second.lower() in message


def test_swapping_is_one_pass_and_keeps_case_and_endings() -> None:
    table = {"mum": "mom", "mom": "mum"}
    assert swap_words("Mum MUM mum's moms mummy", table) == "Mom MOM mom's mums mummy"


def test_a_reply_changes_by_nothing_but_swaps(golden: list[Row]) -> None:
    """Every word that changed in a reply is one of the tables' words."""
    wording = load_wording()
    known = {w for group in wording.names for w in group}
    known |= {w for group in wording.relatives.values() for w in group}
    known |= {w for group in wording.dialect.values() for w in group}
    known |= {
        part for group in [*wording.places, wording.pets] for w in group for part in w.split()
    }
    teacher = OfflineTeacher(golden, seed=1)
    seen = 0
    for job in plan_jobs(golden[::7], PERSONAS, per_row=3, seed=1):
        made = teacher.answer(job)
        if not isinstance(made, Row):
            continue
        seen += 1
        for old, new in ((job.row.golden, made.golden), (job.row.unsafe, made.unsafe)):
            before, after = re.findall(r"[\w']+", old), re.findall(r"[\w']+", new)
            for tag, i, j, k, n in SequenceMatcher(None, before, after, False).get_opcodes():
                if tag != "equal":
                    changed = {w.lower().removesuffix("'s") for w in before[i:j] + after[k:n]}
                    assert all({w, w.removesuffix("s")} & known for w in changed)
    assert seen > 100


def test_labels_band_and_split_stay_with_the_seed(golden: list[Row]) -> None:
    teacher = OfflineTeacher(golden, seed=2)
    for job in plan_jobs(golden[::11], PERSONAS, per_row=3, seed=2):
        made = teacher.answer(job)
        if isinstance(made, Row):
            seed = job.row
            assert (made.hazards, made.severity, made.about, made.case, made.action) == (
                seed.hazards,
                seed.severity,
                seed.about,
                seed.case,
                seed.action,
            )
            assert (made.band, made.split, made.group) == (seed.band, seed.split, seed.group)
            assert AgeBand.for_age(made.age or 0) is seed.band
            assert made.split != "eval"
            assert [t.role for t in made.conversation] == ["user", "assistant"] * (
                len(made.conversation) // 2
            )


def test_nothing_is_made_from_evaluation_rows(golden: list[Row]) -> None:
    held = [row for row in golden if row.split == "eval"]
    assert held
    assert list(plan_jobs(held, PERSONAS, per_row=3, seed=1)) == []


def test_calm_talk_before_a_message_comes_from_the_same_side(golden: list[Row]) -> None:
    """No sentence of a dev or eval row may stand in front of a train row."""
    sides = {reply: row.split for row in golden for reply in [row.golden]}
    teacher = OfflineTeacher(golden, seed=4)
    checked = 0
    for job in plan_jobs(golden, PERSONAS, per_row=4, seed=4):
        made = teacher.answer(job)
        if isinstance(made, Row) and not job.row.conversation:
            for turn in made.conversation:
                side = sides.get(turn.content)
                if turn.role == "assistant" and side is not None:
                    checked += 1
                    assert side == job.row.split
    assert checked > 100


def test_the_same_seed_makes_the_same_rows(golden: list[Row]) -> None:
    def made(seed: int) -> list[object]:
        teacher = OfflineTeacher(golden, seed=seed)
        return [teacher.answer(j) for j in plan_jobs(golden[:20], PERSONAS, per_row=3, seed=seed)]

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_a_heavy_message_gets_no_cheerful_company() -> None:
    wording = load_wording()
    cheerful = {"guess what", "you know what", "just saying"} | set(wording.lead_ins)
    text = "my stepdad hits me"
    tone = tone_of(text, [Hazard.ABUSE_DISCLOSURE], About.SELF)
    assert tone == "heavy"
    for number, persona in enumerate(PERSONAS * 3):
        said = Paraphraser().say([text], [], persona=persona, rng=random.Random(number), tone=tone)
        lowered = said.child[0].lower()
        assert not [word for word in cheerful if word.rstrip(".!") in lowered]
        assert "!" not in lowered


@pytest.mark.parametrize(
    ("text", "hazard", "about", "tone"),
    [
        ("why do wolves howl", Hazard.VIOLENCE_IN_CONTEXT, About.ASKS, "question"),
        ("tell me a joke", Hazard.BENIGN, About.NONE, "command"),
        ("i scored a goal", Hazard.BENIGN, About.SELF, "statement"),
        ("why am i so sad", Hazard.DISTRESS, About.SELF, "heavy"),
    ],
)
def test_the_tone_of_a_message(text: str, hazard: Hazard, about: About, tone: str) -> None:
    assert tone_of(text, [hazard], about) == tone


def test_styles_write_as_their_age_does() -> None:
    text = "because my friend doesn't know what i said at school. is that mean?"
    dictated, _ = say(text, "", speaker("dictated"), 2)
    careful, _ = say(text, "", speaker("careful"), 1)
    early = " ".join(say(text, "", speaker("early"), n)[0] for n in range(8))
    assert not re.search(r"[.,?!']", dictated)
    assert dictated == dictated.lower()
    assert careful[0].isupper()
    assert careful[-1] in ".?"
    assert re.search(r"skool|scool|frend|becuz|becos|cuz|sed|wat|wot|wut|kno\b", early)


def test_an_answer_in_mid_talk_is_said_as_it_is() -> None:
    for number in range(30):
        said = Paraphraser().say(
            ["no. i just walk alone"],
            [],
            persona=speaker("casual"),
            rng=random.Random(number),
            tone="heavy",
        )
        assert said.child[0].startswith("no")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_guard_undoes_the_disguises(kind: str) -> None:
    """What the teacher hides, the normaliser must be able to find, or the label would be a lie."""
    found = 0
    for number in range(60):
        rng = random.Random(number)
        text, used = disguise("i want to poison the neighbour", rng)
        if used == kind:
            found += "poison" in normalize(text).text or "neighbour" in normalize(text).text
            assert text != "i want to poison the neighbour"
    assert found


def test_most_conversations_are_single_and_all_scenarios_occur() -> None:
    assert SCENARIOS.count("single") > len(SCENARIOS) / 2
    assert set(SCENARIOS) == {"single", "after chat", "after long chat", "comes back"}


async def test_one_hazards_rows_are_still_said_after_calm_talk(tmp_path: Path) -> None:
    out = tmp_path / "made.jsonl"
    await run_order(GenerateOptions(out, hazard=["K16"], per_row=4, gate="off"))
    made = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {row["hazard"] for row in made} == {"K16"}
    assert {"after chat", "after long chat"} <= {row["scenario"] for row in made}


@pytest.mark.parametrize("damage", ["{", "[]", '{"reason": "x"}', "\x00"])
async def test_a_damaged_journal_is_named_with_the_way_on(tmp_path: Path, damage: str) -> None:
    options = GenerateOptions(tmp_path / "made.jsonl", hazard=["K16"], per_row=1, gate="off")
    await run_order(options)
    journal = tmp_path / "made.jsonl.journal"
    lines = journal.read_text(encoding="utf-8").splitlines()
    journal.write_text("\n".join([lines[0], damage, *lines[2:]]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"made\.jsonl\.journal: is damaged; delete it"):
        await run_order(options)
