"""What every answer of the proxy has: a number, errors in OpenAI's shape, a place in the counts."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kidrails_guard.proxy import seams
from kidrails_guard.proxy.body import CallerLeft
from kidrails_guard.proxy.exchange import json_response, milliseconds_since, where
from kidrails_guard.proxy.problems import Problem, no_such_method, no_such_route
from kidrails_guard.proxy.service import Service

_log: Final = logging.getLogger("kidrails.proxy")

Handler = Callable[[Request, str, Callable[[int], None]], Awaitable[Response]]
"""Answers a request with a number; tells the status to its last argument once it has ended."""


class Endpoints:
    """Makes routes of handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def route(
        self, path: str, name: seams.Route, handler: Handler, methods: list[str]
    ) -> BaseRoute:
        """Return a route whose every error is OpenAI-shaped and counted."""

        async def endpoint(request: Request) -> Response:
            return await self._answer(request, name, handler)

        return Route(path, endpoint, methods=methods, name=name)

    async def not_here(self, request: Request, error: Exception) -> Response:
        """Answer a path or a method that is not there, like any other error."""
        problem = no_such_route()
        if isinstance(error, HTTPException) and error.status_code == 405:
            problem = no_such_method((error.headers or {}).get("Allow", ""))

        async def refuse(
            request: Request, request_id: str, finished: Callable[[int], None]
        ) -> Response:
            raise problem

        return await self._answer(request, "other", refuse)

    async def _answer(self, request: Request, name: seams.Route, handler: Handler) -> Response:
        start, request_id = time.perf_counter(), secrets.token_hex(12)

        def finished(status: int) -> None:
            seconds = time.perf_counter() - start
            self._service.meter.request(name, status, seconds)
            fields = {
                "request_id": request_id,
                "route": name,
                "status": status,
                "ms": milliseconds_since(start),
            }
            _log.info("%s %s %d", request_id, name, status, extra={"fields": fields})

        try:
            response = await handler(request, request_id, finished)
        except Problem as problem:
            self._service.count_failure(problem)
            response = json_response(
                problem.body(), status=problem.status, headers=problem.headers()
            )
            finished(problem.status)
        except CallerLeft:
            response = Response(status_code=499)
            finished(499)
        except Exception as error:
            self._service.meter.failure("internal")
            _log.error("%s internal: %s", request_id, where(error))
            response = json_response(_internal(request_id).body(), status=500)
            finished(500)
        response.headers["x-kidrails-request-id"] = request_id
        response.headers["x-request-id"] = request_id
        return response


def _internal(request_id: str) -> Problem:
    return Problem(
        500,
        "internal_error",
        "something went wrong inside the proxy; the operator finds it in the log under "
        f"{request_id}",
        failure="internal",
    )
