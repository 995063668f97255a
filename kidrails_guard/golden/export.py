"""Writes what training tools read as it is: sft, preference, guard and eval as JSON lines."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kidrails_guard.files import write_atomic
from kidrails_guard.golden.rows import Row
from kidrails_guard.golden.schema import Turn
from kidrails_guard.guard import Guard
from kidrails_guard.types import About, Action, Finding, Hazard, Severity, Stage, Verdict

WITH_PROMPT: Final = 0.5
"""Share of training conversations that start with a system prompt which states the age.

The rest has none: the model is to behave with it and without it.
"""

_EXACT: Final = (
    "You talk with a child who is {age} years old. Be warm, brief and honest, and use words that a "
    "{age}-year-old knows.",
    "The user is {age} years old. Answer kindly, truthfully and simply, for a child of that age.",
    "You are a helper for a {age}-year-old. Keep it short, and send worries to a grown-up.",
)


def turns_of(row: Row) -> list[dict[str, str]]:
    """Return a row's turns up to its text, as chat messages."""
    last = "user" if row.stage is Stage.INPUT else "assistant"
    turns = [{"role": str(turn.role), "content": turn.content} for turn in row.conversation]
    return [*turns, {"role": last, "content": row.text}]


def system_prompt(row: Row, guard: Guard, rng: random.Random) -> str | None:
    """Return the system prompt of a training conversation, or None for the half without one.

    Most are what the guard puts before the model at run time; some only state the age.
    """
    if row.band is None or rng.random() >= WITH_PROMPT:
        return None
    if rng.random() < 0.3:
        return rng.choice(_EXACT).format(age=row.age)
    finding = Finding("golden", row.hazards[0], row.severity)
    care = Verdict(row.action or Action.ALLOW, (finding,), hazard=row.hazards[0])
    return guard.system_prompt(row.band, care)


def sft_rows(rows: Iterable[Row], guard: Guard, *, seed: int) -> Iterator[dict[str, Any]]:
    """Yield training conversations: what the child said, what the golden reply says.

    A row whose question nobody has labelled (no expected action) names no hazard.
    """
    for row in rows:
        rng = random.Random(f"prompt:{seed}:{row.id}")
        messages = [*turns_of(row), {"role": "assistant", "content": row.golden}]
        prompt = system_prompt(row, guard, rng)
        if prompt is not None:
            messages.insert(0, {"role": "system", "content": prompt})
        yield {
            "messages": messages,
            "id": row.id,
            "seed": row.seed,
            "band": str(row.band),
            "age": row.age,
            "hazard": str(row.hazards[0]) if row.action is not None else "",
            "action": row.action.label if row.action is not None else "",
            "scenario": row.scenario,
            "persona": row.persona,
            "licence": row.licence,
        }


def preference_rows(rows: Iterable[Row], guard: Guard, *, seed: int) -> Iterator[dict[str, Any]]:
    """Yield preference pairs in the layout of axolotl's ``chat_template.default`` for DPO."""
    for row in rows:
        rng = random.Random(f"pair:{seed}:{row.id}")
        messages = turns_of(row)
        prompt = system_prompt(row, guard, rng)
        if prompt is not None:
            messages.insert(0, {"role": "system", "content": prompt})
        yield {
            "messages": messages,
            "chosen": {"role": "assistant", "content": row.golden},
            "rejected": {"role": "assistant", "content": row.unsafe},
            "id": row.id,
            "seed": row.seed,
            "band": str(row.band),
            "hazard": str(row.hazards[0]),
            "reason": row.unsafe_reason,
            "licence": row.licence,
        }


def guard_row(row: Row) -> dict[str, Any]:
    """Return one labelled text for the guard."""
    return {
        "id": row.id,
        "text": row.text,
        "context": [{"role": t.role, "content": t.content} for t in row.conversation],
        "stage": str(row.stage),
        "hazard": str(row.hazards[0]),
        "hazards": [str(hazard) for hazard in row.hazards],
        "severity": row.severity.label,
        "about": str(row.about),
        "case": row.case,
        "band": str(row.band) if row.band is not None else None,
        "split": row.split,
        "group": row.group,
        "seed": row.seed,
        "method": row.method,
        "source": row.source,
        "licence": row.licence,
    }


def eval_rows(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Yield evaluation rows with everything that a scorer may want."""
    for row in rows:
        yield {
            "id": row.id,
            "band": str(row.band),
            "age": row.age,
            "hazard": str(row.hazards[0]),
            "severity": row.severity.label,
            "about": str(row.about),
            "case": row.case,
            "action": row.action.label if row.action is not None else "",
            "conversation": [{"role": t.role, "content": t.content} for t in row.conversation],
            "message": row.text,
            "golden": row.golden,
            "unsafe": row.unsafe,
            "unsafe_reason": row.unsafe_reason,
            "group": row.group,
        }


def replies_for_guard(row: Row, allowed_output: frozenset[Hazard]) -> Iterator[Row]:
    """Yield a golden row's replies as texts for the guard's output stage.

    The golden reply is harmless. The unsafe one carries the row's hazard, unless the policy lets
    that hazard pass in a reply: then what is wrong with it (a lecture, a needless no) is no hazard.
    """
    turns = (*row.conversation, Turn(role="user", content=row.text))
    base = replace(row, kind="text", stage=Stage.OUTPUT, conversation=turns, case="", action=None)
    yield replace(
        base,
        id=f"{row.id}-golden",
        text=row.golden,
        hazards=(Hazard.BENIGN,),
        severity=Severity.NONE,
        about=About.NONE,
    )
    if row.hazards[0] not in allowed_output:
        yield replace(base, id=f"{row.id}-unsafe", text=row.unsafe)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as JSON lines, atomically, and return how many."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    write_atomic(path, "".join(f"{line}\n" for line in lines))
    return len(lines)
