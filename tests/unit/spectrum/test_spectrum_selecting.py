from __future__ import annotations

import math
from pathlib import Path

import pytest

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.checkpoint import ModelIndex, read_index
from kidrails_guard.spectrum.memory import TrainingSetup, estimate_tuning
from kidrails_guard.spectrum.ranking import ScanRow
from kidrails_guard.spectrum.report import Scan, read_scan
from kidrails_guard.spectrum.scan import ScanOptions, scan_model
from kidrails_guard.spectrum.selecting import Request, select
from kidrails_guard.spectrum.shapes import model_index
from kidrails_guard.spectrum.snr import Estimator
from kidrails_guard.spectrum.targeting import Method

SMOL = "HuggingFaceTB/SmolLM2-135M"
TYPES = ("mlp.down_proj", "mlp.up_proj", "self_attn.q_proj")


@pytest.fixture
def index() -> ModelIndex:
    return model_index(SMOL)


@pytest.fixture
def scan() -> Scan:
    """Layer n scores n in each of three types; norms are infinite, as in published files."""
    rows = [
        ScanRow(f"model.layers.{layer}.{kind}", kind, float(layer))
        for kind in TYPES
        for layer in range(30)
    ]
    rows += [
        ScanRow(f"model.layers.{layer}.input_layernorm", "input_layernorm", math.inf)
        for layer in range(30)
    ]
    return Scan(SMOL, Estimator.SPECTRUM, tuple(rows), "a" * 64, "snr_results_x.json")


def _layers(names: tuple[str, ...], kind: str) -> list[int]:
    return [int(name.split(".")[2]) for name in names if kind in name]


def test_top(scan: Scan, index: ModelIndex) -> None:
    chosen = select(scan, index, Request(fraction=0.1))
    for kind in TYPES:
        assert _layers(chosen.parameters, kind) == [27, 28, 29]
    assert len(chosen.parameters) == 9  # no norms
    assert chosen.types == TYPES
    assert chosen.trainable_parameters == 3 * (2 * 576 * 1536 + 576 * 576)
    assert (chosen.scan_sha256, chosen.scan_source) == ("a" * 64, "snr_results_x.json")
    assert chosen.seed is None
    chosen.check_against(index)


def test_bottom_and_random(scan: Scan, index: ModelIndex) -> None:
    bottom = select(scan, index, Request(method=Method.BOTTOM, fraction=0.1))
    assert _layers(bottom.parameters, "q_proj") == [0, 1, 2]
    first, same, other = (
        select(scan, index, Request(method=Method.RANDOM, fraction=0.5, seed=seed))
        for seed in (1, 1, 2)
    )
    assert first == same
    assert first.parameters != other.parameters
    assert (first.seed, len(first.parameters)) == (1, 45)


def test_types(scan: Scan, index: ModelIndex) -> None:
    chosen = select(scan, index, Request(fraction=0.5, types=("mlp.up_proj",)))
    assert chosen.types == ("mlp.up_proj",)
    assert _layers(chosen.parameters, "mlp.up_proj") == list(range(15, 30))
    with pytest.raises(ScanError, match=r"no module type 'up_proj'; it has: .*mlp\.up_proj"):
        select(scan, index, Request(types=("up_proj",)))
    with pytest.raises(ScanError, match=r"embed_tokens is one matrix.*; say --embeddings"):
        select(scan, index, Request(types=("mlp.up_proj", "embed_tokens")))


def test_norms_only_when_asked_for(scan: Scan, index: ModelIndex) -> None:
    chosen = select(scan, index, Request(fraction=0.1, norms=True))
    assert sum("norm" in name for name in chosen.parameters) == 61
    named = select(scan, index, Request(fraction=0.1, types=("input_layernorm",)))
    # All are infinite: by layer number, and said to be degenerate.
    assert _layers(named.parameters, "layernorm") == [0, 1, 2]
    assert len(named.degenerate) == 30


def test_embeddings_and_head(scan: Scan, index: ModelIndex) -> None:
    plain = select(scan, index, Request(fraction=0.1))
    more = select(scan, index, Request(fraction=0.1, embeddings=True, head=True))
    # SmolLM2's head shares the embedding's weights: they count once.
    assert set(more.parameters) - set(plain.parameters) == {"model.embed_tokens.weight"}
    assert more.trainable_parameters - plain.trainable_parameters == 49152 * 576
    big = model_index("meta-llama/Llama-3.1-8B")
    rows = tuple(
        ScanRow(f"model.layers.{layer}.mlp.up_proj", "mlp.up_proj", float(layer))
        for layer in range(32)
    )
    own = Scan(big.model, Estimator.SPECTRUM, rows, "a" * 64, "x.json")
    chosen = select(own, big, Request(head=True))
    assert "lm_head.weight" in chosen.parameters
    assert "model.embed_tokens.weight" not in chosen.parameters


