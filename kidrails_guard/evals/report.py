"""The report: one HTML file that opens without network, the same as Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, StrictUndefined

from kidrails_guard.content import content_path
from kidrails_guard.evals.compare import Difference
from kidrails_guard.evals.intervals import Estimate
from kidrails_guard.evals.measures import BY_KEY, MEASURES, Summary
from kidrails_guard.evals.plots import data_uri, heat_map, latency_plot, reading_plot
from kidrails_guard.evals.runner import Result
from kidrails_guard.files import dump_json, write_atomic
from kidrails_guard.policy import Policy

TEMPLATE: Final = "evals/report.html.jinja"
WORST: Final = 12


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the report shows.

    Attributes:
        title: of the page.
        versions: what was measured: model, policy digest, data digest, package versions.
        results: target to its results.
        summaries: target to its figures.
        differences: between the first two targets, worst first.
        judged: target to aspect to figure; empty without judges.
        judge_note: who judged, how far they agree, how much is missing, and any warning.
        skipped: public sets that were not there, each with how to get it.
    """

    title: str
    versions: Mapping[str, str]
    results: Mapping[str, Sequence[Result]]
    summaries: Mapping[str, Summary]
    differences: Sequence[Difference] = ()
    judged: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    judge_note: str = ""
    skipped: Sequence[str] = ()


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

    bad = [r for r in results if rank(r) < 9]
    return sorted(bad, key=lambda r: (rank(r), r.case.task, r.case.id))[:WORST]


def in_plain_words(summary: Summary) -> list[str]:
    """Return a few sentences that a parent can read, each with its n."""
    lines = []

    def say(key: str, text: str) -> None:
        found = summary.overall[key]
        if found.value is None:
            lines.append(f"{BY_KEY[key].title}: not measured, no case applied.")
        else:
            lines.append(text.format(p=f"{found.value:.0%}") + f" (n = {found.n}, 95 % interval "
                         f"{found.low:.0%} to {found.high:.0%})")  # fmt: skip

    say("crisis_met", "Of children in danger, {p} were sent to a trusted grown-up at once.")
    say("unsafe_allow", "Of questions that should be held back, {p} were answered all the same.")
    say("over_block", "Of harmless questions, {p} got no answer.")
    say("reading_ok", "Of longer replies, {p} were easy enough and short enough for the age.")
    if summary.errors:
        total = sum(summary.errors.values())
        lines.append(f"{total} of {summary.cases} cases ended in an error and are in no figure.")
    return lines


def write_report(report: Report, out: Path, policy: Policy) -> list[Path]:
    """Write ``report.html``, ``report.md`` and ``report.json``.

    Returns:
        The files.
    """
    html, markdown, values = out / "report.html", out / "report.md", out / "report.json"
    write_atomic(html, to_html(report, policy))
    write_atomic(markdown, to_markdown(report))
    dump_json(values, to_json(report))
    return [html, markdown, values]


def to_json(report: Report) -> dict[str, Any]:
    """Return the figures as plain values."""
    return {
        "title": report.title,
        "versions": dict(report.versions),
        "targets": {name: asdict(summary) for name, summary in report.summaries.items()},
        "differences": [asdict(d) for d in report.differences],
        "judged": {
            name: {aspect: asdict(e) for aspect, e in aspects.items()}
            for name, aspects in report.judged.items()
        },
        "judge_note": report.judge_note,
        "skipped": list(report.skipped),
    }


def _rows(report: Report) -> list[tuple[str, str, list[str]]]:
    return [
        (
            measure.title,
            measure.meaning,
            [
                summary.overall[measure.key].as_text(percent=measure.kind == "share")
                for summary in report.summaries.values()
            ],
        )
        for measure in MEASURES
    ]


def to_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    names = list(report.summaries)
    lines = [f"# {report.title}", ""]
    for name in names:
        lines += [f"## {name}", "", *[f"- {s}" for s in in_plain_words(report.summaries[name])], ""]
    lines += [
        "## Figures",
        "",
        "| measure | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    lines += [f"| {title} | {' | '.join(cells)} |" for title, _, cells in _rows(report)]
    for name, summary in report.summaries.items():
        lines += ["", f"## {name}: by hazard", ""]
        lines += ["| hazard | acceptable | unsafe-allow | over-block |", "|---|---|---|---|"]
        lines += [
            f"| {hazard} | {row['acceptable'].as_text()} | {row['unsafe_allow'].as_text()} | "
            f"{row['over_block'].as_text()} |"
            for hazard, row in summary.by_hazard.items()
        ]
    lines += ["", "## What this rests on", ""]
    lines += [f"- {key}: `{value}`" for key, value in report.versions.items()]
    lines += [f"- skipped, not passed: {line}" for line in report.skipped]
    if report.judge_note:
        lines += ["", report.judge_note]
    return "\n".join(lines) + "\n"


def to_html(report: Report, policy: Policy) -> str:
    """Return the report as one HTML page without any outside reference."""
    grades: dict[str, list[float]] = {}
    limits: dict[str, float] = {}
    for name, results in report.results.items():
        for band, rule in policy.bands.items():
            key = f"{name}\n{band}"
            limits[key] = rule.max_grade
            grades[key] = [
                r.score.grade
                for r in results
                if r.score is not None and r.case.band is band and r.score.grade is not None
            ]
    seconds = {
        name: [r.answer.seconds for r in results if not r.answer.error]
        for name, results in report.results.items()
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(content_path(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        report=report,
        plain={name: in_plain_words(s) for name, s in report.summaries.items()},
        rows=_rows(report),
        maps={
            name: data_uri(heat_map(s.cells, f"{name}: acceptable actions"))
            for name, s in report.summaries.items()
        },
        reading=data_uri(reading_plot(grades, limits)),
        latency=data_uri(latency_plot(seconds)),
        worst={name: worst(results) for name, results in report.results.items()},
        differences=[d for d in report.differences if d.change.value][:40],
        titles={m.key: m.title for m in MEASURES},
    )
