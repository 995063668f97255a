"""`kidrails keys add | list | revoke`: the API keys of the proxy."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from kidrails_guard.errors import KeysError

DEFAULT_FILE = "keys.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs and their options."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="add|list|revoke")
    add = verbs.add_parser("add", help="make a key; it is shown once")
    add.add_argument("name", help="letters, digits, . _ -; stands in logs and metrics")
    add.add_argument("--band", required=True, help="5-6, 7-9 or 10-12")
    add.add_argument("--policy", help="a policy file of its own, relative to the key file")
    add.add_argument("--locale", help="language of the fixed answers, e.g. de")
    add.add_argument("--country", help="for helplines, e.g. DE")
    add.add_argument("--requests-per-minute", type=int)
    add.add_argument("--body-bytes", type=int)
    listed = verbs.add_parser("list", help="show the keys' names, never the keys")
    revoke = verbs.add_parser("revoke", help="let a key in no more")
    revoke.add_argument("name")
    for verb in (add, listed, revoke):
        verb.add_argument("--file", type=Path, default=Path(DEFAULT_FILE), help="the key file")
        verb.add_argument("--json", action="store_true", help="for scripts")


def run(args: argparse.Namespace) -> int:
    """Carry the sub-verb out."""
    from kidrails_guard.proxy.keys import changing

    path: Path = args.file
    if args.what == "list":
        return _list(path, as_json=args.json)
    with changing(path):
        return _change(args, path)


def _change(args: argparse.Namespace, path: Path) -> int:
    """Add or revoke a key."""
    from datetime import UTC, datetime

    from kidrails_guard.answers import load_helplines
    from kidrails_guard.policy import load_policy
    from kidrails_guard.proxy.keys import (
        KeyFile,
        KeyLimits,
        key_policy,
        load_keys,
        new_key,
        save_keys,
    )
    from kidrails_guard.types import AgeBand, Hazard

    keys = load_keys(path) if path.exists() or args.what == "revoke" else KeyFile()
    if args.what == "add":
        if args.band not in set(AgeBand):
            accepted = ", ".join(AgeBand)
            raise KeysError(f"--band: {args.band!r} is not a band; accepted: {accepted}")
        if any(k.name == args.name and k.revoked_on is None for k in keys.keys):
            raise KeysError(
                f"{path}: {args.name!r} has a key; run: kidrails keys revoke {args.name}"
            )
        for option in ("requests_per_minute", "body_bytes"):
            if getattr(args, option) is not None and getattr(args, option) < 1:
                raise KeysError(f"--{option.replace('_', '-')}: at least 1 is accepted")
        given = {"requests_per_minute": args.requests_per_minute, "body_bytes": args.body_bytes}
        limits = KeyLimits(**{k: v for k, v in given.items() if v is not None})
        key, entry = new_key(
            args.name, AgeBand(args.band), policy=args.policy, locale=args.locale,
            country=args.country, limits=limits,
        )  # fmt: skip
        policy = key_policy(path, entry, load_policy())  # as the service will load it
        save_keys(path, KeyFile(keys=(*keys.keys, entry)))
        if policy.country and not load_helplines().find(policy.country, Hazard.SELF_HARM):
            print(f"note: country: no helpline is known for {policy.country!r}", file=sys.stderr)
        print(json.dumps({"name": entry.name, "key": key}) if args.json else key)
        print(f"kept hashed in {path}; the key is shown this once", file=sys.stderr)
        return 0
    live = [k for k in keys.keys if k.name == args.name and k.revoked_on is None]
    if not live:
        known = ", ".join(k.name for k in keys.keys if k.revoked_on is None) or "none"
        raise KeysError(f"{path}: no key in use is called {args.name!r}; in use: {known}")
    today = datetime.now(UTC).date()
    changed = tuple(
        k.model_copy(update={"revoked_on": today}) if k in live else k for k in keys.keys
    )
    save_keys(path, KeyFile(keys=changed))
    print(json.dumps({"revoked": args.name}) if args.json else f"revoked {args.name}")
    return 0


def _list(path: Path, *, as_json: bool) -> int:
    """Show the keys; 1 means that one in use cannot be served."""
    from kidrails_guard.policy import load_policy
    from kidrails_guard.proxy.keys import key_policy, load_keys

    default, rows = load_policy(), []
    for key in load_keys(path).keys:
        problem = None
        if key.revoked_on is None:
            try:
                key_policy(path, key, default)
            except KeysError as error:
                problem = str(error)
        rows.append(
            {
                "name": key.name,
                "id": key.id,
                "band": str(key.band),
                "policy": key.policy,
                "created_on": str(key.created_on),
                "revoked_on": str(key.revoked_on) if key.revoked_on else None,
                "problem": problem,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
    for row in [] if as_json else rows:
        state = f"revoked on {row['revoked_on']}" if row["revoked_on"] else "in use"
        if row["problem"]:
            state = f"cannot be served: {row['problem']}"
        print(f"{row['name']:<24} kr_{row['id']}_…  ages {row['band']:<6} {state}")
    return int(any(row["problem"] for row in rows))
