"""The torch path, on torch's CPU device: its logic needs no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kidrails_guard.errors import MissingDependency, ScanError
from kidrails_guard.spectrum.checkpoint import read_index
from kidrails_guard.spectrum.cuda import import_torch
from kidrails_guard.spectrum.scan import ScanOptions, scan_model
from kidrails_guard.spectrum.scoring import score_matrix

_SCORE = """
import json, sys, torch
from kidrails_guard.spectrum.checkpoint import read_index
from kidrails_guard.spectrum.cuda import score_with_torch
index = read_index(sys.argv[1])
print(json.dumps([score_with_torch(t, torch, device="cpu").to_json() for t in index.tensors]))
"""


@pytest.mark.train
@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_same_scores_with_torch(repository: Path, write_checkpoint, llama, dtype: str) -> None:
    python = repository / ".venv-train" / "bin" / "python"
    if not python.is_file():
        pytest.skip("no .venv-train; make it with: make venv-train")
    tensors = llama(2)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = np.nan
    tensors["model.layers.1.mlp.up_proj.weight"][:] = 0
    folder = write_checkpoint(tensors, dtype=dtype)
    output = subprocess.run(
        [str(python), "-c", _SCORE, str(folder)],
        check=True,
        capture_output=True,
        text=True,
        cwd=repository,
    ).stdout
    index = read_index(folder)
    for found in json.loads(output):
        expected = score_matrix(index[found["name"]])
        assert found["reason"] == expected.reason
        for estimator, one in expected.scores.items():
            mine = found["scores"][estimator.value]
            assert mine["degenerate"] == one.degenerate
            if mine["snr"] is not None:
                assert mine["snr"] == pytest.approx(one.snr, rel=2e-4)
        if not expected.reason:
            assert found["sha256"] == expected.sha256


class _NoGpu:
    class cuda:
        @staticmethod
        def is_available() -> bool:
            return False


def test_without_torch_and_without_gpu(monkeypatch, write_checkpoint, llama, tmp_path) -> None:
    index = read_index(write_checkpoint(llama(1)))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match="pip install torch"):
        scan_model(index, tmp_path / "a", ScanOptions(device="cuda"))
    monkeypatch.setitem(sys.modules, "torch", _NoGpu)
    with pytest.raises(ScanError, match="torch sees no CUDA GPU"):
        import_torch()
