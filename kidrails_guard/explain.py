"""Why the guard decided as it did, in words for a grown-up. Never shown to a child."""

from __future__ import annotations

from functools import cache
from typing import Final

from kidrails_guard.checks.conversation import conversation_reasons
from kidrails_guard.checks.lexicon import rule_reasons
from kidrails_guard.types import CONDUCT, Action, Finding, Hazard, Verdict

HAZARDS: Final[dict[Hazard, str]] = {
    Hazard.BENIGN: "nothing worrying",
    Hazard.SELF_HARM: "the child may want to die or hurt itself",
    Hazard.SELF_HARM_QUESTION: "a question about self-harm or suicide, or worry about a friend",
    Hazard.ABUSE_DISCLOSURE: "someone may be hurting, touching, threatening or neglecting a child",
    Hazard.SEXUAL_CONTENT: "sexual content",
    Hazard.BODY_GROWING_UP: "a question about bodies and growing up",
    Hazard.VIOLENCE_HOWTO: "hurting a person or an animal, or weapons",
    Hazard.VIOLENCE_IN_CONTEXT: "violence in a story, a game, nature or history",
    Hazard.DANGEROUS_ACTS: "something dangerous to do",
    Hazard.SUBSTANCES: "alcohol, vaping, drugs or gambling",
    Hazard.HATE: "hate against a group of people",
    Hazard.BULLYING: "bullying",
    Hazard.PROFANITY: "swear words",
    Hazard.PERSONAL_DATA: "personal details, or a stranger online",
    Hazard.ILLEGAL_ACTS: "something illegal",
    Hazard.SCHOOL_CHEATING: "school work to be done for the child",
    Hazard.DISTRESS: "fear, grief, loneliness or worry",
    Hazard.DEPENDENCY: "treating the program as a person or keeping secrets with it",
    Hazard.COMMERCIAL: "buying, prizes or tricks with money",
    Hazard.JAILBREAK: "an attempt to switch the rules off",
}

ACTIONS: Final[dict[Action, str]] = {
    Action.ALLOW: "passed unchanged",
    Action.REDACT: "passed on with personal details masked",
    Action.CARE: "passed on; the model was told to answer with special care",
    Action.REDIRECT: "not passed on; the child got a warm reply that names a trusted grown-up",
    Action.REFUSE: "not passed on; the child got a kind no with a safe alternative",
    Action.CRISIS: "not passed on; the child got the crisis words",
}

UNMASKED: Final = "personal details were seen, but none could be masked; passed on unchanged"
"""In place of the words for `Action.REDACT` where no check knew a place in the text."""

CONDUCT_WORDS: Final[dict[str, str]] = {
    "asks_personal_data": "the reply asks for personal details",
    "secrecy": "the reply offers a secret or turns the child away from telling a grown-up",
    "personhood": "the reply claims to be a person or to have feelings",
    "stay": "the reply urges the child to stay or to come back",
    "flattery": "the reply flatters the child",
    "against_grown_ups": "the reply turns the child against its grown-ups",
    "template": "the reply leaks technical tokens",
    "other_speaker": "the reply speaks for somebody else",
    "reading_level": "the reply is hard to read for this age",
    "length": "the reply is long for this age",
}

KINDS: Final[dict[str, str]] = {
    "name": "a full name",
    "phone": "a phone number",
    "email": "an e-mail address",
    "address": "an address",
    "location": "a place",
    "school": "a school",
    "class": "a class",
    "handle": "a user name",
    "password": "a password or code",
    "url": "a link to a profile",
    "id_number": "a number of a card or document",
    "age": "a date of birth",
    "time_alone": "when the child or the house is alone",
    "other": "a photo or other private thing",
}

assert set(CONDUCT_WORDS) == set(CONDUCT)


@cache
def reasons() -> dict[str, str]:
    """Return the reason behind each note that a rule leaves."""
    return rule_reasons() | conversation_reasons()


def explain_finding(finding: Finding, text: str = "") -> str:
    """Return one finding in a sentence; the words it was seen in follow where a text is given."""
    reason = reasons().get(finding.note)
    if finding.check == "personal_data":
        reason = f"The text holds {KINDS.get(finding.note, 'personal details')}."
    elif reason is None and finding.case in CONDUCT:
        detail = f": {finding.note}" if finding.note else f" ({finding.score:.0%} sure)"
        reason = f"{CONDUCT_WORDS[finding.case].capitalize()}{detail}."
    elif reason is None:
        sure = f"{finding.score:.0%} sure"
        note = f", {finding.note}" if finding.note else ""
        reason = f"The check {finding.check!r} saw {HAZARDS[finding.hazard]} ({sure}{note})."
    where = ""
    if text and finding.span is not None and finding.span[1] > finding.span[0]:
        where = f' Seen in: "{text[finding.span[0] : finding.span[1]]}"'
    return reason + where


def explain(verdict: Verdict, text: str = "") -> list[str]:
    """Return a verdict in sentences for a grown-up: what was done, what was seen, what failed.

    Args:
        verdict: what the guard decided.
        text: the checked text, only where the reader may see it.
    """
    unmasked = verdict.action is Action.REDACT and not verdict.masks
    done = UNMASKED if unmasked else ACTIONS[verdict.action]
    lines = [f"{verdict.action.label}: {done}."]
    if verdict.hazard is not Hazard.BENIGN:
        lines.append(
            f"Because of {verdict.hazard} ({verdict.hazard.label}): {HAZARDS[verdict.hazard]}; "
            f"{verdict.severity.label}."
        )
    for name in verdict.failed:
        what = "It is longer than the policy allows" if name == "limits" else f"{name!r} failed"
        lines.append(f"{what}, so the text was not passed.")
    lines += [f"- {explain_finding(finding, text)}" for finding in verdict.findings]
    if not verdict.findings and not verdict.failed:
        lines.append("No check saw anything.")
    return lines
