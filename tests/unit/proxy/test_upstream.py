"""Whatever a model server does, the caller gets an answer that is ours."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from clients import Proxied, Stream, problem, reply
from planted import INTERRUPTED, Planted, planted_guard
from upstreams import CALM, completion, event, stream_of

from kidrails_guard.proxy import litellm_upstream
from kidrails_guard.proxy.settings import Settings
from kidrails_guard.proxy.upstream import HttpUpstream

SECRET = "zorblat-secret"


def answering(status: int = 200, body: object = b"", **headers: str) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.Response(status, content=data, headers=headers)

    return httpx.MockTransport(answer)


ERROR = {"error": {"message": SECRET, "code": SECRET}}
LONG = {"error": {"message": SECRET, "code": "context_length_exceeded"}}
LONG_ALIKE = [
    # vLLM, in two versions; llama-server; SGLang; Ollama.
    {"error": {"code": 400, "type": "BadRequestError", "message": f"{SECRET}: This model's maximum "
               "context length is 2048 tokens. However, you requested 9000 tokens"}},
    {"object": "error", "code": 400, "message": f"The decoder prompt (length 9000) is longer than "
     f"the maximum model length of 2048. {SECRET}"},
    {"error": {"code": 400, "type": "exceed_context_size_error", "message": SECRET}},
    {"object": "error", "message": f"{SECRET} is longer than the model's context length (2048)"},
    {"error": f"{SECRET}: input exceeds the context window"},
]  # fmt: skip
HTML = b"<html><title>zorblat-secret</title></html>"
REFUSED = [
    (answering(400, ERROR), 400, "upstream_rejected_request"),
    (answering(400, LONG), 400, "context_length_exceeded"),
    *((answering(400, body), 400, "context_length_exceeded") for body in LONG_ALIKE),
    (answering(404, ERROR), 404, "model_not_found"),
    (answering(404, HTML), 404, "model_not_found"),
    (answering(401, ERROR), 502, "upstream_refused"),
    (answering(403, ERROR), 502, "upstream_refused"),
    (answering(402, ERROR), 502, "upstream_refused"),
    (answering(408, ERROR), 504, "upstream_timeout"),
    (answering(422, ["odd"]), 400, "upstream_rejected_request"),
    (answering(429, ERROR, **{"retry-after": "9"}), 429, "rate_limit_exceeded"),
    (answering(500, ERROR), 502, "upstream_error"),
    (answering(503, HTML), 502, "upstream_error"),
    (answering(302, b"", location="http://evil.test/"), 502, "upstream_invalid_response"),
    (answering(307, b"", location="http://evil.test/"), 502, "upstream_invalid_response"),
    (answering(204), 502, "upstream_error"),
]
GARBAGE = [
    answering(200, HTML),
    answering(200, b""),
    answering(200, b"[1]"),
    answering(200, b'{"choices": ['),
    answering(200, b"\xff\xfe"),
    answering(200, b"[" * 100_000),
    answering(200, ERROR),
    answering(200, {"choices": []}),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("transport", "status", "code"), REFUSED)
async def test_an_upstreams_error_becomes_ours(transport, status, code, stream) -> None:
    proxy = Proxied(transport)
    response = await proxy.chat("hello", stream=stream)
    assert response.status_code == status
    assert problem(response)["code"] == code
    assert SECRET not in response.text
    assert "evil" not in response.text
    if status == 429:
        assert response.headers["retry-after"] == "9"


@pytest.mark.parametrize("transport", GARBAGE)
async def test_garbage_is_a_bad_gateway(transport) -> None:
    response = await Proxied(transport).chat("hello")
    assert response.status_code == 502
    assert SECRET not in response.text
    assert problem(response)["type"] == "api_error"


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
async def test_a_stream_that_is_none_ends_kindly(kind: str) -> None:
    transport = answering(200, HTML, **{"content-type": kind})
    streamed = await Proxied(transport).stream("hello")
    assert streamed.text() in INTERRUPTED
    assert streamed.finish() == "length"


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: {broken\n\n",
        b"data: [1]\n\n",
        b"data: \xff\xfe\n\n",
        b'data: {"error": {"message": "zorblat-secret"}}\n\n',
        b"data: " + b"x" * 5_000_000,
    ],
)
async def test_garbage_in_a_stream_ends_it_kindly(garbage: bytes) -> None:
    body = b"".join(event(part) for part in stream_of([CALM, " Well."], None)) + garbage
    proxy = Proxied(answering(200, body, **{"content-type": "text/event-stream"}))
    streamed = await proxy.stream("hello")
    assert streamed.text().startswith("Wolves howl to talk with their pack. ")
    assert streamed.text().endswith(INTERRUPTED)
    assert SECRET not in streamed.response.text
    assert streamed.finish() == "length"
    assert proxy.ledger.failures[0].startswith("upstream_")


class Given(httpx.AsyncByteStream):
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def __aiter__(self):
        yield self.data


async def test_a_compressed_answer_that_nobody_asked_for_is_refused() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        body = json.dumps(completion(CALM)).encode()
        return httpx.Response(200, stream=Given(body), headers={"content-encoding": "br"})

    assert (await Proxied(httpx.MockTransport(answer)).chat("hello")).status_code == 502


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (httpx.ConnectError, 503, "upstream_unreachable"),
        (httpx.ConnectTimeout, 503, "upstream_unreachable"),
        (httpx.PoolTimeout, 503, "upstream_unreachable"),
        (httpx.ReadTimeout, 504, "upstream_timeout"),
        (httpx.RemoteProtocolError, 503, "upstream_unreachable"),
        (httpx.UnsupportedProtocol, 503, "upstream_unreachable"),
    ],
)
async def test_a_server_that_does_not_answer(error, status, code) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error(SECRET)

    response = await Proxied(httpx.MockTransport(fail)).chat("hello")
    assert response.status_code == status
    assert problem(response)["code"] == code
    assert SECRET not in response.text


async def test_a_kept_connection_that_was_closed_meanwhile_is_tried_once_more() -> None:
    calls = 0

    def once(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return httpx.Response(200, json=completion(CALM))

    assert (await Proxied(httpx.MockTransport(once)).chat("hello")).status_code == 200
    assert calls == 2


async def test_redirects_are_not_followed_and_no_cookie_is_kept() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if len(seen) == 1:
            return httpx.Response(200, json=completion(CALM), headers={"set-cookie": "a=b"})
        return httpx.Response(302, headers={"location": "http://evil.test/"})

    proxy = Proxied(httpx.MockTransport(answer))
    await proxy.chat("hello")
    await proxy.chat("hello")
    assert len(seen) == 2
    assert {str(request.url) for request in seen} == {"http://upstream.test/v1/chat/completions"}
    assert "cookie" not in seen[1].headers


async def test_ready_means_that_the_server_lists_its_models_or_never_does() -> None:
    async def ready(transport: httpx.AsyncBaseTransport) -> bool:
        return await HttpUpstream(Settings("http://u.test"), transport=transport).ready()

    assert await ready(answering(200, {"data": []}))
    assert await ready(answering(404, b""))
    assert await ready(answering(401, b""))
    assert not await ready(answering(500, b""))
    assert not await ready(answering(200, HTML))

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    assert not await ready(httpx.MockTransport(fail))


class Slow(httpx.AsyncByteStream):
    def __init__(self, *parts: bytes) -> None:
        self.parts, self.closed = parts, False

    async def __aiter__(self):
        for part in self.parts:
            yield part
        await asyncio.sleep(60)

    async def aclose(self) -> None:
        self.closed = True


def test_a_provider_that_is_told_too_much_says_so_through_litellm() -> None:
    told = type("ContextWindowExceededError", (Exception,), {"status_code": 400})
    assert litellm_upstream._problem(told(SECRET)).code == "context_length_exceeded"


async def test_an_answer_that_takes_too_long_is_given_up() -> None:
    body = Slow(*(event(part) for part in stream_of([CALM, " And then"], None)))

    def answer(request: httpx.Request) -> httpx.Response:
        kind = "text/event-stream" if b'"stream":true' in request.content else "application/json"
        return httpx.Response(200, stream=body, headers={"content-type": kind})

    proxy = Proxied(httpx.MockTransport(answer), settings={"answer_timeout_s": 0.1})
    streamed = await proxy.stream("hello")
    assert streamed.text().endswith(INTERRUPTED)
    assert body.closed
    response = await proxy.chat("hello")
    assert response.status_code == 504


async def test_an_answers_time_ends_no_stream_that_waits_for_its_checks() -> None:
    # More units than may wait: the reader pauses, and the answer's time is over meanwhile.
    pieces = [
        f"Wolves run {number} times around the wood and over the hills, and then they "
        "rest in the shade until the night comes. "
        for number in range(80)
    ]
    body = b"".join(event(part) for part in stream_of(pieces)) + b"data: [DONE]\n\n"
    proxy = Proxied(
        answering(200, body, **{"content-type": "text/event-stream"}),
        guard=planted_guard(Planted(lambda: 0.01)),
        settings={"answer_timeout_s": 0.2},
    )
    async with asyncio.timeout(60):
        streamed = await proxy.stream("hello")
    assert streamed.text() == "".join(pieces)
    assert streamed.finish() == "stop"


async def test_a_stream_without_its_done_line_is_whole_when_it_said_why_it_ended() -> None:
    body = b"".join(event(part) for part in stream_of([CALM]))
    for ending in (b"", b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\n\n"):
        proxy = Proxied(answering(200, body + ending, **{"content-type": "text/event-stream"}))
        streamed = await proxy.stream("hello")
        assert streamed.text() == CALM
        assert streamed.finish() == "stop"


async def test_an_empty_answer_is_an_answer() -> None:
    choice = reply(await Proxied(answering(200, completion(""))).chat("hello"))
    assert choice["message"]["content"] == ""
    body = b"".join(event(part) for part in stream_of([]))
    response = await Proxied(answering(200, body)).chat("hello", stream=True)
    assert Stream.read(response).text() == ""
