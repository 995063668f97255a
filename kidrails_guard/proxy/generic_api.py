"""LiteLLM's generic guardrail API, served by us: ``POST /beta/litellm_basic_guardrail_api``.

LiteLLM asks before the model (``input_type: request``, every message's text) and after it
(``response``, the reply so far; again and again while a reply streams, which `Samples` writes down
once). ``action`` is always set: a missing one reads as NONE, which would let everything pass.

Source: LiteLLM's generic guardrail API, as litellm 1.106.2 calls it.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kidrails_guard.answers import load_answers
from kidrails_guard.guard import Guard
from kidrails_guard.proxy.instructions import judge_instructions, without_words
from kidrails_guard.proxy.intake import ANSWERED, LEFT_OUT
from kidrails_guard.proxy.jsontext import checked_text, judge_json, strings_of
from kidrails_guard.proxy.problems import bad_field
from kidrails_guard.proxy.records import Recorder
from kidrails_guard.proxy.samples import Key, Samples
from kidrails_guard.proxy.seams import Tenant
from kidrails_guard.streaming import ReleaseWindow, judge_reply, mask_part
from kidrails_guard.types import (
    NO_TURNS,
    Action,
    AgeBand,
    Conversation,
    Message,
    Role,
    Stage,
    Verdict,
)
from kidrails_guard.units import clean_surrogates

PATH: Final = "/beta/litellm_basic_guardrail_api"
_OPEN: Final = nullcontext()
_MOST_TEXTS: Final = 500
_MOST_CALLS: Final = 4_096
_ENDINGS: Final = (".", "!", "?", "…", '"', "”", "\n")
_ROLES: Final = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the way in found, for the reply to the same call."""

    conversation: Conversation = field(repr=False)
    strict: bool
    request_id: str


