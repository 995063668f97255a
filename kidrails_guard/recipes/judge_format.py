"""How our own guard model is asked, and what it answers: for its training rows and for its use.

One line is the answer: the hazard's code, the severity, whom it is about, as in ``K13 mild self``.
Whatever does not read so is no answer (`parse_answer` raises), and counts as unsafe with whoever
asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import DataError
from kidrails_guard.files import write_atomic
from kidrails_guard.types import About, AgeBand, Hazard, Message, Severity, Stage

SYSTEM: Final = (
    "You judge one message in a chat between a child and a computer program. Answer with one line: "
    "the hazard's code, its severity, and whom it is about."
)
_SPEAKERS: Final = {"user": "child", "assistant": "program"}
_TURNS: Final = 6


def question(
    text: str, *, context: Sequence[Message] = (), stage: Stage, band: AgeBand | None
) -> list[dict[str, str]]:
    """Return the messages that ask the guard model about a text.

    Args:
        text: what is to be judged.
        context: the turns before it, oldest first; the last six are shown.
        stage: whose words they are.
        band: the child's age band; None where it is not known.
    """
    before = [
        f"{_SPEAKERS[turn.role]}: {turn.content}" for turn in context if turn.role in _SPEAKERS
    ]
    writer = "child" if stage is Stage.INPUT else "program"
    lines = [
        f"Age: {band.value if band else 'not known'}",
        *before[-_TURNS:],
        f"Judge this, written by the {writer}:",
        text,
    ]
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "\n".join(lines)}]


def answer(hazard: Hazard, severity: Severity, about: About) -> str:
    """Return the line that the guard model is taught to say.

    >>> answer(Hazard.DISTRESS, Severity.MILD, About.SELF)
    'K13 mild self'
    """
    return f"{hazard.value} {severity.label} {about.value}"


def parse_answer(text: str) -> tuple[Hazard, Severity, About]:
    """Return what the guard model said.

    >>> parse_answer("K13 mild self")[0].label
    'distress'

    Raises:
        ValueError: it is not one line of the three words.
    """
    words = text.split()
    if len(words) != 3 or "\n" in text.strip():
        raise ValueError("the guard model's answer is not one line of hazard, severity and about")
    return Hazard(words[0]), Severity.parse(words[1]), About(words[2])


def write_rows(source: Path, folder: Path) -> dict[str, int]:
    """Write ``guard_chat.jsonl`` and ``guard_chat.dev.jsonl`` from the guard's labelled texts.

    Args:
        source: ``guard.jsonl`` as `kidrails data build` writes it.
        folder: where the two go.

    Returns:
        Rows by file name.

    Raises:
        DataError: a row lacks a label or has an unknown one.
    """
    files: dict[str, list[str]] = {"guard_chat.jsonl": [], "guard_chat.dev.jsonl": []}
    for row in _read(source):
        name = "guard_chat.jsonl" if row["split"] == "train" else "guard_chat.dev.jsonl"
        files[name].append(json.dumps(row["row"], ensure_ascii=False))
    if not all(files.values()):
        raise DataError(f"{source} has no rows for one of the splits train and dev")
    for name, lines in files.items():
        write_atomic(folder / name, "\n".join(lines) + "\n")
    return {name: len(lines) for name, lines in files.items()}


def _read(source: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = source.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source} cannot be read ({error}); run: kidrails data build") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield {"split": row["split"], "row": _chat_row(row)}
        except (ValueError, KeyError, TypeError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else f"is wrong: {error}"
            raise DataError(f"{source}, line {number}: {reason}") from None


def _chat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    context = [Message(turn["role"], turn["content"]) for turn in row["context"]]
    stage, band = Stage(row["stage"]), AgeBand(row["band"]) if row["band"] else None
    said = answer(Hazard(row["hazard"]), Severity.parse(row["severity"]), About(row["about"]))
    asked = question(row["text"], context=context, stage=stage, band=band)
    return {"messages": [*asked, {"role": "assistant", "content": said}], "id": row["id"]}
