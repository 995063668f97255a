"""A session: told once that this is a program, a break in time, wary after heavy turns."""

from __future__ import annotations

import pytest
from clients import Proxied, Scripted, reply
from planted import Planted, notice, planted_guard
from starlette.responses import Response
from upstreams import CALM, Says, completion

from kidrails_guard.guard import Guard
from kidrails_guard.proxy.seams import SessionStoreError
from kidrails_guard.proxy.sittings import Sittings
from kidrails_guard.session import MemoryStore

HELLO = notice("disclosure", "hello")
BREAK = notice("break", "hello")
SESSION = {"x-kidrails-session": "room-1"}


def at(proxy: Proxied, store: object = None):
    """Give the proxy a clock and a store of the test's."""
    now = [1_000_000.0]
    kept = MemoryStore() if store is None else store
    proxy.app.state.service.sittings = Sittings(kept, proxy.ledger, clock=lambda: now[0])
    return now, kept


async def said(proxy: Proxied, text: str = "hello", *, stream: bool, **more) -> str:
    if stream:
        return (await proxy.stream(text, headers=SESSION, **more)).text()
    return reply(await proxy.chat(text, headers=SESSION, **more))["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_reply_of_a_session_says_that_this_is_a_program(stream: bool) -> None:
    proxy = Proxied()
    assert await said(proxy, stream=stream) == f"{HELLO}\n\n{CALM}"
    assert await said(proxy, stream=stream) == CALM
    # Without a session nobody knows where a talk begins.
    assert reply(await proxy.chat("hello"))["message"]["content"] == CALM
    quiet = Proxied(settings={"disclosure": False})
    assert await said(quiet, stream=stream) == CALM


@pytest.mark.parametrize("stream", [False, True])
async def test_a_break_is_offered_after_three_hours_and_not_again_at_once(stream: bool) -> None:
    proxy = Proxied()
    now, _ = at(proxy)
    await said(proxy, stream=stream)
    for _ in range(5):
        now[0] += 30 * 60
        assert await said(proxy, stream=stream) == CALM
    now[0] += 31 * 60
    # Who is in danger is not sent out to play.
    offered = notice("break", "i want to vanish")
    assert offered not in await said(proxy, "i want to vanish", stream=stream)
    assert await said(proxy, stream=stream) == f"{CALM}\n\n{BREAK}"
    assert await said(proxy, stream=stream) == CALM


HELD = "Here is a zorblat. "


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", ["blocked", "failed", "held back", "json"])
async def test_nothing_counts_as_said_before_a_reply_has_said_it(first: str, stream: bool) -> None:
    proxy = Proxied()
    now, _ = at(proxy)

    async def without_words() -> None:
        """A turn whose reply shows no notice."""
        upstream = proxy.upstream
        if first == "blocked":
            await said(proxy, "i want to vanish", stream=stream)
        elif first == "failed":
            upstream.answer = Response(b"{}", 503)
            response = await proxy.chat("hello", stream=stream, headers=SESSION)
            assert response.status_code == 502
        elif first == "held back":
            upstream.pieces = [HELD]
            assert "zorblat" not in await said(proxy, stream=False)
        else:
            upstream.pieces = ["{}"]
            form = {"type": "json_object"}
            assert await said(proxy, stream=stream, response_format=form) == "{}"
        upstream.answer, upstream.pieces = None, [CALM]

    await without_words()
    assert await said(proxy, stream=stream) == f"{HELLO}\n\n{CALM}"
    for _ in range(5):
        now[0] += 30 * 60
        assert await said(proxy, stream=stream) == CALM
    now[0] += 31 * 60
    await without_words()
    assert await said(proxy, stream=stream) == f"{CALM}\n\n{BREAK}"
    assert await said(proxy, stream=stream) == CALM


async def test_a_stream_that_was_stopped_has_told_its_first_words_and_no_last_ones() -> None:
    proxy = Proxied()
    now, _ = at(proxy)
    proxy.upstream.pieces = [f"{CALM} {HELD}"]
    assert (await said(proxy, stream=True)).startswith(f"{HELLO}\n\n{CALM}")
    assert BREAK not in await said(proxy, stream=True)
    proxy.upstream.pieces = [CALM]
    for _ in range(6):
        now[0] += 30 * 60
        proxy.upstream.pieces = [f"{CALM} {HELD}"]
        assert BREAK not in await said(proxy, stream=True)
    proxy.upstream.pieces = [CALM]
    assert await said(proxy, stream=True) == f"{CALM}\n\n{BREAK}"


async def test_no_words_stand_around_json() -> None:
    proxy = Proxied(Says('{"a": 1}'))
    text = await said(proxy, stream=False, response_format={"type": "json_object"})
    assert text == '{"a": 1}'


async def test_a_crisis_comes_without_a_preface() -> None:
    proxy = Proxied()
    preface = notice("disclosure", "i want to vanish")
    assert preface not in await said(proxy, "i want to vanish", stream=False)


async def test_after_heavy_turns_the_reply_is_held_to_the_stricter_check() -> None:
    strict = []

    class Watching(Guard):
        async def check_output(self, *args, **more):
            strict.append(more["strict"])
            return await super().check_output(*args, **more)

    proxy = Proxied(guard=Watching(checks=[Planted()]))
    at(proxy)
    await said(proxy, stream=False)
    await said(proxy, "i want to vanish", stream=False)
    await said(proxy, "why is the sky blue?", stream=False)
    half = len(strict) // 2  # as many looks at the first reply as at the second
    assert strict == [False] * half + [True] * half
    await said(proxy, "why is the sky blue?", stream=False)
    assert strict[-1] is False


async def test_sessions_of_two_tenants_never_meet_and_keys_tell_nothing() -> None:
    keys = []

    class Watching(MemoryStore):
        async def put(self, key, value, *, ttl_seconds):
            keys.append(key)
            assert len(value) < 1024
            await super().put(key, value, ttl_seconds=ttl_seconds)

    proxy = Proxied()
    at(proxy, Watching())
    await said(proxy, stream=False)
    sittings = proxy.app.state.service.sittings
    first = await sittings.turn(
        "other", "room-1", proxy.ledger.events[0].verdict, break_after_minutes=180
    )
    assert first.disclosure_due
    assert len(set(keys)) == 2
    assert all("room" not in key for key in keys)


async def test_a_store_that_fails_changes_nothing_else() -> None:
    class Down(MemoryStore):
        async def get(self, key):
            raise SessionStoreError("redis: ConnectionError")

    proxy = Proxied(Scripted(answer=completion(CALM)), guard=planted_guard())
    at(proxy, Down())
    assert await said(proxy, stream=False) == CALM
    assert proxy.ledger.failures == ["session_store"]
