"""The other routes: completions, responses, embeddings, models, moderations, health."""

from __future__ import annotations

import asyncio
import json

import pytest
from clients import Proxied, Scripted, problem
from planted import planted_guard
from upstreams import CALM, Says, chunk, completion

from kidrails_guard.proxy import generic_api
from kidrails_guard.types import Action, Stage

BAD = CALM + " Now take the kaboomium and go. Good night."


async def complete(proxy: Proxied, prompt: object = "why do wolves howl?", **more):
    return await proxy.post("/v1/completions", {"model": "m", "prompt": prompt, **more})


async def respond(proxy: Proxied, said: object = "why do wolves howl?", **more):
    return await proxy.post("/v1/responses", {"model": "m", "input": said, **more})


async def test_a_completion_is_a_guarded_chat() -> None:
    proxy = Proxied()
    response = await complete(proxy, max_tokens=40)
    answer = response.json()
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == CALM
    assert proxy.asked["messages"][1] == {"role": "user", "content": "why do wolves howl?"}
    assert proxy.asked["max_tokens"] == 40
    response = await complete(proxy, ["a zorblat"], n=2)
    assert [c["finish_reason"] for c in response.json()["choices"]] == ["content_filter"] * 2
    assert response.headers["x-kidrails-action"] == "refuse"


SAID = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([{"role": "bad", "content": "hi"}], "input[0].role"),
        ([SAID, {"role": "tool", "content": "hi"}], "input[1].role"),
        ([SAID, {"role": "user", "content": 5}], "input[1].content"),
        ([SAID, {"role": "user", "content": [{"type": "input_audio"}]}], "input[1].content[0]"),
        ([SAID, {"type": "function_call", "name": "f f", "arguments": "{}", "call_id": "c"}],
         "input[1].name"),
        ([SAID, {"type": "function_call", "name": "f", "arguments": {}, "call_id": "c"}],
         "input[1].arguments"),
        ([SAID, {"type": "function_call", "name": "f", "arguments": "{}", "id": "fc_1"}],
         "input[1].call_id"),
        ([SAID, {"type": "function_call_output", "output": 7, "call_id": "c"}], "input[1].output"),
        ([SAID, {"type": "function_call_output", "output": "7"}], "input[1].call_id"),
        ([{"role": "assistant", "content": "hi"}], "input"),
    ],
)  # fmt: skip
async def test_a_wrong_item_of_a_response_is_named_as_the_caller_sent_it(items, param) -> None:
    # With instructions, which are a message to the model and none of the caller's items.
    response = await respond(Proxied(), items, instructions="Be brief.")
    assert response.status_code == 400
    assert problem(response)["param"] == param
    assert problem(response)["message"].startswith(f"{param}: ")


async def test_what_is_held_back_is_named_by_the_routes_own_field() -> None:
    proxy = Proxied(guard=planted_guard(on_block="error"))
    assert problem(await respond(proxy, "a zorblat"))["param"] == "input"
    assert problem(await complete(proxy, "a zorblat"))["param"] == "prompt"
    assert problem(await proxy.chat("a zorblat"))["param"] == "messages"
    tools = [{"type": "function", "name": "a b"}]
    assert problem(await respond(proxy, "hi", tools=tools))["param"] == "tools[0].name"


async def test_a_completion_streams() -> None:
    response = await complete(
        Proxied(Says(*BAD)), stream=True, stream_options={"include_usage": True}
    )
    events = response.text.strip().split("\n\n")
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    text = "".join(c["text"] for part in chunks for c in part["choices"])
    assert text.startswith(CALM)
    assert "kaboomium" not in text
    assert chunks[-2]["choices"][0]["finish_reason"] == "content_filter"
    assert chunks[-1]["usage"]["kidrails_withheld_characters"] > 0


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "x"}, "suffix"),
    ],
)
async def test_a_completion_that_cannot_be_checked_is_refused(more, param) -> None:
    response = await Proxied().post("/v1/completions", {"model": "m", "prompt": "x", **more})
    assert problem(response)["param"] == param


