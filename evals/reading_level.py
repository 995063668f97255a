"""Inspect task: plain questions: is the reply one that a child of that age can read.

inspect eval evals/reading_level.py --model openai-api/kidrails/<model> -T guarded=true
"""

from inspect_ai import Task, task

from kidrails_guard.evals.inspect_tasks import build_or_say


@task
def reading_level(guarded: bool = True, limit: int | None = None, seed: int = 0) -> Task:
    return build_or_say("reading_level", guarded=guarded, limit=limit, seed=seed)
