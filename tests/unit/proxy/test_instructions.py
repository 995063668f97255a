"""System messages, tools and schemas: every string is checked, ordinary ones get through."""

from __future__ import annotations

import json

import pytest
from clients import Proxied, problem, reply
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import Planted, is_kind, planted_guard
from upstreams import completion

from kidrails_guard.guard import Guard
from kidrails_guard.proxy import generic_api
from kidrails_guard.proxy.call import ToolCall, Turn
from kidrails_guard.proxy.intake import _first_of_now
from kidrails_guard.types import Finding, Hazard, Severity, Stage

BAD = "obey the parrot"
PLACES = [
    {"type": "object", "properties": {"q": {"type": "string", "enum": ["a", BAD]}}},
    {"type": "object", "properties": {"q": {"const": {"deep": [BAD]}}}},
    {"type": "object", "properties": {"q": {"type": "string", "default": BAD}}},
    {"type": "object", "examples": [{"q": BAD}]},
    {"type": "object", "properties": {BAD: {"type": "string"}}},
    {"type": "object", "required": [BAD]},
    {"type": "object", "x-made-up": BAD},
]


def tool(parameters: object, name: str = "look") -> dict:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def form(schema: object) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


@pytest.mark.parametrize("schema", PLACES)
async def test_every_string_of_a_schema_is_checked(schema) -> None:
    proxy = Proxied()
    call = {"id": "c1", "function": {"name": "look", "arguments": "{}"}}
    message = {"tool_calls": [call]}
    proxy.upstream.answer = completion("Well.", message=message, finish="tool_calls")
    chosen = {"type": "function", "function": {"name": "look"}}
    response = await proxy.chat("hello", tools=[tool(schema)], tool_choice=chosen)
    assert response.headers["x-kidrails-left-out"] == "tools"
    assert "tools" not in proxy.asked
    assert "tool_choice" not in proxy.asked
    # The model cannot call what it was not told of.
    assert "tool_calls" not in reply(response)["message"]
    tools = [tool(schema), tool({"type": "object"}, "see")]
    await proxy.chat("hello", tools=tools, tool_choice="required")
    assert [t["function"]["name"] for t in proxy.asked["tools"]] == ["see"]
    assert proxy.asked["tool_choice"] == "required"

    proxy.upstream.answer = completion("{}")
    response = await proxy.chat("hello", response_format=form(schema))
    assert response.headers["x-kidrails-left-out"] == "response_format"
    assert proxy.asked["response_format"] == {"type": "json_object"}


async def test_a_tools_name_is_checked() -> None:
    proxy = Proxied()
    await proxy.chat("hello", tools=[tool({"type": "object"}, "zorblat")])
    assert "tools" not in proxy.asked


async def test_the_guards_own_json_holds_nothing_unchecked() -> None:
    fixed = {"type": "object", "properties": {"z": {"const": "zorblat"}, "m": {"type": "string"}}}
    schema = {**fixed, "required": ["z", "m"]}
    response = await Proxied().chat("i want to vanish", response_format=form(schema))
    assert "zorblat" not in response.text
    assert is_kind(json.loads(reply(response)["message"]["content"])["message"])


class Learned:
    """Takes every rule for the model for a jailbreak, as the trained classifier may."""

    name = "classifier"
    stages = frozenset({Stage.INPUT})

    async def __call__(self, conversation, text, band, stage):
        sure = "never" in text.lower()
        return [Finding(self.name, Hazard.JAILBREAK, Severity.SEVERE, 0.9)] if sure else []


RULES = "Never swear. Call the child by its name."


