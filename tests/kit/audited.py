"""Events, clocks and a short way to write an audit log."""

from __future__ import annotations

from pathlib import Path

from kidrails_guard.audit import AuditLog
from kidrails_guard.proxy.seams import AuditEvent
from kidrails_guard.types import Action, AgeBand, Finding, Hazard, Severity, Stage, Verdict

DAY = 86_400.0
NOON = 1_790_000_000.0


def event(number: int = 0, *, at: float = NOON, action: Action = Action.ALLOW, text: str = "hi"):
    finding = Finding("lexicon", Hazard.DISTRESS, Severity.MILD, note="rule-7")
    verdict = Verdict(action, (finding,), (), Stage.INPUT, 1.5, Hazard.DISTRESS, Severity.MILD)
    return AuditEvent(
        f"r{number}", "class-4", "child-1", AgeBand.MIDDLE, verdict, text, "d" * 64, "m", time=at
    )


class Clocks:
    """The wall's clock, which may jump, and the time since boot, which does not."""

    def __init__(self, now: float = NOON) -> None:
        self.now, self.since_boot = now, 5_000.0

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.since_boot += seconds

    def options(self) -> dict:
        return {"clock": lambda: self.now, "elapsed": lambda: self.since_boot}


async def write(folder: Path, *events: AuditEvent, **options) -> AuditLog:
    """Record events; each is written when it says."""
    clocks = Clocks(events[0].time if events else NOON)
    log = AuditLog(folder, **clocks.options(), **options)
    for one in events:
        clocks.pass_by(one.time - clocks.now)
        await log.record(one)
    await log.close()
    return log
