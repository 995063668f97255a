"""`kidrails recipe`: list, show, render, validate and copy training recipes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from kidrails_guard.commands.options import at_least
from kidrails_guard.errors import RecipeError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kidrails recipe`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    listing = verbs.add_parser("list", help="the recipes that ship")
    listing.add_argument("--json", action="store_true", help="print JSON")

    show = verbs.add_parser("show", help="what one recipe does, or its rendered file")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--json", action="store_true", help="print JSON")

    render = verbs.add_parser("render", help="render a recipe, or all that ship")
    render.add_argument("name", metavar="NAME", nargs="?", help="a recipe, or a spec file of yours")
    render.add_argument("--all", action="store_true", help="all that ship, into recipes/")
    render.add_argument("--to", choices=("axolotl", "unsloth"), default="axolotl")
    render.add_argument("--base-model", metavar="DIR", help="another base model")
    render.add_argument("--selection", metavar="FILE", type=Path, help="other layers")
    render.add_argument("-o", "--out", metavar="FILE", type=Path, help="write there, not to stdout")
    render.add_argument(
        "--check", action="store_true", help="compare with the files in recipes/, write nothing"
    )

    validate = verbs.add_parser("validate", help="preflight: everything that can be wrong before")
    validate.add_argument("recipes", metavar="RECIPE", nargs="+", help="files or names")
    validate.add_argument(
        "--gpu", default=None, metavar="KIND", help="h100, a100, l40s, rtx4090, t4 or cpu"
    )
    validate.add_argument("--gpus", type=at_least(1), default=None, metavar="N", help="how many")
    validate.add_argument("--base-model", metavar="DIR", help="a local copy of the base model")
    validate.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="change a key (repeatable)"
    )
    validate.add_argument(
        "--without-axolotl", action="store_true", help="leave out what only axolotl can say"
    )
    validate.add_argument("--json", action="store_true", help="print JSON")

    copy = verbs.add_parser("copy", help="copy a rendered recipe, to change it")
    copy.add_argument("name", metavar="NAME")
    copy.add_argument("file", metavar="FILE", type=Path)

    rows = verbs.add_parser("guard-rows", help="the guard model's training rows, as conversations")
    rows.add_argument("--data", metavar="FILE", type=Path, default=Path("build/data/guard.jsonl"))
    rows.add_argument("--out", metavar="DIR", type=Path, help="default: beside FILE")
    rows.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run `kidrails recipe` and return its exit status."""
    verbs = {
        "list": _list,
        "show": _show,
        "render": _render,
        "validate": _validate,
        "copy": _copy,
        "guard-rows": _guard_rows,
    }
    return verbs[args.verb](args)


def _list(args: argparse.Namespace) -> int:
    from kidrails_guard.recipes.gallery import overview

    rows = overview()
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['title']}; {row['needs']}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from kidrails_guard.recipes.gallery import render_shipped
    from kidrails_guard.recipes.library import load_recipe

    recipe = load_recipe(args.name)
    print(recipe.model_dump_json(indent=2) if args.json else render_shipped(args.name), end="")
    if args.json:
        print()
    return 0


def _render(args: argparse.Namespace) -> int:
    from kidrails_guard.files import write_atomic
    from kidrails_guard.recipes.gallery import render_one, shipped_files

    if args.all and (args.name or args.base_model or args.selection or args.out):
        raise UsageError("--all writes what ships, as it is: leave NAME and the other options out")
    if args.all or (args.check and not args.name):
        return _render_all(check=args.check, files=shipped_files())
    if not args.name:
        raise RecipeError("render what? Give a NAME, or --all; see: kidrails recipe list")
    text = render_one(
        args.name,
        to=args.to,
        base_model=args.base_model,
        selection_file=args.selection,
        file=args.out,
    )
    if args.check and args.out is not None:
        return _render_all(check=True, files={args.out: text}, again=f"{args.name} -o {args.out}")
    if args.check and Path(args.name).suffix:
        raise UsageError(f"--check {args.name}: compare it with what? Give the file: -o FILE")
    if args.check:
        from kidrails_guard.content import content_root

        suffix = "yml" if args.to == "axolotl" else "py"
        folder = "recipes" if args.to == "axolotl" else "recipes/unsloth"
        stem = args.name if suffix == "yml" else args.name.replace("-", "_")
        return _render_all(check=True, files={content_root() / folder / f"{stem}.{suffix}": text})
    if args.out is None:
        print(text, end="")
        return 0
    if args.out.exists() and Path(args.name).exists() and args.out.samefile(args.name):
        raise UsageError(f"-o {args.out} would overwrite the spec that it is rendered from")
    try:
        write_atomic(args.out, text)
    except OSError as error:
        raise RecipeError(f"cannot write {args.out}: {error.strerror}") from None
    if args.to == "axolotl":
        print(f"written: {args.out}; next: kidrails recipe validate {args.out}")
    else:
        print(f"written: {args.out}; next: python {args.out}")
    return 0


