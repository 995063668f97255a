"""`kidrails guard`: train the guard's classifier, or measure one."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from kidrails_guard.classifier.settings import Settings
from kidrails_guard.commands.options import at_least
from kidrails_guard.errors import MissingDependency, UsageError

USUAL = Settings()
TRAIN_PYTHON = Path(".venv-train/bin/python")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kidrails guard`."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="train|evaluate")
    train = verbs.add_parser(
        "train", help="rebuild the classifier from the data (CPU: under an hour a run)"
    )
    train.add_argument("--data", type=Path, metavar="DIR", help="default: the shipped data folder")
    train.add_argument(
        "--public",
        type=Path,
        metavar="DIR",
        help="folder with the public sets (`kidrails data fetch`); default: $KIDRAILS_SHARED/"
        "datasets, then ../shared/datasets; without one the project's own rows train alone",
    )
    train.add_argument("--out", type=Path, metavar="DIR", default=Path("build/classifier"))
    train.add_argument(
        "--encoder",
        type=Path,
        metavar="DIR",
        help="start from another BERT checkpoint with the vocabulary of BERT uncased",
    )
    train.add_argument("--seed", type=int, default=USUAL.seed)
    train.add_argument("--epochs", type=int, default=USUAL.epochs)
    train.add_argument(
        "--runs",
        type=int,
        default=USUAL.runs,
        metavar="N",
        help="independent runs, whose weights are averaged; default: %(default)s",
    )
    train.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at a time; default: 1"
    )
    train.add_argument("--threads", type=int, default=1, help="of each run; default: 1")
    train.add_argument(
        "--limit",
        type=at_least(0),
        default=0,
        metavar="N",
        help="rows a source, for a trial run",
    )
    train.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="weights.safetensors of an earlier run: calibrate and export only",
    )
    train.add_argument("--json", action="store_true", help="print the manifest")
    evaluate = verbs.add_parser("evaluate", help="measure a classifier on held-out rows")
    evaluate.add_argument("--model", type=Path, metavar="DIR", help="default: the shipped one")
    evaluate.add_argument("--data", type=Path, metavar="DIR", help="default: the shipped data")
    evaluate.add_argument(
        "--split", choices=("eval", "dev", "train"), default="eval", help="default: eval"
    )
    evaluate.add_argument("--policy", metavar="FILE", help="default: the shipped policy")
    evaluate.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw the reliability diagram of the model"
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run `kidrails guard` and return its exit status."""
    return _train(args) if args.what == "train" else _evaluate(args)


def _data(given: Path | None) -> Path:
    from kidrails_guard.content import content_path

    folder = given or content_path("data")
    if not (folder / "messages").is_dir():
        raise UsageError(f"--data {folder}: holds no folder messages; accepted: a data folder")
    return folder


def _public(given: Path | None) -> Path | None:
    if given is not None:
        if not given.is_dir():
            raise UsageError(f"--public {given}: no such folder; see: kidrails data fetch --help")
        return given
    shared = Path(os.environ.get("KIDRAILS_SHARED", "../shared")) / "datasets"
    return shared if shared.is_dir() else None


def _train(args: argparse.Namespace) -> int:
    import importlib.util

    for option in ("epochs", "runs", "jobs", "threads"):
        if getattr(args, option) < 1:
            raise UsageError(f"--{option} {getattr(args, option)}: accepted: 1 or more")
    if importlib.util.find_spec("torch") is None:
        return _in_training_environment()
    from kidrails_guard.classifier.training import train

    settings = Settings(
        seed=args.seed,
        runs=args.runs,
        epochs=args.epochs,
        threads=args.threads,
        limit=args.limit,
    )
    public = _public(args.public)
    if public is None:
        print("guard train: no public sets found, own rows only", file=sys.stderr)
    manifest = train(
        _data(args.data),
        public,
        args.out,
        settings,
        encoder=args.encoder,
        weights=args.weights,
        jobs=args.jobs,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if args.json:
        print(json.dumps(manifest, indent=2))
    else:
        trained = sum(manifest["texts"]["train"].values())
        kept = min(epoch["dev"] for epoch in manifest["history"])
        print(f"trained on {trained} texts, dev loss {kept}: {args.out}")
    return 0


def _in_training_environment() -> int:
    """Run the same command where torch is: this environment stays small."""
    if not TRAIN_PYTHON.is_file():
        raise MissingDependency(
            "torch", command="make .venv-train/.stamp", purpose="training the classifier"
        )
    command = [str(TRAIN_PYTHON), "-m", "kidrails_guard", *sys.argv[1:]]
    return subprocess.run(command, check=False).returncode


def _evaluate(args: argparse.Namespace) -> int:
    from kidrails_guard.checks.classifier import Classifier
    from kidrails_guard.classifier.looks import looks
    from kidrails_guard.classifier.measure import by_hazard, outcomes, summarise
    from kidrails_guard.classifier.model import SHIPPED, Scores
    from kidrails_guard.classifier.rows import LabelledText, read_own
    from kidrails_guard.guard import decide
    from kidrails_guard.policy import load_policy
    from kidrails_guard.types import Action, AgeBand, Conversation, Message

    data = _data(args.data)
    folder = args.model or SHIPPED
    if args.plot is not None:
        _plot(folder, args.plot)
    policy = load_policy(args.policy)
    check = Classifier(policy, folder)

    @lru_cache(maxsize=1)  # bands differ in their thresholds alone
    def scores(row: LabelledText) -> list[Scores]:
        turns = tuple(
            Message("user" if t.role == "user" else "assistant", t.text) for t in row.turns
        )
        seen = filter(str.strip, looks(row.text, row.stage, policy))
        return [check.scores(Conversation(turns), text, row.stage) for text in seen]

    def action(row: LabelledText, band: AgeBand) -> Action:
        strong = [
            finding
            for part in scores(row)
            for finding in check.findings(part, band, row.stage)
            if not finding.weak
        ]
        return decide(policy, strong, band=band, stage=row.stage).action

    rows = [row for row in read_own(data) if row.split == args.split]
    found = outcomes(rows, policy, action, tuple(policy.bands))
    overall, hazards = summarise(found), by_hazard(found)
    if args.json:
        record: dict[str, Any] = {
            "split": args.split,
            "texts": len(rows),
            "overall": {name: asdict(rate) for name, rate in overall.items()},
            "hazards": {
                hazard: {name: asdict(rate) for name, rate in rates.items() if rate.n}
                for hazard, rates in hazards.items()
            },
        }
        print(json.dumps(record, indent=2))
        return 0
    print(f"{len(rows)} texts of the {args.split} split, each in {len(policy.bands)} bands")
    for name, rate in overall.items():
        print(f"  {name:<24}{rate.as_text()}")
    print("acceptable action by hazard")
    for hazard, rates in hazards.items():
        print(f"  {hazard:<24}{rates['acceptable action'].as_text()}")
    return 0


def _plot(folder: Path, path: Path) -> None:
    """Draw how often a score of the development rows came true, from the model's manifest."""
    from kidrails_guard.classifier.model import read_manifest

    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency(
            "matplotlib", command="pip install 'kidrails-guard[evals]'", purpose="--plot"
        ) from None
    bins = read_manifest(folder)["reliability"]
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="score = share")
    axes.plot(
        [b["score"] for b in bins], [b["share"] for b in bins], marker="o", label="hazards and risk"
    )
    for b in bins:
        axes.annotate(
            str(b["rows"]),
            (b["score"], b["share"]),
            xytext=(6, -11),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set(xlabel="mean score", ylabel="share that held", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
