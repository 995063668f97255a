"""Public sets: each layout is read, a missing set is skipped with what to do, never passed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kidrails_guard.errors import DataError
from kidrails_guard.evals.judging import rubric
from kidrails_guard.evals.public import PUBLIC, load_or_skip, public_cases
from kidrails_guard.evals.scoring import Answer, score_answer
from kidrails_guard.evals.session import make_setup
from kidrails_guard.golden.sources import load_catalogue
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action, AgeBand, Hazard

POLICY = load_policy()


def write(folder: Path, name: str, *rows: object) -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def datasets(shared: Path) -> Path:
    return shared / "datasets"


@pytest.mark.parametrize("name", PUBLIC)
def test_an_absent_set_is_skipped_with_a_line_and_not_passed(tmp_path: Path, name: str) -> None:
    for folder in (None, tmp_path):
        found, note = load_or_skip(name, folder, POLICY)
        assert found == []
        assert note.startswith(f"{name}: skipped, not passed: ")
        assert f"kidrails data fetch {name}" in note
    with pytest.raises(DataError, match="run: kidrails data build") as raised:
        make_setup(
            policy=None, tasks=[f"public:{name}"], built=None, public=None, limit=None, seed=0
        )
    assert "skipped, not passed" in str(raised.value)


@pytest.mark.parametrize("name", [n for n in PUBLIC if load_catalogue()[n].sample])
def test_the_samples_of_every_layout_are_read(datasets: Path, name: str) -> None:
    cases = public_cases(name, datasets, POLICY, use_sample=True)
    assert cases
    assert len({c.id for c in cases}) == len(cases)
    assert all(c.message.strip() and c.task == f"public:{name}" for c in cases)


def test_kora_brings_its_criteria_before_the_judge_and_leaves_older_children_out(
    datasets: Path,
) -> None:
    cases = public_cases("kora", datasets, POLICY, use_sample=True)
    assert len(cases) == 4  # the fifth child of the sample is 15
    for case in cases:
        assert not case.labelled
        assert case.rubric
        assert case.rubric in rubric(case, "hi")[0]["content"]
    assert {c.band for c in cases} == {AgeBand.MIDDLE, AgeBand.UPPER}


def test_whole_sets_in_our_layout_are_read(datasets: Path) -> None:
    cases, note = load_or_skip("safe_child_llm", datasets, POLICY)
    assert len(cases) == 194
    assert all(not c.harmless and c.expected >= Action.CARE for c in cases)
    assert note == ""
    cases, note = load_or_skip("ailuminate_demo", datasets, POLICY)
    assert len(cases) > 900
    assert "may have trained" in note


def test_labels_become_actions(tmp_path: Path) -> None:
    write(
        tmp_path, "xstest.jsonl",
        {"id": 1, "prompt": "a safe one", "type": "homonyms", "label": "safe"},
        {"id": 2, "prompt": "an unsafe one", "type": "contrast_homonyms", "label": "unsafe"},
    )  # fmt: skip
    safe, unsafe = public_cases("xstest", tmp_path, POLICY)
    assert (safe.hazard, safe.expected) == (Hazard.BENIGN, Action.ALLOW)
    assert unsafe.expected is Action.REFUSE
    write(
        tmp_path, "openai_moderation.jsonl",
        {"prompt": "x", "S": 0, "SH": 1, "H": 0}, {"prompt": "y", "S": 0, "V": 0},
    )  # fmt: skip
    harm, calm = public_cases("openai_moderation", tmp_path, POLICY)
    assert (harm.hazard, harm.expected) == (Hazard.SELF_HARM, Action.CRISIS)
    assert calm.harmless


async def test_what_has_no_known_action_is_in_no_figure_of_actions(tmp_path: Path) -> None:
    from eval_replies import BARE_GUARD

    write(
        tmp_path, "kidbench.jsonl",
        {"id": "z_1", "category": "something_else", "without_cues": "a", "with_cues": "b"},
    )  # fmt: skip
    write(tmp_path, "csb.jsonl", {"id": "c1", "text": "words", "role": "user", "label": "x"})
    cases, note = load_or_skip("kidbench", tmp_path, POLICY)
    assert len(cases) == 2
    assert "2 of 2 cases have no action" in note
    csb, _ = load_or_skip("csb", tmp_path, POLICY)
    for case in (*cases, *csb):
        score = await score_answer(case, Answer("I can't do that."), guard=BARE_GUARD)
        assert (score.acceptable, score.exact, score.unsafe_allow) == (None, None, None)
        assert (score.over_block, score.crisis_met, score.grown_up) == (None, None, None)
        assert score.bare_refusal


def test_a_broken_row_names_file_line_and_key(tmp_path: Path) -> None:
    write(tmp_path, "xstest.jsonl", {"id": 1, "prompt": "x", "label": "safe"})
    cases, note = load_or_skip("xstest", tmp_path, POLICY)
    assert cases == []
    assert "xstest.jsonl:1: type: missing" in note
