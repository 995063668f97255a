"""Model servers that keep to OpenAI's API a little differently: no reply is lost, none leaks."""

from __future__ import annotations

import json

import pytest
from clients import Proxied, Scripted, reply
from planted import is_kind, notice
from upstreams import CALM, Says, chunk, completion

from kidrails_guard.proxy.wire import ChatWriter

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
OBJECT = {"type": "json_object"}
HIGH, LOW = "😀".encode("utf-16-be", "surrogatepass")[:2], "😀".encode("utf-16-be")[2:]
HIGH, LOW = (half.decode("utf-16-be", "surrogatepass") for half in (HIGH, LOW))


async def test_an_empty_finish_reason_does_not_end_a_reply() -> None:
    chunks = [chunk({"content": piece}, "") for piece in ("", CALM[:40], CALM[40:])]
    streamed = await Proxied(Scripted([*chunks, chunk({}, "stop")])).stream("hello")
    assert streamed.text() == CALM
    assert streamed.finish() == "stop"


async def test_an_index_of_null_is_the_first() -> None:
    def without_index(part):
        return part | {"choices": [part["choices"][0] | {"index": None}]}

    chunks = [without_index(part) for part in (chunk({"content": CALM}), chunk({}, "stop"))]
    assert (await Proxied(Scripted(chunks)).stream("hello")).text() == CALM
    whole = Scripted(answer=without_index(completion(CALM)))
    assert reply(await Proxied(whole).chat("hello"))["message"]["content"] == CALM


def call_chunk(arguments: str):
    function = {"name": "look", "arguments": arguments}
    return chunk({"tool_calls": [{"index": 0, "id": "c1", "function": function}]})


async def test_calls_that_come_whole_under_one_index_are_several() -> None:
    def whole(call_id: str, arguments: str):
        function = {"name": "look", "arguments": arguments}
        return chunk({"tool_calls": [{"index": 0, "id": call_id, "function": function}]})

    told = [("a", '{"at": "owls"}'), ("b", '{"at": '), ("b", '"foxes"}')]
    chunks = [*(whole(*call) for call in told), chunk({}, "tool_calls")]
    streamed = await Proxied(Scripted(chunks)).stream("hello", tools=[TOOL])
    calls = [c for p in streamed.chunks for c in p["choices"][0]["delta"].get("tool_calls", [])]
    assert [(c["index"], c["id"], c["function"]["arguments"]) for c in calls] == [
        (0, "a", '{"at": "owls"}'),
        (1, "b", '{"at": "foxes"}'),
    ]
    # A hundred calls are no hundred windows: the rest is left out.
    many = [whole(f"c{n}", "{}") for n in range(100)]
    streamed = await Proxied(Scripted([*many, chunk({}, "tool_calls")])).stream("hi", tools=[TOOL])
    calls = [c for p in streamed.chunks for c in p["choices"][0]["delta"].get("tool_calls", [])]
    assert len(calls) == 32


@pytest.mark.parametrize(("first", "second"), [(HIGH, LOW), (HIGH, "!")])
async def test_a_character_cut_in_two_loses_no_reply(first: str, second: str) -> None:
    whole = "😀" if second == LOW else "�!"
    halves = [f'{{"a": "hi {first}', f'{second}"}}']
    expected = f'{{"a": "hi {whole}"}}'

    asked = {"response_format": OBJECT}
    chunks = [chunk({"content": half}) for half in halves]
    proxy = Proxied(Scripted([*chunks, chunk({}, "stop")]))
    streamed = await proxy.stream("hello", **asked)
    assert (streamed.text(), streamed.finish()) == (expected, "stop")
    answer = completion("".join(halves))
    choice = reply(await Proxied(Scripted(answer=answer)).chat("hello", **asked))
    assert choice["message"]["content"] == expected

    chunks = [call_chunk(half) for half in halves]
    proxy = Proxied(Scripted([*chunks, chunk({}, "tool_calls")]))
    streamed = await proxy.stream("hello", tools=[TOOL])
    assert streamed.finish() == "tool_calls"
    (call,) = [c for p in streamed.chunks for c in p["choices"][0]["delta"].get("tool_calls", [])]
    assert call["function"]["arguments"] == expected

    chunks = [chunk({"refusal": half}) for half in halves]
    streamed = await Proxied(Scripted([*chunks, chunk({}, "stop")])).stream("hello")
    assert streamed.text() == expected
    assert proxy.ledger.failures == []


async def test_half_a_character_in_a_schema_is_no_error() -> None:
    proxy = Proxied()
    schema = {"type": "object", "properties": {HIGH: {"type": "string", "description": LOW}}}
    for body in (
        {"tools": [{"type": "function", "name": "look", "parameters": schema}]},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}},
    ):
        data = json.dumps({"model": "m", "input": "hello", **body})
        response = await proxy.http.post(
            "/v1/responses", content=data, headers={"content-type": "application/json"}
        )
        assert response.status_code == 200
        assert list(proxy.asked.get("tools", [])) or proxy.asked["response_format"]


async def test_a_choice_that_cannot_be_written_still_ends(monkeypatch) -> None:
    write, failed = ChatWriter.write, []

    def fails_once(self, event):
        if getattr(event, "kind", False) and not failed:
            failed.append(event)
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "no")
        return write(self, event)

    monkeypatch.setattr(ChatWriter, "write", fails_once)
    proxy = Proxied(Says(CALM + " Now take the kaboomium. And go."))
    streamed = await proxy.stream("hello")
    assert streamed.finish() == "length"
    assert failed
    assert proxy.ledger.failures == ["internal"]