@pytest.mark.parametrize("fraction", [0.0, 50, -1, math.nan])
def test_no_fraction(scan: Scan, index: ModelIndex, fraction: float) -> None:
    for method in (Method.TOP, Method.BOTTOM, Method.RANDOM):
        with pytest.raises(ScanError, match="not above 0 and at most 1"):
            select(scan, index, Request(method=method, fraction=fraction))


def test_a_fraction_too_small_to_select(scan: Scan, index: ModelIndex) -> None:
    with pytest.raises(ScanError, match=r"of 30 layers selects none; the smallest .* 0\.03333"):
        select(scan, index, Request(fraction=0.03))


@pytest.mark.parametrize("limit", [1_000_000, 10_000_000, 30_000_000, 10**9])
def test_parameter_budget_takes_as_much_as_fits(scan: Scan, index: ModelIndex, limit) -> None:
    step = 2 * 576 * 1536 + 576 * 576
    if limit < step:
        with pytest.raises(
            ScanError, match=r"nothing fits at most 1,000,000 parameters.*2,101,248"
        ):
            select(scan, index, Request(method=Method.BUDGET, max_parameters=limit))
        return
    chosen = select(scan, index, Request(method=Method.BUDGET, max_parameters=limit))
    assert chosen.trainable_parameters == min(30, limit // step) * step
    assert f"{limit:,} parameters" in chosen.budget
    again = select(scan, index, Request(fraction=chosen.fraction))
    assert again.parameters == chosen.parameters


def test_memory_budget(scan: Scan, index: ModelIndex) -> None:
    setup = TrainingSetup(tokens=512)
    low, high = (estimate_tuning(index, n, setup).total for n in (0, index.total_parameters))
    limit = (low + high) / 2
    request = Request(method=Method.BUDGET, max_bytes=limit, setup=setup)
    chosen = select(scan, index, request)
    assert estimate_tuning(index, chosen.trainable_parameters, setup).total <= limit
    more = select(scan, index, Request(fraction=min(1.0, chosen.fraction + 1 / 30)))
    assert (
        chosen.fraction == 1
        or estimate_tuning(index, more.trainable_parameters, setup).total > limit
    )
    with pytest.raises(ScanError, match=r"nothing fits at most 0\.5 GB"):
        select(scan, index, Request(method=Method.BUDGET, max_bytes=0.5e9))


def test_a_budget_is_one_of_two(scan: Scan, index: ModelIndex) -> None:
    for bounds in ({}, {"max_parameters": 10, "max_bytes": 10.0}):
        with pytest.raises(ScanError, match="give one of them"):
            select(scan, index, Request(method=Method.BUDGET, **bounds))


def test_another_model(scan: Scan) -> None:
    with pytest.raises(ScanError, match=r"is a scan of HuggingFaceTB/SmolLM2-135M"):
        select(scan, model_index("meta-llama/Llama-3.2-1B"), Request())


def test_only_norms_scored(index: ModelIndex) -> None:
    rows = tuple(
        ScanRow(f"model.layers.{n}.input_layernorm", "input_layernorm", math.inf) for n in range(30)
    )
    with pytest.raises(ScanError, match="no scored layers"):
        select(Scan(SMOL, Estimator.SPECTRUM, rows, "a" * 64, "x"), index, Request())


def test_from_a_real_scan(write_checkpoint, llama, tmp_path: Path) -> None:
    index = read_index(write_checkpoint(llama(8)))
    scan = read_scan(scan_model(index, tmp_path, ScanOptions()).path)
    by_spectrum = select(scan, index, Request(fraction=0.5))
    assert len(by_spectrum.parameters) == 16
    assert by_spectrum.model == "tiny"
    mp = read_scan(tmp_path / "snr_results_tiny.json", estimator=Estimator.MP)
    by_mp = select(mp, index, Request(fraction=0.5))
    assert by_mp.estimator == "mp"
    # Each layer of the fixture has its own strength of signal in all of its matrices: the
    # corrected score finds the same strongest layers in every type.
    layers = {kind: _layers(by_mp.parameters, kind) for kind in by_mp.types}
    assert len({tuple(found) for found in layers.values()}) == 1