async def test_of_what_developers_write_the_classifiers_findings_do_not_count(caplog) -> None:
    guard = Guard(planted_guard().policy, checks=[Planted(), Learned()])
    proxy = Proxied(guard=guard)
    described = tool({"type": "object", "properties": {"q": {"description": RULES}}})
    messages = [{"role": "system", "content": RULES}, {"role": "user", "content": "hello"}]
    response = await proxy.chat(messages=messages, tools=[described])
    assert "x-kidrails-left-out" not in response.headers
    assert proxy.asked["messages"][0]["content"].endswith(RULES)
    assert proxy.asked["tools"] == [described]
    body = {
        "input_type": "request",
        "texts": [RULES, "hello"],
        "structured_messages": messages,
    }
    answer = (await proxy.post(generic_api.PATH, body)).json()
    assert answer["texts"][0].endswith(RULES)
    # Of a child's words they do.
    assert (await proxy.chat("never")).headers["x-kidrails-action"] == "refuse"

    messages[0]["content"] = f"{RULES} And {BAD}."
    for _ in range(2):
        response = await proxy.chat(messages=messages)
        assert response.headers["x-kidrails-left-out"] == "system"
    told = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert told == ["local: system text left out (planted phrase)"]


ORDINARY = [
    "You are a friendly assistant. Do not swear. Don't ask for personal data. Keep answers short.",
    "You are a story teller. Refuse anything scary.",
    "You are Pip, a robot. Answer in JSON.",
    "You are a math tutor for third graders. Explain step by step, never give the final answer.",
    "Do not talk about violence or drugs.",
]


async def test_ordinary_system_messages_reach_the_model() -> None:
    proxy = Proxied(guard=Guard())
    for text in ORDINARY:
        messages = [{"role": "system", "content": text}, {"role": "user", "content": "hello"}]
        response = await proxy.chat(messages=messages)
        assert "x-kidrails-left-out" not in response.headers, text
        assert proxy.asked["messages"][0]["content"].endswith(text)


async def test_ordinary_tools_reach_the_model() -> None:
    proxy = Proxied(guard=Guard())
    city = {"type": "string", "description": "City name, e.g. Paris"}
    unit = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    parameters = {
        "type": "object",
        "properties": {"city": city, "unit": unit},
        "required": ["city"],
        "additionalProperties": False,
    }
    message = {"type": "string", "maxLength": 500}
    tools = [
        tool(parameters, "get_weather"),
        tool({"type": "object", "properties": {"message": message}}, "send_message"),
    ]
    response = await proxy.chat("why do wolves howl?", tools=tools)
    assert "x-kidrails-left-out" not in response.headers
    assert proxy.asked["tools"] == tools


async def test_far_too_many_messages_are_an_error_and_somewhat_too_many_kind_words() -> None:
    proxy = Proxied()
    most = planted_guard().policy.limits.max_messages
    turn = {"role": "user", "content": "hi"}
    response = await proxy.chat(messages=[turn] * (most + 2))
    assert is_kind(reply(response)["message"]["content"])
    for role in ("user", "assistant", "system"):
        many = [turn, *[{"role": role, "content": "a"}] * (4 * most)]
        response = await proxy.chat(messages=many)
        assert response.status_code == 400
        error = problem(response)
        assert (error["param"], error["code"]) == ("messages", "array_above_max_length")
        assert str(4 * most) in error["message"]
    response = await proxy.post("/v1/responses", {"model": "m", "input": [turn] * (4 * most + 1)})
    assert problem(response)["param"] == "input"


def _slowly(turns: tuple[Turn, ...]) -> int:
    """Say the same as `_first_of_now`, as it would be explained."""
    for i in range(len(turns) - 1, -1, -1):
        spoken = turns[i].role == "assistant" and not turns[i].tool_calls
        if spoken and any(turn.role == "user" for turn in turns[i + 1 :]):
            return i + 1
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=0)
    while last > 0 and turns[last - 1].role != "assistant":
        last -= 1
    return last


TURNS = st.builds(
    Turn,
    st.sampled_from(["user", "assistant", "tool", "system"]),
    st.just("x"),
    st.sampled_from([(), (ToolCall("a", "b", "{}"),)]),
)


@given(st.lists(TURNS, min_size=1, max_size=12).map(tuple))
@settings(max_examples=500, deadline=None)
def test_the_words_of_now_begin_after_the_last_reply_for_the_child(turns) -> None:
    assert _first_of_now(turns) == _slowly(turns)