class GenericGuardrail:
    """Answers LiteLLM's questions; remembers a bounded number of calls.

    Args:
        gate: held during each check, so that a rush of questions is slow and not refused.
    """

    def __init__(self, gate: AbstractAsyncContextManager[object] = _OPEN) -> None:
        self._gate = gate
        self._calls: OrderedDict[Key, _Asked] = OrderedDict()
        self._samples = Samples()

    async def answer(self, body: Mapping[str, Any], recorder: Recorder) -> dict[str, Any]:
        """Return the decision on one question.

        Args:
            body: LiteLLM's request.
            recorder: knows whose guard decides and for whom, and writes it down.

        Raises:
            Problem: the request is not of LiteLLM's form, or it must be written down and cannot.
        """
        tenant = recorder.tenant
        texts = body.get("texts") or []
        if not isinstance(texts, list) or len(texts) > _MOST_TEXTS or not all(
            isinstance(text, str) for text in texts
        ):  # fmt: skip
            raise bad_field("texts", f"must be a list of at most {_MOST_TEXTS} texts")
        if body.get("images") and not tenant.guard.policy.allow_images:
            return _unchecked(recorder, "images")
        texts = [clean_surrogates(text) for text in texts]
        # LiteLLM lets its callers choose it, so it tells calls of one tenant apart and no more.
        key = (tenant.name, str(body.get("litellm_call_id") or "")[:128])
        kind, arguments = body.get("input_type"), _arguments(body.get("tool_calls"))
        if kind == "request":
            messages = _messages(texts, body.get("structured_messages"))
            return await self._request(messages, arguments, body.get("tools"), key, recorder)
        if kind == "response":
            return await self._response(texts, arguments, key, recorder)
        raise bad_field("input_type", "must be request or response")

    async def close(self) -> None:
        """Write down what has not been; called once at shutdown, before the log is closed."""
        await self._samples.close()

    async def _request(
        self,
        messages: list[Message],
        arguments: list[str],
        tools: Any,
        key: Key,
        recorder: Recorder,
    ) -> dict[str, Any]:
        guard, band = recorder.tenant.guard, recorder.band
        last_reply = max((i for i, m in enumerate(messages) if m.role == "assistant"), default=-1)
        now = Verdict(Action.ALLOW)
        shown: list[str] = []
        seen: list[Message] = []
        said: list[tuple[int, int]] = []  # by the child, now: places in `messages` and in `seen`
        for i, message in enumerate(messages):
            async with self._gate:
                verdict = await _verdict(guard, message, Conversation(tuple(seen)), band)
            text = guard.redact(message.content, verdict)
            if message.role == "user" and i > last_reply:
                now = now.merge(verdict)
                said.append((i, len(seen)))
            elif verdict.action.answers:
                text = ANSWERED if message.role == "user" else LEFT_OUT
            shown.append(text)
            if message.role not in {"system", "developer"}:
                seen.append(Message(message.role, text))
        words = "\n".join(messages[i].content for i, _ in said)
        if len(said) > 1:
            # What is told in several messages is also looked at as one.
            before = Conversation(tuple(seen[: said[0][1]]))
            async with self._gate:
                whole = await guard.check_input(words, before, band=band)
            now, start = now.merge(replace(whole, findings=())), 0
            for i, place in said:
                text = messages[i].content
                if shown[i] == text:
                    shown[i], _ = mask_part(guard, text, start, whole.findings)
                    seen[place] = Message("user", shown[i])
                start += len(text) + 1
        event = recorder.event(words, now, withheld=len(words) if now.action.answers else 0)
        await recorder.write(event, needed=not now.action.answers)
        if now.action.answers:
            return _blocked(guard.answer(now, band, seed=words))
        for text in arguments:  # of earlier tool calls; LiteLLM takes no others from us
            async with self._gate:
                earlier = await guard.check_output(checked_text(text), band=band)
            if earlier.action.answers:
                await recorder.write(recorder.event(text, earlier, withheld=len(text)))
                return _blocked(guard.answer(earlier, band, seed=words))
        passed = await _passing_tools(tools, guard, band, self._gate)
        if tools and not passed:  # an empty list means "as they were" to LiteLLM
            return _unchecked(recorder, "tools")
        strict = now.action is Action.CARE
        self._keep(key, _Asked(Conversation(tuple(seen)), strict, recorder.request_id))
        # The first system message takes our prompt in front; without one, LiteLLM offers no place.
        for i, message in enumerate(messages):
            if message.role in {"system", "developer"}:
                shown[i] = guard.system_prompt(band, now) + "\n\n" + shown[i]
                break
        fewer = {"tools": passed} if passed != (tools or []) else {}
        changed = fewer or shown != [m.content for m in messages]
        return {"action": "GUARDRAIL_INTERVENED" if changed else "NONE", "texts": shown, **fewer}

    async def _response(
        self,
        texts: list[str],
        arguments: list[str],
        key: Key,
        recorder: Recorder,
    ) -> dict[str, Any]:
        asked = self._calls.get(key) or _Asked(NO_TURNS, True, recorder.request_id)
        tenant, band = recorder.tenant, recorder.band
        recorder = replace(recorder, request_id=asked.request_id)
        guard = tenant.guard
        for text in arguments:
            judged = await judge_json(
                guard, text, asked.conversation, band=band, strict=asked.strict, gate=self._gate
            )
            if judged.verdict.action.answers:
                await self._samples.take(key, recorder, text, judged.verdict, len(text))
                return _blocked(guard.answer(judged.verdict, band, seed=text))
        shown, held, verdict = [], [], Verdict(Action.ALLOW, stage=Stage.OUTPUT)
        for text in texts:
            passed, pending, one = await _so_far(guard_text=text, tenant=tenant, band=band,
                                                 asked=asked, gate=self._gate)  # fmt: skip
            shown.append(passed)
            held.append(pending)
            verdict = verdict.merge(one)
        whole = "\n".join(texts)
        withheld = len(whole) if verdict.action.answers else 0
        await self._samples.take(key, recorder, whole, verdict, withheld)
        return {
            "action": "GUARDRAIL_INTERVENED" if shown != texts else "NONE",
            "texts": shown,
            "stream_holdback_chars": held,
        }

    def _keep(self, key: Key, asked: _Asked) -> None:
        if key[1]:
            self._calls[key] = asked
            while len(self._calls) > _MOST_CALLS:
                self._calls.popitem(last=False)


