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

from kidrails_guard.checks.lexicon_rules import (
    LEXICONS,
    Lexicon,
    Rule,
    expand,
    load_lexicon,
    load_lexicons,
    load_sets,
)
from kidrails_guard.content import content_path
from kidrails_guard.errors import PolicyError
from kidrails_guard.plain import plain_words
from kidrails_guard.policy import Policy
from kidrails_guard.types import AgeBand, Conversation, Finding, Hazard, Severity, Stage
from kidrails_guard.words import hidden_words

_UNSPACED: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
"""Japanese and Chinese put no spaces between words."""
_BYTES: Final = 64 << 20
"""Memory that RE2 may use for the automaton of all patterns."""


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
