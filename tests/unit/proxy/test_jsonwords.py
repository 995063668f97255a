"""The guard's words as structured output: valid, in every free string, bounded, never an error."""

from __future__ import annotations

import json

import jsonschema
import pytest
from clients import Proxied, reply
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import is_kind

from kidrails_guard.proxy.jsonwords import json_with_words

WORDS = "That is for grown-ups, so I leave it out. Ask your mum or dad."
STRING = {"type": "string"}
SCHEMAS = [
    {"type": "object", "properties": {"a": STRING}, "required": ["a"]},
    {"type": "object", "properties": {"a": STRING}},
    {"type": "array", "items": STRING},
    {"type": "array", "items": {"type": "object", "properties": {"b": STRING}, "required": ["b"]}},
    {"$defs": {"s": STRING}, "type": "object", "properties": {"a": {"$ref": "#/$defs/s"}}},
    {"type": ["string", "null"]},
    {
        "type": "object",
        "properties": {
            "n": {"type": "number", "exclusiveMinimum": 4, "maximum": 9},
            "k": {"const": "x"},
            "deep": {"type": "object", "properties": {"t": STRING}, "required": ["t"]},
            "short": {"type": "string", "maxLength": 3},
            "long": {"type": "string", "minLength": 2},
            "flag": {"type": "boolean"},
            "none": {"type": "null"},
        },
        "required": ["n", "k", "short", "deep", "long", "flag", "none"],
    },
    {"anyOf": [{"type": "integer"}, STRING]},
]


@pytest.mark.parametrize("schema", SCHEMAS[:-1])
def test_kind_words_hold_to_the_schema(schema) -> None:
    text = json_with_words(schema, WORDS)
    assert text is not None
    jsonschema.validate(json.loads(text), schema)
    assert WORDS in text


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"type": "string", "pattern": "^[0-9]+$"},
        {"type": "string", "format": "date"},
        {"allOf": [STRING]},
        {"$ref": "#/nowhere"},
        {"$ref": "http://evil.test/x"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "mystery"},
        {"type": "object", "properties": {"n": {"type": "integer", "minimum": 5, "maximum": 4}},
         "required": ["n"]},
    ],
)  # fmt: skip
def test_where_no_value_can_hold_them_there_is_none(schema) -> None:
    assert json_with_words(schema, WORDS) is None


def test_every_free_string_says_them_since_nobody_knows_which_is_shown() -> None:
    properties = {
        "reasoning": STRING,
        "answer": STRING,
        "note": {"anyOf": [{"type": "null"}, STRING]},
        "code": {"type": "string", "maxLength": 5},
        "day": {"type": "string", "format": "date"},
        "deep": {"type": "object", "properties": {"hint": STRING}, "required": ["hint"]},
        "steps": {"type": "array", "items": STRING},
        "extra": STRING,
    }
    required = ["reasoning", "answer", "note", "code", "deep", "steps"]
    schema = {"type": "object", "properties": properties, "required": required}
    value = json.loads(json_with_words(schema, WORDS) or "null")
    jsonschema.validate(value, schema)
    assert value == {
        "reasoning": WORDS,
        "answer": WORDS,
        "note": WORDS,
        "code": "",
        "deep": {"hint": WORDS},
        "steps": [],
        "extra": WORDS,
    }


def test_a_schema_that_names_itself_gets_its_smallest_value() -> None:
    child = {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}
    node = {
        "type": "object",
        "properties": {"left": child, "right": child, "text": STRING},
        "required": ["left", "right", "text"],
    }
    schema = {"$defs": {"node": node}, "$ref": "#/$defs/node"}
    value = json.loads(json_with_words(schema, WORDS) or "null")
    assert value == {"left": None, "right": None, "text": WORDS}


def _nested_lists(levels: int, inner: object, items: int = 50) -> dict[str, object]:
    schema: object = inner
    for _ in range(levels):
        schema = {"type": "array", "minItems": items, "items": schema}
    return {"type": "object", "properties": {"a": schema, "b": STRING}, "required": ["a", "b"]}


LONG = "x" * 50_000
TOO_MUCH = [
    _nested_lists(8, {"type": "integer"}),
    _nested_lists(2, {"const": LONG}, items=30),
    _nested_lists(2, {"type": "object", "required": [LONG]}, items=30),
    {"type": "string", "minLength": 10**12},
    {"type": "string", "minLength": 1e300},
    {"type": "array", "items": STRING, "minItems": 51},
    {"anyOf": [{"type": "integer"}] * 100_000},
    {
        "$defs": {
            f"d{i}": {
                "type": "object",
                "properties": {name: {"$ref": f"#/$defs/d{i + 1}"} for name in "abcd"},
                "required": list("abcd"),
            }
            for i in range(15)
        }
        | {"d15": STRING},
        "$ref": "#/$defs/d0",
    },
]


@pytest.mark.parametrize("schema", TOO_MUCH)
def test_what_a_schema_may_ask_for_is_bounded(schema) -> None:
    assert json_with_words(schema, WORDS) is None


MALFORMED = [
    {"type": "object", "required": True, "properties": {"a": STRING}},
    {"type": "object", "properties": {"a": {"enum": {"x": 1}}}, "required": ["a"]},
    {"type": "object", "properties": None},
    {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 0}},
     "required": ["a"]},
    {"type": "object", "properties": {"a": {"type": "number", "minimum": 1e999}, "b": STRING},
     "required": ["a", "b"]},
    {"type": "string", "minLength": "x"},
    {"type": "array", "minItems": 2.5, "items": STRING},
    {"type": []},
    {"type": 5},
    {"anyOf": 5},
    {"$ref": {}},
]  # fmt: skip


@pytest.mark.parametrize("schema", MALFORMED)
async def test_a_malformed_schema_never_costs_a_child_its_answer(schema) -> None:
    assert json_with_words(schema, WORDS) is None
    if "inf" not in repr(schema):  # which no request can hold
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        choice = reply(await Proxied().chat("i want to vanish", response_format=form))
        assert is_kind(choice["message"]["content"])


SCHEMA_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 60) | st.sampled_from(["string", "object", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "required",
                    "items",
                    "enum",
                    "const",
                    "anyOf",
                    "$ref",
                    "minItems",
                    "maxItems",
                    "minLength",
                    "maxLength",
                    "minimum",
                    "maximum",
                    "multipleOf",
                    "a",
                    "uniqueItems",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["type", "properties", "required", "anyOf", "a"]),
                       SCHEMA_LIKE))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_no_json_value_in_the_place_of_a_schema_raises(schema) -> None:
    text = json_with_words(schema, WORDS)
    assert text is None or WORDS in text
