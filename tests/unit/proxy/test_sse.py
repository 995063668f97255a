"""Events are read from bytes cut anywhere, and text inside JSON as a program reads it."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import planted_guard

from kidrails_guard.errors import UpstreamError
from kidrails_guard.proxy.jsontext import checked_text, judge_json
from kidrails_guard.proxy.sse import EventReader, write_event
from kidrails_guard.types import NO_TURNS, AgeBand

BODY = (
    ": hello\n\n"
    'data: {"a": "ü😀"}\n\n'
    "event: x\r\nid: 5\r\ndata:one\r\ndata: two\r\n\r\n"
    "data\r\r"
    "retry: 5\n\n"
    "data: [DONE]\n\n"
).encode()
EVENTS = ['{"a": "ü😀"}'.encode(), b"one\ntwo", b"", b"[DONE]"]


def read(*parts: bytes) -> list[bytes]:
    reader = EventReader()
    return [data for part in parts for data in reader.feed(part)] + list(reader.finish())


def test_events_are_the_same_wherever_the_bytes_are_cut() -> None:
    assert read(BODY) == EVENTS
    assert read(*(BODY[i : i + 1] for i in range(len(BODY)))) == EVENTS
    for cut in range(len(BODY)):
        assert read(BODY[:cut], BODY[cut:]) == EVENTS


@given(st.lists(st.integers(0, len(BODY)), max_size=8))
def test_events_are_the_same_with_many_cuts(places: list[int]) -> None:
    cuts = [0, *sorted(places), len(BODY)]
    assert read(*(BODY[a:b] for a, b in itertools.pairwise(cuts))) == EVENTS


def test_half_an_event_at_the_end_does_not_count() -> None:
    assert read(b'data: {"a": 1') == []
    assert read(b'data: {"a": 1}\n') == [b'{"a": 1}']
    assert read(b"\xef\xbb\xbfdata: x\n\n") == [b"x"]


def test_an_event_without_end_is_an_error() -> None:
    with pytest.raises(UpstreamError):
        read(*[b"data: " + b"x" * 100_000] * 100)


def test_written_events_can_be_read() -> None:
    value = {"text": "a\n\nb\r\n ü \u2028"}
    (data,) = read(write_event(value, name="response.x"))
    assert json.loads(data) == value


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ('{"a": "b\\u0063", "d": ["e", 5, null, {"f": true}]}', "a\nbc\nd\ne\nf"),
        ('"just text"', "just text"),
        ('{"a": "\\ud83d\\ude00"}', "a\n😀"),
        ('{"broken": "\\u0061\\n', '{"broken": "a\n'),
        ("5", ""),
        ("", ""),
    ],
)
def test_checked_text_is_what_a_program_will_read(raw: str, text: str) -> None:
    assert checked_text(raw) == text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner),
    max_leaves=8,
)


@given(VALUES, st.booleans())
@settings(max_examples=200, deadline=None)
async def test_json_without_findings_comes_back_as_it_was(value, ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only)
    judged = await judge_json(planted_guard(), raw, NO_TURNS, band=AgeBand.EARLY, strict=False)
    assert judged.text == raw


@given(VALUES)
@settings(max_examples=100, deadline=None)
async def test_masking_changes_nothing_but_the_masked(value) -> None:
    raw = json.dumps({"x": [value, "call 555-123-4567 now"], "555-765-4321": value})
    judged = await judge_json(planted_guard(), raw, NO_TURNS, band=AgeBand.EARLY, strict=False)
    found = json.loads(judged.text)
    assert found == {"x": [value, "call [phone number] now"], "[phone number]": value}
