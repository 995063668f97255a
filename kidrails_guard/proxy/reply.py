"""The way out: turns what an upstream sends into events that have passed the guard."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

from kidrails_guard.conveyor import Conveyor
from kidrails_guard.proxy.choice import Choice, Context, index_of
from kidrails_guard.proxy.events import (
    NO_USAGE,
    End,
    Event,
    StillHere,
    Usage,
    Words,
    read_usage,
)
from kidrails_guard.proxy.seams import Meter
from kidrails_guard.proxy.upstream_problems import empty_answer, ended_early
from kidrails_guard.types import Verdict

Json = dict[str, Any]

TICK_S: Final = 1.0
"""How often a stream without news looks whether it should end."""


def blocked_reply(context: Context, verdict: Verdict) -> list[Event]:
    """Return the events of a reply for which no model is asked."""
    words = context.kind_words(verdict)
    events: list[Event] = []
    for index in range(context.call.count):
        events += [Words(index, words, kind=True), End(index, "content_filter")]
    return [*events, Usage(NO_USAGE)]


class WholeReply:
    """A reply that came as one: judged exactly as a stream is.

    Attributes:
        choices: with their verdicts, once `events` has run.
    """

    def __init__(self, context: Context, answer: Json) -> None:
        self.choices = [Choice(context, index) for index in range(context.call.count)]
        self._lead = context.lead()
        self._usage = read_usage(answer.get("usage"))
        self._came: set[int] = set()
        found = answer.get("choices")
        for place, entry in enumerate(found if isinstance(found, list) else []):
            if not isinstance(entry, dict) or not isinstance(entry.get("message"), dict):
                continue
            index = index_of(entry, context.call.count, otherwise=place)
            if index is not None:
                finish = entry.get("finish_reason") or "stop"
                self.choices[index].take(entry["message"], finish, entry.get("logprobs"))
                self._came.add(index)

    async def events(self, meter: Meter) -> list[Event]:
        """Return what may leave; where something is held back, nothing of that choice leaves.

        Raises:
            Problem: the upstream answered without a choice.
        """
        if not self._came:
            raise empty_answer()
        events: list[Event] = []
        for choice in self.choices:
            if choice.index in self._came:
                said = await _whole_choice(choice, meter)
                if self._lead and not choice.verdict.action.answers:
                    events.append(Words(choice.index, self._lead, kind=True))
                    choice.disclosed = True
                events += said
            else:
                events += choice.interrupt()
        if self._usage is not None:
            events.append(Usage(with_withheld(self._usage, self.choices)))
        return events


async def _whole_choice(choice: Choice, meter: Meter) -> list[Event]:
    events: list[Event] = []
    window = choice.window
    while window.ready:
        release = await window.advance()
        if release is not None:
            events.append(choice.released(release))
    if window.received:
        meter.held(window.received)
    if not window.stopped:
        closing = await choice.close()
        if not choice.verdict.action.answers:
            return [*events, *closing]
    # All of it is here, so none of it needs to leave.
    choice.shown, choice.withheld = False, 0
    ending = choice.stop()
    choice.withheld = len(choice.text)
    return ending


class StreamedReply:
    """A reply that comes in pieces; iterate over it for the events.

    Attributes:
        choices: with their verdicts, final after the last event.
        error: what ended the upstream's stream too early, if anything did.
    """

    def __init__(
        self,
        context: Context,
        chunks: AsyncGenerator[Json, None],
        *,
        meter: Meter,
        heartbeat_s: float,
    ) -> None:
        self.choices = [Choice(context, index) for index in range(context.call.count)]
        self._lead = context.lead()
        self._windows = {id(choice.window): choice for choice in self.choices}
        self._meter, self._heartbeat_s = meter, heartbeat_s
        self._usage: Json | None = None
        self._chunks = chunks
        self._conveyor = Conveyor(
            self._whole_stream(),
            self._take,
            windows=lambda: [choice.window for choice in self.choices],
            tick_s=TICK_S,
        )

    @property
    def error(self) -> Exception | None:
        """What ended the upstream's stream too early."""
        return self._conveyor.error

    def stop(self, error: Exception) -> None:
        """End early: what has passed still leaves, then a kind sentence."""
        self._conveyor.stop(error)

    async def _whole_stream(self) -> AsyncGenerator[Json, None]:
        """Give the chunks; an end before every choice has ended is an error."""
        try:
            async for chunk in self._chunks:
                yield chunk
            if any(choice.finish is None for choice in self.choices):
                raise ended_early()
        finally:
            await self._chunks.aclose()

    def _take(self, chunk: Json) -> None:
        usage = read_usage(chunk.get("usage"))
        if usage is not None:
            self._usage = usage
        entries = chunk.get("choices")
        for entry in entries if isinstance(entries, list) else []:
            index = index_of(entry, len(self.choices), otherwise=0)
            if index is not None:
                choice = self.choices[index]
                choice.take(entry.get("delta"), entry.get("finish_reason"), entry.get("logprobs"))

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Give the events, in the order in which they may leave."""
        silent_s = 0.0
        if self._lead:
            for choice in self.choices:
                yield Words(choice.index, self._lead, kind=True)
                choice.disclosed = True
        async with self._conveyor as conveyor:
            async for step in conveyor:
                if step is None:
                    silent_s += TICK_S
                    if silent_s >= self._heartbeat_s:
                        silent_s = 0.0
                        yield StillHere()
                    continue
                silent_s = 0.0
                window, release = step
                choice = self._windows[id(window)]
                if release is None:
                    self._meter.held(window.withheld)
                    for event in choice.stop():
                        yield event
                elif release.text:
                    self._meter.held(len(release.text), release.held_s)
                    yield choice.released(release)
        for choice in self.choices:
            if choice.ended:
                continue
            if choice.finish is None:
                choice.window.abandon()
                closing = choice.interrupt()
            else:
                closing = await choice.close()
            for event in closing:
                yield event
        counts = self._usage
        if counts is None:
            said = sum(choice.deltas for choice in self.choices)
            counts = {**NO_USAGE, "completion_tokens": said, "total_tokens": said}
        yield Usage(with_withheld(counts, self.choices))


def with_withheld(counts: Json, choices: list[Choice]) -> Json:
    """Return token counts that also say how many characters were held back, if any were."""
    withheld = sum(choice.withheld for choice in choices)
    return {**counts, "kidrails_withheld_characters": withheld} if withheld else counts
