"""Reads data files and says exactly what is wrong with them: file, line, key, accepted values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from kidrails_guard.content import content_path
from kidrails_guard.errors import DataError
from kidrails_guard.golden.schema import GoldenQA, LabelledText
from kidrails_guard.policy import describe_error

GOLDEN: Final = "data/golden"
MESSAGES: Final = "data/messages"
MAX_LINE: Final = 64_000
"""Longest line of a data file in bytes; a longer one is a mistake, not a row."""

_M = TypeVar("_M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a data file."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Placed:
    """A row with the place where it stands, so that a later check can name it."""

    row: GoldenQA
    file: Path
    line: int


def raise_problems(problems: Sequence[Problem], *, limit: int = 20) -> None:
    """Raise one error that names every problem (the first ones, when there are many).

    Raises:
        DataError: there is at least one problem.
    """
    if problems:
        lines = [str(problem) for problem in problems[:limit]]
        if len(problems) > limit:
            lines.append(f"… and {len(problems) - limit} more; run: kidrails data validate")
        raise DataError("\n".join(lines))


def numbered_lines(path: Path, problems: list[Problem]) -> Iterator[tuple[int, str]]:
    """Yield ``(line number, text)`` of a UTF-8 file; what cannot be read becomes a problem."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        problems.append(Problem(str(path), 0, "", f"cannot be read ({error.strerror})"))
        return
    if not raw.strip():
        problems.append(Problem(str(path), 0, "", "is empty; delete the file or add rows"))
        return
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if len(line) > MAX_LINE:
            text = f"has {len(line):,} bytes; a row has at most {MAX_LINE:,}"
            problems.append(Problem(str(path), number, "", text))
            continue
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            text = f"is not UTF-8 (byte {error.start + 1}); save the file as UTF-8"
            problems.append(Problem(str(path), number, "", text))


def parse_model(
    value: Any, model: type[_M], *, file: str, line: int, problems: list[Problem]
) -> _M | None:
    """Return a value as a model, or note what is wrong with it and return nothing."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            text = describe_error(detail, model)
            key, _, message = text.partition(": ")
            problems.append(Problem(file, line, *((key, message) if message else ("", text))))
        return None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; JSON lets a repeated key win silently, and one of two replies be lost."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} stands twice; delete one")
    return value


def read_jsonl(path: Path, problems: list[Problem]) -> Iterator[tuple[int, Any]]:
    """Yield ``(line number, value)`` of a JSON-lines file."""
    for number, line in numbered_lines(path, problems):
        if not line.strip():
            problems.append(Problem(str(path), number, "", "is blank; delete the line"))
            continue
        try:
            value = json.loads(line, object_pairs_hook=_each_key_once)
        except (ValueError, RecursionError) as error:
            problems.append(Problem(str(path), number, "", f"is not JSON ({error})"))
            continue
        if not isinstance(value, dict):
            text = f"is {type(value).__name__}, a row is an object {{…}}"
            problems.append(Problem(str(path), number, "", text))
            continue
        yield number, value


def read_golden(path: Path, problems: list[Problem], *, stamped: bool = True) -> list[Placed]:
    """Read one file of golden rows; broken rows become problems.

    Args:
        path: the file.
        problems: where they are added.
        stamped: whether an id must fit its row; before a stamp it need not.
    """
    rows = []
    for number, value in read_jsonl(path, problems):
        if not stamped:
            value.pop("id", None)
        row = parse_model(value, GoldenQA, file=str(path), line=number, problems=problems)
        if row is not None:
            rows.append(Placed(row, path, number))
    return rows


def golden_files(folder: Path | None = None) -> tuple[Path, ...]:
    """Return the files with golden rows, in the order in which they count.

    Raises:
        DataError: there are none.
    """
    folder = folder or content_path(GOLDEN)
    files = tuple(sorted(folder.glob("*.jsonl")))
    if not files:
        raise DataError(f"{folder}: holds no *.jsonl; golden rows live in data/golden/K??.jsonl")
    return files


_COLUMNS: Final = ("hazard", "severity", "about", "stage", "context", "text")


def parse_context(text: str) -> list[dict[str, str]]:
    """Return the turns of a ``U: … || A: …`` column.

    Raises:
        ValueError: a turn starts with neither ``U:`` nor ``A:``.
    """
    turns = []
    for part in filter(None, map(str.strip, text.split("||"))):
        role = {"U:": "user", "A:": "assistant"}.get(part[:2])
        if role is None:
            raise ValueError(f"{part[:20]!r} starts with neither 'U:' nor 'A:'")
        turns.append({"role": role, "content": part[2:].strip()})
    return turns


def read_messages(path: Path, problems: list[Problem]) -> list[tuple[int, LabelledText]]:
    """Read one tab-separated file of ``data/messages``; the column ``case`` may be absent."""
    rows: list[tuple[int, LabelledText]] = []
    columns: list[str] = []
    for number, line in numbered_lines(path, problems):
        fields = line.split("\t")
        if not columns:
            columns = fields
            odd = sorted(set(columns) ^ set(_COLUMNS) - {"case"})
            if odd and odd != ["case"]:
                text = f"header has {', '.join(columns)}; needed: {', '.join(_COLUMNS)} [case]"
                problems.append(Problem(str(path), number, "", text))
                return rows
            continue
        if len(fields) != len(columns):
            text = f"has {len(fields)} tab-separated fields, the header {len(columns)}"
            problems.append(Problem(str(path), number, "", text))
            continue
        value: dict[str, Any] = dict(zip(columns, fields, strict=True))
        value["hazards"] = value.pop("hazard").split("+")
        try:
            value["conversation"] = parse_context(value.pop("context"))
        except ValueError as error:
            problems.append(Problem(str(path), number, "context", str(error)))
            continue
        row = parse_model(value, LabelledText, file=str(path), line=number, problems=problems)
        if row is not None:
            rows.append((number, row))
    return rows


def read_all(
    paths: Sequence[Path], reader: Callable[[Path, list[Problem]], list[Any]]
) -> list[Any]:
    """Read several files with one reader.

    Raises:
        DataError: names every problem of every file.
    """
    problems: list[Problem] = []
    rows = [row for path in paths for row in reader(path, problems)]
    raise_problems(problems)
    return rows
