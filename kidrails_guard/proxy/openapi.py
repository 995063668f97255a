"""The OpenAPI description of the proxy, kept by hand and held to by the fuzzing test."""

from __future__ import annotations

from typing import Any, Final

from kidrails_guard import __version__

Json = dict[str, Any]


def _text(**more: Any) -> Json:
    return {"type": "string", **more}


def _number(low: float, high: float) -> Json:
    return {"type": "number", "minimum": low, "maximum": high}


def _whole(low: int, high: int) -> Json:
    return {"type": "integer", "minimum": low, "maximum": high}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: list[str], **properties: Json) -> Json:
    return {"type": "object", "required": required, "properties": properties}


def _list(items: Json, **more: Any) -> Json:
    return {"type": "array", "items": items, **more}


_MODEL: Final = _text(minLength=1, maxLength=200, pattern=r"^[!-~]+$")
_NAME: Final = _text(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
_SAMPLING: Final[Json] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "max_tokens": _whole(1, 1_000_000),
    "seed": _whole(-(2**63), 2**63 - 1),
    "stop": {
        "anyOf": [_text(maxLength=200), _list(_text(maxLength=200), maxItems=16)],
    },
    "n": _whole(1, 8),
    "stream": {"type": "boolean"},
}
_PART: Final = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"enum": ["text"]}, "text": _text()},
}
_CONTENT: Final = {"anyOf": [_text(), _list(_PART, minItems=1)]}
_MESSAGE: Final = _object(
    ["role", "content"],
    role={"enum": ["system", "developer", "user", "assistant"]},
    content=_CONTENT,
)
_FUNCTION: Final = _object(["name"], name=_NAME, description=_text(), parameters={"type": "object"})

_SCHEMAS: Final[Json] = {
    "Message": _MESSAGE,
    "ChatRequest": {
        **_object(
            ["model", "messages"],
            model=_MODEL,
            messages={
                "type": "array",
                "minItems": 1,
                "items": _ref("Message"),
                "contains": _object(["role"], role={"const": "user"}),
            },
            tools=_list(
                _object(["type", "function"], type={"enum": ["function"]}, function=_FUNCTION),
                maxItems=128,
            ),
            response_format=_object(["type"], type={"enum": ["text", "json_object"]}),
            logprobs={"type": "boolean"},
            stream_options=_object([], include_usage={"type": "boolean"}),
            **_SAMPLING,
        ),
    },
    "CompletionRequest": _object(["model", "prompt"], model=_MODEL, prompt=_text(), **_SAMPLING),
    "ResponseRequest": _object(
        ["model", "input"],
        model=_MODEL,
        input={
            "anyOf": [
                _text(),
                _list(
                    _ref("Message"), minItems=1, contains=_object(["role"], role={"const": "user"})
                ),
            ]
        },
        instructions=_text(),
        max_output_tokens=_whole(1, 1_000_000),
        temperature=_number(0, 2),
        top_p=_number(0, 1),
        stream={"type": "boolean"},
    ),
    "EmbeddingRequest": _object(
        ["model", "input"],
        model=_MODEL,
        input={"anyOf": [_text(), _list(_text(), minItems=1, maxItems=2048)]},
        dimensions=_whole(1, 100_000),
        encoding_format={"enum": ["float", "base64"]},
    ),
    "ModerationRequest": _object(
        ["input"], input={"anyOf": [_text(), _list(_text(), minItems=1, maxItems=32)]}
    ),
    "ChatCompletion": _object(
        ["id", "object", "created", "model", "choices"],
        id=_text(),
        object={"enum": ["chat.completion"]},
        created={"type": "integer"},
        model=_text(),
        choices=_list(
            _object(
                ["index", "message", "finish_reason"],
                index={"type": "integer"},
                message=_object(["role"], role={"enum": ["assistant"]}),
                finish_reason={"enum": ["stop", "length", "tool_calls", "content_filter"]},
            ),
            minItems=1,
        ),
    ),
    "Completion": _object(
        ["id", "object", "choices"],
        object={"enum": ["text_completion"]},
        choices=_list(_object(["index", "text", "finish_reason"], text=_text()), minItems=1),
    ),
    "Response": _object(
        ["id", "object", "status", "output"],
        object={"enum": ["response"]},
        status={"enum": ["completed", "incomplete"]},
        output=_list({"type": "object"}),
    ),
    "Embeddings": _object(
        ["object", "data", "model"], object={"enum": ["list"]}, data=_list({"type": "object"})
    ),
    "Moderation": _object(
        ["id", "model", "results"],
        results=_list(_object(["flagged", "categories", "category_scores"])),
    ),
    "Models": _object(
        ["object", "data"],
        object={"enum": ["list"]},
        data=_list(_object(["id", "object"], id=_text())),
    ),
    "Model": _object(["id", "object"], id=_text(), object={"enum": ["model"]}),
    "Event": _object(["data"], data=_text(description="one JSON object, or [DONE]")),
    "Health": _object(["status", "version"], status={"enum": ["ok"]}),
    "Ready": _object(["ready"], ready={"type": "boolean"}, reason=_text()),
    "Error": _object(
        ["error"],
        error=_object(
            ["message", "type", "param", "code"],
            message=_text(),
            type=_text(),
            param={"type": ["string", "null"]},
            code=_text(),
        ),
    ),
}

