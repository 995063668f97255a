"""Tells a grown-up at once when a child is in danger: webhook, e-mail, the local inbox.

An alert says that something happened, when and for whom to look; never what the child wrote,
unless the operator switched that on. Sending never delays or fails an answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from kidrails_guard.audit.files import AuditError
from kidrails_guard.audit.waiting import keep_alert, take_alerts
from kidrails_guard.errors import UsageError
from kidrails_guard.proxy.seams import AuditEvent, AuditSink
from kidrails_guard.types import Action

_log = logging.getLogger(__name__)
RETRY_SECONDS = (1.0, 5.0, 30.0, 120.0)
CLOSING_SECONDS = 5.0
"""Alerts under way have so long when the service stops."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What a grown-up is told.

    Attributes:
        time: UTC, ISO 8601.
        tenant: whose service.
        band: the child's age band.
        hazard: which protocol ran, e.g. ``self_harm``.
        request_id: finds the line in the audit log.
        text: the child's words, only where the operator switched that on.
    """

    time: str
    tenant: str
    band: str
    hazard: str
    request_id: str
    text: str | None = field(default=None, repr=False)

    def payload(self) -> dict[str, str]:
        """Return what is sent as JSON."""
        values = {
            "event": "kidrails.crisis",
            "time": self.time,
            "tenant": self.tenant,
            "band": self.band,
            "hazard": self.hazard,
            "request_id": self.request_id,
            "what_to_do": "Find the child now and stay near. The crisis words have been shown.",
        }
        return values if self.text is None else values | {"text": self.text}


class Notifier(Protocol):
    """One way to reach a grown-up."""

    async def send(self, alert: Alert) -> None:
        """Send one alert; raise when it did not arrive."""
        ...


class AlertingSink:
    """An `AuditSink` that also alerts when the verdict on a child's message is a crisis.

    Args:
        inner: writes the event down first.
        notifiers: each gets every alert, with retries.
        with_text: also send the child's words; off by default.
        retry_seconds: waits between tries, `RETRY_SECONDS` when absent; after the last one the
            alert is given up and logged.
        on_given_up: told when an alert did not arrive.
        folder: the audit folder: what is not delivered when the service stops waits there for the
            next start, without words.
    """

    def __init__(
        self,
        inner: AuditSink,
        notifiers: Sequence[Notifier],
        *,
        with_text: bool = False,
        retry_seconds: Sequence[float] | None = None,
        on_given_up: Callable[[Alert], None] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._inner, self._notifiers, self._with_text = inner, tuple(notifiers), with_text
        self._folder = folder
        retries = RETRY_SECONDS if retry_seconds is None else retry_seconds
        self._retries, self._on_given_up = tuple(retries), on_given_up
        self._tasks: dict[asyncio.Task[None], Alert] = {}

    async def record(self, event: AuditEvent) -> None:
        """Write the event down, then alert without waiting.

        Raises:
            AuditFailed: from the inner sink; the alert goes out all the same.
        """
        try:
            await self._inner.record(event)
        finally:
            if event.verdict.action is Action.CRISIS:
                self._send(Alert(
                    datetime.fromtimestamp(event.time, UTC).isoformat(timespec="seconds"),
                    event.tenant,
                    str(event.band),
                    event.verdict.hazard.label,
                    event.request_id,
                    event.text if self._with_text else None,
                ))  # fmt: skip

    def _send(self, alert: Alert) -> None:
        for notifier in self._notifiers:
            task = asyncio.create_task(self._deliver(notifier, alert))
            self._tasks[task] = alert
            task.add_done_callback(self._tasks.pop)

    async def tend(self) -> None:
        """Send what waits since an earlier stop, then let the inner sink do what time brings."""
        if self._folder is not None:
            try:
                waiting = take_alerts(self._folder)
            except (OSError, AuditError) as error:
                waiting = []
                _log.error("%s: waiting alerts cannot be read (%s)", self._folder, error)
            for values in waiting:
                _log.warning("alert %s waited since the last stop", values.get("request_id"))
                self._send(Alert(**values))
        await self._inner.tend()

    async def close(self) -> None:
        """Give alerts under way a moment, keep the others, then close the inner sink."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSING_SECONDS)
            left = {alert.request_id: alert for alert in (self._tasks[task] for task in late)}
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            for alert in left.values():
                self._leave(alert)
        await self._inner.close()

    def _leave(self, alert: Alert) -> None:
        """Keep an alert for the next start, or say aloud that it is lost."""
        if self._folder is not None:
            try:
                keep_alert(self._folder, {k: v for k, v in asdict(alert).items() if k != "text"})
            except (OSError, AuditError) as error:
                _log.error("%s: an alert cannot be kept (%s)", self._folder, error)
            else:
                _log.error(
                    "alert %s waits: the service stops; it is sent when it starts again",
                    alert.request_id,
                )
                return
        self._give_up(alert, "the service stops")

    def _give_up(self, alert: Alert, why: str) -> None:
        _log.error(
            "alert %s given up: %s; somebody must look at the audit log: %s",
            alert.request_id,
            why,
            json.dumps({"tenant": alert.tenant, "hazard": alert.hazard}),
        )
        if self._on_given_up is not None:
            self._on_given_up(alert)

    async def _deliver(self, notifier: Notifier, alert: Alert) -> None:
        for wait in (*self._retries, None):
            try:
                await notifier.send(alert)
            except Exception as error:
                # Of others the type only: a message could hold an address or the payload.
                reason = str(error) if isinstance(error, UsageError) else type(error).__name__
                _log.warning(
                    "alert %s by %s failed (%s)%s",
                    alert.request_id,
                    type(notifier).__name__,
                    reason,
                    "" if wait is None else f"; again in {wait:g} s",
                )
                if wait is None:
                    break
                await asyncio.sleep(wait)
            else:
                return
        self._give_up(alert, f"{type(notifier).__name__} does not take it")
