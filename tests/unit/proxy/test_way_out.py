"""A reply leaves only after its check, whole or streamed, in whatever form it came."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import httpx
import pytest
from clients import Proxied, Scripted, problem, reply
from planted import INTERRUPTED, Planted, is_kind, planted_guard
from upstreams import CALM, USAGE, Says, chunk, completion, stream_of

from kidrails_guard.proxy.chat import chat_call
from kidrails_guard.proxy.exchange import Caller, Exchange
from kidrails_guard.proxy.problems import UpstreamProblem
from kidrails_guard.proxy.seams import OneTenant
from kidrails_guard.proxy.wire import ChatWriter
from kidrails_guard.types import Action, AgeBand

BAD = CALM + " Now take the kaboomium and go. Good night."


async def test_the_same_text_streamed_and_whole_gets_the_same_verdict() -> None:
    for text in (CALM, BAD, CALM + " Call 555-123-4567."):
        proxy = Proxied(Says(*text))
        await proxy.chat("hello")
        await proxy.stream("hello")
        whole, streamed = proxy.ledger.events[1], proxy.ledger.events[3]
        for name in ("action", "findings", "hazard", "failed"):
            assert getattr(whole.verdict, name) == getattr(streamed.verdict, name)
        assert whole.text == streamed.text or streamed.withheld_characters


async def test_of_a_whole_unsafe_reply_nothing_leaves() -> None:
    proxy = Proxied(Says(BAD))
    response = await proxy.chat("hello")
    choice = reply(response)
    assert choice["finish_reason"] == "content_filter"
    assert "Wolves" not in response.text
    assert response.headers["x-kidrails-answered"] == "output"
    assert response.headers["x-kidrails-action"] == "refuse"
    assert response.json()["usage"]["kidrails_withheld_characters"] == len(BAD)


async def test_a_streamed_reply_goes_on_kindly_where_it_was_stopped() -> None:
    upstream = Says(*BAD)
    proxy = Proxied(upstream)
    streamed = await proxy.stream("hello", stream_options={"include_usage": True})
    calm, _, kind = streamed.text().partition("\n\n")
    assert calm == CALM + " "
    assert is_kind(kind)
    assert streamed.finish() == "content_filter"
    assert streamed.usage
    assert streamed.usage["kidrails_withheld_characters"] > 20
    event = proxy.ledger.events[1]
    assert event.streamed
    assert event.withheld_characters == len(event.text) - len(CALM + " ")
    assert proxy.ledger.open_streams == 0


async def test_the_upstream_is_closed_at_once_and_counts_are_estimated() -> None:
    said = 0

    async def endless():
        nonlocal said
        for part in stream_of([CALM + " "], None):
            yield part
        while True:
            said += 1
            yield chunk({"content": "Take a kaboomium now. "})
            await asyncio.sleep(0)

    upstream = Scripted(endless)
    proxy = Proxied(upstream)
    streamed = await proxy.stream("hello", stream_options={"include_usage": True})
    assert streamed.finish() == "content_filter"
    assert upstream.closed == 1
    assert said < 100
    assert streamed.usage
    assert streamed.usage["completion_tokens"] == said + 1


async def test_several_replies_are_judged_each_for_itself() -> None:
    async def two():
        for piece in (
            "A calm and quiet sentence here. ",
            "zorblat and so on. ",
            "And more words. ",
        ):
            yield chunk({"content": piece}, index=0)
            yield chunk({"content": piece.replace("zorblat", "bread")}, index=1)
        yield chunk({}, "stop", index=0)
        yield chunk({}, "stop", index=1)

    streamed = await Proxied(Scripted(two)).stream("hello", n=2)
    assert streamed.finish(0) == "content_filter"
    assert streamed.finish(1) == "stop"
    assert "bread" in streamed.text(1)
    assert "And more words" in streamed.text(1)
    assert "zorblat" not in streamed.text(0)

    choices = [
        {"index": 1, "message": {"content": "fine words"}, "finish_reason": "stop"},
        {"index": 0, "message": {"content": "a zorblat"}, "finish_reason": "stop"},
    ]
    proxy = Proxied(Scripted(answer={"choices": choices}))
    first, second = (await proxy.chat("hello", n=2)).json()["choices"]
    assert (first["index"], first["finish_reason"]) == (0, "content_filter")
    assert (second["index"], second["message"]["content"]) == (1, "fine words")
    assert proxy.asked["n"] == 2


def tool_chunks(arguments: str, name: str = "look"):
    function = {"name": name, "arguments": ""}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    yield chunk({"role": "assistant", "content": None, "tool_calls": [call]})
    for letter in arguments:
        yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": letter}}]})
    yield chunk({}, "tool_calls")


TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize(
    ("arguments", "leaves"),
    [
        ('{"q": "wolves"}', '{"q": "wolves"}'),
        ('{"q": "zorblat"}', None),
        ('{"q": "\\u007aorblat"}', None),
        ('{"zorblat": 1}', None),
        ('{"q": "555-123-4567"}', '{"q": "[phone number]"}'),
        ('{"q": "zorblat", "q": "wolves"}', '{"q": "wolves"}'),
        ('{"q": "\\u007aorblat', None),
    ],
)
async def test_arguments_of_tool_calls_are_checked_text(arguments: str, leaves: str | None) -> None:
    proxy = Proxied(Scripted(list(tool_chunks(arguments))))
    streamed = await proxy.stream("hello", tools=TOOLS)
    calls = [
        call
        for part in streamed.chunks
        for choice in part["choices"]
        for call in choice["delta"].get("tool_calls", [])
    ]
    message = {"tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": arguments}}
    ]}  # fmt: skip
    answer = completion(None, message=message, finish="tool_calls")
    whole = reply(await Proxied(Scripted(answer=answer)).chat("hello", tools=TOOLS))
    if leaves is None:
        assert calls == []
        assert streamed.finish() == whole["finish_reason"] == "content_filter"
        assert is_kind(streamed.text())
        assert "tool_calls" not in whole["message"]
    else:
        assert streamed.finish() == whole["finish_reason"] == "tool_calls"
        assert [call["function"]["arguments"] for call in calls] == [leaves]
        assert calls[0]["id"] == "call_1"
        assert whole["message"]["tool_calls"][0]["function"]["arguments"] == leaves
        assert whole["message"]["content"] is None


async def test_a_tool_that_nobody_offered_is_dropped() -> None:
    for name in ("unknown", "take a zorblat"):
        streamed = await Proxied(Scripted(list(tool_chunks("{}", name)))).stream(
            "hello", tools=TOOLS
        )
        assert name not in streamed.response.text
        assert streamed.finish() == "stop"


SCHEMA = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "count": {"type": "integer", "minimum": 3},
        "kind": {"enum": ["a", "b"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {"anyOf": [{"type": "null"}, {"type": "string"}]},
    },
    "required": ["answer", "count", "kind", "tags", "more"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", [FORMAT, {"type": "json_object"}])
async def test_structured_output_stays_json_when_something_is_held_back(form, stream) -> None:
    good = json.dumps({"answer": "Wolves howl.", "count": 3})
    bad = good.replace("howl", "take \\u006baboomium")
    masked = good.replace("howl", "call 555-123-4567")
    for raw, said in ((good, "hello"), (bad, "hello"), (masked, "hello"), (good, "a zorblat")):
        proxy = Proxied(Says(*raw))
        if stream:
            streamed = await proxy.stream(said, response_format=form)
            text, finish = streamed.text(), streamed.finish()
        else:
            choice = reply(await proxy.chat(said, response_format=form))
            text, finish = choice["message"]["content"], choice["finish_reason"]
        value = json.loads(text)
        if raw is good and said == "hello":
            assert text == good
            assert finish == "stop"
            assert proxy.asked["response_format"] == form
        elif raw is masked:
            assert value["answer"] == "Wolves call [phone number]."
        else:
            assert finish == "content_filter"
            words = value["answer"] if form is FORMAT else value["message"]
            assert is_kind(words)
            if form is FORMAT:
                import jsonschema

                jsonschema.validate(value, SCHEMA)


async def test_where_no_json_can_say_it_kind_words_do() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    choice = reply(await Proxied(Says("{}")).chat("a zorblat", response_format=form))
    assert is_kind(choice["message"]["content"])
    assert choice["finish_reason"] == "content_filter"


async def test_broken_json_is_checked_with_its_escapes_undone() -> None:
    form = {"type": "json_object"}
    choice = reply(await Proxied(Says('{"a": "\\u007aorblat')).chat("hi", response_format=form))
    assert choice["finish_reason"] == "content_filter"
    choice = reply(await Proxied(Says('{"a": "bread')).chat("hi", response_format=form))
    assert choice["message"]["content"] == '{"a": "bread'


async def test_only_checked_things_leave() -> None:
    """Whatever an upstream adds, in any place, does not get through."""
    secret = "zorblat"
    message = {
        "content": CALM,
        "reasoning_content": secret,
        "reasoning": secret,
        "annotations": [{"url": secret}],
        "audio": {"transcript": secret},
        "name": secret,
    }
    answer = completion(
        None,
        message=message,
        id=secret,
        model=secret,
        system_fingerprint=secret,
        service_tier=secret,
        warning=secret,
        choice={"logprobs": {"content": [{"token": secret, "logprob": -1.0}]}, "extra": secret},
    )
    answer["usage"]["note"] = secret
    answer["usage"]["prompt_tokens_details"] = {"cached_tokens": 3, secret: 1, "text": secret}
    response = await Proxied(Scripted(answer=answer)).chat("hello", logprobs=True)
    assert reply(response)["message"]["content"] == CALM
    assert secret not in response.text
    assert response.json()["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}

    chunks = stream_of([CALM])
    for part in chunks:
        part |= {"id": secret, "model": secret, "note": secret}
        for choice in part["choices"]:
            choice["delta"] |= {"reasoning_content": secret, "role": secret}
            choice["note"] = secret
            choice["logprobs"] = {"content": [{"token": secret, "logprob": -1.0}]}
    streamed = await Proxied(Scripted(chunks)).stream("hello", logprobs=True)
    assert streamed.text() == CALM
    assert secret not in streamed.response.text


def tokens(text: str):
    said = [{"token": t, "logprob": -0.5, "bytes": [1], "top_logprobs": [{"token": "zorblat"}]}
            for t in (text[:3], text[3:])]  # fmt: skip
    return {"content": said}


async def test_logprobs_leave_with_their_words_and_without_alternatives() -> None:
    parts = ["Wolves howl to talk. ", "They run in the night and sleep all day long. ", "Yes."]
    chunks = [chunk({"content": part}, logprobs=tokens(part)) for part in parts]
    chunks += [chunk({}, "stop")]
    proxy = Proxied(Scripted(chunks))
    streamed = await proxy.stream("hello", logprobs=True, top_logprobs=3)
    entries = [
        entry
        for part in streamed.chunks
        for choice in part["choices"]
        for entry in (choice["logprobs"] or {"content": []})["content"]
    ]
    assert "".join(entry["token"] for entry in entries) == streamed.text() == "".join(parts)
    assert all(entry["top_logprobs"] == [] for entry in entries)
    assert entries[0]["bytes"] == [87, 111, 108]
    assert "zorblat" not in streamed.response.text
    assert proxy.asked["logprobs"] is True
    assert "top_logprobs" not in proxy.asked

    text = "Call them on 555-123-4567 now."
    answer = completion(text, choice={"logprobs": tokens(text)})
    choice = reply(await Proxied(Scripted(answer=answer)).chat("hi", logprobs=True))
    assert choice["logprobs"] is None
    answer = completion(CALM, choice={"logprobs": tokens(CALM)})
    choice = reply(await Proxied(Scripted(answer=answer)).chat("hi", logprobs=True))
    assert "".join(e["token"] for e in choice["logprobs"]["content"]) == CALM


async def test_usage_only_where_it_was_asked_for() -> None:
    upstream = Says()
    proxy = Proxied(upstream)
    assert (await proxy.stream("hello")).usage is None
    assert "stream_options" not in proxy.asked
    streamed = await proxy.stream("hello", stream_options={"include_usage": True})
    assert streamed.usage == USAGE["usage"]
    assert all(part["usage"] is None for part in streamed.chunks[:-1])


async def test_the_models_own_refusal_is_checked_and_shown() -> None:
    for text, finish in (("I'd rather not.", "stop"), ("No zorblat for you", "content_filter")):
        answer = completion(None, message={"refusal": text})
        choice = reply(await Proxied(Scripted(answer=answer)).chat("hi"))
        assert (choice["message"]["content"] == text) == (finish == "stop")
        assert choice["finish_reason"] == finish
        streamed = await Proxied(
            Scripted(
                [chunk({"refusal": text[:4]}), chunk({"refusal": text[4:]}), chunk({}, "stop")]
            )
        ).stream("hi")
        assert streamed.finish() == finish
        assert (streamed.text() == text) == (finish == "stop")


async def test_an_upstreams_own_filter_still_gets_the_child_kind_words() -> None:
    answer = completion("", finish="content_filter")
    choice = reply(await Proxied(Scripted(answer=answer)).chat("hi"))
    assert choice["finish_reason"] == "content_filter"
    assert is_kind(choice["message"]["content"])
    streamed = await Proxied(Scripted([chunk({}, "content_filter")])).stream("hi")
    assert is_kind(streamed.text())
    assert streamed.finish() == "content_filter"


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": "x"}, {"choices": [None]},
                                    {"choices": [{"index": 0}]},
                                    {"choices": [{"index": [], "message": {}}]}])  # fmt: skip
async def test_an_answer_without_choices_is_an_error(answer) -> None:
    proxy = Proxied(Scripted(answer=answer))
    response = await proxy.chat("hello")
    assert response.status_code == 502
    assert problem(response)["code"] == "upstream_invalid_response"
    assert proxy.ledger.failures == ["upstream_garbage"]


ODD = [
    {},
    {"choices": None},
    {"choices": [None, 1, {}]},
    {"choices": [{"index": 99, "delta": {"content": "zorblat"}}]},
    {"choices": [{"index": True, "delta": {"content": "zorblat"}}]},
    {"choices": [{"index": 0.0, "delta": {"content": "zorblat"}}]},
    {"choices": [{"index": 0, "delta": None}]},
    {"choices": [{"index": 0, "delta": {"content": 5, "tool_calls": "x", "refusal": 1}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [None, {"index": "a"}, {"index": 10**9}]}}]},
    {"usage": "lots"},
]


async def test_odd_chunks_do_no_harm() -> None:
    chunks = [
        *ODD,
        *stream_of([CALM], None),
        *ODD,
        chunk({}, "stop"),
        chunk({"content": "zorblat"}),
    ]
    streamed = await Proxied(Scripted(chunks)).stream("hello", tools=TOOLS)
    assert streamed.text() == CALM
    assert streamed.finish() == "stop"


async def breaks_off(error: Exception | None):
    for part in stream_of([CALM, " And then the big bad wo"], None):
        yield part
    if error is not None:
        raise error


@pytest.mark.parametrize(
    "error",
    [
        None,
        UpstreamProblem("upstream_broken_off", "gone in the middle"),
        UpstreamProblem("upstream_timeout", "silent for too long"),
        ValueError("zorblat"),
    ],
)
async def test_a_stream_that_breaks_off_ends_kindly(error, caplog) -> None:
    proxy = Proxied(Scripted(lambda: breaks_off(error)))
    streamed = await proxy.stream("hello", stream_options={"include_usage": True})
    assert streamed.text().startswith("Wolves howl to talk with their pack. ")
    assert streamed.text().endswith(INTERRUPTED)
    assert "big bad" not in streamed.text()
    assert streamed.finish() == "length"
    assert streamed.usage
    assert proxy.ledger.events[1].note == "upstream_failed"
    assert proxy.ledger.events[1].withheld_characters > 0
    assert len(proxy.ledger.failures) == 1
    assert "zorblat" not in caplog.text


async def test_a_failing_stream_is_an_error_while_nothing_has_been_sent() -> None:
    class Down(Scripted):
        async def chat_stream(self, body):
            raise UpstreamProblem("upstream_unreachable", "not there at all", status=503)

    proxy = Proxied(Down())
    response = await proxy.chat("hello", stream=True)
    assert response.status_code == 503
    assert problem(response)["type"] == "api_error"


async def test_a_reply_that_cannot_be_recorded_ends_its_stream_all_the_same() -> None:
    proxy = Proxied()
    proxy.ledger.refuse = lambda event: event.verdict.stage == "output"
    streamed = await proxy.stream("hello")
    assert streamed.text() == CALM
    assert proxy.ledger.failures == ["audit"]
    response = await proxy.chat("hello")
    assert response.status_code == 503


async def test_open_streams_end_kindly_when_the_server_stops() -> None:
    async def endless():
        for part in stream_of([CALM + " "], None):
            yield part
        await asyncio.sleep(60)

    proxy = Proxied(Scripted(endless), settings={"shutdown_s": 0.05})
    service = proxy.app.state.service
    asking = asyncio.create_task(proxy.stream("hello"))
    while not service.open_streams:
        await asyncio.sleep(0.001)
    assert (await proxy.http.get("/ready")).status_code == 200
    service.drain()
    assert (await proxy.http.get("/ready")).json()["reason"] == "shutting down"
    streamed = await asking
    assert streamed.text().endswith(INTERRUPTED)
    assert proxy.ledger.events[1].note == "shutdown"


class Thinks(Scripted):
    """Says nothing for long, headers included."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.stopped = asyncio.Event(), asyncio.Event()

    async def chat(self, body):
        self.begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.stopped.set()

    chat_stream = chat


