"""The checks alone on labelled texts: no model takes part, so a run takes minutes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kidrails_guard.evals.cases import CRISIS, Case
from kidrails_guard.evals.intervals import NOTHING, Estimate, proportion, share
from kidrails_guard.evals.peers import PEERS
from kidrails_guard.guard import Guard
from kidrails_guard.types import Action, Hazard, Verdict


@dataclass(frozen=True, slots=True)
class GuardFigures:
    """How a guard does on labelled texts.

    Attributes:
        name: which guard.
        n: texts.
        acceptable: the action is the expected one or as good; None for peers without actions.
        unsafe_allow: of texts to be held back, those that passed.
        over_block: of harmless texts, those held back.
        crisis: of children in danger, those sent to help (for peers: held back at all).
        recall: of texts to be held back, those held back, by hazard.
        ms_a_text: mean milliseconds of one text.
    """

    name: str
    n: int
    acceptable: Estimate
    unsafe_allow: Estimate
    over_block: Estimate
    crisis: Estimate
    recall: dict[str, Estimate]
    ms_a_text: float


@dataclass(frozen=True, slots=True)
class GuardRun:
    """One run of our guard over cases.

    Attributes:
        figures: as for the peers.
        by_band: band to share of acceptable actions.
        confusion: expected hazard to found hazard to number.
        errors: case ids whose action is not acceptable, with what was expected and done.
        scores: case id to the highest score of any finding whose hazard answers (for the ROC).
    """

    figures: GuardFigures
    by_band: dict[str, Estimate]
    confusion: dict[str, dict[str, int]]
    errors: tuple[tuple[str, str, str], ...]
    scores: dict[str, float]


async def run_guard(
    guard: Guard, cases: Sequence[Case], *, name: str = "KidRails",
    progress: Callable[[int, int], None] | None = None,
) -> GuardRun:  # fmt: skip
    """Run our checks over cases."""
    verdicts: list[Verdict] = []
    start = time.perf_counter()
    for number, case in enumerate(cases, start=1):
        verdicts.append(await guard.check_input(case.message, case.conversation, band=case.band))
        if progress is not None:
            progress(number, len(cases))
    seconds = time.perf_counter() - start
    pairs = list(zip(cases, verdicts, strict=True))
    confusion: dict[str, Counter[str]] = {}
    for case, verdict in pairs:
        confusion.setdefault(str(case.hazard), Counter())[str(verdict.hazard)] += 1
    bands = sorted({case.band for case in cases}, key=lambda band: band.ages)
    held = [verdict.action.answers for verdict in verdicts]
    return GuardRun(
        figures=_figures(
            name, cases, held, seconds,
            acceptable=share([v.action in c.acceptable for c, v in pairs]),
            crisis=share([v.action is Action.CRISIS for c, v in pairs if c.hazard in CRISIS]),
        ),
        by_band={
            str(band): share([v.action in c.acceptable for c, v in pairs if c.band is band])
            for band in bands
        },
        confusion={row: dict(columns) for row, columns in sorted(confusion.items())},
        errors=tuple(
            (c.id, c.expected.label, v.action.label)
            for c, v in pairs
            if v.action not in c.acceptable
        ),
        scores={
            c.id: max((f.score for f in v.findings if _held_back(guard, c, f.hazard)), default=0.0)
            for c, v in pairs
        },
    )  # fmt: skip


def _held_back(guard: Guard, case: Case, hazard: Hazard) -> bool:
    actions = guard.policy.hazards[hazard].actions[case.band]
    return actions.answers if isinstance(actions, Action) else any(
        a.answers for a in actions.values()
    )  # fmt: skip


def _figures(
    name: str, cases: Sequence[Case], held: Sequence[bool], seconds: float, *,
    acceptable: Estimate, crisis: Estimate,
) -> GuardFigures:  # fmt: skip
    risky: dict[str, list[bool]] = {}
    for case, back in zip(cases, held, strict=True):
        if case.expected.answers:
            risky.setdefault(str(case.hazard), []).append(back)
    all_risky = [back for row in risky.values() for back in row]
    harmless = [back for case, back in zip(cases, held, strict=True) if case.harmless]
    return GuardFigures(
        name=name,
        n=len(cases),
        acceptable=acceptable,
        unsafe_allow=proportion(all_risky.count(False), len(all_risky)),
        over_block=share(harmless),
        crisis=crisis,
        recall={hazard: share(row) for hazard, row in sorted(risky.items())},
        ms_a_text=1000 * seconds / max(1, len(cases)),
    )


def run_peers(cases: Sequence[Case]) -> tuple[list[GuardFigures], list[str]]:
    """Run the offline peers over the same texts; also return which are not installed."""
    found, absent = [], []
    for peer in PEERS:
        if not peer.installed:
            absent.append(f"{peer.name}: not installed; run: pip install {peer.module}")
            continue
        holds_back = peer.load()
        start = time.perf_counter()
        held = [holds_back(case.message) for case in cases]
        seconds = time.perf_counter() - start
        crisis = [back for case, back in zip(cases, held, strict=True) if case.hazard in CRISIS]
        found.append(
            _figures(peer.name, cases, held, seconds, acceptable=NOTHING, crisis=share(crisis))
        )
    return found, absent


def roc(run: GuardRun, cases: Sequence[Case]) -> list[tuple[float, float, float]]:
    """Return (threshold, false-alarm rate, recall) of holding back by score, falling threshold."""
    risky = [run.scores[c.id] for c in cases if c.expected.answers]
    harmless = [run.scores[c.id] for c in cases if c.harmless]
    if not risky or not harmless:
        return []
    thresholds = sorted({*risky, *harmless, 0.0, 1.0}, reverse=True)
    return [
        (
            t,
            sum(s >= t and s > 0 for s in harmless) / len(harmless),
            sum(s >= t and s > 0 for s in risky) / len(risky),
        )
        for t in thresholds
    ]


def to_table(rows: Sequence[GuardFigures]) -> str:
    """Return the guards side by side, for a terminal."""
    lines = [
        f"{'guard':<24}{'acceptable':>12}{'unsafe-allow':>14}{'over-block':>12}{'crisis':>9}"
        f"{'ms/text':>9}"
    ]
    for row in rows:
        cells = [row.acceptable, row.unsafe_allow, row.over_block, row.crisis]
        shown = ["–" if c.value is None else f"{c.value:.1%}" for c in cells]
        lines.append(
            f"{row.name:<24}{shown[0]:>12}{shown[1]:>14}{shown[2]:>12}{shown[3]:>9}"
            f"{row.ms_a_text:9.2f}"
        )
    return "\n".join(lines)
