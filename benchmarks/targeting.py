"""Spectrum's layers against random ones, the bottom ones, LoRA and everything, on SmolLM2 135M.

Usage: python benchmarks/targeting.py [--steps 16] [--seeds 3] [--quarter] [--only lora] [--print]

Every method sees the same rows in the same order for the same number of steps: the seed decides
them, and with `random` also the layers. Each is trained by axolotl from the shipped small recipe,
with only its method, learning rate and lengths changed. What is compared is the loss on held-out
rows that share no conversation with the training rows. LoRA gets ten times the learning rate, as
the recipes for 8B do; its and the others' best rates are not searched for.

Intervals are 95 % t-intervals over the seeds. With three seeds they are wide: differences to
Spectrum are taken run by run with the same seed, which removes what the rows' order does to both.

Resumes: finished runs stay in the result file; --fresh forgets them.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml
from scipy.stats import t as student
from tqdm import tqdm

from kidrails_guard.errors import RecipeError
from kidrails_guard.files import dump_json, sha256_file, write_atomic
from kidrails_guard.recipes.axolotl import axolotl_config
from kidrails_guard.recipes.card import cpu_name, losses
from kidrails_guard.recipes.environment import find_train_python
from kidrails_guard.recipes.launch import follow, read_state, tail
from kidrails_guard.recipes.library import load_recipe
from kidrails_guard.recipes.plan import make_plan
from kidrails_guard.recipes.schema import Lora, Method, Recipe
from kidrails_guard.recipes.training import cpu_overrides
from kidrails_guard.spectrum.checkpoint import ModelIndex, read_index
from kidrails_guard.spectrum.report import read_scan
from kidrails_guard.spectrum.selecting import Request, select
from kidrails_guard.spectrum.targeting import Method as Choice
from kidrails_guard.spectrum.targeting import Selection

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "targeting.json"
MODEL = Path("build/models/smollm2-135m-instruct")
SCAN = Path("build/scans/snr_results_smollm2-135m-instruct.json")
RATE = 3e-4
METHODS: dict[str, tuple[Method, Choice | None, float, float]] = {
    "spectrum 50 %": (Method.SPECTRUM, Choice.TOP, 0.5, RATE),
    "random 50 %": (Method.SPECTRUM, Choice.RANDOM, 0.5, RATE),
    "bottom 50 %": (Method.SPECTRUM, Choice.BOTTOM, 0.5, RATE),
    "spectrum 25 %": (Method.SPECTRUM, Choice.TOP, 0.25, RATE),
    "random 25 %": (Method.SPECTRUM, Choice.RANDOM, 0.25, RATE),
    "lora r16": (Method.LORA, None, 1.0, 10 * RATE),
    "full": (Method.FULL, None, 1.0, RATE),
}


def short_rows(path: Path, count: int, characters: int) -> list[str]:
    """Return short conversations, spread over the file: a CPU pays for every token."""
    lines = path.read_text(encoding="utf-8").splitlines()
    short = [
        line
        for line in lines
        if sum(len(turn["content"]) for turn in json.loads(line)["messages"]) <= characters
    ]
    random.Random(0).shuffle(short)
    return short[:count]


def write_data(folder: Path, *, train: Path, held_out: Path, args: argparse.Namespace) -> None:
    """Write the rows that all runs share."""
    steps = args.steps * args.batch
    rows = short_rows(train, max(steps, 400), args.characters)
    if len(rows) < steps:
        raise RecipeError(f"{train} has only {len(rows)} short rows, {steps} are needed")
    write_atomic(folder / "train.jsonl", "\n".join(rows) + "\n")
    held = short_rows(held_out, args.held_out_rows, args.characters)
    write_atomic(folder / "held_out.jsonl", "\n".join(held) + "\n")


def make_recipe(name: str, seed: int, folder: Path, *, args: argparse.Namespace) -> Recipe:
    """Return the small recipe with one method, seed and the shared rows."""
    method, _, _, rate = METHODS[name]
    base = load_recipe("kidrails-small")
    training = base.training.model_copy(
        update={
            "learning_rate": rate,
            "max_steps": args.steps,
            "epochs": 9.0,
            "micro_batch": 1,
            "accumulation": args.batch,
            "save_every": args.steps,
            "seed": seed,
        }
    )
    data = base.data.model_copy(
        update={
            "train": str(folder / "train.jsonl"),
            "held_out": str(folder / "held_out.jsonl"),
            "held_out_part": 1,
        }
    )
    return base.model_copy(
        update={
            "method": method,
            "selection": base.selection if method is Method.SPECTRUM else None,
            "lora": Lora() if method is Method.LORA else None,
            "training": training,
            "data": data,
            "base_model": str(MODEL),
            "output": str(folder / "output"),
        }
    )


def choose(name: str, seed: int, index: ModelIndex) -> Selection | None:
    """Return the layers of a method, None where it takes no layers."""
    _, choice, fraction, _ = METHODS[name]
    if choice is None:
        return None
    return select(read_scan(SCAN), index, Request(method=choice, fraction=fraction, seed=seed))


def run_once(name: str, seed: int, folder: Path, *, args: argparse.Namespace) -> dict[str, Any]:
    """Train one method with one seed and return its losses."""
    index = read_index(MODEL)
    recipe = make_recipe(name, seed, folder, args=args)
    selection = choose(name, seed, index)
    plan = make_plan(recipe, selection, index)
    config = axolotl_config(recipe, selection)
    # A checkpoint only for the trainer's own log; the optimizer's states are not needed.
    config |= {"save_only_model": True, "dataset_prepared_path": str(folder / f"prepared-{seed}")}
    config |= cpu_overrides(config)
    file = folder / "run.yml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    output = folder / "output"
    shutil.rmtree(output, ignore_errors=True)
    command = [str(find_train_python()), "-m", "axolotl.cli.train", str(file)]
    outcome = follow(command, root=ROOT, log=folder / "log", offline=True)
    state = read_state(output)
    if outcome.status != 0 or not state:
        raise RecipeError(f"{name}, seed {seed}: axolotl failed:\n{tail(folder / 'log')}")
    train, held = losses(state["log_history"])
    shutil.rmtree(output)
    return {
        "method": name,
        "seed": seed,
        "trainable": plan.trainable,
        "share": plan.share,
        "before": held[0][1],
        "after": held[-1][1],
        "train_loss": [value for _, value in train],
        "seconds": round(outcome.seconds, 1),
        "peak_mb": outcome.peak_mb,
    }


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % t-interval (infinite for one value)."""
    if len(values) < 2:
        return fmean(values), float("inf")
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return fmean(values), half


