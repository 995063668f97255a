"""Rules: words and patterns per hazard, with exceptions in context (``data/lexicons/*.yaml``).

Rules are for what must never be missed and for explaining; they are not the classifier. All
of it is linear in the text: words run in one Aho-Corasick automaton, patterns in one RE2 filter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import ahocorasick
import re2
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kidrails_guard.content import content_path
from kidrails_guard.errors import PolicyError
from kidrails_guard.plain import plain_words
from kidrails_guard.policy import Policy, describe_error, read_yaml
from kidrails_guard.types import (
    CASES,
    CONDUCT,
    About,
    AgeBand,
    Conversation,
    Finding,
    Hazard,
    Severity,
    Stage,
)
from kidrails_guard.words import hidden_words

LEXICONS: Final = "data/lexicons"
SETS: Final = "sets.yaml"

_MACRO: Final = re.compile(r"(?<!\\x)\{([a-z_][a-z_0-9]*)\}")
_AROUND_BAR: Final = re.compile(r"\s*\|\s*")
_UNSPACED: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
"""Japanese and Chinese put no spaces between words."""
_BYTES: Final = 64 << 20
"""Memory that RE2 may use for the automaton of all patterns."""


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


def load_lexicon(path: Path) -> Lexicon:
    """Load one file of rules.

    Raises:
        PolicyError: the file is not a lexicon; names the file and key.
    """
    try:
        return Lexicon.model_validate(read_yaml(path))
    except ValidationError as error:
        lines = [describe_error(d, Lexicon) for d in error.errors(include_url=False)]
        raise PolicyError("\n".join(f"{path}: {line}" for line in lines)) from None


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


def first_outside(
    unless: Any, text: str, spans: Iterable[tuple[int, int]]
) -> tuple[int, int] | None:
    """Return the first span that no exception covers, or None.

    Args:
        unless: the exceptions as one pattern, or None.
        text: plain words.
        spans: places of matches in it.
    """
    benign = [m.span() for m in unless.finditer(text)] if unless is not None else []
    for start, end in spans:
        if not any(a < end and start < b for a, b in benign):
            return start, end
    return None


class CompiledRule:
    """One rule, ready to be looked for."""

    __slots__ = (
        "about",
        "after",
        "anywhere",
        "before",
        "case",
        "hazard",
        "name",
        "severity",
        "unless",
    )

    def __init__(self, lexicon: Lexicon, rule: Rule, sets: Mapping[str, str]) -> None:
        self.name = f"{lexicon.hazard}.{rule.id}"
        self.hazard, self.about, self.case = lexicon.hazard, rule.about, rule.case
        self.severity = Severity.parse(rule.severity)
        common = (() if rule.keep else lexicon.unless, () if rule.keep else lexicon.unless_anywhere)
        self.unless = compile_any((*rule.unless, *common[0]), sets, self.name)
        self.anywhere = compile_any((*rule.unless_anywhere, *common[1]), sets, self.name)
        self.before = compile_any(rule.unless_before, sets, self.name)
        self.after = compile_any(rule.unless_after, sets, self.name)

    def holds(self, text: str, spans: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
        """Return the first span that no exception covers."""
        if self.anywhere is not None and self.anywhere.search(text):
            return None
        return first_outside(self.unless, text, spans)


def _options() -> Any:
    options = re2.Options()
    options.max_mem = _BYTES
    options.log_errors = False
    options.never_capture = True
    return options


def _no_pattern(source: str, pattern: str, error: Exception) -> PolicyError:
    return PolicyError(f"{source}: {pattern!r} is not a pattern that RE2 knows: {error}")


def _compile(pattern: str, source: str) -> Any:
    try:
        return re2.compile(pattern, _options())
    except re2.error as error:
        raise _no_pattern(source, pattern, error) from None


def _phrase(phrase: str) -> str:
    """Return a phrase in plain words; a blank at an end means that a word ends there."""
    plain = plain_words(phrase).text
    return plain.strip() if _UNSPACED.search(phrase) else plain


def _bounded(pattern: str) -> str:
    return rf"(^|\b)({pattern})(\b|$)"


def compile_any(patterns: Sequence[str], sets: Mapping[str, str], source: str) -> Any:
    """Return one pattern that matches where any of these does, or None for none at all.

    Raises:
        PolicyError: RE2 does not know one of them.
    """
    if not patterns:
        return None
    return _compile("|".join(_bounded(expand(p, sets, source)) for p in patterns), source)


class Matcher:
    """Finds rules of one stage in a text of plain words.

    Args:
        lexicons: the rules.
        sets: named sets of words for the patterns.
        stage: whose words are looked at.
    """

    def __init__(self, lexicons: Iterable[Lexicon], sets: Mapping[str, str], stage: Stage) -> None:
        # A plain RE2 set of this many patterns keeps growing its automaton; the filter looks for
        # the literal strings that each pattern needs, and runs the few patterns that are left.
        self._filter = re2.Filter()
        self._by_pattern: list[CompiledRule] = []
        self._words = ahocorasick.Automaton()
        listed: dict[str, list[CompiledRule]] = {}
        for lexicon in lexicons:
            for rule in lexicon.rules:
                if stage not in rule.stages:
                    continue
                compiled = CompiledRule(lexicon, rule, sets)
                for pattern in rule.any:
                    whole = _bounded(expand(pattern, sets, compiled.name))
                    self._add(whole, compiled)
                hidden = hidden_words(rule.rot13) if rule.rot13 else ()
                whole_words = [f" {word} " for word in (*rule.words, *hidden)]
                for word in (*whole_words, *map(_phrase, rule.phrases)):
                    listed.setdefault(word, []).append(compiled)
        for word, rules in listed.items():
            inner = word.strip()
            self._words.add_word(word, (word.find(inner), len(inner), len(word), tuple(rules)))
        self._has_words = bool(listed)
        if self._has_words:
            self._words.make_automaton()
        if self._by_pattern:
            self._filter.Compile()

    def _add(self, pattern: str, rule: CompiledRule) -> None:
        try:
            self._filter.Add(pattern, _options())
        except re2.error as error:
            raise _no_pattern(rule.name, pattern, error) from None
        self._by_pattern.append(rule)

    def find(self, text: str) -> Iterator[tuple[CompiledRule, tuple[int, int]]]:
        """Yield each rule that holds, once, with the span of its first match."""
        spans: dict[int, tuple[CompiledRule, list[tuple[int, int]]]] = {}
        if self._by_pattern:
            for index in self._filter.Match(text) or ():
                rule = self._by_pattern[index]
                spans.setdefault(id(rule), (rule, []))[1].extend(
                    m.span() for m in self._filter.re(index).finditer(text)
                )
        if self._has_words:
            for end, (lead, inner, length, rules) in self._words.iter(text):
                start = end + 1 - length + lead
                for rule in rules:
                    spans.setdefault(id(rule), (rule, []))[1].append((start, start + inner))
        for rule, found in spans.values():
            span = rule.holds(text, sorted(found))
            if span is not None:
                yield rule, span


@cache
def shipped_matchers() -> dict[Stage, Matcher]:
    """Return a matcher of the shipped rules for each stage; compiled once a process."""
    lexicons, sets = load_lexicons(), load_sets()
    return {stage: Matcher(lexicons, sets, stage) for stage in Stage}


@cache
def rule_reasons() -> dict[str, str]:
    """Return each rule's name (``K01.wish_to_die``) with its reason, for explanations."""
    lexicons = [(str(lexicon.hazard), lexicon) for lexicon in load_lexicons()]
    lexicons.append(("conduct", load_lexicon(content_path(f"{LEXICONS}/conduct.yaml"))))
    return {f"{name}.{rule.id}": rule.why for name, lexicon in lexicons for rule in lexicon.rules}


