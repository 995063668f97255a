"""A lean load generator, a mock model server and a no-op proxy, each a process of its own.

Plain asyncio on purpose: a client library would cost more than what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
REPLY = (
    "Wolves howl to talk with their pack of @. They do it at night, because sound goes far then. "
    "A howl can tell the other @ where they are. Some howl to say: this wood is ours."
)
"""What the mock model says; ``@`` is the question's number, so that no reply is like another."""
QUESTIONS = (
    "why do wolves howl?",
    "how far is the moon?",
    "what do penguins eat?",
    "why is the sky blue?",
)


@dataclass(frozen=True)
class Load:
    """What one round of requests showed; times in milliseconds."""

    clients: int
    requests: int
    errors: int
    p50_ms: float
    p95_ms: float
    first_p50_ms: float
    first_p95_ms: float
    per_second: float
    cpu_ms_a_request: float
    memory_mib: float


def question(number: int, *, stream: bool) -> bytes:
    """One request; the texts differ, so that no cache answers for the checks."""
    text = f"{QUESTIONS[number % len(QUESTIONS)]} (question {number})"
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
    return json.dumps(body).encode()


class Client:
    """One kept HTTP connection."""

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self.port = port
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        self.head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{lines}"
        )
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, body: bytes) -> tuple[float, float, bool]:
        """Return seconds to the first words, seconds to the end, and whether it went well."""
        start = time.perf_counter()
        if self.writer is None or self.writer.is_closing():
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self.reader is not None
        self.writer.write(
            self.head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        )
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        good, first = b" 200 " in head.split(b"\r\n")[0], 0.0
        whole = b""
        if b"transfer-encoding: chunked" in head:
            while True:
                size = int((await self.reader.readline()).split(b";")[0], 16)
                part = await self.reader.readexactly(size + 2)
                whole += part[:-2]
                if not first and b'"content":"W' in whole.replace(b": ", b":"):
                    first = time.perf_counter() - start
                if size == 0:
                    break
        else:
            size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            whole = await self.reader.readexactly(size)
            first = time.perf_counter() - start
        if b"connection: close" in head:
            self.writer.close()
        good = good and b"Wolves" in (whole if b"Wolves" in whole else _joined(whole))
        return first, time.perf_counter() - start, good


async def _run(
    port: int, path: str, headers: dict[str, str], clients: int, requests: int, stream: bool
) -> tuple[list[tuple[float, float, bool]], float]:
    results: list[tuple[float, float, bool]] = []
    numbers = iter(range(requests))

    async def one(client: Client) -> None:
        for number in numbers:
            try:
                results.append(await client.ask(question(number, stream=stream)))
            except (OSError, asyncio.IncompleteReadError, ValueError, IndexError):
                results.append((0.0, 0.0, False))
                client.writer = None

    start = time.perf_counter()
    await asyncio.gather(*(one(Client(port, path, headers)) for _ in range(clients)))
    return results, time.perf_counter() - start


