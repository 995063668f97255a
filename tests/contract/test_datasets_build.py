"""The build that the README promises: its size, its time of work, its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kidrails_guard.golden.gate import build_guard
from kidrails_guard.golden.replies import reply_problems
from kidrails_guard.types import AgeBand, Hazard

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """`kidrails data build` as a user runs it."""
    out = tmp_path_factory.mktemp("build")
    subprocess.run(
        [sys.executable, "-m", "kidrails_guard", "data", "build", "--out", str(out)],
        check=True,
        cwd=repository,
        timeout=900,
    )
    return out


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_there_is_as_much_as_is_promised(built: Path) -> None:
    outputs = json.loads((built / "manifest.json").read_text())["outputs"]
    assert outputs["sft.jsonl"]["rows"] >= 3_000
    assert outputs["guard.jsonl"]["rows"] >= 20_000


def test_every_hazard_and_band_is_in_every_file(built: Path) -> None:
    for name in ("sft.jsonl", "preference.jsonl", "eval.jsonl"):
        cells = Counter((row["hazard"], row["band"]) for row in read(built / name))
        missing = [(h, b) for h in Hazard for b in AgeBand if not cells[str(h), str(b)]]
        assert missing == []


def test_bands_are_even_in_training(built: Path) -> None:
    bands = Counter(row["band"] for row in read(built / "sft.jsonl"))
    assert max(bands.values()) < 1.3 * min(bands.values())


def test_no_situation_is_told_many_times(built: Path) -> None:
    """As written, and three times anew at most: more of one are learnt by heart."""
    rows = read(built / "sft.jsonl")
    seeds = Counter(row["seed"] for row in rows)
    assert max(seeds.values()) <= 4
    assert len(seeds) > 0.4 * len(rows)


def test_conversations_vary_in_length_and_in_what_comes_before(built: Path) -> None:
    rows = read(built / "sft.jsonl")
    scenarios = Counter(row["scenario"] for row in rows)
    assert set(scenarios) == {"single", "after chat", "after long chat", "comes back", "as written"}
    lengths = Counter(sum(t["role"] != "system" for t in row["messages"]) for row in rows)
    assert lengths[2] < 0.8 * len(rows)
    assert max(lengths) >= 6


def test_every_trained_reply_is_in_its_bands_range(built: Path) -> None:
    policy = build_guard("off").policy
    replies = {(row["messages"][-1]["content"], row["band"]) for row in read(built / "sft.jsonl")}
    broken = [
        (text, list(problems))
        for text, band in replies
        if (problems := tuple(reply_problems(text, AgeBand(band), policy=policy)))
    ]
    assert broken == []


def test_no_two_training_conversations_are_the_same(built: Path) -> None:
    seen = Counter(
        json.dumps([t for t in row["messages"] if t["role"] != "system"])
        for row in read(built / "sft.jsonl")
    )
    assert [text for text, count in seen.items() if count > 1] == []


def test_the_gate_really_asked_the_guard(built: Path) -> None:
    """With the gate taken out, rows would be there that the guard's verdict now keeps out."""
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["options"]["gate"] == "rules"
    reasons = {
        reason for step in manifest["steps"] if step["step"] == "gate" for reason in step["reasons"]
    }
    assert reasons & {"guard sees another hazard", "guard no longer sees the hazard"}
