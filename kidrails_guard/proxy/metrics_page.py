"""The page that Prometheus reads: on the proxy's own port, or on one that callers do not reach."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kidrails_guard.proxy.metrics import PrometheusMeter


def metrics_route(meter: PrometheusMeter) -> Route:
    """Return ``GET /metrics``."""

    def expose(request: Request) -> Response:
        page, kind = meter.exposition()
        return Response(page, headers={"content-type": kind})

    return Route("/metrics", expose)


class MetricsPort:
    """Middleware that answers one port with ``/metrics`` alone, and the others without it.

    The workers listen on both ports, so that Prometheus sees it when none of them answers.

    Args:
        app: what the other ports serve.
        meter: whose numbers are shown.
        port: of the second listener.
    """

    def __init__(self, app: ASGIApp, *, meter: PrometheusMeter, port: int) -> None:
        self._app, self._port = app, port
        self._page = Starlette(routes=[metrics_route(meter)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by the port that was called; the socket tells it, not what a caller wrote."""
        here = scope["type"] == "http" and scope["server"][1] == self._port
        await (self._page if here else self._app)(scope, receive, send)
