"""`kidrails doctor`: what is installed, what is missing and the command for it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kidrails_guard.diagnosis import Item

_SIGN: Final = {"ok": "ok      ", "missing": "missing ", "problem": "PROBLEM ", "note": "note    "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kidrails doctor`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis; 1 when `kidrails up` lacks something."""
    from kidrails_guard.diagnosis import diagnose

    found = diagnose()
    if args.json:
        print(json.dumps(found.as_json(), indent=2))
        return 0 if found.ok else 1
    print(f"KidRails {found.version}\n\nfor `kidrails up`")
    _print_all([item for item in found.items if item.required])
    print("\nfor more than that")
    _print_all([item for item in found.items if not item.required])
    print(
        "\n`kidrails up` has what it needs."
        if found.ok
        else "\n`kidrails up` lacks something: run the commands above, then this again."
    )
    return 0 if found.ok else 1


def _print_all(items: list[Item]) -> None:
    width = max(len(item.name) for item in items)
    for item in items:
        print(f"  {_SIGN[item.state]}{item.name:<{width}}  {item.detail}")
        if item.command and item.state != "ok":
            purpose = f"   # {item.purpose}" if item.purpose else ""
            print(f"  {'':8}{'':<{width}}  → {item.command}{purpose}")
