"""`kidrails data`: build, check, stamp and describe the golden data."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from kidrails_guard.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `kidrails data`."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="VERB")

    build = verbs.add_parser("build", help="every training file from the hand-written ones")
    build.add_argument("--out", type=Path, default=Path("build/data"), metavar="DIR")
    build.add_argument("--seed", type=int, default=7, help="default 7")
    build.add_argument("--per-row", type=int, default=13, metavar="N", help="conversations a row")
    build.add_argument("--per-text", type=int, default=3, metavar="N", help="guard texts a text")
    build.add_argument("--personas", type=int, default=400, metavar="N", help="child user models")
    build.add_argument(
        "--gate",
        choices=("off", "rules", "full"),
        default="rules",
        help="ask the guard about made rows: not, its fast checks (default), or the classifier too",
    )
    build.add_argument("--sources", type=Path, metavar="DIR", help="folder with public sets")
    build.add_argument(
        "--generated",
        type=Path,
        nargs="*",
        default=[],
        metavar="FILE",
        help="files of `kidrails data generate` that join in",
    )
    build.add_argument("--json", action="store_true", help="print the manifest")

    generate = verbs.add_parser("generate", help="new conversations by a model, or offline")
    _generate_arguments(generate)

    validate = verbs.add_parser("validate", help="check golden rows: schema, labels, replies")
    validate.add_argument("files", type=Path, nargs="*", metavar="FILE", help="default: all")
    validate.add_argument("--json", action="store_true", help="print JSON")


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("build/data/generated.jsonl"), metavar="FILE"
    )
    teacher = parser.add_mutually_exclusive_group()
    teacher.add_argument("--base-url", metavar="URL", help="an OpenAI-compatible server, with /v1")
    teacher.add_argument("--litellm", metavar="MODEL", help="a model that LiteLLM reaches")
    parser.add_argument("--model", help="the model's name at --base-url")
    parser.add_argument(
        "--api-key-env", metavar="NAME", default="OPENAI_API_KEY", help="variable with the key"
    )
    parser.add_argument("--temperature", type=float, default=0.9)
    parser.add_argument("--max-tokens", type=int, default=700, help="longest answer")
    parser.add_argument("--budget-tokens", type=int, metavar="N", help="stop before it is exceeded")
    parser.add_argument("--budget-usd", type=float, metavar="N", help="stop when it is spent")
    parser.add_argument(
        "--price", type=float, nargs=2, metavar=("IN", "OUT"), help="US dollars a million tokens"
    )
    parser.add_argument("--concurrency", type=int, default=8, metavar="N")
    parser.add_argument("--attempts", type=int, default=6, metavar="N", help="requests a job")
    parser.add_argument("--wait-s", type=float, default=1.0, help="first wait, doubled each time")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/data/teacher-cache"), metavar="DIR"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--per-row", type=int, default=2, metavar="N")
    parser.add_argument("--personas", type=int, default=400, metavar="N")
    parser.add_argument(
        "--profiles",
        type=Path,
        nargs=2,
        metavar=("CSV", "JSON"),
        help="upstream's profile pool and stages instead of our own personas",
    )
    parser.add_argument("--hazard", nargs="*", metavar="K??", help="only these; default: all")
    parser.add_argument("--gate", choices=("off", "rules", "full"), default="rules")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run `kidrails data` and return its exit status."""
    actions = {"build": _build, "generate": _generate, "validate": _validate}
    return actions[args.action](args)


def _build(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from kidrails_guard.golden.build import BuildOptions, build

    for name in ("per_row", "per_text", "personas"):
        if getattr(args, name) < (16 if name == "personas" else 0):
            raise UsageError(f"--{name.replace('_', '-')} {getattr(args, name)}: too few")
    with tqdm(unit=" rows", disable=None, file=sys.stderr) as bar:

        def progress(part: str, count: int) -> None:
            bar.set_description(part)
            bar.update(max(0, count - bar.n))

        result = build(
            BuildOptions(
                out=args.out,
                seed=args.seed,
                per_row=args.per_row,
                per_text=args.per_text,
                personas=args.personas,
                gate=args.gate,
                sources=args.sources,
                generated=tuple(args.generated),
            ),
            progress=progress,
        )
    if args.json:
        print(json.dumps(result.manifest, indent=2, ensure_ascii=False))
        return 0
    for name, output in result.manifest["outputs"].items():
        print(f"{output['rows']:>7,} rows  {args.out / name}")
    print(f"manifest: {args.out / 'manifest.json'}")
    return 0


def _generate(args: argparse.Namespace) -> int:
    import asyncio
    from dataclasses import asdict

    from tqdm import tqdm

    from kidrails_guard.golden.order import GenerateOptions, run_order

    if args.base_url and not args.model:
        raise UsageError("--base-url needs --model, the model's name at that server")
    key = os.environ.get(args.api_key_env)
    options = GenerateOptions(
        **{k: v for k, v in vars(args).items() if k not in {"action", "json", "api_key_env"}},
        api_key=key,
    )
    with tqdm(unit=" jobs", disable=None, file=sys.stderr) as bar:

        def progress(done: int, jobs: int) -> None:
            bar.total = jobs
            bar.update(done - bar.n)

        result, spent = asyncio.run(run_order(options, progress=progress))
    if args.json:
        print(json.dumps(asdict(result) | {"spent": spent, "out": str(args.out)}, indent=2))
    else:
        for reason, count in result.reasons.items():
            print(f"{count:>7,} dropped: {reason}")
        left = result.jobs - result.finished
        note = f"; stopped ({result.stopped}), {left:,} jobs left: run again" if left else ""
        print(
            f"{result.rows:,} rows of {result.finished:,} jobs, {spent['requests']:,} requests, "
            f"{spent['tokens']:,} tokens: {args.out}{note}"
        )
    return 1 if result.stopped.startswith("unavailable") else 0


def _validate(args: argparse.Namespace) -> int:
    from kidrails_guard.golden.validate import validate

    report = validate(tuple(args.files) or None)
    if args.json:
        record: dict[str, Any] = {
            "rows": report.rows,
            "problems": [
                {"file": p.file, "line": p.line, "key": p.key, "message": p.message}
                for p in report.problems
            ],
        }
        print(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        for problem in report.problems:
            print(problem)
        print(f"{report.rows} rows, {len(report.problems)} problems", file=sys.stderr)
    return 1 if report.problems else 0
