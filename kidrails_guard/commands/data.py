"""`kidrails data`: build, check, stamp and describe the golden data."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from kidrails_guard.commands.data_generate import generate, generate_arguments
from kidrails_guard.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `kidrails data`."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="VERB")

    build = verbs.add_parser("build", help="every training file from the hand-written ones")
    build.add_argument("--out", type=Path, default=Path("build/data"), metavar="DIR")
    build.add_argument("--seed", type=int, default=7, help="default 7")
    build.add_argument("--per-row", type=int, default=3, metavar="N", help="conversations a row")
    build.add_argument(
        "--per-answer", type=int, default=1, metavar="N", help="conversations a good reply"
    )
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

    made = verbs.add_parser("generate", help="new conversations by a model, or offline")
    generate_arguments(made)

    validate = verbs.add_parser("validate", help="check golden rows: schema, labels, replies")
    validate.add_argument("files", type=Path, nargs="*", metavar="FILE", help="default: all")
    validate.add_argument("--json", action="store_true", help="print JSON")

    stamp = verbs.add_parser("stamp", help="write id, case, split and provenance into golden rows")
    stamp.add_argument("--check", action="store_true", help="change nothing; 1 if anything would")

    schema = verbs.add_parser("schema", help="write data/schema.json from the models")
    schema.add_argument("--check", action="store_true", help="change nothing; 1 if anything would")

    card = verbs.add_parser("card", help="count the tables of data/README.md anew")
    card.add_argument("--check", action="store_true", help="change nothing; 1 if anything would")

    words = verbs.add_parser("words", help="make the word lists of data/lexicons anew")
    words.add_argument("--check", action="store_true", help="change nothing; 1 if anything would")
    words.add_argument(
        "--scowl", type=Path, metavar="PATH", help="SCOWL's folder or tar file, for rare words"
    )

    fetch = verbs.add_parser("fetch", help="check public sets in a folder, or download them")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="default: all of data/sources.yaml")
    fetch.add_argument("--from", dest="origin", type=Path, metavar="DIR", help="a local folder")
    fetch.add_argument("--to", type=Path, metavar="DIR", help="copy or download there")
    fetch.add_argument(
        "--accept-unpinned", action="store_true", help="keep downloads without a recorded sum"
    )
    fetch.add_argument("--json", action="store_true", help="print JSON")

    imports = verbs.add_parser("import", help="read others' conversations into rows for review")
    imports.add_argument("file", type=Path, metavar="FILE", help="JSON, JSON lines or CSV")
    imports.add_argument(
        "--out", type=Path, default=Path("build/data/review.jsonl"), metavar="FILE"
    )
    imports.add_argument("--format", choices=("upstream-seed", "columns", "sharegpt", "messages"))
    imports.add_argument(
        "--map",
        default="",
        metavar="OURS=THEIRS,…",
        help="for columns: age, question, reply, system_prompt, conversation",
    )
    imports.add_argument("--source", required=True, help="where the file comes from")
    imports.add_argument("--licence", required=True, help="SPDX name, or what the publisher says")
    imports.add_argument("--claimed", choices=("safe", "unsafe", "unknown"), default="unknown")


def run(args: argparse.Namespace) -> int:
    """Run `kidrails data` and return its exit status."""
    actions = {
        "build": _build,
        "generate": generate,
        "validate": _validate,
        "stamp": _stamp,
        "schema": _schema,
        "card": _card,
        "words": _words,
        "fetch": _fetch,
        "import": _import,
    }
    return actions[args.action](args)


def _build(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from kidrails_guard.golden.build import BuildOptions, build

    if min(args.per_row, args.per_answer, args.per_text) < 0:
        raise UsageError("--per-row, --per-answer and --per-text: 0 or more")
    with tqdm(unit=" rows", disable=None, file=sys.stderr) as bar:

        def progress(part: str, count: int) -> None:
            bar.set_description(part)
            bar.update(max(0, count - bar.n))

        result = build(
            BuildOptions(
                out=args.out,
                seed=args.seed,
                per_row=args.per_row,
                per_answer=args.per_answer,
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
    public = result.manifest["trained_on_public_sets"]
    for said in public:
        print(f"{said['rows']:>7,} of {said['rows_read']:,} rows  public set {said['name']}")
        for reason, count in said["left_out"].items():
            print(f"{count:>7,} left out: {reason}")
    if args.sources is not None and not public:
        print(
            f"--sources {args.sources}: holds no public set that may be trained on; what it should "
            f"hold says: kidrails data fetch --from {args.sources}",
            file=sys.stderr,
        )
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


def _stamp(args: argparse.Namespace) -> int:
    from kidrails_guard.golden.stamp import stamp

    changed = stamp(check=args.check)
    return _changed([str(path) for path in changed], args.check, "kidrails data stamp")


def _schema(args: argparse.Namespace) -> int:
    from kidrails_guard.content import content_path
    from kidrails_guard.files import holds, write_atomic
    from kidrails_guard.golden.schema import json_schema

    path = content_path("data/schema.json")
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    same = holds(path, text)
    if not same and not args.check:
        write_atomic(path, text)
    return _changed([] if same else [str(path)], args.check, "kidrails data schema")


def _card(args: argparse.Namespace) -> int:
    from kidrails_guard.golden.card import blocks, update_card

    for name, make in blocks().items():
        print(f"{name}\n\n{make()}")
    changed = ["data/README.md"] if update_card(check=args.check) else []
    return _changed(changed, args.check, "kidrails data card")


def _words(args: argparse.Namespace) -> int:
    from kidrails_guard.errors import DataError
    from kidrails_guard.word_lists import check_lists, read_scowl, update_lists

    scowl = None
    try:
        scowl = read_scowl(args.scowl)
    except DataError as error:
        if args.scowl is not None:
            raise
        print(f"no rare words are added: {error}", file=sys.stderr)
    if not args.check:
        return _changed(update_lists(scowl), False, "kidrails data words")
    wrong = check_lists(scowl)
    print("\n".join([*wrong, "run: kidrails data words"] if wrong else ["up to date"]))
    return 1 if wrong else 0


def _changed(files: list[str], check: bool, command: str) -> int:
    for name in files:
        print(f"{name}: {f'is not up to date; run: {command}' if check else 'written'}")
    if not files:
        print("up to date", file=sys.stderr)
    return 1 if files and check else 0


def _fetch(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from kidrails_guard.golden.fetch import GOOD, Fetched, check_folder, chosen, download

    if args.origin is None and args.to is None:
        raise UsageError("fetch: give --from DIR to check a folder, or --to DIR to download")
    if args.origin is not None and not args.origin.is_dir():
        raise UsageError(f"fetch: --from {args.origin}: there is no such folder")
    found: list[Fetched] = []
    for source in chosen(args.names):
        if args.origin is not None:
            found.append(check_folder(source, args.origin, copy_to=args.to))
        else:
            found.append(download(source, args.to, accept_unpinned=args.accept_unpinned))
    if args.json:
        print(json.dumps([asdict(item) for item in found], indent=2, ensure_ascii=False))
    else:
        for item in found:
            print(f"{item.state:<11} {item.name:<24} {item.path or item.detail}")
    # Named sets are wanted; of all sets, those that are not at hand are no mistake.
    bad = [f for f in found if f.state not in GOOD and (args.names or f.state == "wrong sum")]
    return 1 if bad else 0


def _import(args: argparse.Namespace) -> int:
    from kidrails_guard.golden.importers import (
        guess_format,
        import_records,
        write_review,
    )
    from kidrails_guard.golden.records import read_records

    pairs = [part.partition("=") for part in args.map.split(",") if part]
    wrong = [part for part in pairs if not part[1]]
    if wrong:
        raise UsageError(f"--map {wrong[0][0]!r}: needs OURS=THEIRS, e.g. question=prompt")
    records = read_records(args.file)
    imported = import_records(
        records,
        form=args.format or guess_format(records),
        source=args.source,
        licence=args.licence,
        columns={ours.strip(): theirs.strip() for ours, _, theirs in pairs},
        claimed=args.claimed,
    )
    write_review(args.out, imported)
    for reason, count in imported.dropped.items():
        print(f"{count:>7,} left out: {reason}")
    print(f"{len(imported.rows):,} of {len(records):,} rows wait for review: {args.out}")
    return 0