@pytest.mark.parametrize("stream", [False, True])
async def test_who_still_waits_for_the_model_is_told_when_the_server_stops(stream: bool) -> None:
    model = Thinks()
    proxy = Proxied(model, settings={"shutdown_s": 0.05})
    asking = asyncio.create_task(proxy.chat("hello", stream=stream))
    await model.begun.wait()
    proxy.app.state.service.drain()
    # Not `timeout`, which cancels the request, and that is answered alike.
    done, _ = await asyncio.wait({asking}, timeout=10)
    assert done
    response = asking.result()
    assert response.status_code == 503
    assert problem(response)["code"] == "shutting_down"
    assert response.headers["retry-after"] == "1"
    assert model.stopped.is_set()
    assert proxy.ledger.requests == [("chat", 503)]
    assert proxy.ledger.failures == []


async def test_a_whole_reply_ends_within_the_time_that_the_server_has_to_stop() -> None:
    asked = asyncio.Event()

    class Slow(Scripted):
        """Answers after a while."""

        async def chat(self, body):
            asked.set()
            await asyncio.sleep(0.1)
            return completion(CALM)

    proxy = Proxied(Slow(), settings={"shutdown_s": 5.0})
    asking = asyncio.create_task(proxy.chat("hello"))
    await asked.wait()
    proxy.app.state.service.drain()
    assert reply(await asking)["message"]["content"] == CALM


