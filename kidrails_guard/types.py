"""The values that every part of KidRails passes around: frozen, typed, without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, Literal, Protocol


class AgeBand(StrEnum):
    """The three age bands of ``docs/safety.md``; the grown-up who runs the service sets one."""

    EARLY = "5-6"
    MIDDLE = "7-9"
    UPPER = "10-12"

    @classmethod
    def for_age(cls, age: int) -> AgeBand:
        """Return the band that holds an age.

        Args:
            age: years, 5 to 12.

        Raises:
            ValueError: the age is outside 5 to 12.
        """
        for band, (low, high) in BAND_AGES.items():
            if low <= age <= high:
                return band
        raise ValueError(f"age {age!r} is outside 5 to 12; KidRails serves ages 5 to 12")

    @property
    def ages(self) -> tuple[int, int]:
        """Youngest and oldest age, in years, both included."""
        return BAND_AGES[self]


BAND_AGES: Final[dict[AgeBand, tuple[int, int]]] = {
    AgeBand.EARLY: (5, 6),
    AgeBand.MIDDLE: (7, 9),
    AgeBand.UPPER: (10, 12),
}


class Hazard(StrEnum):
    """What a message may touch. The meaning of each code is in ``docs/safety.md``."""

    BENIGN = "K00"
    SELF_HARM = "K01"
    SELF_HARM_QUESTION = "K01b"
    ABUSE_DISCLOSURE = "K02"
    SEXUAL_CONTENT = "K03"
    BODY_GROWING_UP = "K03b"
    VIOLENCE_HOWTO = "K04"
    VIOLENCE_IN_CONTEXT = "K04b"
    DANGEROUS_ACTS = "K05"
    SUBSTANCES = "K06"
    HATE = "K07"
    BULLYING = "K08"
    PROFANITY = "K09"
    PERSONAL_DATA = "K10"
    ILLEGAL_ACTS = "K11"
    SCHOOL_CHEATING = "K12"
    DISTRESS = "K13"
    DEPENDENCY = "K14"
    COMMERCIAL = "K15"
    JAILBREAK = "K16"

    @property
    def label(self) -> str:
        """The hazard's name in words, such as ``self_harm_question``."""
        return self.name.lower()


CASES: Final[dict[Hazard, tuple[str, ...]]] = {
    Hazard.SUBSTANCES: ("howto",),
    Hazard.HATE: ("produces", "asks"),
    Hazard.BULLYING: ("plans", "suffers", "did"),
    Hazard.PROFANITY: ("wants", "asks"),
    Hazard.PERSONAL_DATA: ("gives", "meets"),
}
"""Hazards whose action depends on what the child does, with the names of those cases."""

CONDUCT: Final[tuple[str, ...]] = (
    "asks_personal_data",
    "secrecy",
    "personhood",
    "stay",
    "flattery",
    "against_grown_ups",
    "template",
    "other_speaker",
    "reading_level",
    "length",
)
"""What the model's reply is checked for beside the hazards (``docs/safety.md``)."""


class Severity(IntEnum):
    """How grave a finding is; ``NONE`` belongs to benign text only."""

    NONE = 0
    MILD = 1
    MODERATE = 2
    SEVERE = 3

    @property
    def label(self) -> str:
        """The name as it stands in policies and data, such as ``moderate``."""
        return self.name.lower()

    @classmethod
    def parse(cls, name: str) -> Severity:
        """Return the severity of that name, e.g. ``"mild"``.

        Raises:
            ValueError: no such severity.
        """
        try:
            return cls[name.upper()]
        except KeyError:
            accepted = ", ".join(s.label for s in cls)
            raise ValueError(f"severity {name!r} is not one of {accepted}") from None


class About(StrEnum):
    """Who a message is about, and whether it is happening."""

    SELF = "self"
    OTHER = "other"
    ASKS = "asks"
    FICTION = "fiction"
    NONE = "none"


class Action(IntEnum):
    """What the guard does, ordered by precedence: merging two verdicts takes the higher."""

    ALLOW = 0
    REDACT = 1
    CARE = 2
    REDIRECT = 3
    REFUSE = 4
    CRISIS = 5

    @property
    def label(self) -> str:
        """The name as it stands in policies and data, such as ``redirect``."""
        return self.name.lower()

    @property
    def answers(self) -> bool:
        """Whether the guard answers itself, so that the model's words do not reach the child."""
        return self >= Action.REDIRECT

    @classmethod
    def parse(cls, name: str) -> Action:
        """Return the action of that name, e.g. ``"redirect"``.

        Raises:
            ValueError: no such action.
        """
        try:
            return cls[name.upper()]
        except KeyError:
            accepted = ", ".join(a.label for a in cls)
            raise ValueError(f"action {name!r} is not one of {accepted}") from None


