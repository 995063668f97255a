"""Every fixed word of the pages, so that a translation is one file.

What the guard says to a child stands in ``serve/policies/answers/``; here is what stands around it,
and how a grown-up reads what happened. What was seen, and why, says ``explain.py``.
"""

from __future__ import annotations

from typing import Final

from kidrails_guard.types import Action, AgeBand

NAME: Final = "KidRails"
PROGRAM: Final = "I am a computer program, not a person. I can be wrong."

THINKING: Final = "I am thinking …"
STOPPED: Final = "I stopped. Ask me something else!"
LOST: Final = "I lost my connection. I keep trying. If you need somebody, go to a grown-up now."

BROKEN: Final = "This page cannot open right now. Please get a grown-up to look at it."

NOTE_LEFT: Final = (
    "I left a note for the grown-up of this page that you want to talk. Your words are not in it."
)
NOTE_FAILED: Final = (
    "I could not leave a note for your grown-up yet. I keep trying. Go to them now."
)

CUT_OFF: Final = "This page has no connection to the program; what it shows may be old."

STARTERS: Final[dict[AgeBand, tuple[str, ...]]] = {
    AgeBand.EARLY: ("Why is the sky blue?", "Tell me about cats", "How do birds fly?"),
    AgeBand.MIDDLE: ("Why is the sky blue?", "Tell me about wolves", "How do magnets work?"),
    AgeBand.UPPER: ("Why do we dream?", "How do volcanoes form?", "Tell me about black holes"),
}

PEOPLE: Final = ("Mum or dad", "Grandma or grandpa", "Your teacher", "The school nurse")
"""Whom a child can tell, where the grown-up has named nobody."""

CASE: Final[dict[str, str]] = {
    "howto": "asks how to get or use it",
    "produces": "wants it written",
    "asks": "asks what it means, or why",
    "plans": "plans it",
    "suffers": "suffers it",
    "did": "did it and says so",
    "wants": "wants them written",
    "gives": "gives such details",
    "meets": "is asked for them, or is to meet someone",
}

ON_INPUT: Final[dict[Action, str]] = {
    Action.ALLOW: "The program answered.",
    Action.REDACT: "Personal details were masked before the program saw them; it answered.",
    Action.CARE: "The program answered with extra care and stricter checks.",
    Action.REDIRECT: "The program was not asked. A kind message pointed to a grown-up instead.",
    Action.REFUSE: "The program was not asked. A kind message said no, and why.",
    Action.CRISIS: "The program was not asked. Fixed words sent the child to a grown-up at once.",
}

UNMASKED: Final[dict[str, str]] = {
    "input": "Personal details were seen but none could be masked; the program answered.",
    "output": "Personal details were seen in the reply but none could be masked; it passed.",
}
UNMASKED_BADGE: Final = "Details seen"
"""In place of the words for `Action.REDACT` where nothing was masked."""

UNCHECKED: Final = (
    "To be safe the program was not asked. A kind message asked the child to try again, or to ask "
    "a grown-up."
)

ON_OUTPUT: Final[dict[Action, str]] = {
    Action.ALLOW: "The reply passed.",
    Action.REDACT: "Personal details in the reply were masked.",
    Action.CARE: "The reply passed.",
    Action.REDIRECT: "It was held back before the child saw it; a kind message stood in its place.",
    Action.REFUSE: "It was held back before the child saw it; a kind message stood in its place.",
    Action.CRISIS: "It was held back before the child saw it; a kind message stood in its place.",
}

BADGE: Final[dict[Action, str]] = {
    Action.ALLOW: "Answered",
    Action.REDACT: "Details masked",
    Action.CARE: "Answered with care",
    Action.REDIRECT: "Held back",
    Action.REFUSE: "Held back",
    Action.CRISIS: "Needs you",
}

RULE: Final[dict[Action, str]] = {
    Action.ALLOW: "answer",
    Action.REDACT: "mask, then answer",
    Action.CARE: "answer with care",
    Action.REDIRECT: "point to a grown-up",
    Action.REFUSE: "kind no",
    Action.CRISIS: "grown-up now",
}

CHECK: Final[dict[str, str]] = {
    "conversation": "the look at earlier turns",
    "lexicon": "the word list",
    "classifier": "the trained classifier",
    "personal_data": "the search for personal details",
    "conduct": "the rules for replies",
    "readability": "the reading level",
    "judge": "the second model",
    "limits": "the size limits",
}

NOTE: Final[dict[str, str]] = {
    "upstream_failed": "The model broke off; the child was told so kindly.",
    "caller_left": "The page was closed or the answer stopped.",
    "shutdown": "The service was stopped meanwhile.",
}

INBOX: Final[dict[str, str]] = {
    "crisis": "A message sounded like a child in danger.",
    "tell_a_grown_up": "The child pressed “Tell a grown-up”.",
    "check_failed": "A check did not work, so a message was held back.",
    "audit_failed": "The record of what happened could not be written.",
}

INBOX_ADVICE: Final[dict[str, str]] = {
    "crisis": "Go to the child now, calmly. Listen first, promise no secrecy, stay near. "
    "The fixed words the child read are under Help lines.",
    "tell_a_grown_up": "Ask the child, gently and soon, what it would like to tell.",
    "check_failed": "If this comes again, run “kidrails doctor” where the program was started.",
    "audit_failed": "Free some disk space. Then check the record: Settings shows the command.",
}
