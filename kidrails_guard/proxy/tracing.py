"""OpenTelemetry traces, where the operator has installed and configured it.

One span a request, one a check inside it, the verdicts as events. Names and attributes come from
closed sets or are numbers: no text, no key, no session. Nothing here runs unless one of
OpenTelemetry's own variables asks for it.

Source: OpenTelemetry environment variable specification (``OTEL_TRACES_EXPORTER``,
``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SDK_DISABLED``), HTTP semantic conventions 1.23 and later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kidrails_guard.errors import MissingDependency, UsageError
from kidrails_guard.proxy import seams
from kidrails_guard.types import Action, Hazard, Stage

INSTALL: Final = "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
_EXPORTERS: Final = ("otlp", "console", "none")


def exporter_wanted(environment: Mapping[str, str]) -> str:
    """Return which exporter the environment asks for: ``otlp``, ``console`` or ``none``.

    Raises:
        UsageError: it names another one.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return "none"
    named = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if not named:
        asked = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}
        return "otlp" if asked & set(environment) else "none"
    if named not in _EXPORTERS:
        raise UsageError(f"OTEL_TRACES_EXPORTER: {named!r}; accepted: {', '.join(_EXPORTERS)}")
    return named


def make_exporter(environment: Mapping[str, str] = os.environ) -> Any | None:
    """Return what spans are sent with, or None where the environment asks for none.

    Raises:
        MissingDependency: the SDK or the exporter is not installed.
        UsageError: the environment asks for an exporter that is not known.
    """
    wanted = exporter_wanted(environment)
    if wanted == "none":
        return None
    try:
        if wanted == "console":
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter

            return ConsoleSpanExporter()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    except ImportError:
        raise MissingDependency(
            "opentelemetry",
            command=INSTALL,
            purpose=f"traces by {wanted}, as OTEL_… variables ask for",
        ) from None


def make_tracer(exporter: Any) -> Any:
    """Return a tracer whose spans an exporter sends in the background."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", "kidrails")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer("kidrails")


class TracingMeter:
    """A `Meter` that also writes into the span of the running request.

    Args:
        inner: counts as before.
        tracer: makes the spans of checks.
    """

    def __init__(self, inner: seams.Meter, tracer: Any) -> None:
        self._inner, self._tracer = inner, tracer

    def verdict(self, tenant: str, stage: Stage, action: Action, hazard: Hazard) -> None:
        """Count one verdict, and note it."""
        self._inner.verdict(tenant, stage, action, hazard)
        from opentelemetry import trace

        attributes = {
            "kidrails.stage": str(stage),
            "kidrails.action": action.label,
            "kidrails.hazard": str(hazard),
        }
        span = trace.get_current_span()
        span.set_attribute("kidrails.tenant", tenant)
        span.add_event("verdict", attributes)

    def check(self, check: str, stage: Stage, seconds: float, failed: bool) -> None:
        """Count one run of one check, and add a span that ends now."""
        self._inner.check(check, stage, seconds, failed)
        end = time.time_ns()
        span = self._tracer.start_span(f"check {check}", start_time=end - int(seconds * 1e9))
        span.set_attribute("kidrails.stage", str(stage))
        span.set_attribute("kidrails.failed", failed)
        span.end(end)

    def held(self, characters: int, seconds: float | None = None) -> None:
        """Note one released or withheld unit."""
        self._inner.held(characters, seconds)

    def failure(self, kind: seams.Failure) -> None:
        """Count one failure, and note it."""
        self._inner.failure(kind)
        from opentelemetry import trace

        trace.get_current_span().add_event("failure", {"kidrails.failure": kind})

    def request(self, route: seams.Route, status: int, seconds: float) -> None:
        """Note one finished request."""
        self._inner.request(route, status, seconds)

    def streams(self, change: int) -> None:
        """Change the number of open streams."""
        self._inner.streams(change)


class Traced:
    """An ASGI application whose every request is one span, from its headers to its last byte.

    A caller's ``traceparent`` is continued; it can name a trace and nothing else.

    Args:
        app: the proxy.
        tracer: makes the spans.
        routes: paths that may stand in a span's name; every other one is ``other``.
    """

    def __init__(self, app: ASGIApp, tracer: Any, routes: frozenset[str]) -> None:
        self._app, self._tracer, self._routes = app, tracer, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request inside its span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode, use_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # Not tracestate, in which a caller can write what it likes.
        given = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name == b"traceparent"
        }
        route = scope["path"] if scope["path"] in self._routes else "other"
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        span = self._tracer.start_span(
            f"{method} {route}",
            context=TraceContextTextMapPropagator().extract(given),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
        )

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_status(Status(StatusCode.ERROR))
                for name, value in message.get("headers", ()):
                    if name in _HEADERS:
                        span.set_attribute(_HEADERS[name], value.decode("latin-1"))
            await send(message)

        # Exceptions are not written into spans: their texts could hold a child's words.
        quiet = {"record_exception": False, "set_status_on_exception": False}
        with use_span(span, end_on_exit=True, **quiet):
            await self._app(scope, receive, noted)


_METHODS: Final = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
_HEADERS: Final = {
    b"x-kidrails-request-id": "kidrails.request_id",
    b"x-kidrails-action": "kidrails.action",
    b"x-kidrails-answered": "kidrails.answered",
}
