"""`ReleaseWindow`: of a model's reply, nothing leaves before the part that holds it has passed.

There is one way to judge a reply, whole or streamed. The text is cut into units (`units.py`), each
is checked together with released text before it, and the verdict of the reply is the merge of its
units' verdicts and of one look at the whole. Where the cuts fall depends on the text alone, so the
verdict does too: not on chunks, not on speed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

from kidrails_guard.answers import load_answers
from kidrails_guard.guard import Guard, decide, mask_spans
from kidrails_guard.types import (
    NO_TURNS,
    Action,
    AgeBand,
    Conversation,
    Finding,
    Stage,
    Verdict,
)
from kidrails_guard.units import CutRule, Cutter, Unit

_OPEN: Final = nullcontext()


@dataclass(frozen=True, slots=True)
class Release:
    """Text that has passed.

    Attributes:
        text: what may leave, with personal data masked.
        through: how many characters of the reply are now decided.
        masked: whether something in it was masked.
        held_s: seconds that it waited for the guard: since its unit was complete, or since it was
            due to leave early. How slowly a model writes is not in it.
    """

    text: str
    through: int
    masked: bool
    held_s: float


class ReleaseWindow:
    """Decides about one reply while it arrives.

    Args:
        guard: decides about each unit.
        conversation: the turns before the reply; the last one is the child's.
        band: for whom.
        strict: also count weak findings; set after an input verdict of ``care``.
        gate: held during each check; lets a server bound how many run at once.
        clock: seconds, for `Release.held_s` and the longest wait.

    Attributes:
        verdict: what is known so far; final once the window stopped, or ended with nothing ready.
        received: characters that arrived.
        released: characters of the reply that left, masked or not.
    """

    def __init__(
        self,
        guard: Guard,
        conversation: Conversation = NO_TURNS,
        *,
        band: AgeBand,
        strict: bool = False,
        gate: AbstractAsyncContextManager[object] = _OPEN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._guard, self._conversation = guard, conversation
        self._band, self._strict, self._clock, self._gate = band, strict, clock, gate
        self._rule = guard.policy.streaming
        self._longest_reply = guard.policy.limits.max_reply_characters
        self._cutter = Cutter(CutRule.for_longest(self._rule.max_held_characters))
        self._queue: deque[tuple[Unit, float]] = deque()
        self._context: deque[str] = deque()  # whole units, together about `context_characters`
        self._parts: list[str] = []  # all units that passed, for the look at the whole
        self._start = 0  # where the next unit starts in the reply
        self._early = 0  # characters of the next unit that left before it was complete
        self._tried = 0  # characters of the next unit that `advance_early` has looked at
        self._since = 0.0
        self._ended = False
        self.verdict = Verdict(Action.ALLOW, stage=Stage.OUTPUT)
        self.received = 0
        self.released = 0

    @property
    def stopped(self) -> bool:
        """Whether something was found for which nothing more may leave."""
        return self.verdict.action.answers

    @property
    def ready(self) -> bool:
        """Whether a unit waits to be checked."""
        return bool(self._queue)

    @property
    def waiting(self) -> int:
        """Units that wait to be checked: what a reader looks at before it reads on."""
        return len(self._queue)

    @property
    def withheld(self) -> int:
        """Characters that arrived and have not left."""
        return self.received - self.released

    def feed(self, text: str) -> None:
        """Take text as it arrives; nothing is checked here."""
        if self._ended or self.stopped or not text:
            return
        if not self._cutter.pending:
            self._since = self._clock()
        self.received += len(text)
        self._take(self._cutter.feed(text))

    def finish(self) -> None:
        """Take the reply's end."""
        if not self._ended:
            self._ended = True
            self._take(self._cutter.finish())

    def abandon(self) -> None:
        """Take the end of a reply that broke off: its last, incomplete part never leaves."""
        self._ended = True

    def _take(self, units: list[Unit]) -> None:
        if units and not self.stopped:
            self._since = self._clock()
            self._queue.extend((unit, self._since) for unit in units)

    async def advance(self) -> Release | None:
        """Check the next complete unit; return what may leave, or None if nothing may."""
        unit, complete_at = self._queue.popleft()
        context = self._fitting_context()
        end = self._start + len(unit.text)
        # Of a short reply, the last look sees all of it and need not be repeated.
        is_whole = unit.final and len(context) == self._start
        if end > self._longest_reply:
            verdict = Verdict(
                self._guard.policy.on_check_failure, failed=("limits",), stage=Stage.OUTPUT
            )
        else:
            verdict = await self._check(
                context + unit.text + unit.beyond, self._start - len(context), whole=is_whole
            )
            if unit.final and not is_whole and not verdict.action.answers:
                whole = "".join(self._parts) + unit.text
                verdict = verdict.merge(await self._check(whole, 0, whole=True, seen=True))
        self.verdict = self.verdict.merge(verdict)
        if self.stopped:
            self._queue.clear()
            return None
        release = self._release(unit.text, self._start, end, verdict.findings, complete_at)
        self._parts.append(unit.text)
        self._context.append(unit.text)
        self._start, self._early, self._tried = end, 0, 0
        return release

    def early_in(self) -> float | None:
        """Return after how many seconds `advance_early` may have something; None: not at all."""
        pending = len(self._cutter.pending)
        if self._ended or self._queue or pending <= max(self._tried, self._early):
            return None
        return max(0.0, self._early_at() - self._clock())

    def _early_at(self) -> float:
        return self._since + self._rule.max_held_ms / 1000

    async def advance_early(self) -> Release | None:
        """Check text that has waited too long for its border; return what may leave of it.

        This never decides: the unit is checked again when it is complete, and what is found here
        only means that its beginning waits for that.
        """
        pending, safe = self._cutter.pending, self._cutter.safe_part()
        self._tried = len(pending)
        if safe <= self._early or self._start + len(pending) > self._longest_reply:
            return None
        context, due_at = self._fitting_context(), self._early_at()
        verdict = await self._check(context + pending, self._start - len(context), whole=False)
        if verdict.action.answers:
            return None
        through = self._start + safe
        for finding in verdict.findings:
            if finding.redact and finding.span and finding.span[1] > self._start + self._early:
                through = min(through, finding.span[0])
        if through <= self._start + self._early:
            return None
        self._since = self._clock()
        return self._release(pending, self._start, through, (), due_at)

    def _fitting_context(self) -> str:
        """Return released text to look at again: whole units, so that it starts where words do."""
        longest = self._rule.context_characters
        size = sum(map(len, self._context))
        while len(self._context) > 1 and size > longest:
            size -= len(self._context.popleft())
        context = "".join(self._context)
        if size > longest:
            tail = context[-longest:]
            _, blank, after = tail.partition(" ")
            context = after if blank else tail
        return context

    async def _check(self, window: str, start: int, *, whole: bool, seen: bool = False) -> Verdict:
        """Check a part of the reply; findings come back with their place in the reply."""
        async with self._gate:
            verdict = await self._guard.check_output(
                window, self._conversation, band=self._band, strict=self._strict, seen=seen
            )
        if not verdict.findings:
            return verdict
        findings = [
            _moved(finding, start) for finding in verdict.findings if whole or not finding.whole
        ]
        decided = decide(
            self._guard.policy, findings, verdict.failed, band=self._band, stage=Stage.OUTPUT
        )
        return replace(decided, elapsed_ms=verdict.elapsed_ms)

    def _release(
        self, unit: str, start: int, end: int, findings: tuple[Finding, ...], since: float
    ) -> Release:
        """Return the unit's text up to ``end``, less what left early, masked."""
        begin = start + self._early
        text, masked = mask_part(self._guard, unit[self._early : end - start], begin, findings)
        self._early = end - start
        self.released = end
        return Release(text, end, masked, max(0.0, self._clock() - since))


