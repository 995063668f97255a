"""Figures over turns, and the options that no run may begin with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from eval_replies import reply, run

from kidrails_guard.cli import main
from kidrails_guard.evals.cases import Case, task_cases
from kidrails_guard.evals.measures import summarise
from kidrails_guard.evals.runner import Result
from kidrails_guard.evals.scoring import Answer, Score
from kidrails_guard.evals.session import make_setup
from kidrails_guard.evals.tables import worst
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action, AgeBand, Hazard

TALKS = task_cases("multi_turn", load_policy())


async def talks(tmp_path: Path) -> list[list[Result]]:
    """Return a run's results by conversation, in the order of the turns."""
    groups: dict[str, list[Result]] = {}
    for result in await run(lambda r: reply("Hello.", stream=True), tmp_path, cases=TALKS):
        groups.setdefault(result.case.cluster, []).append(result)
    found = [
        sorted(group, key=lambda r: len(r.case.conversation.messages)) for group in groups.values()
    ]
    return [group for group in found if len(group) == 3]


def judged(results: list[Result], acceptable: tuple[bool, ...]) -> list[Result]:
    return [
        replace(r, score=replace(r.score, acceptable=ok))
        for r, ok in zip(results, acceptable, strict=True)
        if r.score is not None
    ]


async def test_a_steady_service_has_no_later_turn_drop(tmp_path: Path) -> None:
    groups = await talks(tmp_path)
    assert len(groups) > 8
    # Each turn fails in every third talk, the later ones no more often than the first.
    patterns = ((False, True, True), (True, False, True), (True, True, False))
    steady = [r for at, g in enumerate(groups[:6]) for r in judged(g, patterns[at % 3])]
    assert summarise(steady, target="t").later_turn_drop.value == pytest.approx(0)
    worn = [r for group in groups[:6] for r in judged(group, (True, True, False))]
    assert summarise(worn, target="t").later_turn_drop.value == pytest.approx(0.5)
    # Without its first turn a talk says nothing: its second is not the first.
    cut = [r for group in groups[6:9] for r in judged(group, (True, True, False))[1:]]
    found = summarise([*worn, *cut], target="t").later_turn_drop
    assert (found.value, found.n) == (pytest.approx(0.5), 6)


def test_a_task_that_does_not_fit_the_limit_is_named() -> None:
    setup = make_setup(
        policy=None, tasks=["crisis", "jailbreak"], built=None, public=None, limit=1, seed=0
    )
    assert any("jailbreak: left out" in line and "--limit 1" in line for line in setup.notes)


@pytest.mark.parametrize(
    "option",
    [
        ("--concurrency", "0"),
        ("--concurrency", "-1"),
        ("--limit", "0"),
        ("--timeout", "-5"),
        ("--timeout", "nan"),
        ("--max-tokens", "0"),
        ("--retry-wait", "-1"),
        ("--disguises", "-1"),
    ],
)
def test_a_number_that_makes_no_run_is_named(
    option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["eval", "run", "--base-url", "http://127.0.0.1:1/v1", *option])
    assert f"{option[1]!r} is not" in capsys.readouterr().err


def scored(case_fields: dict, **score: object) -> Result:
    """One answered case, as it stands in a run's rows."""
    plain = Score("c", Action.ALLOW, "words", *(None,) * 5, False, None, 9, 4.5, None, None,
                  *(False,) * 4, ())  # fmt: skip
    case = Case("c", "t", AgeBand.MIDDLE, Hazard.BENIGN, Action.ALLOW, "words")
    return Result(replace(case, **case_fields), Answer("hi", seconds=1.0), replace(plain, **score))


def test_a_figure_is_split_by_band_hazard_and_task_and_knows_what_belongs_together() -> None:
    rows = [
        scored({"id": f"{i}", "group": "one question", "band": AgeBand.EARLY}, over_block=True)
        for i in range(9)
    ]
    rows.append(scored({"id": "9", "hazard": Hazard.BODY_GROWING_UP}, over_block=False))
    rows.append(scored({"id": "10", "task": "u", "labelled": False}))
    found = summarise(rows, target="t")
    assert (found.overall["over_block"].value, found.overall["over_block"].n) == (0.9, 10)
    assert found.overall["over_block"].low < 0.5  # two questions, not ten: ten would begin at 0.6
    assert found.by_band["5-6"]["over_block"].value == 1.0
    assert (found.by_band["7-9"]["over_block"].n, found.by_band["7-9"]["words"].n) == (1, 2)
    assert found.by_hazard["K03b"]["over_block"].value == 0.0
    assert found.by_hazard["K00"]["words"].n == 9  # without a label there is no hazard
    assert found.by_task["u"]["over_block"].n == 0


def test_age_contrast_is_the_older_grade_minus_the_younger() -> None:
    def pair(name: str, young: float | None, old: float | None) -> list[Result]:
        same = {"task": "age_contrast", "group": name}
        return [
            scored(same | {"band": AgeBand.UPPER}, grade=old),
            scored(same | {"band": AgeBand.EARLY}, grade=young),
        ]

    rows = [*pair("a", 2.0, 5.0), *pair("b", 3.0, 4.0), *pair("too short to read", None, 9.0)]
    found = summarise(rows, target="t").age_contrast
    assert (found.value, found.n) == (2.0, 2)


def test_an_error_has_no_waiting_time() -> None:
    rows = [scored({"id": str(i)}) for i in range(5)]
    rows.append(Result(rows[0].case, Answer("", error="timeout", seconds=120.0), None))
    found = summarise(rows, target="t")
    assert (found.latency["p95"].value, found.latency["p95"].n) == (1.0, 5)
    assert (found.cases, found.errors, found.overall["words"].n) == (6, {"timeout": 1}, 5)


def test_the_worst_examples_begin_with_missed_children_and_show_a_question_once() -> None:
    rows = [scored({"id": f"d{i}"}, defects=("K05",)) for i in range(20)]
    rows += [scored({"id": f"b{i}"}, over_block=True) for i in range(20)]
    rows += [scored({"id": f"u{i}", "group": "same"}, unsafe_allow=True) for i in range(7)]
    rows += [scored({"id": "missed"}, crisis_met=False, unsafe_allow=True), scored({"id": "fine"})]
    shown = [r.case.id for r in worst(rows)]
    assert shown[:3] == ["missed", "u0", "b0"]
    assert len(shown) == 12
    assert "fine" not in shown
    assert sum(name.startswith("d") for name in shown) >= 3
