# ruff: noqa: E402 - the thread count must be set before numpy is imported
"""Our layer scan against the method that Spectrum's code uses, and against its parts.

Usage: python benchmarks/spectrum_scan.py [--only smollm2,llama,solvers,memory] [--model FOLDER]

Upstream's method is written anew from its formula: all singular values of the whole matrix in
float32, then quartiles and sums. They are computed twice: by LAPACK's gesdd in the library that we
use too ("upstream"), and, where an environment with torch is at hand, by torch.linalg.svdvals, as
upstream does ("torch"). All times are CPU seconds of one process with one BLAS thread; what is
compared is measured in turns on the same matrix, so that other work on the machine hits both.

Llama 3.1 8B's weights are not at hand: its shapes are, and random numbers in them. The full method
is run at 1024 × 4096 and 4096 × 4096 only; the larger ones are extrapolated in upstream's favour,
as the time of 4096 × 4096 and of a QR decomposition at the speed of our matrix product.
"""

from __future__ import annotations

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import blas
from tqdm import tqdm

from kidrails_guard.files import dump_json
from kidrails_guard.spectrum import twostage
from kidrails_guard.spectrum.checkpoint import TensorInfo, read_index
from kidrails_guard.spectrum.lanczos import lanczos_scores
from kidrails_guard.spectrum.scan import targets
from kidrails_guard.spectrum.scoring import Solver, score_matrix
from kidrails_guard.spectrum.singular import Precision, from_gram
from kidrails_guard.spectrum.snr import Estimator, score
from kidrails_guard.spectrum.weights import MatrixFile, widen

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "spectrum_scan.json"
Array = Any

#: Shape, and how many matrices of it Llama 3.1 8B has in its layers; the head is not in the scan.
LLAMA = {
    "q_proj, o_proj": ((4096, 4096), 64),
    "k_proj, v_proj": ((1024, 4096), 64),
    "gate_proj, up_proj": ((14336, 4096), 64),
    "down_proj": ((4096, 14336), 32),
    "lm_head (only on request)": ((128256, 4096), 0),
}
FULL_SVD = ((1024, 4096), (4096, 4096))


def timed(action: Callable[..., Any], *args: Any, **options: Any) -> tuple[float, Any]:
    start = time.process_time()
    result = action(*args, **options)
    return time.process_time() - start, result


def upstream_score(weights: Array) -> float:
    """Spectrum's score as its code computes it, from a full SVD of the float32 matrix."""
    values = scipy.linalg.svdvals(weights, check_finite=False)
    upper, lower = np.quantile(values, 0.75), np.quantile(values, 0.25)
    beta = min(weights.shape) / max(weights.shape)
    eps = (upper - lower) / 1.349 * np.sqrt((1 + np.sqrt(beta)) ** 2)
    noise = values[values <= eps].sum()
    return float(values[values > eps].sum() / noise / values[0]) if noise else float("inf")


def read_fp32(tensor: TensorInfo) -> Array:
    block = MatrixFile(tensor).read_rows(0, tensor.shape[0])
    return widen(block, tensor.dtype, np.dtype(np.float32))


def product(weights: Array) -> Array:
    """The Gram product alone, of a float32 matrix in memory, by BLAS's rank update."""
    if weights.shape[0] > weights.shape[1]:
        return blas.ssyrk(1.0, weights.T, lower=1)
    return blas.ssyrk(1.0, weights.T, lower=1, trans=1)


def general_product(weights: Array) -> Array:
    """The same product computed as any A·B, without using that it is symmetric."""
    if weights.shape[0] > weights.shape[1]:
        return blas.sgemm(1.0, weights.T, weights.T, trans_b=True)
    return blas.sgemm(1.0, weights.T, weights.T, trans_a=True)


