"""Puts a run of `kidrails data generate` together: which rows, which teacher, what it may cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kidrails_guard.content import content_path
from kidrails_guard.errors import UsageError
from kidrails_guard.files import sha256_file
from kidrails_guard.golden.asking import Asker, Budget, Cache, Patience
from kidrails_guard.golden.compose import OfflineTeacher, plan_jobs
from kidrails_guard.golden.gate import Depth, Gate, build_guard
from kidrails_guard.golden.generate import (
    Answerer,
    GenerateResult,
    by_model,
    generate,
    offline,
)
from kidrails_guard.golden.personas import Persona, balance, sample_personas
from kidrails_guard.golden.prompting import Prompts
from kidrails_guard.golden.read import golden_files, read_all, read_golden
from kidrails_guard.golden.rows import Row, from_golden
from kidrails_guard.golden.splits import split_golden
from kidrails_guard.golden.teachers import HttpTeacher, LiteLLMTeacher, ModelTeacher, Price
from kidrails_guard.golden.upstream import read_upstream_pool
from kidrails_guard.golden.wording import PARAPHRASE
from kidrails_guard.types import Hazard


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """What `kidrails data generate` may be told; see its ``--help``."""

    out: Path
    base_url: str | None = None
    litellm: str | None = None
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    temperature: float = 0.9
    max_tokens: int = 700
    budget_tokens: int | None = None
    budget_usd: float | None = None
    price: Sequence[float] | None = None
    concurrency: int = 8
    attempts: int = 6
    wait_s: float = 1.0
    cache: Path | None = None
    seed: int = 7
    per_row: int = 2
    personas: int = 400
    profiles: Sequence[Path] | None = None
    hazard: Sequence[str] | None = None
    gate: Depth = "rules"


def chosen_rows(hazards: Sequence[str] | None) -> list[Row]:
    """Return the golden rows that may be written anew, with their split.

    Raises:
        UsageError: a hazard is unknown.
    """
    unknown = sorted(set(hazards or ()) - set(Hazard))
    if unknown:
        raise UsageError(f"--hazard {unknown[0]}: unknown; accepted: {', '.join(Hazard)}")
    placed = read_all(golden_files(), read_golden)
    rows = split_golden([from_golden(p.row, place=f"{p.file.name}:{p.line}") for p in placed])
    return [row for row in rows if not hazards or row.hazards[0] in hazards]


def chosen_personas(options: GenerateOptions) -> tuple[Persona, ...]:
    """Return the personas: our own, or upstream's, with every age equally often."""
    if options.profiles is None:
        return sample_personas(options.personas, seed=options.seed)
    pool = read_upstream_pool(*options.profiles, seed=options.seed)
    return balance(pool.personas, options.personas, seed=options.seed)


def _model_teacher(options: GenerateOptions) -> ModelTeacher | None:
    """Return the teacher that is asked for; none is the offline one.

    Raises:
        UsageError: a budget in dollars could never be spent.
    """
    if options.litellm:
        teacher = LiteLLMTeacher(options.litellm, temperature=options.temperature)
        if options.budget_usd is not None and not teacher.priced:
            raise UsageError(
                f"--budget-usd: LiteLLM knows no price for {options.litellm!r}, so nothing would "
                "stop it; give --budget-tokens"
            )
        return teacher
    if options.base_url and options.model:
        if options.budget_usd is not None and not options.price:
            raise UsageError(
                "--budget-usd: what do tokens cost there? Give --price IN OUT, US dollars a "
                "million tokens, or --budget-tokens"
            )
        return HttpTeacher(
            options.base_url,
            options.model,
            api_key=options.api_key,
            temperature=options.temperature,
            price=Price(*options.price) if options.price else None,
        )
    return None


async def run_order(
    options: GenerateOptions, *, progress: Callable[[int, int], None] = lambda done, jobs: None
) -> tuple[GenerateResult, dict[str, Any]]:
    """Run one order.

    Returns:
        How it ended, and what was spent: requests, tokens, US dollars, answers from the cache.
    """
    rows = chosen_rows(options.hazard)
    jobs = tuple(
        plan_jobs(
            rows, chosen_personas(options), per_row=options.per_row, seed=options.seed, tag="m"
        )
    )
    guard = build_guard(options.gate)
    fingerprint: dict[str, Any] = {"seed": options.seed, "gate": options.gate}
    teacher = _model_teacher(options)
    budget = Budget(tokens=options.budget_tokens, usd=options.budget_usd)
    asker: Asker | None = None
    answer: Answerer
    if teacher is None:
        # The calm exchanges before a message come from all rows, whichever are written anew.
        answer = offline(OfflineTeacher(chosen_rows(None), seed=options.seed))
        fingerprint |= {"teacher": "offline", "wording": sha256_file(content_path(PARAPHRASE))}
    else:
        prompts = Prompts(guard.policy)
        fingerprint |= {"teacher": teacher.name, "prompts": prompts.digest()}
        asker = Asker(
            teacher,
            cache=Cache(options.cache) if options.cache else None,
            budget=budget,
            patience=Patience(attempts=options.attempts, base_s=options.wait_s),
            max_tokens=options.max_tokens,
        )
        answer = by_model(asker, prompts)
    try:
        result = await generate(
            jobs,
            answer,
            Gate(guard),
            out=options.out,
            fingerprint=fingerprint,
            concurrency=options.concurrency,
            progress=lambda done: progress(done, len(jobs)),
        )
    finally:
        if teacher is not None:
            await teacher.aclose()
    spent = {
        "requests": asker.requests if asker else 0,
        "tokens": budget.spent_tokens,
        "usd": round(budget.spent_usd, 6),
        "from_cache": asker.cache.hits if asker and asker.cache else 0,
    }
    return result, spent
