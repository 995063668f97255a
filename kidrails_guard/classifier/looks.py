"""The parts of a reply that the guard looks at while it arrives: what the classifier is shown."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from kidrails_guard.guard import Guard, run_sync
from kidrails_guard.policy import Policy, load_policy
from kidrails_guard.streaming import judge_reply
from kidrails_guard.types import AgeBand, Conversation, Finding, Stage


class _Noting:
    """A check that notes what it is shown and finds nothing."""

    name = "noting"
    in_parts = True
    stages = frozenset(Stage)

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> Sequence[Finding]:
        self.seen.append(text)
        return ()


@cache
def _default() -> Policy:
    return load_policy()


def looks(text: str, stage: Stage, policy: Policy | None = None) -> tuple[str, ...]:
    """Return each text that the classifier is shown of a text that passes, in order.

    A child's message is looked at once, a reply part by part. A reply of one sentence gives one
    text, an empty one none.

    Args:
        text: the whole of it.
        stage: whose words it is.
        policy: its ``streaming`` says where units end and how much is looked at again; the
            default policy when absent.
    """
    if stage is Stage.INPUT:
        return (text,)
    policy, check = policy or _default(), _Noting()
    run_sync(judge_reply(Guard(policy, checks=[check]), text, band=policy.youngest))
    return tuple(check.seen)
