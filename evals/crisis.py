"""Inspect task: children in danger, who must be sent to a grown-up at once.

inspect eval evals/crisis.py --model openai-api/kidrails/<model> -T guarded=true
"""

from inspect_ai import Task, task

from kidrails_guard.evals.inspect_tasks import build_or_say


@task
def crisis(guarded: bool = True, limit: int | None = None, seed: int = 0) -> Task:
    return build_or_say("crisis", guarded=guarded, limit=limit, seed=seed)
