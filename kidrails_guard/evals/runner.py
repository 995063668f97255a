"""Runs cases against an endpoint and keeps every answer, so that a kill costs nothing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from kidrails_guard.errors import DataError
from kidrails_guard.evals.cases import Case
from kidrails_guard.evals.endpoint import RETRY_SECONDS, Endpoint, ask, request_body
from kidrails_guard.evals.scoring import Answer, Score, score_answer
from kidrails_guard.files import sha256_text
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


def _key(case: Case, endpoint: Endpoint, digest: str) -> tuple[str, str]:
    """Return the case and a digest of what is asked and of whom.

    A changed case, model or guard is asked anew; one that two runs share is asked once.
    """
    body = json.dumps(request_body(case, endpoint), sort_keys=True)
    return f"{case.task}|{case.id}", sha256_text(f"{digest}|{case.band}|{body}")[:16]


def load_answers_file(path: Path) -> dict[tuple[str, str], Answer]:
    """Return the answers kept so far by key and by what was asked; errors are left out.

    A half last line, from a kill in the middle of writing, is cut off.

    Raises:
        DataError: a line is no answer; names file and line.
    """
    if not path.exists():
        return {}
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
        data = data[: data.rfind(b"\n") + 1]
    kept: dict[tuple[str, str], Answer] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            row = json.loads(line)
            action = row.pop("action")
            key = row.pop("key"), row.pop("asked")
            answer = Answer(action=None if action is None else Action.parse(action), **row)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: not an answer of this evaluation ({type(error).__name__}); move "
                "the file away to start anew"
            ) from None
        if not answer.error:
            kept[key] = answer
    return kept


def count_kept(cases: Sequence[Case], endpoint: Endpoint, *, work: Path, digest: str = "") -> int:
    """Return how many of the cases `run_cases` would not ask again, for the folder has answers."""
    kept = load_answers_file(work / ANSWERS)
    return sum(_key(case, endpoint, digest) in kept for case in cases)


async def run_cases(
    cases: Sequence[Case],
    endpoint: Endpoint,
    *,
    work: Path,
    guard: Guard,
    digest: str = "",
    concurrency: int = 2,
    retry_seconds: Sequence[float] = RETRY_SECONDS,
    transport: httpx.AsyncBaseTransport | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Ask every case that has no answer yet, keep the answers, score all.

    Args:
        cases: what to ask.
        endpoint: where.
        work: folder; answers are appended to ``answers.jsonl`` in it as they come.
        guard: for scoring.
        digest: of what stands at the endpoint; answers that another one gave are not taken over.
        concurrency: requests at a time.
        retry_seconds: waits between tries.
        transport: for tests.
        progress: told done and total.

    Returns:
        One result a case, in the order of the cases.
    """
    work.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # before anything is under way
    path = work / ANSWERS
    kept = load_answers_file(path)
    keys = [_key(case, endpoint, digest) for case in cases]
    todo = [(case, key) for case, key in zip(cases, keys, strict=True) if key not in kept]
    # One band after the other: a server that keeps the last prompt need not read it again.
    todo.sort(key=lambda pair: pair[0].band.ages)
    done = len(cases) - len(todo)
    limit = asyncio.Semaphore(concurrency)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    fresh: dict[tuple[str, str], Answer] = {}
    try:
        async with httpx.AsyncClient(
            transport=transport,
            timeout=endpoint.timeout_s,
            trust_env=False,
            # llama.cpp closes a connection after a stream; one that is kept may be dead.
            limits=httpx.Limits(max_keepalive_connections=0),
        ) as client:

            async def one(case: Case, key: tuple[str, str]) -> None:
                nonlocal done
                async with limit:
                    answer = await ask(client, case, endpoint, retry_seconds=retry_seconds)
                fresh[key] = answer
                os.write(descriptor, (_line(key, answer) + "\n").encode("utf-8"))
                done += 1
                if progress is not None:
                    progress(done, len(cases))

            if progress is not None:
                progress(done, len(cases))
            async with asyncio.TaskGroup() as group:
                for case, key in todo:
                    group.create_task(one(case, key))
    finally:
        os.close(descriptor)
    results = []
    for case, key in zip(cases, keys, strict=True):
        answer = kept.get(key) or fresh[key]
        score = None if answer.error else await score_answer(case, answer, guard=guard)
        results.append(Result(case, answer, score))
    return results


def _line(key: tuple[str, str], answer: Answer) -> str:
    row: dict[str, Any] = asdict(answer)
    row["action"] = None if answer.action is None else answer.action.label
    return json.dumps({"key": key[0], "asked": key[1]} | row, ensure_ascii=True)


def bar(label: str) -> Progress:
    """Return a progress bar on stderr; without a terminal, a line every tenth of the way."""
    from tqdm import tqdm

    shown = sys.stderr.isatty()
    line = tqdm(desc=label, unit="case", file=sys.stderr, disable=not shown)
    last = -1

    def show(done: int, total: int) -> None:
        nonlocal last
        if shown:
            line.total = total
            line.update(done - line.n)
            if done == total:
                line.close()
        elif (tenth := 10 * done // max(1, total)) > last:
            last = tenth
            print(f"{label}: {done} of {total} cases", file=sys.stderr, flush=True)

    return show
