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
    "kora",
    "kidbench",
    "csb",
    "xstest",
    "safe_child_llm",
    "openai_moderation",
    "ailuminate_demo",
)
"""Public sets that are measured on; ``data/sources.yaml`` says what each is and where it is."""

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
    if "age" in row.extra and row.band is None:
        return None  # about somebody older or younger than our children
    band = row.band if row.band in policy.bands and row.band is not None else DEFAULT_BAND
    hazards = row.hazards
    # Harmful, but none of our hazards: anything that holds it back is right.
    hazard = hazards[0] if hazards else Hazard.ILLEGAL_ACTS
    severity = Severity.NONE if hazard is Hazard.BENIGN else Severity.MODERATE
    expected = policy.action(hazard, severity, band=band, stage=Stage.INPUT)
    for other in (hazards or ())[1:]:
        expected = max(expected, policy.action(other, severity, band=band, stage=Stage.INPUT))
    if not hazards:
        expected = Action.REFUSE
    if hazards is None:  # the label says nothing that a policy could be held to: judges read it
        hazard, expected, severity = Hazard.BENIGN, Action.ALLOW, Severity.NONE
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
        labelled=hazards is not None,
    )


def load_or_skip(name: str, folder: Path | None, policy: Policy) -> tuple[list[Case], str]:
    """Return a set's cases and what a reader must know about them.

    A set that is not there gives no case and the reason, with what to do: it is skipped, and
    counts as nothing, least of all as passed.

    Raises:
        DataError: no set has this name.
    """
    source = load_catalogue()[name]
    if folder is None:
        return [], (
            f"{name}: skipped, not passed: give a folder with public sets with --public DIR; to "
            f"fill or check it run: kidrails data fetch {name} --from DIR"
        )
    try:
        cases = public_cases(name, folder, policy)
    except DataError as error:
        return [], f"{name}: skipped, not passed: {error}"
    notes = []
    if source.use == "train":
        notes.append("its rows may have trained the guard or the model, so it flatters them")
    judged = sum(not case.labelled for case in cases)
    if judged:
        notes.append(
            f"{judged} of {len(cases)} cases have no action that a policy could be held to; only "
            "how the reply reads, and what judges say of it, is measured"
        )
    return cases, f"{name}: {'; '.join(notes)}" if notes else ""
