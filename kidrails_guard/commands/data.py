"""`kidrails data`: build, check, stamp and describe the golden data."""

from __future__ import annotations

import argparse
import json
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
        default="off",
        help="ask the guard about made rows: not (default), its fast checks, or the classifier too",
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

    validate = verbs.add_parser("validate", help="check golden rows: schema, labels, replies")
    validate.add_argument("files", type=Path, nargs="*", metavar="FILE", help="default: all")
    validate.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run `kidrails data` and return its exit status."""
    actions = {"build": _build, "validate": _validate}
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
