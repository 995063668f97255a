"""What is written down of a request, and where: the same for every way to the guard."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from kidrails_guard.errors import UsageError
from kidrails_guard.proxy import seams
from kidrails_guard.proxy.choice import Choice
from kidrails_guard.proxy.intake import Prepared
from kidrails_guard.proxy.problems import audit_unavailable
from kidrails_guard.proxy.seams import AuditEvent, AuditFailed, AuditSink, Meter, Tenant
from kidrails_guard.types import AgeBand, Verdict

if TYPE_CHECKING:
    from kidrails_guard.alerts import Notifier

_log: Final = logging.getLogger("kidrails.proxy")
_TEND_S: Final = 3600.0

Note = Literal["", "upstream_failed", "caller_left", "shutdown"]


@dataclass(frozen=True, slots=True)
class Smtp:
    """The mail server for alerts."""

    host: str
    sender: str
    port: int = 587
    user: str | None = None
    password: str | None = field(default=None, repr=False)


def smtp_from_environment() -> Smtp | None:
    """Return the mail server of ``KIDRAILS_SMTP_HOST, _FROM, _PORT, _USER, _PASSWORD``.

    Raises:
        UsageError: the port is none.
    """
    given = os.environ.get
    host, sender = given("KIDRAILS_SMTP_HOST"), given("KIDRAILS_SMTP_FROM")
    if not host or not sender:
        return None
    # A compose file gives what is not set as an empty text.
    port = given("KIDRAILS_SMTP_PORT") or "587"
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        raise UsageError(f"KIDRAILS_SMTP_PORT: {port!r} is not a port; accepted: 1 to 65535")
    user, password = given("KIDRAILS_SMTP_USER") or None, given("KIDRAILS_SMTP_PASSWORD") or None
    return Smtp(host, sender, int(port), user, password)


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What the operator wants to have written down, and who is told.

    Attributes:
        audit: folder of the audit log; None keeps none.
        audit_days: how long it is kept.
        audit_text_days: how long texts are kept, encrypted; None keeps none.
        audit_on_failure: what a log that cannot be written means for a request.
        webhooks: URLs that are told of a crisis.
        webhook_hosts: private hosts that a webhook may name.
        emails: addresses that are told of a crisis.
        smtp: the mail server for them.
        alert_text: whether an alert carries the child's words.
    """

    audit: str | None = None
    audit_days: int = 30
    audit_text_days: int | None = None
    audit_on_failure: Literal["refuse", "continue"] = "refuse"
    webhooks: tuple[str, ...] = ()
    webhook_hosts: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    smtp: Smtp | None = None
    alert_text: bool = False

    def audit_sink(self, meter: Meter) -> AuditSink:
        """Return where events are written, with alerts where there are any.

        Raises:
            UsageError: the folder cannot be written, or an alert cannot be sent that way.
        """
        notifiers = self.notifiers()
        sink: AuditSink = seams.NoAudit()
        if self.audit is not None:
            from kidrails_guard.audit import AuditLog

            sink = AuditLog(
                Path(self.audit),
                retention_days=self.audit_days,
                text_retention_days=self.audit_text_days,
                on_failure=self.audit_on_failure,
                on_lost=lambda: meter.failure("audit"),
            )
        if not notifiers:
            return sink
        # Aside, since a mail server that is silent would hold the start up for as long.
        threading.Thread(target=_try_mail, args=(notifiers,), daemon=True).start()
        from kidrails_guard.alerts import AlertingSink

        return AlertingSink(
            sink,
            notifiers,
            with_text=self.alert_text,
            on_given_up=lambda alert: meter.failure("alert"),
            folder=None if self.audit is None else Path(self.audit),
        )

    def notifiers(self) -> list[Notifier]:
        """Return the ways in which a grown-up is told.

        Raises:
            UsageError: an alert cannot be sent that way.
        """
        if not self.webhooks and not self.emails:
            return []
        from kidrails_guard.notifiers import Email, Webhook

        allowed = frozenset(self.webhook_hosts)
        hooks = [Webhook(url, allow=allowed) for url in self.webhooks]
        for hook in hooks:
            hook.check()
        if not self.emails:
            return [*hooks]
        smtp = self.smtp
        if smtp is None:
            raise UsageError(
                "--alert-email: set KIDRAILS_SMTP_HOST and KIDRAILS_SMTP_FROM (and, where "
                "needed, KIDRAILS_SMTP_PORT, _USER, _PASSWORD)"
            )
        # A mail each: a server that refuses one of several addresses does not say so by an error.
        mails = [
            Email(
                host=smtp.host,
                sender=smtp.sender,
                to=(address,),
                port=smtp.port,
                user=smtp.user,
                password=smtp.password,
            )
            for address in self.emails
        ]
        return [*hooks, *mails]


