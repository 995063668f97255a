"""Reads a request's body within bounds and parses it strictly."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.types import Receive

from kidrails_guard.proxy.problems import Problem

DEEPEST: Final = 40
"""Nested lists and objects; a tool's JSON schema rarely has more than ten."""


_BEGINS_S: Final = 0.05
"""How long an answer takes before anybody looks whether its caller is still there."""


class CallerLeft(Exception):
    """The caller closed the connection."""


@asynccontextmanager
async def while_caller_waits(receive: Receive) -> AsyncIterator[None]:
    """Stop what the block waits for when the caller closes the connection.

    Args:
        receive: of the request, whose body has been read.

    Raises:
        CallerLeft: the caller left before the block's end.
    """
    task, left = asyncio.current_task(), False
    assert task is not None

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    watcher: asyncio.Task[None] | None = None

    def begin() -> None:  # not at once: short answers, there before it, are spared the task
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    timer = asyncio.get_running_loop().call_later(_BEGINS_S, begin)
    try:
        yield
    except asyncio.CancelledError:
        if not left or task.uncancel():
            raise
        raise CallerLeft from None
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()


async def read_body(
    receive: Receive, headers: Mapping[str, str], *, most_bytes: int, within_s: float
) -> bytes:
    """Return the whole body.

    Raises:
        Problem: too large, too slow, or not plain JSON by its headers.
        CallerLeft: the connection closed before the end.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also keeps web pages out, which may post plain text, or bytes without a type, anywhere.
        raise Problem(
            415,
            "unsupported_media_type",
            "content-type: send application/json",
        )
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            415, "unsupported_encoding", "content-encoding: send the body without compression"
        )
    length = headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > most_bytes:
        raise _too_large(most_bytes)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(within_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise CallerLeft
                part = message.get("body", b"")
                size += len(part)
                if size > most_bytes:
                    raise _too_large(most_bytes)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Problem(
            408,
            "request_timeout",
            f"body: not complete after {within_s:g} s; send it faster or smaller",
        ) from None


def _too_large(most_bytes: int) -> Problem:
    return Problem(
        413,
        "request_too_large",
        f"body: larger than {most_bytes} bytes; send fewer or shorter messages",
        failure="too_large",
    )


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object that the bytes hold.

    Raises:
        Problem: not UTF-8, not JSON, a repeated key, nested too deeply, or not an object.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except UnicodeDecodeError:
        raise _bad_json("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _bad_json(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _bad_json(f"nested more than {DEEPEST} deep") from None
    except ValueError as error:
        # Only our own hooks and Python's bound on digits get here; neither quotes a text.
        raise _bad_json(str(error).partition(";")[0]) from None
    if not isinstance(value, dict):
        raise _bad_json(f"a JSON object is needed, found {type(value).__name__}")
    _check_depth(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Two readers may take different ones: one for the guard, one for the model.
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")  # it would be passed on as Infinity
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise _bad_json(f"nested more than {DEEPEST} deep")


def _bad_json(problem: str) -> Problem:
    return Problem(400, "invalid_json", f"body: {problem}; send one JSON object, see /openapi.json")
