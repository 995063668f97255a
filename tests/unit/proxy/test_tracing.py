"""A trace says what happened and how long it took, and nothing that anybody wrote."""

from __future__ import annotations

import sys

import httpx
import pytest
from clients import Ledger, Proxied
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from planted import Planted, planted_policy
from starlette.routing import Route
from upstreams import Says

from kidrails_guard.errors import MissingDependency, UsageError
from kidrails_guard.guard import Guard
from kidrails_guard.proxy.app import build_app
from kidrails_guard.proxy.deployment import Deployment
from kidrails_guard.proxy.seams import OneTenant
from kidrails_guard.proxy.settings import Settings
from kidrails_guard.proxy.tracing import Traced, TracingMeter, exporter_wanted, make_exporter

CHAT = "POST /v1/chat/completions"


class Watched(Proxied):
    """A proxy whose spans a test reads."""

    def __init__(self, upstream: Says | httpx.AsyncBaseTransport | None = None) -> None:
        super().__init__(upstream)
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        tracer = provider.get_tracer("test")
        meter = TracingMeter(Ledger(), tracer)
        guard = Guard(planted_policy(), checks=[Planted()], observer=meter.check)
        transport = self.upstream.transport() if isinstance(self.upstream, Says) else self.upstream
        self.app = build_app(
            Settings("http://upstream.test"), tenants=OneTenant(guard), transport=transport,
            audit=self.ledger, meter=meter,
        )  # fmt: skip
        paths = frozenset(route.path for route in self.app.routes if isinstance(route, Route))
        self.app.add_middleware(Traced, tracer=tracer, routes=paths)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://proxy.test"
        )

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_a_span_with_its_checks_and_verdicts(stream: bool) -> None:
    proxy = Watched()
    response = await proxy.chat("hello", stream=stream)
    (span,) = proxy.spans(CHAT)
    assert span.attributes["kidrails.request_id"] == response.headers["x-kidrails-request-id"]
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["kidrails.tenant"] == "local"
    verdicts = [e.attributes["kidrails.stage"] for e in span.events if e.name == "verdict"]
    assert verdicts == ["input", "output"]
    checks = proxy.spans("check planted")
    assert {c.attributes["kidrails.stage"] for c in checks} == {"input", "output"}
    for check in checks:
        assert check.parent.span_id == span.context.span_id
        assert span.start_time <= check.start_time <= check.end_time <= span.end_time


async def test_failures_are_named() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("zorblat")

    proxy = Watched(httpx.MockTransport(fail))
    await proxy.chat("hello")
    (span,) = proxy.spans(CHAT)
    assert not span.status.is_ok
    assert [e.attributes["kidrails.failure"] for e in span.events if e.name == "failure"] == [
        "upstream_unreachable"
    ]


async def test_a_trace_holds_nothing_that_anybody_wrote(monkeypatch) -> None:
    proxy = Watched(Says("Here is a zorblat for you."))
    parent = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    headers = {
        "traceparent": parent,
        "tracestate": "zorblat=1",
        "authorization": "Bearer zorblat",
        "x-kidrails-session": "zorblat-1",
    }
    await proxy.chat("a zorblat for anna@home.test", "ok", "and now?", headers=headers)
    await proxy.http.request("ZORBLAT", "/v1/zorblat?zorblat=1", headers=headers)
    await proxy.http.get("/v1/models/zorblat")

    async def broken(*args: object) -> None:
        raise ValueError("zorblat")

    monkeypatch.setattr("kidrails_guard.proxy.callers.Callers.tenant", broken)
    assert (await proxy.http.get("/v1/models")).status_code == 500
    told = "".join(span.to_json() for span in proxy.exporter.get_finished_spans())
    assert "zorblat" not in told.lower()
    assert "anna" not in told
    (span,) = proxy.spans(CHAT)
    assert format(span.context.trace_id, "032x") == "ab" * 16  # the caller's trace goes on
    assert len(proxy.spans("_OTHER other")) == 1


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, "none"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, "none"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, "none"),
    ],
)
def test_the_environment_decides(environment: dict[str, str], wanted: str) -> None:
    assert exporter_wanted(environment) == wanted
    if wanted == "none":
        assert make_exporter(environment) is None


def test_what_is_missing_is_named_with_its_command(monkeypatch) -> None:
    with pytest.raises(UsageError, match="accepted: otlp, console, none"):
        exporter_wanted({"OTEL_TRACES_EXPORTER": "zipkin"})
    for module in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x:4318")
    with pytest.raises(MissingDependency, match="pip install opentelemetry-sdk"):
        Deployment(Settings("http://x")).app()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert make_exporter() is None
