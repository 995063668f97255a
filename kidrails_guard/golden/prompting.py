"""What a model teacher is asked, and how its answer is read."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import ValidationError

from kidrails_guard.content import content_path
from kidrails_guard.golden.asking import read_object
from kidrails_guard.golden.compose import Job
from kidrails_guard.golden.rows import Drop, Row
from kidrails_guard.golden.schema import Turn
from kidrails_guard.golden.steps import normalise_row
from kidrails_guard.policy import Policy

PROMPTS: Final = "data/prompts"
PROMPT_FILES: Final = ("teacher_system.jinja", "paraphrase.jinja", "conversation.jinja")


class Prompts:
    """The Jinja files that a model teacher is asked with.

    Args:
        policy: for the band's limits and the hazard's guidance.
        folder: the one that ships when absent.
    """

    def __init__(self, policy: Policy, *, folder: Path | None = None) -> None:
        self.policy = policy
        self.folder = folder or content_path(PROMPTS)
        self._environment = Environment(
            loader=FileSystemLoader(self.folder),
            undefined=StrictUndefined,
            trim_blocks=True,
            autoescape=False,  # noqa: S701  # plain text for a model, no page
        )

    def digest(self) -> str:
        """Return a SHA-256 over the files: another wording is another run."""
        parts = [(self.folder / name).read_bytes() for name in PROMPT_FILES]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def chat(self, job: Job) -> tuple[dict[str, str], ...]:
        """Return the messages that ask for a job's row."""
        row = job.row
        assert row.band is not None
        low, high = row.band.ages
        name = "paraphrase" if row.conversation or job.scenario == "single" else "conversation"
        values: dict[str, Any] = {
            "low": low,
            "high": high,
            "age": job.persona.age,
            "rule": self.policy.bands[row.band],
            "persona": job.persona,
            "hazard": row.hazards[0].label,
            "severity": row.severity.label,
            "action": row.action.label if row.action is not None else "",
            "guidance": self.policy.hazards[row.hazards[0]].guidance.strip(),
            "row": row,
            "scenario": job.scenario,
        }
        system = self._environment.get_template("teacher_system.jinja").render(values)
        user = self._environment.get_template(f"{name}.jinja").render(values)
        return (
            {"role": "system", "content": system.strip()},
            {"role": "user", "content": user.strip()},
        )


def read_answer(job: Job, text: str, teacher: str) -> Row | Drop:
    """Return the row in a teacher's answer, or why there is none."""
    value = read_object(text)
    if isinstance(value, str):
        return Drop(f"teacher: {value}")
    missing = [key for key in ("message", "golden", "unsafe") if not _is_text(value.get(key))]
    if missing:
        return Drop("teacher: wrong keys", f"no text for {', '.join(missing)}")
    turns = value.get("conversation", [])
    wants = bool(job.row.conversation) or job.scenario != "single"
    try:
        conversation = tuple(Turn.model_validate(turn) for turn in turns) if wants else ()
    except (ValidationError, TypeError):
        return Drop("teacher: wrong conversation", "not a list of turns with role and content")
    roles = [turn.role for turn in conversation]
    if roles != ["user", "assistant"] * (len(roles) // 2) or (wants and not roles):
        return Drop("teacher: wrong conversation", f"roles {', '.join(roles) or 'none'}")
    return normalise_row(
        replace(
            job.row,
            id=job.id,
            seed=job.row.id,
            age=job.persona.age,
            conversation=conversation,
            text=value["message"],
            golden=value["golden"],
            unsafe=value["unsafe"],
            persona=job.persona.id,
            scenario="as written" if job.row.conversation else job.scenario,
            moves=("teacher",),
            method="generated",
            source=teacher,
            licence="see the teacher's terms",
        )
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
