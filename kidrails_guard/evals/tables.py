"""What every form of the report shows: rows of figures, of changes, and the worst examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kidrails_guard.evals.compare import SAFETY, Comparison, Difference, regressions
from kidrails_guard.evals.intervals import NOTHING
from kidrails_guard.evals.measures import BY_KEY, MEASURES, Summary
from kidrails_guard.evals.runner import Result

WORST: Final = 12
SHOWN: Final = 30
"""Rows of a comparison in the report; report.json has them all."""


def worst(results: Sequence[Result]) -> list[Result]:
    """Return the gravest failures: missed crises, then let through, over-blocked, defects."""

    def rank(result: Result) -> int:
        score = result.score
        if score is None:
            return 9
        order = (
            score.crisis_met is False,
            score.unsafe_allow is True,
            score.over_block is True,
            bool(score.defects),
        )
        return order.index(True) if True in order else 9

    bad = sorted(
        (r for r in results if rank(r) < 9), key=lambda r: (rank(r), r.case.task, r.case.id)
    )
    # Three of each kind at least, where there are so many, and one of a question and its disguises.
    bad = list({r.case.cluster: r for r in reversed(bad)}.values())[::-1]
    kinds: dict[int, list[Result]] = {}
    for result in bad:
        kinds.setdefault(rank(result), []).append(result)
    chosen = [r for kind in kinds.values() for r in kind[: WORST // 4]]
    rest = [r for r in bad if r not in chosen][: WORST - len(chosen)]
    return sorted([*chosen, *rest], key=lambda r: (rank(r), r.case.task, r.case.id))


def figure_rows(
    summaries: Mapping[str, Summary],
) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return title, meaning and a cell a target, for every figure that there is."""
    rows = [
        (
            measure.title,
            measure.meaning,
            [
                (name, summary.overall[measure.key].as_text(percent=measure.kind == "share"))
                for name, summary in summaries.items()
            ],
        )
        for measure in MEASURES
    ]

    def add(title: str, meaning: str, cells: Mapping[str, str]) -> None:
        rows.append((title, meaning, list(cells.items())))

    def each(pick: Callable[[Summary], str]) -> dict[str, str]:
        return {name: pick(summary) for name, summary in summaries.items()}

    add("Macro-F1 of actions", "How well the six actions are told apart; 1 is best.",
        each(lambda s: s.macro_f1.as_text(percent=False)))  # fmt: skip
    add("Later-turn drop", "How much worse later turns are than the first; steady: 0. n: talks.",
        each(lambda s: s.later_turn_drop.as_text(percent=False)))  # fmt: skip
    add("Age contrast", "School grade of the reply at 10-12 minus that at 5-6, same question.",
        each(lambda s: s.age_contrast.as_text(percent=False)))  # fmt: skip
    for key, title in (
        ("first_p50", "First words, median"), ("first_p95", "First words, 95th percentile"),
        ("p50", "Whole reply, median"), ("p95", "Whole reply, 95th percentile"),
    ):  # fmt: skip
        waits = {n: s.latency.get(key, NOTHING) for n, s in summaries.items()}
        add(title, "In seconds.", {n: e.as_text(percent=False) for n, e in waits.items()})
    add("Errors", "Time-outs, HTTP errors, HTML, half streams, empty replies; after 3 retries.",
        each(_errors))  # fmt: skip
    add("Action read from", "The guard's header, or the words of the reply.",
        each(lambda s: ", ".join(f"{k} {v}" for k, v in s.action_from.items()) or "–"))  # fmt: skip
    return rows


def _errors(summary: Summary) -> str:
    kinds = ", ".join(f"{kind} {count}" for kind, count in summary.errors.items())
    total = f"{sum(summary.errors.values())} of {summary.cases}"
    return f"{total} ({kinds})" if kinds else total


def _change(d: Difference) -> dict[str, str]:
    share = BY_KEY[d.measure].kind == "share"
    factor, unit = (100.0, " points") if share else (1.0, "")

    def shown(value: float) -> str:
        return f"{factor * value:.1f}" + (" %" if share else "")

    low, high = d.change.low or 0.0, d.change.high or 0.0
    return {
        "where": d.where,
        "title": BY_KEY[d.measure].title,
        "before": shown(d.before),
        "after": shown(d.after),
        "change": f"{factor * (d.change.value or 0.0):+.1f}{unit} "
        f"({factor * low:+.1f} to {factor * high:+.1f}, n = {d.change.n})",
    }


def comparison_rows(c: Comparison) -> dict[str, Any]:
    """Return what certainly changed, worst first, and what to think of it."""
    worse = [d for d in c.differences if d.certain and d.worse_by > 0]
    better = sorted(
        (d for d in c.differences if d.certain and d.worse_by < 0),
        key=lambda d: (d.measure not in SAFETY, d.worse_by),
    )
    unsafe = len(regressions(c.differences))
    chance = 0.05 * len(c.differences)
    words = (
        f"Certainly worse: {unsafe} figures of safety and {len(worse) - unsafe} of how replies "
        f"read. Certainly better: {len(better)}. Of {len(c.differences)} figures about "
        f"{chance:.0f} would look certain by chance alone, so trust what several places show."
    )
    return {
        "before": c.before, "after": c.after, "words": words,
        "worse": [_change(d) for d in worse[:SHOWN]],
        "better": [_change(d) for d in better[:SHOWN]],
        "n_worse": len(worse), "n_better": len(better),
    }  # fmt: skip
