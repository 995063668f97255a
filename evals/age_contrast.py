"""Inspect task: the same question at five and at twelve.

inspect eval evals/age_contrast.py --model openai-api/kidrails/<model> -T guarded=true
"""

from inspect_ai import Task, task

from kidrails_guard.evals.inspect_tasks import build_or_say


@task
def age_contrast(guarded: bool = True, limit: int | None = None, seed: int = 0) -> Task:
    return build_or_say("age_contrast", guarded=guarded, limit=limit, seed=seed)
