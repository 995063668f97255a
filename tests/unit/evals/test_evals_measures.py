"""Figures over turns, and the options that no run may begin with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from eval_replies import reply, run

from kidrails_guard.cli import main
from kidrails_guard.evals.cases import task_cases
from kidrails_guard.evals.measures import summarise
from kidrails_guard.evals.runner import Result
from kidrails_guard.evals.session import make_setup
from kidrails_guard.policy import load_policy

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
    assert len(groups) > 6
    # Each turn fails in every third talk, the later ones no more often than the first.
    patterns = ((False, True, True), (True, False, True), (True, True, False))
    steady = [r for at, g in enumerate(groups[:6]) for r in judged(g, patterns[at % 3])]
    assert summarise(steady, target="t").later_turn_drop.value == pytest.approx(0)
    worn = [r for group in groups[:6] for r in judged(group, (True, True, False))]
    assert summarise(worn, target="t").later_turn_drop.value == pytest.approx(0.5)


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