def shown(mean: float, half: float, *, sign: str = "") -> str:
    """Return a mean with its interval."""
    return f"{mean:{sign}.4f} ± {half:.4f}" if half != float("inf") else f"{mean:{sign}.4f}"


def table(runs: list[dict[str, Any]]) -> list[str]:
    """Return the comparison as lines of Markdown."""
    found = {(run["method"], run["seed"]): run for run in runs}
    lines = [
        "| method | trained share | held-out before | after (95 %) | minus Spectrum 50 % (95 %) |",
        "|---|---|---|---|---|",
    ]
    for name in METHODS:
        mine = [run for run in runs if run["method"] == name]
        if not mine:
            continue
        differences = [
            run["after"] - found["spectrum 50 %", run["seed"]]["after"]
            for run in mine
            if ("spectrum 50 %", run["seed"]) in found
        ]
        gap = (
            ""
            if name == "spectrum 50 %" or not differences
            else shown(*interval(differences), sign="+")
        )
        after = shown(*interval([run["after"] for run in mine]))
        before = fmean(run["before"] for run in mine)
        lines.append(f"| {name} | {mine[0]['share']:.1%} | {before:.4f} | {after} | {gap} |")
    return lines


def read_results(settings: dict[str, Any], *, fresh: bool) -> list[dict[str, Any]]:
    """Return the finished runs of the same settings."""
    if fresh or not RESULT.is_file():
        return []
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    return list(found["runs"]) if found["settings"] == settings else []


def main() -> int:
    """Run what is missing, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=2, help="rows a step")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--characters", type=int, default=700, help="most a row may have")
    parser.add_argument("--held-out-rows", type=int, default=32)
    parser.add_argument("--only", default="", help="methods, by the first word of their name")
    parser.add_argument("--quarter", action="store_true", help="a quarter of the layers, too")
    parser.add_argument("--fresh", action="store_true", help="forget finished runs")
    parser.add_argument("--print", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if args.print:
        print("\n".join(table(json.loads(RESULT.read_text(encoding="utf-8"))["runs"])))
        return 0
    needed = {
        MODEL: f"kidrails engine --export {MODEL}",
        SCAN: f"kidrails spectrum scan {MODEL} --out {SCAN.parent}",
    }
    for path, command in needed.items():
        if not path.exists():
            print(f"{path} is missing; run: {command}", file=sys.stderr)
            return 2
    data = {name: ROOT / "build" / "data" / name for name in ("sft.jsonl", "sft.dev.jsonl")}
    settings = {
        "steps": args.steps,
        "batch": args.batch,
        "characters": args.characters,
        "held_out_rows": args.held_out_rows,
        "learning_rate": RATE,
        "data": {name: sha256_file(path) for name, path in data.items()},
        "scan": sha256_file(SCAN),
    }
    runs = read_results(settings, fresh=args.fresh)
    wanted = [w for w in args.only.split(",") if w]
    todo = [
        (name, seed)
        for seed in range(1, args.seeds + 1)
        for name in METHODS
        if (not wanted or name.split()[0] in wanted)
        and (args.quarter or "25 %" not in name)
        and not any(r["method"] == name and r["seed"] == seed for r in runs)
    ]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kidrails-targeting-") as name:
        folder = Path(name)
        write_data(folder, train=data["sft.jsonl"], held_out=data["sft.dev.jsonl"], args=args)
        for method, seed in tqdm(todo, desc="runs", disable=None):
            runs.append(run_once(method, seed, folder, args=args))
            dump_json(
                RESULT,
                {
                    "what": "held-out loss by method; see benchmarks/targeting.py",
                    "machine": {"cpu": cpu_name(), "gpu": "not used"},
                    "settings": settings,
                    "runs": runs,
                },
            )
    print("\n".join(table(runs)))
    print(f"\n{len(todo)} runs in {time.monotonic() - began:.0f} s; written: {RESULT}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
