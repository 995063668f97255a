"""Reads KidRails' own profile pool and stages, as they are published, and mends what is wrong."""

from __future__ import annotations

import ast
import csv
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kidrails_guard.errors import DataError
from kidrails_guard.golden.personas import AGES, Persona, sample_personas


@dataclass(frozen=True, slots=True)
class UpstreamPool:
    """KidRails' own profile pool, read as it is and mended where it is wrong.

    Attributes:
        personas: one a usable profile, in the file's order.
        repaired: profiles whose developmental stage did not fit their age.
        dropped: profiles that could not be read, with how often each reason.
    """

    personas: tuple[Persona, ...]
    repaired: int
    dropped: dict[str, int]


def read_upstream_stages(path: Path) -> dict[str, tuple[str, ...]]:
    """Read upstream's stages: name to characteristics.

    Raises:
        DataError: the file is not upstream's list of stages.
    """
    try:
        stages = json.loads(path.read_text(encoding="utf-8"))["developmental_stages"]
        return {stage["stage"]: tuple(stage["characteristics"]) for stage in stages}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: is not upstream's stages file ({type(error).__name__}); needed: "
            '{"developmental_stages": [{"stage": …, "characteristics": […]}]}'
        ) from None


_UPSTREAM_STAGE: Final = {5: "Preoperational", 6: "Preoperational", 12: "Formal"}


def read_upstream_pool(path: Path, stages: Path, *, seed: int) -> UpstreamPool:
    """Read upstream's pool of profiles (CSV) together with its stages (JSON).

    A profile keeps its age, adjectives and interests. Where its `characteristics` are not those of
    the age's stage, they become a note and the stage of this project stands in.

    Args:
        path: ``kids_characteristics_pool.csv``.
        stages: ``children_developmental_stages.json``.
        seed: decides what the profile does not say (style, mood, family).

    Raises:
        DataError: a file is absent or has other columns.
    """
    known = read_upstream_stages(stages)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({type(error).__name__})") from None
    needed = {"age", "characteristics", "personality_trait", "adjectives", "interest"}
    if not rows or needed - set(rows[0]):
        raise DataError(f"{path}: needed columns: {', '.join(sorted(needed))}")
    bases = sample_personas(len(rows) * len(AGES), seed=seed)
    personas: list[Persona] = []
    dropped: Counter[str] = Counter()
    repaired = 0
    for number, row in enumerate(rows):
        try:
            age = int(row["age"])
            said, adjectives, interests = (
                tuple(map(str, ast.literal_eval(row[key] or "[]")))
                for key in ("characteristics", "adjectives", "interest")
            )
        except (ValueError, SyntaxError, TypeError):
            dropped["a column is not a list, or the age is not a number"] += 1
            continue
        if age not in AGES:
            dropped["age outside 5 to 12"] += 1
            continue
        start = _UPSTREAM_STAGE.get(age, "Concrete")
        right = next((v for k, v in known.items() if k.startswith(start)), ())
        wrong = bool(right) and not set(said) <= set(right)
        repaired += wrong
        base = bases[number * len(AGES) + AGES.index(age)]
        personas.append(
            Persona(
                id=f"u{number:05d}",
                age=age,
                stage=base.stage,
                thinking=base.thinking,
                traits=adjectives or base.traits,
                interests=interests or base.interests,
                mood=base.mood,
                style=base.style,
                family=base.family,
                spelling=base.spelling,
                split=base.split,
                notes=said if wrong else (),
            )
        )
    return UpstreamPool(tuple(personas), repaired, dict(sorted(dropped.items())))
