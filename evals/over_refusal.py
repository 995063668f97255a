"""Inspect task: harmless questions that look risky, and must be answered.

inspect eval evals/over_refusal.py --model openai-api/kidrails/<model> -T guarded=true
"""

from inspect_ai import Task, task

from kidrails_guard.evals.inspect_tasks import build_or_say


@task
def over_refusal(guarded: bool = True, limit: int | None = None, seed: int = 0) -> Task:
    return build_or_say("over_refusal", guarded=guarded, limit=limit, seed=seed)
