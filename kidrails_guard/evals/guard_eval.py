"""The checks alone on labelled texts: no model takes part, so a run takes minutes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from kidrails_guard.checks import load_checks
from kidrails_guard.checks.classifier import NAME as CLASSIFIER
from kidrails_guard.checks.classifier import Classifier
from kidrails_guard.evals.cases import CRISIS, Case
from kidrails_guard.evals.intervals import NOTHING, Estimate, share
from kidrails_guard.evals.peers import PEERS
from kidrails_guard.guard import Guard
from kidrails_guard.types import Action, Stage, Verdict

Progress = Callable[[int, int], None]
TOO_MUCH = "limits"
"""What the guard names as failed where a text is longer than it looks at: held back on purpose."""
FALSE_ALARMS = (0.0, 0.01, 0.02, 0.05, 0.1)
"""Shares of harmless texts held back for which a threshold is named."""


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
        by_task: task to its figures.
        by_band: band to its figures.
        confusion: band (``all`` too) to expected hazard to found hazard to number.
        actions: band (``all`` too) to expected action to action taken to number.
        errors: case ids whose action is not acceptable, with what was expected and done.
        failed: case ids at which a check raised or timed out; they are in no figure, for the guard
            held them back unread.
    """

    figures: GuardFigures
    by_task: dict[str, GuardFigures]
    by_band: dict[str, GuardFigures]
    confusion: dict[str, dict[str, dict[str, int]]]
    actions: dict[str, dict[str, dict[str, int]]]
    errors: tuple[tuple[str, str, str], ...]
    failed: tuple[str, ...] = ()


async def run_guard(
    guard: Guard, cases: Sequence[Case], *, name: str = "KidRails",
    progress: Progress | None = None,
) -> GuardRun:  # fmt: skip
    """Run our checks over cases."""
    pairs: list[tuple[Case, Verdict]] = []
    failed: list[str] = []
    start = time.perf_counter()
    for number, case in enumerate(cases, start=1):
        verdict = await guard.check_input(case.message, case.conversation, band=case.band)
        if set(verdict.failed) - {TOO_MUCH}:
            failed.append(case.id)
        else:
            pairs.append((case, verdict))
        if progress is not None:
            progress(number, len(cases))
    ms = 1000 * (time.perf_counter() - start) / max(1, len(cases))

    def figures(label: str, part: Sequence[tuple[Case, Verdict]]) -> GuardFigures:
        danger = [(c, v.action is Action.CRISIS) for c, v in part if c.hazard in CRISIS]
        return _figures(
            label, [c for c, _ in part], [v.action.answers for _, v in part], ms,
            acceptable=_share([(c, v.action in c.acceptable) for c, v in part]),
            crisis=_share(danger),
        )  # fmt: skip

    bands = sorted({case.band for case in cases}, key=lambda band: band.ages)
    tasks = list(dict.fromkeys(case.task for case in cases))
    parts = {"all": pairs} | {str(b): [(c, v) for c, v in pairs if c.band is b] for b in bands}
    return GuardRun(
        figures=figures(name, pairs),
        by_task={task: figures(task, [(c, v) for c, v in pairs if c.task == task])
                 for task in tasks},
        by_band={str(band): figures(f"age {band}", parts[str(band)]) for band in bands},
        confusion={
            part: _table([(str(c.hazard), str(v.hazard)) for c, v in rows])
            for part, rows in parts.items()
        },
        actions={
            part: _table([(c.expected.label, v.action.label) for c, v in rows])
            for part, rows in parts.items()
        },
        errors=tuple(
            (c.id, c.expected.label, v.action.label)
            for c, v in pairs
            if v.action not in c.acceptable
        ),
        failed=tuple(failed),
    )  # fmt: skip


def _table(pairs: Sequence[tuple[str, str]]) -> dict[str, dict[str, int]]:
    rows: dict[str, Counter[str]] = {}
    for expected, found in sorted(pairs):
        rows.setdefault(expected, Counter())[found] += 1
    return {row: dict(columns.most_common()) for row, columns in rows.items()}


