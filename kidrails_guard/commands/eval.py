"""`kidrails eval run | guard | compare | report`: is it safe, and does a child understand it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kidrails_guard.commands.options import at_least
from kidrails_guard.errors import DataError, UsageError

if TYPE_CHECKING:
    from kidrails_guard.evals.session import Setup

DEFAULT_OUT = Path("build/evals")
BUILT = Path("build/data/eval.jsonl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs and their options."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="run|guard|compare|report")
    run = verbs.add_parser("run", help="ask a model every case, without and with the guard")
    run.add_argument("--base-url", help="an OpenAI-compatible endpoint; default: start our own")
    run.add_argument("--guarded-url", help="the same endpoint with the guard in front")
    run.add_argument("--model", action="append", default=[], metavar="[LABEL=]MODEL[+ADAPTER]",
                     help="GGUF or folder for our own engine, `default` (the embedded model) or "
                     "`base` (the same without our voice), or the endpoint's name; several with "
                     "labels are asked in turn and compared: --model base=base "
                     "--model tuned=outputs/kidrails-small")  # fmt: skip
    run.add_argument("--guard", choices=("off", "on", "both"), default="both")
    run.add_argument("--judge", action="append", default=[], metavar="URL#MODEL",
                     help="also let a model judge; may be given several times")  # fmt: skip
    run.add_argument("--teacher", default="", help="model that made the training data, if any")
    run.add_argument("--concurrency", type=at_least(1), default=2)
    run.add_argument("--max-tokens", type=at_least(1), default=160)
    run.add_argument("--work", type=Path, metavar="DIR",
                     help="where answers are kept as they come (default: --out); runs that share "
                     "it ask nothing twice")  # fmt: skip
    run.add_argument("--timeout", type=at_least(0.1), default=120.0, metavar="SECONDS",
                     help="for one answer (default: 120)")  # fmt: skip
    run.add_argument("--retry-wait", type=at_least(0.0), default=0.5, metavar="SECONDS",
                     help="before the first of three retries; four times as long before each "
                     "further one (default: 0.5)")  # fmt: skip
    run.add_argument("--disguises", type=at_least(0), metavar="N",
                     help="of each jailbreak case, in turn (default: all six)")  # fmt: skip
    guard = verbs.add_parser("guard", help="the checks alone, beside offline peers; no model")
    guard.add_argument("--no-peers", action="store_true")
    compare = verbs.add_parser("compare", help="what got worse between two runs, worst first")
    compare.add_argument("before", type=Path, help="folder of a run, or its results.json.gz")
    compare.add_argument("after", type=Path, nargs="?", help="default: targets of the same run")
    compare.add_argument("--before-target", help="which target of the first run")
    compare.add_argument("--after-target", help="which target of the second run")
    compare.add_argument("--preset", metavar="NAME",
                         help="guard, base-vs-tuned, spectrum-vs-random, …")  # fmt: skip
    report = verbs.add_parser("report", help="HTML, Markdown, JSON and model card of a run")
    report.add_argument("folder", type=Path, help="folder of `kidrails eval run`")
    report.add_argument("--check", action="store_true",
                        help="write nothing; exit 1 where a file is out of date")  # fmt: skip
    for verb in (run, guard):
        verb.add_argument("--tasks", help="names, with commas between, public:NAME among them; "
                          "default: all")  # fmt: skip
        verb.add_argument("--public", type=Path, metavar="DIR", help="folder with public sets")
        verb.add_argument("--limit", type=at_least(1), help="at most so many cases a task")
        verb.add_argument("--seed", type=int, default=0)
        verb.add_argument("--policy", type=Path)
        verb.add_argument("--out", type=Path, default=DEFAULT_OUT)
    for verb in (run, guard, compare, report):
        verb.add_argument("--json", action="store_true", help="for scripts")


def run(args: argparse.Namespace) -> int:
    """Carry the sub-verb out."""
    return {"run": _run, "guard": _guard, "compare": _compare, "report": _report}[args.what](args)


def _setup(args: argparse.Namespace) -> Setup:
    from kidrails_guard.evals.session import make_setup

    setup = make_setup(
        policy=args.policy,
        tasks=args.tasks.split(",") if args.tasks else None,
        built=BUILT if BUILT.is_file() else None,
        public=args.public,
        limit=args.limit,
        seed=args.seed,
        disguises=getattr(args, "disguises", None),
    )
    for line in setup.notes:
        print(line, file=sys.stderr)
    return setup


def _run(args: argparse.Namespace) -> int:
    import asyncio

    from kidrails_guard.evals.endpoint import RETRIES
    from kidrails_guard.evals.judging import parse_judge
    from kidrails_guard.evals.session import evaluate, finish
    from kidrails_guard.evals.targets import Model, RunOptions, parse_model

    models = [parse_model(text) for text in args.model] or [Model()]
    if args.guarded_url and not args.base_url and args.guard != "on":
        raise UsageError(
            "--guarded-url names a model that has a guard in front; to ask it without one too add "
            "--base-url URL, or ask only the guarded one with --guard on"
        )
    for option, url in (("--base-url", args.base_url), ("--guarded-url", args.guarded_url)):
        if url and not url.startswith(("http://", "https://")):
            raise UsageError(
                f"{option}: {url!r} is not an http(s) URL, e.g. http://localhost:8000/v1"
            )
    if args.base_url or args.guarded_url:
        # The name of the only one may hold anything; of several, a label ends at the first "=".
        several = len(args.model) > 1
        parts = [text.partition("=") if several and "=" in text else ("", "", text)
                 for text in args.model]  # fmt: skip
        models = [Model(label, name) for label, _, name in parts] or [Model()]
    if len(models) > 1 and len({model.label for model in models}) < len(models):
        raise UsageError(
            "--model: several need a label each, e.g. --model base=default --model tuned=FOLDER; "
            "at an endpoint: --model base=NAME --model tuned=OTHER-NAME"
        )
    judge_key = os.environ.get("KIDRAILS_JUDGE_KEY")
    options = RunOptions(
        base_url=args.base_url,
        guarded_url=args.guarded_url,
        models=tuple(models),
        guard=args.guard,
        api_key=os.environ.get("KIDRAILS_API_KEY"),
        judges=tuple(parse_judge(text, api_key=judge_key) for text in args.judge),
        teacher=args.teacher,
        concurrency=args.concurrency,
        max_tokens=args.max_tokens,
        timeout_s=args.timeout,
        retry_seconds=tuple(args.retry_wait * 4**step for step in range(RETRIES)),
        policy=args.policy,
    )
    outcome = asyncio.run(evaluate(_setup(args), options, args.work or args.out))
    files = finish(outcome, args.out)
    if args.json:
        print((args.out / "report.json").read_text(encoding="utf-8"))
    else:
        for name, summary in outcome.summaries.items():
            print(f"{name}: {summary.cases} cases, {sum(summary.errors.values())} errors")
        print("\n".join(str(path) for path in files))
    return 1 if any(s.cases == sum(s.errors.values()) for s in outcome.summaries.values()) else 0


def _guard(args: argparse.Namespace) -> int:
    import asyncio

    from kidrails_guard.evals.guard_eval import risk_scores, roc, run_guard, run_peers
    from kidrails_guard.evals.guard_report import to_json, to_markdown, to_table
    from kidrails_guard.evals.plots import roc_plot
    from kidrails_guard.evals.runner import bar
    from kidrails_guard.files import dump_json, write_atomic

    setup = _setup(args)
    cases = [case for case in setup.cases if case.labelled]
    if not cases:
        raise DataError("no case says what the guard should do, so there is nothing to measure")
    found = asyncio.run(run_guard(setup.guard, cases, progress=bar("checks")))
    peers, absent = ([], []) if args.no_peers else run_peers(cases)
    sound = [case for case in cases if case.id not in set(found.failed)]
    points = roc(asyncio.run(risk_scores(setup.guard, sound)), sound)
    failed = []
    if found.failed:
        failed.append(
            f"{len(found.failed)} of {len(cases)} texts are in no figure of KidRails: a check "
            "failed or timed out, so the guard held them back unread"
        )
    parts = (found, peers, points, setup.versions, (*setup.notes, *failed, *absent))
    values = to_json(*parts)
    dump_json(args.out / "guard.json", values)
    write_atomic(args.out / "guard.md", to_markdown(*parts))
    if points:
        write_atomic(args.out / "guard-roc.svg", roc_plot(points, found.figures))
    if args.json:
        print(json.dumps(values, indent=2))
    else:
        print(to_table([found.figures, *peers]))
        print(to_table([*found.by_task.values(), *found.by_band.values()]))
        for line in (*failed, *absent):
            print(line, file=sys.stderr)
        print(f"{len(cases)} texts; confusion, ROC, thresholds, misses: {args.out / 'guard.md'}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from kidrails_guard.evals.compare import (
        compare,
        pairing,
        preset_pairs,
        regressions,
        scored_otherwise,
        to_text,
    )
    from kidrails_guard.evals.session import scored_before
    from kidrails_guard.evals.store import find_target, load_outcome
    from kidrails_guard.evals.targets import pairs_of

    old = load_outcome(args.before)
    new = old if args.after is None else load_outcome(args.after)
    before, after, rules = old.results, new.results, scored_otherwise(old.versions, new.versions)
    if args.preset:
        pairs = preset_pairs(args.preset, list(before), list(after))
    elif args.before_target or args.after_target:
        first = find_target(before, args.before_target or args.after_target, args.before)
        second = args.after_target or args.before_target
        pairs = [(first, find_target(after, second, args.after or args.before))]
        if args.after is None and pairs[0][0] == pairs[0][1]:
            raise UsageError(
                f"nothing to compare: {first!r} with itself; give --before-target and "
                f"--after-target, each one of {', '.join(before)}, or the folder of a second run"
            )
    elif args.after is None:
        pairs = pairs_of(list(before))
    else:
        pairs = [(name, name) for name in before if name in after]
    if not pairs:
        raise UsageError(
            f"nothing to compare: {args.before} has {', '.join(before)}; {args.after} has "
            f"{', '.join(after)}; name two with --before-target and --after-target"
        )
    found = {(one, two): compare(before[one], after[two]) for one, two in pairs}
    basis = {(one, two): pairing(before[one], after[two]) + rules for one, two in pairs}
    for folder, outcome in ((args.before, old), (args.after, new)):
        if outcome.altered and folder is not None:
            print(_altered(folder), file=sys.stderr)
    _say_old_scores(dict.fromkeys(scored_before(old) + scored_before(new)))
    if args.json:
        print(json.dumps([
            {"before": one, "after": two, "cases": basis[one, two],
             "differences": [asdict(d) for d in differences]}
            for (one, two), differences in found.items()
        ], indent=2))  # fmt: skip
    else:
        for (one, two), differences in found.items():
            print("\n".join([f"{one}  →  {two}", to_text(differences), *basis[one, two]]))
    return 1 if any(regressions(differences) for differences in found.values()) else 0


def _say_old_scores(lines: Iterable[str]) -> None:
    for line in lines:
        print(
            f"{line}; to score again: the same `kidrails eval run` (answers that are in its --work "
            "or --out folder are not asked for again)",
            file=sys.stderr,
        )


def _altered(folder: Path) -> str:
    return (
        f"{folder}: its results were changed after the run wrote them: their sum is not the one "
        "that they and their report name; take the file from where it was kept, or run again"
    )


def _report(args: argparse.Namespace) -> int:
    from kidrails_guard.evals.session import scored_before, stale, write_report
    from kidrails_guard.evals.store import load_outcome

    outcome = load_outcome(args.folder)
    if outcome.altered:
        # A report of them would make them look like those of the run.
        print(_altered(args.folder), file=sys.stdout if args.check else sys.stderr)
        return 1
    folder = args.folder.parent if args.folder.is_file() else args.folder
    _say_old_scores(scored_before(outcome))
    if args.check:
        old = stale(outcome, folder)
        for path in old:
            print(f"{path}: not what its results give; run: kidrails eval report {folder}")
        if not outcome.summed:
            print(
                f"{folder}: results of an earlier version, without a sum: whether they are as the "
                "run wrote them cannot be told",
                file=sys.stderr,
            )
        return 1 if old else 0
    files = write_report(outcome, folder)
    if args.json:
        print((folder / "report.json").read_text(encoding="utf-8"))
    else:
        print("\n".join(str(path) for path in files))
    return 0
