"""Reads files of others into records, whatever kind of file it is."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import DataError

MORE: Final = "(cells beyond the header's)"
"""Where a table's row has more cells than its header: a comma outside quotes has cut a text."""


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read a JSON list, JSON lines or CSV file.

    Raises:
        DataError: the file is none of them.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__})") from None
    if not text.strip():
        raise DataError(f"{path}: is empty")
    # Not `str.splitlines`: it also cuts at signs that stand within a text, such as U+2028.
    lines = io.StringIO(text, newline="")
    if path.suffix.lower() == ".csv":
        try:
            return list(csv.DictReader(lines, restkey=MORE))
        except csv.Error as error:
            raise DataError(f"{path}: is not CSV ({error})") from None
    try:
        value = json.loads(text) if text.lstrip()[:1] == "[" else _objects(text, lines)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is neither JSON, JSON lines nor CSV ({error})") from None
    odd = next((i for i, record in enumerate(value) if not isinstance(record, dict)), None)
    if odd is not None:
        raise DataError(f"{path}: record {odd + 1} is {type(value[odd]).__name__}, not an object")
    return list(value)


def _objects(text: str, lines: Iterable[str]) -> list[Any]:
    """Return the values of JSON lines, or the one value that is written over several."""
    try:
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        try:
            return [json.loads(text)]
        except ValueError:
            raise error from None
