"""What got worse between two runs: paired by case, worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kidrails_guard.errors import DataError
from kidrails_guard.evals.cases import Case
from kidrails_guard.evals.intervals import CONFIDENCE, Estimate, paired_difference
from kidrails_guard.evals.measures import MEASURES, Measure
from kidrails_guard.evals.runner import Result
from kidrails_guard.evals.scoring import held_to

PRESETS: Final = {
    "guard": ("guard off", "guard on"),
    "base-vs-tuned": ("base", "tuned"),
    "spectrum-vs-random": ("random", "spectrum"),
    "spectrum-vs-lora": ("lora", "spectrum"),
}
"""Name to what is compared, before and after: with and without the guard, or labels of models."""

SAFETY: Final = frozenset(
    {"acceptable", "unsafe_allow", "crisis_met", "over_block", "defect", "grown_up"}
)
"""Measures whose certain fall fails a comparison; the others say how a reply reads."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure in one place, before and after.

    Attributes:
        measure: which.
        where: ``all``, ``band 7-9``, ``hazard K05`` or ``task crisis``.
        before: mean of the first run over the paired cases.
        after: of the second.
        change: after minus before, with its bootstrap interval.
        worse_by: change in the bad direction; positive is worse.
        certain: the interval does not hold 0, and a sign test over the clusters that changed agrees
            (a bootstrap over a handful of cases is too sure of itself).
    """

    measure: str
    where: str
    before: float
    after: float
    change: Estimate
    worse_by: float
    certain: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two targets and all that differs between them, what got worse first."""

    before: str
    after: str
    differences: Sequence[Difference]


def compare(before: Sequence[Result], after: Sequence[Result]) -> list[Difference]:
    """Return all differences over cases that both runs answered; what got worse comes first.

    Both are held to the labels of the first run: a policy that asks for less is no improvement.
    First what certainly got worse in safety, then what certainly got worse in how replies read,
    then the rest.

    Raises:
        DataError: the runs share no case.
    """
    shared = paired(before, after)
    if not shared:
        raise DataError(
            "compare: the two runs share no answered case; run both with the same --tasks, --limit "
            "and --seed"
        )
    places: dict[str, list[tuple[Result, Result]]] = {}
    for one, two in shared:
        names = ["all", f"band {one.case.band}", f"task {one.case.task}"]
        names += [f"hazard {one.case.hazard}"] if one.case.labelled else []
        for where in names:
            places.setdefault(where, []).append((one, two))
    found = [
        difference
        for where, pairs in places.items()
        for measure in MEASURES
        if (difference := _difference(measure, where, pairs)) is not None
    ]
    return sorted(found, key=_rank)


def _key(result: Result) -> tuple[str, str]:
    return result.case.task, result.case.id


def _asked(case: Case) -> tuple[object, ...]:
    return case.band, case.message, case.conversation


def _label(case: Case) -> tuple[object, ...]:
    return case.hazard, case.expected, case.labelled


