"""What a golden reply must be like: in the band's range, no tic, no second speaker, no template."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # textstat 0.7.4 asks setuptools for its version
    import textstat

from kidrails_guard.policy import Policy, load_policy
from kidrails_guard.types import Action, AgeBand

CANNED: Final = re.compile(
    r"(?:that'?s (?:a|such a|an) (?:great|good|really|wonderful|lovely|interesting|excellent)|"
    r"great question|good question|what an? (?:great|good|lovely|interesting)|"
    r"i'?m (?:so )?sorry (?:to hear|that|you)|i understand|wow\b|oh no|it'?s okay to feel|"
    r"as an ai|i hear you|hi there|hello|sure[,!]|of course[,!]|absolutely[,!]|certainly[,!])",
    re.IGNORECASE,
)
"""Openings that say nothing; "That's a great question!" starts 75 % of upstream's answers."""

SECOND_SPEAKER: Final = re.compile(
    r"(?im)^\s*(?:user|child|kid|assistant|ai|bot|human|student|teacher|mom|mum|dad|you|me)\s*:"
)
TEMPLATE: Final = re.compile(
    r"<\|[^|]*\|>|\[/?INST\]|<</?SYS>>|\{\{.*?\}\}|\{%.*?%\}|\{[a-z_ ]+\}|"
    r"\[(?:name|age|child|insert|your|topic)\b[^\]]*\]|"
    r"(?i:\b(?:as a language model|here is (?:the|a) (?:json|reply|message)|"
    r"golden reply|unsafe reply)\b)"
)
_REFUSAL: Final = re.compile(
    r"(?i)\b(?:i (?:won['’]t|will not|can['’]t|cannot)|i(?:['’]m| am) (?:un|not )able to|"
    r"not allowed to)\b"
)
_GROWN_UP: Final = re.compile(
    r"(?i)\b(?:mum|mom|mummy|mommy|mama|dad|daddy|papa|parents?|grown-?ups?|adults?|teacher|nurse|"
    r"doctor|gran\w*|nana?|aunt\w*|uncle|carer|coach|counsell?or|librarian|family|social worker|"
    r"neighbour|someone (?:at home|you trust))\b"
)


@lru_cache(maxsize=65536)
def grade(text: str) -> float:
    """Return a text's Flesch-Kincaid grade.

    Source: Kincaid et al., "Derivation of new readability formulas" (1975), as textstat counts it.
    """
    return float(textstat.flesch_kincaid_grade(text))


def form_problems(text: str) -> Iterator[str]:
    """Yield what no text of a row may have: a template's leavings, another voice."""
    if TEMPLATE.search(text):
        yield "template leakage"
    if SECOND_SPEAKER.search(text):
        yield "second speaker"


def is_bare_refusal(text: str) -> bool:
    """Return whether a reply only refuses: it says no and offers neither a reason nor a way on."""
    return bool(_REFUSAL.search(text)) and len(text.split()) < 15


def reply_problems(text: str, band: AgeBand, *, policy: Policy | None = None) -> Iterator[str]:
    """Yield what is wrong with a golden reply for a band: a reason, then the figure."""
    rule = (policy or load_policy()).bands[band]
    words = len(text.split())
    if words > rule.max_words:
        yield f"too long: {words} words, band {band} has {rule.max_words}"
    if (found := grade(text)) > rule.max_grade:
        yield f"too hard: grade {found:.1f}, band {band} has {rule.max_grade:g}"
    if CANNED.match(text):
        yield f"canned opening: {' '.join(text.split()[:4])}"
    if is_bare_refusal(text):
        yield "bare refusal"
    if (marks := text.count("?")) > 1:
        yield f"too many questions: {marks}, accepted: 1"
    yield from form_problems(text)


def names_grown_up(text: str) -> bool:
    """Return whether a reply points to a grown-up."""
    return _GROWN_UP.search(text) is not None


GROWN_UP_DUE: Final = frozenset({Action.CRISIS, Action.REDIRECT})
"""Actions whose reply names a grown-up whom the child can go to."""
