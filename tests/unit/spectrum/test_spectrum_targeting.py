from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.checkpoint import read_index
from kidrails_guard.spectrum.shapes import model_index
from kidrails_guard.spectrum.targeting import Method, Selection

NAMES = ("model.layers.1.mlp.up_proj.weight", "model.layers.10.mlp.up_proj.weight")


@pytest.fixture
def selection() -> Selection:
    return Selection(
        model="HuggingFaceTB/SmolLM2-135M",
        method=Method.RANDOM,
        fraction=0.25,
        types=("mlp.up_proj",),
        parameters=NAMES,
        trainable_parameters=2 * 1536 * 576,
        total_parameters=134_515_008,
        scan_sha256="0" * 64,
        scan_source="snr_results_x.json",
        seed=3,
        degenerate=("model.layers.2.mlp.up_proj",),
    )


def test_round_trip(selection: Selection, tmp_path: Path) -> None:
    path = tmp_path / "selections" / "one.json"
    selection.save(path)
    assert Selection.load(path) == selection
    written = json.loads(path.read_text())
    assert written["trainable_share"] == pytest.approx(0.013155, abs=1e-6)
    assert list(written)[-1] == "parameters"


def test_patterns_match_one_tensor_each(selection: Selection) -> None:
    """In axolotl's way: it escapes dots itself and matches at the start only."""
    assert selection.patterns == tuple(f"^{name}$" for name in NAMES)
    index = model_index(selection.model)
    matched = [index.match(pattern) for pattern in selection.patterns]
    assert matched == [(NAMES[0],), (NAMES[1],)]
    # What the anchors are for: layer 1 is also the beginning of layers 10 to 19.
    assert len(index.match("model.layers.1")) > len(index.match("model.layers.1."))


def test_check_against(selection: Selection, write_checkpoint, llama) -> None:
    selection.check_against(model_index(selection.model))
    with pytest.raises(ScanError, match=r"1 parameters that tiny does not have.*layers\.10"):
        selection.check_against(read_index(write_checkpoint(llama(4))))
    with pytest.raises(ScanError, match=r"counts 1,769,472 trainable.*belongs|another model"):
        selection.check_against(model_index("meta-llama/Llama-3.2-1B"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format 'other' is not"),
        ({"extra": 1}, "unknown keys extra"),
        ({"method": "best"}, "'best' is not a valid Method"),
        ({"parameters": []}, "nothing would be trained"),
        ({"parameters": [NAMES[0], NAMES[0]]}, "names one twice"),
        ({"fraction": 50}, "fraction 50 is not between"),
        ({"trainable_parameters": 0}, "trainable_parameters 0"),
        ({"trainable_parameters": 10**12}, "is not between"),
        ({"scan_sha256": "abc"}, "not 64 hex digits"),
    ],
)
def test_what_is_no_selection(selection: Selection, change: dict, message: str) -> None:
    with pytest.raises(ScanError, match=message):
        Selection.from_json(selection.to_json() | change, where="file.json")


def test_missing_keys_and_other_types(selection: Selection) -> None:
    plain = selection.to_json()
    del plain["scan_source"]
    with pytest.raises(ScanError, match="scan_source"):
        Selection.from_json(plain)
    for other in (None, [], "x"):
        with pytest.raises(ScanError, match="kidrails spectrum select SCAN --save FILE"):
            Selection.from_json(other)


def test_files_that_cannot_be_read_or_written(selection: Selection, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="cannot read the selection"):
        Selection.load(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(ScanError, match="cannot read the selection"):
        Selection.load(tmp_path / "text.json")
    with pytest.raises(ScanError, match="cannot write"):
        selection.save(tmp_path / "text.json" / "below.json")


def test_frozen(selection: Selection) -> None:
    with pytest.raises(AttributeError):
        selection.fraction = 1.0  # type: ignore[misc]
    assert replace(selection, fraction=1.0).fraction == 1.0
