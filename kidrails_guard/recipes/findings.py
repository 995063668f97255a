"""What preflight says: results with a level, and the report they make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How a check ended."""

    FINE = "fine"
    NOTE = "note"
    """Worth knowing; training may start."""
    UNCHECKED = "unchecked"
    """Could not be looked at; the text says what is missing."""
    PROBLEM = "problem"
    """Training must not start."""


@dataclass(frozen=True, slots=True)
class Result:
    """One thing that was looked at.

    Attributes:
        check: its name, such as ``targets``.
        level: how it ended.
        text: what was found, with values.
        hint: what to do, where there is something to do.
    """

    check: str
    level: Level
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All results on one recipe.

    Attributes:
        recipe: the file.
        results: in the order of the checks.
        shown: some rows as the model will see them: pieces of text, each learnt or not.
        longest: tokens of the longest row; 0 where the data was not tokenised.
    """

    recipe: str
    results: tuple[Result, ...]
    shown: tuple[tuple[tuple[bool, str], ...], ...] = ()
    longest: int = 0

    @property
    def problems(self) -> tuple[Result, ...]:
        """What must be put right first."""
        return tuple(r for r in self.results if r.level is Level.PROBLEM)

    @property
    def ok(self) -> bool:
        """Whether training may start."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "recipe": self.recipe,
            "ok": self.ok,
            "longest": self.longest,
            "results": [asdict(result) for result in self.results],
            "shown": [[list(piece) for piece in row] for row in self.shown],
        }

    def lines(self, *, rows: int = 2) -> list[str]:
        """Return the report for a terminal.

        Args:
            rows: how many of the shown rows to print.
        """
        signs = {
            Level.FINE: "ok     ",
            Level.NOTE: "note   ",
            Level.UNCHECKED: "skipped",
            Level.PROBLEM: "PROBLEM",
        }
        lines = []
        for result in self.results:
            lines.append(f"{signs[result.level]}  {result.check}: {result.text}")
            if result.hint:
                lines.append(f"           -> {result.hint}")
        for number, row in enumerate(self.shown[:rows], start=1):
            lines.append(f"row {number} as the model sees it; what it learns stands in [[ ]]:")
            text = "".join(f"[[{piece}]]" if learnt else piece for learnt, piece in row)
            lines += [f"    {line}" for line in text.strip().splitlines()]
        return lines


def fine(check: str, text: str) -> Result:
    """Return a result without anything to do."""
    return Result(check, Level.FINE, text)


def note(check: str, text: str, hint: str = "") -> Result:
    """Return something worth knowing."""
    return Result(check, Level.NOTE, text, hint)


def unchecked(check: str, text: str, hint: str = "") -> Result:
    """Return a check that could not be made."""
    return Result(check, Level.UNCHECKED, text, hint)


def problem(check: str, text: str, hint: str = "") -> Result:
    """Return what stops training."""
    return Result(check, Level.PROBLEM, text, hint)


def listed(items: Iterable[object], *, most: int = 3) -> str:
    """Return some items and how many more there are.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    every = [str(item) for item in items]
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest
