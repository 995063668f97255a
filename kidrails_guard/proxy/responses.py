"""``/v1/responses``: read as a chat, written as OpenAI's response object and its events.

The upstream is asked by ``/v1/chat/completions``, which every server has, so that there is one way
through the guard. What needs state at the server is refused: the guard would not see it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kidrails_guard.proxy.call import (
    Call,
    Turn,
    read_format,
    read_model,
    read_tool_choice,
    read_tools,
    read_turns,
)
from kidrails_guard.proxy.events import NO_USAGE, End, Event, StillHere, Tools, Usage, Words
from kidrails_guard.proxy.fields import read_options
from kidrails_guard.proxy.problems import bad_field
from kidrails_guard.proxy.sse import HEARTBEAT, write_event

Json = dict[str, Any]

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
_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


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
    messages: list[Json] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    for i, item in enumerate(value):
        where = f"input[{i}]"
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if kind == "message":
            messages.append({"role": item.get("role"), "content": item.get("content")})
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "function": function}
            last = messages[-1] if messages else {}
            if last.get("role") == "assistant" and "tool_calls" in last:
                last["tool_calls"].append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == "function_call_output":
            output = item.get("output")
            messages.append(
                {"role": "tool", "content": output, "tool_call_id": item.get("call_id")}
            )
        elif kind != "reasoning":
            raise bad_field(
                f"{where}.type",
                "must be message, function_call or function_call_output",
                code="unsupported_content",
            )
    return read_turns(messages, allow_images=allow_images)


class ResponsesWriter:
    """Writes the one reply of a response."""

    def __init__(self, call: Call, request_id: str) -> None:
        self._id = request_id
        self._message_id = f"msg_{request_id}"
        self._number = 0
        self._text = ""
        self._open = False
        self._output: list[Json] = []
        self._finish = "stop"
        self._usage: Json = NO_USAGE
        self._head: Json = {
            "id": f"resp_{request_id}",
            "object": "response",
            "created_at": int(time.time()),
            "model": call.model,
            "error": None,
            "instructions": None,
            "metadata": {},
            "tools": [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                    "strict": tool.strict,
                }
                for tool in call.tools
            ],
            "store": False,
            **call.echoed,
        }

    def _event(self, kind: str, /, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return write_event(event, name=kind)

    def _response(self, status: str) -> Json:
        reason = _INCOMPLETE.get(self._finish) if status == "incomplete" else None
        response = {
            **self._head,
            "status": status,
            "incomplete_details": {"reason": reason} if reason else None,
            "output": self._output,
        }
        if status != "in_progress":
            response["usage"] = _usage(self._usage)
        return response

    def begin(self) -> bytes:
        """Return the events that open a stream."""
        response = self._response("in_progress")
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _message(self, status: str) -> Json:
        part = {"type": "output_text", "text": self._text, "annotations": [], "logprobs": []}
        return {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [] if status == "in_progress" else [part],
        }

    def write(self, event: Event) -> bytes:
        """Return one event of a stream."""
        if isinstance(event, Words):
            place = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
            data = b""
            if not self._open:
                self._open = True
                part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
                data += self._event(
                    "response.output_item.added", output_index=0, item=self._message("in_progress")
                )
                data += self._event("response.content_part.added", **place, part=part)
            self._text += event.text
            return data + self._event(
                "response.output_text.delta", **place, delta=event.text, logprobs=[]
            )
        if isinstance(event, Tools):
            return self._close_message() + self._tools(event)
        if isinstance(event, End):
            self._finish = event.reason
            return self._close_message()
        if isinstance(event, Usage):
            self._usage = event.counts
            return b""
        return HEARTBEAT

    def _close_message(self) -> bytes:
        if not self._open:
            return b""
        self._open = False
        place = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        item = self._message("completed")
        self._output.append(item)
        return (
            self._event("response.output_text.done", **place, text=self._text, logprobs=[])
            + self._event("response.content_part.done", **place, part=item["content"][0])
            + self._event("response.output_item.done", output_index=0, item=item)
        )

    def _tools(self, event: Tools) -> bytes:
        data = b""
        for i, call in enumerate(event.calls):
            index = len(self._output)
            item_id = f"fc_{self._id}_{i}"
            item = {
                "id": item_id,
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": "",
                "status": "in_progress",
            }
            done = {**item, "arguments": call.arguments, "status": "completed"}
            place = {"item_id": item_id, "output_index": index}
            data += self._event("response.output_item.added", output_index=index, item=item)
            data += self._event(
                "response.function_call_arguments.delta", **place, delta=call.arguments
            )
            data += self._event(
                "response.function_call_arguments.done",
                **place,
                name=call.name,
                arguments=call.arguments,
            )
            data += self._event("response.output_item.done", output_index=index, item=done)
            self._output.append(done)
        return data

    def end(self) -> bytes:
        """Return what closes a stream: the whole response, complete or not."""
        status = "incomplete" if self._finish in _INCOMPLETE else "completed"
        return self._event(f"response.{status}", response=self._response(status))

    def whole(self, events: Iterable[Event]) -> Json:
        """Return a response."""
        for event in events:
            if not isinstance(event, StillHere):
                self.write(event)
        return self._response("incomplete" if self._finish in _INCOMPLETE else "completed")


def _usage(counts: Json) -> Json:
    inner = counts.get("prompt_tokens_details", {})
    outer = counts.get("completion_tokens_details", {})
    usage = {
        "input_tokens": counts["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": inner.get("cached_tokens", 0),
            "cache_write_tokens": 0,
        },
        "output_tokens": counts["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": outer.get("reasoning_tokens", 0)},
        "total_tokens": counts["total_tokens"],
    }
    if "kidrails_withheld_characters" in counts:
        usage["kidrails_withheld_characters"] = counts["kidrails_withheld_characters"]
    return usage
