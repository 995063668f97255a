"""`kidrails eval run | guard | compare | report`: is it safe, and does a child understand it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    run.add_argument("--model", help="GGUF or folder for our own engine, or the endpoint's name")
    run.add_argument("--adapter", type=Path, help="a LoRA adapter as GGUF for our own engine")
    run.add_argument("--guard", choices=("off", "on", "both"), default="both")
    run.add_argument("--judge", action="append", default=[], metavar="URL#MODEL",
                     help="also let a model judge; may be given several times")  # fmt: skip
    run.add_argument("--teacher", default="", help="model that made the training data, if any")
    run.add_argument("--concurrency", type=int, default=2)
    run.add_argument("--max-tokens", type=int, default=160)
    run.add_argument("--label", default="", help="put before the targets' names, e.g. base")
    guard = verbs.add_parser("guard", help="the checks alone, beside offline peers; no model")
    guard.add_argument("--no-peers", action="store_true")
    compare = verbs.add_parser("compare", help="what got worse between two runs, worst first")
    compare.add_argument("before", type=Path, help="folder of a run, or a run's results.json")
    compare.add_argument("after", type=Path)
    compare.add_argument("--before-target", help="which target of the first run")
    compare.add_argument("--after-target", help="which target of the second run")
    compare.add_argument("--preset", help="base-vs-tuned, guard, spectrum-vs-random, …")
    report = verbs.add_parser("report", help="HTML, Markdown, JSON and model card of a run")
    report.add_argument("folder", type=Path, help="folder of `kidrails eval run`")
    for verb in (run, guard):
        verb.add_argument("--tasks", help="names, with commas between; default: all")
        verb.add_argument("--public", type=Path, metavar="DIR", help="folder with public sets")
        verb.add_argument("--limit", type=int, help="at most so many cases a task")
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

    return make_setup(
        policy=args.policy,
        tasks=args.tasks.split(",") if args.tasks else None,
        built=BUILT if BUILT.is_file() else None,
        public=args.public,
        limit=args.limit,
        seed=args.seed,
    )


def _run(args: argparse.Namespace) -> int:
    import asyncio

    from kidrails_guard.evals.judging import parse_judge
    from kidrails_guard.evals.session import RunOptions, evaluate, finish

    setup = _setup(args)
    for line in setup.skipped:
        print(f"skipped, not passed: {line}", file=sys.stderr)
    judge_key = os.environ.get("KIDRAILS_JUDGE_KEY")
    options = RunOptions(
        base_url=args.base_url,
        guarded_url=args.guarded_url,
        model=args.model,
        adapter=args.adapter,
        guard=args.guard,
        api_key=os.environ.get("KIDRAILS_API_KEY"),
        judges=tuple(parse_judge(text, api_key=judge_key) for text in args.judge),
        teacher=args.teacher,
        concurrency=args.concurrency,
        max_tokens=args.max_tokens,
        label=args.label,
        policy=args.policy,
    )
    outcome = asyncio.run(evaluate(setup, options, args.out))
    files = finish(outcome, args.out)
    if args.json:
        print((args.out / "report.json").read_text(encoding="utf-8"))
    else:
        for name, summary in outcome.summaries.items():
            print(f"{name}: {summary.cases} cases, {sum(summary.errors.values())} errors")
        print("\n".join(str(path) for path in files))
    return 1 if all(s.cases == sum(s.errors.values()) for s in outcome.summaries.values()) else 0


def _guard(args: argparse.Namespace) -> int:
    import asyncio
    from dataclasses import asdict

    from kidrails_guard.evals.guard_eval import roc, run_guard, run_peers, to_table
    from kidrails_guard.evals.plots import roc_plot
    from kidrails_guard.evals.runner import bar
    from kidrails_guard.files import dump_json, write_atomic

    setup = _setup(args)
    for line in setup.skipped:
        print(f"skipped, not passed: {line}", file=sys.stderr)
    found = asyncio.run(run_guard(setup.guard, setup.cases, progress=bar("checks")))
    peers, absent = ([], []) if args.no_peers else run_peers(setup.cases)
    points = roc(found, setup.cases)
    values: dict[str, Any] = {
        "versions": setup.versions,
        "guards": [asdict(row) for row in (found.figures, *peers)],
        "by_band": {band: asdict(e) for band, e in found.by_band.items()},
        "confusion": found.confusion,
        "not_acceptable": found.errors,
        "roc": points[:: max(1, len(points) // 200)],
    }
    dump_json(args.out / "guard.json", values)
    if points:
        write_atomic(args.out / "guard-roc.png", roc_plot(points))
    if args.json:
        print(json.dumps(values, indent=2))
    else:
        print(to_table([found.figures, *peers]))
        for line in absent:
            print(line, file=sys.stderr)
        print(f"{len(setup.cases)} texts; confusion, ROC and misses: {args.out / 'guard.json'}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from kidrails_guard.errors import DataError
    from kidrails_guard.evals.compare import PRESETS, compare, regressions, to_text
    from kidrails_guard.evals.session import load_results, pick_target

    before, after = load_results(args.before), load_results(args.after)
    wanted = (args.before_target, args.after_target)
    if args.preset:
        if args.preset not in PRESETS:
            raise DataError(f"--preset: {args.preset!r}; accepted: {', '.join(PRESETS)}")
        wanted = PRESETS[args.preset]
    first = pick_target(before, wanted[0], args.before)
    second = pick_target(after, wanted[1], args.after)
    found = compare(before[first], after[second])
    worse = regressions(found)
    if args.json:
        print(json.dumps([asdict(d) for d in found], indent=2))
    else:
        print(f"{first}  →  {second}")
        print(to_text(found))
    return 1 if worse else 0


def _report(args: argparse.Namespace) -> int:
    from kidrails_guard.evals.session import finish, load_outcome

    files = finish(load_outcome(args.folder), args.folder)
    if args.json:
        print((args.folder / "report.json").read_text(encoding="utf-8"))
    else:
        print("\n".join(str(path) for path in files))
    return 0
