"""`kidrails data generate`: new conversations from golden rows, by a model or offline.

A journal takes every finished job before the next one counts, so a kill at any moment loses at
most the requests in flight, and those are in the cache once they were answered. The final file is
written from the journal in the order of the jobs, so it is the same whatever happened on the way.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import DataError
from kidrails_guard.files import dump_json, write_atomic
from kidrails_guard.golden.asking import Asker, BudgetSpent
from kidrails_guard.golden.compose import Job, OfflineTeacher
from kidrails_guard.golden.gate import Gate
from kidrails_guard.golden.generated import from_record, generated_record
from kidrails_guard.golden.prompting import Prompts, read_answer
from kidrails_guard.golden.rows import Drop, Row
from kidrails_guard.golden.steps import drop_copies, drop_near_copies
from kidrails_guard.golden.teachers import TeacherRejects, TeacherUnavailable

_UNAVAILABLE_IN_A_ROW: Final = 5
"""After so many jobs in a row without an answer the run stops: the teacher is gone."""


Answerer = Callable[[Job], Awaitable[Row | Drop]]
"""A coroutine function from a job to its row, or to a `Drop`."""


def offline(teacher: OfflineTeacher) -> Answerer:
    """Return the offline teacher as one that can be awaited."""

    async def answer(job: Job) -> Row | Drop:
        return teacher.answer(job)

    return answer


def by_model(asker: Asker, prompts: Prompts) -> Answerer:
    """Return a model as a teacher; nonsense is asked for once more, then the job is dropped."""

    async def answer(job: Job) -> Row | Drop:
        chat = prompts.chat(job)
        result: Row | Drop = Drop("teacher: empty")
        for attempt in range(asker.patience.usable):
            found = await asker.ask(chat, attempt=attempt)
            if found.nonsense:
                result = Drop(f"teacher: {found.nonsense}")
                continue
            result = read_answer(job, found.text, asker.teacher.name)
            if isinstance(result, Row):
                return result
        return result

    return answer


@dataclass(slots=True)
class _Journal:
    """Finished jobs on disk, one line each."""

    path: Path
    run: str
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    def open(self) -> None:
        """Read what earlier runs finished; cut off a half line that a kill left.

        Raises:
            DataError: the journal is damaged, or belongs to other rows, another teacher or another
                seed.
        """
        if not self.path.exists():
            write_atomic(self.path, json.dumps({"run": self.run}) + "\n")
            return
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if whole != raw:
            write_atomic(self.path, whole)
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            done = {line["job"]: line for line in lines[1:]}
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{self.path}: is damaged; delete it to start anew (answers in --cache are not "
                "paid for again), or choose another --out"
            ) from None
        if not lines or lines[0] != {"run": self.run}:
            raise DataError(
                f"{self.path}: belongs to another run (other rows, teacher, prompts, seed or "
                "--per-row); delete it to start anew, or choose another --out"
            )
        self.done = done

    def add(self, record: dict[str, Any]) -> None:
        """Append one finished job."""
        self.done[record["job"]] = record
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")


@dataclass(frozen=True, slots=True)
class GenerateResult:
    """How a run ended.

    Attributes:
        rows: rows in the final file.
        jobs: all jobs; `finished` of them are done.
        finished: jobs with a row or a reason.
        reasons: why jobs gave no row, with how often.
        stopped: empty when all jobs are done, else why not.
        resumed: jobs that an earlier run had finished.
    """

    rows: int
    jobs: int
    finished: int
    reasons: dict[str, int]
    stopped: str
    resumed: int


async def generate(
    jobs: Sequence[Job],
    answer: Answerer,
    gate: Gate,
    *,
    out: Path,
    fingerprint: Mapping[str, Any],
    concurrency: int = 8,
    progress: Callable[[int], None] = lambda done: None,
) -> GenerateResult:
    """Do jobs, resume what was begun, and write the final file.

    Args:
        jobs: in the order of the final file; ids unique.
        answer: the teacher.
        gate: judges every row.
        out: the final file; the journal and the rejected rows lie beside it.
        fingerprint: what makes this run this run: seed, teacher, prompts.
        concurrency: jobs at once.
        progress: told how many jobs are done.

    Raises:
        DataError: the journal beside ``out`` belongs to another run.
        TeacherRejects: the teacher will never take these requests; finished jobs are kept.
    """
    names = [[job.id, job.persona.id, job.scenario, job.row.text] for job in jobs]
    run = hashlib.sha256(
        json.dumps([names, dict(sorted(fingerprint.items()))], ensure_ascii=False).encode()
    ).hexdigest()
    journal = _Journal(out.with_name(out.name + ".journal"), run)
    journal.open()
    resumed = len(journal.done)
    waiting = iter([job for job in jobs if job.id not in journal.done])
    state = _State()

    async def work() -> None:
        for job in waiting:
            if state.stopped:
                return
            try:
                result = await answer(job)
            except BudgetSpent:
                state.stopped = "budget"
                return
            except TeacherRejects as error:
                state.rejected, state.stopped = error, "rejected"
                return
            except TeacherUnavailable as error:
                state.missed(str(error))
                continue
            state.in_a_row = 0
            if isinstance(result, Row):
                result = await gate.judge(result, job.row)
            journal.add(_record(job, result))
            progress(len(journal.done))

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, concurrency)):
            group.create_task(work())
    stopped = state.stopped or (f"unavailable: {state.last}" if state.unanswered else "")
    result = _finish(jobs, journal, out, resumed=resumed, stopped=stopped)
    if state.rejected is not None:
        raise state.rejected
    return result


@dataclass(slots=True)
class _State:
    stopped: str = ""
    rejected: TeacherRejects | None = None
    unanswered: int = 0
    in_a_row: int = 0
    last: str = ""

    def missed(self, reason: str) -> None:
        self.unanswered += 1
        self.in_a_row += 1
        self.last = reason
        if self.in_a_row >= _UNAVAILABLE_IN_A_ROW:
            self.stopped = f"unavailable: {reason}"


def _finish(
    jobs: Sequence[Job], journal: _Journal, out: Path, *, resumed: int, stopped: str
) -> GenerateResult:
    """Write the final files from the journal, in the order of the jobs."""
    reasons: Counter[str] = Counter()
    lines: list[str] = []
    rejected: list[str] = []
    copies, near = drop_copies(), drop_near_copies()
    for seed in {job.row.id: job.row for job in jobs}.values():
        copies(seed)
        near(seed)
    for job in jobs:
        record = journal.done.get(job.id)
        if record is None:
            continue
        result = _result(job, record)
        for step in (copies, near):
            if isinstance(result, Row):
                result = step(result)
        if isinstance(result, Row):
            lines.append(json.dumps(generated_record(result), ensure_ascii=False))
        else:
            reasons[result.reason] += 1
            value = {"id": job.id, "seed": job.row.id, "reason": result.reason}
            rejected.append(json.dumps(value | {"detail": result.detail}, ensure_ascii=False))
    write_atomic(out, "".join(f"{line}\n" for line in lines))
    write_atomic(out.with_name(out.name + ".rejected"), "".join(f"{line}\n" for line in rejected))
    summary = GenerateResult(
        len(lines), len(jobs), len(journal.done), dict(sorted(reasons.items())), stopped, resumed
    )
    dump_json(
        out.with_name(out.name + ".manifest"),
        {
            "rows": summary.rows,
            "jobs": summary.jobs,
            "finished": summary.finished,
            "reasons": summary.reasons,
            "stopped": summary.stopped,
            "run": journal.run,
        },
    )
    return summary


def _record(job: Job, result: Row | Drop) -> dict[str, Any]:
    if isinstance(result, Drop):
        return {"job": job.id, "reason": result.reason, "detail": result.detail}
    return {"job": job.id, "row": generated_record(result)}


def _result(job: Job, record: Mapping[str, Any]) -> Row | Drop:
    if "row" in record:
        return from_record(record["row"], job.row)
    return Drop(record["reason"], record["detail"])
