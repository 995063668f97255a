"""One evaluation from its cases to its files: what `kidrails eval` does, without its options."""

from __future__ import annotations

import contextlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from kidrails_guard.cards import ModelFacts, write_model_card
from kidrails_guard.errors import DataError
from kidrails_guard.evals.cases import TASKS, Case, digest, sample, task_cases
from kidrails_guard.evals.compare import compare
from kidrails_guard.evals.endpoint import Endpoint
from kidrails_guard.evals.intervals import Estimate
from kidrails_guard.evals.judging import (
    Judge,
    agreement,
    aspect_means,
    judge_all,
    missing,
)
from kidrails_guard.evals.measures import Summary, summarise
from kidrails_guard.evals.public import PUBLIC, load_or_skip
from kidrails_guard.evals.report import Report, write_report
from kidrails_guard.evals.runner import Result, bar, run_cases
from kidrails_guard.evals.scoring import Answer, Score
from kidrails_guard.files import dump_json
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action, AgeBand, Conversation, Hazard, Message, Severity

RESULTS: Final = "results.json"
BAND_HEADER: Final = "x-kidrails-band"


@dataclass(frozen=True, slots=True)
class Setup:
    """What is asked, and by what it is judged."""

    guard: Guard
    cases: tuple[Case, ...]
    versions: Mapping[str, str]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where it is asked; see `kidrails eval run --help`."""

    base_url: str | None = None
    guarded_url: str | None = None
    model: str | None = None
    adapter: Path | None = None
    guard: Literal["off", "on", "both"] = "both"
    api_key: str | None = field(default=None, repr=False)
    judges: tuple[Judge, ...] = ()
    teacher: str = ""
    concurrency: int = 2
    max_tokens: int = 160
    label: str = ""
    policy: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """All results of a run, with their figures."""

    results: Mapping[str, Sequence[Result]]
    versions: Mapping[str, str]
    skipped: tuple[str, ...]
    judged: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    judge_note: str = ""

    @property
    def summaries(self) -> dict[str, Summary]:
        """The figures of every target."""
        return {name: summarise(rows, target=name) for name, rows in self.results.items()}


def make_setup(
    *,
    policy: Path | None,
    tasks: Sequence[str] | None,
    built: Path | None,
    public: Path | None,
    limit: int | None,
    seed: int,
) -> Setup:
    """Choose the cases.

    Raises:
        DataError: a task is unknown, or there is no case at all.
    """
    guard = Guard(load_policy(policy))
    cases: list[Case] = []
    skipped: list[str] = []
    for task in tasks or TASKS:
        found = task_cases(task, guard.policy, built=built, seed=seed)
        if not found:
            skipped.append(f"{task}: no case; run: kidrails data build")
        cases += sample(found, limit, seed=seed)
    if tasks is None:
        for name in PUBLIC:
            if public is None:
                skipped.append(f"{name}: not asked for; give --public DIR")
                continue
            found, reason = load_or_skip(name, public, guard.policy)
            if reason:
                skipped.append(f"{name}: {reason}")
            cases += sample(found, limit, seed=seed)
    if not cases:
        raise DataError("no case at all; run: kidrails data build")
    versions = {
        "policy": f"{guard.policy.name} {guard.policy.digest()[:16]}",
        "cases": f"{len(cases)}, sha256 {digest(cases)[:16]}",
        "kidrails-guard": _version("kidrails-guard"),
        "python": platform.python_version(),
    }
    return Setup(guard, tuple(cases), versions, tuple(skipped))


def _version(name: str) -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version(name)
    return "not installed"


async def evaluate(setup: Setup, options: RunOptions, out: Path) -> Outcome:
    """Ask every case at every wanted target; starts engine and guard where no URL is given."""
    results: dict[str, Sequence[Result]] = {}
    with _targets(setup, options) as (endpoints, model):
        for name, endpoint in endpoints.items():
            results[name] = await run_cases(
                setup.cases, endpoint, target=name, out=out, guard=setup.guard,
                concurrency=options.concurrency, progress=bar(name),
            )  # fmt: skip
    judged: dict[str, Mapping[str, Estimate]] = {}
    note = ""
    if options.judges:
        alphas, lost = [], 0
        for name, rows in results.items():
            pairs = [(r.case, r.answer.text) for r in rows if r.score is not None]
            verdicts = await judge_all(pairs, options.judges, cache=out / "judge-cache")
            judged[name] = aspect_means(verdicts)
            lost += missing(verdicts)
            alphas.append(agreement(verdicts))
        note = judge_note(options.judges, options.teacher, alphas, lost)
    versions = {"model": model, **setup.versions}
    return Outcome(results, versions, setup.skipped, judged, note)


def judge_note(
    judges: Sequence[Judge], teacher: str, alphas: Sequence[float | None], lost: int
) -> str:
    """Return what a reader must know about the judges."""
    names = ", ".join(judge.name for judge in judges)
    shown = ", ".join("–" if a is None else f"{a:.2f}" for a in alphas)
    note = f"Judges: {names}. Median of their scores. Krippendorff's alpha: {shown}. "
    note += f"{lost} verdicts could not be read and are missing."
    if teacher and any(teacher in judge.model or judge.model in teacher for judge in judges):
        note += f" Warning: {teacher} also made the training data, so it judges its own taste."
    return note


@contextlib.contextmanager
def _targets(setup: Setup, options: RunOptions) -> Iterator[tuple[dict[str, Endpoint], str]]:
    prompts = {band: setup.guard.system_prompt(band) for band in setup.guard.policy.bands}
    wanted = {"off": ("off",), "on": ("on",), "both": ("off", "on")}[options.guard]
    prefix = f"{options.label}, " if options.label else ""
    with contextlib.ExitStack() as stack:
        base, guarded, model = options.base_url, options.guarded_url, options.model or "default"
        if base is None and not (guarded and wanted == ("on",)):
            base, model = stack.enter_context(own_engine(options))
        if guarded is None and "on" in wanted:
            guarded = stack.enter_context(own_guard(str(base), options))
        name = Path(model).name
        endpoints = {}
        for which in wanted:
            endpoints[f"{prefix}guard {which}"] = Endpoint(
                str(base if which == "off" else guarded),
                name,
                options.api_key,
                guarded=which == "on",
                band_header=BAND_HEADER,
                system_prompt=prompts,
                max_tokens=options.max_tokens,
            )
        yield endpoints, name


@contextlib.contextmanager
def own_engine(options: RunOptions) -> Iterator[tuple[str, str]]:
    """Start the embedded engine for the time of the run; yield its URL and the model's name."""
    from kidrails_guard.engine.launch import EngineOptions, plan_engine
    from kidrails_guard.engine.ports import next_free_port
    from kidrails_guard.engine.process import EngineProcess

    port = next_free_port("127.0.0.1", 8100) or 8100
    plan = plan_engine(EngineOptions(model=options.model, adapter=options.adapter, port=port))
    engine = EngineProcess(plan)
    engine.start()
    try:
        engine.wait_ready()
        yield plan.url, plan.name
    finally:
        engine.stop()


