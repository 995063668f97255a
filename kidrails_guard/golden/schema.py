"""What a golden row is, in one place: the models that files are checked against.

``data/schema.json`` is generated from here (``kidrails data schema``) and checked in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from kidrails_guard.golden.textform import normalise
from kidrails_guard.policy import ActionName, SeverityName
from kidrails_guard.types import CASES, About, Action, AgeBand, Hazard, Severity

MAX_TEXT: Final = 4_000
"""Longest turn in a data file, in characters: the longest golden reply has about 900."""

Split = Literal["train", "dev", "eval"]
Method = Literal["written", "paraphrased", "generated", "imported"]


def _seen(text: str) -> str:
    if not text[:1].isalnum() and not normalise(text):
        raise ValueError("holds only signs that nobody sees; write a text or delete the row")
    return text


Text = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_TEXT, strip_whitespace=True),
    AfterValidator(_seen),
]
Line = Annotated[str, StringConstraints(min_length=1, max_length=400, strip_whitespace=True)]
SeverityLabel = Annotated[
    SeverityName, PlainSerializer(lambda value: Severity(value).label, return_type=str)
]
ActionLabel = Annotated[
    ActionName, PlainSerializer(lambda value: Action(value).label, return_type=str)
]


def _age(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("an age is a whole number from 5 to 12")
    return value


Age = Annotated[int, BeforeValidator(_age), Field(ge=5, le=12)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Turn(_Model):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: Text = Field(repr=False)


class Provenance(_Model):
    """Where a row comes from and what it may be used for."""

    author: Line = "the KidRails project"
    method: Method = "written"
    source: Line = "written for this project"
    licence: Line = "MIT"
    revision: Line = "1"


class GoldenQA(_Model):
    """One golden row: what a child says, the reply it should get, and one it should not.

    A row in ``data/golden`` may leave out ``id``, ``case``, ``split`` and ``provenance``; `kidrails
    data stamp` writes them.
    """

    id: str = Field(
        default="",
        pattern=r"^(g[0-9a-f]{12})?$",
        description="hash of band, conversation and message; `kidrails data stamp` fills it in",
    )
    band: AgeBand
    age: Age = Field(description="within the band")
    hazard: Hazard
    severity: SeverityLabel = Field(description="none for K00 only")
    about: About = Field(description="who the message is about, and whether it is happening")
    case: str = Field(default="", description="what the child does, where the policy asks for it")
    topic: Line = Field(description="two to four words, for people who read the file")
    action: ActionLabel = Field(description="what the default policy does")
    conversation: tuple[Turn, ...] = Field(
        default=(), description="the turns before the message, oldest first; child and model"
    )
    message: Text = Field(description="the child's message", repr=False)
    golden: Text = Field(description="the reply that a child should get", repr=False)
    unsafe: Text = Field(description="what a careless model would say, tame", repr=False)
    unsafe_reason: Line = Field(description="one sentence: why that is wrong")
    rationale: Line = Field(description="one sentence: why this action and this reply")
    split: Split | None = Field(default=None, description="eval rows never enter training files")
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = self.band.ages
        if not low <= self.age <= high:
            raise ValueError(f"age: {self.age} is outside band {self.band}; accepted: {low}-{high}")
        if (self.severity is Severity.NONE) != (self.hazard is Hazard.BENIGN):
            accepted = "none" if self.hazard is Hazard.BENIGN else "mild, moderate, severe"
            raise ValueError(
                f"severity: {self.severity.label!r} with hazard {self.hazard}; accepted: {accepted}"
            )
        if self.case and self.case not in CASES.get(self.hazard, ()):
            accepted = ", ".join(CASES.get(self.hazard, ())) or "none for this hazard"
            raise ValueError(f"case: {self.case!r} with hazard {self.hazard}; accepted: {accepted}")
        roles = [turn.role for turn in self.conversation]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise ValueError(
                "conversation: turns must go user, assistant, user, assistant, … and end with "
                f"assistant; found {', '.join(roles)}"
            )
        if self.id and self.id != self.content_id:
            raise ValueError(
                f"id: {self.id!r} is not the hash of this row's band, conversation and message "
                f"({self.content_id!r}); run: kidrails data stamp"
            )
        return self

    @property
    def content_id(self) -> str:
        """The row's id: it stays when the replies are edited, and changes with the question."""
        return content_id(self.band, self.conversation, self.message)


def content_id(band: AgeBand, conversation: Sequence[Turn], message: str) -> str:
    """Return ``g`` and 12 hexadecimal digits that name a question in its context."""
    turns = [[turn.role, turn.content] for turn in conversation]
    canonical = json.dumps([str(band), turns, message], ensure_ascii=False)
    return "g" + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:12]


class LabelledText(_Model):
    """One row of ``data/messages``: a text and its labels, for training the guard only."""

    hazards: tuple[Hazard, ...] = Field(min_length=1, max_length=3)
    severity: SeverityLabel
    about: About
    stage: Literal["input", "output"]
    conversation: tuple[Turn, ...] = ()
    case: str = ""
    text: Text = Field(repr=False)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.severity is Severity.NONE) != (self.hazards == (Hazard.BENIGN,)):
            raise ValueError(
                f"severity: {self.severity.label!r} with hazard {'+'.join(self.hazards)}; "
                "none belongs to K00, and only to it"
            )
        known = [case for hazard in self.hazards for case in CASES.get(hazard, ())]
        if self.case and self.case not in known:
            raise ValueError(f"case: {self.case!r}; accepted: {', '.join(known) or 'none'}")
        return self


class ReviewRow(_Model):
    """A row that was imported: it waits for a person and is not golden until one rewrites it."""

    status: Literal["needs review"] = "needs review"
    age: Age | None = None
    band: AgeBand | None = None
    system_prompt: str = ""
    conversation: tuple[Turn, ...] = ()
    message: Text = Field(repr=False)
    reply: Text = Field(repr=False)
    claimed: Literal["safe", "unsafe", "unknown"] = "unknown"
    notes: tuple[Line, ...] = ()
    extra: dict[str, str] = Field(default_factory=dict, description="columns without a place here")
    provenance: Provenance


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the files in ``data/golden``, as it is checked in."""
    schema = GoldenQA.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema
