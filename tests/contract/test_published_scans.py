"""The scans that Spectrum's authors published, read as they are.

They are not part of this repository: the tests skip where the folder is absent. The checked-in
selections of the recipes were made from one of them, and are made again here.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from kidrails_guard.files import sha256_file
from kidrails_guard.spectrum.ranking import is_norm, rank
from kidrails_guard.spectrum.report import Scan, read_scan
from kidrails_guard.spectrum.selecting import Request, select
from kidrails_guard.spectrum.shapes import model_index
from kidrails_guard.spectrum.targeting import Selection

BASE = "snr_results_meta-llama-Meta-Llama-3.1-8B.json"
INSTRUCT = "snr_results_meta-llama-Meta-Llama-3.1-8B-Instruct.json"  # the sorted layout
SMOL = "snr_results_HuggingFaceTB-SmolLM-135M.json"


@pytest.fixture
def published(shared: Path):
    def read(name: str) -> Scan:
        path = shared / "snr" / name
        if not path.is_file():
            pytest.skip(f"no published scan at {path}")
        return read_scan(path)

    return read


@pytest.mark.parametrize(
    ("name", "model", "modules", "layers"),
    [
        (BASE, "meta-llama/Meta-Llama-3.1-8B", 291, 32),
        (INSTRUCT, "meta-llama/Meta-Llama-3.1-8B-Instruct", 291, 32),
        (SMOL, "HuggingFaceTB/SmolLM-135M", 273, 30),
    ],
)
def test_read(published, name: str, model: str, modules: int, layers: int) -> None:
    scan = published(name)
    assert (scan.model, len(scan.rows), scan.unscored) == (model, modules, ())
    counts = {kind: len(group) for kind, group in rank(scan.rows).items()}
    assert counts["mlp.down_proj"] == counts["self_attn.q_proj"] == layers
    assert all(math.isinf(row.snr) for row in scan.rows if is_norm(row.type))
    scan.check_against(model_index(model))


def test_the_sorted_file_is_in_our_order(published, shared: Path) -> None:
    """Its own order is the authors' ranking, ties and infinite rows included."""
    theirs = json.loads((shared / "snr" / INSTRUCT).read_text())
    for kind, group in rank(published(INSTRUCT).rows).items():
        assert [one.row.module for one in group] == list(theirs[kind])


@pytest.mark.parametrize("name", [BASE, SMOL])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.75, 1.0])
def test_selects_what_axolotl_selects(published, shared, name: str, fraction: float) -> None:
    """axolotl's plugin, written down again: stable sort within a type, ``int(n·p)``."""
    content = json.loads((shared / "snr" / name).read_text())
    groups: dict[str, list[tuple[str, float]]] = {}
    for module, info in content.items():
        groups.setdefault(info["type"], []).append((module, info["snr"]))
    expected = set()
    for kind, group in groups.items():
        if kind.startswith(("mlp.", "self_attn.")):
            ordered = sorted(group, key=lambda item: item[1], reverse=True)
            expected |= {f"{m}.weight" for m, _ in ordered[: int(len(group) * fraction)]}
    scan = published(name)
    chosen = select(scan, model_index(scan.model), Request(fraction=fraction))
    assert set(chosen.parameters) == expected


def test_shares_of_llama(published) -> None:
    scan = published(BASE)
    index = model_index(scan.model)
    found = {
        (fraction, more): select(
            scan, index, Request(fraction=fraction, embeddings=more, head=more)
        ).trainable_parameters
        for fraction in (0.25, 0.5)
        for more in (False, True)
    }
    assert found == {
        (0.25, False): 1_744_830_464,
        (0.25, True): 2_795_503_616,
        (0.5, False): 3_489_660_928,
        (0.5, True): 4_540_334_080,
    }


@pytest.mark.parametrize(("percent", "fraction"), [(25, 0.25), (50, 0.5)])
def test_the_checked_in_selections_are_made_from_it(
    published, shared: Path, repository: Path, percent: int, fraction: float
) -> None:
    path = repository / "recipes" / "selections" / f"llama-3.1-8b-spectrum-{percent}.json"
    checked_in = Selection.load(path)
    assert checked_in.scan_sha256 == sha256_file(shared / "snr" / BASE)
    scan = published(BASE)
    again = select(
        scan, model_index(scan.model), Request(fraction=fraction), source=checked_in.scan_source
    )
    assert again == checked_in


@pytest.mark.parametrize("percent", [25, 50])
def test_the_checked_in_selections_hold_without_the_scan(repository: Path, percent: int) -> None:
    path = repository / "recipes" / "selections" / f"llama-3.1-8b-spectrum-{percent}.json"
    selection = Selection.load(path)
    index = model_index(selection.model)
    selection.check_against(index)
    for name, pattern in zip(selection.parameters, selection.patterns, strict=True):
        assert index.match(pattern) == (name,)
