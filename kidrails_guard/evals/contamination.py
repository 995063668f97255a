"""Leaves out what the shipped guard or model may have learnt by heart.

`kidrails data build` keeps near-copies of the cases out of the chat model's training data. The
classifier learns from ``data/messages`` and ``data/golden`` as they stand, and two people who write
short questions of children now and then write the same one; such a case measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from kidrails_guard.classifier.rows import read_own
from kidrails_guard.content import content_path
from kidrails_guard.evals.cases import Case
from kidrails_guard.golden.near import NearIndex
from kidrails_guard.types import Stage

ALIKE = 0.7
"""Share of common five-letter runs from which a case counts as seen; stricter than in training."""


@cache
def _training_texts() -> tuple[str, ...]:
    rows = read_own(content_path("data"))
    texts = {row.text for row in rows if row.split != "eval" and row.stage is Stage.INPUT}
    # What was said before is read by the classifier as well, and may be a case of its own.
    texts |= {turn.text for row in rows if row.split != "eval" for turn in row.turns}
    return tuple(sorted(texts))


def unseen(cases: Sequence[Case]) -> list[Case]:
    """Return the cases whose words stand in no text that the shipped guard was trained on.

    A disguised case goes with its plain one.
    """
    index = NearIndex(ALIKE)
    plain: dict[str, list[str]] = {}
    for case in cases:
        if case.variant in {"", "plain"} or not case.id.endswith(f"-{case.variant}"):
            plain.setdefault(case.message, []).append(case.id)
    for message in plain:
        index.add(message, message)
    seen: set[str] = set()
    for text in _training_texts():
        for found in index.find(text):
            seen.update(plain[str(found)])
    return [case for case in cases if case.id not in seen and case.group not in seen]
