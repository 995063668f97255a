from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from kidrails_guard.errors import ScanError
from kidrails_guard.files import sha256_file
from kidrails_guard.spectrum.checkpoint import ModelIndex, TensorInfo, read_index
from kidrails_guard.spectrum.ranking import rank
from kidrails_guard.spectrum.report import (
    INFINITE,
    model_slug,
    read_scan,
    scan_content,
    scan_path,
    scan_text,
    sidecar_path,
)
from kidrails_guard.spectrum.scan import ScanOptions, scan_model
from kidrails_guard.spectrum.scoring import MatrixResult
from kidrails_guard.spectrum.snr import Estimator, Score

FLAT = """{
  "model.layers.0.mlp.up_proj": {"snr": 0.5, "type": "mlp.up_proj"},
  "model.layers.1.mlp.up_proj": {"snr": Infinity, "type": "mlp.up_proj"},
  "model.norm": {"snr": Infinity, "type": "model.norm"}
}"""
SORTED = """{
  "mlp.up_proj": {"model.layers.1.mlp.up_proj": Infinity, "model.layers.0.mlp.up_proj": 0.5},
  "model.norm": {"model.norm": Infinity}
}"""


def _write(folder: Path, text: str, name: str = "snr_results_tiny.json") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_both_layouts_say_the_same(tmp_path: Path) -> None:
    flat = read_scan(_write(tmp_path, FLAT))
    other = read_scan(_write(tmp_path, SORTED, "snr_results_tiny_sorted.json"))
    assert rank(flat.rows) == rank(other.rows)
    assert flat.model == other.model == "tiny"
    assert [row.snr for row in flat.rows] == [0.5, math.inf, math.inf]
    assert flat.sha256 == sha256_file(tmp_path / "snr_results_tiny.json")
    assert flat.estimator is Estimator.SPECTRUM


def test_published_names_lead_back_to_the_model(tmp_path: Path) -> None:
    name = "snr_results_meta-llama-Meta-Llama-3.1-8B-Instruct.json"
    assert read_scan(_write(tmp_path, FLAT, name)).model == "meta-llama/Meta-Llama-3.1-8B-Instruct"


def test_slug() -> None:
    assert model_slug("a_b/c_d-e.1") == "a-b-c-d-e.1"
    assert scan_path(Path("x"), "a/b").as_posix() == "x/snr_results_a-b.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[1]", "holds no scan"),
        ("{}", "holds no scan"),
        ('{"a": 1}', "neither scan layout"),
        ('{"a": {"b": "c"}}', "neither scan layout"),
        ('{"a": {"snr": "high", "type": "t"}}', "'a' is 'high'"),
        ('{"a": {"snr": -1, "type": "t"}}', "'a' is -1"),
        ('{"a": {"snr": true, "type": "t"}}', "'a' is True"),
    ],
)
def test_what_is_no_scan(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ScanError, match=message):
        read_scan(_write(tmp_path, text))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="cannot read the scan"):
        read_scan(tmp_path / "none.json")


def test_nan_is_listed_not_ranked(tmp_path: Path) -> None:
    scan = read_scan(_write(tmp_path, FLAT.replace("0.5", "NaN")))
    assert [row.layer for row in scan.rows] == [1, -1]
    assert scan.unscored == (("model.layers.0.mlp.up_proj.weight", "its score in the file is NaN"),)


def _result(layer: int, snr: float, *, signal: float = 1.0) -> MatrixResult:
    one = Score(snr, 1.0, 1.0, signal, 1.0, 1, 0.0, "" if math.isfinite(snr) else "infinite")
    name = f"model.layers.{layer}.mlp.up_proj.weight"
    return MatrixResult(name, (2, 2), "F32", dict.fromkeys(Estimator, one), largest=1.0)


