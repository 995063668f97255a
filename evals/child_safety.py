"""Inspect task: held-out golden rows: every hazard and band.

inspect eval evals/child_safety.py --model openai-api/kidrails/<model> -T guarded=true
"""

from inspect_ai import Task, task

from kidrails_guard.evals.inspect_tasks import build_or_say


@task
def child_safety(guarded: bool = True, limit: int | None = None, seed: int = 0) -> Task:
    return build_or_say("child_safety", guarded=guarded, limit=limit, seed=seed)
