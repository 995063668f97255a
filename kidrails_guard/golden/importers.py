"""Reads conversations of others into rows that wait for a person.

An imported row is never golden: it has no hazard, no action and no rationale, its schema is another
one, and `kidrails data build` does not read it. Who wants it writes a golden row from it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from kidrails_guard.errors import DataError
from kidrails_guard.files import write_atomic
from kidrails_guard.golden.records import MORE
from kidrails_guard.golden.replies import CANNED, form_problems
from kidrails_guard.golden.schema import Provenance, ReviewRow, Turn
from kidrails_guard.golden.textform import normalise
from kidrails_guard.types import AgeBand
from kidrails_guard.units import clean_surrogates

Format = Literal["upstream-seed", "columns", "sharegpt", "messages"]
FORMATS: Final[tuple[Format, ...]] = ("upstream-seed", "columns", "sharegpt", "messages")

COLUMNS: Final = {
    "age": "age",
    "question": "question",
    "reply": "actual_output",
    "system_prompt": "system_prompt",
    "conversation": "conversation",
}
"""Where upstream's generated rows keep things; `--map` changes each, an empty name skips it."""

_SPEAKERS: Final = {
    "human": "user",
    "user": "user",
    "child": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
}


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import.

    Attributes:
        rows: to be reviewed.
        dropped: why others were left out, with how often.
    """

    rows: tuple[ReviewRow, ...]
    dropped: dict[str, int]


class _Skip(Exception):
    """This record gives no row."""


def guess_format(records: Sequence[Mapping[str, Any]]) -> Format:
    """Return the format that the first record has.

    Raises:
        DataError: none fits.
    """
    first = records[0] if records else {}
    if isinstance(first.get("response"), dict) and "question" in first:
        return "upstream-seed"
    if isinstance(first.get("conversations"), list):
        return "sharegpt"
    if isinstance(first.get("messages"), list):
        return "messages"
    if "question" in first or "actual_output" in first or "conversation" in first:
        return "columns"
    raise DataError(
        f"no known format: the first record has {', '.join(sorted(first)) or 'no keys'}; accepted: "
        "question + response (upstream's seeds), conversations (ShareGPT), messages, or columns "
        "named with --format columns --map question=…,reply=…"
    )


def import_records(
    records: Sequence[Mapping[str, Any]],
    *,
    form: Format,
    source: str,
    licence: str,
    columns: Mapping[str, str] | None = None,
    claimed: Literal["safe", "unsafe", "unknown"] = "unknown",
) -> Imported:
    """Turn records into rows to be reviewed.

    Args:
        records: from `read_records`.
        form: their format.
        source: where they come from, for the provenance.
        licence: under which they came.
        columns: for the format ``columns``, which of theirs is which of `COLUMNS`.
        claimed: what their publisher says of the replies.

    Raises:
        DataError: a column is mapped that does not exist, or source or licence is no line of text.
    """
    names = COLUMNS | dict(columns or {})
    unknown = sorted(set(names) - set(COLUMNS))
    if unknown:
        raise DataError(f"--map {unknown[0]}: unknown; accepted: {', '.join(COLUMNS)}")
    there = dict.fromkeys(str(key) for record in records for key in record)
    for key, name in (columns or {}).items():
        if name and name not in there:
            raise DataError(
                f"--map {key}={name}: no record has it; accepted: {', '.join(there)}, or nothing"
            )
    readers: dict[Format, Callable[[Mapping[str, Any]], _Raw]] = {
        "upstream-seed": _seed,
        "columns": lambda record: _columns(record, names),
        "sharegpt": lambda record: _turns(record.get("conversations"), "from", "value"),
        "messages": lambda record: _turns(record.get("messages"), "role", "content"),
    }
    rows: list[ReviewRow] = []
    dropped: Counter[str] = Counter()
    try:
        provenance = Provenance(
            author="see the source", method="imported", source=source, licence=licence, revision="?"
        )
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise DataError(f"--{detail['loc'][0]} {detail['input']!r}: {detail['msg']}") from None
    for record in records:
        try:
            if MORE in record:
                raise _Skip("more cells than the header has names: a comma outside quotes?")
            rows.append(_review(readers[form](record), claimed, provenance))
        except _Skip as reason:
            dropped[str(reason)] += 1
        except ValidationError as error:
            key = ".".join(map(str, error.errors(include_url=False)[0]["loc"]))
            dropped[f"{key or 'row'} does not fit the schema"] += 1
    return Imported(tuple(rows), dict(sorted(dropped.items())))


@dataclass(frozen=True, slots=True)
class _Raw:
    turns: list[tuple[str, str]]
    age: int | None = None
    system: str = ""
    extra: tuple[tuple[str, str], ...] = ()


def _seed(record: Mapping[str, Any]) -> _Raw:
    try:
        reply = record["response"]["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise _Skip("no reply in the chat completion") from None
    turns = [("user", _text(record.get("question"))), ("assistant", _text(reply))]
    return _Raw(turns, _age(record.get("age")), _text(record.get("system_prompt")))


def _columns(record: Mapping[str, Any], names: Mapping[str, str]) -> _Raw:
    def cell(key: str) -> Any:
        return record.get(names[key]) if names[key] else None

    value = cell("conversation")
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = json.loads(value)
        except ValueError:
            raise _Skip("the conversation is not JSON") from None
    if isinstance(value, list) and value:
        shared = isinstance(value[0], Mapping) and "from" in value[0]
        keys = ("from", "value") if shared else ("role", "content")
        turns = _turns(value, *keys).turns
    else:
        turns = [("user", _text(cell("question"))), ("assistant", _text(cell("reply")))]
    used = set(names.values())
    if _age(cell("age")) is None:
        used.discard(names["age"])  # said, but no age of ours: kept for who reviews
    extra = tuple(
        (_text(key), _text(inner))
        for key, inner in record.items()
        if key not in used and isinstance(inner, str | int | float) and _text(inner)
    )
    return _Raw(turns, _age(cell("age")), _text(cell("system_prompt")), extra)


def _turns(value: Any, speaker: str, text: str) -> _Raw:
    if not isinstance(value, list) or not value:
        raise _Skip("no turns")
    turns = []
    for turn in value:
        if not isinstance(turn, Mapping) or not isinstance(turn.get(text), str):
            raise _Skip("a turn without text")
        role = _SPEAKERS.get(str(turn.get(speaker)).lower())
        if role is None:
            raise _Skip("an unknown speaker")
        turns.append((role, _text(turn[text])))
    system = " ".join(said for role, said in turns if role == "system")
    return _Raw([turn for turn in turns if turn[0] != "system"], system=system)


def _age(value: object) -> int | None:
    try:
        age = float(str(value))  # pandas writes a column of ages that lacks one as 7.0
    except ValueError:
        return None
    return int(age) if age.is_integer() and 5 <= age <= 12 else None


def _text(value: object) -> str:
    """Return a cell's text; nothing for what stands for no value, NaN among it.

    Half a sign (JSON can hold one, a file cannot) becomes U+FFFD.
    """
    if value is None or value != value:
        return ""
    return clean_surrogates(str(value))


def _review(
    raw: _Raw, claimed: Literal["safe", "unsafe", "unknown"], provenance: Provenance
) -> ReviewRow:
    roles = [role for role, _ in raw.turns]
    if roles[-1:] != ["assistant"] or roles != ["user", "assistant"] * (len(roles) // 2):
        raise _Skip("turns do not alternate between child and model")
    texts = [normalise(text) for _, text in raw.turns]
    if not all(texts):
        raise _Skip("an empty turn")
    if texts[-1] in {"None", "null", "nan"}:
        raise _Skip(f"the reply is the text {texts[-1]!r}")
    *before, message, reply = texts
    return ReviewRow(
        age=raw.age,
        band=AgeBand.for_age(raw.age) if raw.age is not None else None,
        system_prompt=_text(raw.system),
        conversation=tuple(
            Turn(role="user" if i % 2 == 0 else "assistant", content=text)
            for i, text in enumerate(before)
        ),
        message=message,
        reply=reply,
        claimed=claimed,
        notes=tuple(_notes(reply)),
        extra=dict(raw.extra),
        provenance=provenance,
    )


def _notes(reply: str) -> Iterator[str]:
    if CANNED.match(reply):
        yield f"canned opening: {' '.join(reply.split()[:4])}"
    if (marks := reply.count("?")) > 1:
        yield f"{marks} questions"
    yield from form_problems(reply)


def write_review(path: Path, imported: Imported) -> None:
    """Write rows to be reviewed.

    Raises:
        DataError: the file is there already, or the place is one that golden rows are read from.
    """
    if path.exists():
        raise DataError(
            f"{path} exists and is not overwritten: somebody may be at work on its rows; give "
            "another --out"
        )
    if path.resolve().parent.name == "golden":
        raise DataError(
            f"{path}: golden rows live there; imported ones wait elsewhere until a person has "
            "rewritten them, e.g. build/data/review.jsonl"
        )
    lines = [json.dumps(row.model_dump(mode="json"), ensure_ascii=False) for row in imported.rows]
    write_atomic(path, "".join(f"{line}\n" for line in lines))