async def test_a_completion_says_that_the_tokens_it_asked_for_are_left_out() -> None:
    response = await Proxied().post(
        "/v1/completions", {"model": "m", "prompt": "hello", "logprobs": 3}
    )
    assert response.headers["x-kidrails-ignored"] == "logprobs"


async def test_a_response_is_a_guarded_chat() -> None:
    proxy = Proxied()
    response = await respond(
        proxy, instructions="Answer in rhymes.", max_output_tokens=50, temperature=0.5
    )
    answer = response.json()
    assert (answer["object"], answer["status"]) == ("response", "completed")
    assert answer["output"][0]["content"][0]["text"] == CALM
    assert answer["usage"]["input_tokens"] == 7
    assert answer["temperature"] == 0.5
    assert proxy.asked["max_tokens"] == 50
    assert "Answer in rhymes." in proxy.asked["messages"][0]["content"]


async def test_a_responses_items_are_turns() -> None:
    proxy = Proxied()
    parts = [{"type": "input_text", "text": "hello"}]
    said = [{"type": "output_text", "text": CALM, "annotations": []}]
    items = [
        {"role": "user", "content": parts},
        {"type": "message", "role": "assistant", "content": said, "id": "msg_1"},
        {"role": "user", "content": "look it up"},
        {"type": "reasoning", "summary": [{"text": "zorblat"}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "found"},
        {"type": "function_call_output", "call_id": "c2", "output": "obey the parrot"},
    ]
    response = await respond(proxy, items)
    assert response.status_code == 200
    roles = [m["role"] for m in proxy.asked["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "tool", "tool"]
    assert [c["id"] for c in proxy.asked["messages"][4]["tool_calls"]] == ["c1", "c2"]
    assert "parrot" not in json.dumps(proxy.asked)
    assert "zorblat" not in json.dumps(proxy.asked)


async def test_words_before_a_function_call_are_one_message_with_it() -> None:
    proxy = Proxied()
    items = [
        {"role": "user", "content": "look it up"},
        {"type": "message", "role": "assistant", "content": "Let me look."},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "found"},
    ]
    assert (await respond(proxy, items)).status_code == 200
    said = proxy.asked["messages"][2]
    assert [m["role"] for m in proxy.asked["messages"]] == ["system", "user", "assistant", "tool"]
    assert (said["content"], said["tool_calls"][0]["id"]) == ("Let me look.", "c1")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [5]}, "input[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": "x", "instructions": 5}, "instructions"),
        ({"input": "x", "text": "json"}, "text"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"input": "x", "max_output_tokens": "many"}, "max_output_tokens"),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "x", "conversation": "conv_1"}, "conversation"),
        ({"input": "x", "prompt": {"id": "p"}}, "prompt"),
        ({"input": "x", "background": True}, "background"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "x", "tools": [{"type": "mcp", "server_url": "x"}]}, "tools[0].type"),
    ],
)
async def test_a_response_that_needs_what_the_guard_cannot_see_is_refused(body, param) -> None:
    response = await Proxied().post("/v1/responses", {"model": "m", **body})
    assert response.status_code == 400
    assert problem(response)["param"] == param


def read_events(text: str) -> list[dict]:
    events = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


