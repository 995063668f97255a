"""The page's client of the guard proxy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidrails_guard.errors import UpstreamError
from kidrails_guard.page.chat import Ended, Piece, ProxyChat, once, plain, whole_sentences
from kidrails_guard.types import AgeBand, Message

MODELS = {"object": "list", "data": [{"id": "small", "object": "model"}]}


class Events(httpx.AsyncByteStream):
    def __init__(self, *lines: str, fails: bool = False) -> None:
        self.lines, self.fails = lines, fails

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for line in self.lines:
            yield f"{line}\n\n".encode()
        if self.fails:
            raise httpx.ReadError("cut")


def delta(text: str | None, reason: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": reason}
    return "data: " + json.dumps({"choices": [choice]})


def chat_of(
    stream: httpx.AsyncByteStream | None = None,
    *,
    status: int = 200,
    seen: list[httpx.Request] | None = None,
    models: object = MODELS,
) -> ProxyChat:
    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        if request.url.path.endswith("/models"):
            return httpx.Response(200, json=models)
        headers = {"content-type": "text/event-stream", "x-kidrails-action": "redirect"}
        return httpx.Response(status, headers=headers, stream=stream)

    return ProxyChat(
        "http://guard.test/v1/",
        keys={AgeBand.MIDDLE: "kr_1"},
        transport=httpx.MockTransport(answer),
    )


async def collect(chat: ProxyChat, turns: int = 1) -> list[Piece | Ended]:
    said = [Message("user", f"why {n}?") for n in range(turns)]
    return [
        event async for event in chat.stream(said, band=AgeBand.MIDDLE, session="s", max_tokens=50)
    ]


async def test_pieces_arrive_as_they_come_and_the_end_says_how() -> None:
    seen: list[httpx.Request] = []
    stream = Events(
        ": heartbeat",
        delta("Wolves "),
        delta("howl."),
        delta(None, "content_filter"),
        'data: {"choices": [], "usage": {"total_tokens": 3}}',
        "data: [DONE]",
    )
    events = await collect(chat_of(stream, seen=seen), turns=30)
    assert events == [Piece("Wolves "), Piece("howl."), Ended("content_filter", "redirect")]
    body = json.loads(seen[-1].content)
    assert body["stream"] is True
    assert body["model"] == "small"
    assert len(body["messages"]) == 11  # an odd number, so that a talk begins with a question
    assert body["messages"][-1] == {"role": "user", "content": "why 29?"}
    assert seen[-1].headers["authorization"] == "Bearer kr_1"
    assert seen[-1].headers["x-kidrails-session"] == "s"


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (Events(), 503),
        (Events("data: <html>"), 200),
        (Events('data: {"error": {"message": "Wolves"}}'), 200),
        (Events('data: {"choices": 5}'), 200),
        (Events('data: "text"'), 200),
        (Events(delta("Wolves "), fails=True), 200),
    ],
    ids=["status", "no-json", "error", "odd", "string", "cut"],
)
async def test_what_goes_wrong_is_one_error_without_anybodys_words(
    stream: Events, status: int
) -> None:
    with pytest.raises(UpstreamError) as caught:
        await collect(chat_of(stream, status=status))
    assert "guard.test" in str(caught.value)
    assert "olves" not in str(caught.value)
    assert "why" not in str(caught.value)


@pytest.mark.parametrize("models", [{"data": []}, {}, [], "x"])
async def test_a_proxy_without_models_is_an_error(models: object) -> None:
    with pytest.raises(UpstreamError):
        await collect(chat_of(Events(), models=models))


async def test_the_model_is_asked_for_again_after_a_failure() -> None:
    seen: list[httpx.Request] = []
    chat = chat_of(Events("data: {"), seen=seen)
    for _ in range(2):
        with pytest.raises(UpstreamError):
            await collect(chat)
    assert [r.url.path for r in seen].count("/v1/models") == 2


async def test_ready_follows_the_proxy() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/ready"
        return httpx.Response(503 if down else 200)

    chat = ProxyChat("http://guard.test/v1", transport=httpx.MockTransport(answer))
    down = False
    assert await chat.ready()
    down = True
    assert not await chat.ready()


def test_repr_shows_no_words() -> None:
    assert "Wolves" not in repr(Piece("Wolves"))


@pytest.mark.parametrize(
    ("markdown", "words"),
    [
        ("**Wolves** howl.", "Wolves howl."),
        ("# Title\nText", "Title\nText"),
        ("* one\n* two", "• one\n• two"),
        ("2 * 3 * 4 = 24", "2 * 3 * 4 = 24"),
        ("a_b_c and 5*3", "a_b_c and 5*3"),
        ("*really* `big`", "really big"),
        ("[a link](http://evil.example/?q=1)", "a link"),
        ("![a picture](http://evil.example/p.png)", "a picture"),
        ("plain", "plain"),
    ],
)
def test_markdown_becomes_plain_words(markdown: str, words: str) -> None:
    assert plain(markdown) == words


@given(st.text(max_size=200))
def test_plain_never_fails_and_never_grows(text: str) -> None:
    assert len(plain(text)) <= len(text)


@given(st.text(alphabet='ab .!?\n”"', max_size=80))
def test_whole_sentences_is_a_beginning_of_the_text(text: str) -> None:
    assert text.startswith(whole_sentences(text))


def test_a_cut_answer_ends_with_a_sentence() -> None:
    assert whole_sentences("It is 3.5 m long. And it") == "It is 3.5 m long."
    assert whole_sentences("no end at all") == "no end at all"


@given(st.text(alphabet="abc .!?", max_size=120))
def test_once_is_a_beginning_of_the_text_and_stable(text: str) -> None:
    assert text.startswith(once(text))
    assert once(once(text)) == once(text)


def test_short_sentences_may_come_twice() -> None:
    assert once("Yes! It is. Yes! It is.") == "Yes! It is. Yes! It is."
