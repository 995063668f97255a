"""Personas: balanced by construction, stable by seed, on one side of the split."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from kidrails_guard.errors import DataError
from kidrails_guard.golden.personas import (
    AGES,
    Persona,
    balance,
    by_band,
    load_pool,
    sample_personas,
)
from kidrails_guard.golden.upstream import read_upstream_pool
from kidrails_guard.types import AgeBand


@pytest.mark.parametrize("count", [8, 80, 83, 400])
def test_every_age_occurs_equally_often(count: int) -> None:
    counts = Counter(persona.age for persona in sample_personas(count, seed=3))
    assert set(counts) == set(AGES)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_seed_decides_and_a_larger_sample_only_adds() -> None:
    few, many = sample_personas(40, seed=3), sample_personas(80, seed=3)
    assert many[:40] == few
    assert sample_personas(40, seed=4) != few


def test_every_age_has_personas_on_both_sides_and_none_on_two() -> None:
    personas = sample_personas(400, seed=7)
    train, dev = by_band(personas, "train"), by_band(personas, "dev")
    ids = [{p.id for group in side.values() for p in group} for side in (train, dev)]
    assert not ids[0] & ids[1]
    for side in (train, dev):
        assert {p.age for group in side.values() for p in group} == set(AGES)
        assert all(p.band is band for band in AgeBand for p in side[band])


def test_what_a_persona_says_fits_its_age() -> None:
    pool = load_pool()
    for persona in sample_personas(400, seed=7):
        assert pool.stage(persona.age).name == persona.stage
        assert persona.style in pool.styles[persona.band]
        assert set(persona.interests) <= set(pool.interests[persona.band])
        if persona.age >= 10:
            assert dict(persona.family)["mum"] in {"mum", "mom"}
        assert str(persona.age) in persona.describe()


@pytest.fixture
def upstream(tmp_path: Path) -> tuple[Path, Path]:
    """A pool like upstream's: most are twelve, one has interests for a stage, one no age."""
    stages = tmp_path / "stages.json"
    stages.write_text(
        json.dumps(
            {
                "developmental_stages": [
                    {"stage": "Preoperational Stage", "characteristics": ["pretends"]},
                    {"stage": "Concrete Operational Stage", "characteristics": ["counts"]},
                    {"stage": "Formal Operational Stage", "characteristics": ["argues"]},
                ]
            }
        )
    )
    rows = [(age, ["pretends"] if age < 7 else ["counts"]) for age in range(5, 12)]
    rows += [(12, ["argues"])] * 6 + [(12, ["Chess", "Coding"])]
    path = tmp_path / "pool.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["age", "characteristics", "personality_trait", "adjectives", "interest"])
        for age, said in rows:
            writer.writerow([age, said, "", ["Brave", "Kind"], ["Chess", "Kites"]])
        writer.writerow(["", ["argues"], "", ["Brave"], ["Chess"]])
        writer.writerow([15, ["argues"], "", ["Brave"], ["Chess"]])
        writer.writerow([9, "not a list", "", ["Brave"], ["Chess"]])
    return path, stages


def test_upstreams_pool_is_read_mended_and_balanced(upstream: tuple[Path, Path]) -> None:
    pool = read_upstream_pool(*upstream, seed=1)
    assert len(pool.personas) == 14
    assert pool.repaired == 1
    assert sum(pool.dropped.values()) == 3
    mended = pool.personas[-1]
    assert mended.notes == ("Chess", "Coding")
    assert mended.stage == "towards formal operational"
    counts = Counter(p.age for p in balance(pool.personas, 80, seed=1))
    assert set(counts.values()) == {10}


def test_an_age_without_personas_cannot_be_balanced() -> None:
    few = [p for p in sample_personas(80, seed=1) if p.age != 9]
    with pytest.raises(DataError, match="none of age 9"):
        balance(few, 16, seed=1)


def test_a_file_that_is_no_pool_is_named(tmp_path: Path, upstream: tuple[Path, Path]) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="needed columns"):
        read_upstream_pool(wrong, upstream[1], seed=1)
    with pytest.raises(DataError, match="stages file"):
        read_upstream_pool(upstream[0], wrong, seed=1)


def test_the_published_pool_can_be_read(shared: Path) -> None:
    folder = shared / "kidrails_upstream"
    if not folder.is_dir():
        pytest.skip(f"no upstream files at {folder}")
    pool = read_upstream_pool(
        folder / "kids_characteristics_pool.csv",
        folder / "children_developmental_stages.json",
        seed=1,
    )
    assert len(pool.personas) > 900
    assert all(isinstance(p, Persona) for p in pool.personas)
    counts = Counter(p.age for p in pool.personas)
    assert counts[12] > 0.3 * len(pool.personas)  # theirs leans to twelve …
    even = Counter(p.age for p in balance(pool.personas, 160, seed=1))
    assert set(even.values()) == {20}  # … ours does not