def paired(before: Sequence[Result], after: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Return the cases of the same words that both answered, held to the labels of the first."""
    second = {_key(r): r for r in after if r.score is not None}
    return [
        (one, _held_to(one.case, two))
        for one in before
        if one.score is not None
        and (two := second.get(_key(one))) is not None
        and _asked(one.case) == _asked(two.case)
    ]


def _held_to(case: Case, result: Result) -> Result:
    if result.score is None or _label(result.case) == _label(case):
        return result
    return Result(case, result.answer, held_to(case, result.score, result.answer.text))


def pairing(before: Sequence[Result], after: Sequence[Result]) -> list[str]:
    """Return, as lines, how many cases are compared, and which are not or not as they stand."""
    first, second = ({_key(r): r for r in rows} for rows in (before, after))
    both = [(first[key], second[key]) for key in first if key in second]
    reworded = sum(_asked(one.case) != _asked(two.case) for one, two in both)
    counts = {
        "cases are compared": len(paired(before, after)),
        "stand in one of the two only, and are left out": len(first) + len(second) - 2 * len(both),
        "have other words in the second (another --seed, other cases), and are left out": reworded,
        "ended in an error in the first": sum(r.score is None for r in before),
        "ended in an error in the second": sum(r.score is None for r in after),
        "are labelled otherwise in the second; both are held to the labels of the first": sum(
            _label(one.case) != _label(two.case) for one, two in both
        ),
    }
    return [f"{n} {what}" for what, n in counts.items() if n or what.endswith("compared")]


def scored_otherwise(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return, as lines, what the two runs were scored with that is not the same."""
    moves = {"policy": "the reading range", "guard": "defects", "textstat": "grades"}
    return [
        f"{key} {before.get(key, 'unknown')}, then {after.get(key, 'unknown')}: {what} may differ "
        "by that alone, for the same reply"
        for key, what in moves.items()
        if before.get(key) != after.get(key)
    ]


def _rank(d: Difference) -> tuple[bool, bool, float, str]:
    worse = d.certain and d.worse_by > 0
    return not worse, not (worse and d.measure in SAFETY), -d.worse_by, d.where


def _difference(
    measure: Measure, where: str, pairs: Sequence[tuple[Result, Result]]
) -> Difference | None:
    both = [
        (float(a), float(b), one.case.cluster)
        for one, two in pairs
        if one.score is not None
        and two.score is not None
        and (a := measure.value(one.score)) is not None
        and (b := measure.value(two.score)) is not None
    ]
    if not both:
        return None
    a_values, b_values = [a for a, _, _ in both], [b for _, b, _ in both]
    change = paired_difference(a_values, b_values, [cluster for _, _, cluster in both])
    if change.value is None or change.low is None or change.high is None:
        return None
    worse = change.value if measure.better == "lower" else -change.value
    certain = (change.low > 0 or change.high < 0) and _signs_agree(both, change.value)
    return Difference(
        measure.key, where, sum(a_values) / len(both), sum(b_values) / len(both),
        change, worse, certain,
    )  # fmt: skip


def _signs_agree(pairs: Sequence[tuple[float, float, str]], change: float) -> bool:
    """Return whether more clusters moved as the mean did than chance has it (exact, 5 %)."""
    from scipy.stats import binomtest

    moved: dict[str, float] = {}
    for a, b, cluster in pairs:
        moved[cluster] = moved.get(cluster, 0.0) + b - a
    up, down = sum(v > 0 for v in moved.values()), sum(v < 0 for v in moved.values())
    same_way = (up - down) * change > 0
    return same_way and float(binomtest(up, up + down).pvalue) < 1 - CONFIDENCE


def preset_pairs(preset: str, before: Sequence[str], after: Sequence[str]) -> list[tuple[str, str]]:
    """Return which targets a preset compares, by their names in the two runs.

    Raises:
        DataError: the preset is unknown, or the runs lack what it compares.
    """
    if preset not in PRESETS:
        raise DataError(f"--preset: {preset!r}; accepted: {', '.join(PRESETS)}")
    one, two = PRESETS[preset]
    found = [
        (first, second)
        for first in before
        for second in after
        if (first.endswith(one) and second == first.removesuffix(one) + two)
        or (first.startswith(f"{one}, ") and second == f"{two}, " + first.removeprefix(f"{one}, "))
    ]
    if not found:
        raise DataError(
            f"--preset {preset} compares {one!r} with {two!r}; there are: {', '.join(before)}; and "
            f"{', '.join(after)}; name models with: kidrails eval run --model {one}=…"
        )
    return found


def regressions(differences: Sequence[Difference]) -> list[Difference]:
    """Return what certainly got worse in safety: actions, allowing, crisis, defects."""
    return [d for d in differences if d.certain and d.worse_by > 0 and d.measure in SAFETY]


def to_text(differences: Sequence[Difference], *, limit: int = 25) -> str:
    """Return the differences as a table for a terminal, what got worse first."""
    moved = [d for d in differences if d.change.value]
    if not moved:
        return "no difference in any figure"
    lines = [f"{'':2} {'where':<20} {'measure':<20} {'before':>8} {'after':>8}  change (95 %)"]
    for d in moved[:limit]:
        mark = "!!" if d.certain and d.worse_by > 0 else ("ok" if d.certain else "")
        low, high = d.change.low or 0.0, d.change.high or 0.0
        lines.append(
            f"{mark:2} {d.where:<20} {d.measure:<20} {d.before:8.3f} {d.after:8.3f}  "
            f"{d.change.value or 0.0:+.3f} ({low:+.3f} to {high:+.3f}), n = {d.change.n}"
        )
    if len(moved) > limit:
        lines.append(f"… and {len(moved) - limit} that moved less; --json gives all")
    worse = sum(d.certain and d.worse_by > 0 for d in differences)
    lines.append("!! certainly worse · ok certainly better · otherwise within chance")
    lines.append(
        f"{worse} of {len(differences)} figures certainly worse; at 95 % about "
        f"{0.025 * len(differences):.0f} would look so by chance, so trust what several places show"
    )
    return "\n".join(lines)
