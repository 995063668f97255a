"""What the catalogue of public sets says of each: licence, use, sums, and how its labels read."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from kidrails_guard.errors import DataError
from kidrails_guard.types import Hazard

CATALOGUE: Final = "data/sources.yaml"

PERMISSIVE: Final = frozenset({"MIT", "Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0"})
"""Licences under which a set may enter training files (SPDX names)."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Layout = Literal["kidrails", "xstest", "openai_moderation", "kora", "kidbench"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sample(_Model):
    """A few rows of a set in its original layout, for writing and testing its loader."""

    file: str
    sha256: Digest


class Original(_Model):
    """Where the publisher keeps the set."""

    url: str = Field(pattern=r"^https://")
    sha256: Digest | None = None


class Source(_Model):
    """One public set."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    homepage: str | None
    licence: str
    use: Literal["train", "evaluate"]
    revision: str | None = None
    layout: Layout
    file: str
    sha256: Digest | None = None
    rows: int | None = Field(default=None, gt=0)
    sample: Sample | None = None
    original: Original | None = None
    hazards: dict[str, tuple[Hazard, ...]] = Field(
        default_factory=dict, description="label, or label/category, to hazards"
    )
    note: str = ""

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        if self.use == "train" and self.licence not in PERMISSIVE:
            raise ValueError(
                f"use: train needs a permissive licence; {self.licence!r} is not one of "
                f"{', '.join(sorted(PERMISSIVE))}; set use: evaluate"
            )
        if self.use == "train" and self.sha256 is None:
            raise ValueError("sha256: a set that may be trained on needs its sum")
        return self

    def labels(self, label: str, category: str) -> tuple[Hazard, ...] | None:
        """Return the hazards of a label, or None when it says nothing about ours.

        Of several entries that fit, the longest counts: ``harmful/Physical Harm/Self-harm`` before
        ``harmful/Physical Harm`` before ``harmful``.
        """
        key = f"{label}/{category}"
        fitting = [k for k in self.hazards if key == k or key.startswith(f"{k}/")]
        return self.hazards[max(fitting, key=len)] if fitting else None


class Catalogue(_Model):
    """All known sets."""

    sources: tuple[Source, ...]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sources: {', '.join(twice)} stands there twice")
        return self

    def __getitem__(self, name: str) -> Source:
        """Return a set by its name.

        Raises:
            DataError: there is none of that name.
        """
        for source in self.sources:
            if source.name == name:
                return source
        known = ", ".join(source.name for source in self.sources)
        raise DataError(f"source {name!r} is not in {CATALOGUE}; known: {known}")