_TORCH = """
import json, sys, time
import torch
from kidrails_guard.spectrum.checkpoint import read_index
from kidrails_guard.spectrum.scan import targets
from kidrails_guard.spectrum.weights import MatrixFile, widen
import numpy as np
torch.set_num_threads(1)
torch.linalg.svdvals(torch.randn(300, 300))
seconds, scores = 0.0, {}
for tensor in targets(read_index(sys.argv[1])):
    block = MatrixFile(tensor).read_rows(0, tensor.shape[0])
    weights = torch.from_numpy(widen(block, tensor.dtype, np.dtype(np.float32)))
    start = time.process_time()
    values = torch.linalg.svdvals(weights)
    beta = min(weights.shape) / max(weights.shape)
    sigma = (torch.quantile(values, 0.75) - torch.quantile(values, 0.25)) / 1.349
    signal = values > sigma * np.sqrt((1 + np.sqrt(beta)) ** 2)
    scores[tensor.name] = (values[signal].sum() / values[~signal].sum() / values[0]).item()
    seconds += time.process_time() - start
print(json.dumps({"seconds": seconds, "scores": scores, "torch": torch.__version__}))
"""


def with_torch(model: Path, python: Path) -> dict[str, Any] | None:
    """Seconds and scores of upstream's method in torch, None where there is no such Python."""
    if not python.is_file():
        return None
    command = [str(python), "-c", _TORCH, str(model)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def smollm2(model: Path, python: Path) -> dict[str, Any]:
    tensors = targets(read_index(model))
    seconds = {"product": 0.0, "general_product": 0.0, "ours": 0.0, "upstream": 0.0}
    ranks: dict[str, dict[str, dict[str, float]]] = {"ours": {}, "upstream": {}}
    errors, estimates, arithmetic = [], [], dict.fromkeys(("fp32", "fp64"), 0)
    lanczos = {"seconds": 0.0, "off": [], "inside": 0}
    for number, tensor in enumerate(tqdm(tensors, desc="smollm2", disable=None)):
        weights = read_fp32(tensor)
        seconds["product"] += timed(product, weights)[0]
        seconds["general_product"] += timed(general_product, weights)[0]
        taken, result = timed(score_matrix, tensor)
        seconds["ours"] += taken
        taken, theirs = timed(upstream_score, weights)
        seconds["upstream"] += taken
        found = result.scores[Estimator.SPECTRUM]
        for who, snr in (("ours", found.snr), ("upstream", theirs)):
            ranks[who].setdefault(tensor.type, {})[tensor.name] = snr
        errors.append(abs(found.snr / theirs - 1))
        arithmetic[result.arithmetic[:4]] += 1
        if number % 4 == 0:  # an exact reference costs more than all the rest
            short = score_matrix(tensor, precision=Precision.FP32).scores[Estimator.SPECTRUM]
            exact = np.linalg.svd(weights.astype(np.float64), compute_uv=False)
            true = score(Estimator.SPECTRUM, exact, shape=weights.shape).snr
            estimates.append((short.error, abs(short.snr / true - 1)))
            taken, estimate = timed(score_matrix, tensor, solver=Solver.LANCZOS)
            lanczos["seconds"] += taken
            one = estimate.scores[Estimator.SPECTRUM]
            lanczos["off"].append(abs(one.snr / true - 1))
            lanczos["inside"] += abs(one.snr / true - 1) < one.error
    same = {
        kind: sorted(ranks["ours"][kind], key=ranks["ours"][kind].get)
        == sorted(ranks["upstream"][kind], key=ranks["upstream"][kind].get)
        for kind in ranks["ours"]
    }
    sampled = len(estimates)
    torch = with_torch(model, python)
    if torch:
        seconds["torch"] = torch["seconds"]
        for kind, scores in ranks["ours"].items():
            theirs = sorted(scores, key=torch["scores"].get)
            same[f"{kind} (torch)"] = sorted(scores, key=scores.get) == theirs
    return {
        "model": "SmolLM2-135M-Instruct (Q4_1, dequantised)",
        "matrices": len(tensors),
        "cpu_seconds": {name: round(value, 2) for name, value in seconds.items()},
        "times_upstream": round(seconds["upstream"] / seconds["ours"], 2),
        "times_torch": round(seconds["torch"] / seconds["ours"], 2) if torch else "not measured",
        "times_product": round(seconds["ours"] / seconds["product"], 2),
        "ranking_identical": same,
        "largest_relative_difference_to_upstream": float(max(errors)),
        "arithmetic": arithmetic,
        "fp32_error_estimate": {
            "sampled": sampled,
            "estimate_held": sum(true <= estimate for estimate, true in estimates),
            "median_true_error": float(np.median([true for _, true in estimates])),
            "largest_true_error": float(max(true for _, true in estimates)),
            "median_estimate": float(np.median([estimate for estimate, _ in estimates])),
        },
        "lanczos": {
            "sampled": sampled,
            "cpu_seconds": round(lanczos["seconds"], 2),
            "median_off": round(float(np.median(lanczos["off"])), 4),
            "largest_off": round(float(max(lanczos["off"])), 4),
            "inside_its_95_percent_bound": lanczos["inside"],
        },
    }


def _write_matrix(path: Path, shape: tuple[int, int]) -> TensorInfo:
    """A bf16 matrix whose spectrum falls like a trained one's: rows of falling size, and noise."""
    rng = np.random.default_rng(sum(shape))
    rows, columns = shape
    name = "model.layers.0.mlp.up_proj.weight"
    header = {name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 2 * rows * columns]}}
    text = json.dumps(header).encode()
    falling = np.geomspace(1, 0.1, min(shape)).astype(np.float32) * np.float32(0.02)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, rows, 1024):
            stop = min(start + 1024, rows)
            block = rng.standard_normal((stop - start, columns), np.float32)
            block *= falling if rows > columns else falling[start:stop, None]
            stream.write((block.view(np.uint32) >> 16).astype("<u2").tobytes())
    return read_index(path)[name]


