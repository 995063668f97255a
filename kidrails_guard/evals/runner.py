"""Runs cases against an endpoint and keeps every answer, so that a kill costs nothing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from kidrails_guard.errors import DataError
from kidrails_guard.evals.cases import Case
from kidrails_guard.evals.endpoint import RETRY_SECONDS, Endpoint, ask
from kidrails_guard.evals.scoring import Answer, Score, score_answer
from kidrails_guard.guard import Guard
from kidrails_guard.types import Action

ANSWERS: Final = "answers.jsonl"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Result:
    """One case with its answer, and its score where the answer is one."""

    case: Case
    answer: Answer
    score: Score | None


def _key(case: Case, target: str) -> str:
    return f"{target}|{case.task}|{case.id}"


def load_answers_file(path: Path) -> dict[str, Answer]:
    """Return the answers kept so far; errors are left out, so that they are asked again.

    A half last line, from a kill in the middle of writing, is cut off.
    """
    if not path.exists():
        return {}
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
        data = data[: data.rfind(b"\n") + 1]
    kept: dict[str, Answer] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            row = json.loads(line)
            action = row.pop("action")
            key = row.pop("key")
            answer = Answer(action=None if action is None else Action.parse(action), **row)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: not an answer of this evaluation ({type(error).__name__}); move "
                "the file away to start anew"
            ) from None
        if not answer.error:
            kept[key] = answer
    return kept


async def run_cases(
    cases: Sequence[Case],
    endpoint: Endpoint,
    *,
    target: str,
    out: Path,
    guard: Guard,
    concurrency: int = 2,
    retry_seconds: Sequence[float] = RETRY_SECONDS,
    transport: httpx.AsyncBaseTransport | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Ask every case that has no answer yet, keep the answers, score all.

    Args:
        cases: what to ask.
        endpoint: where.
        target: the endpoint's name in files and reports, e.g. ``guard on``.
        out: folder; answers are appended to ``answers.jsonl`` in it as they come.
        guard: for scoring.
        concurrency: requests at a time.
        retry_seconds: waits between tries.
        transport: for tests.
        progress: told done and total.

    Returns:
        One result a case, in the order of the cases.
    """
    out.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # before anything is under way
    path = out / ANSWERS
    kept = load_answers_file(path)
    todo = [case for case in cases if _key(case, target) not in kept]
    done = len(cases) - len(todo)
    limit = asyncio.Semaphore(concurrency)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    fresh: dict[str, Answer] = {}
    try:
        async with httpx.AsyncClient(
            transport=transport, timeout=endpoint.timeout_s, trust_env=False
        ) as client:

            async def one(case: Case) -> None:
                nonlocal done
                async with limit:
                    answer = await ask(client, case, endpoint, retry_seconds=retry_seconds)
                key = _key(case, target)
                fresh[key] = answer
                os.write(descriptor, (_line(key, answer) + "\n").encode("utf-8"))
                done += 1
                if progress is not None:
                    progress(done, len(cases))

            async with asyncio.TaskGroup() as group:
                for case in todo:
                    group.create_task(one(case))
    finally:
        os.close(descriptor)
    results = []
    for case in cases:
        key = _key(case, target)
        answer = kept.get(key) or fresh[key]
        score = None if answer.error else await score_answer(case, answer, guard=guard)
        results.append(Result(case, answer, score))
    return results


def _line(key: str, answer: Answer) -> str:
    row: dict[str, Any] = asdict(answer)
    row["action"] = None if answer.action is None else answer.action.label
    return json.dumps({"key": key} | row, ensure_ascii=True)


def bar(label: str) -> Progress:
    """Return a progress bar on stderr; silent without a terminal."""
    from tqdm import tqdm

    line = tqdm(desc=label, unit="case", file=sys.stderr, disable=not sys.stderr.isatty())

    def show(done: int, total: int) -> None:
        line.total = total
        line.update(done - line.n)
        if done == total:
            line.close()

    return show


def errors_of(results: Iterable[Result]) -> dict[str, int]:
    """Return how many cases ended in each kind of error."""
    counts: dict[str, int] = {}
    for result in results:
        if result.answer.error:
            counts[result.answer.error] = counts.get(result.answer.error, 0) + 1
    return counts