def entries(*tokens: str, logprob: object = -0.5):
    return {"content": [{"token": token, "logprob": logprob} for token in tokens]}


NUMBER = "You can call 555-123-4567 now for it. "
CLEAR = "Then we go to the hills and look at the wolves all night long. "


@pytest.mark.parametrize(
    ("tokens", "leave"),
    [
        ([NUMBER + CLEAR], []),  # a token that crosses a border
        ([NUMBER, CLEAR], [CLEAR]),
        ([NUMBER[:-6], NUMBER[-6:] + CLEAR[:5], CLEAR[5:]], [CLEAR[5:]]),
    ],
)
async def test_no_logprob_says_what_was_masked(tokens: list[str], leave: list[str]) -> None:
    text = NUMBER + CLEAR
    one = [chunk({"content": text}, logprobs=entries(*tokens))]
    many = [chunk({"content": token}, logprobs=entries(token)) for token in tokens]
    for chunks in (one, many):
        proxy = Proxied(Scripted([*chunks, chunk({}, "stop")]))
        streamed = await proxy.stream("hello", logprobs=True)
        assert "555-1" not in streamed.response.text
        found = [
            entry["token"]
            for part in streamed.chunks
            for entry in (part["choices"][0]["logprobs"] or {"content": []})["content"]
        ]
        assert found == leave
    answer = completion(text, choice={"logprobs": entries(*tokens)})
    response = await Proxied(Scripted(answer=answer)).chat("hello", logprobs=True)
    assert "555-1" not in response.text


@pytest.mark.parametrize(
    "number",
    [float("-inf"), float("nan"), 10**400, "1", None],
    ids=["infinite", "nan", "huge", "text", "none"],
)
async def test_a_logprob_that_json_cannot_hold_is_left_out(number) -> None:
    answer = completion(CALM, choice={"logprobs": entries(CALM, logprob=number)})
    choice = reply(await Proxied(Scripted(answer=answer)).chat("hello", logprobs=True))
    assert choice["message"]["content"] == CALM
    assert choice["logprobs"] is None


async def test_places_of_logprobs_hold_where_characters_are_joined() -> None:
    parts = ["Wolves howl. " + HIGH, LOW + " " + NUMBER, CLEAR]
    chunks = [chunk({"content": part}, logprobs=entries(part)) for part in parts]
    streamed = await Proxied(Scripted([*chunks, chunk({}, "stop")])).stream("hi", logprobs=True)
    assert "555-1" not in streamed.response.text
    assert "😀" in streamed.text()


async def test_a_reminder_ends_the_text_before_the_tools() -> None:
    said = "my number is 555-123-4567"
    reminder = notice("redacted", said)
    chunks = [chunk({"content": CALM}), call_chunk('{"q": 1}'), chunk({}, "tool_calls")]
    proxy = Proxied(Scripted(chunks))
    body = {"model": "m", "input": said, "tools": [{"type": "function", "name": "look"}]}
    response = await proxy.post("/v1/responses", {**body, "stream": True})
    events = [json.loads(line[6:]) for line in response.text.split("\n") if line[:6] == "data: "]
    added = [e["item"]["id"] for e in events if e["type"] == "response.output_item.added"]
    done = [e["output_index"] for e in events if e["type"] == "response.output_item.done"]
    assert len(added) == len(set(added)) == 2
    assert done == [0, 1]
    message, call = events[-1]["response"]["output"]
    assert message["content"][0]["text"] == f"{CALM}\n\n{reminder}"
    assert call["type"] == "function_call"
    streamed = await proxy.stream(said, tools=[TOOL])
    assert streamed.text() == f"{CALM}\n\n{reminder}"
    assert not is_kind(streamed.text())


SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
NO = "I would rather not say that."


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_structured_output_is_no_broken_json(stream: bool) -> None:
    if stream:
        halves = [chunk({"refusal": half}) for half in (NO[:9], NO[9:])]
        upstream = Scripted([*halves, chunk({}, "stop")])
        streamed = await Proxied(upstream).stream("hello", response_format=SCHEMA)
        deltas = [part["choices"][0]["delta"] for part in streamed.chunks]
        assert "".join(delta.get("refusal", "") for delta in deltas) == NO
        assert streamed.text() == ""
    else:
        upstream = Scripted(answer=completion(None, message={"refusal": NO}))
        message = reply(await Proxied(upstream).chat("hello", response_format=SCHEMA))["message"]
        assert (message["content"], message["refusal"]) == (None, NO)
    text = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}
    body = {"model": "m", "input": "hello", "text": text, "stream": stream}
    response = await Proxied(upstream).post("/v1/responses", body)
    if stream:
        lines = [line[6:] for line in response.text.split("\n") if line[:6] == "data: "]
        events = [json.loads(line) for line in lines]
        assert [e["delta"] for e in events if e["type"] == "response.refusal.delta"] == [NO]
        assert [e["refusal"] for e in events if e["type"] == "response.refusal.done"] == [NO]
        answer = events[-1]["response"]
    else:
        answer = response.json()
    assert answer["output"][0]["content"] == [{"type": "refusal", "refusal": NO}]


async def test_an_unsafe_refusal_is_held_back() -> None:
    upstream = Scripted(answer=completion(None, message={"refusal": "No zorblat for you."}))
    response = await Proxied(upstream).chat("hello", response_format=OBJECT)
    assert "zorblat" not in response.text
    assert reply(response)["finish_reason"] == "content_filter"
    assert is_kind(json.loads(reply(response)["message"]["content"])["message"])
