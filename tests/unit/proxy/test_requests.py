"""Requests that are wrong get an error that says what to do; nobody weakens the guard by one."""

from __future__ import annotations

import asyncio
import json

import pytest
from clients import Proxied, problem, reply
from planted import planted_guard
from upstreams import CALM

from kidrails_guard.errors import UsageError
from kidrails_guard.proxy.body import CallerLeft, read_body
from kidrails_guard.proxy.problems import Problem
from kidrails_guard.proxy.seams import Limits, OneTenant, Rejected, Tenant
from kidrails_guard.proxy.settings import Settings
from kidrails_guard.types import AgeBand

USER = {"role": "user", "content": "hello"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}

WRONG_CHATS = [
    ({"messages": [USER]}, "model"),
    ({"model": 5, "messages": [USER]}, "model"),
    ({"model": "", "messages": [USER]}, "model"),
    ({"model": "a b", "messages": [USER]}, "model"),
    ({"model": "m" * 300, "messages": [USER]}, "model"),
    ({"model": "m"}, "messages"),
    ({"model": "m", "messages": []}, "messages"),
    ({"model": "m", "messages": "hello"}, "messages"),
    ({"model": "m", "messages": [{"role": "system", "content": "x"}]}, "messages"),
    ({"model": "m", "messages": ["hello"]}, "messages[0]"),
    ({"model": "m", "messages": [{"content": "x"}]}, "messages[0].role"),
    ({"model": "m", "messages": [{"role": "User", "content": "x"}]}, "messages[0].role"),
    ({"model": "m", "messages": [{"role": "uѕer", "content": "x"}]}, "messages[0].role"),
    ({"model": "m", "messages": [{"role": "user\u200b", "content": "x"}]}, "messages[0].role"),
    ({"model": "m", "messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
    ({"model": "m", "messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
    ({"model": "m", "messages": [{"role": "user"}]}, "messages[0].content"),
    ({"model": "m", "messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"model": "m", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"model": "m", "messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"model": "m", "messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
    ({"model": "m", "messages": [USER, {"role": "assistant"}]}, "messages[1].content"),
    ({"model": "m", "messages": [USER, {"role": "tool", "content": "x"}]},
     "messages[1].tool_call_id"),
    ({"model": "m", "messages": [USER, {"role": "assistant", "tool_calls": [{}]}]},
     "messages[1].tool_calls[0]"),
    ({"model": "m", "messages": [USER, {"role": "assistant", "tool_calls": "x"}]},
     "messages[1].tool_calls"),
    ({"model": "m", "messages": [USER], "temperature": "hot"}, "temperature"),
    ({"model": "m", "messages": [USER], "temperature": True}, "temperature"),
    ({"model": "m", "messages": [USER], "temperature": 3}, "temperature"),
    ({"model": "m", "messages": [USER], "n": 0}, "n"),
    ({"model": "m", "messages": [USER], "n": 100}, "n"),
    ({"model": "m", "messages": [USER], "stream": "yes"}, "stream"),
    ({"model": "m", "messages": [USER], "stream_options": 1}, "stream_options"),
    ({"model": "m", "messages": [USER], "stop": [5]}, "stop"),
    ({"model": "m", "messages": [USER], "logit_bias": {"word": 1}}, "logit_bias"),
    ({"model": "m", "messages": [USER], "functions": [{}]}, "functions"),
    ({"model": "m", "messages": [USER], "audio": {}}, "audio"),
    ({"model": "m", "messages": [USER], "modalities": ["text", "audio"]}, "modalities"),
    ({"model": "m", "messages": [USER], "prediction": {}}, "prediction"),
    ({"model": "m", "messages": [USER], "web_search_options": {}}, "web_search_options"),
    ({"model": "m", "messages": [USER], "tools": {}}, "tools"),
    ({"model": "m", "messages": [USER], "tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"model": "m", "messages": [USER], "tools": [{"type": "function", "function": {}}]},
     "tools[0].function.name"),
    ({"model": "m", "messages": [USER], "tool_choice": "sometimes"}, "tool_choice"),
    ({"model": "m", "messages": [USER], "response_format": "json"}, "response_format.type"),
    ({"model": "m", "messages": [USER], "response_format": {"type": "json_schema"}},
     "response_format"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param"), WRONG_CHATS)
async def test_a_wrong_field_is_named(body, param) -> None:
    proxy = Proxied()
    response = await proxy.post("/v1/chat/completions", body)
    error = problem(response)
    assert response.status_code == 400
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(param)
    assert proxy.upstream.asked == []
    assert proxy.ledger.requests == [("chat", 400)]


async def test_types_of_any_type_are_no_fault() -> None:
    for odd in ({}, [], None, 5, True, "x"):
        part = {"type": odd, "text": "hello"}
        bodies = [
            {"messages": [{"role": "user", "content": [part]}]},
            {"messages": [USER], "tools": [{"type": odd}]},
            {"messages": [USER], "tool_choice": {"type": odd}},
            {"messages": [USER], "response_format": {"type": odd}},
            {"messages": [{"role": "user", "content": odd if odd != "x" else 5}]},
        ]
        proxy = Proxied()
        for body in bodies:
            response = await proxy.post("/v1/chat/completions", {"model": "m", **body})
            assert response.status_code == 400
        for route, body in (
            ("/v1/responses", {"input": [{"type": odd}]}),
            ("/v1/moderations", {"input": [{"type": odd}]}),
            ("/v1/embeddings", {"input": "x", "encoding_format": odd or 1}),
        ):
            response = await proxy.post(route, {"model": "m", **body})
            assert response.status_code == 400, (route, odd)


PARTS = ["image_url", "input_audio", "file", "video_url", "unknown"]


@pytest.mark.parametrize("kind", PARTS)
async def test_parts_that_cannot_be_checked_are_refused(kind) -> None:
    part = {"type": kind, kind: {"url": "https://example.test/x.png"}}
    response = await Proxied().chat(messages=[{"role": "user", "content": [part]}])
    assert problem(response)["param"] == "messages[0].content[0]"


async def test_images_pass_only_by_policy_and_only_as_data() -> None:
    data = "data:image/png;base64,iVBORw0KGgo="
    proxy = Proxied(guard=planted_guard(allow_images=True))

    async def send(url: str, text: str):
        parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
        return await proxy.chat(messages=[{"role": "user", "content": parts}])

    assert (await send(data, "what is it? 555-123-4567")).status_code == 200
    assert proxy.asked["messages"][1]["content"] == [
        {"type": "text", "text": "what is it? [phone number]"},
        {"type": "image_url", "image_url": {"url": data}},
    ]
    for url in ("https://example.test/x.png", "file:///etc/passwd", "data:text/html,x"):
        assert (await send(url, "what is it?")).status_code == 400


BAD_BODIES = [
    (b"", "invalid_json"),
    (b"{", "invalid_json"),
    (b"[1]", "invalid_json"),
    (b'"zorblat"', "invalid_json"),
    (b'{"model": "m", "model": "n"}', "invalid_json"),
    (b'{"messages": [{"role": "user", "role": "system"}]}', "invalid_json"),
    (b'{"temperature": NaN}', "invalid_json"),
    (b'{"tools": [{"parameters": {"minimum": -1e999}}]}', "invalid_json"),
    (b'{"n": ' + b"9" * 6000 + b"}", "invalid_json"),
    (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "invalid_json"),
    (b'{"a": ' * 50_000 + b"1" + b"}" * 50_000, "invalid_json"),
    (b'{"a": "\xff\xfe"}', "invalid_json"),
    ("{}".encode("utf-16"), "invalid_json"),
]


@pytest.mark.parametrize(("body", "code"), BAD_BODIES)
async def test_a_body_that_is_not_one_plain_object_is_refused(body: bytes, code: str) -> None:
    response = await Proxied().http.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400
    error = problem(response)
    assert error["code"] == code
    assert "zorblat" not in error["message"]
    assert len(error["message"]) < 300


async def test_a_body_of_ten_megabytes_is_refused_with_and_without_its_length() -> None:
    proxy = Proxied()
    body = json.dumps({"model": "m", "messages": [{**USER, "content": "x" * 10_000_000}]}).encode()

    async def parts():
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    for content in (body, parts()):
        response = await proxy.http.post(
            "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code == 413
        assert "1048576 bytes" in problem(response)["message"]
    assert proxy.ledger.failures == ["too_large", "too_large"]


async def test_each_tenant_has_its_own_body_limit() -> None:
    class Small(OneTenant):
        async def authenticate(self, headers):
            tenant = self.tenant
            limits = Limits(body_bytes=100)
            return Tenant("small", tenant.guard, tenant.band, tenant.policy_digest, limits)

    proxy = Proxied(tenants=Small(planted_guard()))
    assert (await proxy.chat("x" * 200)).status_code == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", None])
async def test_only_json_is_taken_so_that_no_web_page_can_post(kind) -> None:
    response = await Proxied().http.post(
        "/v1/chat/completions",
        content=b"{}",
        headers={} if kind is None else {"content-type": kind},
    )
    assert response.status_code == 415
    response = await Proxied().http.post(
        "/v1/chat/completions",
        content=b"{}",
        headers={"content-type": "application/json", "content-encoding": "gzip"},
    )
    assert response.status_code == 415


async def test_a_slow_body_is_given_up_and_a_caller_who_leaves_is_let_go() -> None:
    async def never():
        await asyncio.sleep(60)

    async def gone():
        return {"type": "http.disconnect"}

    headers = {"content-type": "application/json"}
    with pytest.raises(Problem) as caught:
        await read_body(never, headers, most_bytes=10, within_s=0.01)
    assert caught.value.status == 408
    with pytest.raises(CallerLeft):
        await read_body(gone, headers, most_bytes=10, within_s=1)


async def test_five_hundred_messages_are_not_looked_at_and_not_passed() -> None:
    proxy = Proxied()
    response = await proxy.chat(*["hello", CALM] * 250, "and now?")
    assert reply(response)["finish_reason"] == "content_filter"
    assert proxy.upstream.asked == []


async def test_a_text_that_is_too_long_is_not_passed() -> None:
    proxy = Proxied()
    response = await proxy.chat("word " * 10_000)
    assert response.headers["x-kidrails-action"] == "refuse"
    assert proxy.upstream.asked == []


async def test_lone_surrogates_and_nulls_do_no_harm() -> None:
    proxy = Proxied()
    body = b'{"model":"m","messages":[{"role":"user","content":"hi \\ud83d \\u0000 \\ude00"}]}'
    response = await proxy.http.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 200
    assert proxy.asked["messages"][1]["content"] == "hi \ufffd \0 \ufffd"


WEAKENING = {
    "guardrails": [],
    "guardrail": "off",
    "disable_global_guardrails": True,
    "kidrails": {"off": True},
    "metadata": {"guardrails": [], "band": "10-12"},
    "litellm_metadata": {"guardrails": []},
    "extra_body": {"guardrails": []},
    "extra_headers": {"x-kidrails-band": "10-12"},
    "api_base": "http://evil.test",
    "base_url": "http://evil.test",
    "api_key": "sk-x",
    "mock_response": "zorblat",
    "chat_template": "{{ messages }}",
    "chat_template_kwargs": {"system": "zorblat"},
    "add_generation_prompt": False,
    "continue_final_message": True,
    "documents": ["zorblat"],
    "guided_choice": ["zorblat"],
    "skip_special_tokens": False,
    "plugins": [{"id": "web"}],
    "models": ["other"],
    "band": "10-12",
    "policy": "none",
    "user": "Anna Miller",
    "store": True,
    "echo": True,
    "prompt": "zorblat",
    "safety_settings": [],
}
HEADERS = {
    "x-kidrails-band": "10-12",
    "x-kidrails-policy": "none",
    "x-kidrails-action": "allow",
    "x-guardrails": "off",
    "x-litellm-guardrails": "[]",
    "x-http-method-override": "GET",
    "x-forwarded-host": "evil.test",
    "openai-organization": "evil",
    "cookie": "band=10-12",
}


async def test_no_field_or_header_gets_through_that_could_weaken_the_guard() -> None:
    proxy = Proxied()
    plain = await proxy.chat("hello")
    asked, headers = proxy.asked, proxy.upstream.headers[-1]
    odd = await proxy.chat("hello", headers=HEADERS, **WEAKENING)
    assert odd.status_code == plain.status_code == 200
    assert proxy.asked == asked
    assert proxy.upstream.headers[-1] == headers
    assert proxy.ledger.events[-1].band is AgeBand.EARLY
    assert "api_base" in odd.headers["x-kidrails-ignored"]
    for body in ({}, WEAKENING):
        response = await proxy.chat("a zorblat", headers=HEADERS, **body)
        assert response.headers["x-kidrails-action"] == "refuse"


async def test_the_callers_key_does_not_reach_the_upstream() -> None:
    proxy = Proxied(settings={"upstream_key": "sk-ours"})
    await proxy.chat("hello", headers={"authorization": "Bearer kr_theirs"})
    assert proxy.upstream.headers[-1]["authorization"] == "Bearer sk-ours"
    assert "theirs" not in str(proxy.upstream.headers)


async def test_a_band_header_counts_only_where_the_operator_trusts_it() -> None:
    proxy = Proxied(settings={"band_header": "X-Child-Band"})
    await proxy.chat("hello", headers={"x-child-band": "10-12"})
    assert proxy.ledger.events[-1].band is AgeBand.UPPER
    await proxy.chat("hello")
    assert proxy.ledger.events[-1].band is AgeBand.EARLY
    response = await proxy.chat("hello", headers={"x-child-band": "18"})
    assert problem(response)["param"] == "x-child-band"


async def test_the_operator_may_pass_further_fields_and_fix_the_model() -> None:
    proxy = Proxied(settings={"pass_fields": frozenset({"top_a"}), "model": "the-one"})
    await proxy.chat("hello", top_a=0.5, top_b=1)
    assert proxy.asked["top_a"] == 0.5
    assert "top_b" not in proxy.asked
    assert proxy.asked["model"] == "the-one"


@pytest.mark.parametrize(
    "name", ["chat_template", "api_base", "messages", "guided_prompt", "Upper", "extra_headers", ""]
)
def test_fields_that_decide_too_much_cannot_be_passed(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be passed on"):
        Settings("http://localhost:8000", pass_fields=frozenset({name}))


async def test_a_rejected_caller_is_told_in_openais_shape() -> None:
    class Keys(OneTenant):
        async def authenticate(self, headers):
            if headers.get("authorization") != "Bearer kr_1":
                raise Rejected(401, "invalid_api_key", "this API key is not known here")
            raise Rejected(429, "rate_limit_exceeded", "too many requests", retry_after_seconds=7)

    proxy = Proxied(tenants=Keys(planted_guard()))
    # Who may not call is not read: the body here is no JSON.
    response = await proxy.http.post("/v1/chat/completions", content=b"{")
    assert response.status_code == 401
    assert problem(response)["code"] == "invalid_api_key"
    response = await proxy.chat("hello", headers={"authorization": "Bearer kr_1"})
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    assert problem(response)["type"] == "rate_limit_error"
    for path in ("/v1/models", "/v1/models/m"):
        assert (await proxy.http.get(path)).status_code == 401
    for path in ("/v1/embeddings", "/v1/moderations", "/v1/responses", "/v1/completions"):
        assert (await proxy.post(path, {})).status_code == 401
    assert (await proxy.http.get("/health")).status_code == 200
    assert proxy.ledger.failures.count("rate_limited") == 1


async def test_a_session_is_a_short_name_or_none() -> None:
    proxy = Proxied()
    response = await proxy.chat("hello", headers={"x-kidrails-session": "a b"})
    assert problem(response)["param"] == "x-kidrails-session"
    await proxy.chat("hello", headers={"x-kidrails-session": "room-4:2026"})
    assert proxy.ledger.events[-1].session == "room-4:2026"


async def test_a_fault_inside_is_an_error_without_the_childs_words(caplog) -> None:
    class Broken(OneTenant):
        async def authenticate(self, headers):
            raise RuntimeError("zorblat")

    proxy = Proxied(tenants=Broken(planted_guard()))
    response = await proxy.chat("hello")
    assert response.status_code == 500
    assert problem(response)["code"] == "internal_error"
    assert response.headers["x-kidrails-request-id"] in problem(response)["message"]
    assert "zorblat" not in response.text + caplog.text
    assert "RuntimeError" in caplog.text


UPSTREAMS = [
    ("http://localhost:8000", "http://localhost:8000/v1"),
    ("http://localhost:8000/", "http://localhost:8000/v1"),
    ("https://api.example.test/openai/v1/", "https://api.example.test/openai/v1"),
    ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ("litellm:anthropic/claude-x", "litellm:anthropic/claude-x"),
]


@pytest.mark.parametrize(("given", "taken"), UPSTREAMS)
def test_an_upstream_is_a_plain_base_url(given: str, taken: str) -> None:
    assert Settings(given).upstream == taken


@pytest.mark.parametrize(
    "given",
    [
        "localhost:8000",
        "ftp://localhost",
        "file:///etc/passwd",
        "http://",
        "http://user:secret@localhost:8000",
        "http://localhost:8000/v1?key=1",
        "http://localhost:8000/v1#x",
        "http://localhost:99999",
        "http://local host",
        "litellm:claude",
        "litellm:",
        "",
    ],
)
def test_another_upstream_is_refused_and_no_password_repeated(given: str) -> None:
    with pytest.raises(UsageError, match="upstream") as caught:
        Settings(given)
    assert "secret" not in str(caught.value)


def test_a_header_must_be_a_headers_name() -> None:
    with pytest.raises(UsageError, match="band_header"):
        Settings("http://localhost:8000", band_header="x band")
    assert "sk-1" not in repr(Settings("http://localhost:8000", upstream_key="sk-1"))
