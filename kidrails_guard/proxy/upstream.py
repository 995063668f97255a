"""The model server behind the proxy: what it is asked, and everything that it can get wrong.

Nothing that an upstream says leaves unchecked, so its error messages do not either: they are
replaced by our own words.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, cast

import httpx

from kidrails_guard.errors import UpstreamError
from kidrails_guard.proxy.problems import UpstreamProblem
from kidrails_guard.proxy.settings import Settings
from kidrails_guard.proxy.sse import EventReader
from kidrails_guard.proxy.transport import FRESH, AioTransport
from kidrails_guard.proxy.upstream_problems import (
    bad_answer,
    broken_off,
    refused,
    too_slow,
    unreachable,
    word,
)

Json = dict[str, Any]

MOST_BYTES: Final = 16 * 1024 * 1024
"""Of one whole answer."""


class Upstream(Protocol):
    """Asks a model. Every method raises `UpstreamProblem` and nothing else on a failure."""

    async def chat(self, body: Json) -> Json:
        """Return a ``chat.completion``."""
        ...

    async def chat_stream(self, body: Json) -> AsyncGenerator[Json, None]:
        """Return the stream of ``chat.completion.chunk``, once the upstream has accepted."""
        ...

    async def embeddings(self, body: Json) -> Json:
        """Return embeddings."""
        ...

    async def models(self) -> Json:
        """Return the list of models."""
        ...

    async def ready(self) -> bool:
        """Whether it answers now."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class HttpUpstream:
    """An OpenAI-compatible API behind a URL.

    The transport is used without a client: no redirects are followed, no cookies kept, no proxy
    taken from the environment, by construction.
    """

    def __init__(
        self, settings: Settings, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._base = httpx.URL(settings.upstream)
        self._timeouts = {
            "connect": settings.connect_timeout_s,
            "read": settings.read_timeout_s,
            "write": settings.read_timeout_s,
            "pool": settings.connect_timeout_s,
        }
        self._longest_s = settings.answer_timeout_s
        self._transport = transport or AioTransport(connections=settings.upstream_connections)
        self._urls: dict[str, httpx.URL] = {}
        self._headers = [
            (b"host", self._base.netloc),
            (b"accept", b"application/json, text/event-stream"),
            (b"accept-encoding", b"identity"),
            (b"user-agent", b"kidrails"),
        ]
        if settings.upstream_key:
            self._headers.append((b"authorization", b"Bearer " + settings.upstream_key.encode()))

    async def chat(self, body: Json) -> Json:
        """Return a ``chat.completion``."""
        async with self._answer("POST", "/chat/completions", body) as response:
            return await self._object(response)

    async def chat_stream(self, body: Json) -> AsyncGenerator[Json, None]:
        """Return the stream of chunks, once the upstream has accepted the request."""
        answer = self._answer("POST", "/chat/completions", {**body, "stream": True})
        response = await answer.__aenter__()

        async def chunks() -> AsyncGenerator[Json, None]:
            try:
                async for chunk in self._chunks(response):
                    yield chunk
            finally:
                await answer.__aexit__(None, None, None)

        return chunks()

    async def embeddings(self, body: Json) -> Json:
        """Return embeddings."""
        async with self._answer("POST", "/embeddings", body) as response:
            return await self._object(response)

    async def models(self) -> Json:
        """Return the list of models."""
        async with self._answer("GET", "/models", None) as response:
            return await self._object(response)

    async def ready(self) -> bool:
        """Whether it lists its models now."""
        try:
            async with asyncio.timeout(3):
                await self.models()
        except UpstreamProblem as problem:
            # Reached, and of a kind that does not list models.
            return problem.code in {"model_not_found", "upstream_refused"}
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Release connections."""
        await self._transport.aclose()

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: Json | None
    ) -> AsyncIterator[httpx.Response]:
        response = await self._send(method, path, body)
        try:
            if response.status_code != 200:
                raise await refused(response)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise bad_answer("a compressed body that was not asked for")
            yield response
        finally:
            await response.aclose()

    async def _send(self, method: str, path: str, body: Json | None) -> httpx.Response:
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = self._headers
        if body is not None:
            headers = [
                *headers,
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
            ]
        if path not in self._urls:
            raw = self._base.raw_path + path.encode()
            self._urls[path] = self._base.copy_with(raw_path=raw)
        for fresh in (False, True):
            request = httpx.Request(
                method,
                self._urls[path],
                headers=headers,
                stream=httpx.ByteStream(content),  # all its headers are there, so none is made
                extensions={"timeout": self._timeouts, FRESH: fresh},
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                # A kept connection that the server has closed meanwhile: once more, on a new one,
                # since the next kept one may be closing as well (llama.cpp's after every stream).
                if fresh:
                    raise unreachable(error) from None
            except httpx.ReadTimeout:
                raise too_slow() from None
            except httpx.TransportError as error:
                raise unreachable(error) from None
        raise AssertionError("unreachable")

    async def _object(self, response: httpx.Response) -> Json:
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._longest_s):
                async for part in response.stream:  # type: ignore[union-attr]
                    parts.append(part)
                    size += len(part)
                    if size > MOST_BYTES:
                        raise bad_answer(f"more than {MOST_BYTES} bytes")
        except (httpx.ReadTimeout, TimeoutError):
            raise too_slow() from None
        except httpx.TransportError:
            raise broken_off() from None
        return _as_object(b"".join(parts))

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[Json]:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in {"text/event-stream", ""}:
            raise bad_answer(f"the content type {word(kind)} instead of a stream of events")
        reader, size = EventReader(), 0
        parts = aiter(cast(AsyncIterable[bytes], response.stream))
        end = asyncio.get_running_loop().time() + self._longest_s
        try:
            while True:
                # Each wait by itself: one around a yield would end whatever the reader does then.
                async with asyncio.timeout_at(end):
                    part = await anext(parts, None)
                if part is None:
                    break
                size += len(part)
                if size > 4 * MOST_BYTES:
                    raise bad_answer(f"more than {4 * MOST_BYTES} bytes")
                for data in reader.feed(part):
                    if data == b"[DONE]":
                        return
                    yield _as_object(data)
            for data in reader.finish():
                if data != b"[DONE]":
                    yield _as_object(data)
        except (httpx.ReadTimeout, TimeoutError):
            raise too_slow() from None
        except httpx.TransportError:
            raise broken_off() from None
        except UpstreamError as error:
            raise bad_answer(str(error)) from None


def _as_object(data: bytes) -> Json:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise bad_answer("something that is not JSON") from None
    if not isinstance(value, dict):
        raise bad_answer("JSON that is not an object")
    if value.get("error"):
        raise UpstreamProblem(
            "upstream_status", "the model server reported an error while answering; try again"
        )
    return value
