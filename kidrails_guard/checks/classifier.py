"""The trained classifier as a check: hazards, how grave, and who it is about.

It sees the normalised text and the turns before it, and runs in a thread of its own, so that the
event loop goes on answering. The rules in `lexicon` catch what must never be missed; this check
understands the rest.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from kidrails_guard.classifier.encode import MAX_TURNS, Turn
from kidrails_guard.classifier.labels import (
    ABOUTS,
    CASE_INDEX,
    HAZARD_INDEX,
    HAZARDS,
    RISK,
    SEVERITIES,
)
from kidrails_guard.classifier.model import SHIPPED, Scores, load_model
from kidrails_guard.errors import DataError, PolicyError
from kidrails_guard.normalize import normalize
from kidrails_guard.policy import Policy
from kidrails_guard.types import (
    CASES,
    Action,
    AgeBand,
    Conversation,
    Finding,
    Hazard,
    Severity,
    Stage,
)

NAME: Final = "classifier"
WORKERS: Final = 2
CRISIS: Final = frozenset({Hazard.SELF_HARM, Hazard.ABUSE_DISCLOSURE})
NEAR: Final = "near_crisis"
"""Too unsure for the crisis answer, too near to it to leave unsaid: the text counts as distress."""
CASE_AT: Final = 0.5
"""A case is named when it is likelier than not; else the hazard's general action holds."""

ASKS: Final = "asks_personal_data"
ASKS_AT: Final = 0.96
"""A reply this surely about personal data counts as conduct: it asks for them.

What the model sees has no place in the text, so masking alone would pass such a reply unchanged.
Good replies speak of names and streets too, hence a threshold of its own: of the replies in
``data`` that no training run sees no good one counts as a question, and two fifths of those
labelled with it do (``tests/contract/test_classifier_onnx.py``).
"""
_HIDES: Final = re.compile(
    r"\s*(?:cover|hide|blur|cross out|black out|leave out|cut off)\b"
    r"(?:(?!\b(?:tell|send|give|show|say|type|write|me)\b)[^.!?\n])*[.!]?\s*",
    re.IGNORECASE,
)
"""A reply that is one bid to keep something out of sight asks for nothing, however sure the model
is: "Cover the name of your school in the photo."."""

EXPLAINS: Final = {
    Stage.INPUT: frozenset({Hazard.BODY_GROWING_UP, Hazard.VIOLENCE_IN_CONTEXT}),
    Stage.OUTPUT: frozenset(
        {Hazard.BODY_GROWING_UP, Hazard.VIOLENCE_IN_CONTEXT, Hazard.PERSONAL_DATA}
    ),
}
"""Hazards that say why a text sounds risky: one that is surer of them than of its risk needs no
other name. What is masked in a reply is decided elsewhere."""

READ_ROLES: Final = frozenset({"user", "assistant"})


@lru_cache(maxsize=1)
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WORKERS, thread_name_prefix="kidrails-classifier")


def case_of(scores: Scores, hazard: Hazard) -> str:
    """Return the likeliest case of a hazard, or nothing when none is likely."""
    best, name = CASE_AT, ""
    for case in CASES.get(hazard, ()):
        p = float(scores.case[CASE_INDEX[hazard, case]])
        if p > best:
            best, name = p, case
    return name


