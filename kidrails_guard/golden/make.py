"""Makes rows with the offline teacher, and keeps the ledger of what every step did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from kidrails_guard.golden.compose import Job, OfflineTeacher, plan_jobs
from kidrails_guard.golden.gate import Gate
from kidrails_guard.golden.personas import Persona
from kidrails_guard.golden.rows import Drop, Rejected, Row, Step, StepCount, run_steps
from kidrails_guard.golden.steps import drop_copies, drop_near_copies
from kidrails_guard.guard import run_sync
from kidrails_guard.types import Stage

Progress = Callable[[str, int], None]

MAX_ATTEMPTS: Final = 4
"""Jobs tried for one wanted row: the gate and the search for near-copies reject some."""


@dataclass(slots=True)
class Ledger:
    """What the manifest will say about steps, and the rejected rows."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def run(self, part: str, rows: Iterable[Row], steps: Sequence[tuple[str, Step]]) -> list[Row]:
        """Send rows through steps, note what each did, and return those that came through."""
        kept, counts, rejected = run_steps(rows, steps)
        self.note(part, counts, rejected)
        return kept

    def note(self, part: str, counts: Iterable[StepCount], rejected: Iterable[Rejected]) -> None:
        """Note what steps did."""
        self.steps += [{"part": part, **asdict(count)} for count in counts]
        self.rejected += rejected

    def lose(self, part: str, step: str, lost: Sequence[Row], left: int, drop: Drop) -> None:
        """Note a step that looked at all rows together, lost some and left others."""
        reasons = {drop.reason: len(lost)} if lost else {}
        count = StepCount(step, left + len(lost), left, reasons)
        self.note(part, [count], [Rejected(row, step, drop) for row in lost])


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes rows with the offline teacher until each seed has its share.

    Attributes:
        screens: what keeps made rows apart from evaluation sets.
    """

    teacher: OfflineTeacher
    gate: Gate
    screens: tuple[tuple[str, Step], ...]
    ledger: Ledger
    seed: int
    progress: Progress

    def make(
        self, part: str, rows: Sequence[Row], personas: Sequence[Persona], *, per_row: int
    ) -> list[Row]:
        """Return up to ``per_row`` rows for every row of the training sides."""
        return run_sync(self._make(part, rows, personas, per_row=per_row))

    async def _make(
        self, part: str, rows: Sequence[Row], personas: Sequence[Persona], *, per_row: int
    ) -> list[Row]:
        kept: list[Row] = []
        have: Counter[str] = Counter()
        reasons: dict[str, Counter[str]] = {}
        tried = 0
        # Exact copies are cheap to see, so the guard is not asked about them.
        steps: tuple[tuple[str, Step | None], ...] = (
            ("exact copies", drop_copies()),
            ("gate", None),
            ("near-copies", _near_seeds(rows)),
            *self.screens,
        )
        order = ("teacher", *(name for name, _ in steps))
        for job in plan_jobs(rows, personas, per_row=per_row * MAX_ATTEMPTS, seed=self.seed):
            if have[job.row.id] >= per_row or (
                job.row.stage is Stage.OUTPUT and job.row.kind == "text"
            ):
                continue
            tried += 1
            name, result = await self._judge(job, steps)
            if isinstance(result, Drop):
                reasons.setdefault(name, Counter())[result.reason] += 1
                self.ledger.rejected.append(Rejected(job.row, f"{part}: {name}", result))
                continue
            have[job.row.id] += 1
            kept.append(result)
            if not len(kept) % 500:
                self.progress(part, len(kept))
        current = tried
        for name in order:
            lost = reasons.get(name, Counter())
            after = current - sum(lost.values())
            count = StepCount(name, current, after, dict(sorted(lost.items())))
            self.ledger.note(part, [count], [])
            current = after
        return kept

    async def _judge(
        self, job: Job, steps: Sequence[tuple[str, Step | None]]
    ) -> tuple[str, Row | Drop]:
        """Return the last step that looked at a job's row, with the row or why it was dropped."""
        last, result = "teacher", self.teacher.answer(job)
        for name, step in steps:
            if isinstance(result, Drop):
                break
            last = name
            result = step(result) if step else await self.gate.judge(result, job.row)
        return last, result


def _near_seeds(rows: Sequence[Row]) -> Step:
    """Return the search for near-copies, which already knows the rows that others are made from."""
    step = drop_near_copies()
    for row in rows:
        step(row)
    return step
