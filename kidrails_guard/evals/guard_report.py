"""The guard's own figures as text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kidrails_guard.evals.guard_eval import GuardFigures, GuardRun, Threshold, area, choose
from kidrails_guard.types import Hazard


def to_table(rows: Sequence[GuardFigures]) -> str:
    """Return the guards side by side, for a terminal."""
    lines = [
        f"{'guard':<24}{'acceptable':>12}{'unsafe-allow':>14}{'over-block':>12}{'crisis':>9}"
        f"{'ms/text':>9}"
    ]
    for row in rows:
        cells = [row.acceptable, row.unsafe_allow, row.over_block, row.crisis]
        shown = ["–" if c.value is None else f"{c.value:.1%}" for c in cells]
        lines.append(
            f"{row.name:<24}{shown[0]:>12}{shown[1]:>14}{shown[2]:>12}{shown[3]:>9}"
            f"{row.ms_a_text:9.2f}"
        )
    return "\n".join(lines)


def to_json(
    run: GuardRun, peers: Sequence[GuardFigures], points: Sequence[Threshold],
    versions: Mapping[str, str], notes: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Return everything as plain values."""
    return {
        "versions": dict(versions),
        "guards": [asdict(row) for row in (run.figures, *peers)],
        "by_task": {task: asdict(row) for task, row in run.by_task.items()},
        "by_band": {band: asdict(row) for band, row in run.by_band.items()},
        "confusion": run.confusion,
        "actions": run.actions,
        "not_acceptable": run.errors,
        "check_failed": run.failed,
        "roc": [[p.at, p.false_alarms.value, p.recall.value] for p in points],
        "area_under_roc": area(points) if points else None,
        "thresholds": [asdict(p) for p in choose(points)],
        "notes": list(notes),
    }


def to_markdown(
    run: GuardRun, peers: Sequence[GuardFigures], points: Sequence[Threshold],
    versions: Mapping[str, str], notes: Sequence[str],
) -> str:  # fmt: skip
    """Return the figures as Markdown, for people and for the repository."""
    lines = ["# The guard alone", "",
             f"{run.figures.n} labelled texts of children through the checks; no model takes part. "
             "Every figure with its 95 % interval and its number of texts; texts that are one "
             "question under several disguises do not count as independent.", ""]  # fmt: skip
    lines += ["## Beside others", "", *_figure_rows([run.figures, *peers]), ""]
    lines += ["The others answer yes or no; their crisis column says how many children in danger "
              "they hold back at all. They read single messages, made for adults.", ""]  # fmt: skip
    lines += ["## By task", "", *_figure_rows(list(run.by_task.values())), ""]
    lines += ["## By age", "", *_figure_rows(list(run.by_band.values())), ""]
    lines += ["## Held back, by hazard", "",
              "| hazard | held back of what should be |", "|---|---|"]  # fmt: skip
    lines += [f"| {_name(h)} | {e.as_text()} |" for h, e in run.figures.recall.items()]
    for part, table in run.actions.items():
        lines += ["", f"## Actions, {_part(part)}: expected down, taken across", ""]
        lines += _grid(table, ["allow", "redact", "care", "redirect", "refuse", "crisis"])
    for part, table in run.confusion.items():
        lines += ["", f"## Hazards, {_part(part)}: confused with", "",
                  "| hazard | n | found as itself | as others |", "|---|---|---|---|"]  # fmt: skip
        for hazard, found in table.items():
            others = ", ".join(f"{h} {n}" for h, n in found.items() if h != hazard)
            total = sum(found.values())
            lines += [f"| {_name(hazard)} | {total} | {found.get(hazard, 0)} | {others or '–'} |"]
    if points:
        lines += ["", "## One threshold for all", "",
                  "What would happen if a text were held back from one risk score on, and wherever "
                  "a rule holds it back. The guard itself uses a threshold for each hazard and "
                  f"age, chosen in training. Area under the curve: {area(points):.3f}.", "",
                  "| choice | threshold | harmless held back | risky held back |",
                  "|---|---|---|---|"]  # fmt: skip
        lines += [
            f"| {p.note} | {p.at:.3f} | {p.false_alarms.as_text()} | {p.recall.as_text()} |"
            for p in choose(points)
        ]
        here = run.figures
        if here.unsafe_allow.value is not None:
            lines += [f"| the guard as it decides | – | {here.over_block.as_text()} | "
                      f"{here.unsafe_allow.complement().as_text()} |"]  # fmt: skip
    lines += ["", "## What this rests on", ""]
    lines += [f"- {key}: `{value}`" for key, value in versions.items()]
    lines += [f"- {note}" for note in notes]
    return "\n".join(lines) + "\n"


def _name(hazard: str) -> str:
    return f"{hazard} {Hazard(hazard).label.replace('_', ' ')}"


def _part(part: str) -> str:
    return "all ages" if part == "all" else f"age {part}"


def _figure_rows(rows: Sequence[GuardFigures]) -> list[str]:
    lines = ["| | n | acceptable | unsafe-allow | over-block | crisis | ms a text |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        cells = [row.acceptable, row.unsafe_allow, row.over_block, row.crisis]
        shown = " | ".join("–" if c.value is None else c.as_text() for c in cells)
        lines.append(f"| {row.name} | {row.n} | {shown} | {row.ms_a_text:.1f} |")
    return lines


def _grid(table: Mapping[str, Mapping[str, int]], columns: Sequence[str]) -> list[str]:
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in columns:
        if row in table:
            cells = [str(table[row].get(column, 0)) for column in columns]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines
