"""Files of made rows: how one stands there, and how it is read back with its seed's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kidrails_guard.golden.gate import Gate
from kidrails_guard.golden.make import Ledger
from kidrails_guard.golden.read import Problem, raise_problems, read_jsonl
from kidrails_guard.golden.rows import Row, Step
from kidrails_guard.golden.schema import Turn
from kidrails_guard.golden.steps import drop_near_copies, normalise_row
from kidrails_guard.guard import run_sync


def generated_record(row: Row) -> dict[str, Any]:
    """Return a made row as it stands in a file of generated rows."""
    return {
        "id": row.id,
        "seed": row.seed,
        "band": str(row.band),
        "age": row.age,
        "hazard": str(row.hazards[0]),
        "persona": row.persona,
        "scenario": row.scenario,
        "conversation": [{"role": t.role, "content": t.content} for t in row.conversation],
        "message": row.text,
        "golden": row.golden,
        "unsafe": row.unsafe,
        "moves": list(row.moves),
        "method": row.method,
        "source": row.source,
        "licence": row.licence,
    }


def from_record(value: Mapping[str, Any], seed: Row) -> Row:
    """Return a row from a file, with the labels of the hand-written row that it comes from."""
    return replace(
        seed,
        id=value["id"],
        seed=seed.id,
        age=value["age"],
        conversation=tuple(Turn.model_validate(turn) for turn in value["conversation"]),
        text=value["message"],
        golden=value["golden"],
        unsafe=value["unsafe"],
        persona=value["persona"],
        scenario=value["scenario"],
        moves=tuple(value["moves"]),
        method=value["method"],
        source=value["source"],
        licence=value["licence"],
    )


def read_generated(paths: Sequence[Path], seeds: Mapping[str, Row]) -> list[Row]:
    """Read files of generated rows.

    Args:
        paths: what `kidrails data generate` wrote.
        seeds: the hand-written rows by id.

    Raises:
        DataError: a row is broken, stands there twice, or its hand-written row is gone.
    """
    problems: list[Problem] = []
    rows: dict[str, Row] = {}
    for path in paths:
        for number, value in read_jsonl(path, problems):
            seed = seeds.get(value.get("seed", ""))
            if seed is None:
                text = f"{value.get('seed')!r} is no golden row; it was changed or deleted since"
                problems.append(Problem(str(path), number, "seed", text))
                continue
            try:
                row = from_record(value, seed)
            except (KeyError, TypeError, ValidationError) as error:
                text = f"is not a generated row ({type(error).__name__}: {_what(error)})"
                problems.append(Problem(str(path), number, "", text))
                continue
            if row.id in rows:
                problems.append(Problem(str(path), number, "id", f"{row.id!r} stands there twice"))
            rows[row.id] = row
    raise_problems(problems)
    return list(rows.values())


def _what(error: Exception) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) else "a key has a wrong value"


def generated_rows(
    paths: Sequence[Path],
    golden: Sequence[Row],
    gate: Gate,
    screens: tuple[tuple[str, Step], ...],
    ledger: Ledger,
) -> list[Row]:
    """Return the rows of `kidrails data generate`, after the gate, on their seed's side."""
    if not paths:
        return []
    seeds = {row.id: row for row in golden}
    rows = read_generated(paths, seeds)

    judged = run_sync(gate.judge_all([(row, seeds[row.seed]) for row in map(normalise_row, rows)]))
    verdicts = {row.id: result for row, result in zip(rows, judged, strict=True)}

    return ledger.run(
        "generated",
        rows,
        [
            ("normalise", normalise_row),
            ("gate", lambda row: verdicts[row.id]),
            ("near-copies", drop_near_copies()),
            *screens,
        ],
    )
