"""The quality gate: every generated row passes it, and a rejected one keeps its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from kidrails_guard.checks import load_checks
from kidrails_guard.golden.replies import form_problems, reply_problems
from kidrails_guard.golden.rows import Drop, Row
from kidrails_guard.golden.schema import MAX_TEXT
from kidrails_guard.guard import Guard
from kidrails_guard.policy import Policy, load_policy
from kidrails_guard.types import (
    Action,
    AgeBand,
    Check,
    Conversation,
    Finding,
    Stage,
    Verdict,
)

Depth = Literal["off", "rules", "full"]
DEPTHS: Final[tuple[Depth, ...]] = ("off", "rules", "full")

SLOW: Final = frozenset({"classifier", "judge"})
"""Checks that a gate of depth ``rules`` leaves out: they cost milliseconds a text."""


_REMEMBERED: Final = 1_000
"""Verdicts that a gate keeps; half a million of them would be gigabytes."""


class _Nothing:
    """A check that finds nothing, for a gate that is switched off."""

    name = "nothing"
    stages = frozenset(Stage)

    async def __call__(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> Sequence[Finding]:
        return ()


def build_guard(depth: Depth, policy: Policy | None = None) -> Guard:
    """Return the guard that a gate of this depth asks.

    Args:
        depth: ``off`` asks nobody, ``rules`` the policy's fast checks, ``full`` all of them.
        policy: the default policy when absent.
    """
    policy = policy or load_policy()
    if depth == "off":
        return Guard(policy, checks=(_Nothing(),))
    if depth == "full":
        return Guard(policy)
    fast = tuple(rule for rule in policy.checks if rule.name not in SLOW)
    checks: tuple[Check, ...] = load_checks(policy.model_copy(update={"checks": fast}))
    return Guard(policy, checks=checks)


class Gate:
    """Decides whether a generated row may stand beside the hand-written one it comes from.

    The guard is asked about the seed and about the new row: the new one must not look like another
    hazard, nor hide the hazard that the guard saw in the seed. A hand-written row is never judged
    by the guard, which is to learn from it.

    Args:
        guard: from `build_guard`.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self._verdicts: dict[tuple[str, AgeBand, Stage], Verdict] = {}

    async def judge(self, row: Row, seed: Row) -> Row | Drop:
        """Return the row, or why it must not stay."""
        for text in (row.text, row.golden, row.unsafe):
            if len(text) > MAX_TEXT:
                return Drop("schema", f"{len(text)} characters, accepted: {MAX_TEXT}")
        lost = (seed.golden and not row.golden) or (seed.unsafe and not row.unsafe)
        if not row.text.strip() or lost:
            return Drop("schema", "an empty text")
        for text in (row.text, *(turn.content for turn in row.conversation), row.unsafe):
            for problem in form_problems(text):
                return Drop(problem)
        if row.kind == "qa" and row.band is not None:
            for problem in reply_problems(row.golden, row.band, policy=self.guard.policy):
                reason, _, detail = problem.partition(": ")
                return Drop(reason, detail)
        return await self._agree(row, seed)

    async def judge_all(self, pairs: Sequence[tuple[Row, Row]]) -> list[Row | Drop]:
        """Do `judge` for many rows with their seeds."""
        return [await self.judge(row, seed) for row, seed in pairs]

    async def _agree(self, row: Row, seed: Row) -> Row | Drop:
        band = row.band or seed.band or AgeBand.MIDDLE
        after = await self._verdict(row.text, band, row.stage)
        if after.failed:
            return Drop("guard failed", ", ".join(after.failed))
        before = await self._verdict(seed.text, band, row.stage)
        mine, known = set(row.hazards), {f.hazard for f in before.findings}
        found = {f.hazard for f in after.findings}
        answered = {f.hazard for f in after.findings if self._answers(f, band, row.stage)}
        if strange := answered - mine - known:
            return Drop("guard sees another hazard", ", ".join(sorted(strange)))
        # A disguise that hides the hazard from the guard is what the guard is to learn from.
        if (lost := mine & known) and not mine & found and not disguised(row):
            return Drop("guard no longer sees the hazard", ", ".join(sorted(lost)))
        if row.kind == "qa" and row.golden != seed.golden:
            reply = await self._verdict(row.golden, band, Stage.OUTPUT)
            written = await self._verdict(seed.golden, band, Stage.OUTPUT)
            if reply.action.answers and not written.action.answers:
                return Drop("guard stops the golden reply", str(reply.hazard))
        return row

    def _answers(self, finding: Finding, band: AgeBand, stage: Stage) -> bool:
        action = self.guard.policy.action(
            finding.hazard, finding.severity, band=band, stage=stage, case=finding.case
        )
        return action >= Action.REDIRECT

    async def _verdict(self, text: str, band: AgeBand, stage: Stage) -> Verdict:
        key = (text, band, stage)
        if key not in self._verdicts:
            # A seed is asked about again only by the rows made of it, which follow each other.
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            check = self.guard.check_input if stage is Stage.INPUT else self.guard.check_output
            self._verdicts[key] = await check(text, band=band)
        return self._verdicts[key]


def disguised(row: Row) -> bool:
    """Return whether letters of a row were hidden on purpose."""
    return any(move.startswith("disguise") for move in row.moves)
