"""What a child gives away about itself: name with place, school, address, phone, … as spans.

Matched on the text as it was written, apart from invisible characters and full-width forms:
digits and capitals mean something here. The patterns are data
(``data/lexicons/personal_data.yaml``); all of it is linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import re2
from pydantic import BaseModel, ConfigDict, Field

from kidrails_guard.checks.lexicon_rules import compile_sets, expand, load_rules_file
from kidrails_guard.checks.personal_fiction import Fiction, Tale
from kidrails_guard.checks.personal_numbers import FEWEST_DIGITS, offered
from kidrails_guard.checks.personal_readers import READERS, word_set
from kidrails_guard.content import content_path
from kidrails_guard.errors import PolicyError
from kidrails_guard.policy import Policy
from kidrails_guard.types import About, AgeBand, Conversation, Finding, Hazard, Severity, Stage

PERSONAL_DATA: Final = "data/lexicons/personal_data.yaml"

KINDS: Final = (
    *("name", "phone", "email", "address", "location", "school", "class", "handle"),
    *("password", "url", "id_number", "age", "time_alone", "other"),
)
"""Kinds of personal data: each has a mask in ``serve/policies/answers/<locale>.yaml``."""


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of personal data: where, what kind, and whether it says enough on its own."""

    start: int
    end: int
    kind: str
    alone: bool = True


class _Pattern(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    any: tuple[str, ...]
    read: str = "whole"
    alone: bool = True
    output: bool = False
    cased: bool = False


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sets: dict[str, str] = Field(default_factory=dict)
    patterns: tuple[_Pattern, ...]
    fiction: Fiction


_DIGIT: Final = re.compile("[0-9]")


class Finder:
    """Finds personal data in the texts of one stage.

    Args:
        file: the patterns.
        stage: whose words are looked at.
    """

    def __init__(self, file: _File, stage: Stage) -> None:
        sets = compile_sets(file.sets, PERSONAL_DATA)
        self._filter = re2.Filter()
        self._patterns: list[_Pattern] = []
        self._fiction, self._stage = file.fiction, stage
        for pattern in file.patterns:
            if pattern.kind not in KINDS:
                raise PolicyError(
                    f"{PERSONAL_DATA}: kind {pattern.kind!r} is not one of {', '.join(KINDS)}"
                )
            if pattern.read not in READERS:
                raise PolicyError(
                    f"{PERSONAL_DATA}: read {pattern.read!r} is not one of {', '.join(READERS)}"
                )
            if stage is Stage.OUTPUT and not pattern.output:
                continue
            options = re2.Options()
            options.log_errors = False
            options.case_sensitive = pattern.cased
            for one in pattern.any:
                try:
                    self._filter.Add(expand(one, sets, PERSONAL_DATA), options)
                except re2.error as error:
                    raise PolicyError(f"{PERSONAL_DATA}: {one!r}: {error}") from None
                self._patterns.append(pattern)
        self._filter.Compile()

    def find(self, text: str) -> list[Span]:
        """Return personal data in a text, by place."""
        shown, offsets = visible(text)
        found: list[Span] = []
        for index in self._filter.Match(shown) or ():
            pattern = self._patterns[index]
            fewest = FEWEST_DIGITS.get(pattern.read)
            if fewest and len(_DIGIT.findall(shown)) < fewest:
                continue  # a year, an age: nearly all replies with a number
            read = READERS[pattern.read]
            for match in self._filter.re(index).finditer(shown):
                for start, end in read(shown, match, pattern.kind):
                    alone = pattern.alone and start >= 0
                    if pattern.read == "name":
                        alone = len(shown[start:end].split()) > 1
                    start = -start - 1 if start < 0 else start
                    if end > start:
                        found.append(Span(start, end, pattern.kind, alone))
        if found:
            tale = Tale(self._fiction, shown)
            found = [s for s in found if not tale.excuses(s.start, s.end, s.kind)]
        if self._stage is Stage.OUTPUT:
            found = [s for s in found if s.kind != "phone" or not offered(shown, s.start, s.end)]
        if not any(span.alone for span in found) and len({s.kind for s in found}) < 2:
            return []  # a first name, or a town, says little by itself
        return [
            Span(offsets[s.start], offsets[s.end], s.kind, s.alone) for s in _outermost(set(found))
        ]


def _outermost(found: Iterable[Span]) -> Iterator[Span]:
    """Yield spans by place, without those that lie in a longer one of their kind."""
    widest: dict[str, Span] = {}
    for span in sorted(found, key=lambda s: (s.start, -s.end, s.kind)):
        outer = widest.get(span.kind)
        if outer is None or outer.end < span.end:
            widest[span.kind] = outer = span
        if (outer.start, outer.end) == (span.start, span.end):
            yield span


def visible(text: str) -> tuple[str, Sequence[int]]:
    """Return the text without invisible characters and with plain digits, and the way back."""
    if text.isascii() and "\x00" not in text:
        return text, range(len(text) + 1)
    pieces: list[str] = []
    offsets: list[int] = []
    for place, char in enumerate(text):
        if char < "\x7f":
            piece = "" if char == "\x00" else char
        elif unicodedata.category(char) in {"Cf", "Cs"}:
            piece = ""
        elif unicodedata.category(char)[0] == "Z":
            piece = " "
        elif char.isdecimal():
            piece = str(unicodedata.decimal(char))
        else:
            piece = unicodedata.normalize("NFKC", char)
        pieces.append(piece)
        offsets.extend([place] * len(piece))
    offsets.append(len(text))
    return "".join(pieces), offsets


@cache
def _finders() -> dict[Stage, Finder]:
    file = load_rules_file(content_path(PERSONAL_DATA), _File)
    return {stage: Finder(file, stage) for stage in Stage}


def find_spans(text: str, stage: Stage = Stage.INPUT) -> list[Span]:
    """Return the personal data in a text, by place, as the shipped patterns see it."""
    return _finders()[stage].find(text)


_SEVERE: Final = word_set("address phone location password time_alone id_number")


class PersonalDataCheck:
    """Finds personal data, to be masked before the model sees it and in its reply.

    Args:
        kinds: which kinds count.
    """

    name = "personal_data"
    inline = True
    stages = frozenset(Stage)

    def __init__(self, kinds: frozenset[str] = frozenset(KINDS)) -> None:
        self._kinds = kinds
        self._finders = _finders()

    async def __call__(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> Sequence[Finding]:
        """Return a finding with a span for each piece of personal data."""
        return [
            Finding(
                check=self.name,
                hazard=Hazard.PERSONAL_DATA,
                severity=Severity.MODERATE if span.kind in _SEVERE else Severity.MILD,
                span=(span.start, span.end),
                note=span.kind,
                about=About.SELF,
                redact=True,
                case="gives",
            )
            for span in self._finders[stage].find(text)
            if span.kind in self._kinds
        ]


def build(policy: Policy, *, skip: Sequence[str] = ()) -> PersonalDataCheck:
    """Return the check for a policy.

    Args:
        policy: the policy.
        skip: kinds that are not looked for.

    Raises:
        PolicyError: no such kind.
    """
    odd = sorted(set(skip) - set(KINDS))
    if odd:
        raise PolicyError(
            f"checks.personal_data.options.skip: {', '.join(odd)} is no kind; "
            f"accepted: {', '.join(KINDS)}"
        )
    return PersonalDataCheck(frozenset(KINDS) - set(skip))
