"""``/v1/responses``, read as a chat.

The upstream is asked by ``/v1/chat/completions``, which every server has, so that there is one way
through the guard. What needs state at the server is refused: the guard would not see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from kidrails_guard.proxy.call import Call, Turn
from kidrails_guard.proxy.chat import (
    check_child_speaks,
    read_answered_call,
    read_content,
    read_format,
    read_function_call,
    read_model,
    read_tool_choice,
    read_tools,
    read_turn,
)
from kidrails_guard.proxy.fields import read_options
from kidrails_guard.proxy.problems import bad_field
from kidrails_guard.units import clean_surrogates

Json = dict[str, Any]

_ROLES: Final = ("system", "developer", "user", "assistant")
_KNOWN: Final = frozenset(
    {
        "model",
        "input",
        "instructions",
        "tools",
        "tool_choice",
        "text",
        "max_output_tokens",
        "reasoning",
        "prompt",
        "n",
        "logprobs",
        "stream_options",
        "store",
        "metadata",
        "truncation",
        "include",
    }
)


def responses_call(
    body: Mapping[str, Any], *, allow_images: bool, more: frozenset[str] = frozenset()
) -> Call:
    """Read a request to ``/v1/responses``.

    Raises:
        Problem: names the field and what is accepted.
    """
    options, ignored = read_options(body, known=_KNOWN, more=more)
    if body.get("prompt") is not None:
        raise bad_field(
            "prompt",
            "a stored prompt is text that the guard does not see; send input and instructions",
            code="unsupported_parameter",
        )
    most = body.get("max_output_tokens")
    if most is not None:
        if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= 1_000_000:
            raise bad_field("max_output_tokens", "must be a whole number from 1 to 1000000")
        options["max_tokens"] = most
    text = body.get("text") or {}
    if not isinstance(text, dict):
        raise bad_field("text", "must be an object")
    choice = read_tool_choice(body.get("tool_choice"))
    return Call(
        route="responses",
        model=read_model(body),
        turns=_read_input(body.get("input"), body.get("instructions"), allow_images=allow_images),
        options=options,
        stream=bool(body.get("stream")),
        format=read_format(text.get("format"), "text.format"),
        tools=read_tools(body.get("tools")),
        tool_choice=choice,
        ignored=ignored,
        echoed={
            "parallel_tool_calls": options.get("parallel_tool_calls", True),
            "temperature": options.get("temperature"),
            "top_p": options.get("top_p"),
            "max_output_tokens": most,
            "tool_choice": "auto" if choice is None or isinstance(choice, dict) else choice,
        },
    )


def _read_input(value: Any, instructions: Any, *, allow_images: bool) -> tuple[Turn, ...]:
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise bad_field("input", "must be a text or a list of at least one item")
    if not isinstance(instructions, str | None):
        raise bad_field("instructions", "must be a text")
    turns: list[Turn] = []
    if instructions:
        turns.append(Turn("system", clean_surrogates(instructions)))
    for i, item in enumerate(value):
        where = f"input[{i}]"
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if kind == "message":
            message = {"role": item.get("role"), "content": item.get("content")}
            turns.append(read_turn(message, where, allow_images=allow_images, roles=_ROLES))
        elif kind == "function_call":
            call = read_function_call(item, where, item.get("call_id"), f"{where}.call_id")
            if turns and turns[-1].role == "assistant":
                # One message: many models take no two in a row.
                turns[-1] = replace(turns[-1], tool_calls=(*turns[-1].tool_calls, call))
            else:
                turns.append(Turn("assistant", "", (call,)))
        elif kind == "function_call_output":
            said, at = item.get("output"), f"{where}.output"
            text, _ = read_content(said, at, "tool", allow_images=False)
            call_id = read_answered_call(item.get("call_id"), f"{where}.call_id")
            turns.append(Turn("tool", text, tool_call_id=call_id))
        elif kind != "reasoning":
            raise bad_field(
                f"{where}.type",
                "must be message, function_call or function_call_output",
                code="unsupported_content",
            )
    check_child_speaks(turns, "input")
    return tuple(turns)