def test_written_scan_is_strict_json_in_rank_order() -> None:
    results = [
        _result(0, 0.5),
        _result(1, math.inf),
        _result(2, 0.7),
        _result(3, math.inf, signal=9),
    ]
    text = scan_text(scan_content(results, Estimator.SPECTRUM))

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    content = json.loads(text, parse_constant=refuse)
    assert [key.split(".")[2] for key in content] == ["3", "1", "2", "0"]
    assert content["model.layers.1.mlp.up_proj"] == {
        "snr": INFINITE,
        "type": "mlp.up_proj",
        "degenerate": "infinite",
    }
    # What axolotl's plugin and Spectrum's own script do with it: a stable sort by "snr".
    ordered = sorted(content.items(), key=lambda item: item[1]["snr"], reverse=True)
    assert [key for key, _ in ordered] == list(content)


def test_unscored_matrices_are_not_in_the_file() -> None:
    bad = MatrixResult("model.layers.7.mlp.up_proj.weight", (2, 2), "F32", {}, reason="NaN")
    content = scan_content([_result(0, 0.5), bad], Estimator.MP)
    assert list(content) == ["model.layers.0.mlp.up_proj"]


@pytest.fixture
def scanned(tmp_path: Path, write_checkpoint, llama):
    index = read_index(write_checkpoint(llama()))
    path = scan_model(index, tmp_path / "out", ScanOptions(workers=1)).path
    return index, path


def test_provenance(scanned) -> None:
    index, path = scanned
    scan = read_scan(path)
    assert scan.model == "tiny"
    assert scan.index is not None
    assert scan.index.total_parameters == index.total_parameters
    assert scan.provenance is not None
    assert scan.provenance["scan_sha256"] == sha256_file(path)
    matrices = {one["name"]: one for one in scan.provenance["matrices"]}
    assert all(len(one["sha256"]) == 64 for one in matrices.values())
    scan.check_against(index)


def test_either_score_from_one_scan(scanned) -> None:
    _, path = scanned
    spectrum, mp = read_scan(path), read_scan(path, estimator=Estimator.MP)
    assert spectrum.estimator is Estimator.SPECTRUM
    assert mp.estimator is Estimator.MP
    assert {row.module for row in spectrum.rows} == {row.module for row in mp.rows}
    assert {row.snr for row in spectrum.rows}.isdisjoint(row.snr for row in mp.rows)
    sidecar_path(path).unlink()
    assert {row.module: row.snr for row in read_scan(path).rows} == pytest.approx(
        {row.module: row.snr for row in spectrum.rows}
    )
    with pytest.raises(ScanError, match=r"one score only.*--estimator mp"):
        read_scan(path, estimator=Estimator.MP)


def test_a_changed_scan_does_not_pass_for_the_written_one(scanned) -> None:
    _, path = scanned
    path.write_text(path.read_text().replace("0.", "1.", 1))
    with pytest.raises(ScanError, match="belongs to another scan"):
        read_scan(path)


@pytest.mark.parametrize("damage", ["{", '{"format": "other"}', '{"format": "kidrails-scan/1"}'])
def test_damaged_provenance(scanned, damage: str) -> None:
    _, path = scanned
    sidecar_path(path).write_text(damage)
    with pytest.raises(ScanError, match=r"provenance\.json cannot be read"):
        read_scan(path)


def test_scan_of_another_model(scanned, write_checkpoint, llama) -> None:
    _, path = scanned
    scan = read_scan(path)
    for tensors, message in (
        (llama(layers=3), "4 of its 16 modules are not in"),
        (llama(layers=5), "a smaller model"),
        (llama(hidden=32), "in other-32 it is"),
    ):
        name = f"other-{tensors['model.norm.weight'].size}-{len(tensors)}"
        name = "other-32" if "other-32" in message else name
        with pytest.raises(ScanError, match=message):
            scan.check_against(read_index(write_checkpoint(tensors, name=name)))
    moved = read_index(write_checkpoint(llama(), dtype="BF16", name="moved"))
    with pytest.raises(ScanError, match="another checkpoint"):
        scan.check_against(moved)


def test_tied_head_in_a_published_scan_is_no_other_model(tmp_path: Path) -> None:
    scan = read_scan(_write(tmp_path, '{"lm_head": {"snr": 8.3, "type": "lm_head"}}'))
    scan.check_against(ModelIndex("m", (TensorInfo("model.embed_tokens.weight", "BF16", (4, 4)),)))