@contextlib.contextmanager
def own_guard(upstream: str, options: RunOptions) -> Iterator[str]:
    """Start a guard in front of an upstream for the time of the run; yield its URL."""
    from kidrails_guard.engine.ports import next_free_port
    from kidrails_guard.supervisor import Tree, kidrails_part

    port = next_free_port("127.0.0.1", 8180) or 8180
    arguments = ["--upstream", upstream, "--port", str(port), "--band-header", BAND_HEADER]
    if options.policy is not None:
        arguments += ["--policy", str(options.policy)]
    part = kidrails_part(
        "the guard", "serve", arguments, host="127.0.0.1", port=port, probe_path="/health"
    )
    tree = Tree([part])
    tree.start()
    try:
        tree.wait_ready()
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        tree.stop()


def finish(outcome: Outcome, out: Path) -> list[Path]:
    """Write the results, the report and the model card.

    Returns:
        The files.
    """
    policy = load_policy()
    names = list(outcome.results)
    differences = (
        compare(outcome.results[names[0]], outcome.results[names[1]]) if len(names) == 2 else []
    )
    report = Report(
        title=f"Is it safe for children? {outcome.versions.get('model', '')}",
        versions=outcome.versions,
        results=outcome.results,
        summaries=outcome.summaries,
        differences=differences,
        judged=outcome.judged,
        judge_note=outcome.judge_note,
        skipped=outcome.skipped,
    )
    dump_json(out / RESULTS, _dump(outcome), indent=None)
    files = write_report(report, out, policy)
    facts = ModelFacts(name=str(outcome.versions.get("model", "model")))
    card = write_model_card(out / "model-card.md", facts, outcome.summaries, outcome.versions)
    print(f"{sum(len(r) for r in outcome.results.values())} answers", file=sys.stderr)
    return [*files, card, out / RESULTS]


