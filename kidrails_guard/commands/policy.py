"""`kidrails policy`: validate, show or compare policies; write their JSON schema."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kidrails_guard.policy import Policy

SCHEMA = "serve/policies/schema.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and options of `kidrails policy`."""
    verbs = parser.add_subparsers(dest="what", metavar="VERB", required=True)
    validate = verbs.add_parser("validate", help="check policies and everything they name")
    validate.add_argument("files", metavar="FILE", nargs="*", help="default: the one that ships")
    show = verbs.add_parser("show", help="print a policy as the guard reads it (YAML)")
    show.add_argument("file", metavar="FILE", nargs="?", help="default: the one that ships")
    diff = verbs.add_parser("diff", help="what two policies say differently; exit 1 if they do")
    diff.add_argument("old", metavar="A")
    diff.add_argument("new", metavar="B", nargs="?", help="default: the one that ships comes first")
    schema = verbs.add_parser("schema", help="write the JSON schema that editors use")
    schema.add_argument("--out", metavar="FILE", type=Path, help=f"default: {SCHEMA}")
    schema.add_argument("--check", action="store_true", help="only say whether it is up to date")
    for verb in (validate, show, diff, schema):
        verb.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run `kidrails policy` and return its exit status."""
    return {"validate": _validate, "show": _show, "diff": _diff, "schema": _schema}[args.what](args)


def _validate(args: argparse.Namespace) -> int:
    from kidrails_guard.answers import load_answers, load_helplines
    from kidrails_guard.errors import KidRailsError
    from kidrails_guard.guard import Guard
    from kidrails_guard.policy import load_policy
    from kidrails_guard.types import Hazard

    records = []
    for name in args.files or [None]:
        shown = name or "the policy that ships"
        try:
            policy = load_policy(name)
            Guard(policy)  # loads checks, rules, answers
            load_answers(policy.locale)
        except KidRailsError as error:
            # What a policy only names (answers, checks) does not know which policy named it.
            said = str(error) if name and str(error).startswith(name) else f"{shown}: {error}"
            records.append({"file": shown, "valid": False, "error": said})
            continue
        record: dict[str, Any] = {"file": shown, "valid": True, "digest": policy.digest()}
        if policy.country and not load_helplines().find(policy.country, Hazard.SELF_HARM):
            record["warning"] = f"country: no helpline is known for {policy.country!r}"
        records.append(record)
    if args.json:
        print(json.dumps(records, indent=2, ensure_ascii=False))
    else:
        for record in records:
            if record["valid"]:
                print(f"{record['file']}: valid, digest {record['digest'][:12]}")
                if "warning" in record:
                    print(f"  note: {record['warning']}")
            else:
                print(record["error"], file=sys.stderr)
    return 0 if all(record["valid"] for record in records) else 1


def _show(args: argparse.Namespace) -> int:
    from kidrails_guard.policy import load_policy

    record = policy_record(load_policy(args.file))
    if args.json:
        print(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        import yaml

        print(yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=98), end="")
    return 0


def policy_record(policy: Policy) -> dict[str, Any]:
    """Return a policy as plain values with the names that a policy file uses."""
    from enum import Enum

    from kidrails_guard.types import Action, Severity

    def plain(value: Any) -> Any:
        if isinstance(value, Action | Severity):
            return value.label
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, dict):
            return {plain(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    record: dict[str, Any] = plain(policy.model_dump(mode="python"))
    return record


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {
            k: v for name, item in value.items() for k, v in _flat(item, f"{key}.{name}").items()
        }
    if (
        isinstance(value, list)
        and value
        and all(isinstance(v, dict) and "name" in v for v in value)
    ):
        return _flat({item["name"]: item for item in value}, key)
    return {key.removeprefix("."): value}


def compare(old: Policy, new: Policy) -> list[dict[str, Any]]:
    """Return every key that two policies say differently, with both values."""
    before, after = _flat(policy_record(old)), _flat(policy_record(new))
    keys = list(dict.fromkeys([*before, *after]))
    return [
        {"key": key, "old": before.get(key), "new": after.get(key)}
        for key in keys
        if before.get(key) != after.get(key) or (key in before) != (key in after)
    ]


def _diff(args: argparse.Namespace) -> int:
    from kidrails_guard.policy import load_policy

    old, new = (None, args.old) if args.new is None else (args.old, args.new)
    changes = compare(load_policy(old), load_policy(new))
    if args.json:
        print(json.dumps(changes, indent=2, ensure_ascii=False))
    else:
        for change in changes:
            print(f"{change['key']}: {_short(change['old'])} -> {_short(change['new'])}")
        print(f"{len(changes)} differences")
    return 1 if changes else 0


def _short(value: Any) -> str:
    shown = "nothing" if value is None else str(value)
    return shown if len(shown) < 70 else shown[:67] + "..."


def _schema(args: argparse.Namespace) -> int:
    from kidrails_guard.content import content_path
    from kidrails_guard.files import dump_json
    from kidrails_guard.policy import policy_schema

    path = args.out or content_path(SCHEMA)
    wanted = policy_schema()
    try:
        same = json.loads(path.read_text(encoding="utf-8")) == wanted
    except (OSError, ValueError):
        same = False
    if not args.check:
        dump_json(path, wanted)
    state = "up to date" if same else ("stale" if args.check else "written")
    line = {"file": str(path), "state": state}
    hint = "; run: kidrails policy schema" if state == "stale" else ""
    print(json.dumps(line) if args.json else f"{path}: {state}{hint}")
    return 1 if args.check and not same else 0
