"""One evaluation from its cases to its files: what `kidrails eval` does, without its options."""

from __future__ import annotations

import asyncio
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

from kidrails_guard.cards import SMOLLM2, ModelFacts, model_card
from kidrails_guard.errors import DataError
from kidrails_guard.evals.agreement import agreement_text
from kidrails_guard.evals.cases import TASKS, Case, digest, sample, task_cases, without_copies
from kidrails_guard.evals.compare import Comparison, compare, paired
from kidrails_guard.evals.contamination import unseen
from kidrails_guard.evals.intervals import Estimate
from kidrails_guard.evals.judging import (
    Judge,
    Judged,
    aspect_means,
    judge_all,
    missing,
    tag_counts,
)
from kidrails_guard.evals.public import PUBLIC, load_or_skip
from kidrails_guard.evals.report import Report, to_files
from kidrails_guard.evals.runner import Result, bar, count_kept, run_cases
from kidrails_guard.evals.scoring import worded
from kidrails_guard.evals.store import Outcome, load_outcome, save_outcome
from kidrails_guard.evals.targets import (
    RunOptions,
    Target,
    classifier_digest,
    failed_checks,
    guard_digest,
    open_model,
    package_version,
    pairs_of,
)
from kidrails_guard.files import holds, write_atomic
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy

PATIENCE_MS: Final = 60_000
"""For a check while answers are scored: on a busy machine nothing may count as a failed check."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What is asked, and by what it is judged.

    Attributes:
        guard: its policy gives the expected actions, its output checks the defects.
        cases: what is asked, each wording once for a band.
        versions: of policy, cases, guard and packages.
        notes: what was skipped, each with what to do about it, and other things to know.
    """

    guard: Guard
    cases: tuple[Case, ...]
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()


def make_setup(
    *,
    policy: Path | None,
    tasks: Sequence[str] | None,
    built: Path | None,
    public: Path | None,
    limit: int | None,
    seed: int,
    disguises: int | None = None,
) -> Setup:
    """Choose the cases.

    Args:
        policy: a policy file; None for the one that ships.
        tasks: names of `TASKS`, or ``public:NAME``; None for all that there are.
        built: the held-out golden rows.
        public: folder with public sets.
        limit: at most so many cases a task.
        seed: of the choice and of the disguises.
        disguises: how many each case of `jailbreak` gets; None for all.

    Raises:
        DataError: a task or a public set is unknown, or there is no case at all.
    """
    wanted = load_policy(policy)
    guard = Guard(wanted.model_copy(update={"check_timeout_ms": PATIENCE_MS}))
    names = list(tasks) if tasks is not None else [*TASKS, *(f"public:{name}" for name in PUBLIC)]
    # Held-out rows belong to the first task that is asked for; child_safety has them all.
    cases: list[Case] = []
    notes: list[str] = []
    served: dict[str, list[Case]] = {}
    for task in names:
        if task.startswith("public:"):
            found, note = load_or_skip(task.removeprefix("public:"), public, guard.policy)
            notes += [note] if note else []
        else:
            found = task_cases(task, guard.policy, built=built, seed=seed, disguises=disguises)
        served[task] = [case for case in found if case.band in guard.policy.bands]
        if len(served[task]) < len(found):
            notes.append(
                f"{task}: {len(found) - len(served[task])} of {len(found)} cases left out: "
                f"{wanted.name} does not serve their age"
            )
    # All tasks at once: the training texts are gone through once.
    learnt_by_none = {case.id for case in unseen([c for found in served.values() for c in found])}
    for task, found in served.items():
        fresh = [case for case in found if case.id in learnt_by_none]
        if len(fresh) < len(found):
            notes.append(
                f"{task}: {len(found) - len(fresh)} of {len(found)} cases left out: their words, "
                "or nearly the same, stand among the texts that trained the guard"
            )
        taken = sample(fresh, limit, seed=seed)
        if fresh and not taken:
            notes.append(f"{task}: left out: none of its groups of cases fits --limit {limit}")
        cases += taken
    if built is None:
        notes.append("held-out golden rows: skipped, not passed: run: kidrails data build")
    if not cases:
        raise DataError("no case at all; " + "; ".join(notes))
    cases = without_copies(cases)
    versions = {
        "cases": f"{len(cases)}, sha256 {digest(cases)[:16]}",
        "policy": f"{wanted.name} {wanted.digest()[:16]}",
        "guard": f"sha256 {guard_digest(guard.policy)}",
        "classifier": f"sha256 {classifier_digest()}",
        "kidrails-guard": package_version("kidrails-guard"),
        "textstat": package_version("textstat"),
        "python": platform.python_version(),
        "seed": str(seed),
    }
    return Setup(guard, tuple(cases), versions, tuple(notes))


