"""The ways in which a grown-up is told of an alert: webhook and e-mail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Final
from urllib.parse import urlsplit

import httpx

from kidrails_guard.addresses import UnknownHost, public_addresses
from kidrails_guard.alerts import Alert
from kidrails_guard.errors import UsageError

_log = logging.getLogger(__name__)
_SMTPS: Final = 465
"""The port on which a connection is encrypted from its first byte (RFC 8314)."""
_ADDRESS: Final = re.compile(r"[^\s@,<>]+(?:@[^\s@,<>]+)?|[^@,<>\x00-\x1f]*<[^\s@,<>]+@[^\s@,<>]+>")


class Webhook:
    """Posts alerts to a URL.

    The host is looked up and judged for every alert, and the judged address is the one that is
    called, so that a name cannot change its meaning in between. Redirects are not followed.

    Args:
        url: http or https.
        allow: private hosts that the operator names, as a URL may write them.
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
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(
                f"webhook: not a URL ({error}); e.g. https://example.org/alert"
            ) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise UsageError(
                "webhook: needs an http(s) URL with a host and without user or password"
            )
        self._url, self._host, self._transport = url, parts.hostname, transport
        self._allow = frozenset(host.lower().strip("[]") for host in allow)
        self._port = port or (443 if parts.scheme == "https" else 80)

    def check(self) -> None:
        """Look the host up at start, so that not the first child in danger finds out.

        Raises:
            UsageError: it leads to an address that may not be called.
        """
        try:
            public_addresses(self._host, self._port, allow=self._allow)
        except UnknownHost as error:
            # Names may come up later than this service; each alert looks again.
            _log.warning("%s now; without it no alert can be sent there", error)

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
        async with httpx.AsyncClient(
            transport=self._transport, timeout=10.0, follow_redirects=False, trust_env=False
        ) as client:
            response = await self._post(client, addresses, alert)
            if not response.is_success:
                raise httpx.HTTPStatusError(
                    f"status {response.status_code}", request=response.request, response=response
                )

    async def _post(
        self, client: httpx.AsyncClient, addresses: list[str], alert: Alert
    ) -> httpx.Response:
        """Post to the first of the addresses that takes a connection: one of two may be dead."""
        url = httpx.URL(self._url)
        for left, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
            try:
                return await client.post(
                    url.copy_with(host=address),
                    json=alert.payload(),
                    headers={"host": url.netloc.decode("ascii"), "user-agent": "kidrails"},
                    extensions={"sni_hostname": self._host},
                )
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if not left:
                    raise
        raise AssertionError("a host that is known has an address")


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
        starttls: encrypt, from the first byte on port 465 and before authenticating elsewhere.

    Raises:
        UsageError: an address is none.
    """

    host: str
    sender: str
    to: tuple[str, ...]
    port: int = 587
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    starttls: bool = True

    def __post_init__(self) -> None:
        for name, value in (
            ("KIDRAILS_SMTP_FROM", self.sender),
            *(("alert e-mail", address) for address in self.to),
        ):
            if not _ADDRESS.fullmatch(value):
                raise UsageError(
                    f"{name}: {value!r} is not one e-mail address, e.g. parent@example.org"
                )

    def check(self) -> None:
        """Ask the mail server at start whether it would take an alert; nothing is sent.

        Whatever is wrong is said in the log: a server may come up later than this service.
        """
        try:
            with self._session() as server:
                server.ehlo_or_helo_if_needed()
                sender = parseaddr(self.sender)[1]
                for to in (parseaddr(one)[1] for one in self.to):
                    if not f"{sender}{to}".isascii():
                        continue  # such a mail is negotiated when it is sent
                    for code, reply in (server.mail(sender), server.rcpt(to)):
                        if code not in {250, 251}:
                            raise smtplib.SMTPResponseException(code, reply)
                    server.rset()
        except Exception as error:
            # No child has said anything yet, so the server's words are the operator's own.
            said = f"{type(error).__name__}: {error}"[:300]
            _log.warning(
                "KIDRAILS_SMTP_HOST: %s:%d takes no mail for %s now (%s); until it does, no alert "
                "arrives there",
                self.host, self.port, ", ".join(self.to), said,
            )  # fmt: skip

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
        with self._session() as server:
            server.send_message(message)

    @contextlib.contextmanager
    def _session(self) -> Iterator[smtplib.SMTP]:
        context = ssl.create_default_context()
        with self._connect(context) as server:
            if self.starttls and self.port != _SMTPS:
                server.starttls(context=context)
            if self.user is not None:
                server.login(self.user, self.password or "")
            yield server

    def _connect(self, context: ssl.SSLContext) -> smtplib.SMTP:
        if self.starttls and self.port == _SMTPS:
            # Such a server says nothing before the handshake: a plain connection waits for ever.
            return smtplib.SMTP_SSL(self.host, self.port, timeout=15, context=context)
        return smtplib.SMTP(self.host, self.port, timeout=15)
