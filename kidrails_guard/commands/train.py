"""`kidrails train`: preflight, axolotl through accelerate, the proof of what changed, a card."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kidrails_guard.commands.options import at_least

if TYPE_CHECKING:
    from kidrails_guard.recipes.findings import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kidrails train`."""
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help="a rendered recipe: its file, or the name of one that ships",
    )
    parser.add_argument(
        "--on",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="cpu changes the keys that need a GPU (default: what torch finds)",
    )
    parser.add_argument("--base-model", metavar="DIR", help="train this base instead")
    parser.add_argument("--output", metavar="DIR", help="write the model there instead")
    parser.add_argument("--data", metavar="FILE", help="learn from this JSONL file instead")
    parser.add_argument("--max-steps", metavar="N", type=at_least(1), help="stop after N steps")
    parser.add_argument(
        "--fresh", action="store_true", help="move an older run aside instead of going on with it"
    )
    parser.add_argument(
        "--accelerate",
        metavar="OPTIONS",
        default="",
        help='for accelerate, e.g. "--config_file recipes/accelerate/eight-gpus.yaml"',
    )
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change any key of axolotl's, e.g. --set learning_rate=1e-5 (repeatable)",
    )


def run(args: argparse.Namespace) -> int:
    """Run `kidrails train` and return its exit status."""
    from kidrails_guard.errors import RecipeError
    from kidrails_guard.recipes.environment import find_train_python
    from kidrails_guard.recipes.preflight import Machine, this_machine
    from kidrails_guard.recipes.rendered import load_rendered, parse_overrides
    from kidrails_guard.recipes.training import Settings, train

    recipe = load_rendered(args.recipe)
    changes = {
        "base_model": args.base_model,
        "output_dir": args.output,
        "max_steps": args.max_steps,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    changes |= parse_overrides(args.set)
    if args.data:
        recipe = recipe.with_data(args.data)
    recipe = recipe.override(changes)
    accelerate = _words(args.accelerate)
    python = find_train_python()
    machine = Machine.cpu() if args.on == "cpu" else this_machine(python)
    if args.on == "gpu" and machine.gpus == 0:
        raise RecipeError("--on gpu: torch finds no GPU here; --on cpu trains without one")

    def say(report: Report) -> None:
        print("\n".join(report.lines()), file=sys.stderr)

    # As Ctrl-C: whichever way we are asked to end, the trainer ends with us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from tqdm import tqdm

    with tqdm(desc=recipe.name, unit=" steps", disable=None) as bar:

        def progress(done: int, total: int, loss: float | None) -> None:
            bar.total = total
            bar.update(max(0, done - bar.n))
            if loss is not None:
                bar.set_postfix(loss=f"{loss:.3f}")

        trained = train(
            recipe,
            Settings(
                machine=machine,
                root=Path.cwd(),
                python=python,
                fresh=args.fresh,
                accelerate=accelerate,
            ),
            say=say,
            progress=progress,
        )
    record = trained.record
    if args.json:
        print(json.dumps({**record.to_json(), "complaints": trained.complaints}, indent=2))
    else:
        change = record.held_out_change
        held = f", held-out loss {change[0]:.3f} -> {change[1]:.3f}" if change else ""
        state = "already trained" if trained.reused else "trained"
        print(
            f"{state}: {record.steps} steps{held}; tensors: {record.tensors}; in {trained.output}"
        )
        for complaint in trained.complaints:
            print(f"PROBLEM: {complaint}")
    return 1 if trained.complaints else 0


def _words(text: str) -> tuple[str, ...]:
    import shlex

    from kidrails_guard.errors import UsageError

    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--accelerate {text!r}: {error}") from None