def mask_part(guard: Guard, text: str, start: int, findings: Iterable[Finding]) -> tuple[str, bool]:
    """Mask what findings want masked in a part of a text.

    Args:
        guard: knows the masks' words.
        text: the part.
        start: where the part begins in the text that the findings' spans are about.
        findings: of the whole text.

    Returns:
        The masked part, and whether anything in it was masked.
    """
    end = start + len(text)
    spans = [
        ((max(f.span[0], start) - start, min(f.span[1], end) - start), f.note)
        for f in findings
        if f.redact and f.span and f.span[0] < end and f.span[1] > start
    ]
    if not spans:
        return text, False
    answers = load_answers(guard.policy.locale)
    return mask_spans(text, [(span, answers.mask(kind)) for span, kind in spans]), True


def _moved(finding: Finding, by: int) -> Finding:
    if finding.span is None or by == 0:
        return finding
    return replace(finding, span=(finding.span[0] + by, finding.span[1] + by))


@dataclass(frozen=True, slots=True)
class Judged:
    """A whole reply after the guard: its verdict, and what may be shown of it."""

    verdict: Verdict
    text: str
    masked: bool


async def judge_reply(
    guard: Guard,
    text: str,
    conversation: Conversation = NO_TURNS,
    *,
    band: AgeBand,
    strict: bool = False,
    gate: AbstractAsyncContextManager[object] = _OPEN,
) -> Judged:
    """Judge a reply that is there as a whole, exactly as if it had been streamed.

    Returns:
        The verdict, and the text with personal data masked; empty where the verdict answers.
    """
    window = ReleaseWindow(guard, conversation, band=band, strict=strict, gate=gate)
    window.feed(text)
    window.finish()
    parts: list[str] = []
    masked = False
    while window.ready:
        release = await window.advance()
        if release is not None:
            parts.append(release.text)
            masked |= release.masked
    return Judged(window.verdict, "" if window.stopped else "".join(parts), masked)