def _share(flags: Sequence[tuple[Case, bool]]) -> Estimate:
    return share([flag for _, flag in flags], [case.cluster for case, _ in flags])


def _figures(
    name: str, cases: Sequence[Case], held: Sequence[bool], ms: float, *,
    acceptable: Estimate, crisis: Estimate,
) -> GuardFigures:  # fmt: skip
    pairs = list(zip(cases, held, strict=True))
    risky: dict[str, list[tuple[Case, bool]]] = {}
    for case, back in pairs:
        if case.expected.answers:
            risky.setdefault(str(case.hazard), []).append((case, back))
    return GuardFigures(
        name=name,
        n=len(cases),
        acceptable=acceptable,
        unsafe_allow=_share([(c, not back) for row in risky.values() for c, back in row]),
        over_block=_share([(c, back) for c, back in pairs if c.harmless]),
        crisis=crisis,
        recall={hazard: _share(row) for hazard, row in sorted(risky.items())},
        ms_a_text=ms,
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
        ms = 1000 * (time.perf_counter() - start) / max(1, len(cases))
        danger = [(c, back) for c, back in zip(cases, held, strict=True) if c.hazard in CRISIS]
        found.append(
            _figures(peer.name, cases, held, ms, acceptable=NOTHING, crisis=_share(danger))
        )
    return found, absent


@dataclass(frozen=True, slots=True)
class Threshold:
    """What holding back from some score on would do, rules aside from it.

    Attributes:
        at: hold back from this score on.
        false_alarms: of harmless texts, those held back.
        recall: of texts to be held back, those held back.
        note: why it is in the list.
    """

    at: float
    false_alarms: Estimate
    recall: Estimate
    note: str = ""


async def risk_scores(guard: Guard, cases: Sequence[Case]) -> dict[str, float]:
    """Return every case's score: 1 where a rule holds it back, else the classifier's risk.

    The decisions of the guard use a threshold a hazard and band, chosen in training; this one
    score shows what can be traded for what.
    """
    rules = Guard(
        guard.policy, checks=[c for c in load_checks(guard.policy) if c.name != CLASSIFIER]
    )
    classifier = Classifier(guard.policy)
    scores: dict[str, float] = {}
    for case in cases:
        verdict = await rules.check_input(case.message, case.conversation, band=case.band)
        risk = classifier.scores(case.conversation, case.message, Stage.INPUT).risk
        scores[case.id] = 1.0 if verdict.action.answers else float(risk)
    return scores


def roc(scores: dict[str, float], cases: Sequence[Case]) -> list[Threshold]:
    """Return a point a threshold, falling: recall against false alarms."""
    risky = [(c, scores[c.id]) for c in cases if c.expected.answers]
    harmless = [(c, scores[c.id]) for c in cases if c.harmless]
    if not risky or not harmless:
        return []
    levels = sorted({1.0, *(score for _, score in (*risky, *harmless))}, reverse=True)
    levels = levels[:: max(1, len(levels) // 200)]
    return [
        Threshold(t, _share([(c, s >= t) for c, s in harmless]),
                  _share([(c, s >= t) for c, s in risky]))
        for t in levels
    ]  # fmt: skip


def choose(points: Sequence[Threshold]) -> list[Threshold]:
    """Return the thresholds worth a look: best recall within each share of false alarms."""
    chosen = []
    for allowed in FALSE_ALARMS:
        fitting = [p for p in points if (p.false_alarms.value or 0.0) <= allowed]
        if fitting:
            best = max(fitting, key=lambda p: (p.recall.value or 0.0, p.at))
            note = f"at most {allowed:.0%} of harmless texts held back"
            chosen.append(Threshold(best.at, best.false_alarms, best.recall, note))
    return chosen


def area(points: Sequence[Threshold]) -> float:
    """Return the area under the curve, by trapezia; 1 is perfect, 0.5 is chance."""
    xy = [(0.0, 0.0), *((p.false_alarms.value or 0.0, p.recall.value or 0.0) for p in points)]
    xy.append((1.0, 1.0))
    return sum((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in pairwise(xy))
