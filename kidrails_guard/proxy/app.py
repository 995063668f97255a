"""The proxy's routes: OpenAI's API, guarded, in front of one model server."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from kidrails_guard import __version__
from kidrails_guard.proxy import generic_api, seams
from kidrails_guard.proxy.call import Call
from kidrails_guard.proxy.callers import Callers
from kidrails_guard.proxy.chat import chat_call, read_model
from kidrails_guard.proxy.endpoints import Endpoints
from kidrails_guard.proxy.exchange import Caller, Exchange, json_response
from kidrails_guard.proxy.memory import VerdictMemory
from kidrails_guard.proxy.moderations import moderate
from kidrails_guard.proxy.openapi import describe
from kidrails_guard.proxy.passing import clean_embeddings, clean_models, embeddings_body
from kidrails_guard.proxy.problems import Problem
from kidrails_guard.proxy.records import Recorder, tend
from kidrails_guard.proxy.responses import responses_call
from kidrails_guard.proxy.responses_writer import ResponsesWriter
from kidrails_guard.proxy.service import Service
from kidrails_guard.proxy.settings import LITELLM_PREFIX, Settings
from kidrails_guard.proxy.sittings import Sittings
from kidrails_guard.proxy.upstream import HttpUpstream, Upstream
from kidrails_guard.proxy.wire import ChatWriter, CompletionsWriter, Writer, completions_call
from kidrails_guard.session import MemoryStore

_READY_S: Final = 1.0


def make_upstream(
    settings: Settings, *, transport: httpx.AsyncBaseTransport | None = None
) -> Upstream:
    """Return the client for the upstream that the settings name.

    Raises:
        MissingDependency: ``litellm:…`` without the litellm package.
    """
    if settings.upstream.startswith(LITELLM_PREFIX):
        from kidrails_guard.proxy.litellm_upstream import LiteLLMUpstream

        return LiteLLMUpstream(settings)
    return HttpUpstream(settings, transport=transport)


class Proxy:
    """The routes of one proxy."""

    def __init__(self, service: Service, tenants: seams.Tenants) -> None:
        self.service = service
        self._callers, self._endpoints = Callers(service.settings, tenants), Endpoints(service)
        self._generic = generic_api.GenericGuardrail(service.gate)
        self._ready, self._ready_at = False, float("-inf")
        self._asking = asyncio.Lock()

    async def close(self) -> None:
        """Write down what is not yet; called once at shutdown, before the audit is closed."""
        await self._generic.close()

    async def not_here(self, request: Request, error: Exception) -> Response:
        """Answer a path or a method that is not there."""
        return await self._endpoints.not_here(request, error)

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        post, get = ["POST"], ["GET"]
        return [
            self._endpoints.route("/v1/chat/completions", "chat", self.chat, post),
            self._endpoints.route("/v1/completions", "completions", self.completions, post),
            self._endpoints.route(generic_api.PATH, "other", self.generic_guardrail, post),
            self._endpoints.route("/v1/responses", "responses", self.responses, post),
            self._endpoints.route("/v1/embeddings", "embeddings", self.embeddings, post),
            self._endpoints.route("/v1/moderations", "moderations", self.moderations, post),
            self._endpoints.route("/v1/models", "models", self.models, get),
            self._endpoints.route("/v1/models/{model:path}", "models", self.model, get),
            self._endpoints.route("/health", "other", self.health, get),
            self._endpoints.route("/ready", "other", self.ready, get),
            self._endpoints.route("/openapi.json", "other", self.openapi, get),
        ]

    async def _exchange(
        self,
        request: Request,
        caller: Caller,
        call: Call,
        writer: Writer,
        finished: Callable[[int], None],
    ) -> Response:
        exchange = Exchange(self.service, caller, call, writer)
        return await exchange.answer(finished, request.receive)

    async def chat(
        self, request: Request, request_id: str, finished: Callable[[int], None]
    ) -> Response:
        """Answer ``POST /v1/chat/completions``."""
        caller, body = await self._callers.opened(request, request_id)
        policy, more = caller.tenant.guard.policy, self.service.settings.pass_fields
        call = chat_call(body, allow_images=policy.allow_images, more=more)
        return await self._exchange(request, caller, call, ChatWriter(call, request_id), finished)

    async def completions(
        self, request: Request, request_id: str, finished: Callable[[int], None]
    ) -> Response:
        """Answer ``POST /v1/completions``."""
        caller, body = await self._callers.opened(request, request_id)
        call = completions_call(body, more=self.service.settings.pass_fields)
        return await self._exchange(
            request, caller, call, CompletionsWriter(call, request_id), finished
        )

    async def responses(
        self, request: Request, request_id: str, finished: Callable[[int], None]
    ) -> Response:
        """Answer ``POST /v1/responses``."""
        caller, body = await self._callers.opened(request, request_id)
        policy, more = caller.tenant.guard.policy, self.service.settings.pass_fields
        call = responses_call(body, allow_images=policy.allow_images, more=more)
        return await self._exchange(
            request, caller, call, ResponsesWriter(call, request_id), finished
        )

    async def embeddings(
        self, request: Request, request_id: str, finished: Callable[[int], None]
    ) -> Response:
        """Answer ``POST /v1/embeddings``: numbers only, so there is nothing to check."""
        _, body = await self._callers.opened(request, request_id)
        model = self.service.settings.model or read_model(body)
        asked = embeddings_body(body, model=model)
        async with self.service.waiting(request.receive):
            answer = await self.service.upstream.embeddings(asked)
        finished(200)
        return json_response(clean_embeddings(answer, model=model))

    async def moderations(
        self, request: Request, request_id: str, finished: Callable[[int], None]
    ) -> Response:
        """Answer ``POST /v1/moderations``."""
        caller, body = await self._callers.opened(request, request_id)
        answer = await moderate(
            body, caller.tenant, caller.band, request_id=request_id, gate=self.service.gate
        )
        finished(200)
        return json_response(answer)

    async def generic_guardrail(
        self, request: Request, request_id: str, finished: Callable[[int], None]
    ) -> Response:
        """Answer LiteLLM's generic guardrail API."""
        caller, body = await self._callers.opened(request, request_id)
        recorder = Recorder(
            self.service.audit,
            self.service.meter,
            caller.tenant,
            caller.band,
            request_id,
            model=str(body.get("model") or "")[:80],
            session=caller.session,
        )
        answer = await self._generic.answer(body, recorder)
        finished(200)
        return json_response(answer)

    async def models(
        self, request: Request, request_id: str, finished: Callable[[int], None]
    ) -> Response:
        """Answer ``GET /v1/models``."""
        await self._callers.tenant(request.headers)
        answer = clean_models(
            await self.service.upstream.models(), only=self.service.settings.model
        )
        finished(200)
        return json_response(answer)

    async def model(
        self, request: Request, request_id: str, finished: Callable[[int], None]
    ) -> Response:
        """Answer ``GET /v1/models/NAME``."""
        await self._callers.tenant(request.headers)
        known = clean_models(await self.service.upstream.models(), only=self.service.settings.model)
        for entry in known["data"]:
            if entry["id"] == request.path_params["model"]:
                finished(200)
                return json_response(entry)
        raise Problem(
            404, "model_not_found", "model: there is no such model; GET /v1/models lists them"
        )

    async def health(
        self, request: Request, request_id: str, finished: Callable[[int], None]
    ) -> Response:
        """Answer ``GET /health``: this process runs."""
        return json_response({"status": "ok", "version": __version__})

    async def ready(
        self, request: Request, request_id: str, finished: Callable[[int], None]
    ) -> Response:
        """Answer ``GET /ready``: requests can be answered now."""
        if self.service.draining:
            return json_response({"ready": False, "reason": "shutting down"}, status=503)
        async with self._asking:
            if time.monotonic() - self._ready_at > _READY_S:
                self._ready = await self.service.upstream.ready()
                self._ready_at = time.monotonic()
        if self._ready:
            return json_response({"ready": True})
        reason = "the model server does not answer; start it, or check --upstream"
        return json_response({"ready": False, "reason": reason}, status=503)

    async def openapi(
        self, request: Request, request_id: str, finished: Callable[[int], None]
    ) -> Response:
        """Answer ``GET /openapi.json``."""
        return json_response(describe())


