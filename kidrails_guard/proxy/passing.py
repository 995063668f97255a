"""What passes without a check, since no sentence is in it: embeddings and lists of models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from kidrails_guard.proxy.events import read_usage
from kidrails_guard.proxy.problems import bad_field
from kidrails_guard.proxy.upstream_problems import bad_answer

_MODEL: Final = re.compile(r"[\w./:@+-]{1,200}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/=]*")
_MOST_INPUTS: Final = 2048


def embeddings_body(body: Mapping[str, Any], *, model: str) -> dict[str, Any]:
    """Return what the upstream is asked for embeddings.

    Raises:
        Problem: names the field and what is accepted.
    """
    texts = body.get("input")
    entries = texts if isinstance(texts, list) else [texts]
    if not 1 <= len(entries) <= _MOST_INPUTS or not all(
        isinstance(entry, str) or _is_tokens(entry) or _is_token(entry) for entry in entries
    ):
        raise bad_field("input", "must be a text, or a list of texts")
    asked: dict[str, Any] = {"model": model, "input": texts}
    dimensions, encoding = body.get("dimensions"), body.get("encoding_format")
    if dimensions is not None:
        if not _is_token(dimensions) or not 1 <= dimensions <= 100_000:
            raise bad_field("dimensions", "must be a whole number from 1 to 100000")
        asked["dimensions"] = dimensions
    if encoding is not None:
        if encoding not in ("float", "base64"):
            raise bad_field("encoding_format", "must be float or base64")
        asked["encoding_format"] = encoding
    return asked


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_token, value))


def clean_embeddings(answer: Mapping[str, Any], *, model: str) -> dict[str, Any]:
    """Return an upstream's embeddings: numbers, and nothing else.

    Raises:
        UpstreamProblem: they are none.
    """
    data = answer.get("data")
    if not isinstance(data, list) or not all(map(_is_embedding, data)):
        raise bad_answer("something else than embeddings")
    places = [entry.get("index") for entry in data]
    if all(map(_is_token, places)) and sorted(places) == list(range(len(data))):
        # Some servers answer in the order in which they were done.
        data = sorted(data, key=lambda entry: entry["index"])
    vectors = [
        {"object": "embedding", "index": place, "embedding": entry["embedding"]}
        for place, entry in enumerate(data)
    ]
    usage = read_usage(answer.get("usage")) or {"prompt_tokens": 0, "total_tokens": 0}
    counts = {key: usage[key] for key in ("prompt_tokens", "total_tokens")}
    return {"object": "list", "data": vectors, "model": model, "usage": counts}


def _is_embedding(entry: Any) -> bool:
    vector = entry.get("embedding") if isinstance(entry, dict) else None
    if isinstance(vector, str):
        return _BASE64.fullmatch(vector) is not None
    return isinstance(vector, list) and all(
        # The bounds also keep out what JSON cannot hold: infinities and NaN.
        isinstance(number, int | float) and not isinstance(number, bool) and -1e99 < number < 1e99
        for number in vector
    )


def clean_models(answer: Mapping[str, Any], *, only: str | None) -> dict[str, Any]:
    """Return an upstream's models: names, and nothing else.

    Args:
        answer: the upstream's.
        only: the one model that the operator lets callers use, if there is one.

    Raises:
        UpstreamProblem: it lists no models.
    """
    data = answer.get("data")
    if not isinstance(data, list):
        raise bad_answer("something else than a list of models")
    models = []
    for entry in data:
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, str) and _MODEL.fullmatch(name) and only in (None, name):
            created = entry.get("created")
            models.append(_model(name, created if _is_token(created) else 0))
    if only is not None and not models:
        models.append(_model(only, 0))
    return {"object": "list", "data": models}


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "upstream"}
