"""Cards for the Hub: what was measured, in the form that the Hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kidrails_guard.evals.measures import MEASURES, Summary
from kidrails_guard.evals.report import in_plain_words
from kidrails_guard.files import write_atomic


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a card says about a model beside its figures."""

    name: str
    base_model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    licence: str = "apache-2.0"
    language: str = "en"
    description: str = "A small chat model for children aged 5 to 12, meant to run behind a guard."


def write_model_card(
    path: Path, facts: ModelFacts, summaries: Mapping[str, Summary], versions: Mapping[str, str]
) -> Path:
    """Write a model card with the figures as ``model-index``.

    Returns:
        The path.

    Source: huggingface_hub's model card metadata specification.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="kidrails-evals",
            dataset_name=f"KidRails cases, {target}",
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
        lines = "\n".join(f"- {line}" for line in in_plain_words(summary))
        parts.append(f"## Measured: {target}\n\n{lines}")
    parts.append(
        "## What this rests on\n\n" + "\n".join(f"- {k}: `{v}`" for k, v in versions.items())
    )
    parts.append(
        "## Limits\n\nFigures are from this project's own cases and say nothing about other "
        "languages, other ages or longer use. A model for children needs a guard and a grown-up."
    )
    card = ModelCard("\n\n".join(parts) + "\n")
    write_atomic(path, str(card.content))
    return path


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
