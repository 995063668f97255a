"""What a caller's developers tell the model beside the talk: system messages, tools, schemas.

Nobody vouches for them, so every string is checked, a schema's keys and values included. What does
not pass goes without its descriptions, and is left out where that is not enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from kidrails_guard.guard import Guard, decide
from kidrails_guard.proxy.call import Format, Tool
from kidrails_guard.proxy.jsontext import strings_of
from kidrails_guard.types import AgeBand, Stage, Verdict

_LEARNED: Final = "classifier"
_IN_WORDS: Final = frozenset({"description", "title", "$comment"})


async def judge_instructions(guard: Guard, text: str, band: AgeBand) -> Verdict:
    """Return the verdict on what a developer tells the model.

    The classifier's findings do not count: it learned from children's words, among which "never
    swear" or "refuse anything scary" are somebody else's rules for the model. All other checks do.
    """
    verdict = await guard.check_input(text, band=band)
    findings = [finding for finding in verdict.findings if finding.check != _LEARNED]
    if len(findings) == len(verdict.findings):
        return verdict
    decided = decide(guard.policy, findings, verdict.failed, band=band, stage=Stage.INPUT)
    return replace(decided, elapsed_ms=verdict.elapsed_ms)


def tool_forms(tool: Tool) -> Iterator[tuple[Tool, str]]:
    """Give forms of a tool, each with all that it says, the fullest first."""
    plain = replace(tool, description="", parameters=without_words(tool.parameters))
    for form in (tool, plain):
        yield form, "\n".join([form.name, form.description, *strings_of(form.parameters)])


def format_forms(asked: Format) -> Iterator[tuple[Format, str]]:
    """Give forms of a reply's format, each with all that it says, the fullest first."""
    for form in (asked, replace(asked, schema=without_words(asked.schema))):
        if form.schema is not None:
            yield form, "\n".join([form.name, *strings_of(form.schema)])
    yield Format(), ""


def without_words(schema: Any) -> Any:
    """Return a JSON schema without what is there to be read and changes nothing."""
    if isinstance(schema, dict):
        return {
            key: without_words(value)
            for key, value in schema.items()
            if key not in _IN_WORDS or not isinstance(value, str)
        }
    if isinstance(schema, list):
        return [without_words(value) for value in schema]
    return schema


def tool_wire(tool: Tool) -> dict[str, Any]:
    """Return a tool as an upstream is told of it."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def format_wire(asked: Format) -> dict[str, Any]:
    """Return a reply's format as an upstream is asked for it."""
    if asked.schema is None:
        return {"type": "json_object"}
    inner: dict[str, Any] = {"name": asked.name, "schema": asked.schema}
    if asked.strict is not None:
        inner["strict"] = asked.strict
    return {"type": "json_schema", "json_schema": inner}
