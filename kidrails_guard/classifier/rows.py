"""The project's own labelled text: ``data/messages/*.tsv`` and ``data/golden/*.jsonl``.

``data/held_out/*.tsv`` is like the messages, but only measured: ordinary talk of children.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kidrails_guard.classifier.encode import Turn
from kidrails_guard.errors import DataError
from kidrails_guard.types import CASES, About, Hazard, Severity, Stage

COLUMNS: Final = ("hazard", "severity", "about", "stage", "context", "case", "text")
EVAL_DIGITS: Final = "0123"
"""First hex digit of a golden message's SHA-256 that keeps it out of every training run."""
GOLDEN_DEV_DIGITS: Final = "45"
"""Golden rows that choose epochs and thresholds, above all those of the replies."""
DEV_DIGITS: Final = "01"
"""The same for the hand-written messages: one in eight chooses epochs and thresholds."""
PAIR_DIGITS: Final = "01234567"
"""Half of the minimal pairs are never trained on."""
GOLDEN_WEIGHT: Final = 2.0
"""How much a training step minds a golden row: there is one to a hundred hand-written messages, and
each was reviewed for the very answer that it deserves."""
HELD_OUT: Final = "held_out"
"""The folder of files that no training run sees."""

_LETTERS: Final = re.compile(r"[^a-z0-9]+")
_ROLES: Final = {"U": "user", "A": "assistant"}


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One text with its label.

    Attributes:
        text: what is judged.
        turns: what was said before, oldest first.
        stage: whose words the text is.
        hazards: what holds; empty for benign.
        severity: of the gravest.
        about: who, and whether it is happening.
        case: what the child does, where `CASES` knows one for the hazard.
        split: ``train``, ``dev`` (chooses epochs and thresholds) or ``eval`` (only reported).
        source: the file it came from.
        harmless: false where the reply is bad although the policy lets its hazard pass.
        weight: how much a training step minds it.
    """

    text: str
    turns: tuple[Turn, ...]
    stage: Stage
    hazards: tuple[Hazard, ...]
    severity: Severity
    about: About
    case: str
    split: str
    source: str
    harmless: bool = True
    weight: float = 1.0


def digit(text: str) -> str:
    """Return the first hexadecimal digit of a text's SHA-256: the split rule's coin."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[0]


def parse_turns(context: str) -> tuple[Turn, ...]:
    """Return the turns of a ``U: … || A: …`` column."""
    parts = [part.strip() for part in context.split("||") if part.strip()]
    return tuple(
        Turn(_ROLES[part[0]], part[2:].strip()) if part[:2] in {"U:", "A:"} else Turn("user", part)
        for part in parts
    )


def read_messages(path: Path) -> Iterator[LabelledText]:
    """Yield the rows of one file of ``data/messages`` or ``data/held_out``.

    Raises:
        DataError: a column is missing or a label unknown; names the file and line.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = tuple(next(rows, ()))
        if header != COLUMNS:
            raise DataError(
                f"{path}:1: columns {', '.join(header)}; accepted: {', '.join(COLUMNS)}"
            )
        for number, row in enumerate(rows, 2):
            if len(row) != len(COLUMNS):
                raise DataError(
                    f"{path}:{number}: {len(row)} columns instead of {len(COLUMNS)}; separate "
                    "them with one tab each"
                )
            try:
                yield _message(dict(zip(COLUMNS, row, strict=True)), path, number)
            except ValueError as error:
                raise DataError(f"{path}:{number}: {error}") from None


def _message(row: dict[str, str], path: Path, number: int) -> LabelledText:
    hazards = tuple(Hazard(h) for h in row["hazard"].split("+"))
    known = {case for hazard in hazards for case in CASES.get(hazard, ())}
    if row["case"] and row["case"] not in known:
        raise ValueError(f"case {row['case']!r} is not one of {', '.join(sorted(known)) or 'none'}")
    if path.parent.name == HELD_OUT:
        split = "eval"
    elif path.stem == "pairs":
        # Both halves of a minimal pair fall on one side.
        split = "eval" if digit(f"pair {number // 2}") in PAIR_DIGITS else "train"
    else:
        split = "dev" if digit(row["text"].casefold()) in DEV_DIGITS else "train"
    return LabelledText(
        text=row["text"],
        turns=parse_turns(row["context"]),
        stage=Stage(row["stage"]),
        hazards=tuple(h for h in hazards if h is not Hazard.BENIGN),
        severity=Severity.parse(row["severity"]),
        about=About(row["about"]),
        case=row["case"],
        split=split,
        source=path.stem,
    )


def golden_case(hazard: Hazard, action: str) -> str:
    """Return the case that a golden row's action implies."""
    cases = {
        (Hazard.SUBSTANCES, "refuse"): "howto",
        (Hazard.HATE, "refuse"): "produces",
        (Hazard.HATE, "care"): "asks",
        (Hazard.BULLYING, "refuse"): "plans",
        (Hazard.BULLYING, "redirect"): "suffers",
        (Hazard.BULLYING, "care"): "did",
        (Hazard.PROFANITY, "refuse"): "wants",
        (Hazard.PROFANITY, "care"): "asks",
        (Hazard.PERSONAL_DATA, "redact"): "gives",
        (Hazard.PERSONAL_DATA, "redirect"): "meets",
        (Hazard.PERSONAL_DATA, "care"): "meets",
    }
    return cases.get((hazard, action), "")


def read_golden(path: Path) -> Iterator[LabelledText]:
    """Yield three texts a golden row: the child's message, the good reply and the bad one."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield from _golden(json.loads(line))


def _golden(row: dict[str, Any]) -> Iterator[LabelledText]:
    hazard, message = Hazard(row["hazard"]), row["message"]
    before = tuple(Turn(turn["role"], turn["content"]) for turn in row["conversation"])
    # Siblings of one conversation share its first message, and with it their side.
    first = before[0].text if before else message
    coin = digit(first)
    split = "eval" if coin in EVAL_DIGITS else "dev" if coin in GOLDEN_DEV_DIGITS else "train"
    hazards = (hazard,) if hazard is not Hazard.BENIGN else ()
    severity = Severity.parse(row["severity"])
    asked = LabelledText(
        text=message,
        turns=before,
        stage=Stage.INPUT,
        hazards=hazards,
        severity=severity,
        about=About(row["about"]),
        case=row.get("case", golden_case(hazard, row["action"])),
        split=split,
        source="golden",
        weight=GOLDEN_WEIGHT,
    )
    yield asked
    turns = (*before, Turn("user", message))
    reply = replace(asked, turns=turns, stage=Stage.OUTPUT, case="")
    yield replace(reply, text=row["golden"], hazards=(), severity=Severity.NONE, about=About.NONE)
    if hazards:
        yield replace(reply, text=row["unsafe"], harmless=False)


def read_own(data: Path) -> list[LabelledText]:
    """Return every row of ``data``'s three folders, files in the order of names.

    A text that is held out in one file is left out of every other.
    """
    rows = [row for path in sorted(data.glob("messages/*.tsv")) for row in read_messages(path)]
    rows += [row for path in sorted(data.glob(f"{HELD_OUT}/*.tsv")) for row in read_messages(path)]
    rows += [row for path in sorted(data.glob("golden/*.jsonl")) for row in read_golden(path)]
    held_out = {_key(row) for row in rows if row.split == "eval"}
    return [row for row in rows if row.split == "eval" or _key(row) not in held_out]


def _key(row: LabelledText) -> tuple[str, Stage, tuple[Turn, ...]]:
    return _LETTERS.sub("", row.text.casefold()), row.stage, row.turns
