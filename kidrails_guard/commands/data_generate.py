"""`kidrails data generate`: its options, and how a run is told of."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from kidrails_guard.commands.options import at_least
from kidrails_guard.errors import UsageError


def generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kidrails data generate`."""
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
    parser.add_argument(
        "--attempts", type=at_least(1), default=6, metavar="N", help="requests a job"
    )
    parser.add_argument("--wait-s", type=float, default=1.0, help="first wait, doubled each time")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/data/teacher-cache"), metavar="DIR"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--per-row", type=at_least(1), default=2, metavar="N")
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


def generate(args: argparse.Namespace) -> int:
    """Run `kidrails data generate` and return its exit status."""
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
