"""What the classifier says about a text: its outputs, in their fixed order."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from kidrails_guard.types import CASES, About, Hazard, Severity

HAZARDS: Final[tuple[Hazard, ...]] = tuple(h for h in Hazard if h is not Hazard.BENIGN)
"""One probability each; several may hold at once. Benign is the absence of all."""

SEVERITIES: Final[tuple[Severity, ...]] = (Severity.MILD, Severity.MODERATE, Severity.SEVERE)
ABOUTS: Final[tuple[About, ...]] = tuple(About)
CASE_NAMES: Final[tuple[tuple[Hazard, str], ...]] = tuple(
    (hazard, case) for hazard, cases in CASES.items() for case in cases
)
RISK: Final = "risk"
"""Whether the text asks for an answer of the guard's own, whatever the hazard is called."""

SIZES: Final[dict[str, int]] = {
    "hazard": len(HAZARDS),
    "risk": 1,
    "case": len(CASE_NAMES),
    "severity": len(SEVERITIES),
    "about": len(ABOUTS),
    "kind": len(HAZARDS) + 1,
}
"""``kind`` is the same question as ``hazard``, asked as a choice of one (benign last): a choice
tells hazards apart better that compete; where two hold, only yes-or-no can say so."""
RISK_AT: Final = len(HAZARDS)
"""The risk output's place, after the hazards."""
BINARY: Final = len(HAZARDS) + 1 + len(CASE_NAMES)
"""Yes-or-no outputs: hazards, risk, cases; severity and about follow as choices of one."""
WIDTH: Final = sum(SIZES.values())
"""Logits a text gets."""


def _slices() -> dict[str, slice]:
    found, start = {}, 0
    for name, size in SIZES.items():
        found[name] = slice(start, start + size)
        start += size
    return found


SLICES: Final[dict[str, slice]] = _slices()
HAZARD_INDEX: Final[dict[Hazard, int]] = {h: i for i, h in enumerate(HAZARDS)}
CASE_INDEX: Final[dict[tuple[Hazard, str], int]] = {c: i for i, c in enumerate(CASE_NAMES)}


def combine(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one row for a text of several windows.

    Yes-or-no outputs are the highest of all windows; who, how grave and which kind are read where
    the text is riskiest, not mixed from all over it.

    Args:
        logits: shape (windows, WIDTH).

    Returns:
        Shape (WIDTH,).
    """
    row: NDArray[np.float32] = logits[int(logits[:, RISK_AT].argmax())].copy()
    row[:BINARY] = logits[:, :BINARY].max(0)
    return row


def names() -> tuple[str, ...]:
    """Return every output's name, in order, as the model's manifest lists them."""
    return (
        *(str(h) for h in HAZARDS),
        RISK,
        *(f"{h}.{case}" for h, case in CASE_NAMES),
        *(s.label for s in SEVERITIES),
        *(str(a) for a in ABOUTS),
        *(f"kind.{h}" for h in (*HAZARDS, Hazard.BENIGN)),
    )
