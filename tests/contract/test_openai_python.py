"""The official OpenAI client for Python, unchanged, against the proxy over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import openai
import pydantic
import pytest
from planted import INTERRUPTED, is_kind, planted_guard
from starlette.responses import JSONResponse
from upstreams import CALM, Says, chunk, completion, served, stream_of

from kidrails_guard.proxy.app import build_app
from kidrails_guard.proxy.seams import OneTenant
from kidrails_guard.proxy.settings import Settings

PIECES = [word + " " for word in CALM.split(" ")]
SAID = "".join(PIECES)
ASK = [{"role": "user", "content": "why do wolves howl?"}]
BAD = [{"role": "user", "content": "a zorblat please"}]


@dataclass
class Setup:
    upstream: Says
    url: str

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key="unused", max_retries=1)


@pytest.fixture(scope="module")
def running() -> Iterator[Setup]:
    upstream = Says()
    with served(upstream.app) as base:
        app = build_app(Settings(base), tenants=OneTenant(planted_guard()))
        with served(app) as proxy:
            yield Setup(upstream, f"{proxy}/v1")


@pytest.fixture
def setup(running: Setup) -> Setup:
    running.upstream.__init__(*PIECES)
    return running


def test_plain(setup: Setup) -> None:
    with setup.client as client:
        answer = client.chat.completions.create(model="m", messages=ASK, temperature=0.1)
        assert answer.choices[0].message.content == SAID
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.total_tokens == 12
        assert answer._request_id
        blocked = client.chat.completions.create(model="m", messages=BAD)
        assert blocked.choices[0].finish_reason == "content_filter"
        assert is_kind(blocked.choices[0].message.content)


def test_streaming(setup: Setup) -> None:
    with setup.client as client:
        for messages, finish in ((ASK, "stop"), (BAD, "content_filter")):
            stream = client.chat.completions.create(
                model="m", messages=messages, stream=True, stream_options={"include_usage": True}
            )
            chunks = list(stream)
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert (text == SAID) == (finish == "stop")
            assert chunks[-2].choices[0].finish_reason == finish
            assert chunks[-1].usage is not None
            assert chunks[0].choices[0].delta.role == "assistant"


def test_the_streaming_helper_and_its_snapshot(setup: Setup) -> None:
    with setup.client as client, client.chat.completions.stream(model="m", messages=ASK) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert final.choices[0].message.content == SAID
    assert "content.delta" in kinds


def test_headers_by_the_raw_response(setup: Setup) -> None:
    with setup.client as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=BAD)
        assert raw.headers["x-kidrails-action"] == "refuse"
        assert raw.parse().choices[0].finish_reason == "content_filter"


async def test_the_async_client(setup: Setup) -> None:
    async with openai.AsyncOpenAI(base_url=setup.url, api_key="unused") as client:
        answer = await client.chat.completions.create(model="m", messages=ASK)
        assert answer.choices[0].message.content == SAID
        stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == SAID


def test_errors_keep_their_class(setup: Setup) -> None:
    with setup.client as client:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="m", messages=ASK, temperature=9)
        assert caught.value.param == "temperature"
        with pytest.raises(openai.BadRequestError, match=r"messages\[0\]\.role"):
            client.chat.completions.create(model="m", messages=[{"role": "King", "content": "x"}])
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("no-such-model")
        setup.upstream.answer = JSONResponse({"error": {"message": "zorblat"}}, 404)
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="none", messages=ASK)
        assert missing.value.code == "model_not_found"
        assert "zorblat" not in str(missing.value)


def test_the_client_tries_again_as_it_always_does(setup: Setup) -> None:
    setup.upstream.answer = JSONResponse({"error": {}}, 500)
    with setup.client as client, pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="m", messages=ASK)
    assert len(setup.upstream.asked) == 2  # once, and max_retries=1
    setup.upstream.asked.clear()
    setup.upstream.answer = JSONResponse({}, 429, headers={"retry-after": "0"})
    with setup.client as client, pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="m", messages=ASK)
    assert len(setup.upstream.asked) == 2


def test_on_block_error_is_a_content_filter_error() -> None:
    guard = planted_guard(on_block="error")
    with served(Says().app) as base:
        app = build_app(Settings(base), tenants=OneTenant(guard))
        with served(app) as proxy, openai.OpenAI(base_url=f"{proxy}/v1", api_key="x") as client:
            for stream in (False, True):
                with pytest.raises(openai.BadRequestError) as caught:
                    client.chat.completions.create(model="m", messages=BAD, stream=stream)
                assert caught.value.code == "content_filter"


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


def test_structured_output_parses(setup: Setup) -> None:
    setup.upstream.__init__('{"city": "Oslo", ', '"degrees": 3}')
    with setup.client as client:
        answer = client.chat.completions.parse(model="m", messages=ASK, response_format=Weather)
        assert answer.choices[0].message.parsed == Weather(city="Oslo", degrees=3)
        asked = setup.upstream.asked[-1]["response_format"]
        assert asked["json_schema"]["schema"]["required"] == ["city", "degrees"]
        with pytest.raises(openai.ContentFilterFinishReasonError):
            client.chat.completions.parse(model="m", messages=BAD, response_format=Weather)
        held = client.chat.completions.create(
            model="m", messages=BAD, response_format=setup.upstream.asked[-1]["response_format"]
        )
        assert is_kind(Weather.model_validate_json(held.choices[0].message.content).city)


TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look a thing up.",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
    },
}


def test_tools_there_and_back(setup: Setup) -> None:
    function = {"name": "look", "arguments": '{"q": "wolves"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    setup.upstream.answer = completion(None, message={"tool_calls": [call]}, finish="tool_calls")
    setup.upstream.chunks = [
        chunk({"role": "assistant", "tool_calls": [{"index": 0, **call}]}),
        chunk({}, "tool_calls"),
    ]
    with setup.client as client:
        answer = client.chat.completions.create(model="m", messages=ASK, tools=[TOOL])
        message = answer.choices[0].message
        assert json.loads(message.tool_calls[0].function.arguments) == {"q": "wolves"}
        with client.chat.completions.stream(model="m", messages=ASK, tools=[TOOL]) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.tool_calls[0].function.name == "look"
        setup.upstream.answer = None
        history = [
            *ASK,
            message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": "call_1", "content": "they talk"},
        ]
        answer = client.chat.completions.create(model="m", messages=history, tools=[TOOL])
        assert answer.choices[0].message.content == SAID


def test_logprobs_and_several_choices(setup: Setup) -> None:
    tokens = {"content": [{"token": CALM, "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
    setup.upstream.answer = completion(CALM, choice={"logprobs": tokens})
    with setup.client as client:
        answer = client.chat.completions.create(
            model="m", messages=ASK, logprobs=True, top_logprobs=2
        )
        assert answer.choices[0].logprobs.content[0].logprob == -0.1
        setup.upstream.answer = None
        setup.upstream.chunks = [
            *(chunk({"content": CALM}, index=i) for i in range(2)),
            *(chunk({}, "stop", index=i) for i in range(2)),
        ]
        seen: dict[int, str] = {}
        for part in client.chat.completions.create(model="m", messages=ASK, n=2, stream=True):
            for choice in part.choices:
                seen[choice.index] = seen.get(choice.index, "") + (choice.delta.content or "")
        assert seen == {0: CALM, 1: CALM}


def test_completions(setup: Setup) -> None:
    with setup.client as client:
        answer = client.completions.create(model="m", prompt="why do wolves howl?", max_tokens=50)
        assert answer.choices[0].text == SAID
        parts = client.completions.create(model="m", prompt="hi", stream=True)
        assert "".join(part.choices[0].text for part in parts) == SAID


def test_responses(setup: Setup) -> None:
    with setup.client as client:
        answer = client.responses.create(model="m", input="why do wolves howl?", instructions="Hm.")
        assert (answer.output_text, answer.status) == (SAID, "completed")
        held = client.responses.create(model="m", input="a zorblat")
        assert held.status == "incomplete"
        assert held.incomplete_details.reason == "content_filter"
        assert is_kind(held.output_text)
        with client.responses.stream(model="m", input="why do wolves howl?") as stream:
            deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
            final = stream.get_final_response()
        assert "".join(deltas) == final.output_text == SAID
        setup.upstream.__init__('{"city": "Oslo", "degrees": 3}')
        parsed = client.responses.parse(model="m", input="hi", text_format=Weather)
        assert parsed.output_parsed == Weather(city="Oslo", degrees=3)


def test_embeddings_models_and_moderations(setup: Setup) -> None:
    with setup.client as client:
        vector = client.embeddings.create(model="m", input="hi", encoding_format="float")
        assert vector.data[0].embedding == [0.5, -1.0]
        assert [model.id for model in client.models.list()] == ["small-model"]
        result = client.moderations.create(input="i want to vanish").results[0]
        assert result.flagged
        assert result.categories.self_harm_intent
        assert result.category_scores.self_harm_intent == 1.0


def test_a_stream_that_breaks_off_ends_without_an_exception(setup: Setup) -> None:
    setup.upstream.chunks = stream_of([CALM, " And then"], None)
    with setup.client as client:
        parts = list(client.chat.completions.create(model="m", messages=ASK, stream=True))
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text.endswith(INTERRUPTED)
    assert parts[-1].choices[0].finish_reason == "length"


def test_a_client_that_leaves_closes_the_upstream(setup: Setup) -> None:
    from upstreams import wait_until

    setup.upstream.__init__(*[CALM + " "] * 10_000, pause_s=0.005)
    with setup.client as client:
        stream = client.chat.completions.create(model="m", messages=ASK, stream=True)
        for number, _ in enumerate(stream):
            if number == 3:
                break
        stream.close()
    wait_until(lambda: setup.upstream.closed_early == 1, what="the upstream's end")
