"""The guard's own words as the structured output that a caller's program waits for.

The schema is the caller's: whatever it says or asks for, writing it is bounded and never fails.
"""

from __future__ import annotations

import json
from typing import Any, Final

_DEEPEST: Final = 20
_MOST_COST: Final = 100_000
"""Of one answer, dropped tries included: a few nested lists can ask for billions of values."""
_VALUE_COST: Final = 100
_MOST_ITEMS: Final = 50
_LONGEST_FILLER: Final = 2_000

_MALFORMED: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a schema raises that is none, such as ``required: true``."""


def json_with_words(schema: dict[str, Any] | None, words: str) -> str | None:
    """Return JSON that says the words and holds to a schema, or None where that cannot be.

    Args:
        schema: of the structured output; None: any object will do.
        words: the kind words; they go into every string that is free to hold them, since nobody
            but the caller knows which of them is shown.
    """
    if schema is None:
        return json.dumps({"message": words}, ensure_ascii=False)
    writer = _Writer(schema, words)
    try:
        value = writer.write(schema, 0)
        if not writer.said:
            writer.eager = True
            value = writer.write(schema, 0)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (_CannotHold, _Exhausted, *_MALFORMED):
        return None
    return text if writer.said else None


class _CannotHold(Exception):
    """The schema asks for something that no made-up value fulfils."""


class _Exhausted(Exception):
    """The schema asks for too much."""


class _Writer:
    """Writes a small value that a schema allows, with the words in its free strings.

    Attributes:
        said: how often the words were written.
        eager: also write what may be absent, until the words are said.
    """

    def __init__(self, root: dict[str, Any], words: str) -> None:
        self.root, self.words = root, words
        self.said, self.eager = 0, False
        self._cost = 0
        self._open: set[str] = {"#"}

    def _spend(self, cost: int) -> None:
        self._cost += cost
        if self._cost > _MOST_COST:
            raise _Exhausted

    def write(self, schema: Any, depth: int) -> Any:
        self._spend(_VALUE_COST)
        if depth > _DEEPEST or schema is False:
            raise _CannotHold
        if not isinstance(schema, dict) or not schema:
            return self._string({})
        if "$ref" in schema:
            return self._referred(schema["$ref"], depth)
        if "const" in schema:
            return self._fixed(schema["const"])
        if schema.get("enum"):
            return self._fixed(schema["enum"][0])
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
            return self._array(schema, depth)
        if kind in {"integer", "number"}:
            return _number(schema)
        if kind == "boolean":
            return False
        if kind == "null":
            return None
        raise _CannotHold

    def _fixed(self, value: Any) -> Any:
        self._spend(len(json.dumps(value)))
        return value

    def _any(self, choices: list[Any], depth: int) -> Any:
        """Write the first choice that says the words, or else the first that can be written."""
        fallback: list[Any] = []
        before = self.said
        for choice in choices:
            try:
                value = self.write(choice, depth + 1)
            except _CannotHold:
                self.said = before
                continue
            if self.said > before:
                return value
            fallback.append(value)
        if not fallback:
            raise _CannotHold
        return fallback[0]

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        self._spend(len(properties) + sum(map(len, required)))
        value = {name: self.write(properties.get(name, {}), depth + 1) for name in required}
        for name, inner in properties.items():
            simple = isinstance(inner, dict) and inner.get("type") == "string"
            if name in value or not (simple or (self.eager and not self.said)):
                continue
            before = self.said
            try:
                optional = self.write(inner, depth + 1)
            except _CannotHold:
                self.said = before
                continue
            if self.said > before:
                self._spend(len(name))
                value[name] = optional
        return value

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        least, most = schema.get("minItems", 0), schema.get("maxItems", _MOST_ITEMS)
        if self.eager and not self.said and most > 0:
            least = max(least, 1)
        alike = least > 1 and schema.get("uniqueItems") is True
        if least > min(most, _MOST_ITEMS) or alike or (least and "prefixItems" in schema):
            raise _CannotHold
        return [self.write(schema.get("items", {}), depth + 1) for _ in range(least)]

    def _string(self, schema: dict[str, Any]) -> str:
        if "pattern" in schema or schema.get("format") or "contentEncoding" in schema:
            raise _CannotHold
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        if len(self.words) >= least and (most is None or most >= len(self.words)):
            self.said += 1
            return self.words
        if least > _LONGEST_FILLER:
            raise _CannotHold
        return "-" * int(least)

    def _referred(self, reference: Any, depth: int) -> Any:
        """Write what a reference names; never inside itself: the smallest value needs no such."""
        if not isinstance(reference, str) or reference in self._open:
            raise _CannotHold
        self._open.add(reference)
        try:
            return self.write(self._find(reference), depth + 1)
        finally:
            self._open.discard(reference)

    def _find(self, reference: str) -> Any:
        value: Any = self.root
        if not reference.startswith("#"):
            raise _CannotHold
        for part in reference.lstrip("#/").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if name:
                value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            raise _CannotHold
        return value


def _number(schema: dict[str, Any]) -> int | float:
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
            and value % schema.get("multipleOf", 1 if isinstance(value, int) else value or 1) == 0
        ):
            return int(value) if schema.get("type") == "integer" else value
    raise _CannotHold
