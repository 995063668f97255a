"""Model servers that say what a test wants them to, in process or over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Json = dict[str, Any]
CALM = (
    "Wolves howl to talk with their pack. They do it at dusk and in the night, when the air is "
    "still, because sound goes far over the hills then."
)


def completion(text: str | None, **more: Any) -> Json:
    """A whole answer with one choice."""
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": more.pop("finish", "stop")}
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{**choice, **more.pop("choice", {})}],
        "usage": usage,
        **more,
    }


def chunk(delta: Json, finish: str | None = None, index: int = 0, **more: Any) -> Json:
    """One chunk of a stream."""
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "choices": [choice]}


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def stream_of(pieces: list[str], finish: str | None = "stop") -> list[Json]:
    """The chunks that say the pieces."""
    said = [chunk({"role": "assistant", "content": ""})]
    said += [chunk({"content": piece}) for piece in pieces]
    return [*said, chunk({}, finish)] if finish else said


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}


class Says:
    """An upstream whose answer the test sets; it keeps what it was asked.

    Attributes:
        pieces: what a stream says, piece by piece; joined, what a whole answer says.
        answer: instead, the whole answer's body (a JSON value, bytes, or a response).
        chunks: instead, the stream's chunks.
        pause_s: between two chunks.
        asked: the bodies of all requests.
    """

    def __init__(self, *pieces: str, **more: Any) -> None:
        self.pieces = list(pieces) or [CALM]
        self.answer: Any = more.get("answer")
        self.chunks: list[Any] | None = more.get("chunks")
        self.pause_s: float = more.get("pause_s", 0.0)
        self.asked: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.closed_early = 0
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/embeddings", self._embeddings, methods=["POST"]),
                Route("/v1/models", self._models),
            ]
        )

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        if isinstance(self.answer, Response):
            return self.answer
        if isinstance(self.answer, bytes):
            return Response(self.answer, media_type="application/json")
        if not body.get("stream"):
            return JSONResponse(self.answer or completion("".join(self.pieces)))
        return StreamingResponse(self._stream(body), media_type="text/event-stream")

    async def _stream(self, body: Json) -> AsyncIterator[bytes]:
        chunks = self.chunks if self.chunks is not None else stream_of(self.pieces)
        whole = False
        try:
            for part in chunks:
                yield part if isinstance(part, bytes) else event(part)
                await asyncio.sleep(self.pause_s)
            if body.get("stream_options", {}).get("include_usage"):
                yield event(USAGE)
            yield b"data: [DONE]\n\n"
            whole = True
        finally:
            self.closed_early += not whole

    async def _embeddings(self, request: Request) -> Response:
        self.asked.append(await request.json())
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}]
        return JSONResponse({"object": "list", "data": data, "model": "m", "note": "zorblat"})

    async def _models(self, request: Request) -> Response:
        models = [{"id": "small-model", "object": "model", "created": 5, "owned_by": "zorblat"}]
        return JSONResponse({"object": "list", "data": models})

    def transport(self) -> httpx.AsyncBaseTransport:
        """Reach it without a socket."""
        return httpx.ASGITransport(self.app)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI application over real HTTP from a thread; give its base URL."""
    port = options.setdefault("port", free_port())
    config = uvicorn.Config(app, log_level="error", **{"http": "h11", **options})
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, what="the server")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(15)


def wait_until(condition: Callable[[], bool], *, what: str, within_s: float = 30) -> None:
    """Wait for something to become true.

    Raises:
        TimeoutError: it did not.
    """
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not there after {within_s} s")
        time.sleep(0.01)
