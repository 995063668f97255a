"""The report as one HTML page that opens without network: nothing in it is from outside."""

from __future__ import annotations

from typing import Final

from jinja2 import Environment, StrictUndefined

from kidrails_guard.content import content_path
from kidrails_guard.evals.intervals import Estimate
from kidrails_guard.evals.measures import BY_KEY
from kidrails_guard.evals.plain_words import introduction, plain_rows
from kidrails_guard.evals.plots import latency_plot, reading_plot, shade
from kidrails_guard.evals.report import Report
from kidrails_guard.evals.tables import comparison_rows, figure_rows, worst
from kidrails_guard.types import AgeBand, Hazard

TEMPLATE: Final = "evals/report.html.jinja"
TASK_MEASURES: Final = ("acceptable", "unsafe_allow", "over_block", "crisis_met")


def _heat_cell(cell: Estimate | None) -> dict[str, str] | None:
    if cell is None or cell.value is None or cell.low is None or cell.high is None:
        return None
    back, ink = shade(cell.value)
    return {
        "head": f"{cell.value:.0%}".replace("%", " %"), "back": back, "ink": ink,
        "detail": f"{100 * cell.low:.0f}–{100 * cell.high:.0f}, n {cell.n}",
    }  # fmt: skip


def to_html(report: Report) -> str:
    """Return the report as one HTML page without any outside reference."""
    outcome, summaries = report.outcome, report.summaries
    bands = [str(band) for band in AgeBand if str(band) in outcome.limits]
    grades = {
        band: {
            name: [
                r.score.grade
                for r in results
                if r.score is not None and str(r.case.band) == band and r.score.grade is not None
            ]
            for name, results in outcome.results.items()
        }
        for band in bands
    }
    seconds = {
        name: [r.answer.seconds for r in results if not r.answer.error]
        for name, results in outcome.results.items()
    }
    maps = [
        (
            name,
            [
                (f"{h} {h.label.replace('_', ' ')}",
                 [_heat_cell(s.cells[str(h)].get(band)) for band in bands])
                for h in Hazard if str(h) in s.cells
            ],
        )
        for name, s in summaries.items()
    ]  # fmt: skip
    tasks = list(dict.fromkeys(task for s in summaries.values() for task in s.by_task))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(content_path(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        report=report,
        outcome=outcome,
        summaries=summaries,
        intro=introduction(outcome),
        plain=plain_rows(summaries),
        error_lines=[
            f"{name}: {sum(s.errors.values())} of {s.cases} cases ended in an error and are in no "
            "figure."
            for name, s in summaries.items()
            if s.errors
        ],
        comparisons=[comparison_rows(c) for c in report.comparisons],
        maps=maps,
        bands=bands,
        tasks=tasks,
        tasks_with=lambda key, task: any(
            s.by_task[task][key].n for s in summaries.values() if task in s.by_task
        ),
        task_measures=[(key, BY_KEY[key].title) for key in TASK_MEASURES],
        rows=figure_rows(summaries),
        reading=reading_plot(grades, outcome.limits),
        latency=latency_plot(seconds),
        at_a_time=outcome.versions.get("asked at a time", "1"),
        worst={name: worst(results) for name, results in outcome.results.items()},
    )
