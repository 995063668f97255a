"""What a model server got wrong, in our words: its own never reach the caller."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Final

import httpx

from kidrails_guard.proxy.problems import Problem, UpstreamProblem

_TOO_LONG: Final = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum (?:context|model) length"
    r"|context (?:length|size|window)",
    re.IGNORECASE,
)
"""As OpenAI, llama-server, vLLM and SGLang say it: in the code, the type or the message."""
_MOST_ERROR_BYTES: Final = 65_536


async def refused(response: httpx.Response) -> UpstreamProblem:
    """Return what an HTTP status other than 200 means for the caller."""
    status, said = response.status_code, await _said(response)
    if status in {301, 302, 303, 307, 308}:
        return bad_answer(f"HTTP {status}: redirects are not followed, give its final URL")
    if _TOO_LONG.search(said):
        return too_long()
    if status == 404:
        return UpstreamProblem(
            "upstream_status",
            "model: the model server does not know it, or has no such route; GET /v1/models lists "
            "its models",
            status=404,
            code="model_not_found",
        )
    if status in {401, 403}:
        return UpstreamProblem(
            "upstream_status",
            f"the model server refused the proxy's key (HTTP {status}); its operator sets "
            "KIDRAILS_UPSTREAM_KEY",
            code="upstream_refused",
        )
    if status == 429:
        after = response.headers.get("retry-after", "")
        return UpstreamProblem(
            "upstream_status",
            "the model server is busy; try again later",
            status=429,
            code="rate_limit_exceeded",
            retry_after_s=int(after[:5]) if after.isdigit() else None,
        )
    if status == 402:
        return UpstreamProblem(
            "upstream_status",
            "the model server asks to be paid (HTTP 402); its operator looks after the account",
            code="upstream_refused",
        )
    if status == 408:
        return too_slow()
    if 400 <= status < 500:
        return UpstreamProblem(
            "upstream_status",
            f"the model server did not accept the request (HTTP {status}); leave out options that "
            "it does not know",
            status=400,
            code="upstream_rejected_request",
        )
    return UpstreamProblem(
        "upstream_status", f"the model server failed (HTTP {status}); try again in a moment"
    )


async def _said(response: httpx.Response) -> str:
    """Return what a server says of an error: to be told apart, never to be passed on."""
    start = b""
    try:
        async with asyncio.timeout(5):
            async for part in response.stream:  # type: ignore[union-attr]
                start += part
                if len(start) > _MOST_ERROR_BYTES:
                    break
        value = json.loads(start)
    except (ValueError, TimeoutError, RecursionError, httpx.TransportError):
        return ""
    error = value.get("error") or value if isinstance(value, dict) else None
    if isinstance(error, dict):
        return " ".join(str(error.get(name))[:1_000] for name in ("code", "type", "message"))
    return error[:1_000] if isinstance(error, str) else ""


def too_long() -> UpstreamProblem:
    """Return the error for a talk that the model cannot hold."""
    return UpstreamProblem(
        "upstream_status",
        "messages: longer than the model's context, in which max_tokens counts too; send fewer or "
        "shorter ones",
        status=400,
        code="context_length_exceeded",
    )


def bad_answer(what: str) -> UpstreamProblem:
    """Return the error for an answer that is not OpenAI's.

    Args:
        what: what came instead, in our words.
    """
    return UpstreamProblem(
        "upstream_garbage",
        f"the model server sent {what}; the operator checks --upstream, e.g. that it ends in /v1",
        code="upstream_invalid_response",
    )


def unreachable(error: httpx.TransportError) -> UpstreamProblem:
    """Return the error for a server that no connection reaches."""
    slow = isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout)
    return UpstreamProblem(
        "upstream_timeout" if slow else "upstream_unreachable",
        f"the model server cannot be reached ({type(error).__name__}); is it running? GET /ready "
        "says when it is back",
        status=503,
        code="upstream_unreachable",
        retry_after_s=2,
    )


def too_slow() -> UpstreamProblem:
    """Return the error for an answer that did not come in time."""
    return UpstreamProblem(
        "upstream_timeout",
        "the model server did not answer in time; try again, or ask for less",
        status=504,
        code="upstream_timeout",
    )


def broken_off() -> UpstreamProblem:
    """Return the error for an answer that ended before it was whole."""
    return UpstreamProblem(
        "upstream_broken_off",
        "the model server broke off in the middle of its answer; try again",
        code="upstream_broken_off",
    )


def word(text: str) -> str:
    """Return a header's value as an error may show it."""
    return repr(text[:60]) if text.isascii() and text.isprintable() else "unknown"


def empty_answer() -> Problem:
    """Return the error for an answer without a single choice."""
    return bad_answer("an answer without choices")


def ended_early() -> Problem:
    """Return the error for a stream that ended before the answer did."""
    return broken_off()
