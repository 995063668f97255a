"""What flows through the pipeline: rows, steps, and the count of what each step did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from kidrails_guard.golden.schema import GoldenQA, LabelledText, Method, Split, Turn
from kidrails_guard.types import About, Action, AgeBand, Hazard, Severity, Stage

WRITTEN_HERE: Final = "written for this project"


@dataclass(frozen=True, slots=True)
class Row:
    """One example on its way to the exports.

    Attributes:
        id: unique in the build.
        seed: the id of the hand-written row that it comes from; its own id when it is that row.
        kind: a question with its replies, or a text with its label.
        stage: whose words ``text`` are.
        hazards: the deciding one first.
        conversation: the turns before ``text``.
        text: the child's message, or the text that the guard looks at.
        golden: the reply a child should get (kind ``qa``).
        unsafe: the reply it should not get (kind ``qa``).
        action: what the default policy does with the message (kind ``qa``).
        group: rows of one group stand on one side of every split.
        persona: the child user model that speaks, if any.
        scenario: how the conversation was put together.
        moves: what the teacher changed.
    """

    id: str
    seed: str
    kind: Literal["qa", "text"]
    stage: Stage
    hazards: tuple[Hazard, ...]
    severity: Severity
    about: About
    conversation: tuple[Turn, ...]
    text: str = field(repr=False)
    case: str = ""
    golden: str = field(default="", repr=False)
    unsafe: str = field(default="", repr=False)
    unsafe_reason: str = ""
    action: Action | None = None
    band: AgeBand | None = None
    age: int | None = None
    group: str = ""
    split: Split | None = None
    persona: str = ""
    scenario: str = "single"
    moves: tuple[str, ...] = ()
    method: Method = "written"
    source: str = WRITTEN_HERE
    licence: str = "MIT"
    place: str = ""

    @property
    def said(self) -> str:
        """Everything the child says here: what near-copies and overlaps are looked for in.

        Replies stay out: two rows with one reply are no copies of each other.
        """
        turns = [turn.content for turn in self.conversation if turn.role == "user"]
        return "\n".join([*turns, self.text])

    @property
    def in_context(self) -> str:
        """The text after the turns before it, whoever spoke them."""
        return "\n".join([*(turn.content for turn in self.conversation), self.text])

    @property
    def label(self) -> str:
        """What a classifier would learn from the row; two labels of one text contradict."""
        parts = [self.stage, "+".join(self.hazards), self.severity.label, self.about, self.case]
        return " ".join(map(str, parts))


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that a step rejects, with the reason: one of few words, then perhaps a detail."""

    reason: str
    detail: str = ""


Step = Callable[[Row], Row | Drop]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that did not come through, where, and why."""

    row: Row
    step: str
    drop: Drop


@dataclass(frozen=True, slots=True)
class StepCount:
    """What one step did: rows in, rows out, and how often each reason."""

    step: str
    rows_in: int
    rows_out: int
    reasons: dict[str, int]


def run_steps(
    rows: Iterable[Row], steps: Sequence[tuple[str, Step]]
) -> tuple[list[Row], list[StepCount], list[Rejected]]:
    """Send rows through steps, one step after the other.

    Args:
        rows: in the order in which they count: the first of two copies is kept.
        steps: name and function; a step may remember the rows it has seen.

    Returns:
        The rows that came through in their order, a count a step, and what was rejected.
    """
    current = list(rows)
    counts: list[StepCount] = []
    rejected: list[Rejected] = []
    for name, step in steps:
        kept: list[Row] = []
        reasons: Counter[str] = Counter()
        for row in current:
            result = step(row)
            if isinstance(result, Drop):
                reasons[result.reason] += 1
                rejected.append(Rejected(row, name, result))
            else:
                kept.append(result)
        counts.append(StepCount(name, len(current), len(kept), dict(sorted(reasons.items()))))
        current = kept
    return current, counts, rejected


def from_golden(row: GoldenQA, *, place: str = "") -> Row:
    """Return a golden row as it flows through the pipeline."""
    return Row(
        id=row.content_id,
        seed=row.content_id,
        kind="qa",
        stage=Stage.INPUT,
        hazards=(row.hazard,),
        severity=row.severity,
        about=row.about,
        case=row.case,
        conversation=row.conversation,
        text=row.message,
        golden=row.golden,
        unsafe=row.unsafe,
        unsafe_reason=row.unsafe_reason,
        action=row.action,
        band=row.band,
        age=row.age,
        split=row.split,
        method=row.provenance.method,
        source=row.provenance.source,
        licence=row.provenance.licence,
        place=place,
    )


def from_labelled(row: LabelledText, *, name: str, place: str = "") -> Row:
    """Return a labelled text as it flows through the pipeline."""
    return Row(
        id=name,
        seed=name,
        kind="text",
        stage=Stage(row.stage),
        hazards=row.hazards,
        severity=row.severity,
        about=row.about,
        case=row.case,
        conversation=row.conversation,
        text=row.text,
        place=place,
    )
