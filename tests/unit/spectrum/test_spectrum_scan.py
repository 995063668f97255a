"""The scan of a whole model: what it writes, what it keeps, what it refuses, what it takes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum import scan as scanning
from kidrails_guard.spectrum.checkpoint import read_index
from kidrails_guard.spectrum.report import read_scan, sidecar_path
from kidrails_guard.spectrum.scan import ScanOptions, scan_model, targets, usable_cores
from kidrails_guard.spectrum.scoring import score_matrix
from kidrails_guard.spectrum.singular import Precision
from kidrails_guard.spectrum.snr import Estimator


@pytest.fixture
def model(write_checkpoint, llama) -> Path:
    return write_checkpoint(llama(), dtype="BF16", shards=2)


def _journal(folder: Path) -> Path:
    return folder / ".snr_results_tiny.partial.jsonl"


def test_scores_every_matrix_of_the_layers(model: Path, tmp_path: Path) -> None:
    index = read_index(model)
    outcome = scan_model(index, tmp_path / "out", ScanOptions())
    assert outcome.path == tmp_path / "out" / "snr_results_tiny.json"
    scan = read_scan(outcome.path)
    assert len(scan.rows) == len(outcome.results) == 16
    # Norms, embedding and head are left out by default.
    assert {row.type for row in scan.rows} == {
        "mlp.down_proj",
        "mlp.up_proj",
        "self_attn.k_proj",
        "self_attn.q_proj",
    }
    for row in scan.rows:
        expected = score_matrix(index[row.parameter]).scores[Estimator.SPECTRUM].snr
        assert row.snr == expected
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "snr_results_tiny.json",
        "snr_results_tiny.provenance.json",
    ]


def test_shards_and_dtype_do_not_change_the_ranking(write_checkpoint, llama, tmp_path) -> None:
    orders = []
    for number, (dtype, shards) in enumerate([("F32", 1), ("BF16", 3), ("F16", 2)]):
        folder = write_checkpoint(llama(6), dtype=dtype, shards=shards, name=f"m{number}")
        path = scan_model(read_index(folder), tmp_path / "out", ScanOptions()).path
        orders.append([row.module for row in read_scan(path).rows])
    assert orders[0] == orders[1] == orders[2]


def test_processes_give_what_one_process_gives(model, tmp_path, monkeypatch) -> None:
    index = read_index(model)
    here = scan_model(index, tmp_path / "a", ScanOptions()).path
    monkeypatch.setattr(scanning, "_SMALL_WORK", 0)
    threads = os.environ.get("OPENBLAS_NUM_THREADS")
    there = scan_model(index, tmp_path / "b", ScanOptions(workers=2)).path
    # Not to the byte: one process may sum on several BLAS threads, a worker sums on one.
    ours = {row.module: row.snr for row in read_scan(here).rows}
    theirs = {row.module: row.snr for row in read_scan(there).rows}
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert os.environ.get("OPENBLAS_NUM_THREADS") == threads


def test_types(model: Path, tmp_path: Path) -> None:
    index = read_index(model)
    options = ScanOptions(types=("mlp.up_proj", "input_layernorm", "model.embed_tokens"))
    scan = read_scan(scan_model(index, tmp_path, options).path)
    assert len(scan.rows) == 4 + 4 + 1
    # A norm is a vector: one singular value, so Spectrum's score is infinite, as published.
    norms = [row for row in scan.rows if row.type == "input_layernorm"]
    assert {row.snr for row in norms} == {float("inf")}
    assert all(row.degenerate for row in norms)


def test_a_type_that_the_model_lacks(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"no module type 'mlp\.gate_proj'; it has: .*mlp\.up_proj"):
        scan_model(read_index(model), tmp_path / "out", ScanOptions(types=("mlp.gate_proj",)))
    assert not (tmp_path / "out").exists()


def test_a_model_without_layers(write_checkpoint) -> None:
    index = read_index(write_checkpoint({"embedding.weight": np.ones((4, 4))}))
    with pytest.raises(ScanError, match="no numbered layers"):
        targets(index)


def _with_bad_weights(llama) -> dict[str, np.ndarray]:
    tensors = llama()
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = np.nan
    tensors["model.layers.2.mlp.down_proj.weight"][:] = 0
    return tensors


def test_nan_weights_stop_the_scan_and_keep_the_rest(write_checkpoint, llama, tmp_path) -> None:
    folder = write_checkpoint(_with_bad_weights(llama))
    out = tmp_path / "out"
    with pytest.raises(ScanError, match="2 of 16 matrices cannot be scored") as caught:
        scan_model(read_index(folder), out, ScanOptions())
    assert "model.layers.1.mlp.up_proj.weight: 1 of its 8,192 weights are NaN" in str(caught.value)
    assert "model.layers.2.mlp.down_proj.weight: all its weights are zero" in str(caught.value)
    assert [p.name for p in out.iterdir()] == [_journal(out).name]  # no scan, whole or half
    outcome = scan_model(read_index(folder), out, ScanOptions(allow_unscored=True))
    assert outcome.reused == 14
    scan = read_scan(outcome.path)
    assert len(scan.rows) == 14
    assert dict(scan.unscored).keys() == {
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.2.mlp.down_proj.weight",
    }
    assert "nan" not in outcome.path.read_text().lower()


def test_a_model_that_is_all_nan(write_checkpoint, llama, tmp_path) -> None:
    tensors = {name: np.full_like(array, np.nan) for name, array in llama(1).items()}
    folder = write_checkpoint(tensors)
    with pytest.raises(ScanError, match="no matrix could be scored"):
        scan_model(read_index(folder), tmp_path, ScanOptions(allow_unscored=True))


def test_the_other_score_costs_nothing_and_changed_weights_do(
    write_checkpoint, llama, tmp_path
) -> None:
    out, first = tmp_path / "out", llama()
    scan_model(read_index(write_checkpoint(first, name="tiny")), out, ScanOptions())
    again = scan_model(read_index(tmp_path / "tiny"), out, ScanOptions(estimator=Estimator.MP))
    assert again.reused == 16
    assert read_scan(again.path).estimator is Estimator.MP
    # The same model trained further: same names, shapes, sizes, other numbers in one matrix.
    trained = {name: array.copy() for name, array in first.items()}
    trained["model.layers.3.mlp.up_proj.weight"] += 0.001
    other = tmp_path / "later"
    other.mkdir()
    moved = write_checkpoint(trained, name="later/tiny")
    outcome = scan_model(read_index(moved), out, ScanOptions())
    assert outcome.reused == 15
    # Other options are another scan.
    options = ScanOptions(precision=Precision.FP64)
    assert scan_model(read_index(moved), out, options).reused == 0


def test_a_kill_while_more_types_are_scored_keeps_the_scan_before(
    model: Path, tmp_path: Path
) -> None:
    index, out = read_index(model), tmp_path / "out"
    scan_model(index, out, ScanOptions())
    types = sorted({tensor.type for tensor in targets(index)})
    more = ScanOptions(types=(*types, "model.embed_tokens", "model.norm"))

    def stop(_: object, __: float, reused: bool) -> None:
        if not reused:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_model(index, out, more, progress=stop)
    # One of the two new ones had been finished.
    assert scan_model(index, out, more).reused == 17


def test_a_scan_of_fewer_types_keeps_what_is_known_of_the_others(
    model: Path, tmp_path: Path
) -> None:
    index, out = read_index(model), tmp_path / "out"
    whole = scan_model(index, out, ScanOptions())
    fewer = scan_model(index, out, ScanOptions(types=("mlp.up_proj",)))
    assert fewer.results == whole.results
    assert fewer.reused == len(whole.results)
    # With another solver nothing of it counts.
    other = ScanOptions(types=("mlp.up_proj",), precision=Precision.FP64)
    assert {index[one.name].type for one in scan_model(index, out, other).results} == {
        "mlp.up_proj"
    }


def test_another_models_scan_of_this_name_is_not_overwritten(
    model: Path, write_checkpoint, llama, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    kept = scan_model(read_index(model), out, ScanOptions()).path.read_bytes()
    (tmp_path / "other").mkdir()
    other = write_checkpoint(llama(2), name=f"other/{model.name}")
    with pytest.raises(ScanError, match=r"another model of this name.*--name"):
        scan_model(read_index(other), out, ScanOptions())
    assert (out / f"snr_results_{model.name}.json").read_bytes() == kept


def test_half_a_line_in_the_journal_is_one_matrix_lost(model: Path, tmp_path: Path) -> None:
    index, out = read_index(model), tmp_path
    key = {
        "fingerprint": index.fingerprint,
        "precision": "auto",
        "solver": "exact",
        "device": "cpu",
    }
    names = [tensor.name for tensor in targets(index)][:3]
    lines = [json.dumps({"key": key})]
    lines += [json.dumps(score_matrix(index[name]).to_json()) for name in names]
    _journal(out).write_text("\n".join(lines)[:-40])
    assert scan_model(index, out, ScanOptions()).reused == 2
    # A whole line that is none is left out too, and a journal of another checkpoint as a whole.
    sidecar_path(out / "snr_results_tiny.json").unlink()
    _journal(out).write_text("\n".join([lines[0], "{", lines[1], ""]))
    assert scan_model(index, out, ScanOptions()).reused == 1
    sidecar_path(out / "snr_results_tiny.json").unlink()
    _journal(out).write_text("\n".join([lines[0].replace(index.fingerprint, "0"), lines[1], ""]))
    assert scan_model(index, out, ScanOptions()).reused == 0


def test_other_options_keep_what_a_stopped_scan_had_finished(model: Path, tmp_path: Path) -> None:
    index, out = read_index(model), tmp_path / "out"
    seen: list[object] = []

    def stop(result: object, _: float, __: bool) -> None:
        seen.append(result)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_model(index, out, ScanOptions(), progress=stop)
    fp64 = ScanOptions(precision=Precision.FP64)
    assert scan_model(index, out, fp64).reused == 0
    assert scan_model(index, out, ScanOptions()).reused == 5
    # Nor does the scan that was finished, and whose file the last one took.
    assert scan_model(index, out, fp64).reused == 16
    assert scan_model(index, out, ScanOptions()).reused == 16


def test_a_full_disk_at_the_start_keeps_the_journal(
    model: Path, tmp_path: Path, monkeypatch
) -> None:
    index, out = read_index(model), tmp_path

    def stop(_: object, __: float, ___: bool) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_model(index, out, ScanOptions(), progress=stop)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(ScanError, match="No space left"):
            scan_model(index, out, ScanOptions())
    assert scan_model(index, out, ScanOptions()).reused == 1


def test_unwritable_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScanError, match=r"cannot write into .*give a writable --out"):
        scan_model(read_index(model), tmp_path / "file" / "out", ScanOptions())


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_folder_without_permission(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    with pytest.raises(ScanError, match="Permission denied"):
        scan_model(read_index(model), out, ScanOptions())
    assert list(out.iterdir()) == []


def test_full_disk_leaves_no_half_file(model: Path, tmp_path: Path, monkeypatch) -> None:
    def full(path: Path, data: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scanning, "write_atomic", full)
    with pytest.raises(ScanError, match="No space left"):
        scan_model(read_index(model), tmp_path / "out", ScanOptions())
    assert [p.name for p in (tmp_path / "out").iterdir()] == [_journal(tmp_path).name]


def test_two_scans_do_not_write_one_file(model: Path, tmp_path: Path) -> None:
    from kidrails_guard.spectrum.journal import Journal

    with (
        Journal.open(tmp_path / "snr_results_tiny.json", {"fingerprint": "x"}),
        pytest.raises(ScanError, match="another scan is writing"),
    ):
        scan_model(read_index(model), tmp_path, ScanOptions())


def test_unknown_device(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="'tpu' is not one of cpu, cuda"):
        scan_model(read_index(model), tmp_path, ScanOptions(device="tpu"))


def test_a_worker_that_dies(model: Path, tmp_path: Path, monkeypatch) -> None:
    """As the kernel kills one that takes too much memory."""
    monkeypatch.setattr(scanning, "_SMALL_WORK", 0)
    monkeypatch.setattr(scanning, "_start_worker", _die_at_once)
    with pytest.raises(ScanError, match="a worker died"):
        scan_model(read_index(model), tmp_path, ScanOptions(workers=1))


def _die_at_once() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_cores() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def _scan_command(model: Path, out: Path, *options: str) -> list[str]:
    command = [sys.executable, "-m", "kidrails_guard", "spectrum", "scan", str(model)]
    return [*command, "--out", str(out), "--json", *options]


def _children(pid: int) -> set[int]:
    psutil = pytest.importorskip("psutil")
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def test_a_killed_scan_goes_on_where_it_stopped(write_checkpoint, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    rng = np.random.default_rng(0)
    tensors = {
        f"model.layers.{n}.mlp.up_proj.weight": rng.standard_normal((700, 700)).astype(np.float32)
        for n in range(24)
    }
    model, out = write_checkpoint(tensors), tmp_path / "out"
    # No pipe: a worker that lived on would hold it open, and waiting for its end would hang.
    process = subprocess.Popen(
        _scan_command(model, out, "--workers", "2"), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not _journal(out).is_file() or len(_journal(out).read_text().splitlines()) < 4:
        assert process.poll() is None, "the scan ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    workers = _children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = _journal(out).read_text().count("\n") - 1  # whole lines, without the first
    assert [p.name for p in out.iterdir()] == [_journal(out).name]
    # Nobody told the workers; they notice that they are alone.
    assert workers
    left = [psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)]
    _gone, alive = psutil.wait_procs(left, timeout=60)
    for one in alive:
        one.kill()
    assert not alive
    record = json.loads(
        subprocess.run(_scan_command(model, out), check=True, capture_output=True).stdout
    )
    assert 3 <= kept < 24
    assert (record["reused"], record["matrices"]) == (kept, 24)
    fresh = tmp_path / "fresh"
    subprocess.run(_scan_command(model, fresh), check=True, capture_output=True)
    name = "snr_results_tiny.json"
    assert (out / name).read_bytes() == (fresh / name).read_bytes()


_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_CHILDREN"), reason="no child statistics")
def test_peak_memory_follows_the_largest_matrix_not_the_model(tmp_path: Path) -> None:
    """At most three times the largest matrix as it is stored and 300 MB, in any one process.

    Among the matrices are tall and wide ones, and one with an outlier, which is done again in
    float64. The model as a whole would not fit into the bound.
    """
    short, long = 1024, 40960
    largest = 2 * short * long
    shapes = [(long, short), (short, long), (short, long), (long, short), (short, long)]
    model = tmp_path / "tiny"
    model.mkdir()
    header = {
        f"model.layers.{number}.mlp.up_proj.weight": {
            "dtype": "BF16",
            "shape": shape,
            "data_offsets": [number * largest, (number + 1) * largest],
        }
        for number, shape in enumerate(shapes)
    }
    text = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    with (model / "model.safetensors").open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for number, (rows, columns) in enumerate(shapes):
            # Random sign and mantissa; the exponents fall along the short side, in steps.
            bits = np.frombuffer(rng.bytes(largest), "<u2").reshape(rows, columns) & 0x807F
            steps = 0x3F80 - (np.arange(short, dtype=np.uint16) // 256 << 7)
            if number == 2:
                steps[0] = 0x4700  # 32,768
            bits |= steps[:, None] if rows == short else steps[None, :]
            stream.write(bits.tobytes())
    assert len(shapes) * largest > 3 * largest + 160e6
    output = subprocess.run(
        [sys.executable, "-c", _PEAK, *_scan_command(model, tmp_path / "out", "--workers", "1")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    peak = int(output) * (1 if sys.platform == "darwin" else 1024)
    assert peak <= 3 * largest + 300e6
    provenance = json.loads(sidecar_path(tmp_path / "out" / "snr_results_tiny.json").read_text())
    assert {one["arithmetic"][:4] for one in provenance["matrices"]} == {"fp32", "fp64"}
