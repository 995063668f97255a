"""`kidrails check`: the verdict on one text, or on a file of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kidrails_guard.errors import UsageError

if TYPE_CHECKING:
    from kidrails_guard.guard import Guard
    from kidrails_guard.types import AgeBand, Stage

_EPILOG = """\
exit status: 0 the text is allowed, 1 anything else, 2 wrong use.
With --batch: 0 every row was checked, 1 some row could not be read (its line says why).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kidrails check`."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "text", metavar="TEXT", nargs="?", help="the text, or - to read it from stdin"
    )
    what.add_argument(
        "--batch",
        metavar="FILE",
        help="JSON Lines, or - for stdin: {id, text, band, stage, context}; one line of JSON each",
    )
    parser.add_argument("--band", help="5-6, 7-9 or 10-12; default: the policy's")
    parser.add_argument(
        "--stage", choices=("input", "output"), default="input", help="who wrote it; default: input"
    )
    parser.add_argument("--policy", metavar="FILE", help="default: the policy that ships")
    parser.add_argument("--explain", action="store_true", help="say why, in words for a grown-up")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run `kidrails check` and return its exit status."""
    from kidrails_guard.guard import Guard
    from kidrails_guard.policy import load_policy
    from kidrails_guard.types import AgeBand, Stage

    policy = load_policy(args.policy)
    accepted = ", ".join(policy.bands)
    if args.band is not None and args.band not in policy.bands:
        raise UsageError(f"--band: {args.band!r} is not served by {policy.name!r}; use {accepted}")
    band = AgeBand(args.band) if args.band else policy.fallback_band
    guard = Guard(policy)
    if args.batch is not None:
        if args.explain:
            raise UsageError("--explain is for one text; with --batch every line is JSON")
        return _batch(guard, args.batch, band, Stage(args.stage))
    text = sys.stdin.read() if args.text == "-" else args.text
    return _one(guard, text, band, Stage(args.stage), args)


def _one(guard: Guard, text: str, band: AgeBand, stage: Stage, args: argparse.Namespace) -> int:
    from kidrails_guard.batch import Row, judge_row, verdict_record
    from kidrails_guard.explain import explain
    from kidrails_guard.guard import run_sync
    from kidrails_guard.types import Action

    verdict = run_sync(judge_row(guard, Row(None, text, band, stage)))
    answer = guard.answer(verdict, band, seed="check") if verdict.action.answers else None
    if args.json:
        record = verdict_record(None, verdict)
        if args.explain:
            record |= {"explanation": explain(verdict, text), "answer": answer}
        print(json.dumps(record, ensure_ascii=False))
    elif args.explain:
        print("\n".join(explain(verdict, text)).encode("utf-8", "replace").decode())
        if answer:
            print(f"The child reads: {answer}")
        elif verdict.action is Action.REDACT:
            masked = guard.redact(text, verdict)
            print(f"The model reads: {masked}".encode("utf-8", "replace").decode())
    else:
        hazards = verdict_record(None, verdict)["hazards"]
        seen = ", ".join(f"{h['hazard']} {h['severity']} {h['score']:.2f}" for h in hazards)
        print(f"{verdict.action.label}{'  ' + seen if seen else ''}")
    return 0 if verdict.action is Action.ALLOW else 1


def _open(path: str) -> Any:
    if path == "-":
        return nullcontext(sys.stdin)
    try:
        return Path(path).open(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"--batch: {path} cannot be read ({error.strerror})") from None


def _batch(guard: Guard, path: str, band: AgeBand, stage: Stage) -> int:
    import asyncio

    with _open(path) as lines:
        return asyncio.run(_write(guard, lines, band, stage, sys.stdout))


async def _write(
    guard: Guard, lines: Iterable[str], band: AgeBand, stage: Stage, out: TextIO
) -> int:
    from kidrails_guard.batch import check_rows

    counts = {"checked": 0, "bad": 0}
    async for record in check_rows(guard, lines, band=band, stage=stage):
        counts["bad" if "error" in record else "checked"] += 1
        out.write(json.dumps(record, allow_nan=False) + "\n")
        out.flush()
    print(f"{counts['checked']} rows checked, {counts['bad']} could not be read", file=sys.stderr)
    return 1 if counts["bad"] else 0
