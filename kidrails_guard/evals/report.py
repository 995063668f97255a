"""The report's files: figures as one HTML page, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kidrails_guard.evals.compare import Comparison
from kidrails_guard.evals.measures import BY_KEY, Summary
from kidrails_guard.evals.plain_words import introduction, sentences
from kidrails_guard.evals.store import Outcome
from kidrails_guard.evals.tables import comparison_rows, figure_rows


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the report shows.

    Attributes:
        title: of the page.
        outcome: the results, and what they rest on.
        summaries: target to its figures.
        comparisons: pairs of targets, each with what got worse first.
    """

    title: str
    outcome: Outcome
    summaries: Mapping[str, Summary]
    comparisons: Sequence[Comparison] = ()


def to_files(report: Report) -> dict[str, str]:
    """Return ``report.html``, ``report.md`` and ``report.json``."""
    from kidrails_guard.evals.html import to_html

    return {
        "report.html": to_html(report),
        "report.md": to_markdown(report),
        "report.json": json.dumps(to_json(report), indent=1, ensure_ascii=False, allow_nan=False)
        + "\n",
    }


def to_json(report: Report) -> dict[str, Any]:
    """Return the figures as plain values."""
    outcome = report.outcome
    value = {
        "title": report.title,
        "versions": dict(outcome.versions),
        "targets": {
            name: {"is": dict(outcome.targets.get(name, {})), **asdict(summary)}
            for name, summary in report.summaries.items()
        },
        "comparisons": [
            {
                "before": c.before,
                "after": c.after,
                "differences": [asdict(d) for d in c.differences if d.change.value],
            }
            for c in report.comparisons
        ],
        "judged": {
            name: {aspect: asdict(e) for aspect, e in aspects.items()}
            for name, aspects in outcome.judged.items()
        },
        "judge_note": outcome.judge_note,
        "notes": list(outcome.notes),
    }
    rounded: dict[str, Any] = _rounded(value)
    return rounded


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def to_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    names = list(report.summaries)
    outcome = report.outcome
    lines = [f"# {report.title}", "", introduction(outcome)]
    for name, summary in report.summaries.items():
        lines += ["", f"## {name}", "", *[f"- {s}" for s in sentences(summary)]]
    for comparison in report.comparisons:
        shown = comparison_rows(comparison)
        lines += ["", f"## From {shown['before']} to {shown['after']}", "", shown["words"]]
        for kind in ("worse", "better"):
            if shown[kind]:
                cells = [list(row.values()) for row in shown[kind]]
                lines += _table([kind, "measure", "before", "after", "change"], cells)
    rows = [[title, *(c for _, c in cells)] for title, _, cells in figure_rows(report.summaries)]
    lines += ["", "## Figures", *_table(["measure", *names], rows)]
    columns = ("acceptable", "unsafe_allow", "over_block", "crisis_met")
    for name, summary in report.summaries.items():
        for what, parts in (("task", summary.by_task), ("hazard", summary.by_hazard)):
            rows = [[part, *(row[c].as_text() for c in columns)] for part, row in parts.items()]
            lines += ["", f"## {name}: by {what}"]
            lines += _table([what, *(BY_KEY[c].title.lower() for c in columns)], rows)
    if outcome.judged:
        rows = [
            [aspect, *(a[aspect].as_text(percent=False) for a in outcome.judged.values())]
            for aspect in next(iter(outcome.judged.values()))
        ]
        lines += ["", "## What judges say", "", outcome.judge_note]
        lines += _table(["aspect (1-5)", *outcome.judged], rows)
    lines += ["", "## What this rests on", ""]
    for name, facts in outcome.targets.items():
        lines += [f"- {name}: " + "; ".join(f"{k} `{v}`" for k, v in facts.items())]
    lines += [f"- {key}: `{value}`" for key, value in outcome.versions.items()]
    lines += [f"- {line}" for line in outcome.notes]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruled = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return ["", ruled[0], "|---" * len(head) + "|", *ruled[1:]]
