"""Our cases as Inspect tasks, for people who run and view their evaluations there.

``inspect eval evals/child_safety.py --model openai-api/kidrails/<model>`` with
``KIDRAILS_BASE_URL`` and ``KIDRAILS_API_KEY``; the same cases and scores as `kidrails eval run`.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
)
from inspect_ai.scorer import Metric, SampleScore, Scorer, Target, metric, scorer
from inspect_ai.scorer import Score as InspectScore
from inspect_ai.solver import Generate, Solver, TaskState, solver

from kidrails_guard.errors import DataError
from kidrails_guard.evals.cases import Case, sample, task_cases
from kidrails_guard.evals.contamination import unseen
from kidrails_guard.evals.intervals import mean as mean_of
from kidrails_guard.evals.intervals import share
from kidrails_guard.evals.measures import MEASURES
from kidrails_guard.evals.public import public_cases
from kidrails_guard.evals.scoring import Answer, action_from_words, score_answer
from kidrails_guard.guard import Guard
from kidrails_guard.types import Action

BAND_HEADER = "x-kidrails-band"
_MISSING = math.nan


def build_task(
    name: str,
    *,
    guarded: bool = True,
    built: str = "build/data/eval.jsonl",
    folder: str = "",
    limit: int | None = None,
    seed: int = 0,
) -> Task:
    """Return an Inspect task.

    Args:
        name: one of our tasks, or ``public:<set>``.
        guarded: a KidRails guard answers at the endpoint; without one, the band's system prompt is
            added here, so that both are asked alike.
        built: the held-out golden rows; used where the file is there.
        folder: where public sets lie.
        limit: at most so many cases, spread over hazards and bands.
        seed: of disguises and of the choice.

    Raises:
        DataError: the task is unknown, or a public set is not there (it says how to get it).
    """
    guard = Guard()
    if name.startswith("public:"):
        cases = public_cases(name.removeprefix("public:"), Path(folder or "../shared/datasets"),
                             guard.policy)  # fmt: skip
    else:
        file = Path(built)
        cases = task_cases(name, guard.policy, built=file if file.is_file() else None, seed=seed)
    if not cases:
        raise DataError(f"task {name!r} has no case; run: kidrails data build")
    chosen = sample(unseen(cases), limit, seed=seed)
    return Task(
        dataset=MemoryDataset([_sample(c, guard, guarded) for c in chosen], name=name),
        solver=ask_as_a_child(guarded),
        scorer=judge_free(guard, {c.id: c for c in chosen}),
        config=GenerateConfig(max_tokens=200, temperature=0.0),
        name=name.replace(":", "_"),
        metadata={"policy": guard.policy.digest(), "guarded": guarded},
    )


def build_or_say(name: str, **options: Any) -> Task:
    """Do `build_task`; where a public set is absent, say how to get it and stop."""
    try:
        return build_task(name, **options)
    except DataError as error:
        print(f"skipped, not passed: {error}", file=sys.stderr)
        raise


def _sample(case: Case, guard: Guard, guarded: bool) -> Sample:
    messages: list[ChatMessage] = []
    if not guarded:
        messages.append(ChatMessageSystem(content=guard.system_prompt(case.band)))
    for turn in case.conversation.messages:
        kind = ChatMessageUser if turn.role == "user" else ChatMessageAssistant
        messages.append(kind(content=turn.content))
    messages.append(ChatMessageUser(content=case.message))
    return Sample(
        id=case.id,
        input=messages,
        target=case.expected.label,
        metadata={
            "band": str(case.band),
            "hazard": str(case.hazard),
            "severity": case.severity.label,
            "cluster": case.cluster,
            "variant": case.variant,
        },
    )


@solver  # type: ignore[untyped-decorator]
def ask_as_a_child(guarded: bool) -> Solver:
    """Ask the model; a guard whose operator allows it is told the band in a header."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        if not guarded:
            return await generate(state)
        return await generate(state, extra_headers={BAND_HEADER: state.metadata["band"]})

    return solve


@metric(name="value")  # type: ignore[untyped-decorator]
def estimate() -> Metric:
    """The figure over the samples to which it applies, as `kidrails eval` computes it."""
    return _part("value")


@metric(name="low95")  # type: ignore[untyped-decorator]
def low95() -> Metric:
    """Lower bound of the 95 % interval (Wilson for shares, bootstrap for means)."""
    return _part("low")


@metric(name="high95")  # type: ignore[untyped-decorator]
def high95() -> Metric:
    """Upper bound of the 95 % interval."""
    return _part("high")


def _part(side: str) -> Metric:
    def compute(scores: list[SampleScore]) -> float:
        kept = [
            (value, str((s.sample_metadata or {}).get("cluster", s.sample_id)))
            for s in scores
            if not math.isnan(value := s.score.as_float())
        ]
        values, clusters = [v for v, _ in kept], [c for _, c in kept]
        is_share = all(v in (0.0, 1.0) for v in values)
        found = (
            share([bool(v) for v in values], clusters) if is_share else mean_of(values, clusters)
        )
        part = getattr(found, side)
        return float(part) if part is not None else _MISSING

    return compute


@scorer(metrics={"*": [estimate(), low95(), high95()]})  # type: ignore[untyped-decorator]
def judge_free(guard: Guard, cases: dict[str, Case]) -> Scorer:
    """Score as `kidrails_guard.evals.scoring` does; a measure that does not apply is missing."""

    async def score(state: TaskState, target: Target) -> InspectScore:
        case = cases[str(state.sample_id)]
        text = state.output.completion
        stopped = bool(state.output.choices) and state.output.stop_reason == "content_filter"
        action = action_from_words(text)
        if stopped:
            action = max(action, Action.REDIRECT)
        if not text.strip():
            values: dict[str, float] = {m.key: _MISSING for m in MEASURES}
            return InspectScore(value=values, answer="", explanation="empty reply: an error")
        found = await score_answer(
            case, Answer(text, action=action if stopped else None), guard=guard
        )
        values = {}
        for measure in MEASURES:
            value = measure.value(found)
            values[measure.key] = _MISSING if value is None else float(value)
        return InspectScore(
            value=values,
            answer=found.action.label,
            explanation=f"expected {case.expected.label}, did {found.action.label}"
            + (f"; defects: {', '.join(found.defects)}" if found.defects else ""),
        )

    return score
