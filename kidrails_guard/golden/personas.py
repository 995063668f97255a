"""Child user models: who asks. Sampled with a seed, balanced over ages 5 to 12 by construction."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kidrails_guard.content import content_path
from kidrails_guard.errors import DataError
from kidrails_guard.golden.schema import Split
from kidrails_guard.policy import describe_error, read_yaml
from kidrails_guard.types import AgeBand

PERSONAS: Final = "data/personas.yaml"
AGES: Final = tuple(range(5, 13))

Style = Literal["dictated", "early", "casual", "texting", "careful", "excited"]
Spelling = Literal["british", "american"]
Words = Annotated[tuple[str, ...], Field(min_length=2)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Model):
    """One of Piaget's stages, with the ages (both included) that this project gives it."""

    name: str
    ages: tuple[int, int]
    thinking: tuple[str, ...] = Field(min_length=1)


class Family(_Model):
    """What a child calls its people."""

    words: dict[Literal["mum", "dad", "grandma", "grandpa"], str]
    spelling: Spelling
    until: int = Field(default=12, description="oldest age that still says so")


class PersonaPool(_Model):
    """What personas are sampled from."""

    stages: tuple[Stage, ...]
    traits: Words
    moods: Words
    interests: dict[AgeBand, Words]
    families: tuple[Family, ...] = Field(min_length=1)
    styles: dict[AgeBand, dict[Style, Annotated[int, Field(gt=0)]]]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for age in AGES:
            found = [s.name for s in self.stages if s.ages[0] <= age <= s.ages[1]]
            if len(found) != 1:
                raise ValueError(f"stages: age {age} is in {len(found)} stages, needed: one")
        if all(family.until < AGES[-1] for family in self.families):
            raise ValueError("families: none is left for age 12")
        for key in ("interests", "styles"):
            missing = [str(band) for band in AgeBand if band not in getattr(self, key)]
            if missing:
                raise ValueError(f"{key}: nothing for band {', '.join(missing)}")
        return self

    def stage(self, age: int) -> Stage:
        """Return the stage of an age from 5 to 12."""
        return next(s for s in self.stages if s.ages[0] <= age <= s.ages[1])


@dataclass(frozen=True, slots=True)
class Persona:
    """One child as a user: nobody in particular.

    Attributes:
        id: stable for a seed and a place in the sample.
        age: years.
        stage: the name of Piaget's stage.
        thinking: one sentence on how the child thinks.
        traits: two words.
        interests: two of them.
        mood: today's.
        style: how it writes, see ``data/paraphrase.yaml``.
        family: what it calls its people.
        spelling: which side of the ocean.
        split: a persona's rows all stand on one side.
        notes: what a foreign pool said beside that.
    """

    id: str
    age: int
    stage: str
    thinking: str
    traits: tuple[str, ...]
    interests: tuple[str, ...]
    mood: str
    style: Style
    family: tuple[tuple[str, str], ...]
    spelling: Spelling
    split: Split = "train"
    notes: tuple[str, ...] = field(default=())

    @property
    def band(self) -> AgeBand:
        """The band of the persona's age."""
        return AgeBand.for_age(self.age)

    def describe(self) -> str:
        """Return the persona in one paragraph, for a teacher's prompt."""
        return (
            f"A {self.age}-year-old who {self.thinking}. Traits: {', '.join(self.traits)}. Likes "
            f"{' and '.join(self.interests)}. Today's mood: {self.mood}. Says "
            f"{', '.join(word for _, word in self.family)}; {self.spelling} spelling."
        )


@cache
def load_pool(path: Path | None = None) -> PersonaPool:
    """Load what personas are sampled from.

    Raises:
        DataError: the file does not hold a pool; names the key.
    """
    file = path or content_path(PERSONAS)
    try:
        return PersonaPool.model_validate(read_yaml(file))
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise DataError(
            "\n".join(f"{file}: {describe_error(detail, PersonaPool)}" for detail in details)
        ) from None


# Of ten personas of an age, one is for the dev split: a fixed rhythm, so every age has its share.
_RHYTHM: Final[tuple[Split, ...]] = ("train",) * 4 + ("dev",) + ("train",) * 5


def sample_personas(
    count: int, *, seed: int, pool: PersonaPool | None = None
) -> tuple[Persona, ...]:
    """Sample personas; every age from 5 to 12 occurs equally often, give or take one.

    Args:
        count: how many.
        seed: the same one gives the same personas; a larger count only adds to them.
        pool: what to sample from; the one that ships when absent.
    """
    pool = pool or load_pool()
    personas = []
    for number, age in zip(range(count), cycle(AGES), strict=False):
        rng = random.Random(f"persona:{seed}:{number}")
        band = AgeBand.for_age(age)
        stage = pool.stage(age)
        family = rng.choice([f for f in pool.families if age <= f.until])
        styles = pool.styles[band]
        personas.append(
            Persona(
                id=f"p{seed}-{number:04d}",
                age=age,
                stage=stage.name,
                thinking=rng.choice(stage.thinking),
                traits=tuple(rng.sample(pool.traits, 2)),
                interests=tuple(rng.sample(pool.interests[band], 2)),
                mood=rng.choice(pool.moods),
                style=rng.choices(list(styles), list(styles.values()))[0],
                family=tuple(family.words.items()),
                spelling=family.spelling,
                split=_RHYTHM[number // len(AGES) % len(_RHYTHM)],
            )
        )
    return tuple(personas)


def by_band(personas: Iterable[Persona], split: Split) -> dict[AgeBand, tuple[Persona, ...]]:
    """Return the personas of a split by their band."""
    kept = [p for p in personas if p.split == split]
    return {band: tuple(p for p in kept if p.band is band) for band in AgeBand}


def balance(personas: Sequence[Persona], count: int, *, seed: int) -> tuple[Persona, ...]:
    """Return ``count`` of the personas so that every age occurs equally often, give or take one.

    An age with too few gives them again and again; an age without any is an error.

    Raises:
        DataError: an age from 5 to 12 has no persona.
    """
    by_age: dict[int, list[Persona]] = {age: [] for age in AGES}
    for persona in personas:
        by_age[persona.age].append(persona)
    empty = [str(age) for age, found in by_age.items() if not found]
    if empty:
        raise DataError(
            f"personas: none of age {', '.join(empty)}; every age from 5 to 12 is needed"
        )
    for age, found in by_age.items():
        random.Random(f"balance:{seed}:{age}").shuffle(found)
    turns = {age: cycle(found) for age, found in by_age.items()}
    return tuple(next(turns[age]) for _, age in zip(range(count), cycle(AGES), strict=False))


def ages(personas: Iterable[Persona]) -> dict[str, Any]:
    """Return how many personas there are of each age, for a manifest."""
    counts = Counter(persona.age for persona in personas)
    return {str(age): counts[age] for age in AGES}
