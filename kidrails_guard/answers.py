"""The fixed words that a child reads when the guard answers itself.

One YAML file a language in ``serve/policies/answers/``; several variants each, one of which a
seeded hash picks, so that the same conversation always reads the same and two do not sound alike.
"""

from __future__ import annotations

import hashlib
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kidrails_guard.content import content_path
from kidrails_guard.errors import PolicyError
from kidrails_guard.policy import describe_error, read_yaml
from kidrails_guard.types import CASES, Action, AgeBand, Hazard, Stage, Verdict

_M = TypeVar("_M", bound=BaseModel)

ANSWERS = "serve/policies/answers"
HELPLINES = "serve/policies/helplines.yaml"

Notice = Literal["disclosure", "break", "redacted", "interrupted", "unavailable", "unchecked"]
Variants = dict[AgeBand, tuple[str, ...]]


class Answers(BaseModel):
    """All fixed answers of one language.

    Attributes:
        answers: hazard, or hazard/case, to band to variants: the child's message was held back.
        withheld: band to variants: the model's reply was held back, or stopped in the middle.
        notices: what else is said: that this is a program, take a break, data was masked, …
        masks: kind of personal data to the words that stand in its place.
        helpline: the sentence that names a helpline: ``{name}`` and ``{contact}``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    locale: str
    answers: dict[str, Variants]
    withheld: Variants
    notices: dict[Notice, Variants]
    masks: dict[str, str]
    helpline: str

    @model_validator(mode="after")
    def _complete(self) -> Answers:
        for key in self.answers:
            hazard, _, case = key.partition("/")
            if hazard not in set(Hazard) or (case and case not in CASES.get(Hazard(hazard), ())):
                raise ValueError(f"answers.{key}: neither a hazard nor hazard/case")
        for hazard in Hazard:
            if hazard not in self.answers and hazard not in _NEVER_ANSWERED:
                raise ValueError(f"answers.{hazard}: missing; {hazard.label} needs an answer")
        tables = {f"answers.{k}": v for k, v in self.answers.items()}
        tables |= {f"notices.{k}": v for k, v in self.notices.items()} | {"withheld": self.withheld}
        for key, table in tables.items():
            for band in AgeBand:
                if not table.get(band):
                    raise ValueError(f"{key}: no text for band {band}")
        for notice in Notice.__args__:  # type: ignore[attr-defined]
            if notice not in self.notices:
                raise ValueError(f"notices.{notice}: missing")
        if "other" not in self.masks:
            raise ValueError(
                "masks.other: missing; it stands for kinds without a mask of their own"
            )
        return self

    def answer(self, verdict: Verdict, band: AgeBand, *, seed: str) -> str:
        """Return the words for a verdict whose action answers by itself.

        Args:
            verdict: what the guard decided.
            band: for whom.
            seed: picks the variant; use something that is stable for the conversation.
        """
        if verdict.failed and verdict.hazard is Hazard.BENIGN:
            return self.notice("unchecked", band, seed=seed)
        if verdict.stage is Stage.OUTPUT:
            return _pick(self.withheld[band], seed)
        for key in (f"{verdict.hazard}/{verdict.case}", str(verdict.hazard)):
            if key in self.answers:
                return _pick(self.answers[key][band], seed)
        return self.notice("unchecked", band, seed=seed)

    def notice(self, notice: Notice, band: AgeBand, *, seed: str) -> str:
        """Return one of the other fixed texts."""
        return _pick(self.notices[notice][band], seed)

    def mask(self, kind: str) -> str:
        """Return what stands in the place of masked personal data, such as ``[phone number]``."""
        return self.masks.get(kind, self.masks["other"])


_NEVER_ANSWERED = {Hazard.BENIGN, Hazard.VIOLENCE_IN_CONTEXT}


class Helpline(BaseModel):
    """One helpline, with where its number comes from and who checked it when."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    country: str = Field(pattern=r"^[A-Z]{2}$", description="ISO 3166; EU for the European Union")
    name: str
    contact: str = Field(description="the number first: it stands in a sentence of any language")
    ages: str
    languages: tuple[str, ...]
    for_crisis: tuple[Hazard, ...] = (Hazard.SELF_HARM, Hazard.ABUSE_DISCLOSURE)
    source: str
    checked_on: date
    verified_by: str = "nobody yet"


class Helplines(BaseModel):
    """All known helplines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    helplines: tuple[Helpline, ...]

    def find(self, country: str | None, hazard: Hazard) -> Helpline | None:
        """Return a country's helpline for a hazard; an unknown country has none."""
        for line in self.helplines:
            if line.country == country and hazard in line.for_crisis:
                return line
        return None


def _pick(variants: tuple[str, ...], seed: str) -> str:
    digest = hashlib.blake2b(seed.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return variants[int.from_bytes(digest, "big") % len(variants)]


def locales() -> tuple[str, ...]:
    """Return the languages that have answers, by the names of their files."""
    return tuple(sorted(path.stem for path in content_path(ANSWERS).glob("*.yaml")))


@cache
def load_answers(locale: str) -> Answers:
    """Load the answers of a language.

    Raises:
        PolicyError: there is no such file, or it is not complete.
    """
    path = content_path(ANSWERS) / f"{locale}.yaml"
    if locale not in locales():
        raise PolicyError(
            f"locale: {locale!r} has no answers; accepted: {', '.join(locales())}; add {path.name} "
            f"beside {path.parent}/en.yaml for another language"
        )
    return _load(path, Answers)


@cache
def load_helplines(path: Path | None = None) -> Helplines:
    """Load the helplines that ship, or those of another file.

    Raises:
        PolicyError: the file does not hold helplines.
    """
    return _load(path or content_path(HELPLINES), Helplines)


def _load(path: Path, model: type[_M]) -> _M:
    try:
        return model.model_validate(read_yaml(path))
    except ValidationError as error:
        lines = [describe_error(detail, model) for detail in error.errors(include_url=False)]
        raise PolicyError("\n".join(f"{path}: {line}" for line in lines)) from None


def compose_answer(
    verdict: Verdict, band: AgeBand, *, locale: str, country: str | None, seed: str
) -> str:
    """Return the whole answer for a verdict, with the country's helpline in a crisis."""
    answers = load_answers(locale)
    text = answers.answer(verdict, band, seed=seed)
    if verdict.action is Action.CRISIS:
        line = load_helplines().find(country, verdict.hazard)
        if line is not None:
            text += " " + answers.helpline.format(name=line.name, contact=line.contact)
    return text
