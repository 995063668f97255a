"""`kidrails spectrum`: scan a model's layers, select which to train, show a scan."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kidrails_guard.commands.options import at_least
from kidrails_guard.errors import MissingDependency, ScanError, UsageError

if TYPE_CHECKING:
    from kidrails_guard.spectrum.checkpoint import ModelIndex
    from kidrails_guard.spectrum.memory import MemoryEstimate, TrainingSetup
    from kidrails_guard.spectrum.report import Scan
    from kidrails_guard.spectrum.scoring import MatrixResult
    from kidrails_guard.spectrum.selecting import Request
    from kidrails_guard.spectrum.targeting import Selection

_SIZES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kidrails spectrum`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_scan(actions.add_parser("scan", help="score every matrix of a model's layers"))
    _add_select(actions.add_parser("select", help="choose the parameters to train"))
    _add_show(actions.add_parser("show", help="draw a scan, or list it"))


def _types(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--types",
        metavar="TYPE[,TYPE…]",
        help=f"module types to {what}, such as mlp.down_proj,self_attn.o_proj",
    )


def _estimator(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--estimator",
        choices=("spectrum", "mp"),
        default=default,
        help="spectrum: the published formula; mp: true noise edge, scale-invariant"
        + ("" if default else " (default: the scan's own)"),
    )


def _add_scan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder with safetensors, or a Hub id")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("model_snr_results"),
        help="where to write (default: %(default)s, where axolotl looks)",
    )
    _estimator(parser, "spectrum")
    _types(parser, "score; default: every matrix of the layers")
    parser.add_argument("--name", metavar="NAME", help="the model's name in the file's name")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the Hub")
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="default: one a core")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("auto", "fp32", "fp64"), default="auto")
    parser.add_argument(
        "--solver",
        choices=("exact", "lanczos"),
        default="exact",
        help="lanczos: a noisy estimate with an error bound, for a first look",
    )
    parser.add_argument(
        "--allow-unscored",
        action="store_true",
        help="write the scan although a matrix could not be scored",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_select(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", metavar="SCAN", type=Path, help="snr_results_….json")
    how = parser.add_mutually_exclusive_group()
    for name, text in (("top", "highest"), ("bottom", "lowest"), ("random", "a random")):
        how.add_argument(
            f"--{name}",
            metavar="FRACTION",
            type=float,
            help=f"{text} share of each type, 0 to 1" + (" (default 0.5)" * (name == "top")),
        )
    how.add_argument(
        "--budget-parameters", metavar="N", type=_size, help="most layers for N, such as 1.2B"
    )
    how.add_argument(
        "--budget-memory", metavar="GB", type=float, help="most layers for GB of GPU memory"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of --random")
    _types(parser, "choose from; default: all that were scanned, norms left out")
    _estimator(parser, None)
    parser.add_argument("--embeddings", action="store_true", help="train the embedding too")
    parser.add_argument("--head", action="store_true", help="train the output head too")
    parser.add_argument("--norms", action="store_true", help="train all norms too")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="folder or well-known name whose shapes count; default: what the scan names",
    )
    parser.add_argument("--source", metavar="TEXT", help="where the scan comes from, to be kept")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write the selection as JSON")
    memory = parser.add_argument_group("memory estimate")
    memory.add_argument("--tokens", metavar="N", type=int, default=2048, help="sequence × batch")
    memory.add_argument(
        "--optimizer",
        choices=("adamw_torch_fused", "adamw_bnb_8bit", "adamw_fp32"),
        default="adamw_torch_fused",
    )
    memory.add_argument(
        "--gpus", metavar="N", type=at_least(1), default=1, help="sharded over N GPUs"
    )
    memory.add_argument("--lora-rank", metavar="R", type=int, default=16)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", metavar="SCAN", type=Path, help="snr_results_….json")
    _estimator(parser, None)
    parser.add_argument("--out", metavar="FILE", type=Path, help="draw into a .png or .svg")
    parser.add_argument("--json", action="store_true", help="print the rows, best first")


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMBGT]?)", text.strip().upper())
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 900M or 1.2B")
    return int(float(match[1]) * _SIZES[match[2]])


def run(args: argparse.Namespace) -> int:
    """Run `kidrails spectrum` and return its exit status."""
    actions = {"scan": _scan, "select": _select, "show": _show}
    try:
        return actions[args.action](args)
    except ModuleNotFoundError as error:
        if error.name not in {"scipy", "numpy", "tqdm"}:
            raise
        raise MissingDependency(
            str(error.name),
            command='pip install "kidrails-guard[spectrum]"',
            purpose="kidrails spectrum",
        ) from None


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _scan(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from tqdm import tqdm

    from kidrails_guard.spectrum.checkpoint import read_index
    from kidrails_guard.spectrum.scan import ScanOptions, scan_model
    from kidrails_guard.spectrum.scoring import Solver
    from kidrails_guard.spectrum.singular import Precision
    from kidrails_guard.spectrum.snr import Estimator

    if args.workers < 0:
        raise UsageError(f"--workers {args.workers} is not 0 (one a core) or more")
    index = read_index(args.model, revision=args.revision)
    if args.name:
        index = replace(index, model=args.name)
    options = ScanOptions(
        types=_split(args.types),
        estimator=Estimator(args.estimator),
        precision=Precision(args.precision),
        solver=Solver(args.solver),
        device=args.device,
        workers=args.workers,
        allow_unscored=args.allow_unscored,
    )
    # Counted in work, not in matrices: the time left would jump between small and large ones.
    bar_format = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
    with tqdm(total=1.0, desc="scan", disable=None, bar_format=bar_format) as bar:

        def progress(result: MatrixResult, share: float, reused: bool) -> None:
            if reused and not bar.disable:
                bar.initial += share  # took no time, so it must not speed up the forecast
            bar.set_postfix_str(result.name, refresh=False)
            bar.update(share)

        outcome = scan_model(index, args.out, options, progress=progress)
    unscored = [one for one in outcome.results if one.reason]
    record = {
        "scan": str(outcome.path),
        "matrices": len(outcome.results),
        "reused": outcome.reused,
        "unscored": {one.name: one.reason for one in unscored},
        "cpu_seconds": round(sum(one.seconds for one in outcome.results), 2),
    }
    if args.json:
        print(json.dumps(record, indent=2))
    else:
        for one in unscored:
            print(f"not scored: {one.name}: {one.reason}")
        print(
            f"{len(outcome.results) - len(unscored)} matrices scored ({outcome.reused} of them "
            f"earlier), {len(unscored)} not; {record['cpu_seconds']} CPU seconds; wrote "
            f"{outcome.path}"
        )
    return 1 if unscored else 0


def _read(args: argparse.Namespace) -> Scan:
    from kidrails_guard.spectrum.report import read_scan
    from kidrails_guard.spectrum.snr import Estimator

    return read_scan(args.scan, estimator=Estimator(args.estimator) if args.estimator else None)


def _select(args: argparse.Namespace) -> int:
    from kidrails_guard.spectrum.memory import TrainingSetup
    from kidrails_guard.spectrum.report import model_slug
    from kidrails_guard.spectrum.selecting import select
    from kidrails_guard.spectrum.shapes import model_index
    from kidrails_guard.spectrum.summary import selection_text

    scan = _read(args)
    index = model_index(args.model) if args.model else scan.index or model_index(scan.model)
    setup = TrainingSetup(
        tokens=args.tokens, optimizer=args.optimizer, gpus=args.gpus, lora_rank=args.lora_rank
    )
    selection = select(scan, index, _request(args, setup), source=args.source or "")
    if model_slug(scan.model) != model_slug(index.model):
        # Shapes and shards' headers agree, or it would not have come so far; a training of the same
        # model has the same.
        print(
            f"kidrails spectrum: {scan.source} is a scan of {scan.model}, and the model here is "
            f"{index.model}: the shapes agree, the weights may not",
            file=sys.stderr,
        )
    try:
        memory = _memory(index, selection, setup)
    except ScanError as error:  # the selection holds without it
        memory = {}
        print(f"kidrails spectrum: {error}", file=sys.stderr)
    if args.save:
        selection.save(args.save)
    if args.json:
        record = selection.to_json() | {"memory": {k: v.to_json() for k, v in memory.items()}}
        print(json.dumps(record, indent=2))
    else:
        print(selection_text(scan, selection, memory))
        if args.save:
            print(f"wrote {args.save}")
    return 0


def _request(args: argparse.Namespace, setup: TrainingSetup) -> Request:
    from kidrails_guard.spectrum.selecting import Request
    from kidrails_guard.spectrum.targeting import Method

    method, fraction = Method.TOP, 0.5
    for name in (Method.TOP, Method.BOTTOM, Method.RANDOM):
        if getattr(args, name.value) is not None:
            method, fraction = name, getattr(args, name.value)
    memory = args.budget_memory
    if memory is not None and not memory > 0:  # NaN is not either
        raise ScanError(f"--budget-memory {memory:g} is not above 0")
    if args.budget_parameters is not None or memory is not None:
        method = Method.BUDGET
    return Request(
        method=method,
        fraction=fraction,
        types=_split(args.types),
        seed=args.seed,
        embeddings=args.embeddings,
        head=args.head,
        norms=args.norms,
        max_parameters=args.budget_parameters,
        max_bytes=None if memory is None else memory * 1e9,
        setup=setup,
    )


def _memory(
    index: ModelIndex, selection: Selection, setup: TrainingSetup
) -> dict[str, MemoryEstimate]:
    from kidrails_guard.spectrum.memory import estimate_lora, estimate_tuning

    return {
        "full": estimate_tuning(index, index.total_parameters, setup),
        "selection": estimate_tuning(index, selection.trainable_parameters, setup),
        "lora": estimate_lora(index, setup),
        "qlora": estimate_lora(index, setup, quantised=True),
    }


def _show(args: argparse.Namespace) -> int:
    from kidrails_guard.spectrum.heatmap import draw_file, draw_terminal
    from kidrails_guard.spectrum.ranking import rank
    from kidrails_guard.spectrum.summary import scan_record

    scan = _read(args)
    if args.out:
        draw_file(scan, args.out)
    if args.json:
        print(json.dumps(scan_record(scan), indent=2))
        return 0
    print(f"{scan.model}, {scan.estimator}, {len(scan.rows)} modules, sha256 {scan.sha256}\n")
    print(draw_terminal(scan))
    marked = [one for group in rank(scan.rows).values() for one in group if one.degenerate]
    if marked:
        print(f"\n{len(marked)} degenerate scores (infinite or tied), listed by --json")
    for name, reason in scan.unscored:
        print(f"not scored: {name}: {reason}")
    if args.out:
        print(f"wrote {args.out}")
    return 0