def _dump(outcome: Outcome) -> dict[str, Any]:
    def row(result: Result) -> dict[str, Any]:
        case, answer = result.case, result.answer
        values = asdict(answer)
        values["action"] = None if answer.action is None else answer.action.label
        score = None
        if result.score is not None:
            score = asdict(result.score) | {"action": result.score.action.label}
        return {
            "case": {
                "id": case.id, "task": case.task, "band": str(case.band),
                "hazard": str(case.hazard), "expected": case.expected.label,
                "message": case.message, "severity": case.severity.label, "case": case.case,
                "conversation": [[m.role, m.content] for m in case.conversation.messages],
                "group": case.group, "variant": case.variant, "source": case.source,
            },
            "answer": values,
            "score": score,
        }  # fmt: skip

    return {
        "versions": dict(outcome.versions),
        "skipped": list(outcome.skipped),
        "judge_note": outcome.judge_note,
        "judged": {t: {a: asdict(e) for a, e in v.items()} for t, v in outcome.judged.items()},
        "results": {name: [row(r) for r in rows] for name, rows in outcome.results.items()},
    }


def load_outcome(folder: Path) -> Outcome:
    """Read a run's results back.

    Raises:
        DataError: the folder holds none, or the file is not one of ours.
    """
    path = folder if folder.suffix == ".json" else folder / RESULTS
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        results = {t: [_load(r) for r in rows] for t, rows in values["results"].items()}
        judged = {t: {a: Estimate(**e) for a, e in v.items()} for t, v in values["judged"].items()}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run: kidrails eval run --out {folder}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not the results of a run ({type(error).__name__})") from None
    return Outcome(
        results, values["versions"], tuple(values["skipped"]), judged, values["judge_note"]
    )


def _load(row: dict[str, Any]) -> Result:
    case, answer, score = row["case"], row["answer"], row["score"]
    turns = tuple(Message(role, content) for role, content in case["conversation"])
    loaded = Case(
        case["id"], case["task"], AgeBand(case["band"]), Hazard(case["hazard"]),
        Action.parse(case["expected"]), case["message"], Conversation(turns),
        Severity.parse(case["severity"]), case["case"], case["group"], case["variant"],
        source=case["source"],
    )  # fmt: skip
    action = answer.pop("action")
    got = Answer(action=None if action is None else Action.parse(action), **answer)
    if score is None:
        return Result(loaded, got, None)
    score["action"] = Action.parse(score["action"])
    score["defects"] = tuple(score["defects"])
    return Result(loaded, got, Score(**score))


def load_results(folder: Path) -> Mapping[str, Sequence[Result]]:
    """Return target to results of a run."""
    return load_outcome(folder).results


def pick_target(results: Mapping[str, Sequence[Result]], wanted: str | None, where: Path) -> str:
    """Return the wanted target's name, or the last one.

    Raises:
        DataError: there is none of that name.
    """
    if wanted is None:
        return list(results)[-1]
    for name in results:
        if name == wanted or name.endswith(wanted) or name.startswith(wanted):
            return name
    raise DataError(f"{where}: no target {wanted!r}; there are: {', '.join(results)}")