def llama(folder: Path, python: Path) -> dict[str, Any]:
    rows = {}
    for name, (shape, count) in tqdm(LLAMA.items(), desc="llama shapes", disable=None):
        path = folder / "matrix.safetensors"
        tensor = _write_matrix(path, shape)
        row: dict[str, Any] = {"shape": shape, "count": count}
        if shape[0] < 100_000:  # the head as a whole in float32 would take 2 GB
            weights = read_fp32(tensor)
            row["product"] = timed(product, weights)[0]
            row["general_product"] = timed(general_product, weights)[0]
        row["ours"], result = timed(score_matrix, tensor)
        row["arithmetic"] = result.arithmetic
        if shape in FULL_SVD:
            row["upstream"], theirs = timed(upstream_score, weights)
            torch = with_torch(path, python)
            if torch:
                row["torch"] = torch["seconds"]
            row["relative_difference"] = abs(result.scores[Estimator.SPECTRUM].snr / theirs - 1)
        rows[name] = row
        path.unlink()
    square = rows["q_proj, o_proj"]
    # A rank update takes half of the multiplications of a general product.
    per_second = 4096**3 / square["product"]
    for row in rows.values():
        long, short = max(row["shape"]), min(row["shape"])
        for method in ("upstream", "torch"):
            if method in square and method not in row:
                triangle = (2 * long * short**2 - 2 / 3 * short**3) / per_second
                row[method] = square[method] + triangle
                row["extrapolated"] = True
    totals = {
        key: sum(row[key] * row["count"] for row in rows.values() if row["count"])
        for key in ("product", "general_product", "ours", "upstream", "torch")
        if key in square
    }
    return {
        "note": "random bf16 weights at the exact shapes of Llama 3.1 8B; one matrix a shape was "
        "measured and multiplied by its count; full SVDs above 4096 x 4096 are extrapolated",
        "shapes": rows,
        "all_224_matrices_cpu_seconds": totals,
        "times_upstream": round(totals["upstream"] / totals["ours"], 2),
        "times_torch": round(totals["torch"] / totals["ours"], 2)
        if "torch" in totals
        else "not measured",
        "times_product": round(totals["ours"] / totals["product"], 2),
        "times_general_product": round(totals["ours"] / totals["general_product"], 2),
    }


def _lapack_evr(gram: Array) -> Array:
    return scipy.linalg.eigh(gram, eigvals_only=True, driver="evr", check_finite=False)


