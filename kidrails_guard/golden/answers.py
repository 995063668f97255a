"""Good replies of ``data/messages`` as training conversations: many situations, one wording each.

The labelled replies teach the guard. The harmless ones among them that answer a child's question by
themselves teach the model as well: thousands of questions beside the golden rows' few hundred.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from kidrails_guard.golden.make import Ledger
from kidrails_guard.golden.paraphrase import tone_of
from kidrails_guard.golden.replies import reply_problems
from kidrails_guard.golden.rows import WRITTEN_HERE, Drop, Row, Step
from kidrails_guard.golden.splits import split_texts
from kidrails_guard.golden.steps import apart_from, drop_near_copies
from kidrails_guard.golden.textform import fold
from kidrails_guard.policy import Policy
from kidrails_guard.types import AgeBand, Hazard, Stage

NOT_MODELS: Final = frozenset({"rejoinders"})
"""Files whose harmless replies are worded on purpose as a small model words them: nothing to learn.
"""

FEWEST_WORDS: Final = 12
FEWEST_SENTENCES: Final = 2
"""A shorter reply is a part of one, as the guard sees it in a stream, and no answer by itself."""

_END: Final = re.compile(r"[.!?][\"')]*(?=\s|$)")
_MID_TALK: Final = re.compile(r"(?:and|but|or|so|then|also|because|which|instead)\b", re.IGNORECASE)


def is_whole(reply: str) -> bool:
    """Return whether a reply stands by itself: whole sentences, not the rest of a longer one."""
    ends = list(_END.finditer(reply))
    return (
        len(reply.split()) >= FEWEST_WORDS
        and len(ends) >= FEWEST_SENTENCES
        and ends[-1].end() == len(reply)
        and not reply[0].islower()
        and _MID_TALK.match(reply) is None
    )


def asks(row: Row) -> bool:
    """Return whether a row's message is a question, so that it may be worded anew.

    What else a child says here nobody has labelled: it may be grave, and what the offline teacher
    would put before and after it might not be fitting.
    """
    return tone_of(row.text, row.hazards, row.about) == "question"


def answer_rows(
    texts: Iterable[Row], golden: Sequence[Row], *, policy: Policy, ledger: Ledger
) -> list[Row]:
    """Return the good replies of labelled texts as rows of questions, with band, group and split.

    Nobody has labelled what hazard such a question has, so the rows have no expected action; they
    have no unsafe reply either. Of near-equal questions the one with the fullest reply is kept.

    Args:
        texts: labelled texts, already kept apart from the evaluation sets.
        golden: golden rows with group and split.
        policy: has the bands' reading ranges.
        ledger: notes what each step left out.
    """
    found = [_as_question(row) for row in texts if _is_candidate(row)]
    found.sort(key=lambda row: (-len(row.golden.split()), row.id))
    held = [row for row in golden if row.split == "eval"]
    steps: tuple[tuple[str, Step], ...] = (
        ("whole replies", _whole),
        ("reading range", _in_range(policy)),
        ("near-copies", drop_near_copies()),
        ("held out", apart_from(held)),
    )
    kept = _in_bands(ledger.run("answers", found, steps), policy)
    placed, leaking = split_texts(kept, golden)
    ledger.lose("answers", "split", leaking, len(placed), Drop("near-copy of an evaluation row"))
    return placed


def _is_candidate(row: Row) -> bool:
    """Return whether a text is a good reply of this project to something that a child said."""
    roles = [turn.role for turn in row.conversation]
    return (
        row.stage is Stage.OUTPUT
        and row.hazards == (Hazard.BENIGN,)
        and row.source == WRITTEN_HERE
        and row.id.partition(":")[0] not in NOT_MODELS
        and bool(roles)
        and roles == [*["user", "assistant"] * (len(roles) // 2), "user"]
    )


def _as_question(row: Row) -> Row:
    """Return a reply in its context as the child's question with that reply."""
    *before, asked = row.conversation
    said = fold("\n".join(turn.content for turn in row.conversation))
    name = "a" + hashlib.sha256(f"{said}\n{row.text}".encode()).hexdigest()[:12]
    return replace(
        row,
        id=name,
        seed=name,
        kind="qa",
        stage=Stage.INPUT,
        conversation=tuple(before),
        text=asked.content,
        golden=row.text,
        scenario="as written" if before else "single",
    )


def _whole(row: Row) -> Row | Drop:
    return row if is_whole(row.golden) else Drop("no whole reply")


def _youngest(row: Row, policy: Policy) -> AgeBand | None:
    """Return the youngest band whose reading range and length a reply keeps."""
    fitting = (b for b in AgeBand if not any(reply_problems(row.golden, b, policy=policy)))
    return next(fitting, None)


def _in_range(policy: Policy) -> Step:
    """Return a step that drops replies which no band's golden reply may be like."""
    oldest = list(AgeBand)[-1]

    def step(row: Row) -> Row | Drop:
        if _youngest(row, policy) is not None:
            return row
        reason, _, detail = next(reply_problems(row.golden, oldest, policy=policy)).partition(": ")
        return Drop(reason, detail)

    return step


def _in_bands(rows: Sequence[Row], policy: Policy) -> list[Row]:
    """Return rows with band and age: a third each, the shortest replies for the youngest.

    A band's range is a ceiling, so most short replies fit every band. No reply goes to a band
    younger than the youngest that it fits.
    """
    bands = list(AgeBand)
    order = sorted(rows, key=lambda row: (len(row.golden.split()), row.id))
    left = {row.id: (row, _youngest(row, policy)) for row in order}
    placed: dict[str, Row] = {}
    for at, band in enumerate(bands):
        fitting = [row for row, youngest in left.values() if youngest in bands[: at + 1]]
        # An even part of what is left; the last band takes all of it.
        for row in fitting[: -(-len(left) // (len(bands) - at))]:
            low, high = band.ages
            age = low + int(row.id[1:], 16) % (high - low + 1)
            placed[row.id] = replace(row, band=band, age=age)
            del left[row.id]
    return [placed[row.id] for row in rows]
