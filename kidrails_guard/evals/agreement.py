"""How far the judges of a run agree, aspect by aspect."""

from __future__ import annotations

from collections.abc import Sequence

from kidrails_guard.evals.judging import ASPECTS, Judged


def agreement(judged: Sequence[Judged]) -> dict[str, float | None]:
    """Return Krippendorff's alpha (interval scale) of each aspect.

    1 is perfect agreement, 0 is chance, below 0 is worse than chance. None where no reply has two
    readable verdicts, and where all scores are alike: judges who always say the same may agree, or
    may not look, and nothing tells which.

    There is none over all aspects together: each is a variable of its own. Pooled, the differences
    between aspects (safety high, empathy low) would count as what judges agree on, and the figure
    would be high where they agree on no aspect.

    Source: K. Krippendorff, "Content Analysis", 4th edition (2018), chapter 12.
    """
    return {aspect: _alpha(judged, aspect) for aspect in ASPECTS}


def _alpha(judged: Sequence[Judged], aspect: str) -> float | None:
    units = [[float(v.scores[aspect]) for v in j.verdicts if v is not None] for j in judged]
    units = [unit for unit in units if len(unit) > 1]
    values = [v for unit in units for v in unit]
    n = len(values)
    if n < 2:
        return None
    observed = (
        sum(sum((a - b) ** 2 for a in unit for b in unit) / (len(unit) - 1) for unit in units) / n
    )
    total, squares = sum(values), sum(v * v for v in values)
    expected = 2 * (n * squares - total * total) / (n * (n - 1))
    return None if expected == 0 else 1 - observed / expected


def agreement_text(judged: Sequence[Judged]) -> str:
    """Return in words how far the judges agree on each aspect."""
    if all(sum(v is not None for v in j.verdicts) < 2 for j in judged):
        one = all(len(j.verdicts) < 2 for j in judged)
        why = "one judge" if one else "no reply has two readable verdicts"
        return f"Krippendorff's alpha not measured, {why}"
    found = [
        f"{aspect} {'not defined (all scores alike)' if alpha is None else f'{alpha:.2f}'}"
        for aspect, alpha in agreement(judged).items()
    ]
    return f"Krippendorff's alpha by aspect: {', '.join(found)}"