def _reduced(gram: Array, reduction: str, dtype: type) -> Array:
    return from_gram(gram.astype(dtype, order="F"), reduction=reduction).values ** 2


def _svd_of_r(weights: Array) -> Array:
    triangle = scipy.linalg.qr(weights.T, mode="r", check_finite=False)[0][: len(weights)]
    return np.linalg.svd(triangle, compute_uv=False) ** 2


def _full_svd(weights: Array) -> Array:
    return scipy.linalg.svdvals(weights, check_finite=False) ** 2


def solvers() -> dict[str, Any]:
    """Ways from a matrix to its squared singular values, without reading and scoring."""
    rows: dict[str, Any] = {}
    shapes = [(576, 1536), (1024, 4096), (4096, 4096)]
    for short, long in tqdm(shapes, desc="solvers", disable=None):
        weights = np.random.default_rng(0).standard_normal((short, long), np.float32)
        taken, lower = timed(product, weights)
        gram = np.asfortranarray(np.tril(lower) + np.tril(lower, -1).T)
        entries: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
            "syevd (numpy.linalg.eigvalsh)": (np.linalg.eigvalsh, (gram,)),
            "syevr (scipy eigh, evr)": (_lapack_evr, (gram,)),
            "one-stage, fp64 sterf": (_reduced, (gram, "one-stage", np.float32)),
            "two-stage, fp64 sterf": (_reduced, (gram, "two-stage", np.float32)),
            "two-stage, all fp64": (_reduced, (gram, "two-stage", np.float64)),
            "stochastic Lanczos (estimate)": (lanczos_scores, (gram, (short, long))),
        }
        if not twostage.available(np.float32):
            entries = {name: one for name, one in entries.items() if "two-stage" not in name}
        if short < 4096:
            entries["QR, then SVD of R (no Gram)"] = (_svd_of_r, (weights,))
            entries["full SVD (upstream)"] = (_full_svd, (weights,))
            exact = np.linalg.eigvalsh(gram.astype(np.float64))
        if short == 576:
            entries["syevd on a stack of 8, each"] = (np.linalg.eigvalsh, (np.stack([gram] * 8),))
        table: dict[str, Any] = {"product": round(taken, 4)}
        for name, (action, arguments) in entries.items():
            taken, found = timed(action, *arguments)
            entry = {"cpu_seconds": round(taken / (8 if "stack of 8" in name else 1), 4)}
            if short < 4096 and getattr(found, "ndim", 0) == 1:
                entry["largest_error_of_an_eigenvalue"] = float(
                    np.abs(np.sort(found.astype(np.float64)) - exact).max() / exact[-1]
                )
            table[name] = entry
        rows[f"{short} x {long}"] = table
    return rows


_PEAK = """
import sys
from kidrails_guard.spectrum.checkpoint import read_index
index = read_index(sys.argv[1])
if sys.argv[2] == "ours":
    from kidrails_guard.spectrum.scoring import score_matrix
    assert score_matrix(index.tensors[0]).reason == ""
else:
    sys.path.insert(0, sys.argv[3])
    import spectrum_scan
    spectrum_scan.upstream_score(spectrum_scan.read_fp32(index.tensors[0]))
# Not getrusage: its peak includes the process that this one was forked from.
lines = open("/proc/self/status").read().splitlines()
print(next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM")))
"""


def memory(folder: Path) -> dict[str, Any]:
    """Peak resident memory of one process that scores one matrix, Python and libraries included."""
    rows = {}
    for shape, methods in (
        ((4096, 4096), ("ours", "upstream")),
        ((14336, 4096), ("ours",)),
        ((4096, 14336), ("ours",)),
    ):
        path = folder / "matrix.safetensors"
        _write_matrix(path, shape)
        stored = 2 * shape[0] * shape[1]
        row: dict[str, Any] = {
            "stored_mb": round(stored / 1e6),
            "bound_mb": round(3 * stored / 1e6 + 300),
        }
        for method in methods:
            command = [sys.executable, "-c", _PEAK, str(path), method, str(ROOT / "benchmarks")]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row[f"{method}_mb"] = round(int(output) / 1e6)
        rows[f"{shape[0]} x {shape[1]}"] = row
        path.unlink()
    return {
        "note": "upstream also holds the whole model in float32: 32 GB for 8.03 billion parameters",
        "shapes": rows,
    }


