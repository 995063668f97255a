"""How the model's reply behaves: secrecy, personhood, urging to stay, leaked tokens, … (output)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import re2

from kidrails_guard.checks.lexicon import CompiledRule, Matcher
from kidrails_guard.checks.lexicon_rules import load_lexicon, load_sets
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
    r"<\|[A-Za-z_0-9 ]{1,40}\|?>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>"
    r"|</?(?:think(?:ing)?|tool_(?:call|response)s?|function_calls?|(?i:assistant))>"
    r"|<(?:bos|eos|pad|unk|extra_id_\d{1,3})>|\[/?SYS\]|\[(?:PAD|CLS|SEP|MASK)\]"
    r"|(?i:^|\n)\s*#{2,4} ?(?:Instruction|Response|Human|Assistant|System|User|Input|Output)\s*:"
    r"|(?i:^|\n)\s*#{2,4} ?(?i:Human|Assistant|User)[ \t]*\n|<\x{ff5c}[^>\n]{1,40}\x{ff5c}>"
)
"""Tokens of chat templates, which a reply never holds."""

BRACES: Final = re2.compile(r"\{\{ ?[A-Za-z_. ]{1,40} ?\}\}")
"""A place in a prompt that was not filled in."""
_EXPLAINS_BRACES: Final = re2.compile(
    r"(?i)\b(?:jinja|handlebars|mustache|django|liquid|vue|angular|templates?|curly|braces|"
    r"placeholders?|variables?)\b"
)

OTHER_SPEAKER: Final = re2.compile(
    r"(?i)(?:^|\n)[ \t*_]{0,4}(?:user|human|assistant|ai|bot|chatbot|system|kidrails"
    r"|nutzer(?:in)?|benutzer(?:in)?|assistent(?:in)?|usuari[oa]|asistente)"
    r"(?: ?\([^)\n]{0,20}\))?[*_]{0,2}(?::[ \t*_\n]|\x{ff1a})"
)
"""A line that begins as another speaker's turn."""
CHILD_SPEAKS: Final = re2.compile(
    r"(?i)(?:^|\n)[ \t*_]{0,4}(?:child|kid|student)(?: ?\([^)\n]{0,20}\))?[*_]{0,2}:[ \t*_]"
)
"""The same, by a name that a scene in a play may have too."""
_IN_A_SCENE: Final = re2.compile(
    r"(?i:\b(?:scenes?|script|skit|sketch|dialogue|drama|act (?:one|two|1|2)|role ?play)\b)"
    r"|(?:^|\n)[*_]{0,2}[A-Z][a-z]{1,15}[*_]{0,2}: "
)

