"""Inspect task: a public benchmark from a folder of yours (``data/sources.yaml`` lists them).

inspect eval evals/public.py --model openai-api/kidrails/<model> -T name=xstest -T folder=DIR
"""

from inspect_ai import Task, task

from kidrails_guard.evals.inspect_tasks import build_or_say


@task
def public(name: str, folder: str, guarded: bool = True, limit: int | None = None) -> Task:
    return build_or_say(f"public:{name}", folder=folder, guarded=guarded, limit=limit)
