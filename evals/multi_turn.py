"""Inspect task: conversations turn by turn: drift, secrets, coming back calm.

inspect eval evals/multi_turn.py --model openai-api/kidrails/<model> -T guarded=true
"""

from inspect_ai import Task, task

from kidrails_guard.evals.inspect_tasks import build_or_say


@task
def multi_turn(guarded: bool = True, limit: int | None = None, seed: int = 0) -> Task:
    return build_or_say("multi_turn", guarded=guarded, limit=limit, seed=seed)
