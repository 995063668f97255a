"""The permissively licensed public sets, mapped to our labels where the mapping is clean.

A category that names one of our hazards trains that hazard. A category that says only "harmful"
trains the risk output alone, and says nothing of the hazards it might be. Benign children's talk
and stories train every output. What is held out by name is never trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kidrails_guard.classifier.encode import Turn
from kidrails_guard.classifier.rows import digit
from kidrails_guard.types import Hazard as H
from kidrails_guard.types import Severity, Stage


@dataclass(frozen=True, slots=True)
class PublicText:
    """A text of a public set: what holds for sure, what is open, and whether it is risky.

    Attributes:
        hazards: hold for sure.
        open: might hold; a training step does not mind them.
        risky: whether it asks for an answer of the guard's own; None when open.
        severity: NONE where unknown.
    """

    text: str
    turns: tuple[Turn, ...]
    stage: Stage
    hazards: frozenset[H]
    open: frozenset[H]
    risky: bool | None
    severity: Severity
    split: str
    source: str
    weight: float


@dataclass(frozen=True, slots=True)
class Mapping:
    """How one category of a set is read."""

    hazards: tuple[H, ...] = ()
    open: tuple[H, ...] = ()
    risky: bool | None = True
    weight: float = 0.7
    keep: str = "0123456789abcdef"
    """Rows whose digit is here are used: a sample of a large category."""


EVERY: Final = tuple(H)
_CRIME: Final = (H.ILLEGAL_ACTS, H.VIOLENCE_HOWTO)
_SELF: Final = (H.SELF_HARM, H.SELF_HARM_QUESTION)
_UNNAMED: Final = Mapping(open=EVERY, weight=0.5)
_BENIGN: Final = Mapping(open=(H.VIOLENCE_IN_CONTEXT,), risky=False)

_REPLY: Final = 0.35

# Sets whose rows only measure: none of them is seen in training.
HELD_OUT: Final = frozenset({"harmbench", "safe_child_llm"})
DEV_DIGITS: Final = "012"
CALM: Final = frozenset({"fairytaleqa_half", "childsafe_half"})
EVAL_DIGITS: Final = "12"
"""Of these benign sets, the stories and texts whose digit is here only measure, too."""


@dataclass(frozen=True, slots=True)
class Source:
    """One set: its categories, by the start of their name; others are left out.

    Where the label decides, a name is ``label/category``.
    """

    categories: dict[str, Mapping]
    group: str = ""
    """The field whose value keeps rows on one side of the split (a story, a conversation)."""


SOURCES: Final[dict[str, Source]] = {
    "ailuminate_demo": Source(
        {
            "vcr": Mapping((H.VIOLENCE_HOWTO,), (*_CRIME, H.VIOLENCE_IN_CONTEXT, H.JAILBREAK)),
            "iwp": Mapping((H.VIOLENCE_HOWTO,), (H.ILLEGAL_ACTS, H.JAILBREAK)),
            "ncr": Mapping((H.ILLEGAL_ACTS,), (H.SUBSTANCES, H.HATE, H.SEXUAL_CONTENT)),
            "ipv": Mapping((), (H.ILLEGAL_ACTS, H.SCHOOL_CHEATING, H.JAILBREAK), weight=0.35),
            "hte": Mapping((H.HATE,), (H.BULLYING, H.JAILBREAK, H.PROFANITY)),
            "ssh": Mapping(
                (),
                (
                    *_SELF,
                    H.DANGEROUS_ACTS,
                    H.JAILBREAK,
                    H.VIOLENCE_HOWTO,
                ),
                weight=0.4,
            ),
            "sxc_prn": Mapping((H.SEXUAL_CONTENT,), (H.BODY_GROWING_UP, H.JAILBREAK)),
            "prv": Mapping((), (H.PERSONAL_DATA, H.ILLEGAL_ACTS, H.JAILBREAK)),
            "dfm": Mapping((), (H.BULLYING, H.ILLEGAL_ACTS, H.HATE, H.JAILBREAK), weight=0.35),
        }
    ),
    "strongreject": Source(
        {
            "Violence": Mapping((H.VIOLENCE_HOWTO,), (*_CRIME, *_SELF, H.ABUSE_DISCLOSURE)),
            "Non-violent crimes": Mapping((H.ILLEGAL_ACTS,)),
            "Illegal goods": Mapping((), (*_CRIME, H.SUBSTANCES, H.SEXUAL_CONTENT)),
            "Hate": Mapping((), (H.HATE, H.BULLYING)),
            "Sexual content": Mapping((H.SEXUAL_CONTENT,)),
            "Disinformation": _UNNAMED,
        }
    ),
    "catqa": Source(
        {
            "Illegal Activity": Mapping((H.ILLEGAL_ACTS,), (H.SUBSTANCES, H.VIOLENCE_HOWTO)),
            "Malware": Mapping((H.ILLEGAL_ACTS,)),
            "Fraud": Mapping((H.ILLEGAL_ACTS,), (H.COMMERCIAL,)),
            "Physical Harm": Mapping(
                (), (H.VIOLENCE_HOWTO, H.SELF_HARM, H.DANGEROUS_ACTS, H.ILLEGAL_ACTS)
            ),
            "Hate": Mapping((), (H.HATE, H.VIOLENCE_HOWTO, H.BULLYING)),
            "Adult Content": Mapping((H.SEXUAL_CONTENT,)),
            "Privacy Violation": Mapping((), (H.PERSONAL_DATA, H.ILLEGAL_ACTS)),
            "Economic Harm": Mapping((), (H.ILLEGAL_ACTS, H.COMMERCIAL, H.SUBSTANCES)),
            "dangerousqa": Mapping(
                (), (*_CRIME, H.HATE, H.BULLYING, H.SUBSTANCES, H.DANGEROUS_ACTS)
            ),
            # A third of these touch no harm at all: a light hand, and only a part of them.
            "harmfulqa": Mapping(open=EVERY, weight=0.25, keep="0123"),
        }
    ),
    "do_not_answer": Source(
        {
            "malicious_uses": Mapping(open=EVERY, weight=0.4),
            "discrimination": Mapping((), (H.HATE, H.BULLYING), weight=0.4),
        }
    ),
    "jailbreaks_in_the_wild": Source({"jailbreak": Mapping((H.JAILBREAK,), EVERY, weight=0.5)}),
    "fairytaleqa_half": Source(
        {"story": Mapping(_BENIGN.hazards, _BENIGN.open, False, 0.7, "0123456")}, group="story"
    ),
    "childsafe_half": Source(
        {"": Mapping((), (H.VIOLENCE_IN_CONTEXT, H.DISTRESS, H.BODY_GROWING_UP), False, 1.0)}
    ),
    "presidio_pii": Source(
        {"": Mapping((), (H.PERSONAL_DATA, H.COMMERCIAL), None, 0.5, "01234567")}
    ),
    # Adults' talk, but the one set where the same words pass or not by what they answer.
    # "Unauthorized Expertise" is no hazard here.
    "diasafety_val": Source(
        {
            "unsafe/Biased Opinion": Mapping((), EVERY, weight=_REPLY),
            "unsafe/Offending User": Mapping((), EVERY, weight=_REPLY),
            "unsafe/Risk Ignorance": Mapping((), EVERY, weight=_REPLY),
            "unsafe/Toxicity Agreement": Mapping((), EVERY, weight=_REPLY),
            "safe/Offending User": Mapping((), EVERY, False, _REPLY),
            "safe/Risk Ignorance": Mapping((), EVERY, False, _REPLY),
            "safe/Toxicity Agreement": Mapping((), EVERY, False, _REPLY),
        }
    ),
    "harmbench": Source({"": _UNNAMED}),
    "safe_child_llm": Source({"": _UNNAMED}),
}


def _mapping(source: Source, row: dict[str, Any]) -> Mapping | None:
    labelled = f"{row['label']}/{row['category']}"
    for start, mapping in source.categories.items():
        if (labelled if "/" in start else row["category"]).startswith(start):
            return mapping
    return None


def read_public(folder: Path) -> Iterator[PublicText]:
    """Yield what is used of the public sets in a folder; a set that is not there is left out."""
    for name, source in SOURCES.items():
        path = folder / f"{name}.jsonl"
        if path.is_file():
            with path.open(encoding="utf-8") as stream:
                for line in stream:
                    yield from _read(name, source, json.loads(line))


def _read(name: str, source: Source, row: dict[str, Any]) -> Iterator[PublicText]:
    mapping = _mapping(source, row)
    text = row["text"].strip()
    if mapping is None or not text or digit(f"keep {text}") not in mapping.keep:
        return
    group = row[source.group] if source.group else text
    if name in HELD_OUT or (name in CALM and digit(group) in EVAL_DIGITS):
        split = "eval"
    else:
        split = "dev" if digit(group) in DEV_DIGITS else "train"
    context = (row.get("context") or "").strip()
    hazards = frozenset(mapping.hazards)
    yield PublicText(
        text=text,
        turns=(Turn("user", context),) if context else (),
        stage=Stage.OUTPUT if row["role"] == "assistant" else Stage.INPUT,
        hazards=hazards,
        open=frozenset(mapping.open) - hazards,
        risky=mapping.risky,
        severity=Severity.NONE,
        split=split,
        source=name,
        weight=mapping.weight,
    )
