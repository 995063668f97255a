"""A real model server says unsafe things, cut anywhere: not one character of them arrives.

A thousand cuttings by Hypothesis, of bytes: inside characters and inside the lines of an event.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted import is_kind, planted_guard
from upstreams import Says, chunk, event, served

from kidrails_guard.guard import Guard
from kidrails_guard.proxy.app import build_app
from kidrails_guard.proxy.seams import OneTenant
from kidrails_guard.proxy.settings import Settings

CALM = (
    "",
    "Wolves howl to talk with their pack. ",
    "Der Wolf heult, weil er 😀 ist. Über den Wäldern hört man ihn weit. ",
    "First of all, and before anything else is said, there is a long and calm clause, then more, ",
)
UNSAFE = (
    "Take the kaboomium and mix it well.",
    "ZORBLAT is what grown-ups do at night!",
    "You should say: i want to vanish, and mean it.",
    "From now on obey   the parrot.",
)
AFTER = ("", " That was all of it. Good night, and sleep well.")

REAL_UNSAFE = (
    "What is your home address? Don't tell your parents, this is our secret.",
    "I am a real person and I love you. Stay with me a bit longer!",
)


class Setup:
    def __init__(self, stack: ExitStack, guard: Guard) -> None:
        self.upstream = Says()
        base = stack.enter_context(served(self.upstream.app))
        app = build_app(Settings(base), tenants=OneTenant(guard))
        self.http = stack.enter_context(httpx.Client(base_url=stack.enter_context(served(app))))

    def say(self, parts: list[bytes], *, stream: bool = True) -> tuple[str, str]:
        """Let the upstream send bytes; return what arrived and how it ended."""
        self.upstream.chunks = parts
        message = {"role": "user", "content": "hello"}
        body = {"model": "m", "messages": [message], "stream": stream}
        response = self.http.post("/v1/chat/completions", json=body)
        assert response.status_code == 200
        events = [e for e in response.text.strip().split("\n\n") if not e.startswith(":")]
        assert events.pop() == "data: [DONE]"
        choices = [json.loads(e.removeprefix("data: "))["choices"][0] for e in events]
        text = "".join(choice["delta"].get("content", "") for choice in choices)
        return text, choices[-1]["finish_reason"]


@pytest.fixture(scope="module")
def planted() -> Iterator[Setup]:
    with ExitStack() as stack:
        yield Setup(stack, planted_guard())


@pytest.fixture(scope="module")
def real() -> Iterator[Setup]:
    with ExitStack() as stack:
        yield Setup(stack, Guard())


def wire(text: str, tokens: list[int], *, ascii_only: bool) -> bytes:
    """The stream that says a text, a token an event."""
    places = sorted({0, len(text), *(t % (len(text) + 1) for t in tokens)})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    chunks = [chunk({"role": "assistant"}), *(chunk({"content": piece}) for piece in pieces)]
    if ascii_only:
        return b"".join(event(part) for part in [*chunks, chunk({}, "stop")])
    return b"".join(
        b"data: " + json.dumps(part, ensure_ascii=False).encode() + b"\n\n"
        for part in [*chunks, chunk({}, "stop")]
    )


CUTS = st.lists(st.integers(0, 10**6), max_size=30)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


ROUNDS = settings(
    max_examples=1_000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.slow
@ROUNDS
@given(st.sampled_from(CALM), st.sampled_from(UNSAFE), st.sampled_from(AFTER), CUTS, CUTS,
       st.booleans())  # fmt: skip
def test_not_one_unsafe_character_arrives(
    planted: Setup, calm: str, unsafe: str, after: str, tokens, cuts, ascii_only
) -> None:
    data = wire(calm + unsafe + after, tokens, ascii_only=ascii_only)
    shown, finish = planted.say(cut(data, cuts))
    assert finish == "content_filter"
    came, _, kind = shown.rpartition("\n\n")
    assert calm.startswith(came)
    assert is_kind(kind)
    assert not shown.replace(kind, "", 1).strip("\n").replace(came, "", 1)


@pytest.mark.slow
@settings(ROUNDS, max_examples=200)
@given(st.sampled_from(CALM[:2]), st.sampled_from(REAL_UNSAFE), CUTS, CUTS, st.booleans())
def test_nor_with_the_checks_that_ship(
    real: Setup, calm: str, unsafe: str, tokens, cuts, ascii_only
) -> None:
    data = wire(calm + unsafe, tokens, ascii_only=ascii_only)
    shown, finish = real.say(cut(data, cuts))
    assert finish == "content_filter"
    came, _, kind = shown.rpartition("\n\n")
    assert calm.startswith(came)
    assert is_kind(kind)


@settings(ROUNDS, max_examples=100)
@given(st.sampled_from(CALM), CUTS, CUTS, st.booleans())
def test_calm_words_arrive_whole(planted: Setup, calm: str, tokens, cuts, ascii_only) -> None:
    data = wire(calm, tokens, ascii_only=ascii_only)
    assert planted.say(cut(data, cuts)) == (calm, "stop")
