"""The guard: runs the checks on one text, merges what they find, and fails closed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from kidrails_guard.answers import compose_answer, load_answers
from kidrails_guard.checks import load_checks
from kidrails_guard.errors import CheckFailed, PolicyError
from kidrails_guard.policy import Policy, load_policy
from kidrails_guard.types import (
    NO_TURNS,
    Action,
    AgeBand,
    Check,
    Conversation,
    Finding,
    Hazard,
    Severity,
    Stage,
    Verdict,
    sort_findings,
)

_log: Final = logging.getLogger("kidrails.guard")
_LOGGED_AGAIN_S: Final = 60.0
_R = TypeVar("_R")
_Outcome = tuple[Sequence[Finding], CheckFailed | None]


class Observer(Protocol):
    """Told of every check that ran, for metrics. Never given the text."""

    def __call__(self, check: str, stage: Stage, seconds: float, failed: bool) -> None:
        """Note one run of one check."""


def _nobody(check: str, stage: Stage, seconds: float, failed: bool) -> None:
    """Observe nothing."""


@dataclass(frozen=True, slots=True)
class _Deadline:
    check: Check
    seconds: float


class Guard:
    """Decides about texts under one policy.

    Args:
        policy: what to do; the default policy when absent.
        checks: instead of the policy's own checks (for tests and plug-ins).
        observer: told of every check that ran.

    Raises:
        PolicyError: a check is unknown, misconfigured, or there is none for a stage.

    Example:
        >>> guard = Guard()
        >>> guard.check_input_sync("why do wolves howl?", band=AgeBand.MIDDLE).action.label
        'allow'
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        checks: Sequence[Check] | None = None,
        observer: Observer = _nobody,
    ) -> None:
        self.policy = policy or load_policy()
        self.observer = observer
        self._logged: dict[tuple[str, str], float] = {}
        load_answers(self.policy.locale)  # an unknown language is an error now, not in a crisis
        deadlines = {rule.name: rule.timeout_ms for rule in self.policy.checks}
        # By stage, and by whether every part of the text has been looked at before.
        self._inline: dict[tuple[Stage, bool], tuple[Check, ...]] = {}
        self._waiting: dict[tuple[Stage, bool], tuple[_Deadline, ...]] = {}
        loaded = tuple(checks) if checks is not None else load_checks(self.policy)
        for stage in Stage:
            here = [check for check in loaded if stage in check.stages]
            for seen in (False, True):
                due = [check for check in here if not (seen and _says(check, "in_parts"))]
                self._inline[stage, seen] = tuple(c for c in due if _says(c, "inline"))
                self._waiting[stage, seen] = tuple(
                    _Deadline(c, (deadlines.get(c.name) or self.policy.check_timeout_ms) / 1000)
                    for c in due
                    if not _says(c, "inline")
                )
            if not here:
                raise PolicyError(
                    f"checks: none looks at the {stage} stage, so unchecked text would pass; "
                    "add one, e.g. `- name: lexicon`"
                )

    async def check_input(
        self,
        text: str,
        conversation: Conversation = NO_TURNS,
        *,
        band: AgeBand,
    ) -> Verdict:
        """Return the verdict on a child's message, given the turns before it."""
        return await self._evaluate(text, conversation, band, Stage.INPUT, strict=False)

    async def check_output(
        self,
        text: str,
        conversation: Conversation = NO_TURNS,
        *,
        band: AgeBand,
        strict: bool = False,
        seen: bool = False,
    ) -> Verdict:
        """Return the verdict on a model's reply.

        Args:
            text: the reply, or the part of it that is looked at.
            conversation: the turns before it; the last one is the child's.
            band: for whom.
            strict: also count weak findings; set after an input verdict of ``care``.
            seen: every part of it has been looked at; checks that look ``in_parts`` are left out.
        """
        return await self._evaluate(
            text, conversation, band, Stage.OUTPUT, strict=strict, seen=seen
        )

    def check_input_sync(
        self,
        text: str,
        conversation: Conversation = NO_TURNS,
        *,
        band: AgeBand,
    ) -> Verdict:
        """Do `check_input` from code that is not asynchronous."""
        return run_sync(self.check_input(text, conversation, band=band))

    def check_output_sync(
        self,
        text: str,
        conversation: Conversation = NO_TURNS,
        *,
        band: AgeBand,
        strict: bool = False,
    ) -> Verdict:
        """Do `check_output` from code that is not asynchronous."""
        return run_sync(self.check_output(text, conversation, band=band, strict=strict))

    def answer(self, verdict: Verdict, band: AgeBand, *, seed: str) -> str:
        """Return the kind words that stand in place of what was held back."""
        return compose_answer(
            verdict, band, locale=self.policy.locale, country=self.policy.country, seed=seed
        )

    def redact(self, text: str, verdict: Verdict) -> str:
        """Return the text with every span masked that a finding wants masked."""
        answers = load_answers(self.policy.locale)
        spans = [(f.span, f.note) for f in verdict.findings if f.masks]
        return mask_spans(text, [(span, answers.mask(note)) for span, note in spans if span])

    def system_prompt(self, band: AgeBand, verdict: Verdict | None = None) -> str:
        """Return the system prompt for a band, with the hazards' guidance where care is due."""
        low, high = band.ages
        parts = [
            self.policy.system_prompt.replace("{ages}", f"{low} to {high}"),
            self.policy.bands[band].prompt,
        ]
        if verdict is not None and verdict.action is Action.CARE:
            parts += [self.policy.hazards[hazard].guidance for hazard in verdict.hazards]
        return "\n".join(part.strip() for part in parts if part)

    async def _evaluate(
        self,
        text: str,
        conversation: Conversation,
        band: AgeBand,
        stage: Stage,
        *,
        strict: bool,
        seen: bool = False,
    ) -> Verdict:
        start = time.perf_counter()
        if band not in self.policy.bands:
            raise PolicyError(
                f"band {band!s} is not served by policy {self.policy.name!r}; accepted: "
                f"{', '.join(self.policy.bands)}"
            )
        limits = self.policy.limits
        longest = limits.max_characters if stage is Stage.INPUT else limits.max_reply_characters
        if len(text) > longest or len(conversation.messages) > limits.max_messages:
            # Not looked at, so not passed.
            verdict = Verdict(self.policy.on_check_failure, failed=("limits",), stage=stage)
        else:
            look = (text, conversation, band, stage)
            waiting = self._waiting[stage, seen]
            outcomes = [self._run_inline(check, *look) for check in self._inline[stage, seen]]
            if len(waiting) == 1:
                outcomes.append(await self._run(waiting[0], *look))
            elif waiting:
                outcomes += await asyncio.gather(*(self._run(d, *look) for d in waiting))
            findings = [f for found, _ in outcomes for f in found if strict or not f.weak]
            failed = [error.check for _, error in outcomes if error is not None]
            if not findings and not failed:  # nearly always, so without what deciding costs
                return Verdict(
                    Action.ALLOW, stage=stage, elapsed_ms=(time.perf_counter() - start) * 1000
                )
            verdict = decide(self.policy, findings, failed, band=band, stage=stage)
        return replace(verdict, elapsed_ms=(time.perf_counter() - start) * 1000)

    async def _run(
        self,
        deadline: _Deadline,
        text: str,
        conversation: Conversation,
        band: AgeBand,
        stage: Stage,
    ) -> _Outcome:
        check, start = deadline.check, time.perf_counter()
        found: Sequence[Finding] = ()
        failure = ""
        try:
            async with asyncio.timeout(deadline.seconds):
                found = await check(conversation, text, band, stage)
        except TimeoutError:
            failure = "timed out"
        except Exception as error:
            failure = _reason(error)
        return self._outcome(check, stage, start, found, failure)

    def _run_inline(
        self, check: Check, text: str, conversation: Conversation, band: AgeBand, stage: Stage
    ) -> _Outcome:
        """Run a check that never waits: without a task and a timer, which cost more than it."""
        start = time.perf_counter()
        found: Sequence[Finding] = ()
        failure = "waits, though it is marked inline"
        try:
            work = check(conversation, text, band, stage)
            work.send(None)
            work.close()
        except StopIteration as done:
            found, failure = done.value, ""
        except Exception as error:
            failure = _reason(error)
        return self._outcome(check, stage, start, found, failure)

    def _outcome(
        self, check: Check, stage: Stage, start: float, found: Sequence[Finding], failure: str
    ) -> _Outcome:
        try:
            found = tuple(found)
            if found and not failure and not all(map(_sensible, found)):
                failure = "nonsense"
        except Exception as error:
            failure = _reason(error)
        if failure:
            self._log_failure(check.name, failure)
        self.observer(check.name, stage, time.perf_counter() - start, bool(failure))
        return ((), CheckFailed(check.name, failure)) if failure else (found, None)

    def _log_failure(self, check: str, failure: str) -> None:
        """Log why a check fails: each reason at most once a minute, whoever counts them all."""
        now = time.monotonic()
        if now - self._logged.get((check, failure), float("-inf")) >= _LOGGED_AGAIN_S:
            self._logged[check, failure] = now
            _log.warning("check %s: %s; what it was to look at was held back", check, failure)