async def test_a_stream_that_begins_when_the_time_to_stop_is_over_ends_kindly() -> None:
    async def endless():
        for part in stream_of([CALM + " "], None):
            yield part
        await asyncio.sleep(60)

    class Late(Scripted):
        """Accepts just as the time is over."""

        async def chat_stream(self, body):
            chunks = await super().chat_stream(body)
            service._over = True
            return chunks

    proxy = Proxied(Late(endless))
    service = proxy.app.state.service
    async with asyncio.timeout(10):
        streamed = await proxy.stream("hello")
    assert streamed.text().endswith(INTERRUPTED)
    assert proxy.ledger.events[1].note == "shutdown"


async def test_a_reply_that_nobody_reads_is_recorded_when_the_server_stops() -> None:
    async def endless():
        while True:
            yield chunk({"content": "Wolves howl all night long, they do. "})
            await asyncio.sleep(0.001)

    proxy = Proxied(Scripted(endless), settings={"shutdown_s": 0.0})
    service, stuck = proxy.app.state.service, asyncio.Event()
    call = chat_call({"model": "m", "messages": [{"role": "user", "content": "hi"}]},
                     allow_images=False)  # fmt: skip
    call = replace(call, stream=True)
    caller = Caller(OneTenant(planted_guard()).tenant, AgeBand.EARLY, "r1")
    exchange, waiting = (
        Exchange(service, caller, call, ChatWriter(call, "r1")),
        asyncio.Event().wait,
    )
    response = await exchange.answer(lambda _: None, waiting)

    async def send(message):
        if b"Wolves" in message.get("body", b""):
            stuck.set()
            await asyncio.sleep(60)  # the caller takes nothing

    sending = asyncio.create_task(response({}, waiting, send))
    await stuck.wait()
    service.drain()
    await asyncio.sleep(0.01)
    sending.cancel()  # as the server does once its patience has ended
    with pytest.raises(asyncio.CancelledError):
        await sending
    _, said = proxy.ledger.events
    assert (said.note, said.streamed) == ("shutdown", True)
    assert said.withheld_characters < len(said.text)
    assert proxy.ledger.open_streams == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_gives_up_waiting_closes_the_upstream(stream: bool) -> None:
    model = Thinks()
    proxy = Proxied(model)
    body = json.dumps({"model": "m", "stream": stream, "messages": [
        {"role": "user", "content": "hi"}]}).encode()  # fmt: skip
    incoming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if incoming:
            return incoming.pop()
        await model.begun.wait()
        return {"type": "http.disconnect"}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    async with asyncio.timeout(10):
        await proxy.app(scope, receive, send)
    assert model.stopped.is_set()
    assert proxy.ledger.requests == [("chat", 499)]
    assert [event.text for event in proxy.ledger.events] == ["hi"]
    assert proxy.ledger.failures == []


