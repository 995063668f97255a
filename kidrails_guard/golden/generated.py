"""Files of made rows: how one stands there, and how it is read back with its seed's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kidrails_guard.golden.gate import Gate
from kidrails_guard.golden.make import Ledger
from kidrails_guard.golden.read import Problem, parse_model, raise_problems, read_jsonl
from kidrails_guard.golden.rows import Row, Step
from kidrails_guard.golden.schema import Age, Method, Turn
from kidrails_guard.golden.steps import drop_near_copies, normalise_row
from kidrails_guard.guard import run_sync

_Said = Annotated[str, Field(min_length=1, repr=False)]


class MadeRow(BaseModel):
    """What a file of generated rows must hold to be read; a person may have edited it."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, Field(min_length=1)]
    seed: str
    age: Age
    conversation: tuple[Turn, ...]
    message: _Said
    golden: _Said
    unsafe: _Said
    persona: str
    scenario: str
    moves: tuple[str, ...]
    method: Method
    source: str
    licence: str

    @model_validator(mode="after")
    def _alternates(self) -> Self:
        roles = [turn.role for turn in self.conversation]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise ValueError(
                "conversation: turns must go user, assistant, user, assistant, … and end with "
                f"assistant; found {', '.join(roles)}"
            )
        return self


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
            made = parse_model(value, MadeRow, file=str(path), line=number, problems=problems)
            if made is None:
                continue
            seed = seeds.get(made.seed)
            if seed is None:
                text = f"{made.seed!r} is no golden row; it was changed or deleted since"
                problems.append(Problem(str(path), number, "seed", text))
                continue
            if seed.band is not None and not seed.band.ages[0] <= made.age <= seed.band.ages[1]:
                text = f"{made.age} is outside band {seed.band} of {seed.id}"
                problems.append(Problem(str(path), number, "age", text))
                continue
            row = from_record(made.model_dump(), seed)
            if row.id in rows:
                problems.append(Problem(str(path), number, "id", f"{row.id!r} stands there twice"))
            rows[row.id] = row
    raise_problems(problems)
    return list(rows.values())


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
