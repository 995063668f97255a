"""Public sets: found in a folder that the user names, checked, and read in one form.

Nothing public is part of the repository. A set is used from a folder after its sum was compared
with the catalogue's.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from kidrails_guard.content import content_path
from kidrails_guard.errors import DataError, PolicyError
from kidrails_guard.files import sha256_file
from kidrails_guard.golden.catalogue import CATALOGUE, Catalogue, Source
from kidrails_guard.golden.schema import Turn
from kidrails_guard.policy import describe_error, read_yaml
from kidrails_guard.types import AgeBand, Hazard, Stage


@cache
def load_catalogue(path: Path | None = None) -> Catalogue:
    """Load the catalogue that ships, or another one.

    Raises:
        DataError: the file is not a catalogue; names the key.
    """
    file = path or content_path(CATALOGUE)
    try:
        return Catalogue.model_validate(read_yaml(file))
    except PolicyError as error:
        raise DataError(str(error)) from None
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise DataError(
            "\n".join(f"{file}: {describe_error(detail, Catalogue)}" for detail in details)
        ) from None


def resolve(name: str, folder: Path, *, sample: bool = False) -> Path:
    """Return a set's file in a folder, after its sum was compared with the catalogue's.

    Args:
        name: the set.
        folder: where the user keeps public sets.
        sample: return the few rows of ``samples/`` instead of the whole set.

    Raises:
        DataError: the set is unknown, its file is absent, or its sum differs.
    """
    source = load_catalogue()[name]
    if sample and source.sample is None:
        raise DataError(f"source {name!r} has no sample in {CATALOGUE}")
    if sample and source.sample is not None:
        relative, expected = source.sample.file, source.sample.sha256
    else:
        relative, expected = source.file, source.sha256 or ""
    path = folder / relative
    if not path.is_file():
        hint = f"; publisher: {source.homepage}" if source.homepage else ""
        raise DataError(
            f"{path}: no such file; source {name!r} is not part of this repository{hint}; "
            f"run: kidrails data fetch {name} --from DIR"
        )
    if expected and (found := sha256_file(path)) != expected:
        raise DataError(
            f"{path}: sha256 is {found}, {CATALOGUE} says {expected}; the file was changed or is "
            "another revision, so it is not used"
        )
    return path


def available(folder: Path, *, use: Literal["train", "evaluate"]) -> tuple[Source, ...]:
    """Return the sets of a use whose files lie in a folder (whole, or else as a sample).

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; `kidrails data fetch` says what it should hold")
    return tuple(
        source
        for source in load_catalogue().sources
        if source.use == use
        and (
            (folder / source.file).is_file()
            or (source.sample is not None and (folder / source.sample.file).is_file())
        )
    )


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a public set, read in one form.

    Attributes:
        id: the row's name, with the set's in front.
        text: the child's, or the model's, words.
        conversation: the turns before them.
        stage: whose words they are; None for a term that is no sentence.
        label: as the set has it.
        category: as the set has it.
        hazards: ours; empty for harmful without one of ours; None when the label does not say.
        band: where the set has an age.
        group: rows of one story or conversation share it, so that a split keeps them together.
        extra: what else the set has, as it stands there.
    """

    id: str
    text: str = field(repr=False)
    conversation: tuple[Turn, ...] = ()
    stage: Stage | None = Stage.INPUT
    label: str = ""
    category: str = ""
    hazards: tuple[Hazard, ...] | None = None
    band: AgeBand | None = None
    group: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read_source(source: Source, path: Path) -> Iterator[SourceRow]:
    """Yield a set's rows, whichever layout it has.

    Raises:
        DataError: a row lacks a key that its layout needs; names file, line and key.
    """
    reader = _LAYOUTS[source.layout]
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                value = json.loads(line)
                yield from reader(source, value, f"{source.name}-{number - 1}")
            except KeyError as error:
                raise DataError(
                    f"{path}:{number}: {error.args[0]}: missing; layout {source.layout!r} needs it"
                ) from None
            except (ValueError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{path}:{number}: is not a row of layout {source.layout!r} "
                    f"({type(error).__name__})"
                ) from None


_ROLES: Final[dict[str, Stage | None]] = {
    "user": Stage.INPUT,
    "assistant": Stage.OUTPUT,
    "term": None,
}


def _band(text: str) -> AgeBand | None:
    """Return the band that an age range of another set lies in, or None when it reaches outside."""
    digits = [int(part) for part in re.findall(r"\d+", text)]
    for band in AgeBand:
        low, high = band.ages
        if digits and all(low <= age <= high for age in digits):
            return band
    return None


def _kidrails(source: Source, row: dict[str, Any], default: str) -> Iterator[SourceRow]:
    label, category, context = row["label"], row.get("category", ""), row.get("context")
    yield SourceRow(
        id=row.get("id", default),
        text=row["text"],
        conversation=(Turn(role="user", content=context[:4000]),) if context else (),
        stage=_ROLES[row["role"]],
        label=label,
        category=category,
        hazards=source.labels(label, category),
        band=_band(row["band"]) if "band" in row else None,
        group=row.get("story", row.get("id", default)),
        extra={k: v for k, v in row.items() if k in {"band", "spans", "severity", "story"}},
    )


def _xstest(source: Source, row: dict[str, Any], default: str) -> Iterator[SourceRow]:
    yield SourceRow(
        id=f"{source.name}-{row.get('id', default)}",
        text=row["prompt"],
        label=row["label"],
        category=row["type"],
        hazards=source.labels(row["label"], row["type"]),
        group=row.get("focus", ""),
        extra={"note": row.get("note", "")},
    )


def _openai_moderation(source: Source, row: dict[str, Any], default: str) -> Iterator[SourceRow]:
    text = row["prompt"]
    # A label that was not judged is absent from the row, so it is neither there nor not there.
    held = sorted(key for key in source.hazards if row.get(key) == 1)
    hazards = sorted({hazard for key in held for hazard in source.hazards[key]})
    yield SourceRow(
        id=default,
        text=text,
        label="+".join(held) or "none",
        hazards=tuple(hazards) if held else source.hazards.get("none"),
        extra={key: value for key, value in row.items() if key != "prompt"},
    )


def _kora(source: Source, row: dict[str, Any], default: str) -> Iterator[SourceRow]:
    seed = row["seed"]
    age = seed["childAge"]
    category = f"{seed['riskCategoryId']}/{seed['riskId']}"
    yield SourceRow(
        id=seed.get("id", default),
        text=row["firstUserMessage"],
        label="scenario",
        category=category,
        hazards=source.labels("scenario", category),
        band=AgeBand.for_age(age) if 5 <= age <= 12 else None,
        extra={"age": age, "criteria": row.get("evaluationCriteria", ""), **row},
    )


def _kidbench(source: Source, row: dict[str, Any], default: str) -> Iterator[SourceRow]:
    for cues in ("without_cues", "with_cues"):
        yield SourceRow(
            id=f"{row.get('id', default)}/{cues}",
            text=row[cues],
            label=row["category"],
            category=cues,
            hazards=source.labels(row["category"], cues),
            group=row.get("id", default),
        )


_LAYOUTS: Final = {
    "kidrails": _kidrails,
    "xstest": _xstest,
    "openai_moderation": _openai_moderation,
    "kora": _kora,
    "kidbench": _kidbench,
}
