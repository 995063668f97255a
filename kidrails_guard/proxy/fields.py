"""The request fields that a caller may set, and what each must look like.

Everything else is left out of what the model sees: some servers let a request field replace the
chat template, point to another server, or switch guardrails off, and new ones appear. The operator
adds fields by ``Settings.pass_fields``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from kidrails_guard.errors import UsageError
from kidrails_guard.proxy.problems import bad_field

Check = Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number (true and false are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _between(low: float, high: float) -> tuple[Check, str]:
    return (lambda v: is_number(v) and low <= v <= high), f"a number from {low:g} to {high:g}"


def _whole(low: int, high: int) -> tuple[Check, str]:
    return (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high
    ), f"a whole number from {low} to {high}"


def _is_bias(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= 1024
        and all(re.fullmatch(r"\d{1,8}", k) and is_number(v) for k, v in value.items())
    )


def _is_stop(value: Any) -> bool:
    stops = value if isinstance(value, list) else [value]
    return len(stops) <= 16 and all(isinstance(s, str) and len(s) <= 200 for s in stops)


_TRUTH: Final = ((lambda v: isinstance(v, bool)), "true or false")
_WORD: Final = (
    (lambda v: isinstance(v, str) and re.fullmatch(r"[\w.-]{1,64}", v) is not None),
    "a short word",
)

FORWARDED: Final[dict[str, tuple[Check, str]]] = {
    "temperature": _between(0, 2),
    "top_p": _between(0, 1),
    "top_k": _whole(-1, 1_000_000),
    "min_p": _between(0, 1),
    "repetition_penalty": _between(0, 10),
    "presence_penalty": _between(-2, 2),
    "frequency_penalty": _between(-2, 2),
    "max_tokens": _whole(1, 1_000_000),
    "max_completion_tokens": _whole(1, 1_000_000),
    "seed": _whole(-(2**63), 2**63 - 1),
    "stop": (_is_stop, "a text, or a list of up to 16 short texts"),
    "logit_bias": (_is_bias, "token numbers with a number each"),
    "parallel_tool_calls": _TRUTH,
    "reasoning_effort": _WORD,
    "service_tier": _WORD,
}
"""Passed on as they are, once they are of this form."""

READ: Final[dict[str, tuple[Check, str]]] = {
    "n": _whole(1, 8),
    "stream": _TRUTH,
    "logprobs": _TRUTH,
    "stream_options": ((lambda v: isinstance(v, dict)), "an object"),
}
"""Read by the proxy, which decides what the model is asked."""

REFUSED: Final[dict[str, str]] = {
    "functions": "send tools instead",
    "function_call": "send tool_choice instead",
    "audio": "spoken answers cannot be checked; leave it out",
    "modalities": 'only ["text"] can be checked; leave it out',
    "prediction": "predicted text is not checked; leave it out",
    "web_search_options": "what a search adds is not checked; leave it out",
    "previous_response_id": "earlier turns must be in the request, where the guard sees them",
    "conversation": "earlier turns must be in the request, where the guard sees them",
    "background": "an answer that is fetched later is not supported; leave it out",
    "suffix": "only a prompt is supported; leave it out",
}
"""Not supported, where going on without them would give another answer than the caller expects."""

_HARMLESS: Final[dict[str, Callable[[Any], bool]]] = {
    "modalities": lambda value: value == ["text"],
    "background": lambda value: value is False,
}

_NEVER_PASSED: Final = re.compile(
    r"chat_template|template|messages|model|prompt|tools?|input|instructions|continue_final_message"
    r"|add_generation_prompt|guard|kidrails|metadata|api_|base_url|headers|mock|litellm|stream"
    r"|documents|functions?|audio|modalities|conversation|plugins|url|key",
)


def check_pass_fields(names: Iterable[str]) -> None:
    """Check the fields that an operator wants passed on.

    Raises:
        UsageError: one of them could change what the guard has decided about.
    """
    for name in names:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name) or _NEVER_PASSED.search(name):
            raise UsageError(
                f"pass_fields: {name!r} cannot be passed on, since it could change what the model "
                "is told or where it runs; sampling options such as top_a can"
            )


def read_options(
    body: Mapping[str, Any], *, known: frozenset[str], more: frozenset[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the options to forward, and the names of fields that are left out.

    Args:
        body: the request.
        known: fields that the route reads itself.
        more: the operator's `Settings.pass_fields`.

    Raises:
        Problem: a field has a wrong form or is refused.
    """
    options: dict[str, Any] = {}
    ignored = []
    for name, value in body.items():
        if value is None or name in known:
            continue
        if name in REFUSED:
            if not _HARMLESS.get(name, lambda _: False)(value):
                raise bad_field(name, REFUSED[name], code="unsupported_parameter")
            continue
        rule = FORWARDED.get(name) or READ.get(name)
        if rule is None:
            if name in more:
                options[name] = value
            elif re.fullmatch(r"\w{1,40}", name, re.ASCII):
                ignored.append(name)
            continue
        holds, accepted = rule
        if not holds(value):
            raise bad_field(name, f"must be {accepted}")
        if name in FORWARDED:
            options[name] = value
    return options, tuple(sorted(ignored)[:10])
