"""What goes wrong in a request, in the shape in which OpenAI's clients expect to be told."""

from __future__ import annotations

from typing import Any

from kidrails_guard.errors import KidRailsError
from kidrails_guard.proxy.seams import Failure


class Problem(KidRailsError):
    """A request ends with an HTTP error.

    Args:
        status: the HTTP status.
        code: OpenAI's ``error.code``; clients branch on it.
        message: what was wrong, where, what is accepted, what to do; never a child's words.
        param: the request's field, where one is to blame.
        failure: what to count; None where nothing failed, as with words that were held back.
        retry_after_s: when to come back, for 429 and 503.
        allow: the methods that there are, for 405.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        failure: Failure | None = "bad_request",
        retry_after_s: int | None = None,
        allow: str | None = None,
    ) -> None:
        self.status, self.code, self.param = status, code, param
        self.failure, self.retry_after_s, self.allow = failure, retry_after_s, allow
        super().__init__(message)

    @property
    def kind(self) -> str:
        """OpenAI's ``error.type``."""
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "api_error"

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """Return the headers that belong to it."""
        found = {"retry-after": self.retry_after_s, "allow": self.allow}
        return {name: str(value) for name, value in found.items() if value is not None}


def bad_field(param: str, problem: str, *, code: str = "invalid_value") -> Problem:
    """Return the error for one field of the request, as ``param: problem``."""
    return Problem(400, code, f"{param}: {problem}", param=param)


def no_such_route() -> Problem:
    """Return the error for a path that the proxy does not have."""
    return Problem(
        404,
        "unknown_url",
        "no such route; there are /v1/chat/completions, /v1/completions, /v1/responses, "
        "/v1/embeddings, /v1/models, /v1/moderations, /health, /ready and /openapi.json",
    )


def no_such_method(allowed: str) -> Problem:
    """Return the error for a method that a path does not have.

    Args:
        allowed: the methods that it has, as the header ``allow`` names them.
    """
    return Problem(405, "method_not_allowed", f"this route takes {allowed}", allow=allowed)


def audit_unavailable() -> Problem:
    """Return the error for a service that gives no unrecorded answers and cannot record."""
    return Problem(
        503,
        "audit_unavailable",
        "the audit log cannot be written, and this service gives no unrecorded answers; its "
        "operator finds the reason in the log",
        failure="audit",
        retry_after_s=5,
    )


class UpstreamProblem(Problem):
    """The model server did not answer as OpenAI's API does; its own words are not passed on."""

    def __init__(
        self,
        failure: Failure,
        message: str,
        *,
        status: int = 502,
        code: str = "upstream_error",
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(status, code, message, failure=failure, retry_after_s=retry_after_s)
