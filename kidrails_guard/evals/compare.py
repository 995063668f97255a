"""What got worse between two runs: paired by case, worst first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kidrails_guard.errors import DataError
from kidrails_guard.evals.intervals import Estimate, paired_difference
from kidrails_guard.evals.measures import MEASURES, Measure
from kidrails_guard.evals.runner import Result
from kidrails_guard.evals.scoring import Score

PRESETS: Final = {
    "base-vs-tuned": ("base", "tuned"),
    "guard": ("guard off", "guard on"),
    "spectrum-vs-random": ("random layers", "spectrum"),
    "spectrum-vs-lora": ("lora", "spectrum"),
}
"""Name to the two targets that are compared, before and after."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure in one place, before and after.

    Attributes:
        measure: which.
        where: ``all``, ``band 7-9`` or ``hazard K05``.
        before: mean of the first run over the paired cases.
        after: of the second.
        change: after minus before, with its bootstrap interval.
        worse_by: change in the bad direction; positive is worse.
        certain: the interval does not hold 0.
    """

    measure: str
    where: str
    before: float
    after: float
    change: Estimate
    worse_by: float
    certain: bool


def compare(before: Sequence[Result], after: Sequence[Result]) -> list[Difference]:
    """Return all differences over cases that both runs answered; what got worse comes first.

    Raises:
        DataError: the runs share no case.
    """
    first = {(r.case.task, r.case.id): r for r in before if r.score is not None}
    second = {(r.case.task, r.case.id): r for r in after if r.score is not None}
    shared = [key for key in first if key in second]
    if not shared:
        raise DataError(
            "compare: the two runs share no answered case; run both with the same --tasks, --limit "
            "and --seed"
        )
    places: dict[str, list[tuple[Score, Score]]] = {}
    for key in shared:
        one, two = first[key], second[key]
        if one.score is None or two.score is None:
            continue
        for where in ("all", f"band {one.case.band}", f"hazard {one.case.hazard}"):
            places.setdefault(where, []).append((one.score, two.score))
    found = [
        difference
        for where, pairs in places.items()
        for measure in MEASURES
        if (difference := _difference(measure, where, pairs)) is not None
    ]
    return sorted(found, key=lambda d: (not (d.certain and d.worse_by > 0), -d.worse_by, d.where))


def _difference(
    measure: Measure, where: str, pairs: Sequence[tuple[Score, Score]]
) -> Difference | None:
    values = [(measure.value(one), measure.value(two)) for one, two in pairs]
    both = [(float(a), float(b)) for a, b in values if a is not None and b is not None]
    if not both:
        return None
    a, b = [v for v, _ in both], [v for _, v in both]
    change = paired_difference(a, b)
    if change.value is None or change.low is None or change.high is None:
        return None
    worse = change.value if measure.better == "lower" else -change.value
    certain = (change.low > 0 or change.high < 0) and change.value != 0
    return Difference(measure.key, where, sum(a) / len(a), sum(b) / len(b), change, worse, certain)


def regressions(differences: Sequence[Difference]) -> list[Difference]:
    """Return what certainly got worse in safety: actions, allowing, crisis, defects."""
    safety = {"acceptable", "unsafe_allow", "crisis_met", "over_block", "defect", "grown_up"}
    return [d for d in differences if d.certain and d.worse_by > 0 and d.measure in safety]


def to_text(differences: Sequence[Difference], *, limit: int = 25) -> str:
    """Return the differences as a table for a terminal, what got worse first."""
    moved = [d for d in differences if d.change.value]
    if not moved:
        return "no difference in any figure"
    lines = [f"{'':2} {'where':<14} {'measure':<20} {'before':>8} {'after':>8}  change (95 %)"]
    for d in moved[:limit]:
        mark = "!!" if d.certain and d.worse_by > 0 else ("ok" if d.certain else "")
        low, high = d.change.low or 0.0, d.change.high or 0.0
        lines.append(
            f"{mark:2} {d.where:<14} {d.measure:<20} {d.before:8.3f} {d.after:8.3f}  "
            f"{d.change.value or 0.0:+.3f} ({low:+.3f} to {high:+.3f}), n = {d.change.n}"
        )
    lines.append("!! certainly worse · ok certainly better · otherwise within chance")
    return "\n".join(lines)
