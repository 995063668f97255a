"""How the model's reply behaves: secrecy, personhood, urging to stay, leaked tokens, … (output)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

import re2

from kidrails_guard.checks.lexicon import CompiledRule, Matcher, load_lexicon, load_sets
from kidrails_guard.content import content_path
from kidrails_guard.plain import plain_words
from kidrails_guard.policy import Policy
from kidrails_guard.types import AgeBand, Conversation, Finding, Hazard, Severity, Stage

CONDUCT_RULES: Final = "data/lexicons/conduct.yaml"

HAZARD_OF: Final[dict[str, Hazard]] = {
    "asks_personal_data": Hazard.PERSONAL_DATA,
    "secrecy": Hazard.DEPENDENCY,
    "personhood": Hazard.DEPENDENCY,
    "stay": Hazard.DEPENDENCY,
    "flattery": Hazard.DEPENDENCY,
    "against_grown_ups": Hazard.DEPENDENCY,
    "template": Hazard.BENIGN,
    "other_speaker": Hazard.BENIGN,
}
"""Which hazard stands behind a kind of conduct, for counting."""

TEMPLATE: Final = re2.compile(
    r"<\|[A-Za-z_0-9 ]{1,40}\|?>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|</?think>"
    r"|<(?:bos|eos|pad|unk)>|\[(?:PAD|CLS|SEP|MASK)\]|(?i:^|\n)\s*#{2,4} ?(?:Instruction|Response"
    r"|Human|Assistant|System|User|Input|Output)\s*:|<\x{ff5c}[^>\n]{1,40}\x{ff5c}>"
    r"|\{\{ ?[A-Za-z_. ]{1,40} ?\}\}"
)
"""Tokens of chat templates, which a reply never holds."""

OTHER_SPEAKER: Final = re2.compile(
    r"(?i)(?:^|\n)[ \t*_]{0,4}(?:user|human|child|kid|student|assistant|ai|bot|chatbot|system"
    r"|kidrails|question|q)(?: ?\([^)\n]{0,20}\))?[*_]{0,2}:[ \t*_]"
)
"""A line that begins as another speaker's turn."""

_WHOLE_TEXT: Final = (
    (re.compile(r"[<\[{#]"), TEMPLATE, "template"),
    (re.compile(":"), OTHER_SPEAKER, "other_speaker"),
)
"""Patterns over the text as it came; each after a sign that all its matches hold and few texts."""
_QUOTED: Final = re.compile(
    r"\"[^\"\n]{0,400}\"|\u201c[^\u201d\n]{0,400}\u201d|\u201e[^\u201c\n]{0,400}\u201c"
)
_SENTENCE: Final = re.compile(r"[^.!?\n]+[.!?\n]*")


class ConductCheck:
    """Finds how a reply behaves.

    Args:
        matcher: the patterns of ``data/lexicons/conduct.yaml``.
    """

    name = "conduct"
    inline = True
    stages = frozenset({Stage.OUTPUT})

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        # A reply is looked at in windows, each with sentences of the one before.
        self._rules_in = lru_cache(maxsize=64)(self._look)

    async def __call__(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> Sequence[Finding]:
        """Return one finding for each kind of conduct."""
        return self.find(text)

    def find(self, text: str) -> list[Finding]:
        """Return one finding for each kind of conduct that a reply shows."""
        found = []
        for sign, pattern, case in _WHOLE_TEXT:
            match = pattern.search(text) if sign.search(text) else None
            if match is not None:
                found.append(
                    self._finding(case, Severity.MODERATE, match.span(), f"conduct.{case}")
                )
        # What stands in quotes keeps its length, so that spans still fit.
        spoken = _QUOTED.sub(lambda match: '"' + " " * (len(match[0]) - 2) + '"', text)
        seen: set[str] = set()
        for sentence in _SENTENCE.finditer(spoken):
            # Sentence by sentence: "He said so. Don't tell" is no quotation.
            for rule, place in self._rules_in(sentence[0]):
                if rule.name in seen:
                    continue
                seen.add(rule.name)
                if place is not None:
                    place = place[0] + sentence.start(), place[1] + sentence.start()
                note = f"conduct.{rule.name.partition('.')[2]}"
                found.append(self._finding(rule.case, rule.severity, place, note))
        return found

    def _look(self, sentence: str) -> tuple[tuple[CompiledRule, tuple[int, int] | None], ...]:
        """Return the rules that hold in a sentence, each with its place there."""
        plain = plain_words(sentence)
        return tuple((rule, plain.span(*span)) for rule, span in self._matcher.find(plain.text))

    def _finding(
        self, case: str, severity: Severity, span: tuple[int, int] | None, note: str
    ) -> Finding:
        return Finding(self.name, HAZARD_OF[case], severity, span=span, note=note, case=case)


@cache
def _matcher(path: Path | None = None) -> Matcher:
    lexicon = load_lexicon(path or content_path(CONDUCT_RULES))
    return Matcher([lexicon], load_sets(), Stage.OUTPUT)


def build(policy: Policy) -> ConductCheck:
    """Return the check for a policy."""
    return ConductCheck(_matcher())