_WHOLE_TEXT: Final = (
    (re.compile(r"[<\[#]"), TEMPLATE, "template", None),
    (re.compile(r"\{"), BRACES, "template", _EXPLAINS_BRACES),
    (re.compile("[:\uff1a]"), OTHER_SPEAKER, "other_speaker", None),
    (re.compile(":"), CHILD_SPEAKS, "other_speaker", _IN_A_SCENE),
)
"""Patterns over the text as it came; each after a sign that all its matches hold and few texts, and
with what excuses it where that stands before."""
_OPENS: Final = r"(?<![\w.,!?\u2026])\"(?=\S)"
"""A straight quotation mark that can only open; any other may close."""
_QUOTED: Final = re.compile(
    rf"{_OPENS}[^\"]{{0,400}}\"|\u201c[^\u201d]{{0,400}}\u201d|\u201e[^\u201c]{{0,400}}\u201c"
    rf"|\u00ab[^\u00bb]{{0,400}}\u00bb"
)
_UNCLOSED: Final = re.compile(
    rf"(?:{_OPENS}[^\"]*|\u201c[^\u201d]*|\u201e[^\u201c]*|\u00ab[^\u00bb]*)\Z"
)
_UNOPENED: Final = re.compile(
    r"[^\"\u201c\u201d\u00ab\u00bb]*(?:(?<=[\w.,!?\u2026])\"|[\u201d\u00bb])"
)
_SPOKEN_BY_OTHERS: Final = frozenset({"personhood", "stay"})
"""What a letter, a story or a poem says in somebody else's voice."""
_SENTENCE: Final = re.compile(r"(?:[^.!?\n]|\n(?=[ \t]*[a-z\u00df-\u00f6\u00f8-\u00ff]))+[.!?\n]*")
"""A sentence goes on in the next line where that begins with a small letter."""


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
        for sign, pattern, case, excuse in _WHOLE_TEXT:
            for match in pattern.finditer(text) if sign.search(text) else ():
                if excuse is None or not excuse.search(text[: match.start()]):
                    found.append(
                        self._finding(case, Severity.MODERATE, match.span(), f"conduct.{case}")
                    )
                    break
        # What stands in quotes keeps its length, so that spans still fit.
        spoken = _QUOTED.sub(lambda match: " " * len(match[0]), text)
        unopened, unclosed = _UNOPENED.match(spoken), _UNCLOSED.search(spoken)
        until = unopened.end() if unopened else 0
        since = unclosed.start() if unclosed else len(text)
        sentences = [match for match in _SENTENCE.finditer(spoken) if not match[0].isspace()]
        first: dict[str, Finding] = {}
        excused_after: dict[str, int | None] = {}
        # Sentence by sentence: "He said so. Don't tell" is no quotation.
        for index, sentence in enumerate(sentences):
            for rule, place in self._rules_in(sentence[0]):
                known = first.get(rule.name)
                if known is not None and not known.whole:
                    continue
                if rule.name not in excused_after:  # once: many sentences would cost their square
                    excused_after[rule.name] = _first_with(rule.before, sentences)
                excuse_at, following = excused_after[rule.name], sentences[index + 1 : index + 2]
                if excuse_at is not None and excuse_at < index:
                    continue
                if _first_with(rule.after, following) is not None:
                    continue
                start, end = place or (0, len(sentence[0]))
                start, end = start + sentence.start(), end + sentence.start()
                # A part of a reply may end inside a quotation, and before what excuses a question.
                quoted = rule.case in _SPOKEN_BY_OTHERS and (end <= until or start >= since)
                asked = rule.after is not None and index + 1 == len(sentences)
                if known is None or not (quoted or asked):
                    note = f"conduct.{rule.name.partition('.')[2]}"
                    first[rule.name] = self._finding(
                        rule.case, rule.severity, (start, end), note, whole=quoted or asked
                    )
        return found + list(first.values())

    def _look(self, sentence: str) -> tuple[tuple[CompiledRule, tuple[int, int] | None], ...]:
        """Return the rules that hold in a sentence, each with its place there."""
        plain = plain_words(sentence)
        return tuple((rule, plain.span(*span)) for rule, span in self._matcher.find(plain.text))

    def _finding(
        self,
        case: str,
        severity: Severity,
        span: tuple[int, int],
        note: str,
        *,
        whole: bool = False,
    ) -> Finding:
        return Finding(
            self.name, HAZARD_OF[case], severity, span=span, note=note, case=case, whole=whole
        )


def _first_with(pattern: Any, sentences: Sequence[re.Match[str]]) -> int | None:
    """Return the place of the first sentence that a pattern is in, if there is one."""
    if pattern is None:
        return None
    found = (at for at, s in enumerate(sentences) if pattern.search(plain_words(s[0]).text))
    return next(found, None)


@cache
def _matcher(path: Path | None = None) -> Matcher:
    lexicon = load_lexicon(path or content_path(CONDUCT_RULES))
    return Matcher([lexicon], load_sets(), Stage.OUTPUT)


def build(policy: Policy) -> ConductCheck:
    """Return the check for a policy."""
    return ConductCheck(_matcher())
