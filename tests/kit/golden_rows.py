"""Rows of the golden pipeline, plain ones that a test changes where it matters."""

from __future__ import annotations

from dataclasses import replace

from kidrails_guard.golden.rows import Row
from kidrails_guard.types import About, Hazard, Severity, Stage


def text_row(name: str, text: str, **change: object) -> Row:
    """Return a labelled text of ``data/messages``: a harmless question, unless changed."""
    row = Row(
        id=name,
        seed=name,
        kind="text",
        stage=Stage.INPUT,
        hazards=(Hazard.BENIGN,),
        severity=Severity.NONE,
        about=About.ASKS,
        conversation=(),
        text=text,
    )
    return replace(row, **change)  # type: ignore[arg-type]
