"""Tells a grown-up at once when a child is in danger: webhook, e-mail, the local inbox.

An alert says that something happened, when and for whom to look; never what the child wrote,
unless the operator switched that on. Sending never delays or fails an answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import smtplib
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from kidrails_guard.errors import UsageError
from kidrails_guard.proxy.seams import AuditEvent, AuditSink
from kidrails_guard.types import Action

_log = logging.getLogger(__name__)
RETRY_SECONDS = (1.0, 5.0, 30.0, 120.0)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


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


def public_addresses(host: str, port: int, *, allow: frozenset[str] = frozenset()) -> list[str]:
    """Return a host's addresses, if all may be called from a server.

    Args:
        host: name or address.
        port: for the look-up.
        allow: hosts that the operator names although they are private.

    Raises:
        UsageError: the host is unknown, or an address is private, loopback, link-local or
            otherwise not public (server-side request forgery, CWE-918).
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise UsageError(f"webhook: the host {host!r} is not known") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if host not in allow:
        for address in addresses:
            if not is_public(address):
                raise UsageError(
                    f"webhook: {host!r} leads to {address}, which is not a public address; if that "
                    f"is meant, start with --alert-host {host}"
                )
    return addresses


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet, whatever it is wrapped in.

    Addresses of the IPv6 transition mechanisms carry an IPv4 address that a router unwraps, so that
    one decides.

    Source: RFC 6052 (64:ff9b::/96), RFC 3056 (2002::/16), RFC 4291 2.5.5.1 (::a.b.c.d).
    """
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64 or found in _COMPATIBLE:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found.is_site_local or found in _LOCAL_NAT64:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


class Webhook:
    """Posts alerts to a URL.

    The host is looked up and judged for every alert, and the judged address is the one that is
    called, so that a name cannot change its meaning in between. Redirects are not followed.

    Args:
        url: http or https.
        allow: private hosts that the operator names.
        transport: for tests.

    Raises:
        UsageError: the URL is not one that may be called.
    """

    def __init__(
        self,
        url: str,
        *,
        allow: frozenset[str] = frozenset(),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise UsageError(
                "webhook: needs an http(s) URL with a host and without user or password"
            )
        self._url, self._host, self._allow, self._transport = url, parts.hostname, allow, transport
        self._port = parts.port or (443 if parts.scheme == "https" else 80)

    async def send(self, alert: Alert) -> None:
        """Post one alert.

        Raises:
            UsageError: the host leads to an address that may not be called.
            httpx.HTTPError: it did not answer with success.
        """
        loop = asyncio.get_running_loop()
        addresses = await loop.run_in_executor(
            None, lambda: public_addresses(self._host, self._port, allow=self._allow)
        )
        url = httpx.URL(self._url)
        request_url = url.copy_with(host=addresses[0])
        async with httpx.AsyncClient(
            transport=self._transport, timeout=10.0, follow_redirects=False, trust_env=False
        ) as client:
            response = await client.post(
                request_url,
                json=alert.payload(),
                headers={"host": url.netloc.decode("ascii"), "user-agent": "kidrails"},
                extensions={"sni_hostname": self._host},
            )
            if not response.is_success:
                raise httpx.HTTPStatusError(
                    f"status {response.status_code}", request=response.request, response=response
                )


@dataclass(frozen=True, slots=True)
class Email:
    """Sends alerts by SMTP.

    Attributes:
        host: the mail server.
        port: its port.
        sender: from whom.
        to: to whom.
        user: for authentication; None sends without.
        password: likewise.
        starttls: encrypt before authenticating.
    """

    host: str
    sender: str
    to: tuple[str, ...]
    port: int = 587
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    starttls: bool = True

    async def send(self, alert: Alert) -> None:
        """Send one alert.

        Raises:
            OSError: the server was not reached or refused.
        """
        await asyncio.get_running_loop().run_in_executor(None, self._send, alert)

    def _send(self, alert: Alert) -> None:
        message = EmailMessage()
        message["Subject"] = f"KidRails: a child needs a grown-up now ({alert.hazard})"
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        message.set_content("\n".join(f"{k}: {v}" for k, v in alert.payload().items()) + "\n")
        with smtplib.SMTP(self.host, self.port, timeout=15) as server:
            if self.starttls:
                server.starttls(context=ssl.create_default_context())
            if self.user is not None:
                server.login(self.user, self.password or "")
            server.send_message(message)


class AlertingSink:
    """An `AuditSink` that also alerts when the verdict on a child's message is a crisis.

    Args:
        inner: writes the event down first.
        notifiers: each gets every alert, with retries.
        with_text: also send the child's words; off by default.
        retry_seconds: waits between tries, `RETRY_SECONDS` when absent; after the last one the
            alert is given up and logged.
        on_given_up: told when an alert did not arrive.
    """

    def __init__(
        self,
        inner: AuditSink,
        notifiers: Sequence[Notifier],
        *,
        with_text: bool = False,
        retry_seconds: Sequence[float] | None = None,
        on_given_up: Callable[[Alert], None] | None = None,
    ) -> None:
        self._inner, self._notifiers, self._with_text = inner, tuple(notifiers), with_text
        retries = RETRY_SECONDS if retry_seconds is None else retry_seconds
        self._retries, self._on_given_up = tuple(retries), on_given_up
        self._tasks: set[asyncio.Task[None]] = set()

    async def record(self, event: AuditEvent) -> None:
        """Write the event down, then alert without waiting.

        Raises:
            AuditFailed: from the inner sink; the alert goes out all the same.
        """
        try:
            await self._inner.record(event)
        finally:
            if event.verdict.action is Action.CRISIS:
                alert = Alert(
                    datetime.fromtimestamp(event.time, UTC).isoformat(timespec="seconds"),
                    event.tenant,
                    str(event.band),
                    event.verdict.hazard.label,
                    event.request_id,
                    event.text if self._with_text else None,
                )
                for notifier in self._notifiers:
                    task = asyncio.create_task(self._deliver(notifier, alert))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def tend(self) -> None:
        """Let the inner sink do what time brings."""
        await self._inner.tend()

    async def close(self) -> None:
        """Give alerts under way a moment, then close the inner sink."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
            for task in self._tasks:
                task.cancel()
        await self._inner.close()

    async def _deliver(self, notifier: Notifier, alert: Alert) -> None:
        for wait in (*self._retries, None):
            try:
                await notifier.send(alert)
            except Exception as error:
                # The type only: a message could hold an address or the payload.
                _log.warning(
                    "alert %s by %s failed (%s)%s",
                    alert.request_id,
                    type(notifier).__name__,
                    type(error).__name__,
                    "" if wait is None else f"; again in {wait:g} s",
                )
                if wait is None:
                    break
                await asyncio.sleep(wait)
            else:
                return
        _log.error(
            "alert %s by %s given up; somebody must look at the audit log: %s",
            alert.request_id,
            type(notifier).__name__,
            json.dumps({"tenant": alert.tenant, "hazard": alert.hazard}),
        )
        if self._on_given_up is not None:
            self._on_given_up(alert)
