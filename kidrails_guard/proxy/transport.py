"""The connections to the model server: aiohttp behind httpx's transport interface.

The proxy asks through `httpx.AsyncBaseTransport`, which tests replace. What speaks HTTP here is
aiohttp, whose parser is compiled: it takes a quarter of the processor time of httpx's own transport
for a request, and a fifth for a stream (``benchmarks/proxy_overhead.py``).
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

FRESH: Final = "kidrails_fresh"
"""A request's extension: take a new connection and do not keep it."""

_LARGE: Final = 1024 * 1024
"""Bytes; aiohttp wants a larger body as a file, so that writing it does not block the loop."""


class AioTransport(httpx.AsyncBaseTransport):
    """Keeps connections; no redirects, no cookies, nothing taken from the environment.

    Args:
        connections: most at a time.
        keep_s: seconds for which an idle connection is kept.
    """

    def __init__(self, *, connections: int, keep_s: float = 30.0) -> None:
        self._connections, self._keep_s = connections, keep_s
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._tls: Any = None
        self._urls: dict[httpx.URL, URL] = {}

    def _session(self, *, fresh: bool, tls: bool) -> aiohttp.ClientSession:
        """Return the session with kept connections, or the one that closes each after its answer.

        Made inside the running loop, at the first request.
        """
        if tls and self._tls is None:
            # The certificates that httpx brings along: a container may have none of its own.
            self._tls = httpx.create_ssl_context(trust_env=False)
        if fresh not in self._sessions:
            connector = aiohttp.TCPConnector(
                limit=self._connections,
                ssl=self._tls or True,
                **({"force_close": True} if fresh else {"keepalive_timeout": self._keep_s}),
            )
            self._sessions[fresh] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            )
        return self._sessions[fresh]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return the answer once its headers are there.

        Raises:
            httpx.TransportError: of the kind that httpx's own transport raises.
        """
        wait = request.extensions["timeout"]
        url = self._urls.get(request.url)
        if url is None:
            url = self._urls[request.url] = URL(str(request.url), encoded=True)
        session = self._session(
            fresh=bool(request.extensions.get(FRESH)), tls=request.url.scheme == "https"
        )
        content = await request.aread()
        with _as_httpx():
            # aiohttp bounds the wait for an answer, not for a server that takes no question.
            async with asyncio.timeout(wait["connect"] + wait["write"] + wait["read"]):
                answer = await session.request(
                    request.method,
                    url,
                    data=io.BytesIO(content) if len(content) > _LARGE else content or None,
                    headers=CIMultiDict(
                        (name.decode("ascii"), value.decode("latin-1"))
                        for name, value in request.headers.raw
                    ),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(
                        total=None,
                        connect=wait["pool"],
                        sock_connect=wait["connect"],
                        sock_read=wait["read"],
                    ),
                )
        return httpx.Response(answer.status, headers=list(answer.raw_headers), stream=_Body(answer))

    async def aclose(self) -> None:
        """Close all connections."""
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()


class _Body(httpx.AsyncByteStream):
    """An answer's bytes, as they come."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            async for part in self._answer.content.iter_any():
                yield part

    async def aclose(self) -> None:
        """Keep the connection for the next request if the answer was read to its end."""
        if self._answer.content.at_eof():
            self._answer.release()
        else:
            self._answer.close()


@contextmanager
def _as_httpx() -> Iterator[None]:
    """Raise aiohttp's errors as httpx's."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error)) from None
    except TimeoutError as error:  # aiohttp's other timeouts, too
        raise httpx.ReadTimeout(str(error)) from None
    except (aiohttp.ClientConnectorError, aiohttp.ServerFingerprintMismatch) as error:
        raise httpx.ConnectError(str(error)) from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise httpx.UnsupportedProtocol(str(error)) from None
    except (aiohttp.ClientError, OSError) as error:
        # The server closed the connection, or what it says is not HTTP.
        raise httpx.RemoteProtocolError(str(error)) from None