def measure(
    port: int,
    *,
    clients: int,
    requests: int,
    stream: bool,
    processes: list[int],
    headers: dict[str, str] | None = None,
    path: str = "/v1/chat/completions",
) -> Load:
    """Send requests and return what was seen; ``processes`` are those whose cost is counted."""
    counted = [psutil.Process(pid) for pid in processes]
    counted += [child for p in counted for child in p.children(recursive=True)]
    before = sum(sum(p.cpu_times()[:2]) for p in counted)
    results, seconds = asyncio.run(_run(port, path, headers or {}, clients, requests, stream))
    cpu = sum(sum(p.cpu_times()[:2]) for p in counted) - before
    good = [r for r in results if r[2]]
    times = sorted(r[1] * 1000 for r in good) or [float("nan")]
    firsts = sorted(r[0] * 1000 for r in good) or [float("nan")]

    def at(values: list[float], share: float) -> float:
        return round(values[min(len(values) - 1, int(len(values) * share))], 2)

    return Load(
        clients,
        requests,
        len(results) - len(good),
        round(statistics.median(times), 2),
        at(times, 0.95),
        round(statistics.median(firsts), 2),
        at(firsts, 0.95),
        round(len(good) / seconds, 1),
        round(cpu * 1000 / max(1, len(results)), 2),
        round(sum(p.memory_info().rss for p in counted) / 2**20, 1),
    )


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: list[str], *, until: str, within_s: float = 180, env: dict[str, str] | None = None
) -> Iterator[int]:
    """Run a process until the end of the block, once a URL answers; give its number."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
        cwd=ROOT,
    )
    try:
        end = time.monotonic() + within_s
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"did not start: {' '.join(command)}")
            with contextlib.suppress(OSError), opener.open(until, timeout=2):
                break
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        process.kill()


def mock_model(port: int) -> list[str]:
    """The command of the mock model server."""
    return [sys.executable, str(Path(__file__)), "mock", str(port)]


def no_op_proxy(port: int, upstream: int) -> list[str]:
    """The command of a Starlette proxy that checks nothing."""
    return [sys.executable, str(Path(__file__)), "noop", str(port), str(upstream)]


def guard_proxy(port: int, upstream: int, *more: str) -> list[str]:
    """The command of the guard."""
    base = [sys.executable, "-m", "kidrails_guard", "serve", "--port", str(port)]
    return [*base, "--upstream", f"http://127.0.0.1:{upstream}", *more]


@contextlib.contextmanager
def rules_only() -> Iterator[Path]:
    """A file with the default policy, less the classifier."""
    with _policy() as (policy, path):
        policy["checks"] = [check for check in policy["checks"] if check["name"] != "classifier"]
        path.write_text(yaml.safe_dump(policy, sort_keys=False))
        yield path


@contextlib.contextmanager
def all_pass() -> Iterator[Path]:
    """A file with the default policy, whose checks all run and hold no reply back.

    For speed alone: a reply that is held back ends early and is no loss of speed.
    """
    with _policy() as (policy, path):
        for rule in policy["hazards"].values():
            rule["output"] = "allow"
        policy["conduct"] = dict.fromkeys(policy["conduct"], "allow")
        path.write_text(yaml.safe_dump(policy, sort_keys=False))
        yield path


@contextlib.contextmanager
def _policy() -> Iterator[tuple[dict[str, Any], Path]]:
    policy = yaml.safe_load((ROOT / "serve" / "policies" / "default.yaml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        yield policy, Path(folder) / "policy.yaml"


def machine() -> dict[str, Any]:
    """What the figures depend on, without a name that identifies the machine."""
    model = platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
    }


def table(rows: list[tuple[str, Load]]) -> str:
    """Return a table for people."""
    head = (
        f"{'':32} {'clients':>7} {'p50 ms':>8} {'p95 ms':>8} {'first p50':>9} {'first p95':>9} "
        f"{'req/s':>8} {'CPU ms':>7} {'MiB':>7} {'errors':>6}"
    )
    lines = [
        f"{name:32} {x.clients:7} {x.p50_ms:8.1f} {x.p95_ms:8.1f} {x.first_p50_ms:9.1f} "
        f"{x.first_p95_ms:9.1f} {x.per_second:8.1f} {x.cpu_ms_a_request:7.2f} {x.memory_mib:7.0f} "
        f"{x.errors:6}"
        for name, x in rows
    ]
    return "\n".join([head, *lines])


def _joined(stream: bytes) -> bytes:
    """Return the words of a stream whose pieces end anywhere."""
    return b"".join(re.findall(rb'"content": ?"((?:[^"\\\\]|\\\\.)*)"', stream))


def _number(body: bytes) -> bytes:
    """Return the number of a question, as `question` writes it."""
    return body.rpartition(b"question ")[2].partition(b")")[0]


def _events() -> bytes:
    parts: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    parts += [{"content": word + " "} for word in REPLY.split(" ")]
    events = [{"delta": part, "finish_reason": None} for part in parts]
    events.append({"delta": {}, "finish_reason": "stop"})
    return b"".join(
        b"data: "
        + json.dumps({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
                      "choices": [{"index": 0, **event}]}).encode()
        + b"\n\n"
        for event in events
    ) + b"data: [DONE]\n\n"  # fmt: skip


async def _mock(port: int) -> None:
    message = {"role": "assistant", "content": REPLY}
    whole = json.dumps(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "m",
         "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
         "usage": {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}}
    ).encode()  # fmt: skip
    models = json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode()
    events = _events()

    def plain(body: bytes, kind: str) -> bytes:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def chunked(events: bytes) -> bytes:
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
            + b"".join(
                f"{len(e) + 2:x}\r\n".encode() + e + b"\n\n\r\n" for e in events.split(b"\n\n") if e
            )
            + b"0\r\n\r\n"
        )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if head.startswith(b"get"):
                    writer.write(plain(models, "application/json"))
                    continue
                size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                body = (await reader.readexactly(size)).replace(b": ", b":")
                number = _number(body)
                if b"slow" in body and b'"stream":true' in body:
                    await _drip(writer, events.replace(b"@", number))
                    continue
                if b'"stream":true' in body:
                    writer.write(chunked(events.replace(b"@", number)))
                else:
                    writer.write(plain(whole.replace(b"@", number), "application/json"))
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=2048)
    async with server:
        await server.serve_forever()


async def _drip(writer: asyncio.StreamWriter, events: bytes) -> None:
    """Say the same a word every 250 ms: a stream that is held open."""
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for event in events.split(b"\n\n"):
        if event:
            writer.write(f"{len(event) + 2:x}\r\n".encode() + event + b"\n\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.25)
    writer.write(b"0\r\n\r\n")


def _noop(port: int, upstream: int) -> None:
    import httpx
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{upstream}",
        timeout=60,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
    )

    async def forward(request: Request) -> Response:
        asked = client.build_request(
            "POST",
            request.url.path,
            content=await request.body(),
            headers={"content-type": "application/json"},
        )
        response = await client.send(asked, stream=True)
        kind = response.headers["content-type"]
        if kind.startswith("application/json"):
            return Response(await response.aread(), media_type=kind)
        return StreamingResponse(response.aiter_raw(), media_type=kind)

    async def health(request: Request) -> Response:
        return Response("ok")

    routes = [
        Route("/v1/chat/completions", forward, methods=["POST"]),
        Route("/health", health),
    ]
    uvicorn.run(
        Starlette(routes=routes), port=port, http="h11", access_log=False, log_level="error"
    )


if __name__ == "__main__":
    if sys.argv[1] == "mock":
        asyncio.run(_mock(int(sys.argv[2])))
    else:
        _noop(int(sys.argv[2]), int(sys.argv[3]))
