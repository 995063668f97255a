from __future__ import annotations

import math
from pathlib import Path

import pytest

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.heatmap import draw_file, draw_selection, draw_terminal
from kidrails_guard.spectrum.ranking import ScanRow
from kidrails_guard.spectrum.report import Scan
from kidrails_guard.spectrum.snr import Estimator


def _scan(rows: list[ScanRow]) -> Scan:
    return Scan("tiny", Estimator.SPECTRUM, tuple(rows), "a" * 64, "x.json")


ROWS = [
    *[ScanRow(f"model.layers.{n}.mlp.up_proj", "mlp.up_proj", float(n)) for n in range(5)],
    ScanRow("model.layers.0.mlp.down_proj", "mlp.down_proj", math.inf),
    ScanRow("model.layers.2.mlp.down_proj", "mlp.down_proj", 0.5),
    ScanRow("model.layers.0.input_layernorm", "input_layernorm", math.inf),
    ScanRow("model.norm", "model.norm", math.inf),
]


def test_terminal() -> None:
    lines = draw_terminal(_scan(ROWS)).splitlines()
    assert lines[0].startswith("layer")
    assert lines[1] == "mlp.down_proj │∞· ··│ 0.5 … 0.5"
    assert lines[2] == "mlp.up_proj   │ ░▒▓█│ 0 … 4"
    assert not any("norm" in line for line in lines)


def test_selection() -> None:
    text = draw_selection(_scan(ROWS), {"model.layers.3.mlp.up_proj.weight"})
    assert "mlp.up_proj   │···█·│ 1 of 5" in text
    assert "mlp.down_proj │· ·  │ 0 of 2" in text


@pytest.mark.parametrize(("name", "magic"), [("map.png", b"\x89PNG"), ("map.svg", b"<?xml")])
def test_files_are_the_same_each_time(tmp_path: Path, name: str, magic: bytes) -> None:
    path = tmp_path / "folder" / name
    draw_file(_scan(ROWS), path)
    first = path.read_bytes()
    assert first.startswith(magic)
    draw_file(_scan(ROWS), path)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"'\.jpg' is not one of \.png, \.svg"):
        draw_file(_scan(ROWS), tmp_path / "map.jpg")
    with pytest.raises(ScanError, match="no scored layers"):
        draw_file(_scan(ROWS[-2:]), tmp_path / "map.png")
    with pytest.raises(ScanError, match="no scored layers"):
        draw_terminal(_scan(ROWS[-2:]))
    (tmp_path / "file").write_text("")
    with pytest.raises(ScanError, match="cannot write"):
        draw_file(_scan(ROWS), tmp_path / "file" / "map.png")
