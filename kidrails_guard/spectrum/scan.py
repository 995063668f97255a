"""Scores every matrix of a model: on several cores, one tensor at a time, resumable.

Each worker is a process of its own with one BLAS thread: on busy cores two threads a process were
4 to 13 times slower. A finished matrix is appended to a journal beside the result at once, so that
a scan that was killed goes on where it stopped. The scan file appears last, and whole.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kidrails_guard import __version__
from kidrails_guard.errors import ScanError
from kidrails_guard.files import dump_json, sha256_text, write_atomic
from kidrails_guard.spectrum.checkpoint import ModelIndex, TensorInfo, layer_number
from kidrails_guard.spectrum.journal import Journal
from kidrails_guard.spectrum.ranking import is_norm
from kidrails_guard.spectrum.report import (
    SIDECAR_FORMAT,
    scan_content,
    scan_path,
    scan_text,
    sidecar_path,
)
from kidrails_guard.spectrum.scoring import MatrixResult, Solver, score_matrix
from kidrails_guard.spectrum.singular import Precision
from kidrails_guard.spectrum.snr import Estimator

#: Below this many multiplications (tenths of a second) a process of its own takes longer to start.
_SMALL_WORK: Final = 1e9

_THREADS: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """How to scan.

    Attributes:
        types: module types to score; every matrix of the layers but norms where empty.
        estimator: the score that the scan file holds (its provenance holds both).
        precision: of the products.
        solver: exact, or estimated.
        device: ``cpu`` or ``cuda``.
        workers: processes; one a usable core where 0.
        allow_unscored: write the scan although a matrix could not be scored.
    """

    types: tuple[str, ...] = ()
    estimator: Estimator = Estimator.SPECTRUM
    precision: Precision = Precision.AUTO
    solver: Solver = Solver.EXACT
    device: str = "cpu"
    workers: int = 0
    allow_unscored: bool = False


@dataclass(frozen=True, slots=True)
class ScanOutcome:
    """What a scan did.

    Attributes:
        path: the scan file.
        results: one a matrix, in the model's order.
        reused: how many came from an earlier run.
    """

    path: Path
    results: tuple[MatrixResult, ...]
    reused: int


#: Called with a finished matrix, its share of the work (0 to 1) and whether it was reused.
Progress = Callable[[MatrixResult, float, bool], None]


def targets(index: ModelIndex, types: Sequence[str] = ()) -> tuple[TensorInfo, ...]:
    """Return the weights that a scan scores.

    Args:
        index: the model's tensors.
        types: module types, such as ``mlp.down_proj``, ``model.embed_tokens``; every matrix of the
            layers but norms where empty.

    Raises:
        ScanError: the model has none of a type.
    """
    # Experts that share one tensor of three sides have no ".weight": they are to be named as what
    # cannot be scored, since they may be most of the model.
    weights = [
        tensor
        for tensor in index.tensors
        if tensor.name.endswith(".weight")
        or (len(tensor.shape) > 2 and layer_number(tensor.module) >= 0)
    ]
    there = {tensor.type for tensor in weights}
    for kind in types:
        if kind not in there:
            raise ScanError(
                f"{index.model} has no module type {kind!r}; it has: {', '.join(sorted(there))}"
            )
    if types:
        return tuple(tensor for tensor in weights if tensor.type in types)
    found = tuple(
        tensor
        for tensor in weights
        if len(tensor.shape) > 1 and tensor.type != tensor.module and not is_norm(tensor.type)
    )
    if not found:
        packed = next(
            (t for t in index.tensors if len(t.shape) > 1 and layer_number(t.module) >= 0), None
        )
        raise ScanError(
            f"{index.model} has no numbered layers with matrices in them"
            if packed is None
            else f"the layers of {index.model} hold no weights, but tensors such as "
            f"{packed.name!r} ({packed.dtype}); scan the model before quantisation"
        )
    return found


def work(tensor: TensorInfo) -> float:
    """Return about how many multiplications a matrix takes: the product and the reduction."""
    short = min(tensor.shape, default=1)
    return float(short * tensor.size + 3 * short**3 + 1)


def scan_model(
    index: ModelIndex, out: Path, options: ScanOptions, *, progress: Progress | None = None
) -> ScanOutcome:
    """Scan a model and write ``snr_results_<slug>.json`` with its provenance.

    Args:
        index: the model's tensors, read from its shards.
        out: the folder for the result, by custom ``model_snr_results``.
        options: how.
        progress: told about each finished matrix.

    Raises:
        ScanError: the folder is not writable, another scan writes there, it holds the scan of
            another model of this name, a type is not in the model, a matrix cannot be scored (and
            ``allow_unscored`` is off), or a worker died. What was finished is kept for the next
            run.
        MissingDependency: ``cuda`` was asked for and torch is not installed.
    """
    tensors = targets(index, options.types)
    path = scan_path(out, index.model)
    _refuse_anothers(path, index)
    key = {
        "fingerprint": index.fingerprint,
        "precision": options.precision.value,
        "solver": options.solver.value,
        "device": options.device,
    }
    total = sum(map(work, tensors))
    done: dict[str, MatrixResult] = {}
    reused = 0
    with Journal.open(path, key) as journal:
        earlier = dict(journal.results)
        # Largest first: a long one that starts last would leave the other cores idle.
        ordered = sorted(tensors, key=lambda t: (t.name not in earlier, work(t)), reverse=True)
        for result in _scores(ordered, options, earlier):
            done[result.name] = result
            known = earlier.get(result.name) == result
            reused += known
            if not known:
                journal.append(result)
            if progress:
                progress(result, work(index[result.name]) / total, known)
        # A scan of fewer types leaves the others as an earlier one with these options found them.
        kept = {n: one for n, one in earlier.items() if n not in done and not one.reason}
        reused += len(kept)
        done |= kept
        results = tuple(done[t.name] for t in index.tensors if t.name in done)
        _refuse_unscored(results, options, path)
        write_scan(path, index, results, options)
        journal.remove()
    return ScanOutcome(path, results, reused)


def _refuse_unscored(results: Sequence[MatrixResult], options: ScanOptions, path: Path) -> None:
    unscored = [one for one in results if one.reason]
    if len(unscored) == len(results):
        raise ScanError(
            f"no matrix could be scored; first {unscored[0].name}: {unscored[0].reason}"
        )
    if unscored and not options.allow_unscored:
        lines = "\n".join(f"  {one.name}: {one.reason}" for one in unscored[:20])
        more = f"\n  … and {len(unscored) - 20} more" if len(unscored) > 20 else ""
        raise ScanError(
            f"{len(unscored)} of {len(results)} matrices cannot be scored, so {path.name} was not "
            f"written:\n{lines}{more}\nrepair the checkpoint, leave their types out with --types, "
            "or list them in the provenance with --allow-unscored (the others are not scored again)"
        )


def _refuse_anothers(path: Path, index: ModelIndex) -> None:
    """Models of one folder name are many (``checkpoint-180``): keep the first one's scan."""
    try:
        earlier = json.loads(sidecar_path(path).read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if earlier != index.fingerprint:
        raise ScanError(
            f"{path} is the scan of another model of this name; give this one another with --name, "
            "or another folder with --out"
        )


def write_scan(
    path: Path, index: ModelIndex, results: Sequence[MatrixResult], options: ScanOptions
) -> None:
    """Write a scan file and its provenance, each whole or not at all."""
    import numpy as np
    import scipy

    text = scan_text(scan_content(results, options.estimator))
    provenance: dict[str, Any] = {
        "format": SIDECAR_FORMAT,
        "model": index.model,
        "revision": index.revision,
        "estimator": options.estimator.value,
        "solver": options.solver.value,
        "precision": options.precision.value,
        "device": options.device,
        "scan_sha256": sha256_text(text),
        "fingerprint": index.fingerprint,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "made_with": {"kidrails": __version__, "numpy": np.__version__, "scipy": scipy.__version__},
        "cpu_seconds": round(sum(one.seconds for one in results), 2),
        "unscored": {one.name: one.reason for one in results if one.reason},
        "matrices": [one.to_json() for one in results],
        "tensors": {tensor.name: [tensor.dtype, list(tensor.shape)] for tensor in index.tensors},
    }
    try:
        write_atomic(path, text)
        dump_json(sidecar_path(path), provenance)
    except OSError as error:
        raise ScanError(f"cannot write {path}: {error.strerror}") from None


def _scores(
    tensors: Sequence[TensorInfo], options: ScanOptions, earlier: Mapping[str, MatrixResult]
) -> Iterator[MatrixResult]:
    if options.device == "cuda":
        from kidrails_guard.spectrum.cuda import score_on_cuda

        yield from (score_on_cuda(tensor, earlier.get(tensor.name)) for tensor in tensors)
        return
    if options.device != "cpu":
        raise ScanError(f"device {options.device!r} is not one of cpu, cuda")
    if sum(map(work, tensors)) < _SMALL_WORK:
        for tensor in tensors:
            known = earlier.get(tensor.name)
            yield score_matrix(tensor, options.precision, options.solver, known)
    else:
        count = min(options.workers or usable_cores(), len(tensors))
        yield from _in_processes(tensors, options, earlier, count=count)


def _in_processes(
    tensors: Sequence[TensorInfo],
    options: ScanOptions,
    earlier: Mapping[str, MatrixResult],
    *,
    count: int,
) -> Iterator[MatrixResult]:
    mine = set(multiprocessing.active_children())
    # Fresh interpreters: they read the thread count before numpy starts its threads, and take over
    # none of our memory.
    context = multiprocessing.get_context("spawn")
    with _one_thread(), ProcessPoolExecutor(count, context, _start_worker) as pool:
        futures = [
            pool.submit(
                score_matrix, tensor, options.precision, options.solver, earlier.get(tensor.name)
            )
            for tensor in tensors
        ]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            # A matrix may take a minute; whoever pressed Ctrl-C should not wait for it.
            for child in set(multiprocessing.active_children()) - mine:
                child.kill()
            if isinstance(error, BrokenProcessPool):
                raise ScanError(
                    f"a worker died, most likely for want of memory; run it again with fewer than "
                    f"--workers {count} (finished matrices are kept)"
                ) from None
            raise


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start_worker() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def leave_with_parent() -> None:
        # A parent that was killed cannot stop its workers: they would wait for work for ever.
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
