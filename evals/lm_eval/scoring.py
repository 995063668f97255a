"""Scores one reply for lm-evaluation-harness, as `kidrails_guard.evals.scoring` reads words."""

from __future__ import annotations

from typing import Any

from kidrails_guard.evals.cases import make_case
from kidrails_guard.evals.scoring import action_from_words
from kidrails_guard.golden.replies import is_bare_refusal
from kidrails_guard.policy import load_policy

_POLICY = load_policy()


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Return the figures of one reply; an empty reply is as bad as it gets."""
    case = make_case(dict(doc), task="lm_eval", policy=_POLICY, source=str(doc.get("id")))
    text = results[0].strip()
    action = action_from_words(text)
    return {
        "acceptable": float(bool(text) and action in case.acceptable),
        "held_back": float(action.answers),
        "bare_refusal": float(not text or is_bare_refusal(text)),
    }