async def test_a_caller_who_leaves_closes_the_upstream_and_is_recorded() -> None:
    async def endless():
        while True:
            yield chunk({"content": "Wolves howl all night long, they do. "})
            await asyncio.sleep(0.001)

    upstream = Scripted(endless)
    proxy = Proxied(upstream)
    tenant = OneTenant(planted_guard()).tenant
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    call = chat_call(body, allow_images=False)
    caller = Caller(tenant, AgeBand.EARLY, "r1")
    finished: list[int] = []
    exchange = Exchange(proxy.app.state.service, caller, call, ChatWriter(call, "r1"))
    response = await exchange.answer(finished.append, asyncio.Event().wait)
    sent = 0
    left = asyncio.Event()

    async def receive():
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        nonlocal sent
        sent += 1
        if sent == 5:
            left.set()

    await asyncio.wait_for(response({"type": "http"}, receive, send), 10)
    assert upstream.closed == 1
    assert proxy.ledger.events[1].note == "caller_left"
    assert finished == [200]


async def test_a_quiet_stream_says_that_it_is_still_there(monkeypatch) -> None:
    monkeypatch.setattr("kidrails_guard.proxy.reply.TICK_S", 0.01)

    async def slow():
        await asyncio.sleep(0.2)
        for part in stream_of([CALM]):
            yield part

    proxy = Proxied(Scripted(slow), settings={"heartbeat_s": 0.02})
    streamed = await proxy.stream("hello")
    assert ": still here" in streamed.response.text
    assert streamed.text() == CALM