def _render_all(*, check: bool, files: dict[Path, str], again: str = "--all") -> int:
    from kidrails_guard.files import holds, write_atomic

    stale = [path for path, text in files.items() if not holds(path, text)]
    if check:
        for path in stale:
            print(f"differs from its spec: {path}; run: kidrails recipe render {again}")
        print(f"{len(files) - len(stale)} of {len(files)} rendered files are as their specs say")
        return 1 if stale else 0
    for path in stale:
        try:
            write_atomic(path, files[path])
        except OSError as error:
            raise RecipeError(f"cannot write {path}: {error.strerror}") from None
    print(f"{len(stale)} written, {len(files) - len(stale)} as they were")
    return 0


def _validate(args: argparse.Namespace) -> int:
    from kidrails_guard.recipes.axolotl_checks import CAPABILITIES
    from kidrails_guard.recipes.preflight import Machine, meant_machine, preflight
    from kidrails_guard.recipes.rendered import load_rendered, parse_overrides

    changes = parse_overrides(args.set)
    if args.base_model:
        changes["base_model"] = args.base_model
    recipes = [load_rendered(name).override(changes) for name in args.recipes]
    if args.gpu is not None and args.gpu not in CAPABILITIES:
        raise RecipeError(f"--gpu {args.gpu!r} is not one of {', '.join(CAPABILITIES)}")
    if args.gpu == "cpu" and args.gpus:
        raise UsageError(f"--gpus {args.gpus}: a cpu has none; leave it out, or name a --gpu")
    if args.gpu:
        machine = Machine(args.gpu, args.gpus or (0 if args.gpu == "cpu" else 1))
        machines = [machine] * len(recipes)
    else:
        machines = [meant_machine(recipe, gpus=args.gpus) for recipe in recipes]
    reports = preflight(
        recipes,
        machines=machines,
        root=Path.cwd(),
        with_axolotl=not args.without_axolotl,
    )
    if args.json:
        print(json.dumps([report.to_json() for report in reports], indent=2))
    else:
        for report in reports:
            print(f"{report.recipe}: {'may start' if report.ok else 'must not start'}")
            print("\n".join(f"  {line}" for line in report.lines()))
    return 0 if all(report.ok for report in reports) else 1


def _copy(args: argparse.Namespace) -> int:
    from kidrails_guard.files import write_atomic
    from kidrails_guard.recipes.gallery import render_one

    if args.file.exists():
        raise RecipeError(f"{args.file} exists and is not overwritten; give another name")
    text = render_one(args.name, file=args.file)
    try:
        write_atomic(args.file, text)
    except OSError as error:
        raise RecipeError(f"cannot write {args.file}: {error.strerror}") from None
    print(f"written: {args.file}; it is yours. Next: kidrails recipe validate {args.file}")
    print(
        "the line '# kidrails-plan' says what it means to train: remove it when you change that",
        file=sys.stderr,
    )
    return 0


def _guard_rows(args: argparse.Namespace) -> int:
    from kidrails_guard.recipes.judge_format import write_rows

    folder = args.out or args.data.parent
    try:
        counts = write_rows(args.data, folder)
    except OSError as error:
        raise RecipeError(f"cannot write into {folder}: {error.strerror}") from None
    if args.json:
        print(json.dumps(counts, indent=2))
    else:
        print("\n".join(f"{count:>7,} rows  {folder / name}" for name, count in counts.items()))
    return 0
