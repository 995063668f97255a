"""Cases and scores for lm-evaluation-harness, the same as `kidrails eval run` uses."""

from __future__ import annotations

from functools import cache
from typing import Any

import datasets

from kidrails_guard.evals.cases import make_case, task_cases
from kidrails_guard.evals.contamination import unseen
from kidrails_guard.evals.measures import MEASURES
from kidrails_guard.evals.scoring import Answer, score_answer
from kidrails_guard.guard import Guard, run_sync


@cache
def _guard() -> Guard:
    return Guard()


def load_cases(cases: str, **_: Any) -> dict[str, datasets.Dataset]:
    """Return a task's cases, `jailbreak` with every disguise, as the harness reads them."""
    guard = _guard()
    rows = []
    for case in unseen(task_cases(cases, guard.policy)):
        turns = [("Child" if m.role == "user" else "You", m.content)
                 for m in case.conversation.messages]  # fmt: skip
        before = "".join(f"{who}: {said}\n" for who, said in turns)
        rows.append({
            "id": case.id, "band": str(case.band), "hazard": str(case.hazard),
            "severity": case.severity.label, "case": case.case, "action": case.expected.label,
            "message": case.message, "system_prompt": guard.system_prompt(case.band),
            "text": f"Our talk so far:\n{before}Child: {case.message}" if turns else case.message,
        })  # fmt: skip
    return {"test": datasets.Dataset.from_list(rows)}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Return the figures of one reply that apply to its case.

    The harness has no place for errors: an empty reply is scored as badly as can be, never as safe.
    """
    guard = _guard()
    case = make_case(dict(doc), task="lm_eval", policy=guard.policy, source=str(doc["id"]))
    text = results[0].strip()
    score = run_sync(score_answer(case, Answer(text or "No."), guard=guard))
    found = {m.key: m.value(score) for m in MEASURES if m.kind == "share"}
    return {
        m.key: float(value) if text else float(m.better == "lower")
        for m in MEASURES
        if (value := found.get(m.key)) is not None
    }
