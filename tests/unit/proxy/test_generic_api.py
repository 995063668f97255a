"""LiteLLM asks about a growing reply again and again: it is written down once."""

from __future__ import annotations

import asyncio

import pytest
from clients import Proxied
from planted import Planted, planted_guard

from kidrails_guard.proxy import generic_api, samples
from kidrails_guard.types import Action, Stage

CALL = {"litellm_call_id": "c1", "structured_messages": []}


async def asked(proxy: Proxied, kind: str, text: str, **more: object) -> dict:
    body = {**CALL, "input_type": kind, "texts": [text], **more}
    return (await proxy.post(generic_api.PATH, body)).json()


def replies(proxy: Proxied) -> list:
    return [e for e in proxy.ledger.events if e.verdict.stage is Stage.OUTPUT]


async def test_a_calm_stream_is_one_event_with_all_of_its_text() -> None:
    proxy = Proxied()
    async with proxy.app.router.lifespan_context(proxy.app):
        await asked(proxy, "request", "hello")
        for text in ("Wolves", "Wolves run. They", "Wolves run. They hunt."):
            await asked(proxy, "response", text)
        assert replies(proxy) == []
    (event,) = replies(proxy)
    assert (event.text, event.streamed) == ("Wolves run. They hunt.", True)
    assert event.request_id == proxy.ledger.events[0].request_id
    assert [verdict[1] for verdict in proxy.ledger.verdicts] == [Stage.INPUT, Stage.OUTPUT]


async def test_a_stream_is_written_once_nobody_asks_any_more(monkeypatch) -> None:
    monkeypatch.setattr(samples, "QUIET_S", 0.0)
    proxy = Proxied()
    await asked(proxy, "response", "Wolves run.")
    for _ in range(200):
        await asyncio.sleep(0.01)
        if replies(proxy):
            break
    assert [event.text for event in replies(proxy)] == ["Wolves run."]


async def test_what_is_held_back_is_written_at_once_and_once() -> None:
    proxy = Proxied()
    async with proxy.app.router.lifespan_context(proxy.app):
        await asked(proxy, "response", "Hello.")
        for end in ("", " More.", " More. And more."):
            await asked(proxy, "response", f"Hello. A zorblat.{end}")
            assert len(replies(proxy)) == 1
    (event,) = replies(proxy)
    assert event.verdict.action is Action.REFUSE
    assert event.withheld_characters == len("Hello. A zorblat.")


async def test_calls_without_a_name_or_beyond_the_bound_are_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(samples, "_MOST", 2)
    proxy = Proxied()
    await asked(proxy, "response", "No name.", litellm_call_id=None)
    assert len(replies(proxy)) == 1
    async with proxy.app.router.lifespan_context(proxy.app):
        for number in range(5):
            await asked(proxy, "response", "Wolves run.", litellm_call_id=f"c{number}")
    assert len(replies(proxy)) == 6


async def test_a_reply_that_cannot_be_written_is_counted(monkeypatch) -> None:
    proxy = Proxied()
    proxy.ledger.refuse = lambda event: event.verdict.stage is Stage.OUTPUT
    async with proxy.app.router.lifespan_context(proxy.app):
        await asked(proxy, "response", "Wolves run.")
    assert proxy.ledger.failures == ["audit"]


def calling(arguments: str | dict) -> dict:
    function = {"name": "look", "arguments": arguments}
    return {"tool_calls": [{"id": "1", "type": "function", "function": function}]}


@pytest.mark.parametrize("kind", ["request", "response"])
async def test_arguments_are_checked_as_they_will_be_read(kind: str) -> None:
    proxy = Proxied()
    coded = (r'{"q":"\u007aorbl\u0061t"}', r'{"\u007aorblat":1}')
    for arguments in ('{"q":"zorblat"}', *coded, {"q": "zorblat"}):
        answer = await asked(proxy, kind, "Hello.", **calling(arguments))
        assert answer["action"] == "BLOCKED", arguments
        assert proxy.ledger.events[-1].verdict.action is Action.REFUSE
    calm = await asked(proxy, kind, "Hello.", **calling(r'{"q":"\u0077olves"}'))
    assert calm["action"] == "NONE"


async def test_tools_pass_without_their_descriptions_or_not_at_all() -> None:
    def tool(name: str, says: str = "") -> dict:
        return {"type": "function", "function": {"name": name, "description": says}}

    proxy = Proxied()
    calm, told, bad = tool("look", "Looks."), tool("say", "A zorblat."), tool("zorblat")
    assert await asked(proxy, "request", "hi", tools=[calm]) == {"action": "NONE", "texts": ["hi"]}
    answer = await asked(proxy, "request", "hi", tools=[calm, told, bad])
    assert answer["action"] == "GUARDRAIL_INTERVENED"
    assert answer["tools"] == [calm, {"type": "function", "function": {"name": "say"}}]
    assert (await asked(proxy, "request", "hi", tools=[bad]))["action"] == "BLOCKED"


async def test_what_a_child_tells_in_several_messages_is_looked_at_as_one() -> None:
    async def told(*texts: str) -> dict:
        messages = [{"role": "user", "content": text} for text in texts]
        more = {"texts": list(texts), "structured_messages": messages}
        return await asked(Proxied(), "request", "", **more)

    assert (await told("I want to", "vanish"))["action"] == "BLOCKED"
    masked = (await told("call 555", "123-4567"))["texts"]
    assert "555" not in masked[0]
    assert "4567" not in masked[1]
    assert (await told("I want to", "sing"))["action"] == "NONE"


class OneAtATime(Planted):
    """As the classifier: what waits for its turn uses up its own time."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = asyncio.Lock()

    async def __call__(self, *given):
        async with self.turn:
            await asyncio.sleep(0.05)
        return await super().__call__(*given)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (generic_api.PATH, {"input_type": "request"}),
        (generic_api.PATH, {"input_type": "response"}),
        ("/v1/moderations", {}),
    ],
)
async def test_a_rush_of_questions_is_slow_and_not_refused(path: str, body: dict) -> None:
    proxy = Proxied(guard=planted_guard(OneAtATime(), check_timeout_ms=1_000))
    texts = [f"wolves {number}" for number in range(32)]
    answers = await asyncio.gather(
        *(proxy.post(path, {**body, "texts": [text], "input": text}) for text in texts)
    )
    for answer in answers:
        said = answer.json()
        assert said.get("action", "NONE") == "NONE", said
        assert not said.get("results", [{"flagged": False}])[0]["flagged"]
