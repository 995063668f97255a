from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.ranking import (
    ScanRow,
    choose_random,
    choose_top,
    fractions,
    is_norm,
    rank,
)


def _rows(*scores: float, kind: str = "mlp.up_proj", ties: tuple[float, ...] = ()) -> list[ScanRow]:
    return [
        ScanRow(f"model.layers.{n}.{kind}", kind, snr, "", ties[n] if ties else 0.0)
        for n, snr in enumerate(scores)
    ]


def _layers(chosen) -> list[int]:
    return [one.row.layer for one in chosen]


def test_descending() -> None:
    assert _layers(rank(_rows(1, 3, 2))["mlp.up_proj"]) == [1, 2, 0]


def test_infinite_first_then_by_what_lies_above_then_by_layer() -> None:
    inf = math.inf
    ranked = rank(_rows(1, inf, inf, inf, 2, ties=(0, 5, 9, 5, 0)))["mlp.up_proj"]
    assert _layers(ranked) == [2, 1, 3, 4, 0]
    assert [one.degenerate for one in ranked] == ["infinite"] * 3 + ["", ""]


def test_ties_by_layer_number_not_by_text() -> None:
    ranked = rank(_rows(*[1.0] * 12))["mlp.up_proj"]
    assert _layers(ranked) == list(range(12))
    assert {one.degenerate for one in ranked} == {"tied"}


def test_types_do_not_mix() -> None:
    ranked = rank(_rows(1, 2) + _rows(30, 4, kind="mlp.down_proj"))
    assert [_layers(group) for group in ranked.values()] == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("count", "fraction", "taken"),
    # int(n·p) in floating point, as upstream and axolotl compute it: 0.29 · 100 is 28.99….
    [(32, 0.5, 16), (30, 0.25, 7), (10, 0.29, 2), (100, 0.29, 28), (3, 1.0, 3), (30, 0.1, 3)],
)
def test_upstreams_rounding(count: int, fraction: float, taken: int) -> None:
    assert len(choose_top(rank(_rows(*range(count))), fraction)) == taken


def test_top_and_bottom_are_two_ends() -> None:
    ranked = rank(_rows(*range(10)))
    assert _layers(choose_top(ranked, 0.3)) == [9, 8, 7]
    assert _layers(choose_top(ranked, 0.3, bottom=True)) == [2, 1, 0]


def test_random_follows_the_seed_and_not_the_scores() -> None:
    first = _layers(choose_random(rank(_rows(*range(20))), 0.5, seed=1))
    again = _layers(choose_random(rank(_rows(*reversed(range(20)))), 0.5, seed=1))
    other = _layers(choose_random(rank(_rows(*range(20))), 0.5, seed=2))
    assert first == again != other
    assert len(set(first)) == 10
    # Leaving a type out does not change what is drawn of the others.
    more = rank(_rows(*range(20)) + _rows(*range(20), kind="mlp.down_proj"))
    drawn = choose_random(more, 0.5, seed=1)
    assert [one.row.layer for one in drawn if one.row.type == "mlp.up_proj"] == first


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, 50, 1e9, math.nan])
def test_no_fraction(fraction: float) -> None:
    with pytest.raises(ScanError, match="not above 0 and at most 1"):
        choose_top(rank(_rows(1, 2)), fraction)
    with pytest.raises(ScanError):
        choose_random(rank(_rows(1, 2)), fraction, seed=0)


def test_a_percentage_is_told_what_to_write() -> None:
    with pytest.raises(ScanError, match=r"fraction 50 .*for 50 % write 0\.5"):
        choose_top(rank(_rows(1, 2)), 50)


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=3))
def test_each_fraction_step_takes_one_more(counts: list[int]) -> None:
    ranked = rank(
        [row for n, count in enumerate(counts) for row in _rows(*range(count), kind=f"mlp.t{n}")]
    )
    sizes = [len(choose_top(ranked, fraction)) for fraction in fractions(ranked)]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == sum(counts)


@pytest.mark.parametrize(
    ("kind", "norm"),
    [
        ("input_layernorm", True),
        ("post_attention_layernorm", True),
        ("self_attn.q_norm", True),
        ("model.norm", True),
        ("ln_1.LayerNorm", True),
        ("mlp.up_proj", False),
        ("self_attn.o_proj", False),
        ("normaliser.up_proj", False),
    ],
)
def test_norms(kind: str, norm: bool) -> None:
    assert is_norm(kind) is norm
