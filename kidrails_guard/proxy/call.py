"""One request in the proxy's own terms, whichever of OpenAI's routes it came by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kidrails_guard.proxy.seams import Route
from kidrails_guard.types import Role


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants called; the arguments are a JSON text."""

    id: str
    name: str
    arguments: str = field(repr=False)

    def wire(self) -> dict[str, Any]:
        """Return it as it stands in a message."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the request. ``repr`` never shows what it says."""

    role: Role
    text: str = field(repr=False)
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    images: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the caller offers to the model."""

    name: str
    description: str
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """That the reply is to be JSON, by a schema where there is one."""

    schema: dict[str, Any] | None = None
    name: str = "reply"
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What the caller wants.

    Attributes:
        route: where it came in.
        model: the model's name as the caller wrote it.
        turns: all messages, oldest first.
        options: sampling options for the upstream.
        stream: whether the reply goes out in pieces.
        count: how many replies (``n``).
        usage_wanted: whether a stream ends with the token counts.
        logprobs: whether the reply's tokens are to carry their log probabilities.
        format: that the reply is to be JSON.
        tools: what the model may call.
        tool_choice: as the caller sent it, checked.
        ignored: fields that were left out.
        echoed: what a route's response repeats of its request.
    """

    route: Route
    model: str
    turns: tuple[Turn, ...] = field(repr=False)
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    stream: bool = False
    count: int = 1
    usage_wanted: bool = False
    logprobs: bool = False
    format: Format | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str | dict[str, Any] | None = None
    ignored: tuple[str, ...] = ()
    echoed: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def said_in(self) -> str:
        """The request's field that holds what the child says, for errors."""
        return {"responses": "input", "completions": "prompt"}.get(self.route, "messages")
