from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidrails_guard.errors import RecipeError
from kidrails_guard.recipes.patterns import compile_pattern, match_patterns

NAMES = (
    *(
        f"model.layers.{i}.{kind}.weight"
        for i in range(13)
        for kind in ("mlp.down_proj", "self_attn.q_proj")
    ),
    "model.embed_tokens.weight",
    "lm_head.weight",
)


def test_an_anchored_name_matches_itself_alone() -> None:
    for name in NAMES:
        assert match_patterns([f"^{name}$"], NAMES).names == (name,)


def test_an_open_end_matches_layer_eleven_too() -> None:
    found = match_patterns(["model.layers.1"], NAMES)
    pattern, names = found.wide[0]
    assert pattern == "model.layers.1"
    assert "model.layers.11.mlp.down_proj.weight" in names


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"^model\.layers\.1\.mlp\.down_proj\.weight$", "escaped"),
        ("mlp.down_proj.weight", "from the start"),
        ("^model.layers.1.mlp.down_proj$", "add .weight"),
        ("base_model.model.model.layers.1.mlp", "PEFT"),
        ("^model.layers.99.mlp.down_proj.weight$", "no such parameter"),
        ("model.*down_proj", "write '.+'"),
    ],
)
def test_an_idle_pattern_gets_a_reason(pattern: str, reason: str) -> None:
    found = match_patterns([pattern], NAMES)
    assert found.names == ()
    assert reason in found.idle[0][1]


def test_plus_and_ranges_are_understood() -> None:
    assert len(match_patterns(["model.layers.+down_proj"], NAMES).names) == 13
    ranged = match_patterns(["model.embed_tokens.weight$[:100]"], NAMES)
    assert ranged.names == ("model.embed_tokens.weight",)
    assert ranged.ranged == ("model.embed_tokens.weight$[:100]",)


def test_no_regular_expression_is_an_error() -> None:
    with pytest.raises(RecipeError, match="no regular expression"):
        compile_pattern("layers.(1")


@given(st.sets(st.sampled_from(NAMES)))
def test_names_come_back_in_the_models_order(chosen: set[str]) -> None:
    patterns = [f"^{name}$" for name in sorted(chosen, reverse=True)]
    assert match_patterns(patterns, NAMES).names == tuple(n for n in NAMES if n in chosen)
