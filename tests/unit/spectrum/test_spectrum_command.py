"""`kidrails spectrum` as a script sees it: output, files, exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kidrails_guard.cli import main
from kidrails_guard.spectrum.targeting import Selection


@pytest.fixture
def scan(write_checkpoint, llama, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    model = write_checkpoint(llama(6), dtype="BF16")
    assert main(["spectrum", "scan", str(model), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr()
    assert "24 matrices scored (0 of them earlier), 0 not;" in out.out
    assert "snr_results_tiny.json" in out.out
    return tmp_path / "out" / "snr_results_tiny.json"


def test_scan_in_json(scan: Path, tmp_path: Path, capsys) -> None:
    options = ["--out", str(scan.parent), "--estimator", "mp", "--name", "tiny", "--json"]
    assert main(["spectrum", "scan", str(tmp_path / "tiny"), *options]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["matrices"], record["reused"], record["unscored"]) == (24, 24, {})


def test_name_and_default_folder(write_checkpoint, llama, tmp_path, monkeypatch, capsys) -> None:
    """The file lies where axolotl looks for it, under the name that it makes of the base model."""
    model = write_checkpoint(llama(2))
    monkeypatch.chdir(tmp_path)
    assert main(["spectrum", "scan", str(model), "--name", "some-org/my_model"]) == 0
    assert (tmp_path / "model_snr_results" / "snr_results_some-org-my-model.json").is_file()


def test_select(scan: Path, tmp_path: Path, capsys) -> None:
    saved = tmp_path / "selection.json"
    assert main(["spectrum", "select", str(scan), "--top", "0.5", "--save", str(saved)]) == 0
    out = capsys.readouterr().out
    assert "mlp.up_proj" in out
    assert "3 of 6" in out
    assert "trainable: " in out
    for row in ("full", "selection", "lora", "qlora"):
        assert f"\n  {row} " in out
    selection = Selection.load(saved)
    assert len(selection.parameters) == 12
    assert selection.scan_source == "snr_results_tiny.json"


def test_a_scan_under_another_name_is_said_to_be_one(
    scan: Path, write_checkpoint, llama, tmp_path: Path, capsys
) -> None:
    foreign = tmp_path / "snr_results_another-model.json"
    foreign.write_bytes(scan.read_bytes())  # without provenance: only shapes can be compared
    model = write_checkpoint(llama(6), name="mine", dtype="BF16")
    for named, source in (("another-model", foreign), ("tiny", scan)):
        assert main(["spectrum", "select", str(source), "--model", str(model)]) == 0
        assert f"a scan of {named}, and the model here is mine" in capsys.readouterr().err
    assert main(["spectrum", "select", str(scan), "--model", str(scan.parents[1] / "tiny")]) == 0
    assert not capsys.readouterr().err


def test_select_in_json(scan: Path, tmp_path: Path, capsys) -> None:
    options = ["--random", "0.5", "--seed", "7", "--head", "--source", "here", "--json"]
    assert main(["spectrum", "select", str(scan), *options]) == 0
    record = json.loads(capsys.readouterr().out)
    memory = record.pop("memory")
    assert set(memory) == {"full", "selection", "lora", "qlora"}
    selection = Selection.from_json(record)
    assert (selection.method, selection.seed, selection.head) == ("random", 7, True)
    assert "model.embed_tokens.weight" in selection.parameters  # the head is tied
    assert selection.scan_source == "here"


def test_select_by_budget(scan: Path, tmp_path: Path, capsys) -> None:
    command = ["spectrum", "select", str(scan), "--json"]
    assert main([*command, "--budget-parameters", "50K"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert 0 < record["trainable_parameters"] <= 50_000
    assert main([*command, "--budget-memory", "1.6"]) == 0
    assert json.loads(capsys.readouterr().out)["budget"] == "at most 1.6 GB on a GPU (estimate)"


def test_show(scan: Path, tmp_path: Path, capsys) -> None:
    picture = tmp_path / "map.svg"
    assert main(["spectrum", "show", str(scan), "--out", str(picture)]) == 0
    assert "mlp.down_proj" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"<?xml")
    assert main(["spectrum", "show", str(scan), "--estimator", "mp", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["estimator"] == "mp"
    places = [one["place"] for one in record["modules"] if one["type"] == "mlp.up_proj"]
    assert places == list(range(6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top", "50"], "for 50 % write 0.5"),
        (["--bottom", "0"], "not above 0"),
        (["--top", "0.01"], "selects none"),
        (["--types", "mlp.gate_proj"], "no module type 'mlp.gate_proj'"),
        (["--model", "meta-llama/Llama-3.1-8B"], "is a scan of tiny"),
        (["--model", "no/such"], "not known"),
        (["--budget-memory", "-1"], "not above 0"),
        (["--budget-memory", "nan"], "not above 0"),
        (["--budget-parameters", "1"], "nothing fits"),
        (["--tokens", "0"], "tokens 0"),
    ],
)
def test_wrong_use_is_status_two(scan: Path, options: list[str], message: str, capsys) -> None:
    assert main(["spectrum", "select", str(scan), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "x", "1.2.3B", "-5M"])
def test_sizes(scan: Path, size: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["spectrum", "select", str(scan), f"--budget-parameters={size}"])
    assert caught.value.code == 2
    assert "is not a number such as" in capsys.readouterr().err


def test_scan_of_nothing(tmp_path: Path, capsys) -> None:
    assert main(["spectrum", "scan", str(tmp_path), "--workers", "-1"]) == 2
    assert main(["spectrum", "scan", str(tmp_path)]) == 2
    assert "no safetensors files" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unscored_is_status_two_or_a_finding(write_checkpoint, llama, tmp_path, capsys) -> None:
    tensors = llama(2)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = np.nan
    command = ["spectrum", "scan", str(write_checkpoint(tensors)), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "model.layers.0.mlp.up_proj.weight: 1 of its" in capsys.readouterr().err
    assert main([*command, "--allow-unscored"]) == 1
    assert "not scored: model.layers.0.mlp.up_proj.weight" in capsys.readouterr().out
    scan = tmp_path / "out" / "snr_results_tiny.json"
    assert main(["spectrum", "show", str(scan)]) == 0
    assert "not scored: model.layers.0" in capsys.readouterr().out


def test_missing_package_names_the_command(scan: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert main(["spectrum", "scan", str(scan.parent)]) == 1
    assert 'pip install "kidrails-guard[spectrum]"' in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom kidrails_guard.cli import main\n"
        "try: main(['spectrum', 'scan', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('numpy', 'scipy', 'torch', 'matplotlib') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert output.endswith("[]\n")
