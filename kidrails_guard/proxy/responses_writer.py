"""``/v1/responses``, written: OpenAI's response object, and the events of its stream."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from kidrails_guard.proxy.call import Call
from kidrails_guard.proxy.events import NO_USAGE, End, Event, StillHere, Tools, Usage, Words
from kidrails_guard.proxy.sse import HEARTBEAT, write_event

Json = dict[str, Any]

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_TEXT: Final = {"output_text": "text", "refusal": "refusal"}
"""Where a kind of part holds its text."""


class ResponsesWriter:
    """Writes the one reply of a response."""

    def __init__(self, call: Call, request_id: str) -> None:
        self._id = request_id
        self._number = 0
        self._messages = 0
        self._parts: list[Json] = []  # of the message that is being written
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
        return {
            "id": self._place()["item_id"],
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": list(self._parts),
        }

    def _place(self) -> Json:
        number = f"_{self._messages}" if self._messages else ""
        return {"item_id": f"msg_{self._id}{number}", "output_index": len(self._output)}

    def _part_place(self) -> Json:
        return {**self._place(), "content_index": len(self._parts) - 1}

    def write(self, event: Event) -> bytes:
        """Return one event of a stream."""
        if isinstance(event, Words):
            kind = "refusal" if event.refusal else "output_text"
            data = self._open_part(kind)
            self._parts[-1][_TEXT[kind]] += event.text
            more: Json = {} if event.refusal else {"logprobs": []}
            return data + self._event(
                f"response.{kind}.delta", **self._part_place(), delta=event.text, **more
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

    def _open_part(self, kind: str) -> bytes:
        """Return what goes before a text of a kind; nothing where its part is open."""
        if self._parts and self._parts[-1]["type"] == kind:
            return b""
        if self._parts:
            data = self._close_part()
        else:
            item = self._message("in_progress")
            index = len(self._output)
            data = self._event("response.output_item.added", output_index=index, item=item)
        part: Json = {"type": kind, _TEXT[kind]: ""}
        if kind == "output_text":
            part |= {"annotations": [], "logprobs": []}
        self._parts.append(part)
        return data + self._event("response.content_part.added", **self._part_place(), part=part)

    def _close_part(self) -> bytes:
        part = self._parts[-1]
        kind = part["type"]
        said = {_TEXT[kind]: part[_TEXT[kind]]}
        more: Json = {"logprobs": []} if kind == "output_text" else {}
        return self._event(
            f"response.{kind}.done", **self._part_place(), **said, **more
        ) + self._event("response.content_part.done", **self._part_place(), part=part)

    def _close_message(self) -> bytes:
        if not self._parts:
            return b""
        item, index = self._message("completed"), len(self._output)
        data = self._close_part()
        data += self._event("response.output_item.done", output_index=index, item=item)
        self._output.append(item)
        self._parts = []
        self._messages += 1
        return data

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
