"""What goes into a build: hand-written files, public sets, and what must not be trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from kidrails_guard.content import content_path
from kidrails_guard.errors import DataError
from kidrails_guard.files import sha256_file
from kidrails_guard.golden.read import (
    Placed,
    Problem,
    raise_problems,
    read_all,
    read_golden,
    read_jsonl,
    read_messages,
)
from kidrails_guard.golden.rows import (
    Drop,
    Rejected,
    Row,
    StepCount,
    from_golden,
    from_labelled,
)
from kidrails_guard.golden.sources import SourceRow, available, read_source, resolve
from kidrails_guard.golden.steps import Overlap
from kidrails_guard.types import About, Hazard, Severity, Stage

CHOOSE: Final = "choose"
"""The step that looks which rows of public sets can be used."""


def read_inputs(golden: Sequence[Path], messages: Sequence[Path]) -> tuple[list[Row], list[Row]]:
    """Read the hand-written files.

    Raises:
        DataError: a row is broken or stands there twice; names file, line and key.
    """
    placed: list[Placed] = read_all(golden, read_golden)
    rows = [from_golden(p.row, place=f"{p.file.name}:{p.line}") for p in placed]
    seen: dict[str, str] = {}
    for row in rows:
        if row.id in seen:
            raise DataError(
                f"{row.place}: id {row.id!r}: stands already at {seen[row.id]} (one band, one "
                "conversation, one message); delete one of them"
            )
        seen[row.id] = row.place
    texts: list[Row] = []
    for path in messages:
        for number, text in read_all([path], read_messages):
            name = f"{path.stem}:{number}"
            texts.append(from_labelled(text, name=name, place=f"{path.name}:{number}"))
    return rows, texts


def add_evaluation_sets(overlap: Overlap, folder: Path | None) -> dict[str, int]:
    """Add what must not be trained on: the repository's own cases, and public sets in a folder.

    Returns:
        Name of each set to its number of texts.

    Raises:
        DataError: a case or a public set cannot be read.
    """
    problems: list[Problem] = []
    for path in sorted(content_path("evals/cases").glob("*.jsonl")):
        for _, case in read_jsonl(path, problems):
            for text in _strings(case):
                overlap.add(f"evals/cases/{path.name}", text)
    raise_problems(problems)
    if folder is not None:
        for source in available(folder, use="evaluate"):
            whole = (folder / source.file).is_file()
            path = resolve(source.name, folder, sample=not whole)
            for row in read_source(source, path):
                # Single terms and half sentences are no test cases that could be learnt by heart.
                if row.stage is Stage.INPUT:
                    overlap.add(source.name, row.text)
    return dict(sorted(overlap.sets.items()))


def _strings(value: Any) -> Iterator[str]:
    """Yield the texts of an evaluation case that a child says in it."""
    if isinstance(value, dict):
        if value.get("role", "user") != "user":
            return
        for key, inner in value.items():
            if isinstance(inner, str) and key in {"message", "text", "prompt", "content", "input"}:
                yield inner
            else:
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


LONGEST_PUBLIC: Final = 1_500
"""Characters of a public set's text; longer ones are pages of a prompt, which no child writes."""


def public_rows(folder: Path | None) -> tuple[list[Row], list[Rejected], list[dict[str, Any]]]:
    """Return the rows of public sets that may be trained on.

    Returns:
        The rows; those that are left out, each with its reason; what the manifest says of each set.
    """
    rows: list[Row] = []
    rejected: list[Rejected] = []
    said: list[dict[str, Any]] = []
    if folder is None:
        return rows, rejected, said
    for source in available(folder, use="train"):
        path = resolve(source.name, folder)
        before = len(rows) + len(rejected)
        for found in read_source(source, path):
            hazards = found.hazards or ()
            row = Row(
                id=f"{source.name}:{found.id}",
                seed=f"{source.name}:{found.group or found.id}",
                kind="text",
                stage=found.stage or Stage.INPUT,
                hazards=hazards,
                severity=Severity.NONE if hazards == (Hazard.BENIGN,) else Severity.MODERATE,
                about=About.NONE,
                conversation=found.conversation,
                text=found.text,
                band=found.band,
                method="imported",
                source=source.name,
                licence=source.licence,
                place=source.file,
            )
            drop = _unfit(found)
            if drop is None:
                rows.append(row)
            else:
                rejected.append(Rejected(row, CHOOSE, drop))
        said.append(
            {
                "name": source.name,
                "licence": source.licence,
                "revision": source.revision,
                "sha256": source.sha256,
                "rows_read": len(rows) + len(rejected) - before,
            }
        )
    return rows, rejected, said


def choosing(chosen: Sequence[Row], unfit: Sequence[Rejected]) -> StepCount:
    """Return what choosing rows of public sets did, for the ledger."""
    reasons = Counter(item.drop.reason for item in unfit)
    return StepCount(CHOOSE, len(chosen) + len(unfit), len(chosen), dict(sorted(reasons.items())))


def count_public(
    said: Iterable[dict[str, Any]], texts: Sequence[Row], rejected: Sequence[Rejected]
) -> None:
    """Add to each set what became of its rows: ``rows`` came through, ``left_out`` says why not.

    Args:
        said: of each set, from `public_rows`.
        texts: what came through all steps.
        rejected: what did not, of all steps.
    """
    for item in said:
        lost = Counter(r.drop.reason for r in rejected if r.row.source == item["name"])
        item["rows"] = sum(row.source == item["name"] for row in texts)
        item["left_out"] = dict(sorted(lost.items()))


def _unfit(found: SourceRow) -> Drop | None:
    """Return why a public set's row cannot train the guard; None where it can."""
    if found.stage is None:
        return Drop("a term, no sentence")
    if not found.hazards:
        return Drop("its label names no hazard", f"{found.label}/{found.category}")
    if len(found.text) > LONGEST_PUBLIC:
        return Drop("too long", f"{len(found.text):,} characters, accepted: {LONGEST_PUBLIC:,}")
    return None


def describe_file(path: Path) -> dict[str, Any]:
    """Return a file's name in the repository, its lines and its sum, for a manifest."""
    lines = path.read_bytes().count(b"\n")
    root = content_path(".")
    inside = path.resolve().is_relative_to(root.resolve())
    name = path.resolve().relative_to(root.resolve()).as_posix() if inside else path.name
    return {"file": name, "lines": lines, "sha256": sha256_file(path)}
