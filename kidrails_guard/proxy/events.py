"""What a reply consists of once it has passed: the one thing that every route's writer reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from kidrails_guard.proxy.call import ToolCall

Finish = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class Words:
    """Text that has passed.

    Attributes:
        choice: whose.
        text: what leaves.
        logprobs: of its tokens.
        kind: whether the words are the guard's own.
        refusal: whether the model says by them that it gives no answer in the format asked for.
    """

    choice: int
    text: str = field(repr=False)
    logprobs: tuple[dict[str, Any], ...] = ()
    kind: bool = False
    refusal: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """Tool calls that have passed, all of a choice at once."""

    choice: int
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class End:
    """A choice has ended."""

    choice: int
    reason: Finish


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts, numbers only, in the form of OpenAI's ``usage`` object.

    Where the upstream was closed before it gave them, they count the pieces that came.
    """

    counts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StillHere:
    """Nothing to say for a while."""


Event = Words | Tools | End | Usage | StillHere


def read_usage(value: Any) -> dict[str, Any] | None:
    """Return an upstream's usage with nothing but numbers in it, or None."""
    if not isinstance(value, dict):
        return None
    counts: dict[str, Any] = {}
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        number = value.get(name, 0)
        counts[name] = number if _is_count(number) else 0
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        inner = value.get(name)
        if isinstance(inner, dict):
            counts[name] = {
                key: number
                for key, number in inner.items()
                if _is_count(number) and key in _DETAILS
            }
    return counts


_DETAILS = frozenset(
    {
        "cached_tokens",
        "audio_tokens",
        "reasoning_tokens",
        "accepted_prediction_tokens",
        "rejected_prediction_tokens",
    }
)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


NO_USAGE: dict[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
"""Of an answer for which no model was asked."""
