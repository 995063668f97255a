"""The files of rules: words and patterns per hazard, and named sets (``data/lexicons/*.yaml``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kidrails_guard.content import content_path
from kidrails_guard.errors import PolicyError
from kidrails_guard.policy import describe_error, read_yaml
from kidrails_guard.types import CASES, CONDUCT, About, Hazard, Severity, Stage

_M = TypeVar("_M", bound=BaseModel)

LEXICONS: Final = "data/lexicons"
SETS: Final = "sets.yaml"

_MACRO: Final = re.compile(r"(?<!\\x)\{([a-z_][a-z_0-9]*)\}")
_AROUND_BAR: Final = re.compile(r"\s*\|\s*")


class Rule(BaseModel):
    """One thing to find.

    Attributes:
        id: stands in the finding's note as ``K01.id``, and in explanations.
        why: what the rule finds, in words for a grown-up.
        any: patterns (RE2) over plain words; ``{name}`` stands for a set of words.
        words: exact words or phrases, for long lists.
        phrases: as a person writes them, in any script: read as the guard reads a message. Of
            scripts without spaces they count inside longer runs too.
        rot13: a file beside this one with words in ROT13, so that nobody reads slurs by accident.
        unless: a match that one of these overlaps does not count: "kill the ender dragon".
        unless_anywhere: no match counts where one of these stands anywhere: "in minecraft".
        unless_before: of a reply, whose sentences are looked at one by one: no match counts after a
            sentence that says one of these: "I am a dragon and you are a knight."
        unless_after: of a reply: no match counts before a sentence that says one of these: "Are
            your parents home? Get them." While no sentence follows, this is not known, and the
            finding is about the whole.
        keep: the file's common exceptions do not apply.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    why: str = Field(min_length=1)
    severity: str = "moderate"
    about: About = About.SELF
    case: str = ""
    stages: tuple[Stage, ...] = (Stage.INPUT,)
    any: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    rot13: str = ""
    unless: tuple[str, ...] = ()
    unless_anywhere: tuple[str, ...] = ()
    unless_before: tuple[str, ...] = ()
    unless_after: tuple[str, ...] = ()
    keep: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Rule:
        if not (self.any or self.words or self.phrases or self.rot13):
            raise ValueError(f"{self.id}: has neither `any` nor `words` nor `phrases` nor `rot13`")
        Severity.parse(self.severity)
        return self


class Lexicon(BaseModel):
    """All rules of one hazard: one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hazard: Hazard
    rules: tuple[Rule, ...]
    unless: tuple[str, ...] = ()
    unless_anywhere: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Lexicon:
        names = [rule.id for rule in self.rules]
        for rule in self.rules:
            if names.count(rule.id) > 1:
                raise ValueError(f"rules.{rule.id}: stands there twice")
            cases = CONDUCT if self.hazard is Hazard.BENIGN else CASES.get(self.hazard, ())
            if rule.case and rule.case not in cases:
                accepted = ", ".join(cases) or "none for this hazard"
                raise ValueError(f"rules.{rule.id}.case: {rule.case!r}; accepted: {accepted}")
        return self


def load_rules_file(path: Path, model: type[_M]) -> _M:
    """Load a YAML file of rules of one kind.

    Raises:
        PolicyError: it is not such a file; names the file and key.
    """
    try:
        return model.model_validate(read_yaml(path))
    except ValidationError as error:
        lines = [describe_error(d, model) for d in error.errors(include_url=False)]
        raise PolicyError("\n".join(f"{path}: {line}" for line in lines)) from None


def load_lexicon(path: Path) -> Lexicon:
    """Load one file of rules.

    Raises:
        PolicyError: the file is not a lexicon; names the file and key.
    """
    return load_rules_file(path, Lexicon)


def load_lexicons(folder: Path | None = None) -> tuple[Lexicon, ...]:
    """Load every ``K*.yaml`` of a folder.

    Raises:
        PolicyError: a file is not a lexicon; names the file and key.
    """
    found = [
        load_lexicon(path) for path in sorted((folder or content_path(LEXICONS)).glob("K*.yaml"))
    ]
    if not found:
        raise PolicyError(f"{folder}: no lexicons (K*.yaml) there; without rules nothing is found")
    return tuple(found)


def load_sets(folder: Path | None = None) -> dict[str, str]:
    """Return the named sets of words as regular expressions, nested names resolved.

    Raises:
        PolicyError: a set names another that is not defined before it.
    """
    path = (folder or content_path(LEXICONS)) / SETS
    return compile_sets(read_yaml(path), str(path))


def compile_sets(table: Mapping[str, str], source: str) -> dict[str, str]:
    """Return named sets as regular expressions, each with the earlier ones filled in.

    Args:
        table: name to pattern; spaces around ``|`` do not count.
        source: the file, for errors.

    Raises:
        PolicyError: a set names another that is not defined before it.
    """
    sets: dict[str, str] = {}
    for name, pattern in table.items():
        sets[name] = f"(?:{expand(_AROUND_BAR.sub('|', str(pattern)), sets, source)})"
    return sets


def expand(pattern: str, sets: Mapping[str, str], source: str) -> str:
    """Return a pattern with every ``{name}`` replaced by its set.

    Raises:
        PolicyError: no such set.
    """

    def replace(match: re.Match[str]) -> str:
        if match[1] not in sets:
            raise PolicyError(f"{source}: {{{match[1]}}} is no set; accepted: {', '.join(sets)}")
        return sets[match[1]]

    return _MACRO.sub(replace, pattern)
