"""A proxy in process, in front of an upstream in process, and what a caller sees of it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
from planted import planted_guard
from upstreams import Says

from kidrails_guard.guard import Guard
from kidrails_guard.proxy import seams
from kidrails_guard.proxy.app import build_app
from kidrails_guard.proxy.settings import Settings
from kidrails_guard.types import Action, AgeBand, Hazard, Stage

Json = dict[str, Any]


@dataclass
class Ledger:
    """An audit sink and a meter that keep everything."""

    events: list[seams.AuditEvent] = field(default_factory=list)
    verdicts: list[tuple[str, Stage, Action, Hazard]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    requests: list[tuple[str, int]] = field(default_factory=list)
    helds: list[int] = field(default_factory=list)
    open_streams: int = 0
    tended: int = 0
    refuse: Callable[[seams.AuditEvent], bool] = lambda event: False

    async def record(self, event: seams.AuditEvent) -> None:
        if self.refuse(event):
            raise seams.AuditFailed("disk full")
        self.events.append(event)

    async def tend(self) -> None:
        self.tended += 1

    async def close(self) -> None:
        pass

    def verdict(self, tenant, stage, action, hazard) -> None:
        self.verdicts.append((tenant, stage, action, hazard))

    def check(self, check, stage, seconds, failed) -> None:
        pass

    def held(self, characters, seconds=None) -> None:
        self.helds.append(characters)

    def failure(self, kind) -> None:
        self.failures.append(kind)

    def request(self, route, status, seconds) -> None:
        self.requests.append((route, status))

    def streams(self, change) -> None:
        self.open_streams += change


class Scripted:
    """An upstream without HTTP: gives chunks as the test's generator makes them."""

    def __init__(
        self,
        chunks: Callable[[], AsyncGenerator[Json, None]] | Iterable[Json] = (),
        answer: Json | None = None,
    ) -> None:
        self.chunks, self.answer = chunks, answer
        self.asked: list[Json] = []
        self.closed = 0

    async def chat(self, body: Json) -> Json:
        self.asked.append(body)
        assert self.answer is not None
        return self.answer

    async def chat_stream(self, body: Json) -> AsyncGenerator[Json, None]:
        self.asked.append(body)

        async def run() -> AsyncGenerator[Json, None]:
            try:
                if callable(self.chunks):
                    async for chunk in self.chunks():
                        yield chunk
                else:
                    for chunk in self.chunks:
                        yield chunk
            finally:
                self.closed += 1

        return run()

    async def models(self) -> Json:
        return {"object": "list", "data": [{"id": "m"}]}

    async def embeddings(self, body: Json) -> Json:
        raise NotImplementedError

    async def ready(self) -> bool:
        return True

    async def close(self) -> None:
        pass


@dataclass
class Stream:
    """A chat stream as a caller reads it."""

    response: httpx.Response
    chunks: list[Json]

    @classmethod
    def read(cls, response: httpx.Response) -> Stream:
        assert response.headers["content-type"].startswith("text/event-stream"), response.text
        events = [e for e in response.text.split("\n\n") if e and not e.startswith(":")]
        assert events[-1] == "data: [DONE]"
        return cls(response, [json.loads(e.removeprefix("data: ")) for e in events[:-1]])

    def text(self, choice: int = 0) -> str:
        return "".join(
            c["delta"].get("content") or ""
            for chunk in self.chunks
            for c in chunk["choices"]
            if c["index"] == choice
        )

    def finish(self, choice: int = 0) -> str:
        ends = [
            c["finish_reason"]
            for chunk in self.chunks
            for c in chunk["choices"]
            if c["index"] == choice and c["finish_reason"]
        ]
        assert len(ends) == 1, ends
        return ends[0]

    @property
    def usage(self) -> Json | None:
        return self.chunks[-1].get("usage") if not self.chunks[-1]["choices"] else None


class Proxied:
    """A client of a proxy of its own."""

    def __init__(
        self,
        upstream: Says | Scripted | httpx.AsyncBaseTransport | None = None,
        *,
        guard: Guard | None = None,
        band: AgeBand | None = None,
        tenants: seams.Tenants | None = None,
        settings: Json | None = None,
    ) -> None:
        self.upstream = upstream if upstream is not None else Says()
        self.ledger = Ledger()
        options: Json = {}
        if isinstance(self.upstream, Says):
            options["transport"] = self.upstream.transport()
        elif isinstance(self.upstream, httpx.AsyncBaseTransport):
            options["transport"] = self.upstream
        else:
            options["upstream"] = self.upstream
        self.app = build_app(
            Settings("http://upstream.test", **(settings or {})),
            tenants=tenants or seams.OneTenant(guard or planted_guard(), band=band),
            audit=self.ledger,
            meter=self.ledger,
            **options,
        )
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://proxy.test"
        )

    @property
    def asked(self) -> Json:
        """What the model was asked last."""
        return self.upstream.asked[-1]

    async def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return await self.http.post(path, json=body, **more)

    async def chat(self, *said: str, **more: Any) -> httpx.Response:
        """Say something; several texts are a child's and a model's turns in a row."""
        messages = more.pop("messages", None) or [
            {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)
        ]
        headers = more.pop("headers", None)
        return await self.post(
            "/v1/chat/completions",
            {"model": "m", "messages": messages, **more},
            headers=headers,
        )

    async def stream(self, *said: str, **more: Any) -> Stream:
        return Stream.read(await self.chat(*said, stream=True, **more))


def reply(response: httpx.Response) -> Json:
    """The one choice of a whole answer."""
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    return choice


def problem(response: httpx.Response) -> Json:
    """The error of a response, which must be OpenAI-shaped and say something."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) > 10
    assert "Traceback" not in response.text
    return error