async def _verdict(guard: Guard, message: Message, before: Conversation, band: AgeBand) -> Verdict:
    if message.role == "assistant":
        return await guard.check_output(message.content, before, band=band)
    if message.role in {"system", "developer"}:
        return await judge_instructions(guard, message.content, band)
    return await guard.check_input(message.content, before, band=band)


async def _passing_tools(
    tools: Any, guard: Guard, band: AgeBand, gate: AbstractAsyncContextManager[object]
) -> list[Any]:
    """Return the tools that pass, without what is there to be read where that is needed."""
    passed = []
    for tool in tools if isinstance(tools, list) else []:
        for form in (tool, without_words(tool)):
            async with gate:
                verdict = await judge_instructions(guard, "\n".join(strings_of(form)), band)
            if not verdict.action.answers:
                passed.append(form)
                break
    return passed


async def _so_far(
    *,
    guard_text: str,
    tenant: Tenant,
    band: AgeBand,
    asked: _Asked,
    gate: AbstractAsyncContextManager[object],
) -> tuple[str, int, Verdict]:
    """Return what may be shown of a reply so far, how much of its end waits, and the verdict.

    LiteLLM does not say whether the reply is complete, so its end is judged as if it were, and is
    asked to be held back all the same: if more comes, it is judged again with what follows.
    """
    guard = tenant.guard
    window = ReleaseWindow(guard, asked.conversation, band=band, strict=asked.strict, gate=gate)
    window.feed(guard_text)
    parts: list[str] = []
    while window.ready:
        release = await window.advance()
        if release is not None:
            parts.append(release.text)
    passed = "".join(parts)
    if window.stopped:
        return (
            _ended(passed, guard.answer(window.verdict, band, seed=guard_text[:64])),
            0,
            (window.verdict),
        )
    pending = window.withheld
    whole = await judge_reply(
        guard, guard_text, asked.conversation, band=band, strict=asked.strict, gate=gate
    )
    if whole.verdict.action.answers:
        # A sentence that is over will not get better; half of one may.
        if guard_text.rstrip(" ").endswith(_ENDINGS):
            words = guard.answer(whole.verdict, band, seed=guard_text[:64])
            return _ended(passed, words), 0, whole.verdict
        return passed, 0, Verdict(Action.ALLOW)
    return whole.text, min(pending, len(whole.text)), whole.verdict


def _ended(passed: str, words: str) -> str:
    return f"{passed.rstrip()} {words}".strip()


def _unchecked(recorder: Recorder, kind: str) -> dict[str, Any]:
    answers = load_answers(recorder.tenant.guard.policy.locale)
    return _blocked(answers.notice("unchecked", recorder.band, seed=kind))


def _blocked(words: str) -> dict[str, Any]:
    return {"action": "BLOCKED", "blocked_reason": words}


def _messages(texts: list[str], structured: Any) -> list[Message]:
    """Return the texts with their roles; a text without a known one counts as the child's."""
    roles: list[str] = []
    if isinstance(structured, list):
        for entry in structured:
            if not isinstance(entry, dict):
                continue
            content = entry.get("content")
            parts = content if isinstance(content, list) else [content]
            count = sum(
                isinstance(part, str) or (isinstance(part, dict) and part.get("type") == "text")
                for part in parts
            )
            roles += [str(entry.get("role"))] * count
    if len(roles) != len(texts):
        roles = ["user"] * len(texts)
    known: dict[str, Role] = {role: role for role in _ROLES}  # type: ignore[misc]
    return [Message(known.get(role, "user"), text) for role, text in zip(roles, texts, strict=True)]


def _arguments(calls: Any) -> list[str]:
    found = []
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        given = function.get("arguments") if isinstance(function, dict) else None
        if given is not None:
            # Some models' arguments are an object instead of its JSON text.
            text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
            found.append(clean_surrogates(text))
    return found
