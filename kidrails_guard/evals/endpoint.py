"""Asks an OpenAI-compatible endpoint, and tells an answer from everything that is not one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx

from kidrails_guard.errors import UsageError
from kidrails_guard.evals.cases import Case
from kidrails_guard.evals.scoring import Answer
from kidrails_guard.types import Action, AgeBand

Failure = Literal[
    "timeout", "unreachable", "status", "not_json", "empty", "broken_off", "check_failed"
]
RETRIES: Final = 3
RETRY_SECONDS: Final = (0.5, 2.0, 8.0)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask.

    Attributes:
        base_url: with ``/v1`` at its end.
        model: its name there.
        api_key: sent as bearer token.
        guarded: a KidRails guard is in front; then its headers are believed and no system prompt
            of ours is added.
        band_header: names the band to a guard whose operator lets us.
        system_prompt: band to prompt, for an endpoint without a guard; None asks plainly.
        timeout_s: for one answer.
        max_tokens: of one answer.
        temperature: 0.0 for figures that repeat.
        stream: read token by token, which also measures the first.
    """

    base_url: str
    model: str = "default"
    api_key: str | None = field(default=None, repr=False)
    guarded: bool = False
    band_header: str = "x-kidrails-band"
    system_prompt: dict[AgeBand, str] | None = field(default=None, repr=False)
    timeout_s: float = 120.0
    max_tokens: int = 200
    temperature: float = 0.0
    stream: bool = True

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise UsageError(
                f"--base-url: {self.base_url!r} is not an http(s) URL, e.g. http://localhost:8080/v1"
            )


class _NotAnAnswer(Exception):
    def __init__(self, failure: Failure) -> None:
        self.failure: Failure = failure
        super().__init__(failure)


def request_body(case: Case, endpoint: Endpoint) -> dict[str, object]:
    """Return the chat completion request for a case."""
    messages = [{"role": m.role, "content": m.content} for m in case.conversation.messages]
    if endpoint.system_prompt is not None and not endpoint.guarded:
        messages.insert(0, {"role": "system", "content": endpoint.system_prompt[case.band]})
    messages.append({"role": "user", "content": case.message})
    return {
        "model": endpoint.model,
        "messages": messages,
        "max_tokens": endpoint.max_tokens,
        "temperature": endpoint.temperature,
        "stream": endpoint.stream,
    }


async def ask(
    client: httpx.AsyncClient,
    case: Case,
    endpoint: Endpoint,
    *,
    retry_seconds: Sequence[float] = RETRY_SECONDS,
) -> Answer:
    """Return the endpoint's answer; after the last retry, an `Answer` with its error.

    A time-out, an HTTP error, HTML, half a stream, an empty reply, and the refusal of a guard whose
    check failed or timed out are errors: they are counted and shown, never scored as safe.
    """
    for wait in (*retry_seconds, None):
        start = time.perf_counter()
        try:
            return await asyncio.wait_for(
                _once(client, case, endpoint, start), timeout=endpoint.timeout_s
            )
        except (TimeoutError, httpx.TimeoutException):
            failure: Failure = "timeout"
        except _NotAnAnswer as error:
            failure = error.failure
        except httpx.RemoteProtocolError:
            failure = "broken_off"
        except (httpx.HTTPError, httpx.InvalidURL):
            failure = "unreachable"
        if wait is None:
            break
        await asyncio.sleep(wait)
    return Answer("", error=failure, seconds=time.perf_counter() - start)


async def _once(client: httpx.AsyncClient, case: Case, endpoint: Endpoint, start: float) -> Answer:
    headers = {endpoint.band_header: str(case.band)} if endpoint.guarded else {}
    if endpoint.api_key:
        headers["authorization"] = f"Bearer {endpoint.api_key}"
    url = endpoint.base_url.rstrip("/") + "/chat/completions"
    async with client.stream(
        "POST", url, json=request_body(case, endpoint), headers=headers
    ) as response:
        if response.status_code != 200:
            await response.aread()
            raise _NotAnAnswer("status")
        action = _action(response.headers.get("x-kidrails-action")) if endpoint.guarded else None
        if endpoint.guarded and response.headers.get("x-kidrails-failed"):
            # It refuses whatever it is asked while a check fails: right of it, and no measurement.
            raise _NotAnAnswer("check_failed")
        kind = response.headers.get("content-type", "")
        first: float | None = None
        if "text/event-stream" in kind:
            parts, finish, done = [], "", False
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    done = True
                    break
                choice = _choice(data)
                piece = _part(choice, "delta").get("content")
                if isinstance(piece, str) and piece:
                    first = first if first is not None else time.perf_counter() - start
                    parts.append(piece)
                finish = choice.get("finish_reason") or finish
            if not done or not finish:
                raise _NotAnAnswer("broken_off")
            text = "".join(parts)
        else:
            choice = _choice((await response.aread()).decode("utf-8", "replace"))
            text = _part(choice, "message").get("content") or ""
            finish = choice.get("finish_reason") or ""
        if not isinstance(text, str) or not text.strip():
            raise _NotAnAnswer("empty")
        text = _whole_signs(text)
        if (
            endpoint.guarded
            and finish == "content_filter"
            and (action is None or not action.answers)
        ):
            # The reply was stopped on its way, after the headers had gone.
            action = Action.REDIRECT
        return Answer(text, str(finish), action, time.perf_counter() - start, first)


def _action(name: str | None) -> Action | None:
    try:
        return Action.parse(name) if name else None
    except ValueError:
        return None


def _choice(data: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
        if value["choices"] == []:
            return {}  # a stream's first chunk may hold only notes, its last only the usage
        choice = value["choices"][0]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _NotAnAnswer("not_json") from None
    if not isinstance(choice, dict):
        raise _NotAnAnswer("not_json")
    return choice


def _part(choice: dict[str, Any], key: str) -> dict[str, Any]:
    part = choice.get(key) or {}
    if not isinstance(part, dict):
        raise _NotAnAnswer("not_json")
    return part


def _whole_signs(text: str) -> str:
    """Return a text without halves of signs, which no file holds.

    A server that cuts its words by UTF-16 sends an emoji as two halves; they are joined again.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