async def test_the_headers_wait_for_the_verdict_on_the_childs_words() -> None:
    release = asyncio.Event()
    upstream = Scripted(stream_of([CALM]))

    class Waits(Planted):
        async def __call__(self, conversation, text, band, stage):
            await release.wait()
            return []

    proxy = Proxied(upstream, guard=planted_guard(Waits()))
    asking = asyncio.create_task(proxy.chat("hello", stream=True))
    await asyncio.sleep(0.05)
    assert not asking.done()
    assert upstream.asked == []
    release.set()
    assert (await asking).status_code == 200


async def test_hazards_are_named_only_where_the_operator_wants_it() -> None:
    quiet, loud = Proxied(), Proxied(settings={"operator_headers": True})
    for proxy in (quiet, loud):
        response = await proxy.chat("a zorblat")
        assert ("x-kidrails-hazards" in response.headers) == (proxy is loud)
        assert "K03" not in response.text
    assert response.headers["x-kidrails-hazards"] == "K03"


async def test_a_check_that_fails_on_the_way_out_holds_the_reply_back() -> None:
    class Breaks(Planted):
        async def __call__(self, conversation, text, band, stage):
            if stage == "output":
                raise RuntimeError("no")
            return []

    choice = reply(await Proxied(guard=planted_guard(Breaks())).chat("hi"))
    assert choice["finish_reason"] == "content_filter"
    assert "Wolves" not in choice["message"]["content"]


async def test_answers_come_in_the_policys_language_and_band() -> None:
    texts = set()
    for band in AgeBand:
        choice = reply(await Proxied(band=band).chat("a zorblat"))
        texts.add(choice["message"]["content"])
    assert len(texts) == 3


async def test_transport_errors_do_not_reach_the_caller() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("zorblat at 10.0.0.1")

    response = await Proxied(httpx.MockTransport(fail)).chat("hello")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert "zorblat" not in response.text
    assert Action.ALLOW.label not in problem(response)["message"]
