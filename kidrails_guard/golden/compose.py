"""Composes new rows from hand-written ones: the offline teacher, which needs no model."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from kidrails_guard.errors import DataError
from kidrails_guard.golden.disguise import disguise
from kidrails_guard.golden.paraphrase import Paraphraser, tone_of
from kidrails_guard.golden.personas import Persona, by_band
from kidrails_guard.golden.rows import Drop, Row
from kidrails_guard.golden.schema import Split, Turn
from kidrails_guard.types import Action, AgeBand, Hazard, Stage

Scenario = Literal["single", "after chat", "after long chat", "comes back"]

SCENARIOS: Final[tuple[Scenario, ...]] = (
    ("single",) * 6 + ("after chat",) * 2 + ("after long chat", "comes back")
)
"""How often each way of putting a conversation together is tried, of ten."""

DISGUISED: Final = 0.08
"""Share of the guard's composed texts that are disguised."""

_CALM: Final = frozenset({Hazard.BENIGN, Hazard.VIOLENCE_IN_CONTEXT})


@dataclass(frozen=True, slots=True)
class Job:
    """One row to be made.

    Attributes:
        id: stable for seed row, number and the run's seed; the made row's id.
        row: the hand-written row that it starts from.
        persona: who speaks.
        scenario: how the conversation is put together.
        number: which of the row's jobs.
    """

    id: str
    row: Row
    persona: Persona
    scenario: Scenario
    number: int


def plan_jobs(
    rows: Sequence[Row], personas: Sequence[Persona], *, per_row: int, seed: int, tag: str = ""
) -> Iterator[Job]:
    """Yield jobs for every row: ``per_row`` each, with personas of the row's band and split.

    Args:
        rows: with their split; evaluation rows are passed over, nothing is made from them.
        personas: of all splits.
        per_row: jobs a row.
        seed: the same one gives the same jobs.
        tag: stands in the jobs' ids, so that two kinds of run can be joined.

    Raises:
        DataError: a band has no persona on a side.
    """
    sides: dict[Split, Mapping[AgeBand, tuple[Persona, ...]]] = {
        side: by_band(personas, side) for side in ("train", "dev")
    }
    for row in rows:
        if row.split is None or row.split == "eval":
            continue
        start = random.Random(f"start:{seed}:{row.id}").randrange(len(SCENARIOS))
        for number in range(per_row):
            rng = random.Random(f"job:{seed}:{row.id}:{number}")
            band = row.band or rng.choice(list(AgeBand))
            if not sides[row.split][band]:
                raise DataError(
                    f"personas: none of band {band} for the {row.split} rows; give --personas 40 "
                    "or more"
                )
            yield Job(
                id=f"{row.id}-{tag}{number}",
                row=row,
                persona=rng.choice(sides[row.split][band]),
                # Three steps at a time meet all ten in turn, from another start in every row.
                scenario=SCENARIOS[(start + 3 * number) % len(SCENARIOS)],
                number=number,
            )


