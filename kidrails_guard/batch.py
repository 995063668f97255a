"""Rows of JSON Lines in, verdicts out: what `kidrails check --batch` reads and writes."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from kidrails_guard.errors import DataError
from kidrails_guard.guard import Guard
from kidrails_guard.streaming import judge_reply
from kidrails_guard.types import (
    CONDUCT,
    NO_TURNS,
    Action,
    AgeBand,
    Conversation,
    Finding,
    Hazard,
    Message,
    Role,
    Stage,
    Verdict,
)

_ROLES: Final[tuple[Role, ...]] = ("system", "developer", "user", "assistant", "tool")
_KEYS: Final = ("id", "text", "band", "stage", "context")


@dataclass(frozen=True, slots=True)
class Row:
    """One text to check."""

    id: Any
    text: str = field(repr=False)
    band: AgeBand
    stage: Stage
    conversation: Conversation = NO_TURNS


def _choice(value: object, key: str, accepted: Iterable[str]) -> str:
    names = list(accepted)
    if value not in names:
        shown = f" {value!r}" if isinstance(value, str) and len(value) < 20 else ""
        raise DataError(f"{key}{shown} is not one of {', '.join(names)}")
    return str(value)


def parse_context(value: object, stage: Stage) -> Conversation:
    """Return the turns before a text.

    Args:
        value: nothing, one string, or a list. Objects hold ``role`` and ``content``. Strings take
            turns: before a child's message they begin with the child, before a reply they end with
            the child; ``U:`` or ``A:`` in front says who speaks.
        stage: whose text follows.

    Raises:
        DataError: it is something else.
    """
    if value is None or value == "":
        return NO_TURNS
    turns = [value] if isinstance(value, str) else value
    if not isinstance(turns, list):
        raise DataError("context is neither a string nor a list")
    messages: list[Message] = []
    for place, turn in enumerate(turns):
        if isinstance(turn, str):
            offset = place if stage is Stage.INPUT else place + len(turns) - 1
            role: Role = "user" if offset % 2 == 0 else "assistant"
            if turn[:2] in ("U:", "A:"):
                role, turn = ("user" if turn[0] == "U" else "assistant"), turn[2:].strip()
            messages.append(Message(role, turn))
        elif isinstance(turn, dict) and isinstance(turn.get("content"), str):
            name = _choice(turn.get("role"), f"context[{place}].role", _ROLES)
            messages.append(Message(next(r for r in _ROLES if r == name), turn["content"]))
        else:
            raise DataError(f"context[{place}] is neither a string nor {{role, content}}")
    return Conversation(tuple(messages))


def parse_row(line: str, *, band: AgeBand, stage: Stage) -> Row:
    """Return the row that a line of JSON says.

    Args:
        line: one line.
        band: for a row without one.
        stage: for a row without one.

    Raises:
        DataError: the line is no row; says which key, never the text.
    """
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise DataError("not a row: nested too deeply") from None
    except ValueError:
        raise DataError("not a row: a number has too many digits") from None
    if not isinstance(value, dict):
        raise DataError(f"not an object but {type(value).__name__}; keys: {', '.join(_KEYS)}")
    identifier = value.get("id")
    if isinstance(identifier, dict | list):
        raise DataError("id is neither a string nor a number")
    if isinstance(identifier, float) and not math.isfinite(identifier):
        raise DataError(f"id {identifier} is no number that JSON has; give a string or null")
    if not isinstance(value.get("text"), str):
        problem = "is missing" if "text" not in value else "is not a string"
        raise DataError(f"text {problem}", identifier)
    try:
        at = Stage(_choice(value.get("stage") or stage, "stage", list(Stage)))
        return Row(
            id=identifier,
            text=value["text"],
            band=AgeBand(_choice(value.get("band") or band, "band", list(AgeBand))),
            stage=at,
            conversation=parse_context(value.get("context"), at),
        )
    except DataError as error:
        raise DataError(str(error), identifier) from None


def _hazards(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    best: dict[Hazard, Finding] = {}
    for finding in findings:
        if finding.hazard is Hazard.BENIGN or finding.case in CONDUCT:
            continue
        other = best.get(finding.hazard)
        if other is None or (finding.severity, finding.score) > (other.severity, other.score):
            best[finding.hazard] = finding
    return [
        {"hazard": str(h), "severity": f.severity.label, "score": round(f.score, 4)}
        for h, f in sorted(best.items())
    ]


def verdict_record(identifier: Any, verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON: no text in it.

    ``spans`` are the parts to be masked, as offsets in code points; ``conduct`` is only there for
    replies, ``masked`` only for ``redact``: false where no place in the text could be masked;
    ``failed`` names checks that did not answer.
    """
    record: dict[str, Any] = {
        "id": identifier,
        "action": verdict.action.label,
        "hazards": _hazards(verdict.findings),
        "spans": [
            {"start": f.span[0], "end": f.span[1], "kind": f.note}
            for f in verdict.findings
            if f.masks and f.span
        ],
        "elapsed_ms": round(verdict.elapsed_ms, 3),
    }
    if verdict.action is Action.REDACT:
        record["masked"] = verdict.masks
    if verdict.stage is Stage.OUTPUT:
        record["conduct"] = sorted({f.case for f in verdict.findings if f.case in CONDUCT})
    if verdict.failed:
        record["failed"] = list(verdict.failed)
    return record


async def check_rows(
    guard: Guard, lines: Iterable[str], *, band: AgeBand, stage: Stage
) -> AsyncIterator[dict[str, Any]]:
    """Yield one record a line, in order; a bad row gets a record with ``error`` and ``line``.

    Blank lines are passed over.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parse_row(line, band=band, stage=stage)
            if row.band not in guard.policy.bands:
                served = ", ".join(guard.policy.bands)
                raise DataError(f"band {row.band} is not served by the policy ({served})", row.id)
        except DataError as error:
            identifier = error.args[1] if len(error.args) > 1 else None
            yield {"id": identifier, "line": number, "error": str(error.args[0])}
            continue
        yield verdict_record(row.id, await judge_row(guard, row))


async def judge_row(guard: Guard, row: Row) -> Verdict:
    """Return the verdict that the proxy would come to: of a reply, part by part."""
    if row.stage is Stage.INPUT:
        return await guard.check_input(row.text, row.conversation, band=row.band)
    return (await judge_reply(guard, row.text, row.conversation, band=row.band)).verdict
