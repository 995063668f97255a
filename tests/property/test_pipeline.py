"""Properties of the data pipeline that hold for any text."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from kidrails_guard.golden.asking import Budget
from kidrails_guard.golden.near import NearIndex, clusters
from kidrails_guard.golden.rows import Row, run_steps
from kidrails_guard.golden.splits import split_golden, split_texts
from kidrails_guard.golden.steps import drop_copies, drop_near_copies, normalise_row
from kidrails_guard.golden.teachers import Answer
from kidrails_guard.golden.textform import fold, jaccard, ngrams, normalise, shingles
from kidrails_guard.types import About, Action, AgeBand, Hazard, Severity, Stage

WORDS = ("cat", "dog", "roof", "jump", "why", "does", "the", "my", "mum", "says", "night", "blue")
messages = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)


def row(name: str, text: str, *, kind: str = "qa", hazard: Hazard = Hazard.BENIGN) -> Row:
    return Row(
        id=name,
        seed=name,
        kind=kind,  # type: ignore[arg-type]
        stage=Stage.INPUT,
        hazards=(hazard,),
        severity=Severity.NONE if hazard is Hazard.BENIGN else Severity.MILD,
        about=About.ASKS,
        conversation=(),
        text=text,
        golden="A reply.",
        unsafe="Another.",
        action=Action.ALLOW,
        band=AgeBand.MIDDLE,
        age=8,
    )


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert normalise_row(normalise_row(row("a", text))) == normalise_row(row("a", text))


@given(st.text())
def test_folding_twice_changes_nothing_and_survives_normalising(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert fold(normalise(text)) == fold(text) or "\u200b" in text or not text.isprintable()


@given(st.text(), st.text())
def test_likeness_is_symmetric_and_bounded(one: str, two: str) -> None:
    a, b = shingles(one), shingles(two)
    assert jaccard(a, b) == jaccard(b, a)
    assert 0.0 <= jaccard(a, b) <= 1.0
    assert jaccard(a, a) == 1.0


@given(messages, messages)
def test_near_copies_are_found_from_both_sides(one: str, two: str) -> None:
    there, back = NearIndex(), NearIndex()
    there.add("a", one)
    back.add("a", two)
    assert bool(there.find(two)) == bool(back.find(one))
    assert bool(there.find(two)) == (jaccard(shingles(one), shingles(two)) >= 0.8)


@given(st.lists(messages, max_size=20), st.sampled_from([0.1, 0.5, 0.7, 0.8, 1.0]))
def test_no_near_copy_is_missed_and_none_invented(texts: list[str], threshold: float) -> None:
    index, runs = NearIndex(threshold), [shingles(text) for text in texts]
    for number, text in enumerate(texts):
        near = [n for n in range(number) if jaccard(runs[n], runs[number]) >= threshold]
        assert list(index.add(number, text)) == near


@given(st.lists(messages, max_size=12), st.randoms(use_true_random=False))
def test_groups_do_not_depend_on_the_order(texts: list[str], rng: random.Random) -> None:
    keyed = [(number, text) for number, text in enumerate(texts)]
    mixed = keyed.copy()
    rng.shuffle(mixed)

    def grouped(pairs: list[tuple[int, str]]) -> set[frozenset[object]]:
        return {frozenset(group) for group in clusters(pairs)}

    assert grouped(keyed) == grouped(mixed)
    assert sum(len(group) for group in clusters(keyed)) == len(texts)


@given(st.lists(messages, max_size=15))
def test_deduplication_is_idempotent_and_leaves_no_near_copy(texts: list[str]) -> None:
    rows = [row(str(number), text) for number, text in enumerate(texts)]

    def cleaned(given_rows: list[Row]) -> list[Row]:
        steps = [("exact", drop_copies()), ("near", drop_near_copies())]
        return run_steps(given_rows, steps)[0]

    once = cleaned(rows)
    assert cleaned(once) == once
    runs = [shingles(r.said) for r in once]
    pairs = [(i, j) for i in range(len(runs)) for j in range(i)]
    assert all(jaccard(runs[i], runs[j]) < 0.8 for i, j in pairs)
    assert not texts or once


@settings(deadline=None)
@given(st.lists(messages, min_size=1, max_size=15), st.lists(messages, max_size=15))
def test_no_near_copy_crosses_the_split(golden: list[str], texts: list[str]) -> None:
    placed = split_golden([row(f"g{n}", text) for n, text in enumerate(golden)])
    made, leaking = split_texts(
        [row(f"t{n}", text, kind="text") for n, text in enumerate(texts)], placed
    )
    assert len(made) + len(leaking) == len(texts)
    everyone = [*placed, *made]
    runs = [shingles(r.text) for r in everyone]
    for i, one in enumerate(everyone):
        for j, two in enumerate(everyone[:i]):
            if jaccard(runs[i], runs[j]) >= 0.8 and "eval" in {one.split, two.split}:
                assert one.split == two.split
    sides: dict[str, set[object]] = {}
    for item in everyone:
        sides.setdefault(item.group, set()).add(item.split)
    assert all(len(found) == 1 for found in sides.values())


@given(st.lists(messages, min_size=1, max_size=20))
def test_a_split_does_not_change_when_rows_are_added(texts: list[str]) -> None:
    """Only a near-copy of an older row may follow it; nobody's evaluation row is taken away."""
    rows = [row(f"g{n}", text) for n, text in enumerate(dict.fromkeys(texts))]
    before = {r.id: r.split == "eval" for r in split_golden(rows[:-1])}
    after = {r.id: r.split == "eval" for r in split_golden(rows)}
    alone = [g for g in clusters((r.id, r.said) for r in rows) if len(g) == 1]
    for (name,) in alone:
        assert before.get(str(name), after[str(name)]) == after[str(name)]


@given(messages)
def test_a_text_overlaps_with_itself_by_all_its_runs(text: str) -> None:
    runs = ngrams(text, words=8)
    assert len(runs) <= max(0, len(text.split()) - 7)
    assert ngrams(text.upper() + "!", words=8) == runs


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(0, 400)), max_size=30),
    st.integers(0, 2_000),
)
def test_a_budget_is_never_exceeded(requests: list[tuple[int, int]], limit: int) -> None:
    """As long as no answer is longer than was reserved for it, as a server's max_tokens ensures."""
    budget = Budget(tokens=limit)
    open_requests = []
    for reserved, used in requests:
        if budget.reserve(reserved):
            open_requests.append((reserved, min(reserved, used)))
        if len(open_requests) > 3:
            done, spent = open_requests.pop(0)
            budget.settle(done, Answer("x", tokens=spent))
    for done, spent in open_requests:
        budget.settle(done, Answer("x", tokens=spent))
    assert budget.spent_tokens <= limit