class LexiconCheck:
    """Finds what the rules name.

    Args:
        matchers: one for each stage.
        skip: hazards that are left out.
    """

    name = "lexicon"
    inline = True
    stages = frozenset(Stage)

    def __init__(
        self, matchers: Mapping[Stage, Matcher], *, skip: frozenset[Hazard] = frozenset()
    ) -> None:
        self._matchers, self._skip = matchers, skip

    async def __call__(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> Sequence[Finding]:
        """Return one finding for each rule that holds."""
        return self.find(text, stage)

    def find(self, text: str, stage: Stage) -> list[Finding]:
        """Return one finding for each rule that holds in a text."""
        plain = plain_words(text)
        return [
            Finding(
                check=self.name,
                hazard=rule.hazard,
                severity=rule.severity,
                span=plain.span(*span),
                note=rule.name,
                about=rule.about,
                case=rule.case,
            )
            for rule, span in self._matchers[stage].find(plain.text)
            if rule.hazard not in self._skip
        ]


def build(policy: Policy, *, folder: str | None = None, skip: Sequence[str] = ()) -> LexiconCheck:
    """Return the check for a policy.

    Args:
        policy: the policy (rules are the same for all).
        folder: another folder with ``K*.yaml`` and ``sets.yaml``.
        skip: hazards whose rules are left out.

    Raises:
        PolicyError: a lexicon is wrong, or a hazard is unknown.
    """
    unknown = sorted(set(skip) - {str(h) for h in Hazard})
    if unknown:
        raise PolicyError(f"checks.lexicon.options.skip: {', '.join(unknown)} is no hazard")
    if folder is None:
        matchers = shipped_matchers()
    else:
        lexicons, sets = load_lexicons(Path(folder)), load_sets(Path(folder))
        matchers = {stage: Matcher(lexicons, sets, stage) for stage in Stage}
    return LexiconCheck(matchers, skip=frozenset(map(Hazard, skip)))
