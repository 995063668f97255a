"""Sessions in a real Redis: shared, bounded in time, and no danger when Redis is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from clients import Proxied, reply
from planted import notice, planted_guard
from redis_process import RedisProcess
from upstreams import CALM

from kidrails_guard.errors import UsageError
from kidrails_guard.proxy.redis_sessions import PREFIX, RedisSessions
from kidrails_guard.proxy.seams import SessionStoreError
from kidrails_guard.proxy.sittings import Sittings
from kidrails_guard.session import MAX_BYTES, TTL_S, load_state

SESSION = {"x-kidrails-session": "room-1"}
HELLO = notice("disclosure", "hello")


@pytest.fixture
def redis(tmp_path) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path)
    yield server
    server.kill()


class Replica(Proxied):
    """A proxy that keeps its sessions in the Redis of the test."""

    def __init__(self, url: str) -> None:
        super().__init__(guard=planted_guard())
        self.store = RedisSessions(url, rest_s=0.0)
        self.now = [time.time()]
        sittings = Sittings(self.store, self.ledger, clock=lambda: self.now[0])
        self.app.state.service.sittings = sittings

    async def says(self, text: str = "hello") -> str:
        return reply(await self.chat(text, headers=SESSION))["message"]["content"]


async def test_what_is_kept_comes_back_until_its_time_is_over(redis: RedisProcess) -> None:
    store = RedisSessions(redis.url)
    assert await store.get("a") is None
    await store.put("a", b"\x00\xff", ttl_seconds=1)
    assert await store.get("a") == b"\x00\xff"
    await asyncio.sleep(1.2)
    assert await store.get("a") is None
    await store.close()


async def test_two_replicas_share_a_session(redis: RedisProcess) -> None:
    first, second = Replica(redis.url), Replica(redis.url)
    assert await first.says() == f"{HELLO}\n\n{CALM}"
    assert await second.says() == CALM  # told once, by whichever came first
    for minutes in (50, 100, 150):
        second.now[0] = first.now[0] + minutes * 60
        assert await second.says() == CALM
    first.now[0] += 181 * 60
    assert await first.says() == f"{CALM}\n\n{notice('break', 'hello')}"
    second.now[0] = first.now[0] + 60
    assert await second.says() == CALM  # offered once
    for replica in (first, second):
        assert replica.ledger.failures == []
        await replica.store.close()


async def test_redis_holds_numbers_alone_and_forgets_by_itself(redis: RedisProcess) -> None:
    replica = Replica(redis.url)
    await replica.says("i want to vanish")
    client = replica.store._client
    (key,) = [key async for key in client.scan_iter()]
    assert key.startswith(PREFIX.encode())
    assert b"room" not in key
    value = await client.get(key)
    assert len(value) <= MAX_BYTES
    assert b"vanish" not in value
    assert load_state(value).turns == 1
    assert 0 < await client.ttl(key) <= TTL_S
    await replica.store.close()


async def test_foreign_values_begin_the_session_anew(redis: RedisProcess) -> None:
    replica = Replica(redis.url)
    await replica.says()
    client = replica.store._client
    (key,) = [key async for key in client.scan_iter()]
    await client.set(key, b"\x80 not ours")
    assert await replica.says() == f"{HELLO}\n\n{CALM}"
    await client.delete(key)
    await client.lpush(key, "a list")  # Redis itself refuses to read it as a value
    assert await replica.says() == CALM
    assert replica.ledger.failures == ["session_store"]
    await replica.store.close()


@pytest.mark.parametrize("how", ["kill", "hang"])
async def test_without_redis_each_message_is_still_checked_and_soon(
    redis: RedisProcess, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    replica = Replica(redis.url)
    replica.store._rest_s = 60.0
    await replica.says()
    getattr(redis, how)()
    for _ in range(20):
        assert await replica.says() == CALM
    refused = await replica.chat("a zorblat", headers=SESSION)
    assert refused.headers["x-kidrails-action"] == "refuse"
    assert replica.ledger.failures == ["session_store"] * 21
    assert caplog.text.count("does not answer") == 1
    redis.go_on() if how == "hang" else redis.start()
    replica.store._asked_again_at = float("-inf")
    await replica.says()
    assert replica.ledger.failures == ["session_store"] * 21
    assert caplog.text.count("answers again") == 1
    await replica.store.close()


async def test_a_failing_redis_is_asked_once_and_then_left_alone() -> None:
    calls = 0

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.close()
        await writer.wait_closed()

    now = [100.0]
    async with await asyncio.start_server(break_off, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        store = RedisSessions(f"redis://127.0.0.1:{port}/0", rest_s=1.0, clock=lambda: now[0])
        for _ in range(5):
            with pytest.raises(SessionStoreError, match="redis"):
                await store.get("a")
        assert calls == 1
        now[0] += 1.5
        with pytest.raises(SessionStoreError, match="ConnectionError"):
            await store.put("a", b"x", ttl_seconds=5)
        assert calls == 2
        await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:port",
        "redis://localhost:6379?db=x",
        "redis://h/0?foo=x",
        "x://y",
        "redis://h/0?decode_responses=true",
    ],
)
def test_a_wrong_url_is_said_at_start(url: str) -> None:
    with pytest.raises(UsageError, match="sessions: "):
        RedisSessions(url)
