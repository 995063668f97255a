"""``/v1/chat/completions``, read; and the readers of messages, tools and formats for all routes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from kidrails_guard.proxy.call import Call, Format, Tool, ToolCall, Turn
from kidrails_guard.proxy.fields import read_options
from kidrails_guard.proxy.jsontext import clean_json
from kidrails_guard.proxy.problems import bad_field
from kidrails_guard.types import Role
from kidrails_guard.units import clean_surrogates

_CHAT_FIELDS: Final = frozenset(
    {"model", "messages", "tools", "tool_choice", "response_format", "top_logprobs"}
)
_MODEL: Final = re.compile(r"[^\s\x00-\x1f\x7f]{1,200}")
_ROLES: Final = ("system", "developer", "user", "assistant", "tool")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_IDENTIFIER: Final = re.compile(r"[\w.:|-]{1,128}", re.ASCII)
_IMAGE: Final = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+")


def read_model(body: Mapping[str, Any]) -> str:
    """Return the model's name.

    Raises:
        Problem: it is absent or no name.
    """
    model = body.get("model")
    if not isinstance(model, str) or not _MODEL.fullmatch(model):
        raise bad_field("model", "must be a model's name; GET /v1/models lists them")
    return clean_surrogates(model)


def chat_call(
    body: Mapping[str, Any], *, allow_images: bool, more: frozenset[str] = frozenset()
) -> Call:
    """Read a request to ``/v1/chat/completions``.

    Raises:
        Problem: names the field and what is accepted.
    """
    options, ignored = read_options(body, known=_CHAT_FIELDS, more=more)
    stream_options = body.get("stream_options") or {}
    return Call(
        route="chat",
        model=read_model(body),
        turns=read_turns(body.get("messages"), allow_images=allow_images),
        options=options,
        stream=bool(body.get("stream")),
        count=body.get("n") or 1,
        usage_wanted=stream_options.get("include_usage") is True,
        logprobs=bool(body.get("logprobs")),
        format=read_format(body.get("response_format"), "response_format"),
        tools=read_tools(body.get("tools")),
        tool_choice=read_tool_choice(body.get("tool_choice")),
        ignored=ignored,
    )


def read_turns(messages: Any, *, allow_images: bool) -> tuple[Turn, ...]:
    """Return the turns.

    Raises:
        Problem: names the message and what is accepted.
    """
    if not isinstance(messages, list) or not messages:
        raise bad_field("messages", "must be a list of at least one message")
    turns = tuple(
        read_turn(message, f"messages[{i}]", allow_images=allow_images)
        for i, message in enumerate(messages)
    )
    check_child_speaks(turns, "messages")
    return turns


def check_child_speaks(turns: Iterable[Turn], where: str) -> None:
    """Check that somebody asks something.

    Raises:
        Problem: no message is the child's.
    """
    if not any(turn.role == "user" for turn in turns):
        raise bad_field(where, "at least one message must have the role user")


def read_turn(
    message: Any, where: str, *, allow_images: bool, roles: tuple[str, ...] = _ROLES
) -> Turn:
    """Return one message.

    Args:
        message: the request's.
        where: names it in errors.
        allow_images: whether it may show any.
        roles: that it may have.

    Raises:
        Problem: names the field and what is accepted.
    """
    if not isinstance(message, dict):
        raise bad_field(where, "must be an object with role and content")
    role = message.get("role")
    if not isinstance(role, str) or role not in roles:
        raise bad_field(f"{where}.role", f"must be one of {', '.join(roles)}")
    calls: tuple[ToolCall, ...] = ()
    if role == "assistant" and message.get("tool_calls"):
        calls = _read_tool_calls(message["tool_calls"], f"{where}.tool_calls")
    content = message.get("content")
    if content is None and role == "assistant":
        # Some clients keep a turn that said and called nothing: null beside an empty list.
        content = message.get("refusal") or ""
        if not calls and not content and "tool_calls" not in message:
            raise bad_field(f"{where}.content", "must be a text")
    text, images = read_content(content, f"{where}.content", role, allow_images=allow_images)
    call_id = ""
    if role == "tool":
        call_id = read_answered_call(message.get("tool_call_id"), f"{where}.tool_call_id")
    return Turn(cast(Role, role), text, calls, call_id, images)


def read_answered_call(call_id: Any, where: str) -> str:
    """Return which tool call a tool's result belongs to.

    Raises:
        Problem: it is no identifier.
    """
    if not isinstance(call_id, str) or not _IDENTIFIER.fullmatch(call_id):
        raise bad_field(where, "must name the tool call that is answered")
    return call_id


def read_content(
    content: Any, where: str, role: str, *, allow_images: bool
) -> tuple[str, tuple[str, ...]]:
    """Return a message's text and images.

    Raises:
        Problem: names the part and what is accepted.
    """
    if isinstance(content, str):
        return clean_surrogates(content), ()
    if not isinstance(content, list) or not content:
        raise bad_field(where, "must be a text or a list of parts")
    texts, images = [], []
    for i, part in enumerate(content):
        at = f"{where}[{i}]"
        if not isinstance(part, dict):
            raise bad_field(at, "must be an object with a type")
        kind = str(part.get("type"))  # any JSON value may stand here
        text = part.get("refusal") if kind == "refusal" else part.get("text")
        if kind in {"text", "input_text", "output_text", "refusal"} and isinstance(text, str):
            texts.append(clean_surrogates(text))
        elif kind in {"image_url", "input_image"} and role == "user":
            images.append(_read_image(part.get("image_url"), at, allowed=allow_images))
        elif kind in {"input_audio", "file", "input_file", "video_url"}:
            raise bad_field(
                at, f"parts of type {kind} cannot be checked; send text", code="unsupported_content"
            )
        else:
            raise bad_field(at, "must be a part of type text with a text")
    # One text: what is checked is then exactly what the model reads.
    return "\n".join(texts), tuple(images)


def _read_image(image: Any, where: str, *, allowed: bool) -> str:
    if not allowed:
        raise bad_field(
            where,
            "images cannot be checked, and this policy does not allow them (allow_images: false); "
            "send text",
            code="unsupported_content",
        )
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str) or not _IMAGE.fullmatch(url):
        raise bad_field(where, "an image must be a data: URL (base64 of png, jpeg, gif or webp)")
    return url


def _read_tool_calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    if not isinstance(value, list):
        raise bad_field(where, "must be a list")
    return tuple(_read_tool_call(call, f"{where}[{i}]") for i, call in enumerate(value))


def _read_tool_call(call: Any, where: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise bad_field(where, "must be an object with id, type and function")
    return read_function_call(function, f"{where}.function", call.get("id"), f"{where}.id")


def read_function_call(
    function: Mapping[str, Any], where: str, call_id: Any, id_where: str
) -> ToolCall:
    """Return one tool call of a message.

    Raises:
        Problem: it is none.
    """
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise bad_field(f"{where}.name", "must be a function's name")
    if not isinstance(arguments, str):
        raise bad_field(f"{where}.arguments", "must be a JSON text")
    if not isinstance(call_id, str) or not _IDENTIFIER.fullmatch(call_id):
        raise bad_field(id_where, "must be an identifier")
    return ToolCall(call_id, name, clean_surrogates(arguments))


def read_tools(value: Any) -> tuple[Tool, ...]:
    """Return the tools that the model may call.

    Raises:
        Problem: one is not a function.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > 128:
        raise bad_field("tools", "must be a list of up to 128 functions")
    tools = []
    for i, entry in enumerate(value):
        where = f"tools[{i}]"
        if not isinstance(entry, dict) or entry.get("type") != "function":
            raise bad_field(
                f"{where}.type",
                "must be function: what other tools bring in is not checked",
                code="unsupported_tool",
            )
        # /v1/responses writes the function's fields flat, chat nests them.
        function = entry.get("function", entry)
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            inside = "function." if "function" in entry else ""
            raise bad_field(f"{where}.{inside}name", "must be a function's name")
        description, parameters = function.get("description") or "", function.get("parameters")
        if not isinstance(description, str) or not isinstance(parameters, dict | None):
            raise bad_field(where, "description must be a text and parameters a JSON schema")
        strict = function.get("strict")
        tools.append(
            Tool(
                name,
                clean_surrogates(description),
                clean_json(parameters),
                strict if strict is True else None,
            )
        )
    return tuple(tools)