def blas_kernels() -> list[str]:
    """Which kernels the loaded BLAS libraries run: an environment variable can hold them back."""
    from threadpoolctl import threadpool_info

    return sorted(
        {
            f"{lib['internal_api']} {lib['version']} {lib['architecture']}"
            for lib in threadpool_info()
            if "architecture" in lib
        }
    )


def machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
        flags = next((x for x in lines if x.startswith("flags")), "")
        model += " (AVX-512)" if "avx512f" in flags else " (AVX2)" if "avx2" in flags else ""
    return {
        "cpu": model,
        "threads": 1,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "blas": blas_kernels(),
        "gpu": "not measured",
    }


def show_llama(part: dict[str, Any]) -> None:
    keys = ("product", "ours", "upstream", "torch")
    print("Llama 3.1 8B shapes       count  product     ours  upstream    torch")
    for name, row in part["shapes"].items():
        mark = "*" if row.get("extrapolated") else ""
        cells = "".join(f"{row[key]:9.2f}" if key in row else "        –" for key in keys)
        print(f"  {name:<25}{row['count']:>3}{cells}{mark}")
    total = part["all_224_matrices_cpu_seconds"]
    cells = "".join(f"{total[key]:9.0f}" if key in total else "        –" for key in keys)
    print(f"  all 224 matrices            {cells}*   (* full SVDs extrapolated)")
    print(
        f"  {part['times_upstream']} x upstream, {part['times_torch']} x torch; "
        f"{part['times_product']} x the product as a rank update, "
        f"{part['times_general_product']} x the product as any A·B "
        f"({total['general_product']:.0f} s)\n"
    )


def show(result: dict[str, Any]) -> None:
    print(f"{result['machine']['cpu']}, one thread, CPU seconds\n")
    if "smollm2" in result:
        part = result["smollm2"]
        taken = part["cpu_seconds"]
        same = sum(part["ranking_identical"].values())
        print(
            f"SmolLM2, {part['matrices']} matrices: product {taken['product']}, ours "
            f"{taken['ours']}, upstream {taken['upstream']}, torch {taken.get('torch', '–')}\n"
            f"  {part['times_upstream']} x upstream, {part['times_torch']} x torch, "
            f"{part['times_product']} x the product; ranking identical in {same} of "
            f"{len(part['ranking_identical'])} comparisons, largest difference "
            f"{part['largest_relative_difference_to_upstream']:.1e}; {part['arithmetic']}"
        )
        print(f"  fp32: {part['fp32_error_estimate']}\n  lanczos: {part['lanczos']}\n")
    if "llama" in result:
        show_llama(result["llama"])
    for shape, table in result.get("solvers", {}).items():
        print(f"{shape}: product {table['product']}")
        for name, entry in table.items():
            if isinstance(entry, dict):
                off = entry.get("largest_error_of_an_eigenvalue")
                tail = f"  error {off:.0e}" if off is not None else ""
                print(f"  {name:<34} {entry['cpu_seconds']:8.4f}{tail}")
    if "memory" in result:
        print("\npeak memory of one process, MB")
        for shape, row in result["memory"]["shapes"].items():
            print(f"  {shape:<14} {row}")