def build_app(
    settings: Settings,
    *,
    tenants: seams.Tenants,
    upstream: Upstream | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    audit: seams.AuditSink | None = None,
    meter: seams.Meter | None = None,
    sessions: seams.SessionStore | None = None,
    routes: Sequence[BaseRoute] = (),
    on_start: Callable[[Service], None] | None = None,
) -> Starlette:
    """Return the proxy as an ASGI application.

    Args:
        settings: the operator's choices.
        tenants: knows who calls; `seams.OneTenant` for a proxy that only its machine can reach.
        upstream: instead of the one that the settings name.
        transport: instead of real connections to the upstream (for tests).
        audit: writes down what was decided; nothing is written without.
        meter: counts; nothing is counted without.
        sessions: keeps what children's sessions add up to; in memory without.
        routes: further routes, such as ``/metrics``.
        on_start: called inside the running event loop before the first request.
    """
    counting = meter or seams.NoMeter()
    service = Service(
        settings,
        upstream or make_upstream(settings, transport=transport),
        audit or seams.NoAudit(),
        counting,
        VerdictMemory(settings.remembered_verdicts, secret=secrets.token_bytes(32)),
        gate=asyncio.Semaphore(settings.checks_at_once),
        sittings=Sittings(MemoryStore() if sessions is None else sessions, counting),
    )

    proxy = Proxy(service, tenants)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if on_start is not None:
            on_start(service)
        tending = asyncio.create_task(tend(service.audit))
        try:
            yield
        finally:
            tending.cancel()
            await service.upstream.close()
            await proxy.close()
            await service.audit.close()
            await service.sittings.close()

    app = Starlette(
        routes=[*proxy.routes(), *routes],
        lifespan=lifespan,
        exception_handlers={HTTPException: proxy.not_here},
    )
    # A redirect would go to whatever the Host header says; clients do not post again anyway.
    app.router.redirect_slashes = False
    app.state.service = service
    return app