def read_tool_choice(value: Any) -> str | dict[str, Any] | None:
    """Return which tool the model is to call.

    Raises:
        Problem: neither one of the words nor a function.
    """
    if value is None or value in ("none", "auto", "required"):
        return cast(str | None, value)
    if isinstance(value, dict) and value.get("type") == "function":
        function = value.get("function", value)
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and _NAME.fullmatch(name):
            return {"type": "function", "function": {"name": name}}
    raise bad_field("tool_choice", "must be none, auto, required or a function")


def read_format(value: Any, param: str) -> Format | None:
    """Return the JSON format that is asked for, or None for text.

    Raises:
        Problem: neither text, json_object nor json_schema.
    """
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Format()
    if kind == "json_schema":
        # /v1/responses writes the schema's fields flat, chat nests them.
        inner = value.get("json_schema", value)
        schema = inner.get("schema") if isinstance(inner, dict) else None
        name = inner.get("name", "reply") if isinstance(inner, dict) else None
        if isinstance(schema, dict) and isinstance(name, str) and _NAME.fullmatch(name):
            return Format(clean_json(schema), name, True if inner.get("strict") is True else None)
        raise bad_field(param, "json_schema must have a name and a schema")
    raise bad_field(f"{param}.type", "must be text, json_object or json_schema")
