"""The litellm SDK against the proxy, and the litellm SDK as the proxy's way to a model."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from clients import Proxied, problem, reply
from planted import is_kind, planted_guard
from upstreams import CALM, Says, chunk, completion, served

from kidrails_guard.proxy.app import build_app
from kidrails_guard.proxy.litellm_upstream import LiteLLMUpstream
from kidrails_guard.proxy.seams import OneTenant
from kidrails_guard.proxy.settings import Settings

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
litellm = pytest.importorskip("litellm", reason="pip install 'litellm==1.106.2'")
litellm.telemetry = False
litellm.suppress_debug_info = True

pytestmark = pytest.mark.filterwarnings("ignore")  # litellm's own, at import and at close

PIECES = [word + " " for word in CALM.split(" ")]
SAID = "".join(PIECES)
ASK = [{"role": "user", "content": "why do wolves howl?"}]
BAD = [{"role": "user", "content": "a zorblat please"}]


@pytest.fixture(scope="module")
def upstream() -> Iterator[tuple[Says, str]]:
    says = Says(*PIECES)
    with served(says.app) as base:
        yield says, base


@pytest.fixture(scope="module")
def options(upstream) -> Iterator[dict]:
    app = build_app(Settings(upstream[1]), tenants=OneTenant(planted_guard()))
    with served(app) as proxy:
        yield {"model": "openai/m", "api_base": f"{proxy}/v1", "api_key": "x", "num_retries": 0}


def test_plain_and_blocked(options) -> None:
    answer = litellm.completion(messages=ASK, **options)
    assert answer.choices[0].message.content == SAID
    assert answer.usage.total_tokens == 12
    answer = litellm.completion(messages=BAD, **options)
    assert answer.choices[0].finish_reason == "content_filter"
    assert is_kind(answer.choices[0].message.content)


def test_streaming(options) -> None:
    for messages, finish in ((ASK, "stop"), (BAD, "content_filter")):
        chunks = list(litellm.completion(messages=messages, stream=True, **options))
        text = "".join(c.choices[0].delta.content or "" for c in chunks)
        assert (text == SAID) == (finish == "stop")
        assert chunks[-1].choices[0].finish_reason == finish


def test_errors(options) -> None:
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(messages=ASK, temperature=9, **options)


@pytest.fixture
def through_litellm(upstream, monkeypatch) -> tuple[Proxied, Says]:
    says, base = upstream
    says.__init__(*PIECES)
    monkeypatch.setenv("KIDRAILS_LITELLM_API_BASE", f"{base}/v1")
    settings = Settings("litellm:openai/small", upstream_key="sk-ours", read_timeout_s=5)
    return Proxied(LiteLLMUpstream(settings)), says


async def test_litellm_as_the_upstream(through_litellm) -> None:
    proxy, says = through_litellm
    assert reply(await proxy.chat("hello"))["message"]["content"] == SAID
    assert says.asked[-1]["model"] == "small"
    assert says.headers[-1]["authorization"] == "Bearer sk-ours"
    streamed = await proxy.stream("hello", stream_options={"include_usage": True})
    assert streamed.text() == SAID
    assert streamed.finish() == "stop"
    assert streamed.usage
    says.__init__("A calm sentence, to begin with. ", "Now take kaboomium. ")
    streamed = await proxy.stream("hello")
    assert streamed.text().startswith("A calm sentence, to begin with. \n\n")
    assert streamed.finish() == "content_filter"


async def test_litellms_tool_calls_and_errors_are_ours(through_litellm) -> None:
    from starlette.responses import JSONResponse

    proxy, says = through_litellm
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    says.answer = completion(None, message={"tool_calls": [call]}, finish="tool_calls")
    says.chunks = [chunk({"tool_calls": [{"index": 0, **call}]}), chunk({}, "tool_calls")]
    choice = reply(await proxy.chat("hello", tools=tools))
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "look"
    assert (await proxy.stream("hello", tools=tools)).finish() == "tool_calls"
    for status, ours in ((404, 404), (401, 502), (429, 429), (400, 400), (500, 503)):
        says.answer = JSONResponse({"error": {"message": "zorblat"}}, status)
        response = await proxy.chat("hello")
        assert response.status_code == ours
        assert "zorblat" not in response.text
        assert problem(response)["code"]
