"""The parts of a reply that the guard looks at while it arrives: what the classifier is shown."""

from __future__ import annotations

from functools import cache
from typing import cast

from kidrails_guard.guard import Guard
from kidrails_guard.policy import Policy, load_policy
from kidrails_guard.streaming import ReleaseWindow
from kidrails_guard.types import NO_TURNS, Action, AgeBand, Conversation, Stage, Verdict


class _Recorder:
    """Stands where the guard does, notes what it is asked about, and lets it pass."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.seen: list[str] = []

    async def check_output(
        self,
        text: str,
        conversation: Conversation = NO_TURNS,
        *,
        band: AgeBand,
        strict: bool = False,
    ) -> Verdict:
        self.seen.append(text)
        return Verdict(Action.ALLOW, stage=Stage.OUTPUT)


@cache
def _default() -> Policy:
    return load_policy()


def looks(reply: str, policy: Policy | None = None) -> tuple[str, ...]:
    """Return each text that `ReleaseWindow` has checked of a reply that passes, in order.

    The last one is the whole reply. A reply of one sentence gives one text, an empty one none.

    Args:
        reply: the whole of it.
        policy: its ``streaming`` says where units end and how much is looked at again; the
            default policy when absent.
    """
    recorder = _Recorder(policy or _default())
    window = ReleaseWindow(cast(Guard, recorder), band=recorder.policy.youngest)
    window.feed(reply)
    window.finish()
    while window.ready:
        step = window.advance()
        try:
            step.send(None)
        except StopIteration:
            continue
        raise AssertionError("a look at a reply waited")  # pragma: no cover
    return tuple(recorder.seen)
