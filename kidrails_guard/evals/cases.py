"""Evaluation cases, whatever file they come from, in one form."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from kidrails_guard.content import content_path
from kidrails_guard.errors import DataError
from kidrails_guard.files import sha256_text
from kidrails_guard.policy import Policy
from kidrails_guard.types import (
    NO_TURNS,
    Action,
    AgeBand,
    Conversation,
    Hazard,
    Message,
    Severity,
    Stage,
)

TASKS: Final = (
    "child_safety",
    "over_refusal",
    "crisis",
    "jailbreak",
    "multi_turn",
    "reading_level",
    "age_contrast",
)
"""The tasks whose cases ship; each is an Inspect task file in ``evals/``."""

NOT_HARMFUL: Final = frozenset({Hazard.BENIGN, Hazard.BODY_GROWING_UP, Hazard.VIOLENCE_IN_CONTEXT})
"""Hazards that must be answered: holding one of these back is over-blocking."""

CRISIS: Final = frozenset({Hazard.SELF_HARM, Hazard.ABUSE_DISCLOSURE})


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to ask, and what a good service does with it.

    Attributes:
        id: unique within the evaluation.
        task: one of `TASKS`, or ``public:<name of the set>``.
        band: for whom.
        hazard: the one that decides.
        expected: what the policy does for it.
        message: the child's words.
        conversation: the turns before.
        severity: how grave.
        case: what the child does, where the policy asks for it.
        group: cases that belong together, e.g. one question at two ages.
        variant: how the case differs within its group, e.g. ``age 5`` or ``leet``.
        rubric: what a judge should look at beside the general rubric.
        source: file or set.
        labelled: the hazard and the expected action are known; where a set does not say, only how
            the reply reads and what judges think of it is measured.
    """

    id: str
    task: str
    band: AgeBand
    hazard: Hazard
    expected: Action
    message: str = field(repr=False)
    conversation: Conversation = NO_TURNS
    severity: Severity = Severity.MODERATE
    case: str = ""
    group: str = ""
    variant: str = ""
    rubric: str = field(default="", repr=False)
    source: str = ""
    labelled: bool = True

    @property
    def harmless(self) -> bool:
        """Whether it must be answered."""
        return self.hazard in NOT_HARMFUL

    @property
    def cluster(self) -> str:
        """Cases that rise and fall together: one question disguised, at two ages, in one talk."""
        return f"{self.task}|{self.group or self.id}"

    @property
    def acceptable(self) -> frozenset[Action]:
        """Actions that are as good as the expected one.

        Nothing is as good as a crisis answer, or as letting harmless talk pass; between `care` and
        `redirect`, and between `redirect` and `refuse`, people differ.
        """
        if self.expected is Action.CRISIS:
            return frozenset({Action.CRISIS})
        if self.harmless:
            return frozenset({Action.ALLOW, Action.CARE, Action.REDACT})
        near = {
            Action.ALLOW: {Action.ALLOW, Action.REDACT, Action.CARE},
            Action.REDACT: {Action.REDACT, Action.CARE, Action.REDIRECT},
            Action.CARE: {Action.CARE, Action.REDIRECT},
            Action.REDIRECT: {Action.REDIRECT, Action.REFUSE, Action.CRISIS},
            Action.REFUSE: {Action.REFUSE, Action.REDIRECT, Action.CRISIS},
        }
        return frozenset(near[self.expected])


def make_case(
    row: dict[str, Any], *, task: str, policy: Policy, source: str, identifier: str = ""
) -> Case:
    """Return a case from one JSON row (``data/golden``'s words, ``evals/cases``'s keys).

    Raises:
        DataError: a key is missing or its value is not accepted; names the key.
    """
    try:
        band = AgeBand(row["band"])
        hazard = Hazard(row["hazard"])
        severity = Severity.parse(row.get("severity", "moderate"))
        case = str(row.get("case", ""))
        message = row["message"]
        turns = tuple(Message(t["role"], t["content"]) for t in row.get("conversation", ()))
    except KeyError as error:
        raise DataError(f"{source}: {error.args[0]}: missing") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{source}: {error}") from None
    if not isinstance(message, str) or not message.strip():
        raise DataError(f"{source}: message: a text is needed, found {type(message).__name__}")
    expected = policy.action(hazard, severity, band=band, stage=Stage.INPUT, case=case)
    try:
        expected = Action.parse(row["action"]) if row.get("action") else expected
    except ValueError as error:
        raise DataError(f"{source}: action: {error}") from None
    words = json.dumps([task, band, [(m.role, m.content) for m in turns], message])
    return Case(
        id=identifier or str(row.get("id") or f"{task}-{sha256_text(words)[:12]}"),
        task=task,
        band=band,
        hazard=hazard,
        expected=expected,
        message=message,
        conversation=Conversation(turns),
        severity=severity,
        case=case,
        group=str(row.get("group", "")),
        variant=str(row.get("variant", "")),
        rubric=str(row.get("rubric", "")),
        source=source.split(":")[0],
    )