class Stage(StrEnum):
    """Whose words are checked: the child's (input) or the model's (output)."""

    INPUT = "input"
    OUTPUT = "output"


Role = Literal["system", "developer", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. ``repr`` never shows the text: it could be a child's."""

    role: Role
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns before the text that is checked, oldest first."""

    messages: tuple[Message, ...] = ()

    def turns(self, role: Role | None = None) -> tuple[str, ...]:
        """Return the turns' texts, of one role or of all."""
        return tuple(m.content for m in self.messages if role is None or m.role == role)

    def last(self, count: int) -> Conversation:
        """Return the last ``count`` turns."""
        return Conversation(self.messages[-count:] if count > 0 else ())


NO_TURNS: Final = Conversation()
"""The conversation before the first message."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check saw.

    Attributes:
        check: the name of the check.
        hazard: what it found.
        severity: how grave.
        score: confidence from 0 to 1 (calibrated for the classifier, 1.0 for a rule).
        span: start and end offset in the checked text (code points), where there is one.
        note: a rule's id or a reason from a closed set, for the grown-up; never the child's words.
        about: who it is about, where the check can tell.
        redact: whether the span is to be masked.
        case: one of `CASES` for the hazard, one of `CONDUCT` for a reply, or empty.
        weak: below its threshold; it counts only where the guard is strict (a reply after `care`).
        whole: it means nothing about a part of a reply; it counts in the look at the whole.
    """

    check: str
    hazard: Hazard
    severity: Severity
    score: float = 1.0
    span: tuple[int, int] | None = None
    note: str = ""
    about: About = About.NONE
    redact: bool = False
    case: str = ""
    weak: bool = False
    whole: bool = False

    @property
    def masks(self) -> bool:
        """Whether it masks something: it wants to, and knows where."""
        return self.redact and self.span is not None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from all findings on one text.

    Merging is associative and commutative, and idempotent on the action.

    Attributes:
        action: the highest action that any finding asks for.
        findings: all of them, sorted; none is dropped.
        failed: names of checks that raised, timed out or answered nonsense.
        stage: whose words were checked.
        elapsed_ms: milliseconds of wall time.
        hazard: the hazard that decided the action (K00 when nothing was found).
        severity: the deciding finding's severity.
        case: the deciding finding's case (see `Finding`).
    """

    action: Action
    findings: tuple[Finding, ...] = ()
    failed: tuple[str, ...] = ()
    stage: Stage = Stage.INPUT
    elapsed_ms: float = 0.0
    hazard: Hazard = Hazard.BENIGN
    severity: Severity = Severity.NONE
    case: str = ""

    @property
    def hazards(self) -> tuple[Hazard, ...]:
        """Every hazard found, each once, in the order of the codes."""
        return tuple(sorted({f.hazard for f in self.findings}))

    @property
    def masks(self) -> bool:
        """Whether any part of the text is masked; `Action.REDACT` alone does not say so."""
        return any(f.masks for f in self.findings)

    def merge(self, other: Verdict) -> Verdict:
        """Return the verdict that holds for both."""
        mine = self.action, self.severity, self.hazard, self.case
        theirs = other.action, other.severity, other.hazard, other.case
        winner = other if theirs > mine else self
        found, failed = (*self.findings, *other.findings), (*self.failed, *other.failed)
        return Verdict(
            action=winner.action,
            # Nearly always there are none, so nothing is put in order.
            findings=sort_findings(set(found)) if found else (),
            failed=tuple(sorted(set(failed))) if failed else (),
            stage=max(self.stage, other.stage),
            elapsed_ms=max(self.elapsed_ms, other.elapsed_ms),
            hazard=winner.hazard,
            severity=winner.severity,
            case=winner.case,
        )


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings in one fixed order: by place, hazard, check, note."""
    return tuple(
        sorted(
            findings,
            key=lambda f: (
                f.span or (-1, -1),
                f.hazard,
                f.check,
                f.note,
                f.case,
                -f.score,
                f.severity,
            ),
        )
    )


class Check(Protocol):
    """One way to look at a text. Register it in ``kidrails_guard.checks`` or as an entry point.

    A check may raise: the guard counts that, names it, and follows the policy's
    ``on_check_failure`` (by default a kind refusal).

    A check that computes for well under a millisecond and never waits may say ``inline = True``:
    it then runs at once, without the deadline that nothing could enforce on it anyway. One that
    says so and waits counts as failed.

    A reply is looked at part by part, each with what stood before it, and once more as a whole. A
    check to which the whole says no more than its parts may say ``in_parts = True``: it is then
    left out of that last look.
    """

    name: str
    stages: frozenset[Stage]

    async def __call__(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> Sequence[Finding]:
        """Return what the check finds in ``text`` (the last turn), given the turns before it."""
        ...