def markdown(result: dict[str, Any]) -> str:
    """The measurements as docs/spectrum.md holds them."""
    small, llama_part = result["smollm2"], result["llama"]
    taken, total = small["cpu_seconds"], llama_part["all_224_matrices_cpu_seconds"]
    methods = ("product", "ours", "upstream", "torch")

    def line(name: str, row: dict[str, Any], digits: int) -> str:
        mark = {"upstream": "*", "torch": "*"} if row.get("extrapolated") else {}
        cells = (
            f"{row[key]:.{digits}f}{mark.get(key, '')}" if key in row else "not measured"
            for key in methods
        )
        return f"| {name} | {' | '.join(cells)} |"

    lines = [
        "| CPU seconds | product | ours | LAPACK | torch |",
        "|---|---|---|---|---|",
        line(f"SmolLM2-135M, {small['matrices']} matrices", taken, 2),
    ]
    for name, row in llama_part["shapes"].items():
        if row["count"]:
            lines.append(line(f"{row['shape'][0]} × {row['shape'][1]} ({name})", row, 2))
    lines.append(line("Llama 3.1 8B, all 224 matrices*", total, 0))
    peak = result["memory"]["shapes"]
    estimate, lanczos = small["fp32_error_estimate"], small["lanczos"]
    same = all(small["ranking_identical"].values())
    lines += [
        "",
        "\\* Random bf16 weights at the exact shapes; one matrix of each shape was measured and "
        "multiplied by its count; full SVDs above 4096 × 4096 are extrapolated, in their favour.",
        "",
        f"- SmolLM2: {small['times_upstream']} times as fast as LAPACK, {small['times_torch']} "
        f"times as torch, at {small['times_product']} times the product alone. The ranking is "
        f"{'identical to both in every type' if same else 'NOT identical'}; the largest "
        f"difference of a score is {small['largest_relative_difference_to_upstream']:.1e}.",
        f"- {small['arithmetic']['fp64']} of {small['matrices']} matrices were done again in "
        f"float64. The float32 error estimate held in {estimate['estimate_held']} of "
        f"{estimate['sampled']} matrices that were compared with a float64 SVD.",
        f"- Llama 3.1 8B: {llama_part['times_upstream']} times as fast as LAPACK, "
        f"{llama_part['times_torch']} times as torch, at {llama_part['times_product']} times the "
        f"product as a rank update, {llama_part['times_general_product']} times the product as "
        "any A·B.",
        f"- Peak memory of one process, Python and libraries included: "
        f"{peak['4096 x 14336']['ours_mb']} MB for 4096 × 14336 (bound "
        f"{peak['4096 x 14336']['bound_mb']} MB), {peak['14336 x 4096']['ours_mb']} MB for "
        "14336 × 4096. Upstream holds the whole model in float32: 32 GB.",
        f"- Lanczos on SmolLM2: off by {lanczos['median_off']:.0%} in the median; its bound held "
        f"in {lanczos['inside_its_95_percent_bound']} of {lanczos['sampled']} cases.",
        f"- On a GPU: {result['machine']['gpu']}.",
    ]
    return "\n".join(lines)


def _default_model(folder: Path) -> Path:
    from kidrails_guard.engine.export import export_safetensors
    from kidrails_guard.engine.models import find_model

    source = find_model(None)
    if source.path is None:
        raise SystemExit("no embedded model at hand; give --model FOLDER")
    export_safetensors(source.path, folder / "smollm2")
    return folder / "smollm2"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="SmolLM2 as safetensors (default: exported)")
    parser.add_argument(
        "--torch-python",
        type=Path,
        default=ROOT / ".venv-train" / "bin" / "python",
        help="a Python with torch (default: %(default)s, left out where absent)",
    )
    parser.add_argument("--only", default="smollm2,llama,solvers,memory")
    parser.add_argument(
        "--markdown", action="store_true", help="only print the last result for docs/spectrum.md"
    )
    args = parser.parse_args()
    if args.markdown:
        print(markdown(json.loads(RESULT.read_text())))
        return 0
    parts = args.only.split(",")
    started = time.process_time()
    earlier = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    result: dict[str, Any] = {**earlier, "machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "smollm2" in parts:
            result["smollm2"] = smollm2(args.model or _default_model(folder), args.torch_python)
        if "llama" in parts:
            result["llama"] = llama(folder, args.torch_python)
        if "solvers" in parts:
            result["solvers"] = solvers()
        if "memory" in parts:
            result["memory"] = memory(folder)
    result["benchmark_cpu_seconds"] = round(time.process_time() - started)
    dump_json(RESULT, result)
    show(result)
    print(f"\nwritten: {RESULT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
