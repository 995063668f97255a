"""Child sessions in Redis, for several replicas and workers that share them."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from kidrails_guard.errors import MissingDependency, UsageError
from kidrails_guard.proxy.seams import SessionStoreError

PREFIX = "kidrails:session:"
_log = logging.getLogger("kidrails.sessions")


class RedisSessions:
    """A `SessionStore` in Redis.

    An answer never waits long for it: one command has ``timeout_s``, is not tried again, and after
    a failure Redis is left alone for ``rest_s``. Both ends of an outage are logged.

    Args:
        url: ``redis://host:port/db``, ``rediss://…`` or ``unix://…``.
        timeout_s: for one command, connecting included.
        rest_s: not asked for so long after a failure.
        clock: monotonic seconds.

    Raises:
        MissingDependency: the package redis is not installed.
        UsageError: the URL is not one of Redis.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 0.25,
        rest_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            from redis import asyncio as redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ImportError:
            raise MissingDependency(
                "redis",
                command="pip install 'kidrails-guard[proxy]'",
                purpose="--sessions redis://",
            ) from None
        self._errors: tuple[type[Exception], ...] = (RedisError, OSError, TimeoutError)
        self._rest_s, self._clock = rest_s, clock
        self._asked_again_at, self._answers = float("-inf"), True
        try:
            client: Any = redis.Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                # The package's own tries take up to seconds, with a child waiting.
                retry=Retry(NoBackoff(), 0),
            )
            client.connection_pool.make_connection()  # opens none, but reads ?options
            if client.get_encoder().decode_responses:
                raise ValueError("decode_responses: a session is bytes; leave it out")
        except (ValueError, TypeError) as error:
            raise UsageError(f"sessions: {error}; e.g. redis://localhost:6379/0") from None
        self._client = client

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None where there is none or it has expired.

        Raises:
            SessionStoreError: Redis does not answer; the request goes on without a session.
        """
        value = await self._ask(lambda: self._client.get(PREFIX + key))
        return bytes(value) if value is not None else None

    async def put(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """Keep a value for so long.

        Raises:
            SessionStoreError: Redis does not answer; the request goes on without a session.
        """
        await self._ask(lambda: self._client.set(PREFIX + key, value, ex=ttl_seconds))

    async def _ask(self, command: Callable[[], Awaitable[Any]]) -> Any:
        if self._clock() < self._asked_again_at:
            raise SessionStoreError("redis: has just failed")
        try:
            answer = await command()
        except self._errors as error:
            self._asked_again_at = self._clock() + self._rest_s
            name = type(error).__name__
            if self._answers:
                self._answers = False
                _log.warning("Redis does not answer (%s): requests go on without sessions", name)
            raise SessionStoreError(f"redis: {name}") from None
        if not self._answers:
            self._answers = True
            _log.warning("Redis answers again: sessions go on")
        return answer

    async def close(self) -> None:
        """Release connections."""
        await self._client.aclose()
