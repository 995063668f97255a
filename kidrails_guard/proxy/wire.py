"""Writes events as OpenAI's chat and text completions, streamed or whole."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from kidrails_guard.proxy.call import Call, Turn
from kidrails_guard.proxy.chat import read_model
from kidrails_guard.proxy.events import End, Event, StillHere, Tools, Usage, Words
from kidrails_guard.proxy.fields import read_options
from kidrails_guard.proxy.problems import bad_field
from kidrails_guard.proxy.sse import DONE, HEARTBEAT, write_event
from kidrails_guard.units import clean_surrogates

Json = dict[str, Any]


class Writer(Protocol):
    """Writes one reply in the form of one route."""

    def begin(self) -> bytes:
        """Return what opens a stream."""
        ...

    def write(self, event: Event) -> bytes:
        """Return one event of a stream."""
        ...

    def end(self) -> bytes:
        """Return what closes a stream."""
        ...

    def whole(self, events: Iterable[Event]) -> Json:
        """Return a whole reply."""
        ...


class ChatWriter:
    """``/v1/chat/completions``."""

    def __init__(self, call: Call, request_id: str) -> None:
        self._call = call
        self._head: Json = {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": call.model,
        }

    def _chunk(self, choices: list[Json], usage: Json | None = None) -> bytes:
        chunk = {**self._head, "choices": choices}
        if self._call.usage_wanted:
            chunk["usage"] = usage
        return write_event(chunk)

    def _delta(self, choice: int, delta: Json, finish: str | None = None, **more: Any) -> bytes:
        logprobs = more.get("logprobs")
        return self._chunk(
            [{"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]
        )

    def begin(self) -> bytes:
        """Return the chunk that names the role, one a choice."""
        return b"".join(
            self._delta(choice, {"role": "assistant", "content": ""})
            for choice in range(self._call.count)
        )

    def write(self, event: Event) -> bytes:
        """Return one event of a stream."""
        if isinstance(event, Words):
            logprobs = {"content": list(event.logprobs)} if event.logprobs else None
            delta = {"refusal" if event.refusal else "content": event.text}
            return self._delta(event.choice, delta, logprobs=logprobs)
        if isinstance(event, Tools):
            calls = [{"index": i, **call.wire()} for i, call in enumerate(event.calls)]
            return self._delta(event.choice, {"tool_calls": calls})
        if isinstance(event, End):
            return self._delta(event.choice, {}, event.reason)
        if isinstance(event, StillHere):
            return HEARTBEAT
        return self._chunk([], event.counts) if self._call.usage_wanted else b""

    def end(self) -> bytes:
        """Return what closes a stream."""
        return DONE

    def whole(self, events: Iterable[Event]) -> Json:
        """Return a ``chat.completion``."""
        choices: dict[int, Json] = {}
        usage: Json | None = None
        for event in events:
            if isinstance(event, Usage):
                usage = event.counts
                continue
            if isinstance(event, StillHere):
                continue
            choice = choices.setdefault(
                event.choice,
                {
                    "index": event.choice,
                    "message": {"role": "assistant", "content": None, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                },
            )
            if isinstance(event, Words):
                message, field = choice["message"], "refusal" if event.refusal else "content"
                message[field] = (message[field] or "") + event.text
                if event.logprobs:
                    known = choice["logprobs"] or {"content": []}
                    choice["logprobs"] = {"content": [*known["content"], *event.logprobs]}
            elif isinstance(event, Tools):
                choice["message"]["tool_calls"] = [call.wire() for call in event.calls]
            else:
                choice["finish_reason"] = event.reason
        for choice in choices.values():
            message = choice["message"]
            silent = message["content"] is None and message["refusal"] is None
            if silent and "tool_calls" not in message:
                message["content"] = ""
        answer = {**self._head, "object": "chat.completion"}
        answer["choices"] = [choices[index] for index in sorted(choices)]
        if usage is not None:
            answer["usage"] = usage
        return answer


def completions_call(body: Mapping[str, Any], *, more: frozenset[str] = frozenset()) -> Call:
    """Read a request to ``/v1/completions``: the prompt is what the child says.

    Raises:
        Problem: names the field and what is accepted.
    """
    known = frozenset({"model", "prompt", "echo", "best_of", "logprobs"})
    options, ignored = read_options(body, known=known, more=more)
    if body.get("logprobs"):
        ignored += ("logprobs",)
    if body.get("echo"):
        raise bad_field(
            "echo", "the prompt cannot be repeated; leave it out", code="unsupported_parameter"
        )
    if (body.get("best_of") or 1) != 1:
        raise bad_field("best_of", "only 1 is supported; send n", code="unsupported_parameter")
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise bad_field(
            "prompt", "must be one text: token numbers cannot be checked, and one request holds one"
        )
    stream_options = body.get("stream_options") or {}
    return Call(
        route="completions",
        model=read_model(body),
        turns=(Turn("user", clean_surrogates(prompt)),),
        options=options,
        stream=bool(body.get("stream")),
        count=body.get("n") or 1,
        usage_wanted=stream_options.get("include_usage") is True,
        ignored=ignored,
    )


class CompletionsWriter:
    """``/v1/completions``."""

    def __init__(self, call: Call, request_id: str) -> None:
        self._call = call
        self._head: Json = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": call.model,
        }

    def _chunk(self, choice: int, text: str, finish: str | None) -> bytes:
        part = {"index": choice, "text": text, "logprobs": None, "finish_reason": finish}
        return write_event({**self._head, "choices": [part]})

    def begin(self) -> bytes:
        """Return nothing: the first text opens the stream."""
        return b""

    def write(self, event: Event) -> bytes:
        """Return one event of a stream."""
        if isinstance(event, Words):
            return self._chunk(event.choice, event.text, None)
        if isinstance(event, End):
            return self._chunk(event.choice, "", event.reason)
        if isinstance(event, Usage):
            if not self._call.usage_wanted:
                return b""
            return write_event({**self._head, "choices": [], "usage": event.counts})
        return HEARTBEAT if isinstance(event, StillHere) else b""

    def end(self) -> bytes:
        """Return what closes a stream."""
        return DONE

    def whole(self, events: Iterable[Event]) -> Json:
        """Return a ``text_completion``."""
        choices: dict[int, Json] = {}
        answer = dict(self._head)
        for event in events:
            if isinstance(event, Usage):
                answer["usage"] = event.counts
            elif isinstance(event, Words | End):
                choice = choices.setdefault(
                    event.choice,
                    {"index": event.choice, "text": "", "logprobs": None, "finish_reason": "stop"},
                )
                if isinstance(event, Words):
                    choice["text"] += event.text
                else:
                    choice["finish_reason"] = event.reason
        return {**answer, "choices": [choices[index] for index in sorted(choices)]}
