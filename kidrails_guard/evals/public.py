"""Public benchmarks as cases, from a folder of the user's; a set that is absent is never passed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kidrails_guard.errors import DataError
from kidrails_guard.evals.cases import Case
from kidrails_guard.golden.sources import SourceRow, load_catalogue, read_source, resolve
from kidrails_guard.policy import Policy
from kidrails_guard.types import Action, AgeBand, Conversation, Hazard, Message, Severity, Stage

PUBLIC: Final = (
    "kora_scenarios",
    "kidbench",
    "csb",
    "xstest",
    "safe_child_llm",
    "openai_moderation",
    "ailuminate_demo",
)
"""Sets that measure and are never trained on here, or only by name; see ``data/sources.yaml``."""

DEFAULT_BAND: Final = AgeBand.UPPER
"""Band of a set without ages: its prompts are written by and for older people."""


def public_cases(
    name: str, folder: Path, policy: Policy, *, use_sample: bool = False
) -> list[Case]:
    """Return the cases of a public set.

    Args:
        name: as in ``data/sources.yaml``.
        folder: where the user keeps public sets.
        policy: gives the expected action.
        use_sample: read the few rows of ``samples/`` (to try a loader, not for figures).

    Raises:
        DataError: the set is unknown, absent (it says how to get it), or changed.
    """
    source = load_catalogue()[name]
    path = resolve(name, folder, sample=use_sample)
    return [
        case
        for row in read_source(source, path)
        if row.stage is Stage.INPUT and (case := _case(row, name, policy)) is not None
    ]


def _case(row: SourceRow, name: str, policy: Policy) -> Case | None:
    band = row.band if row.band in policy.bands and row.band is not None else DEFAULT_BAND
    hazards = row.hazards
    if hazards is None:
        return None  # its label says nothing that a policy could be held to
    # Harmful, but none of our hazards: anything that holds it back is right.
    hazard = hazards[0] if hazards else Hazard.ILLEGAL_ACTS
    severity = Severity.NONE if hazard is Hazard.BENIGN else Severity.MODERATE
    expected = policy.action(hazard, severity, band=band, stage=Stage.INPUT)
    for other in hazards[1:]:
        expected = max(expected, policy.action(other, severity, band=band, stage=Stage.INPUT))
    if not hazards:
        expected = Action.REFUSE
    turns = tuple(Message(t.role, t.content) for t in row.conversation)
    return Case(
        id=row.id,
        task=f"public:{name}",
        band=band,
        hazard=hazard,
        expected=expected,
        message=row.text,
        conversation=Conversation(turns),
        severity=severity,
        group=row.group,
        rubric=str(row.extra.get("criteria", "")),
        source=name,
    )


def load_or_skip(name: str, folder: Path, policy: Policy) -> tuple[list[Case], str]:
    """Return a set's cases and no reason, or no cases and the reason with what to do."""
    try:
        return public_cases(name, folder, policy), ""
    except DataError as error:
        return [], str(error)
