"""Cards for the Hub: what was measured, in the form that the Hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kidrails_guard.evals.measures import MEASURES, Summary
from kidrails_guard.evals.plain_words import sentences
from kidrails_guard.evals.store import Outcome


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a card says about a model beside its figures; what is not known is left out."""

    name: str
    base_model: str | None = None
    licence: str | None = None
    language: str = "en"
    description: str = "Measured for children aged 5 to 12, alone and behind a guard."


SMOLLM2: Final = ModelFacts(
    "SmolLM2", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0",
    description="A small chat model for children aged 5 to 12, meant to run behind a guard.",
)  # fmt: skip
"""Of the embedded model and of what is trained from it."""


def model_card(facts: ModelFacts, summaries: Mapping[str, Summary], outcome: Outcome) -> str:
    """Return a model card with the figures as ``model-index``.

    Source: huggingface_hub's model card metadata specification.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="kidrails-evals",
            dataset_name=f"KidRails cases, {target}",
            dataset_config=target,  # without it the Hub puts all targets under one name
            metric_type=measure.key,
            metric_name=measure.title,
            metric_value=round(found.value, 4),
            metric_args={"low95": _round(found.low), "high95": _round(found.high), "n": found.n},
        )
        for target, summary in summaries.items()
        for measure in MEASURES
        if (found := summary.overall[measure.key]).value is not None
    ]
    data = ModelCardData(
        language=facts.language,
        license=facts.licence,
        base_model=facts.base_model,
        tags=["child-safety", "kidrails"],
        model_name=facts.name,
        eval_results=results,
    )
    parts = [f"---\n{data.to_yaml()}\n---", f"# {facts.name}", facts.description]
    for target, summary in summaries.items():
        lines = "\n".join(f"- {line}" for line in sentences(summary))
        parts.append(f"## Measured: {target}\n\n{lines}")
    rests = [f"- {k}: `{v}`" for k, v in outcome.versions.items()]
    for target, is_ in outcome.targets.items():
        rests.append(f"- {target}: " + "; ".join(f"{k} `{v}`" for k, v in is_.items()))
    parts.append(
        "## What this rests on\n\n" + "\n".join([*rests, *(f"- {n}" for n in outcome.notes)])
    )
    parts.append(
        "## Limits\n\nFigures are from this project's own cases and say nothing about other "
        "languages, other ages or longer use. A model for children needs a guard and a grown-up."
    )
    return str(ModelCard("\n\n".join(parts) + "\n").content)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
