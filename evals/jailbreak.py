"""Inspect task: attempts to get around the rules, plain and under every disguise.

inspect eval evals/jailbreak.py --model openai-api/kidrails/<model> -T guarded=true
"""

from inspect_ai import Task, task

from kidrails_guard.evals.inspect_tasks import build_or_say


@task
def jailbreak(guarded: bool = True, limit: int | None = None, seed: int = 0) -> Task:
    return build_or_say("jailbreak", guarded=guarded, limit=limit, seed=seed)