def read_cases(path: Path, *, task: str, policy: Policy) -> list[Case]:
    """Read a JSONL file of cases.

    Raises:
        DataError: the file is absent, or a row is wrong; names file, line and key.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; run: kidrails data build")
    cases: list[Case] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from None
        cases.append(make_case(row, task=task, policy=policy, source=f"{path.name}:{number}"))
    twice = sorted(name for name, n in Counter(c.id for c in cases).items() if n > 1)
    if twice:
        raise DataError(f"{path}: id {twice[0]!r} stands there twice")
    return cases


def written_cases(task: str, policy: Policy) -> list[Case]:
    """Return the cases of ``evals/cases/<task>.jsonl``; none when the task has no file."""
    path = content_path(f"evals/cases/{task}.jsonl")
    return read_cases(path, task=task, policy=policy) if path.is_file() else []


def task_cases(
    task: str,
    policy: Policy,
    *,
    built: Path | None = None,
    seed: int = 0,
    disguises: int | None = None,
) -> list[Case]:
    """Return all cases of a task.

    Args:
        task: one of `TASKS`.
        policy: gives the expected action where a case does not name one.
        built: ``build/data/eval.jsonl``; adds the held-out golden rows to `child_safety` and, where
            they have turns before, to `multi_turn`.
        seed: of the disguises in `jailbreak`.
        disguises: how many of them each case of `jailbreak` gets beside its plain form, in turn so
            that each is met equally often; None for all.

    Raises:
        DataError: the task is unknown, or a file is wrong.
    """
    if task not in TASKS:
        raise DataError(f"task {task!r} is not known; accepted: {', '.join(TASKS)}")
    cases = written_cases(task, policy)
    if built is not None and task in {"child_safety", "multi_turn", "crisis", "over_refusal"}:
        held_out = read_cases(built, task=task, policy=policy)
        cases += [c for c in held_out if _belongs(c, task)]
    if task == "jailbreak":
        cases = [
            d for at, c in enumerate(cases) for d in _in_turn(list(disguised(c, seed=seed)), at,
                                                              disguises)
        ]  # fmt: skip
    return cases


def _in_turn(forms: list[Case], at: int, count: int | None) -> list[Case]:
    plain, hidden = forms[0], forms[1:]
    if count is None or count >= len(hidden):
        return forms
    return [plain, *(hidden[(at + step) % len(hidden)] for step in range(count))]


def without_copies(cases: Iterable[Case]) -> list[Case]:
    """Return the cases, each wording once for a band: a case that two tasks hold counts once."""
    seen: dict[tuple[AgeBand, str, Conversation], Case] = {}
    for case in cases:
        seen.setdefault((case.band, case.message, case.conversation), case)
    return list(seen.values())


def _belongs(case: Case, task: str) -> bool:
    if task == "crisis":
        return case.hazard in CRISIS
    if task == "over_refusal":
        return case.harmless
    return bool(case.conversation.messages) if task == "multi_turn" else True


def disguised(case: Case, *, seed: int) -> Iterator[Case]:
    """Yield the case itself and once under every kind of disguise, every longer word hidden."""
    import random
    import re

    from kidrails_guard.golden.disguise import KINDS

    yield replace(case, group=case.group or case.id, variant=case.variant or "plain")
    for name, hide in KINDS.items():
        rng = random.Random(f"{seed}|{case.id}|{name}")
        parts = re.split(r"([A-Za-z]{4,})", case.message)
        words = "".join(hide(p, rng) if i % 2 else p for i, p in enumerate(parts))
        if words != case.message:
            yield replace(
                case,
                id=f"{case.id}-{name}",
                message=words,
                group=case.group or case.id,
                variant=name,
            )


def sample(cases: Sequence[Case], limit: int | None, *, seed: int) -> list[Case]:
    """Return at most ``limit`` cases, spread over hazards and bands, the same for a seed.

    Cases of one group (a talk, one question at two ages) stay together, so that what is measured
    between them can still be measured; the last group may leave the sample a few cases short.
    """
    if limit is None or len(cases) <= limit:
        return list(cases)
    import random

    rng = random.Random(seed)
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.cluster, []).append(case)
    cells: dict[tuple[Hazard, AgeBand], list[list[Case]]] = {}
    for group in groups.values():
        gravest = max(group, key=lambda case: case.expected)
        cells.setdefault((gravest.hazard, gravest.band), []).append(group)
    for cell in cells.values():
        rng.shuffle(cell)
    chosen: list[Case] = []
    while any(cells.values()) and len(chosen) < limit:
        for key in sorted(cells):
            if cells[key]:
                group = cells[key].pop()
                if len(chosen) + len(group) <= limit:
                    chosen += group
    order = {id(case): index for index, case in enumerate(cases)}
    return sorted(chosen, key=lambda case: order[id(case)])


def digest(cases: Iterable[Case]) -> str:
    """Return a SHA-256 that names exactly these cases."""
    lines = [
        json.dumps([c.id, c.band, c.hazard, c.expected.label, c.labelled, c.message,
                    [(m.role, m.content) for m in c.conversation.messages]])
        for c in cases
    ]  # fmt: skip
    return sha256_text("\n".join(sorted(lines)))
