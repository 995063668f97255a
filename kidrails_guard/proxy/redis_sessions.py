"""Child sessions in Redis, for several replicas that share them."""

from __future__ import annotations

from typing import Any

from kidrails_guard.errors import MissingDependency, UsageError
from kidrails_guard.proxy.seams import SessionStoreError

PREFIX = "kidrails:session:"


class RedisSessions:
    """A `SessionStore` in Redis.

    Args:
        url: ``redis://host:port/db``, ``rediss://…`` or ``unix://…``.
        timeout_s: for one command; an answer must not wait for a store.

    Raises:
        MissingDependency: the package redis is not installed.
        UsageError: the URL is not one of Redis.
    """

    def __init__(self, url: str, *, timeout_s: float = 0.25) -> None:
        try:
            from redis import asyncio as redis
            from redis.exceptions import RedisError
        except ImportError:
            raise MissingDependency(
                "redis",
                command="pip install 'kidrails-guard[proxy]'",
                purpose="--sessions redis://",
            ) from None
        self._errors: tuple[type[Exception], ...] = (RedisError, OSError, TimeoutError)
        try:
            self._client: Any = redis.Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
            )
        except ValueError as error:
            raise UsageError(f"sessions: {error}; e.g. redis://localhost:6379/0") from None

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None where there is none or it has expired.

        Raises:
            SessionStoreError: Redis does not answer; the request goes on without a session.
        """
        try:
            value = await self._client.get(PREFIX + key)
        except self._errors as error:
            raise SessionStoreError(f"redis: {type(error).__name__}") from None
        return bytes(value) if value is not None else None

    async def put(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """Keep a value for so long.

        Raises:
            SessionStoreError: Redis does not answer; the request goes on without a session.
        """
        try:
            await self._client.set(PREFIX + key, value, ex=ttl_seconds)
        except self._errors as error:
            raise SessionStoreError(f"redis: {type(error).__name__}") from None

    async def close(self) -> None:
        """Release connections."""
        await self._client.aclose()