class OfflineTeacher:
    """Answers jobs by paraphrase and composition.

    Args:
        golden: the hand-written golden rows with their split; calm exchanges are taken from them.
        seed: the same one gives the same rows.
        paraphraser: the tables that ship when absent.
    """

    name = "offline"

    def __init__(
        self, golden: Sequence[Row], *, seed: int, paraphraser: Paraphraser | None = None
    ) -> None:
        self.seed = seed
        self.paraphraser = paraphraser or Paraphraser()
        self._calm: dict[tuple[Split, AgeBand], list[Row]] = {}
        self._risky: dict[tuple[Split, AgeBand], list[Row]] = {}
        for row in golden:
            if row.conversation or row.band is None or row.split is None:
                continue
            if row.action is Action.ALLOW and row.hazards[0] in _CALM:
                self._calm.setdefault((row.split, row.band), []).append(row)
            elif row.action in {Action.REFUSE, Action.CARE}:
                self._risky.setdefault((row.split, row.band), []).append(row)

    def answer(self, job: Job) -> Row | Drop:
        """Return the job's row, or why there is none."""
        return self._question(job) if job.row.kind == "qa" else self._text(job)

    def _question(self, job: Job) -> Row | Drop:
        row, rng = job.row, random.Random(f"say:{self.seed}:{job.id}")
        tone = tone_of(row.text, row.hazards, row.about)
        child = [turn.content for turn in row.conversation if turn.role == "user"]
        replies = [turn.content for turn in row.conversation if turn.role == "assistant"]
        said = self.paraphraser.say(
            [*child, row.text],
            [*replies, row.golden, row.unsafe],
            persona=job.persona,
            rng=rng,
            tone=tone,
        )
        *earlier, golden, unsafe = said.replies
        conversation = _said_anew(row.conversation, said.child[:-1], earlier)
        scenario: str = job.scenario
        before: tuple[Turn, ...] = ()
        if row.conversation:
            scenario = "as written"
        elif scenario != "single":
            before = self._before(job, rng)
            if not before:
                return Drop("nothing to put before it")
        return replace(
            row,
            id=job.id,
            seed=row.id,
            age=job.persona.age,
            conversation=before + conversation,
            text=said.child[-1],
            golden=golden,
            unsafe=unsafe,
            persona=job.persona.id,
            scenario=scenario,
            moves=said.moves,
            method="paraphrased",
        )

    def _before(self, job: Job, rng: random.Random) -> tuple[Turn, ...]:
        """Return the exchanges before a message: calm ones, or a risky one it comes back from."""
        row = job.row
        assert row.band is not None
        assert row.split is not None
        if job.scenario == "comes back":
            # Only a harmless message comes back from something; a second hazard would be drift.
            pool = self._risky.get((row.split, row.band), []) if row.hazards[0] in _CALM else []
            chosen = rng.sample(pool, min(1, len(pool)))
        else:
            pool = [r for r in self._calm.get((row.split, row.band), []) if r.id != row.id]
            count = 2 if job.scenario == "after long chat" else 1
            chosen = rng.sample(pool, min(count, len(pool)))
        turns: list[Turn] = []
        for other in chosen:
            said = self.paraphraser.say(
                [other.text],
                [other.golden],
                persona=job.persona,
                rng=rng,
                tone=tone_of(other.text, other.hazards, other.about),
            )
            turns.append(Turn(role="user", content=said.child[0]))
            turns.append(Turn(role="assistant", content=said.replies[0]))
        return tuple(turns)

    def _text(self, job: Job) -> Row | Drop:
        row, rng = job.row, random.Random(f"text:{self.seed}:{job.id}")
        if row.stage is Stage.OUTPUT:
            return Drop("a reply is not paraphrased")
        child = [turn.content for turn in row.conversation if turn.role == "user"]
        replies = [turn.content for turn in row.conversation if turn.role == "assistant"]
        said = self.paraphraser.say(
            [*child, row.text],
            replies,
            persona=job.persona,
            rng=rng,
            tone=tone_of(row.text, row.hazards, row.about),
        )
        text, moves = said.child[-1], said.moves
        if rng.random() < DISGUISED:
            text, kind = disguise(text, rng)
            moves = (*moves, f"disguise: {kind}")
        return replace(
            row,
            id=job.id,
            seed=row.id,
            band=job.persona.band,
            age=job.persona.age,
            conversation=_said_anew(row.conversation, said.child[:-1], said.replies),
            text=text,
            persona=job.persona.id,
            moves=moves,
            method="paraphrased",
        )


def _said_anew(
    turns: Sequence[Turn], child: Sequence[str], replies: Sequence[str]
) -> tuple[Turn, ...]:
    """Return the turns with new words, each in the place of the old ones."""
    texts = {"user": iter(child), "assistant": iter(replies)}
    return tuple(Turn(role=turn.role, content=next(texts[turn.role])) for turn in turns)
