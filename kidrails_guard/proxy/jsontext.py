r"""Text inside JSON: what a model writes as structured output or as a tool's arguments.

Escapes such as ``\u006b`` hide words from a check of the raw text, so the strings are checked as
the program that parses the JSON will see them.
"""

from __future__ import annotations

import json
import re
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from kidrails_guard.guard import Guard
from kidrails_guard.streaming import Judged, judge_reply, mask_part
from kidrails_guard.types import AgeBand, Conversation
from kidrails_guard.units import clean_surrogates

_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([nrt/\"\\]))")
_OPEN: Final = nullcontext()
_PLAIN: Final = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class _Parsed:
    value: Any
    repeated: bool


def _parse(raw: str) -> _Parsed | None:
    repeated = False

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        value = dict(found)
        repeated |= len(value) != len(found)
        return value

    try:
        return _Parsed(json.loads(raw, object_pairs_hook=pairs), repeated)
    except (ValueError, RecursionError):
        return None


def strings_of(value: Any) -> list[str]:
    """Return every key and string of a JSON value, in one fixed order."""
    found: list[str] = []
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, str):
            found.append(clean_surrogates(top))
        elif isinstance(top, dict):
            for key, inner in reversed(top.items()):
                stack.extend((inner, key))
        elif isinstance(top, list):
            stack.extend(reversed(top))
    return found


def clean_json(value: Any) -> Any:
    """Return a JSON value whose keys and strings UTF-8 can hold, as `clean_surrogates` does."""
    if isinstance(value, str):
        return clean_surrogates(value)
    if isinstance(value, dict):
        return {clean_surrogates(key): clean_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [clean_json(inner) for inner in value]
    return value


def _rebuild(value: Any, strings: list[str]) -> Any:
    """Return the value with its keys and strings replaced, in the order of `strings_of`."""
    if isinstance(value, str):
        return strings.pop()
    if isinstance(value, dict):
        built = {}
        for inner in value.values():
            key = strings.pop()
            built[key] = _rebuild(inner, strings)
        return built
    if isinstance(value, list):
        return [_rebuild(inner, strings) for inner in value]
    return value


def _unescaped(raw: str) -> str:
    """Return broken JSON as its strings would read."""

    def plain(match: re.Match[str]) -> str:
        code, letter = match.groups()
        return chr(int(code, 16)) if code else _PLAIN.get(letter, letter)

    return clean_surrogates(_ESCAPE.sub(plain, raw))


def checked_text(raw: str) -> str:
    """Return what a check reads of a JSON text: its strings, a line each."""
    parsed = _parse(raw)
    return _unescaped(raw) if parsed is None else "\n".join(strings_of(parsed.value))


async def judge_json(
    guard: Guard,
    raw: str,
    conversation: Conversation,
    *,
    band: AgeBand,
    strict: bool,
    gate: AbstractAsyncContextManager[object] = _OPEN,
) -> Judged:
    """Judge JSON that a model wrote.

    Returns:
        The verdict, and the JSON with personal data masked inside its strings; empty where the
        verdict answers. Text that is no JSON comes back with its escapes undone.
    """
    parsed = _parse(raw)
    if parsed is None:
        return await judge_reply(
            guard, _unescaped(raw), conversation, band=band, strict=strict, gate=gate
        )
    strings = strings_of(parsed.value)
    judged = await judge_reply(
        guard, "\n".join(strings), conversation, band=band, strict=strict, gate=gate
    )
    if judged.verdict.action.answers:
        return judged
    if not judged.masked and not parsed.repeated:
        return Judged(judged.verdict, raw, False)
    masked, start = [], 0
    for text in strings:
        masked.append(mask_part(guard, text, start, judged.verdict.findings)[0])
        start += len(text) + 1
    built = _rebuild(parsed.value, masked[::-1])
    return Judged(judged.verdict, json.dumps(built, ensure_ascii=False), True)