class Classifier:
    """The check. Build it with `build`; the model is loaded once a process.

    Args:
        policy: says which hazards the guard answers itself.
        folder: of the model.
    """

    name = NAME
    stages = frozenset(Stage)
    # It learned from parts and reads a long text in windows little longer than one: a last look at
    # the whole reply took half of its time and found nothing more at the same rate of false alarms.
    in_parts = True

    def __init__(self, policy: Policy, folder: Path = SHIPPED) -> None:
        self._policy = policy
        self._model = load_model(folder)
        # Hazards that the guard answers itself in some band: what a risky text without a clear
        # hazard may be called.
        self._answered = {
            Stage.INPUT: frozenset(filter(self._answers, HAZARDS)),
            Stage.OUTPUT: frozenset(
                h for h in HAZARDS if policy.hazards[h].output >= Action.REDIRECT
            ),
        }

    def _answers(self, hazard: Hazard) -> bool:
        actions = (self._action(hazard, band, "", Stage.INPUT) for band in AgeBand)
        return max(actions) >= Action.REDIRECT

    def _action(self, hazard: Hazard, band: AgeBand, case: str, stage: Stage) -> Action:
        band = band if band in self._policy.bands else self._policy.youngest
        return self._policy.action(hazard, Severity.MODERATE, band=band, stage=stage, case=case)

    async def __call__(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> Sequence[Finding]:
        """Return what the model sees in ``text``, given the turns before it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_workers(), self.find, conversation, text, band, stage)

    def find(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> tuple[Finding, ...]:
        """Do the same from ordinary code."""
        if not text.strip():
            return ()
        found = self.findings(self.scores(conversation, text, stage), band, stage)
        if _HIDES.fullmatch(text):
            return tuple(replace(f, case="") if f.case == ASKS else f for f in found)
        return found

    def scores(self, conversation: Conversation, text: str, stage: Stage) -> Scores:
        """Return the model's calibrated scores of a text, before any threshold."""
        turns = [
            Turn(message.role, normalize(message.content[-600:]).text)
            for message in conversation.last(MAX_TURNS * 2).messages
            if message.role in READ_ROLES and message.content
        ]
        return self._model.score(normalize(text).text, turns[-MAX_TURNS:], stage=stage)

    def findings(self, scores: Scores, band: AgeBand, stage: Stage) -> tuple[Finding, ...]:
        """Return the findings that scores amount to in a band and stage."""
        calibration = self._model.calibration
        if stage is Stage.INPUT:
            firm, weak = calibration.thresholds[band], calibration.weak[band]
        else:
            firm, weak = calibration.output, calibration.output_weak
        found = [
            self._finding(scores, hazard, p, stage, weak=p < firm[hazard])
            for hazard, p in zip(HAZARDS, map(float, scores.hazard), strict=True)
            if p >= weak[hazard]
        ]
        # A policy that lets every reply pass has no hazard by whose name a risky one is held back.
        if (
            scores.risk >= weak[RISK]
            and self._answered[stage]
            and not any(
                not f.weak
                and (
                    self._action(f.hazard, band, f.case, stage) >= Action.REDIRECT
                    or (f.hazard in EXPLAINS[stage] and f.score > scores.risk)
                )
                for f in found
            )
        ):
            found.append(self._unnamed(scores, stage, weak=scores.risk < firm[RISK]))
        if stage is Stage.INPUT and all(f.weak for f in found):
            found += [
                self._finding(scores, Hazard.DISTRESS, f.score, stage, weak=False, note=NEAR)
                for f in found
                if f.hazard in CRISIS
            ][:1]
        return tuple(found)

    def _unnamed(self, scores: Scores, stage: Stage, *, weak: bool) -> Finding:
        """Return the finding for a text that is risky though no hazard of it is clear."""
        hazard = max(
            self._answered[stage], key=lambda h: (float(scores.hazard[HAZARD_INDEX[h]]), h)
        )
        return self._finding(scores, hazard, scores.risk, stage, weak=weak, note=RISK)

    def _finding(
        self,
        scores: Scores,
        hazard: Hazard,
        score: float,
        stage: Stage,
        *,
        weak: bool,
        note: str = "",
    ) -> Finding:
        return Finding(
            NAME,
            hazard,
            SEVERITIES[int(np.argmax(scores.severity))],
            min(max(score, 0.0), 1.0),
            note=note,
            about=ABOUTS[int(np.argmax(scores.about))],
            case=case_of(scores, hazard) if stage is Stage.INPUT else _conduct(hazard, score, note),
            weak=weak,
        )


def _conduct(hazard: Hazard, score: float, note: str) -> str:
    """Return the case of `CONDUCT` that a reply's hazard amounts to; a mere risk names none."""
    return ASKS if hazard is Hazard.PERSONAL_DATA and score >= ASKS_AT and note != RISK else ""


def build(policy: Policy, *, model: str | None = None) -> Classifier:
    """Return the check for a policy.

    Args:
        policy: the whole policy.
        model: folder of another model than the shipped one.

    Raises:
        PolicyError: there is no such model, or it is broken.
    """
    try:
        return Classifier(policy, Path(model) if model else SHIPPED)
    except DataError as error:
        raise PolicyError(f"checks.classifier: {error}") from None
