"""What the classifier is shown of a reply is what the guard looks at while it arrives."""

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from kidrails_guard.checks.classifier import Classifier
from kidrails_guard.classifier.looks import looks
from kidrails_guard.guard import Guard
from kidrails_guard.streaming import judge_reply
from kidrails_guard.types import AgeBand, Conversation, Finding, Stage

REPLY = (
    "Eek, a monster at the door! But I am a computer program, so there is nothing to chew. Bad "
    "luck! This monster needs a better snack, and you may choose which one it gets. A carrot is "
    "loud, a cloud is soft, and a slice of the moon would last until breakfast."
)


class Noting:
    """A check that notes every text it is shown, and does as the classifier does."""

    name = "noting"
    in_parts = Classifier.in_parts
    stages = frozenset(Stage)

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> Sequence[Finding]:
        self.seen.append(text)
        return ()


def test_each_part_is_shown_with_what_stood_before_it_and_the_whole_is_not() -> None:
    reply = f"{REPLY} {REPLY}"
    seen = looks(reply, Stage.OUTPUT)
    assert len(seen) > 4
    assert all(text in reply for text in seen)
    assert seen[0] == "Eek, a monster at the door! "
    assert reply.endswith(seen[-1])
    assert reply not in seen


def test_one_sentence_is_looked_at_once_and_nothing_never() -> None:
    assert looks("Foxes are shy.", Stage.OUTPUT) == ("Foxes are shy.",)
    assert looks("", Stage.OUTPUT) == ()


def test_a_message_is_looked_at_once() -> None:
    assert looks(REPLY, Stage.INPUT) == (REPLY,)


words = st.sampled_from(["wolf", "moon,", "why?", "run!", "Dr.", "3.5", "a", "howling\n", "so:"])


@given(st.lists(words, max_size=120).map(" ".join))
def test_the_guard_looks_at_the_same_parts(reply: str) -> None:
    check = Noting()
    asyncio.run(judge_reply(Guard(checks=[check]), reply, band=AgeBand.MIDDLE))
    assert tuple(check.seen) == looks(reply, Stage.OUTPUT)