async def evaluate(setup: Setup, options: RunOptions, work: Path) -> Outcome:
    """Ask every case at every wanted target; starts engine and guard where no URL is given.

    Args:
        setup: what is asked.
        options: where.
        work: folder of the answers so far, which are not asked for again.
    """
    results: dict[str, Sequence[Result]] = {}
    facts: dict[str, Mapping[str, str]] = {}
    notes = list(setup.notes)
    for model in options.models:
        with open_model(model, setup.guard, options) as targets:
            for target in targets:
                facts[target.name] = target.facts
                kept = count_kept(setup.cases, target.endpoint, work=work, digest=target.digest)
                if kept:
                    notes.append(kept_note(target, kept, len(setup.cases)))
                    print(notes[-1], file=sys.stderr)
                results[target.name] = await run_cases(
                    setup.cases, target.endpoint, work=work,
                    guard=setup.guard, digest=target.digest,
                    concurrency=options.concurrency, retry_seconds=options.retry_seconds,
                    progress=bar(target.name),
                )  # fmt: skip
                failed = await asyncio.to_thread(failed_checks, target.metrics) if (
                    target.metrics) else 0  # fmt: skip
                if failed:
                    notes.append(
                        f"{target.name}: {failed} times a check failed or timed out while it was "
                        "measured, and the guard held back; measure on a machine that is less busy"
                    )
    limits = {str(band): float(rule.max_grade) for band, rule in setup.guard.policy.bands.items()}
    versions = {**setup.versions, "asked at a time": str(options.concurrency)}
    outcome = Outcome(results, versions, tuple(notes), targets=facts, limits=limits)
    return await _judged(outcome, options, work) if options.judges else outcome


def kept_note(target: Target, kept: int, total: int) -> str:
    """Return what a reader must know about answers that an earlier run got."""
    note = (
        f"{target.name}: {kept} of {total} answers are from an earlier run that was stopped or "
        "shares its folder, and so are their waiting times"
    )
    if "at" in target.facts:  # behind a URL nothing tells one model from the next of its name
        note += "; if the model or the guard behind the address has changed, start anew: --work DIR"
    return note


async def _judged(outcome: Outcome, options: RunOptions, work: Path) -> Outcome:
    figures: dict[str, Mapping[str, Estimate]] = {}
    verdicts: dict[str, list[Judged]] = {}
    for name, rows in outcome.results.items():
        pairs = [(r.case, r.answer.text) for r in rows if r.score is not None]
        verdicts[name] = await judge_all(
            pairs, options.judges, cache=work / "judge-cache",
            retry_seconds=options.retry_seconds[:-1], progress=bar(f"judges, {name}"),
        )  # fmt: skip
        figures[name] = aspect_means(verdicts[name])
    note = judge_note(options.judges, options.teacher, verdicts)
    return replace(outcome, judged=figures, judge_note=note, verdicts=verdicts)


def judge_note(
    judges: Sequence[Judge], teacher: str, verdicts: Mapping[str, Sequence[Judged]]
) -> str:
    """Return what a reader must know about the judges."""
    names = ", ".join(judge.name for judge in judges)
    note = f"Judges: {names}. The median of their scores counts."
    for target, rows in verdicts.items():
        asked = len(rows) * len(judges)
        note += f" {target}: {agreement_text(rows)}; {missing(rows)} of {asked} verdicts"
        note += " could not be read and are missing, not passed"
        tags = ", ".join(f"{tag} {count}" for tag, count in tag_counts(rows))
        note += f"; failures named: {tags or 'none'}."
    if teacher and any(teacher in judge.model or judge.model in teacher for judge in judges):
        note += f" Warning: {teacher} also made the training data, so it judges its own taste."
    return note


def render(outcome: Outcome) -> dict[str, str]:
    """Return the report's files, name to text; the same results give the same text."""
    summaries = outcome.summaries
    comparisons = [
        Comparison(before, after, compare(outcome.results[before], outcome.results[after]))
        for before, after in pairs_of(list(outcome.results))
        if paired(outcome.results[before], outcome.results[after])
    ]
    models = sorted(
        {
            facts.get("model", "model") + (", with an adapter" if "adapter" in facts else "")
            for facts in outcome.targets.values()
        }
    )
    name = " and ".join(models) or "model"
    report = Report(
        title=f"Is it safe for children? {name}",
        outcome=outcome,
        summaries=summaries,
        comparisons=comparisons,
    )
    known = all(model.startswith(("smollm2", "kidrails-small")) for model in models)
    facts = replace(SMOLLM2, name=name) if known else ModelFacts(name)
    card = model_card(facts, summaries, outcome)
    return {**to_files(report), "model-card.md": card}


def finish(outcome: Outcome, out: Path) -> list[Path]:
    """Write the results, the report and the model card.

    Returns:
        The files.
    """
    # What is on disk is rounded: the report is made from it, so that it can be made again.
    return [save_outcome(outcome, out), *write_report(load_outcome(out), out)]


def write_report(outcome: Outcome, out: Path) -> list[Path]:
    """Write the report and the model card of results that stay as they are.

    Returns:
        The files.
    """
    files = render(outcome)
    for name, text in files.items():
        write_atomic(out / name, text)
    return [out / name for name in files]


def stale(outcome: Outcome, folder: Path) -> list[Path]:
    """Return the report's files in a folder that its results would now give differently."""
    return [
        folder / name for name, text in render(outcome).items() if not holds(folder / name, text)
    ]


def scored_before(outcome: Outcome) -> list[str]:
    """Return, as lines, which of a run's scores are not what today's rules read off its answers.

    The rules for words change with the program and carry no version: what they give is compared.
    """
    lines = []
    for name, rows in outcome.results.items():
        scored = [(row, row.score) for row in rows if row.score is not None]
        pairs = [(score, worded(row.case, score, row.answer)) for row, score in scored]
        moved = Counter(
            field.name
            for old, new in pairs
            for field in fields(old)
            if getattr(old, field.name) != getattr(new, field.name)
        )
        if moved:
            what = ", ".join(f"{key} {count}" for key, count in moved.most_common())
            lines.append(
                f"{name}: {sum(old != new for old, new in pairs)} of {len(pairs)} scores are of "
                f"earlier rules; today's read other things off the same words ({what})"
            )
    return lines