_ERRORS: Final[dict[int, str]] = {
    400: "the request is wrong, or (on_block: error) was held back: code content_filter",
    401: "no API key, or an unknown one",
    403: "the API key was revoked",
    404: "the upstream does not know the model",
    408: "the request did not come in time",
    413: "the body is too large",
    415: "the body is not plain JSON",
    429: "too many requests",
    502: "the upstream failed",
    503: "the upstream cannot be reached, or the audit log cannot be written",
    504: "the upstream did not answer in time",
}


def _json(schema: str, text: str) -> Json:
    return {"description": text, "content": {"application/json": {"schema": _ref(schema)}}}


def _post(name: str, summary: str, request: str, answer: str, *, streams: bool) -> Json:
    found = _json(answer, "the guarded answer")
    if streams:
        found["content"]["text/event-stream"] = {"schema": _ref("Event")}
    errors = {str(status): _json("Error", text) for status, text in _ERRORS.items()}
    body = {"required": True, "content": {"application/json": {"schema": _ref(request)}}}
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "security": [{"key": []}, {}],
            "requestBody": body,
            "responses": {"200": found, **errors},
        }
    }


def _get(name: str, summary: str, answer: str, errors: dict[int, str], **more: Any) -> Json:
    responses = {"200": _json(answer, summary)}
    responses |= {str(status): _json(schema, schema) for status, schema in errors.items()}
    return {"get": {"operationId": name, "summary": summary, "responses": responses, **more}}


def describe() -> Json:
    """Return the OpenAPI 3.1 description."""
    upstream = dict.fromkeys((401, 403, 429, 502, 503, 504), "Error")
    named = {"name": "model", "in": "path", "required": True, "schema": _MODEL}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "KidRails guard proxy",
            "version": __version__,
            "description": "OpenAI's API in front of any model server, guarded for children aged "
            "5 to 12. See docs/proxy.md.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/v1/chat/completions": _post(
                "chat", "A guarded chat", "ChatRequest", "ChatCompletion", streams=True
            ),
            "/v1/completions": _post(
                "complete", "A guarded text", "CompletionRequest", "Completion", streams=True
            ),
            "/v1/responses": _post(
                "respond", "A guarded response", "ResponseRequest", "Response", streams=True
            ),
            "/v1/embeddings": _post(
                "embed", "Embeddings, passed on", "EmbeddingRequest", "Embeddings", streams=False
            ),
            "/v1/moderations": _post(
                "moderate", "The guard's verdict", "ModerationRequest", "Moderation", streams=False
            ),
            "/v1/models": _get("listModels", "The upstream's models", "Models", upstream),
            "/v1/models/{model}": _get(
                "getModel", "One model", "Model", {**upstream, 404: "Error"}, parameters=[named]
            ),
            "/health": _get("health", "This process runs", "Health", {}),
            "/ready": _get("ready", "The upstream answers", "Ready", {503: "Ready"}),
        },
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