def _try_mail(notifiers: list[Notifier]) -> None:
    """Say at start which mail settings do not hold, so that not the first crisis finds out."""
    from kidrails_guard.notifiers import Email

    for notifier in notifiers:
        if isinstance(notifier, Email):
            notifier.check()


async def tend(audit: AuditSink) -> None:
    """Let the audit do what time brings, from the start and each hour; never ends."""
    while True:
        await audit.tend()
        await asyncio.sleep(_TEND_S)


@dataclass(frozen=True, slots=True)
class Recorder:
    """Counts and writes down what was decided in one request.

    Attributes:
        audit: where it is written.
        meter: counts.
        tenant: whose guard decided.
        band: for whom.
        request_id: the same for the child's message and for the reply; never a caller's words.
        model: its name as the caller wrote it.
        session: the caller's session header, or empty.
    """

    audit: AuditSink
    meter: Meter
    tenant: Tenant
    band: AgeBand
    request_id: str
    model: str = field(repr=False)
    session: str = field(default="", repr=False)

    def event(
        self,
        text: str,
        verdict: Verdict,
        *,
        withheld: int = 0,
        streamed: bool = False,
        note: Note = "",
    ) -> AuditEvent:
        """Return the event for one text."""
        return AuditEvent(
            request_id=self.request_id,
            tenant=self.tenant.name,
            session=self.session,
            band=self.band,
            verdict=verdict,
            text=text,
            policy_digest=self.tenant.policy_digest,
            model=self.model,
            withheld_characters=withheld,
            streamed=streamed,
            note=note,
        )

    async def write(self, event: AuditEvent, *, needed: bool = True) -> None:
        """Count and write one event.

        Args:
            event: of this request.
            needed: whether nothing may be answered without it. Fixed words are, so that a child in
                danger is answered whatever the disk does; what has left cannot be called back.

        Raises:
            Problem: it is needed and cannot be written.
        """
        verdict = event.verdict
        self.meter.verdict(event.tenant, verdict.stage, verdict.action, verdict.hazard)
        try:
            await self.audit.record(event)
        except AuditFailed as failed:
            _log.error("%s audit: %s", self.request_id, failed)
            if needed:
                raise audit_unavailable() from None
            self.meter.failure("audit")

    async def message(self, prepared: Prepared) -> None:
        """Write down a child's message, before the model is asked.

        Raises:
            Problem: it cannot be written, and the model would be asked.
        """
        verdict = prepared.verdict
        await self.write(self.event(prepared.text, verdict), needed=not verdict.action.answers)

    async def replies(
        self, choices: Iterable[Choice], note: Note = "", *, streamed: bool = False
    ) -> None:
        """Write down what became of the replies: before a whole one leaves, after a streamed one.

        Raises:
            Problem: a whole one cannot be written.
        """
        for choice in choices:
            event = self.event(
                choice.text,
                choice.verdict,
                withheld=choice.withheld,
                streamed=streamed,
                note=note,
            )
            await self.write(event, needed=not streamed)
