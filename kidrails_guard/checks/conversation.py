"""What the child's earlier turns add up to: split requests, old roles, stories told in pieces.

The newest turn must itself take part: an old turn never blocks a calm new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

from kidrails_guard.checks.conversation_rules import (
    CONVERSATION,
    ConversationRules,
    Signals,
    load_rules,
)
from kidrails_guard.checks.lexicon import (
    Matcher,
    compile_any,
    first_outside,
    shipped_matchers,
)
from kidrails_guard.checks.lexicon_rules import load_sets
from kidrails_guard.content import content_path
from kidrails_guard.plain import plain_words
from kidrails_guard.policy import Policy
from kidrails_guard.types import (
    Action,
    AgeBand,
    Conversation,
    Finding,
    Hazard,
    Severity,
    Stage,
)

TURNS: Final = 8
"""How many of the child's earlier turns are looked at."""
_CHARACTERS: Final = 2_000
"""How much of one earlier turn is looked at: its end."""
_RECENT: Final = 3
_FRAGMENT: Final = 9
"""Words; only a message as short as this can be one piece of a split request."""


class ConversationCheck:
    """Looks at the child's newest turn together with the ones before.

    Args:
        policy: says what would have been refused.
        file: signals and stories.
        matcher: the rules for what a child writes.
    """

    name = "conversation"
    inline = True
    stages = frozenset({Stage.INPUT})

    def __init__(self, policy: Policy, file: ConversationRules, matcher: Matcher) -> None:
        sets = load_sets()
        self._policy, self._file, self._matcher = policy, file, matcher
        self._signals = Signals(file.signals, sets)
        self._continues = compile_any(file.continues, sets, CONVERSATION)
        self._turns_away = compile_any(file.turns_away, sets, CONVERSATION)
        self._let_rest = compile_any(file.let_rest, sets, CONVERSATION)
        self._in_role = compile_any(file.in_role, sets, CONVERSATION)
        self._answers = tuple(
            (
                answer,
                compile_any(answer.asked, sets, CONVERSATION),
                compile_any(answer.said, sets, CONVERSATION),
                compile_any(answer.asked_unless, sets, CONVERSATION),
                compile_any(answer.unless, sets, CONVERSATION),
            )
            for answer in file.answers
        )

    async def __call__(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> Sequence[Finding]:
        """Return what the turns add up to."""
        return self.find(conversation, text, band)

    def find(self, conversation: Conversation, text: str, band: AgeBand) -> list[Finding]:
        """Return what the turns add up to; nothing where there are none before."""
        turns = conversation.last(2 * TURNS).messages
        if not turns:
            return []
        mine = [m.content[-_CHARACTERS:] for m in turns if m.role == "user"][-TURNS:]
        now = plain_words(text).text
        found = list(self._answered(turns, now))
        if mine:
            before = [plain_words(turn).text for turn in mine]
            found += self._continued(before, now, band)
            found += self._joined(mine, text, now, band)
            found += self._told(before, now)
        return list(dict.fromkeys(found))

    def _answered(self, turns: Sequence[Any], now: str) -> Iterator[Finding]:
        if not turns or turns[-1].role != "assistant":
            return
        asked = plain_words(turns[-1].content[-_CHARACTERS:]).text
        for answer, question, said, asked_unless, unless in self._answers:
            meant = unless is None or not unless.search(now)
            if not meant or not said.search(now):
                continue
            if first_outside(asked_unless, asked, (m.span() for m in question.finditer(asked))):
                yield self._finding(answer.hazard, answer.severity, answer.id)

    def _refused(self, text: str, band: AgeBand) -> Iterator[tuple[Any, tuple[int, int]]]:
        """Yield the rules that hold in a text and that the policy answers itself."""
        if band not in self._policy.bands:
            band = self._policy.youngest
        for rule, span in self._matcher.find(text):
            action = self._policy.action(
                rule.hazard, rule.severity, band=band, stage=Stage.INPUT, case=rule.case
            )
            if action >= Action.REDIRECT:
                yield rule, span

    def _continued(self, before: Sequence[str], now: str, band: AgeBand) -> Iterator[Finding]:
        recent = before[-_RECENT:]
        in_role = self._in_role.search(now) is not None
        if in_role and any(
            rule.hazard is Hazard.JAILBREAK
            for turn in before
            for rule, _ in self._refused(turn, band)
        ):
            yield self._finding(Hazard.JAILBREAK, "moderate", "in_role")
        if self._continues.search(now) is None or self._turns_away.search(now) is not None:
            return
        for age, turn in enumerate(reversed(recent)):
            for rule, _ in self._refused(turn, band):
                # A crisis or a disclosure is no request that goes on; others wait at most a turn.
                if rule.hazard not in _TOLD and (age == 0 or rule.severity >= Severity.MODERATE):
                    yield self._finding(rule.hazard, rule.severity.label, "split", case=rule.case)
            if self._turns_away.search(turn) is not None:
                return
            # "Ok tell me anyway" was a piece of the same request.
            if self._let_rest.search(turn) is not None and self._continues.search(turn) is None:
                return

    def _joined(self, mine: Sequence[str], text: str, now: str, band: AgeBand) -> Iterator[Finding]:
        if len(now.split()) > _FRAGMENT:
            return
        alone = {rule.name for rule, _ in self._matcher.find(now)}
        for count in (1, 2, 3):
            if count > len(mine) or len(mine[-count].split()) > 2 * _FRAGMENT:
                return
            together = plain_words(" ".join([*mine[-count:], text])).text
            seam = len(together) - len(now)
            for rule, (start, end) in self._refused(together, band):
                if start < seam < end - 1 and rule.name not in alone and rule.hazard not in _TOLD:
                    yield self._finding(rule.hazard, rule.severity.label, "joined", case=rule.case)

    def _told(self, before: Sequence[str], now: str) -> Iterator[Finding]:
        newest = self._signals.find(now)
        if not newest:
            return
        earlier = frozenset[str]().union(*(self._signals.find(turn) for turn in before))
        for story in self._file.stories:
            part = newest & story.names()
            # The newest turn brings something that the earlier ones alone did not say.
            if part - earlier and earlier & story.names() and story.told(newest | earlier):
                yield self._finding(story.hazard, story.severity, story.id, case=story.case)

    def _finding(self, hazard: Hazard, severity: str, note: str, *, case: str = "") -> Finding:
        return Finding(
            self.name, hazard, Severity.parse(severity), note=f"conversation.{note}", case=case
        )


_TOLD: Final = frozenset(
    {
        Hazard.SELF_HARM,
        Hazard.SELF_HARM_QUESTION,
        Hazard.ABUSE_DISCLOSURE,
        Hazard.DISTRESS,
        Hazard.BULLYING,
        Hazard.PERSONAL_DATA,
        Hazard.DEPENDENCY,
    }
)
"""Hazards that a child tells of: there is no next step to ask for."""


@cache
def _shipped() -> ConversationRules:
    return load_rules(content_path(CONVERSATION))


@cache
def conversation_reasons() -> dict[str, str]:
    """Return each note of this check with its reason, for explanations."""
    file = _shipped()
    reasons = {f"conversation.{answer.id}": answer.why for answer in file.answers}
    reasons |= {f"conversation.{story.id}": story.why for story in file.stories}
    return reasons | {f"conversation.{name}": rest.why for name, rest in file.rest.items()}


def build(policy: Policy) -> ConversationCheck:
    """Return the check for a policy."""
    return ConversationCheck(policy, _shipped(), shipped_matchers()[Stage.INPUT])
