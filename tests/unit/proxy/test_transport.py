"""The connections to a model server, over real sockets to servers that behave badly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from upstreams import CALM, completion, event, stream_of

from kidrails_guard.proxy.problems import UpstreamProblem
from kidrails_guard.proxy.settings import Settings
from kidrails_guard.proxy.upstream import HttpUpstream

BODY = json.dumps(completion(CALM)).encode()
EVENTS = b"".join(event(part) for part in stream_of([CALM])) + b"data: [DONE]\n\n"
ASK = {"model": "m", "messages": []}


def plain(body: bytes = BODY, *, status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{more}\r\n".encode() + body


def chunked(body: bytes = EVENTS, *, end: bytes = b"0\r\n\r\n") -> bytes:
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    return f"{head}\r\n{len(body):x}\r\n".encode() + body + b"\r\n" + end


class Server:
    """Answers each request with what a function says; None closes the connection.

    Attributes:
        heads: of all requests.
        connections: how many were opened.
        gone: how many connections the client has closed.
    """

    def __init__(self, answer: Callable[[int], Awaitable[bytes | None]]) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.connections = self.gone = 0
        self.close_after = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                lower = head.lower()
                if b"content-length:" in lower:
                    size = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
                    await reader.readexactly(size)
                data = await self.answer(len(self.heads))
                if data is None:
                    return
                writer.write(data)
                await writer.drain()
                if self.close_after:
                    return
        except (asyncio.IncompleteReadError, OSError):
            self.gone += 1
        finally:
            writer.close()


def always(data: bytes | None) -> Callable[[int], Awaitable[bytes | None]]:
    async def answer(number: int) -> bytes | None:
        return data

    return answer


@asynccontextmanager
async def asked(server: Server, **settings: float):
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    upstream = HttpUpstream(Settings(f"http://127.0.0.1:{port}", **settings))
    try:
        yield upstream
    finally:
        await upstream.close()
        listening.close()


async def said(upstream: HttpUpstream) -> list[dict]:
    return [part async for part in await upstream.chat_stream(ASK)]


async def test_a_connection_is_kept_and_names_no_more_than_it_must() -> None:
    server = Server(always(plain(more="Set-Cookie: a=b\r\n")))
    async with asked(server) as upstream:
        for _ in range(3):
            assert (await upstream.chat(ASK))["choices"]
    assert server.connections == 1
    for head in server.heads:
        assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        names = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line}
        assert names == {
            *(b"host", b"accept", b"accept-encoding", b"user-agent"),
            *(b"content-type", b"content-length"),
        }
        assert b"accept-encoding: identity" in head.lower()


async def test_a_server_that_closes_every_kept_connection_loses_no_request() -> None:
    # As llama.cpp does after a stream: it says keep-alive and closes.
    server = Server(always(chunked()))
    server.close_after = True
    async with asked(server) as upstream:
        for _ in range(30):
            assert len(await said(upstream)) == 3
    assert server.connections >= 30


async def test_the_second_try_takes_a_new_connection_and_does_not_keep_it() -> None:
    async def answer(number: int) -> bytes | None:
        return None if number == 4 else plain()

    server = Server(answer)
    async with asked(server) as upstream:
        for _ in range(3):
            await upstream.chat(ASK)
        assert server.connections == 1
        await upstream.chat(ASK)  # its first try meets the closing connection
        assert server.connections == 2
        assert b"connection: close" in server.heads[-1].lower()
        await upstream.chat(ASK)
    assert server.connections == 3


async def test_a_server_that_always_closes_is_unreachable() -> None:
    server = Server(always(None))
    async with asked(server) as upstream:
        with pytest.raises(UpstreamProblem) as caught:
            await upstream.chat(ASK)
    assert caught.value.code == "upstream_unreachable"
    assert len(server.heads) == 2


async def test_nobody_listens() -> None:
    upstream = HttpUpstream(Settings("http://127.0.0.1:1"))
    with pytest.raises(UpstreamProblem) as caught:
        await upstream.chat(ASK)
    await upstream.close()
    assert (caught.value.status, caught.value.code) == (503, "upstream_unreachable")


async def test_no_such_host() -> None:
    upstream = HttpUpstream(Settings("http://no-such-host.invalid"))
    with pytest.raises(UpstreamProblem) as caught:
        await upstream.chat(ASK)
    await upstream.close()
    assert (caught.value.status, caught.value.code) == (503, "upstream_unreachable")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "upstream_unreachable"),
        (plain()[:-10], "upstream_broken_off"),
        (plain(status="302 Found", more="Location: http://127.0.0.1:1/\r\n"),
         "upstream_invalid_response"),
        (plain(more="Content-Encoding: gzip\r\n"), "upstream_invalid_response"),
        (plain(more="X: " + "y" * 100_000 + "\r\n"), "upstream_unreachable"),
        (plain(b"<html>"), "upstream_invalid_response"),
    ],
)  # fmt: skip
async def test_odd_answers(data: bytes, code: str) -> None:
    server = Server(always(data))
    server.close_after = True
    async with asked(server) as upstream:
        with pytest.raises(UpstreamProblem) as caught:
            await upstream.chat(ASK)
    assert caught.value.code == code


@pytest.mark.parametrize("cut", [chunked(end=b""), chunked()[:-40], chunked(end=b"zz\r\n")])
async def test_a_stream_that_is_cut_off_before_its_end(cut: bytes) -> None:
    events = EVENTS.removesuffix(b"data: [DONE]\n\n")
    server = Server(always(cut.replace(EVENTS, events + b":............\n")))
    server.close_after = True
    async with asked(server) as upstream:
        with pytest.raises(UpstreamProblem) as caught:
            await said(upstream)
    assert caught.value.code in {"upstream_broken_off", "upstream_unreachable"}


async def test_a_server_that_says_nothing_is_too_slow() -> None:
    async def hang(number: int) -> bytes | None:
        await asyncio.sleep(60)
        return None

    async with asked(Server(hang), read_timeout_s=0.2) as upstream:
        with pytest.raises(UpstreamProblem) as caught:
            await upstream.chat(ASK)
    assert (caught.value.status, caught.value.code) == (504, "upstream_timeout")


async def test_a_stream_that_falls_silent_is_too_slow() -> None:
    server = Server(always(chunked(EVENTS[:200], end=b"")))
    async with asked(server, read_timeout_s=0.2) as upstream:
        with pytest.raises(UpstreamProblem) as caught:
            await said(upstream)
    assert (caught.value.status, caught.value.code) == (504, "upstream_timeout")


async def test_a_server_that_takes_no_question_is_too_slow() -> None:
    stop = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.transport.abort()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    settings = Settings(f"http://127.0.0.1:{port}", read_timeout_s=0.2, connect_timeout_s=0.2)
    upstream = HttpUpstream(settings)
    with pytest.raises(UpstreamProblem) as caught:
        await upstream.chat({**ASK, "x": "y" * 30_000_000})
    assert caught.value.code == "upstream_timeout"
    stop.set()
    await asyncio.sleep(0.05)
    await upstream.close()
    server.close()


async def test_a_stream_that_nobody_reads_on_is_closed() -> None:
    server = Server(always(chunked(EVENTS[:600], end=b"")))
    async with asked(server) as upstream:
        stream = await upstream.chat_stream(ASK)
        assert await anext(stream)
        await stream.aclose()
        for _ in range(200):
            if server.gone:
                break
            await asyncio.sleep(0.01)
        assert server.gone == 1


async def test_certificates_are_checked() -> None:
    server = Server(always(plain()))
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    upstream = HttpUpstream(Settings(f"https://127.0.0.1:{port}", connect_timeout_s=2))
    with pytest.raises(UpstreamProblem) as caught:
        await upstream.chat(ASK)
    context = upstream._transport._tls
    await upstream.close()
    listening.close()
    assert caught.value.code == "upstream_unreachable"
    assert context.check_hostname
    assert isinstance(upstream._transport, httpx.AsyncBaseTransport)
