"""What got worse comes first, and what a handful of cases cannot show is not called certain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from eval_replies import guarded_by, reply, run

from kidrails_guard.content import content_path
from kidrails_guard.errors import DataError
from kidrails_guard.evals.cases import task_cases
from kidrails_guard.evals.compare import (
    PRESETS,
    _signs_agree,
    compare,
    pairing,
    preset_pairs,
    regressions,
    scored_otherwise,
    to_text,
)
from kidrails_guard.evals.targets import pairs_of
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy, parse_policy
from kidrails_guard.types import Action

POLICY = load_policy()
CASES = [*task_cases("child_safety", POLICY), *task_cases("crisis", POLICY)]


def weakened(hazard: str):
    """The policy that ships with one hazard switched off."""
    raw = yaml.safe_load(content_path("serve/policies/default.yaml").read_text())
    rule = raw["hazards"][hazard]
    rule["actions"] = dict.fromkeys(rule["actions"], "allow")
    rule.pop("cases", None)
    return parse_policy(raw, source="weak.yaml")


async def test_a_hazard_switched_off_in_the_policy_is_caught_and_named_first(
    tmp_path: Path,
) -> None:
    """Through the real guard, its rules and its classifier; only the policy differs."""
    hazard, measure = "K02", "crisis_met"
    before = await run(guarded_by(Guard(POLICY), CASES), tmp_path / "a", cases=CASES, guarded=True)
    after = await run(
        guarded_by(Guard(weakened(hazard)), CASES), tmp_path / "b", cases=CASES, guarded=True
    )
    found = compare(before, after)
    worse = regressions(found)
    assert (f"hazard {hazard}", measure) in {(d.where, d.measure) for d in worse}
    assert {d.where for d in worse if d.where.startswith("hazard")} == {f"hazard {hazard}"}
    table = to_text(found).splitlines()
    assert table[1].startswith("!!")
    assert any(f"hazard {hazard}" in line for line in table[1:6])
    moved = sum(bool(d.change.value) for d in found)
    left = to_text(found, limit=3).splitlines()[4]
    assert left == f"… and {moved - 3} that moved less; --json gives all"
    assert regressions(compare(before, before)) == []


async def test_a_handful_of_cases_is_never_certain(tmp_path: Path) -> None:
    few = CASES[-4:]
    kind = "Please tell a grown-up you trust right now."
    before = await run(lambda r: reply(kind, stream=False), tmp_path / "a", cases=few)
    after = await run(lambda r: reply("Cheer up.", stream=False), tmp_path / "b", cases=few)
    found = compare(before, after)
    worst = next(d for d in found if d.measure == "crisis_met" and d.where == "all")
    assert (worst.worse_by, worst.certain) == (1.0, False)
    many = CASES[-20:]
    before = await run(lambda r: reply(kind, stream=False), tmp_path / "c", cases=many)
    after = await run(lambda r: reply("Cheer up.", stream=False), tmp_path / "d", cases=many)
    assert regressions(compare(before, after))[0].certain


def test_runs_without_a_shared_case_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="share no answered case"):
        compare([], [])


def test_presets_find_their_targets() -> None:
    one = ["base, guard off", "base, guard on", "tuned, guard off", "tuned, guard on"]
    assert preset_pairs("base-vs-tuned", one, one) == [
        ("base, guard off", "tuned, guard off"),
        ("base, guard on", "tuned, guard on"),
    ]
    assert preset_pairs("guard", one, one) == [
        ("base, guard off", "base, guard on"),
        ("tuned, guard off", "tuned, guard on"),
    ]
    assert preset_pairs("guard", ["guard off"], ["guard on"]) == [("guard off", "guard on")]
    layers = ["random, guard off", "spectrum, guard off", "lora, guard off"]
    assert preset_pairs("spectrum-vs-random", layers, layers) == [(layers[0], layers[1])]
    assert preset_pairs("spectrum-vs-lora", layers, layers) == [(layers[2], layers[1])]
    with pytest.raises(DataError, match="kidrails eval run --model random="):
        preset_pairs("spectrum-vs-random", one, one)
    with pytest.raises(DataError, match="accepted: guard"):
        preset_pairs("best", one, one)
    assert set(PRESETS) == {"guard", "base-vs-tuned", "spectrum-vs-random", "spectrum-vs-lora"}


def test_a_run_of_several_targets_knows_what_is_worth_comparing() -> None:
    assert pairs_of(["guard off", "guard on"]) == [("guard off", "guard on")]
    assert pairs_of(["guard on"]) == []
    names = ["base, guard off", "base, guard on", "tuned, guard off", "tuned, guard on"]
    assert pairs_of(names) == [
        (names[0], names[1]),
        (names[2], names[3]),
        (names[0], names[2]),
        (names[1], names[3]),
    ]


async def test_both_are_held_to_the_first_label_so_that_asking_for_less_is_no_improvement(
    tmp_path: Path,
) -> None:
    risky = [c for c in CASES if c.expected is Action.REFUSE][:12]
    meek = [replace(c, expected=Action.ALLOW) for c in risky]
    before = await run(lambda r: reply("I won't.", stream=False), tmp_path / "a", cases=risky)
    after = await run(lambda r: reply("You do so.", stream=False), tmp_path / "b", cases=meek)
    assert all(r.score is not None and r.score.acceptable for r in after)
    worse = {d.measure: d for d in regressions(compare(before, after)) if d.where == "all"}
    assert (worse["unsafe_allow"].before, worse["unsafe_allow"].after) == (0.0, 1.0)
    assert worse["acceptable"].after == 0.0
    assert any("12 are labelled otherwise" in line for line in pairing(before, after))


async def test_what_is_not_compared_is_counted_and_said(tmp_path: Path) -> None:
    few = CASES[:6]
    before = await run(lambda r: reply("Cheer up.", stream=False), tmp_path / "a", cases=few)
    other = [replace(few[0], message="other words"), *few[1:5], CASES[7]]
    after = await run(lambda r: reply("Cheer up.", stream=False), tmp_path / "b", cases=other)
    after = [replace(after[0]), replace(after[1], score=None), *after[2:]]
    assert pairing(before, before) == ["6 cases are compared"]
    assert [line.split()[0] for line in pairing(before, after)] == ["3", "2", "1", "1"]
    lines = " ".join(pairing(before, after))
    for what in ("in one of the two only", "other words", "an error in the second"):
        assert what in lines
    assert {d.change.n for d in compare(before, after) if d.where == "all"} <= {1, 2, 3}


def test_another_guard_that_scored_is_named() -> None:
    one = {"guard": "sha256 a", "policy": "p", "textstat": "0.7.4", "seed": "0"}
    assert scored_otherwise(one, one | {"seed": "1"}) == []
    (line,) = scored_otherwise(one, one | {"guard": "sha256 b"})
    assert line.startswith("guard sha256 a, then sha256 b: defects may differ by that alone")


def test_a_change_is_certain_only_where_most_cases_moved_the_same_way() -> None:
    moved = [(1.0, 0.0, f"many {i}") for i in range(30)]
    moved += [(0.0, 100.0, f"few {i}") for i in range(5)]
    assert not _signs_agree(moved, 470 / 35)
    assert _signs_agree(moved[:30], -1.0)