def _says(check: Check, trait: str) -> bool:
    """Return whether a check claims a trait that `types.Check` lets it claim."""
    return getattr(check, trait, False) is True


def _reason(error: Exception) -> str:
    # Whatever a check raises, its text could hold the child's words: keep the type only.
    return f"raised {type(error).__name__}"


def _sensible(finding: object) -> bool:
    return (
        isinstance(finding, Finding)
        and isinstance(finding.hazard, Hazard)
        and isinstance(finding.severity, Severity)
        and 0.0 <= finding.score <= 1.0
        and (finding.span is None or 0 <= finding.span[0] <= finding.span[1])
    )


def decide(
    policy: Policy,
    findings: Iterable[Finding],
    failed: Iterable[str] = (),
    *,
    band: AgeBand,
    stage: Stage,
) -> Verdict:
    """Return the verdict that a policy draws from findings and failed checks."""
    verdict = Verdict(Action.ALLOW, stage=stage)
    for finding in findings:
        action = policy.action(
            finding.hazard, finding.severity, band=band, stage=stage, case=finding.case
        )
        one = Verdict(
            action, (finding,), (), stage, 0.0, finding.hazard, finding.severity, finding.case
        )
        verdict = verdict.merge(one)
    names = tuple(failed)
    if names:
        verdict = verdict.merge(Verdict(policy.on_check_failure, failed=names, stage=stage))
    return replace(verdict, findings=sort_findings(verdict.findings))


def mask_spans(text: str, spans: Iterable[tuple[tuple[int, int], str]]) -> str:
    """Return ``text`` with each span replaced by its mask; overlapping spans become one."""
    merged: list[tuple[int, int, str]] = []
    for (start, end), mask in sorted(spans):
        if merged and start < merged[-1][1]:
            first = merged[-1]
            merged[-1] = (first[0], max(first[1], end), first[2])
        else:
            merged.append((start, end, mask))
    for start, end, mask in reversed(merged):
        text = text[:start] + mask + text[end:]
    return text


class _Loop:
    """One event loop in a thread, for callers that are not asynchronous."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="kidrails-sync", daemon=True).start()


_loop: _Loop | None = None
_loop_lock = threading.Lock()


def run_sync(work: Coroutine[object, object, _R]) -> _R:
    """Run a coroutine to its end from ordinary code, inside a running event loop or not."""
    global _loop
    with _loop_lock:
        if _loop is None:
            _loop = _Loop()
    future: concurrent.futures.Future[_R] = asyncio.run_coroutine_threadsafe(work, _loop.loop)
    return future.result()