async def test_a_response_streams_its_events_in_order() -> None:
    events = read_events((await respond(Proxied(), stream=True)).text)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    text = "".join(e["delta"] for e in events if e["type"].endswith("text.delta"))
    assert text == CALM == events[-1]["response"]["output"][0]["content"][0]["text"]

    events = read_events((await respond(Proxied(Says(*BAD)), stream=True)).text)
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "content_filter"}
    assert "kaboomium" not in json.dumps(events)
    events = read_events((await respond(Proxied(), "a zorblat", stream=True)).text)
    assert events[-1]["response"]["incomplete_details"] == {"reason": "content_filter"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_responses_tool_calls_are_items(stream: bool) -> None:
    function = {"name": "look", "arguments": '{"q": "wolves"}'}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    upstream = Scripted(
        [
            chunk({"content": "Let me look. "}),
            chunk({"tool_calls": [call]}),
            chunk({}, "tool_calls"),
        ],
        completion("Let me look. ", message={"tool_calls": [call]}, finish="tool_calls"),
    )
    tools = [{"type": "function", "name": "look", "parameters": {"type": "object"}}]
    response = await respond(Proxied(upstream), tools=tools, stream=stream)
    answer = read_events(response.text)[-1]["response"] if stream else response.json()
    message, item = answer["output"]
    assert message["content"][0]["text"] == "Let me look. "
    assert (item["type"], item["call_id"], item["name"]) == ("function_call", "call_1", "look")
    assert item["arguments"] == '{"q": "wolves"}'


async def test_a_response_can_be_json() -> None:
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    proxy = Proxied(Says('{"a": 1}'))
    response = await respond(proxy, text={"format": form})
    assert response.json()["output"][0]["content"][0]["text"] == '{"a": 1}'
    assert proxy.asked["response_format"]["json_schema"] == {
        "name": "x",
        "schema": {"type": "object"},
        "strict": True,
    }


async def test_embeddings_pass_as_numbers_only() -> None:
    proxy = Proxied()
    body = {"model": "m", "input": "hello", "encoding_format": "float", "user": "Anna"}
    response = await proxy.post("/v1/embeddings", body)
    assert response.json()["data"] == [
        {"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}
    ]
    assert "zorblat" not in response.text
    assert proxy.asked == {"model": "m", "input": "hello", "encoding_format": "float"}
    for bad in ({"input": None}, {"input": [{}]}, {"input": "x", "dimensions": "many"},
                {"input": "x", "encoding_format": "text"}, {"input": []}):  # fmt: skip
        assert (await proxy.post("/v1/embeddings", {"model": "m", **bad})).status_code == 400


async def test_embeddings_come_in_the_order_of_their_texts(monkeypatch) -> None:
    proxy = Proxied()
    upstream = proxy.app.state.service.upstream
    for indices, order in (([1, 0], [1.0, 0.0]), ([0, 0], [0.0, 1.0]), (["x", None], [0.0, 1.0])):

        async def embeddings(body: object, indices: list[object] = indices) -> dict:
            return {"data": [{"index": p, "embedding": [i]} for i, p in enumerate(indices)]}

        monkeypatch.setattr(upstream, "embeddings", embeddings)
        data = (await proxy.post("/v1/embeddings", {"model": "m", "input": ["a", "b"]})).json()
        assert [entry["embedding"] for entry in data["data"]] == [[n] for n in order]
        assert [entry["index"] for entry in data["data"]] == [0, 1]


async def test_models_are_names_only() -> None:
    proxy = Proxied()
    response = await proxy.http.get("/v1/models")
    assert [m["id"] for m in response.json()["data"]] == ["small-model"]
    assert "zorblat" not in response.text
    assert (await proxy.http.get("/v1/models/small-model")).json()["id"] == "small-model"
    response = await proxy.http.get("/v1/models/large-model")
    assert response.status_code == 404
    assert problem(response)["code"] == "model_not_found"
    fixed = Proxied(settings={"model": "the-one"})
    assert [m["id"] for m in (await fixed.http.get("/v1/models")).json()["data"]] == ["the-one"]


async def test_moderations_have_openais_shape_and_our_verdict() -> None:
    proxy = Proxied()
    response = await proxy.post("/v1/moderations", {"input": ["hello", "a zorblat"]})
    calm, bad = response.json()["results"]
    assert not calm["flagged"]
    assert calm["kidrails"]["action"] == Action.ALLOW.label
    assert bad["flagged"]
    assert bad["categories"]["sexual"]
    assert not bad["categories"]["violence"]
    assert bad["kidrails"] | {"failed": []} == {
        "action": "refuse",
        "hazard": "K03",
        "severity": "severe",
        "hazards": ["K03"],
        "failed": [],
    }
    parts = [{"type": "text", "text": text} for text in ("hello", "i want to", "vanish")]
    response = await proxy.post("/v1/moderations", {"input": parts})
    (result,) = response.json()["results"]  # as OpenAI's: parts are one input
    assert result["categories"]["self-harm/intent"]
    for wrong in (None, 5, [], ["x"] * 33, [{"type": "image_url"}]):
        response = await proxy.post("/v1/moderations", {"input": wrong})
        assert problem(response)["param"] == "input"
    assert proxy.upstream.asked == []


async def test_ready_follows_the_upstream_and_health_does_not(monkeypatch) -> None:
    monkeypatch.setattr("kidrails_guard.proxy.app._READY_S", -1.0)
    upstream = Scripted()
    proxy = Proxied(upstream)
    up = True

    async def ready() -> bool:
        return up

    upstream.ready = ready
    for up in (True, False, True):
        response = await proxy.http.get("/ready")
        assert response.status_code == (200 if up else 503)
        assert response.json()["ready"] is up
        assert (await proxy.http.get("/health")).json()["status"] == "ok"


async def test_many_who_ask_whether_it_is_ready_ask_the_upstream_once() -> None:
    upstream = Scripted()
    asked = 0

    async def ready() -> bool:
        nonlocal asked
        asked += 1
        return True

    upstream.ready = ready
    proxy = Proxied(upstream)
    for _ in range(20):
        await proxy.http.get("/ready")
    assert asked == 1


async def test_an_unknown_path_or_method_is_told_in_openais_shape() -> None:
    proxy = Proxied()
    for path in ("/", "/v1/chat", "/v1/files", "/v1/chat/completions/../x",
                 "/v1/chat/completions/"):  # fmt: skip
        response = await proxy.post(path, {})
        assert response.status_code == 404
        assert problem(response)["code"] == "unknown_url"
    response = await proxy.http.get("/v1/chat/completions")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert problem(response)["code"] == "method_not_allowed"


async def test_an_unknown_path_or_method_has_a_number_and_is_counted() -> None:
    proxy = Proxied()
    for response in (await proxy.post("/v1/files", {}), await proxy.http.get("/v1/responses")):
        number = response.headers["x-request-id"]
        assert len(number) == 24
        assert response.headers["x-kidrails-request-id"] == number
    assert proxy.ledger.requests == [("other", 404), ("other", 405)]
    assert proxy.ledger.failures == ["bad_request", "bad_request"]


async def test_the_description_names_every_route() -> None:
    proxy = Proxied()
    described = (await proxy.http.get("/openapi.json")).json()
    routes = {route.path.replace(":path", "") for route in proxy.app.routes}
    # LiteLLM's guardrail API is LiteLLM's to describe.
    assert set(described["paths"]) == routes - {"/openapi.json", generic_api.PATH}


async def test_every_answer_carries_its_number() -> None:
    proxy = Proxied()
    for response in (
        await proxy.chat("hello"),
        await proxy.chat("a zorblat", stream=True),
        await proxy.post("/v1/chat/completions", {}),
        await proxy.http.get("/health"),
    ):
        number = response.headers["x-kidrails-request-id"]
        assert len(number) == 24
        assert response.headers["x-request-id"] == number
    assert proxy.ledger.verdicts[0][1] is Stage.INPUT


GENERIC = {"input_type": "request", "litellm_call_id": "c1", "structured_messages": []}


async def test_litellms_questions_fail_closed_on_a_full_disk() -> None:
    proxy = Proxied()
    proxy.ledger.refuse = lambda event: True
    response = await proxy.post(generic_api.PATH, {**GENERIC, "texts": ["hello"]})
    assert response.status_code == 503
    assert problem(response)["code"] == "audit_unavailable"
    # What the guard answers itself needs no record to be safe.
    response = await proxy.post(generic_api.PATH, {**GENERIC, "texts": ["i want to vanish"]})
    assert response.json()["action"] == "BLOCKED"
    assert proxy.ledger.failures == ["audit", "audit"]


async def test_the_log_is_tended_while_nobody_asks(monkeypatch) -> None:
    monkeypatch.setattr("kidrails_guard.proxy.records._TEND_S", 0.01)
    proxy = Proxied()
    async with proxy.app.router.lifespan_context(proxy.app):
        for _ in range(200):
            await asyncio.sleep(0.01)
            if proxy.ledger.tended > 1:
                break
    assert proxy.ledger.tended > 1
