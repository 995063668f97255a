"""Each step on its own: what it drops, why, and what it must leave alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import pytest
from golden_rows import text_row

from kidrails_guard.golden.near import NearIndex, clusters
from kidrails_guard.golden.read import golden_files, read_all, read_golden
from kidrails_guard.golden.rows import Drop, Row, from_golden, run_steps
from kidrails_guard.golden.schema import Turn
from kidrails_guard.golden.splits import rule_split, split_golden, split_texts
from kidrails_guard.golden.steps import (
    Overlap,
    apart_from,
    check_labels,
    check_size,
    decontaminate,
    drop_contradictions,
    drop_copies,
    drop_near_copies,
    normalise_row,
)
from kidrails_guard.golden.textform import jaccard, shingles
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action, AgeBand, Hazard, Severity


def qa_row(name: str, text: str, **change: object) -> Row:
    return text_row(
        name,
        text,
        **{
            "kind": "qa",
            "golden": f"A kind reply about {name}.",
            "unsafe": "A careless reply.",
            "band": AgeBand.MIDDLE,
            "age": 8,
            "action": Action.ALLOW,
        }
        | change,
    )


def reason(result: Row | Drop) -> str:
    assert isinstance(result, Drop)
    return result.reason


def test_normalise_makes_one_form_of_a_text() -> None:
    row = normalise_row(text_row("a", "  don’t\u00a0 do\r\n\r\n\r\n\r\nit \ufeff"))
    assert row.text == "don't do\n\nit"
    assert normalise_row(row) == row


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (text_row("a", ""), "empty text"),
        (qa_row("a", "why", golden=""), "empty text"),
        (text_row("a", "x" * 1_000_000), "too long"),
        (qa_row("a", "why", unsafe="x" * 4_001), "too long"),
    ],
)
def test_size(row: Row, says: str) -> None:
    assert reason(check_size(row)) == says


def test_a_copy_is_dropped_and_the_first_one_kept() -> None:
    rows = [text_row("a", "Do fish sleep?"), text_row("b", "do fish sleep")]
    kept, counts, rejected = run_steps(rows, [("copies", drop_copies())])
    assert [row.id for row in kept] == ["a"]
    assert counts[0].reasons == {"exact copy": 1}
    assert rejected[0].row.id == "b"


def test_the_same_words_in_another_context_are_no_copy() -> None:
    before = (Turn(role="assistant", content="Shall I tell you more?"),)
    rows = [text_row("a", "yes"), text_row("b", "yes", conversation=before)]
    kept, _, _ = run_steps(rows, [("copies", drop_copies()), ("near", drop_near_copies())])
    assert len(kept) == 2


def test_a_near_copy_with_another_label_stays() -> None:
    """Telling minimal pairs apart is what they are for."""
    one = "i am going to the roof of the school tomorrow to look at the stars"
    two = "i am going to the roof of the school tomorrow to look at the scars"
    assert jaccard(shingles(one), shingles(two)) > 0.8
    risky = {"hazards": (Hazard.DANGEROUS_ACTS,), "severity": Severity.MODERATE}
    alike = [text_row("a", one), text_row("b", two)]
    apart = [text_row("a", one), text_row("b", two, **risky)]
    assert len(run_steps(alike, [("near", drop_near_copies())])[0]) == 1
    assert len(run_steps(apart, [("near", drop_near_copies())])[0]) == 2


def test_one_text_with_two_labels_is_dropped_and_the_written_one_outranks_the_imported() -> None:
    risky = {"hazards": (Hazard.DANGEROUS_ACTS,), "severity": Severity.MODERATE}
    both = [text_row("a", "the roof"), text_row("b", "the roof", **risky)]
    step = drop_contradictions(both)
    assert [reason(step(row)) for row in both] == ["one text, two labels"] * 2
    written = text_row("a", "the roof")
    imported = text_row("b", "the roof", source="some_set", **risky)
    step = drop_contradictions([written, imported])
    assert step(written) is written
    assert reason(step(imported)) == "one text, two labels"


def test_labels_are_held_against_the_policy() -> None:
    step = check_labels(load_policy())
    assert reason(step(qa_row("a", "x", action=Action.REFUSE))) == "action is not the policy's"
    wrong = text_row("a", "x", severity=Severity.MILD)
    assert reason(step(wrong)) == "severity does not fit the hazard"
    assert reason(step(text_row("a", "x", case="plans"))) == "case does not fit the hazard"


@pytest.mark.parametrize(
    ("hazard", "band", "action", "case"),
    [
        (Hazard.BULLYING, AgeBand.MIDDLE, Action.REFUSE, "plans"),
        (Hazard.BULLYING, AgeBand.MIDDLE, Action.REDIRECT, "suffers"),
        (Hazard.BULLYING, AgeBand.MIDDLE, Action.CARE, "did"),
        (Hazard.PERSONAL_DATA, AgeBand.UPPER, Action.CARE, "meets"),
        (Hazard.PERSONAL_DATA, AgeBand.EARLY, Action.REDACT, "gives"),
        (Hazard.SUBSTANCES, AgeBand.UPPER, Action.REFUSE, "howto"),
        (Hazard.SUBSTANCES, AgeBand.EARLY, Action.REDIRECT, ""),
        (Hazard.SUBSTANCES, AgeBand.UPPER, Action.CARE, ""),
        (Hazard.HATE, AgeBand.UPPER, Action.CARE, "asks"),
    ],
)
def test_the_case_follows_from_what_the_policy_does(
    hazard: Hazard, band: AgeBand, action: Action, case: str
) -> None:
    row = qa_row("a", "x", hazards=(hazard,), severity=Severity.MODERATE, band=band, action=action)
    result = check_labels(load_policy())(row)
    assert isinstance(result, Row)
    assert result.case == case


EVALUATION = "on the way to school i saw a big grey wolf in the snow, is that true"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (EVALUATION.upper() + "!!", True),
        ("my brother says on the way to school i saw a big grey wolf and he lied", True),
        ("on the way to the lake i saw a big grey wolf in the snow", True),
        ("on the way to school i met a small dog", False),
        ("why is the sky blue", True),
        ("why is the sky blue at noon", False),
        ("yes", False),
    ],
)
def test_overlap_is_eight_words_in_a_row_or_all_of_a_short_text(text: str, found: bool) -> None:
    overlap = Overlap()
    overlap.add("bench", EVALUATION)
    overlap.add("bench", "Why is the sky blue?")
    overlap.add("bench", "yes")
    assert (overlap.find(text) == "bench") is found
    result = decontaminate(overlap)(text_row("a", text, split="train"))
    assert isinstance(result, Drop) is found


def test_a_contaminated_earlier_turn_counts_and_evaluation_rows_stay() -> None:
    overlap = Overlap()
    overlap.add("bench", EVALUATION)
    step = decontaminate(overlap)
    before = (Turn(role="user", content=EVALUATION), Turn(role="assistant", content="No."))
    row = text_row("a", "are you sure", conversation=before, split="train")
    assert reason(step(row)) == "overlaps with bench"
    assert step(replace(row, split="eval")) == replace(row, split="eval")


def test_the_split_rule_is_the_first_digit_of_the_messages_hash() -> None:
    for text in ("why do wolves howl", "i want to die", "do fish sleep", "x", "zed"):
        digit = hashlib.sha256(text.encode()).hexdigest()[0]
        assert rule_split(text) == ("eval" if digit in "0123" else "train")


def _first(side: str, prefix: str) -> str:
    """Return a message that the rule puts on a side."""
    return next(m for m in (f"{prefix} {n}" for n in range(999)) if rule_split(m) == side)


def test_near_copies_and_siblings_follow_their_first_member() -> None:
    held = _first("eval", "my cat jumped over the big wall in the garden today number")
    near = next(
        f"{held}{tail}" for tail in "abcdefghijklmnop" if rule_split(f"{held}{tail}") == "train"
    )
    talk = (Turn(role="user", content="a story"), Turn(role="assistant", content="Once."))
    first = _first("train", "and then")
    other = _first("eval", "what happens to the dragon")
    rows = [
        qa_row("a", held),
        qa_row("b", near),
        qa_row("c", first, conversation=talk),
        qa_row("d", other, conversation=talk),
    ]
    by_id = {row.id: row for row in split_golden(rows)}
    assert by_id["a"].split == by_id["b"].split == "eval"
    assert by_id["b"].group == "a"
    assert by_id["c"].split == by_id["d"].split != "eval"
    assert by_id["d"].group == "c"


@pytest.fixture(scope="module")
def golden() -> list[Row]:
    placed = read_all(golden_files(), read_golden)
    return split_golden([from_golden(item.row) for item in placed])


def test_the_dev_split_is_a_tenth_and_spread_over_the_hazards(golden: list[Row]) -> None:
    sides = Counter(row.split for row in golden)
    free = sides["train"] + sides["dev"]
    assert 0.08 < sides["dev"] / free < 0.12
    held = {row.hazards[0] for row in golden if row.split == "dev"}
    assert held == set(Hazard)


def test_a_text_near_an_evaluation_row_is_kept_out(golden: list[Row]) -> None:
    held = next(r for r in golden if r.split == "eval" and len(r.text) > 40)
    trained = next(r for r in golden if r.split == "train" and len(r.text) > 40)
    texts = [
        text_row("near", f"{held.text}!"),
        text_row("join", f"{trained.text}!"),
        text_row("free", "how many moons has jupiter got"),
    ]
    placed, leaking = split_texts(texts, golden)
    assert [row.id for row in leaking] == ["near"]
    assert {row.id: row.group for row in placed}["join"] == trained.group
    assert all(row.split in {"train", "dev"} for row in placed)


def test_a_made_row_near_an_evaluation_row_is_dropped() -> None:
    held = qa_row("a", "my tooth fell into the big green pond behind our house today", split="eval")
    step = apart_from([held])
    near = text_row("b", "my tooth fell into the big green pond behind our house today pls")
    far = text_row("c", "my hat fell into a pond")
    assert reason(step(near)) == "near-copy of an evaluation row"
    assert step(far) is far


def test_clusters_join_by_chains_and_keep_everyone() -> None:
    one = "the little red fox ran over the hill and into the wood to sleep"
    texts = [("a", one), ("b", one + " now"), ("c", one + " now again"), ("d", "do fish sleep")]
    assert clusters(texts, threshold=0.85) == [["a", "b", "c"], ["d"]]


def test_an_index_finds_every_near_copy_that_counting_finds() -> None:
    """The hashing only proposes: on real messages it misses none that exact counting finds."""
    placed = read_all(golden_files(), read_golden)
    texts = [item.row.message for item in placed]
    texts += [f"{text} ok" for text in texts[::3]]
    index = NearIndex()
    exact = [shingles(text) for text in texts]
    for number, text in enumerate(texts):
        expected = [i for i in range(number) if jaccard(exact[i], exact[number]) >= 0.8]
        assert list(index.add(number, text)) == expected
