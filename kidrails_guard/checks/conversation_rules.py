"""Rules for what turns add up to (``data/lexicons/conversation.yaml``), read and compiled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import re2
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kidrails_guard.checks.lexicon import compile_any, first_outside
from kidrails_guard.checks.lexicon_rules import expand, load_rules_file
from kidrails_guard.types import CASES, Hazard

CONVERSATION: Final = "data/lexicons/conversation.yaml"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(_Model):
    """A hard question, and the answer of the child that means danger.

    Attributes:
        asked: patterns over the turn before, which is the grown-up's or the program's.
        asked_unless: a question that one of these overlaps does not count: "safe around dogs".
        said: patterns over the child's newest turn.
        unless: with one of these in it the answer does not count.
    """

    id: str
    why: str
    hazard: Hazard
    severity: str
    asked: tuple[str, ...]
    said: tuple[str, ...]
    asked_unless: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()


class Signal(_Model):
    """Words that take part in a story.

    Attributes:
        any: patterns over one turn of the child.
        unless: a match that one of these overlaps does not count.
    """

    any: tuple[str, ...]
    unless: tuple[str, ...] = ()


class Story(_Model):
    """What signals of several turns mean together.

    Attributes:
        all: groups; of each, one signal must have been given.
        of: of these, ``at_least`` so many, one of ``with`` among them.
    """

    id: str
    why: str
    hazard: Hazard
    severity: str
    case: str = ""
    all: tuple[tuple[str, ...], ...] = ()
    of: tuple[str, ...] = ()
    at_least: int = Field(default=0, ge=0)
    with_: tuple[str, ...] = Field(default=(), alias="with")

    def told(self, signals: frozenset[str]) -> bool:
        """Return whether these signals make the story."""
        if self.all and not all(signals.intersection(group) for group in self.all):
            return False
        if self.of and len(signals.intersection(self.of)) < self.at_least:
            return False
        return not self.with_ or bool(signals.intersection(self.with_))

    def names(self) -> frozenset[str]:
        """Return every signal that takes part."""
        return frozenset([*self.of, *(name for group in self.all for name in group)])


class Reason(_Model):
    """Why a finding that has no story and no answer is one."""

    why: str


class ConversationRules(_Model):
    """The whole file."""

    continues: tuple[str, ...]
    turns_away: tuple[str, ...]
    let_rest: tuple[str, ...]
    in_role: tuple[str, ...]
    answers: tuple[Answer, ...]
    signals: dict[str, Signal]
    stories: tuple[Story, ...]
    rest: dict[str, Reason]

    @model_validator(mode="after")
    def _complete(self) -> ConversationRules:
        for story in self.stories:
            odd = sorted(story.names() - set(self.signals))
            if odd:
                raise ValueError(f"stories.{story.id}: no such signal: {', '.join(odd)}")
            if story.case and story.case not in CASES.get(story.hazard, ()):
                raise ValueError(f"stories.{story.id}.case: {story.case!r} is not a case")
        return self


def load_rules(path: Path) -> ConversationRules:
    """Load the file.

    Raises:
        PolicyError: it is not such a file; names the file and key.
    """
    return load_rules_file(path, ConversationRules)


class Signals:
    """Finds signals in plain words.

    Args:
        table: name to signal.
        sets: named sets of words for the patterns.
    """

    def __init__(self, table: Mapping[str, Signal], sets: Mapping[str, str]) -> None:
        self._filter = re2.Filter()
        self._names: list[str] = []
        self._unless: dict[str, Any] = {}
        options = re2.Options()
        options.never_capture = True
        options.log_errors = False
        for name, signal in table.items():
            for pattern in signal.any:
                whole = rf"\b(?:{expand(pattern, sets, CONVERSATION)})(?:\b|$)"
                self._filter.Add(whole, options)
                self._names.append(name)
            self._unless[name] = compile_any(signal.unless, sets, CONVERSATION)
        self._filter.Compile()

    def find(self, text: str) -> frozenset[str]:
        """Return the signals whose words stand there outside the signal's exceptions."""
        found: set[str] = set()
        for index in self._filter.Match(text) or ():
            name = self._names[index]
            spans = (m.span() for m in self._filter.re(index).finditer(text))
            if name not in found and first_outside(self._unless[name], text, spans):
                found.add(name)
        return frozenset(found)
