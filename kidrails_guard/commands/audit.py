"""`kidrails audit verify | report`: is the audit log untouched, and what does it count."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

_SHOWN: Final = 5
"""So many places are named for people; all of them for scripts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs and their options."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="verify|report")
    verify = verbs.add_parser("verify", help="find changed, removed or reordered lines")
    report = verbs.add_parser("report", help="write the transparency report")
    report.add_argument("--out", type=Path, default=Path("transparency"), help="folder to write")
    for verb in (verify, report):
        verb.add_argument("folder", type=Path, help="the folder given to `kidrails serve --audit`")
        verb.add_argument("--json", action="store_true", help="for scripts")


def run(args: argparse.Namespace) -> int:
    """Carry the sub-verb out; 1 means that the log was touched."""
    from kidrails_guard.audit import AuditError, iterate_records, log_files, verify

    # A file of the log stands for its folder: the chain runs over all of them.
    folder: Path = args.folder.parent if args.folder.is_file() else args.folder

    if args.what == "verify":
        result = verify(folder)
        if args.json:
            print(json.dumps(asdict(result), indent=2))
        else:
            for problem in result.problems:
                print(problem)
            state = f"{len(result.problems)} problems" if result.problems else "untouched"
            print(f"{result.lines} lines in {result.files} files: {state}")
        return 1 if result.problems else 0
    from kidrails_guard.transparency import write_report

    if not log_files(folder):
        raise AuditError(f"{args.folder}: no audit-*.jsonl in it; name the folder of --audit")
    unreadable: list[str] = []
    months = write_report(iterate_records(folder, unreadable.append), args.out, unreadable)
    if unreadable:
        print(_not_counted(unreadable, folder), file=sys.stderr)
    if args.json:
        found = {"months": [asdict(m) for m in months], "unreadable": unreadable}
        print(json.dumps(found, indent=2))
    else:
        messages = sum(m.messages for m in months)
        print(f"{len(months)} months, {messages} messages: {args.out / 'report.md'}")
    return 1 if unreadable else 0


def _not_counted(places: list[str], folder: Path) -> str:
    """Return what an operator is told of lines that a report leaves out."""
    more = len(places) - _SHOWN
    named = ", ".join(places[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    lines = "1 line is" if len(places) == 1 else f"{len(places)} lines are"
    return (
        f"{folder}: {lines} not of this log and not counted ({named}); run: kidrails audit verify "
        f"{shlex.quote(str(folder))}"
    )
