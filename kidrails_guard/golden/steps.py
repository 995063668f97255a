"""The steps of the pipeline: plain functions from a row to a row, or to the reason for its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from kidrails_guard.golden.near import NEAR, NearIndex
from kidrails_guard.golden.rows import WRITTEN_HERE, Drop, Row, Step
from kidrails_guard.golden.schema import MAX_TEXT, Turn
from kidrails_guard.golden.textform import fold, ngrams, normalise
from kidrails_guard.policy import Policy
from kidrails_guard.types import CASES, Hazard, Severity

OVERLAP_WORDS: Final = 8
"""A training text that shares so many words in a row with an evaluation set is left out.

Source: Brown et al., "Language Models are Few-Shot Learners" (2020), appendix C, use 13 words on
web pages; children's messages are shorter, so fewer are asked for.
"""

_SHORTEST: Final = 3
"""Shorter messages ("yes", "knock knock") mean nothing without their context: never an overlap."""

_SPECIAL: Final = frozenset({"howto"})


def normalise_row(row: Row) -> Row:
    """Return the row with every text in its stored form."""
    return replace(
        row,
        text=normalise(row.text),
        golden=normalise(row.golden),
        unsafe=normalise(row.unsafe),
        conversation=tuple(
            Turn(role=t.role, content=normalise(t.content)) for t in row.conversation
        ),
    )


def check_size(row: Row) -> Row | Drop:
    """Drop a row without text, or with more than any row has."""
    for text in (row.text, row.golden, row.unsafe, *(t.content for t in row.conversation)):
        if len(text) > MAX_TEXT:
            return Drop("too long", f"{len(text):,} characters, accepted: {MAX_TEXT:,}")
    empty = not row.text or (row.kind == "qa" and not (row.golden and row.unsafe))
    return Drop("empty text") if empty else row


def check_labels(policy: Policy) -> Step:
    """Return a step that drops rows whose labels contradict each other or the policy."""

    def step(row: Row) -> Row | Drop:
        if (row.severity is Severity.NONE) != (row.hazards == (Hazard.BENIGN,)):
            return Drop("severity does not fit the hazard", row.severity.label)
        known = [case for hazard in row.hazards for case in CASES.get(hazard, ())]
        if row.case and row.case not in known:
            return Drop("case does not fit the hazard", row.case)
        if row.kind == "qa" and row.band is not None and row.action is not None:
            fitting = cases_for(row, policy)
            if not fitting:
                return Drop("action is not the policy's", row.action.label)
            if row.case not in fitting:
                if row.case:
                    return Drop("case does not fit the action", row.case)
                return replace(row, case=fitting[0] if len(fitting) == 1 else "")
        return row

    return step


def cases_for(row: Row, policy: Policy) -> tuple[str, ...]:
    """Return the cases under which the policy does what a question's row expects."""
    assert row.band is not None
    names = ("", *(case for hazard in row.hazards for case in CASES.get(hazard, ())))
    fitting = [
        case
        for case in names
        if max(
            policy.action(h, row.severity, band=row.band, stage=row.stage, case=case)
            for h in row.hazards
        )
        == row.action
    ]
    # Where a named case says it, no case says it too: the name is the fuller label. Asking how
    # ("howto") is something of its own, so it is only named where nothing else fits.
    named = tuple(case for case in fitting if case and not (case in _SPECIAL and "" in fitting))
    return named or tuple(fitting)


def drop_copies() -> Step:
    """Return a step that keeps the first of rows with one text in one context and one label."""
    seen: set[tuple[str, str]] = set()

    def step(row: Row) -> Row | Drop:
        key = (fold(row.in_context), f"{row.label} {row.band if row.kind == 'qa' else ''}")
        if key in seen:
            return Drop("exact copy")
        seen.add(key)
        return row

    return step


def drop_near_copies(threshold: float = NEAR) -> Step:
    """Return a step that keeps the first of rows that nearly copy each other and agree.

    Rows that differ in their label stay, however alike their texts are ("i want to die", "i want to
    dye my hair"): telling them apart is what they are for.
    """
    indexes: dict[str, NearIndex] = {}

    def step(row: Row) -> Row | Drop:
        label = f"{row.kind} {row.label} {row.band}"
        if (index := indexes.get(label)) is None:
            index = indexes[label] = NearIndex(threshold)
        other = index.add_new(row.id, row.said if row.kind == "qa" else row.in_context)
        return row if other is None else Drop("near-copy", str(other))

    return step


def drop_contradictions(rows: Sequence[Row]) -> Step:
    """Return a step that drops texts which stand under two labels in one context.

    What was written here outranks what was imported; a golden row stays in any case.

    Args:
        rows: all rows that the step may meet, and golden ones that it must not contradict.
    """
    written: dict[str, set[str]] = {}
    anywhere: dict[str, set[str]] = {}
    for row in rows:
        key, label = _labelled(row)
        anywhere.setdefault(key, set()).add(label)
        if row.source == WRITTEN_HERE:
            written.setdefault(key, set()).add(label)

    def step(row: Row) -> Row | Drop:
        key, label = _labelled(row)
        found = written.get(key) or anywhere[key]
        if row.kind == "qa" or found == {label}:
            return row
        return Drop("one text, two labels", " and ".join(sorted(anywhere[key])))

    return step


def _labelled(row: Row) -> tuple[str, str]:
    return f"{row.stage} {fold(row.in_context)}", "+".join(row.hazards)


class Overlap:
    """Finds texts that share a run of words, or all of them, with an evaluation set.

    Args:
        words: length of the run.
    """

    def __init__(self, words: int = OVERLAP_WORDS) -> None:
        self.words = words
        self._runs: dict[int, str] = {}
        self._whole: dict[str, str] = {}
        self.sets: dict[str, int] = {}

    def add(self, name: str, text: str) -> None:
        """Add one text of the evaluation set ``name``."""
        self.sets[name] = self.sets.get(name, 0) + 1
        whole = fold(text)
        if len(whole.split()) >= _SHORTEST:
            self._whole.setdefault(whole, name)
        for run in ngrams(text, words=self.words):
            self._runs.setdefault(run, name)

    def find(self, text: str) -> str | None:
        """Return the set that a text overlaps with, or None."""
        whole = self._whole.get(fold(text))
        if whole is not None:
            return whole
        return next(
            (
                self._runs[run]
                for run in sorted(ngrams(text, words=self.words))
                if run in self._runs
            ),
            None,
        )


def decontaminate(overlap: Overlap) -> Step:
    """Return a step that drops training rows which overlap with an evaluation set."""

    def step(row: Row) -> Row | Drop:
        if row.split == "eval":
            return row
        turns = [t.content for t in row.conversation if t.role == "user"]
        for text in (row.text, *turns):
            if (name := overlap.find(text)) is not None:
                return Drop(f"overlaps with {name}")
        return row

    return step


def apart_from(held: Iterable[Row], threshold: float = NEAR) -> Step:
    """Return a step that drops rows whose text nearly copies an evaluation row's message."""
    index = NearIndex(threshold)
    for row in held:
        index.add(row.id, row.text)

    def step(row: Row) -> Row | Drop:
        near = index.find(row.text)
        return Drop("near-copy of an evaluation row", str(near[0])) if near else row

    return step
