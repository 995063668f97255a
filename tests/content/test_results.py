"""The evaluation results that are kept: complete, small, and made from their own answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kidrails_guard.content import content_path
from kidrails_guard.evals.cases import TASKS
from kidrails_guard.evals.session import stale
from kidrails_guard.evals.store import RESULTS, load_outcome

FOLDER = content_path("evals/results")
RUNS = sorted(path.parent for path in FOLDER.glob(f"*/{RESULTS}"))


def test_the_embedded_model_was_measured_without_and_with_the_guard_on_every_task() -> None:
    outcome = load_outcome(FOLDER / "embedded")
    assert list(outcome.results) == ["guard off", "guard on"]
    for rows in outcome.results.values():
        assert {row.case.task for row in rows} >= set(TASKS)
    for summary in outcome.summaries.values():
        assert sum(summary.errors.values()) <= 0.02 * summary.cases


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.name)
def test_every_file_is_what_its_results_give(run: Path) -> None:
    assert stale(load_outcome(run), run) == []


def test_the_guard_alone_was_measured_beside_others() -> None:
    values = json.loads((FOLDER / "guard/guard.json").read_text())
    assert len(values["guards"]) >= 4
    for row in values["guards"]:
        for figure in ("unsafe_allow", "over_block", "crisis"):
            assert row[figure]["low"] <= row[figure]["value"] <= row[figure]["high"]
            assert row[figure]["n"] > 0


def test_what_is_kept_is_small() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4_000_000
    assert max(path.stat().st_size for path in files) < 1_500_000
