"""`kidrails data validate`: everything that can be said about golden rows without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kidrails_guard.golden.read import (
    Placed,
    Problem,
    golden_files,
    read_golden,
)
from kidrails_guard.golden.replies import form_problems, reply_problems
from kidrails_guard.golden.rows import Drop, from_golden
from kidrails_guard.golden.steps import cases_for, check_labels
from kidrails_guard.golden.textform import fold
from kidrails_guard.policy import Policy, load_policy
from kidrails_guard.types import CASES, Stage


@dataclass(frozen=True, slots=True)
class Report:
    """What validation found.

    Attributes:
        rows: rows that could be read.
        problems: in the order of file and line.
    """

    rows: int
    problems: tuple[Problem, ...]


def validate(files: Sequence[Path] | None = None, *, policy: Policy | None = None) -> Report:
    """Check files of golden rows.

    Args:
        files: those that ship when absent.
        policy: whose actions and reading targets hold; the default policy when absent.

    Raises:
        DataError: there is no file.
    """
    policy = policy or load_policy()
    problems: list[Problem] = []
    placed: list[Placed] = []
    for path in files or golden_files():
        placed += read_golden(path, problems)
    ids: dict[str, str] = {}
    messages: dict[tuple[str, str], str] = {}
    for item in placed:
        problems += _row_problems(item, policy)
        here = f"{item.file.name}:{item.line}"
        older = ids.setdefault(item.row.content_id, here)
        if older != here:
            problems.append(_problem(item, "id", f"the same row stands at {older}; delete one"))
        key = (item.row.band, fold(item.row.message))
        if not item.row.conversation:
            older = messages.setdefault(key, here)
            if older != here and ids[item.row.content_id] == here:
                text = f"the same message in this band stands at {older}; change or delete one"
                problems.append(_problem(item, "message", text))
    problems.sort(key=lambda p: (p.file, p.line, p.key))
    return Report(len(placed), tuple(problems))


def _problem(item: Placed, key: str, message: str) -> Problem:
    return Problem(str(item.file), item.line, key, message)


def _row_problems(item: Placed, policy: Policy) -> list[Problem]:
    row, problems = item.row, []
    for text in reply_problems(row.golden, row.band, policy=policy):
        problems.append(_problem(item, "golden", text))
    for key in ("message", "unsafe"):
        for text in form_problems(getattr(row, key)):
            problems.append(_problem(item, key, text))
    flowing = from_golden(row)
    result = check_labels(policy)(flowing)
    if isinstance(result, Drop) and "case" in result.reason:
        cases = ", ".join(filter(None, cases_for(flowing, policy))) or "none"
        text = f"{row.case!r}: {result.reason}; accepted for {row.hazard}: {cases}"
        problems.append(_problem(item, "case", text))
    elif isinstance(result, Drop):
        possible = {
            policy.action(row.hazard, row.severity, band=row.band, stage=Stage.INPUT, case=case)
            for case in ("", *CASES.get(row.hazard, ()))
        }
        accepted = ", ".join(action.label for action in sorted(possible))
        text = (
            f"{row.action.label!r} with hazard {row.hazard}, band {row.band}, severity "
            f"{row.severity.label}; the policy's: {accepted}"
        )
        problems.append(_problem(item, "action", text))
    return problems
