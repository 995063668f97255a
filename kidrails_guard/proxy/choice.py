"""One of the replies that an upstream writes: what has come of it, and what may leave."""

from __future__ import annotations

import re
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kidrails_guard.answers import load_answers
from kidrails_guard.proxy.call import Call, ToolCall
from kidrails_guard.proxy.events import End, Event, Finish, Tools, Words
from kidrails_guard.proxy.intake import Prepared
from kidrails_guard.proxy.jsontext import judge_json
from kidrails_guard.proxy.jsonwords import json_with_words
from kidrails_guard.proxy.logprobs import Logprobs
from kidrails_guard.proxy.seams import Tenant
from kidrails_guard.proxy.sittings import NO_SITTING, Sitting
from kidrails_guard.streaming import Judged, Release, ReleaseWindow, judge_reply
from kidrails_guard.types import Action, AgeBand, Stage, Verdict
from kidrails_guard.units import clean_surrogates

_FINISH: Final[dict[Any, Finish]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_IDENTIFIER: Final = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_MOST_TOOLS: Final = 32


@dataclass(frozen=True, slots=True)
class Context:
    """What all replies to one request share."""

    call: Call
    prepared: Prepared
    tenant: Tenant
    band: AgeBand
    request_id: str
    sitting: Sitting = NO_SITTING
    gate: AbstractAsyncContextManager[object] = field(default_factory=nullcontext)

    @property
    def strict(self) -> bool:
        """Whether the reply is held to the stricter check."""
        return self.prepared.strict or self.sitting.wary

    def lead(self) -> str:
        """Return what stands before the first words that a session shows."""
        due = self._may_add(self.sitting.disclosure_due)
        return self.notice("disclosure") + "\n\n" if due else ""

    def tail(self) -> str:
        """Return what follows the last words of a reply: a reminder, a break."""
        names = [("redacted", self.prepared.masked), ("break", self.sitting.break_due)]
        return "".join("\n\n" + self.notice(name) for name, due in names if self._may_add(due))

    def _may_add(self, due: bool) -> bool:
        # Words around JSON would break it.
        return due and self.call.format is None

    @property
    def seed(self) -> str:
        """What picks among the fixed answers: the same conversation reads the same again."""
        return repr([turn.text for turn in self.call.turns if turn.role == "user"])

    def notice(self, name: Any) -> str:
        """Return one of the fixed notices, in the tenant's language."""
        answers = load_answers(self.tenant.guard.policy.locale)
        return answers.notice(name, self.band, seed=self.seed)

    def kind_words(self, verdict: Verdict) -> str:
        """Return what stands in the place of what the guard held back."""
        words = self.tenant.guard.answer(verdict, self.band, seed=self.seed)
        return self.in_format(words)

    def in_format(self, words: str) -> str:
        """Return words as the JSON that the caller asked for, where its schema allows that."""
        if self.prepared.format is None:
            return words
        return json_with_words(self.prepared.format.schema, words) or words


@dataclass(slots=True)
class _ToolParts:
    index: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        return _joined(self.arguments)


class Choice:
    """Collects one reply, and gives events for what has passed.

    Attributes:
        verdict: what is known so far; final once `ended`.
        withheld: characters that came and did not leave; final once `ended`.
        deltas: pieces of text that came, about one a token.
        shown: whether any text has left.
        finish: how the upstream says that the reply ended; None before that.
        disclosed: whether the session's first words stand before it.
        break_offered: whether the offer of a break stands after it.
    """

    def __init__(self, context: Context, index: int) -> None:
        self._context, self.index = context, index
        self.window = ReleaseWindow(
            context.tenant.guard,
            context.prepared.conversation,
            band=context.band,
            strict=context.strict,
            gate=context.gate,
        )
        self._raw: list[str] = []
        self._refusal: list[str] = []
        self._tools: list[_ToolParts] = []
        self._logprobs = Logprobs() if context.call.logprobs else None
        self.verdict = Verdict(Action.ALLOW, stage=Stage.OUTPUT)
        self.withheld = self.deltas = 0
        self.shown = self.ended = False
        self.disclosed = self.break_offered = False
        self.finish: Finish | None = None

    @property
    def text(self) -> str:
        """Everything that came, as it came; for the audit's hash."""
        arguments = [tool.said for tool in self._tools]
        return "".join([_joined(self._raw), _joined(self._refusal), *arguments])

    def take(self, delta: Any, finish: Any, logprobs: Any) -> None:
        """Take a part of the reply (a stream's ``delta``, or a whole ``message``)."""
        if self.finish is not None:
            return
        if isinstance(delta, dict):
            text = _text_of(delta.get("content"))
            if text:
                self._take_text(text, logprobs)
            refusal = delta.get("refusal")
            if isinstance(refusal, str):
                self._refusal.append(refusal)
            self._take_tools(delta)
        if finish:  # some servers write "" until the reply has ended
            self.finish = _FINISH.get(finish, "stop") if isinstance(finish, str) else "stop"
            self.window.finish()

    def _take_text(self, text: str, logprobs: Any) -> None:
        self.deltas += 1
        self._raw.append(text)
        if self._held_whole:
            return
        if self._logprobs is not None:
            self._logprobs.take(text, logprobs)
        self.window.feed(text)

    def _take_tools(self, delta: dict[str, Any]) -> None:
        calls = delta.get("tool_calls")
        if isinstance(delta.get("function_call"), dict):
            calls = [{"index": 0, "function": delta["function_call"]}]
        for place, call in enumerate(calls if isinstance(calls, list) else []):
            function = call.get("function") if isinstance(call, dict) else None
            index = index_of(call, _MOST_TOOLS, otherwise=place)
            if not isinstance(function, dict) or index is None:
                continue
            call_id, name, arguments = (
                value if isinstance(value, str) else ""
                for value in (call.get("id"), function.get("name"), function.get("arguments"))
            )
            parts = self._tool_at(index, call_id if name else "")
            if parts is not None:
                parts.id = parts.id or call_id
                parts.name = parts.name or name
                parts.arguments.append(arguments)

    def _tool_at(self, index: int, beginning: str) -> _ToolParts | None:
        """Return the call that a piece belongs to; None where there are too many.

        Some servers send every call whole and under index 0: a piece with a name and an id of its
        own begins another call.
        """
        parts = next((tool for tool in reversed(self._tools) if tool.index == index), None)
        if parts is None or (beginning and parts.id and parts.id != beginning):
            if len(self._tools) == _MOST_TOOLS:
                return None
            parts = _ToolParts(index)
            self._tools.append(parts)
        return parts

    def released(self, release: Release) -> Words:
        """Return the event for text that the window let go."""
        self.shown = self.shown or bool(release.text)
        tokens = () if self._logprobs is None else self._logprobs.release(release)
        return Words(self.index, release.text, tokens)

    def stop(self) -> list[Event]:
        """Return the events that end a reply of which something was held back."""
        self.verdict = self.verdict.merge(self.window.verdict)
        self.withheld += self.window.withheld
        words = self._context.kind_words(self.verdict)
        return self._end_with(words, "content_filter")

    def interrupt(self) -> list[Event]:
        """Return the events that end a reply that broke off."""
        self.verdict = self.verdict.merge(self.window.verdict)
        self.withheld = len(self.text) - (0 if self._held_whole else self.window.released)
        words = self._context.in_format(self._context.notice("interrupted"))
        return self._end_with(words, "length")

    @property
    def _held_whole(self) -> bool:
        return self._context.call.format is not None

    def _end_with(self, words: str, reason: Finish) -> list[Event]:
        self.ended = True
        gap = "\n\n" if self.shown else ""
        self.shown = True
        return [Words(self.index, gap + words, kind=True), End(self.index, reason)]

    async def close(self) -> list[Event]:
        """Return the events for what was held to the end, once the window has let go the rest."""
        events: list[Event] = []
        self.verdict = self.verdict.merge(self.window.verdict)
        if self._held_whole and self._raw:
            judged = await self._judge_json(_joined(self._raw))
            if judged.verdict.action.answers:
                self.withheld = len(self.text)
                return self.stop()
            events.append(Words(self.index, judged.text))
        if self._refusal:
            context = self._context
            judged = await judge_reply(
                context.tenant.guard,
                _joined(self._refusal),
                context.prepared.conversation,
                band=context.band,
                strict=context.strict,
                gate=context.gate,
            )
            self.verdict = self.verdict.merge(judged.verdict)
            if judged.verdict.action.answers:
                self.withheld = len(_joined(self._refusal))
                return self.stop()
            # A program that waits for JSON is told apart from it; a child just reads the words.
            events.append(Words(self.index, judged.text, refusal=self._held_whole))
        self.shown = self.shown or any(isinstance(e, Words) and e.text for e in events)
        calls = await self._checked_tools()
        if self.verdict.action.answers:
            self.withheld = sum(len(tool.said) for tool in self._tools)
            return [*events, *self.stop()]
        reason = self.finish or "stop"
        if calls:
            reason = "tool_calls"
        elif reason == "tool_calls":
            reason = "stop"
        if reason == "content_filter" and not self.shown:
            # The upstream has a filter of its own and says nothing: a child gets words.
            held = replace(self.verdict, action=Action.REDIRECT)
            return [*events, *self._end_with(self._context.kind_words(held), reason)]
        if self.shown and (tail := self._context.tail()):
            events.append(Words(self.index, tail, kind=True))
            self.break_offered = self._context.sitting.break_due
        if calls:  # the text ends before them: some routes write them as an item of their own
            events.append(Tools(self.index, calls))
        self.ended = True
        return [*events, End(self.index, reason)]

    async def _judge_json(self, raw: str) -> Judged:
        context = self._context
        judged = await judge_json(
            context.tenant.guard,
            raw,
            context.prepared.conversation,
            band=context.band,
            strict=context.strict,
            gate=context.gate,
        )
        self.verdict = self.verdict.merge(judged.verdict)
        return judged

    async def _checked_tools(self) -> tuple[ToolCall, ...]:
        offered = self._context.prepared.tools
        calls = []
        for place, parts in enumerate(sorted(self._tools, key=lambda tool: tool.index)):
            if parts.name not in offered:
                continue  # a name that nobody offered is a text that nobody checked
            judged = await self._judge_json(parts.said)
            if judged.verdict.action.answers:
                return ()
            whole_id = _IDENTIFIER.fullmatch(parts.id)
            call_id = parts.id if whole_id else f"call_{self._context.request_id}_{place}"
            calls.append(ToolCall(call_id, parts.name, judged.text))
        return tuple(calls)


def _joined(parts: list[str]) -> str:
    """Return parts as one text; a character may have been cut between two of them."""
    return clean_surrogates("".join(parts))


def index_of(entry: Any, count: int, *, otherwise: int) -> int | None:
    """Return an entry's index, or None where it is no whole number from 0 to below ``count``.

    Args:
        entry: of a list of choices or tool calls.
        count: how many there may be.
        otherwise: the index of an entry without one; some servers say null.
    """
    if not isinstance(entry, dict):
        return None
    value = entry.get("index")
    if value is None:
        value = otherwise
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count
    return value if valid else None


def _text_of(content: Any) -> str:
    """Return a content's text; some servers send a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return ""
