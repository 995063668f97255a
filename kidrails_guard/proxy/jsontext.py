r"""Text inside JSON: what a model writes as structured output or as a tool's arguments.

Escapes such as ``\u006b`` hide words from a check of the raw text, so the strings are checked as
the program that parses the JSON will see them.
"""

from __future__ import annotations

import json
import re
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from kidrails_guard.guard import Guard
from kidrails_guard.streaming import Judged, judge_reply, mask_part
from kidrails_guard.types import AgeBand, Conversation
from kidrails_guard.units import clean_surrogates

_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([nrt/\"\\]))")
_OPEN: Final = nullcontext()
_PLAIN: Final = {"n": "\n", "r": "\r", "t": "\t"}


class _Repeated(Exception):
    """A key stands twice in one object."""


@dataclass(frozen=True, slots=True)
class _Parsed:
    value: Any
    repeated: bool


def _parse(raw: str) -> _Parsed | None:
    repeated = False

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        value = dict(found)
        repeated |= len(value) != len(found)
        return value

    try:
        return _Parsed(json.loads(raw, object_pairs_hook=pairs), repeated)
    except (ValueError, RecursionError):
        return None


def _strings(value: Any) -> list[str]:
    """Return every key and string of a JSON value, in one fixed order."""
    found: list[str] = []
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, str):
            found.append(clean_surrogates(top))
        elif isinstance(top, dict):
            for key, inner in reversed(top.items()):
                stack.extend((inner, key))
        elif isinstance(top, list):
            stack.extend(reversed(top))
    return found


def _rebuild(value: Any, strings: list[str]) -> Any:
    """Return the value with its keys and strings replaced, in the order of `_strings`."""
    if isinstance(value, str):
        return strings.pop()
    if isinstance(value, dict):
        built = {}
        for inner in value.values():
            key = strings.pop()
            built[key] = _rebuild(inner, strings)
        return built
    if isinstance(value, list):
        return [_rebuild(inner, strings) for inner in value]
    return value


def _unescaped(raw: str) -> str:
    """Return broken JSON as its strings would read."""

    def plain(match: re.Match[str]) -> str:
        code, letter = match.groups()
        return chr(int(code, 16)) if code else _PLAIN.get(letter, letter)

    return clean_surrogates(_ESCAPE.sub(plain, raw))


def checked_text(raw: str) -> str:
    """Return what a check reads of a JSON text: its strings, a line each."""
    parsed = _parse(raw)
    return _unescaped(raw) if parsed is None else "\n".join(_strings(parsed.value))


async def judge_json(
    guard: Guard,
    raw: str,
    conversation: Conversation,
    *,
    band: AgeBand,
    strict: bool,
    gate: AbstractAsyncContextManager[object] = _OPEN,
) -> Judged:
    """Judge JSON that a model wrote.

    Returns:
        The verdict, and the JSON with personal data masked inside its strings; empty where the
        verdict answers. Text that is no JSON comes back with its escapes undone.
    """
    parsed = _parse(raw)
    if parsed is None:
        return await judge_reply(
            guard, _unescaped(raw), conversation, band=band, strict=strict, gate=gate
        )
    strings = _strings(parsed.value)
    judged = await judge_reply(
        guard, "\n".join(strings), conversation, band=band, strict=strict, gate=gate
    )
    if judged.verdict.action.answers:
        return judged
    if not judged.masked and not parsed.repeated:
        return Judged(judged.verdict, raw, False)
    masked, start = [], 0
    for text in strings:
        masked.append(mask_part(guard, text, start, judged.verdict.findings)[0])
        start += len(text) + 1
    built = _rebuild(parsed.value, masked[::-1])
    return Judged(judged.verdict, json.dumps(built, ensure_ascii=False), True)


def json_with_words(schema: dict[str, Any] | None, words: str) -> str | None:
    """Return JSON that says the words and holds to a schema, or None where that cannot be.

    Args:
        schema: of the structured output; None: any object will do.
        words: the kind words; they go into the first string that is free to hold them.
    """
    if schema is None:
        return json.dumps({"message": words}, ensure_ascii=False)
    writer = _Writer(schema, words)
    try:
        value = writer.write(schema, 0)
    except _CannotHold:
        return None
    return json.dumps(value, ensure_ascii=False) if writer.said else None


class _CannotHold(Exception):
    """The schema asks for something that no made-up value fulfils."""


class _Writer:
    """Writes the smallest value that a schema allows; its first free string holds the words."""

    def __init__(self, root: dict[str, Any], words: str) -> None:
        self.root, self.words, self.said = root, words, False

    def write(self, schema: Any, depth: int) -> Any:
        if depth > 20 or schema is False:
            raise _CannotHold
        if not isinstance(schema, dict) or not schema:
            return self._string({})
        if "$ref" in schema:
            return self.write(self._find(schema["$ref"]), depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self._any(schema[key], depth)
        if "allOf" in schema or "not" in schema or "if" in schema:
            raise _CannotHold
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kinds = [k for k in ("object", "string", "array") if k in kind] or kind
            kind = kinds[0]
        if kind == "object":
            return self._object(schema, depth)
        if kind == "string":
            return self._string(schema)
        if kind == "array":
            least = schema.get("minItems", 0)
            if not self.said and schema.get("maxItems", 1) > 0:
                least = max(least, 1)
            return [self.write(schema.get("items", {}), depth + 1) for _ in range(min(least, 50))]
        if kind in {"integer", "number"}:
            return self._number(schema)
        if kind == "boolean":
            return False
        if kind == "null":
            return None
        raise _CannotHold

    def _any(self, choices: list[Any], depth: int) -> Any:
        for choice in choices:
            before = self.said
            try:
                return self.write(choice, depth + 1)
            except _CannotHold:
                self.said = before
        raise _CannotHold

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        value = {name: self.write(properties.get(name, {}), depth + 1) for name in required}
        for name, inner in properties.items():
            if self.said:
                break
            if name not in value:
                value[name] = self.write(inner, depth + 1)
        return value

    def _string(self, schema: dict[str, Any]) -> str:
        if "pattern" in schema or schema.get("format") or "contentEncoding" in schema:
            raise _CannotHold
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        if not self.said and len(self.words) >= least and (most is None or most >= len(self.words)):
            self.said = True
            return self.words
        return "-" * least

    def _number(self, schema: dict[str, Any]) -> int | float:
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        if "multipleOf" in schema:
            low = low if low is None or low > 0 else 0
        for value in (0, low, high, None if low is None else low + 1):
            if value is None:
                continue
            if (
                value >= schema.get("minimum", value)
                and value <= schema.get("maximum", value)
                and value > schema.get("exclusiveMinimum", value - 1)
                and value < schema.get("exclusiveMaximum", value + 1)
                and value % schema.get("multipleOf", 1 if isinstance(value, int) else value or 1)
                == 0
            ):
                return int(value) if schema.get("type") == "integer" else value
        raise _CannotHold

    def _find(self, reference: Any) -> Any:
        value: Any = self.root
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _CannotHold
        for part in reference.lstrip("#/").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if name:
                value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            raise _CannotHold
        return value
