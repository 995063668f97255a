"""Webhooks and mails go to addresses that may be called, and to nobody who listens in."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import smtplib
import socketserver
import ssl
import threading
from collections.abc import Iterator
from email.message import EmailMessage

import httpx
import pytest
from clients import Ledger
from upstreams import wait_until

from kidrails_guard.addresses import is_public, public_addresses
from kidrails_guard.alerts import Alert
from kidrails_guard.commands import serve
from kidrails_guard.errors import UsageError
from kidrails_guard.notifiers import Email, Webhook
from kidrails_guard.proxy.deployment import Deployment
from kidrails_guard.proxy.records import Smtp, smtp_from_environment
from kidrails_guard.proxy.settings import Settings

_parser = argparse.ArgumentParser()
serve.add_arguments(_parser)
OPTIONS = _parser._option_string_actions

ALERT = Alert("2026-11-23T10:00:00+00:00", "home", "7-9", "self_harm", "r1")


@pytest.mark.parametrize("url", ["http://10.0.0.7/x", "http://localhost:9/x", "http://[::1]:9/x"])
def test_a_webhook_that_may_not_be_called_is_refused_at_start(url: str) -> None:
    given = Deployment(Settings("http://u.test"), webhooks=(url,))
    for start in (given.check, lambda: given.audit_sink(Ledger())):
        with pytest.raises(UsageError, match="not a public address"):
            start()


def test_a_webhook_that_nobody_knows_yet_is_only_warned_of(caplog) -> None:
    Webhook("http://no-such-host.invalid/x").check()
    assert "'no-such-host.invalid' is not known now" in caplog.text


@pytest.mark.parametrize("host", ["LocalHost", "localhost", "127.0.0.1", "[::1]", "::1"])
def test_an_allowed_host_may_be_written_in_any_case(host: str) -> None:
    url = f"http://{f'[{host}]' if host == '::1' else host}:9/x"
    Webhook(url, allow=frozenset({host})).check()
    with pytest.raises(UsageError, match=r"not a public address|is not known"):
        Webhook(url.replace("localhost", "127.0.0.2"), allow=frozenset({"other"})).check()


@pytest.mark.parametrize("url", ["http://h:99999999/x", "http://[::1/x", "http://h:port/x"])
def test_a_webhook_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="webhook: not a URL"):
        Webhook(url)


@pytest.mark.parametrize(
    "url", ["ftp://example.org", "http://", "https://user:pw@example.org/x", "javascript:1"]
)
def test_odd_webhooks_are_refused_at_start(url: str) -> None:
    with pytest.raises(UsageError, match="webhook"):
        Webhook(url)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "10.0.0.7", "169.254.169.254", "0.0.0.0", "100.64.0.1"),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fd00::1", "fe80::1", "fec0::1", "ff02::1"),
        # An IPv4 address inside an IPv6 one, by every way of wrapping it
        *("::ffff:127.0.0.1", "::10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:7f00:1::"),
        # Other ways of writing 127.0.0.1
        *("2130706433", "0x7f000001", "127.1", "0177.0.0.1"),
    ],
)
async def test_private_addresses_are_not_called(host: str) -> None:
    called = []
    transport = httpx.MockTransport(lambda request: called.append(request) or httpx.Response(200))
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    hook = Webhook(f"http://{name}:9/alert", transport=transport)
    with pytest.raises(UsageError, match=r"not a public address|not known") as caught:
        await hook.send(ALERT)
    assert called == []
    for option in re.findall(r"--[\w-]+", str(caught.value)):
        assert option in OPTIONS


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


async def test_a_host_with_one_private_address_among_public_ones_is_not_called(monkeypatch) -> None:
    found = [(2, 1, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **more: found)
    with pytest.raises(UsageError, match=r"leads to 10\.0\.0\.1"):
        public_addresses("two-faced.test", 80)


async def test_an_allowed_private_host_gets_the_alert_at_the_judged_address() -> None:
    called: list[httpx.Request] = []
    transport = httpx.MockTransport(lambda request: called.append(request) or httpx.Response(204))
    hook = Webhook(
        "http://localhost:9/alert?x=1", allow=frozenset({"localhost"}), transport=transport
    )
    await hook.send(ALERT)
    assert called[0].url.host in {"127.0.0.1", "::1"}
    assert called[0].headers["host"] == "localhost:9"
    assert json.loads(called[0].content)["hazard"] == "self_harm"


async def test_a_redirect_or_error_counts_as_not_arrived() -> None:
    for status in (302, 500):
        transport = httpx.MockTransport(
            lambda request, status=status: httpx.Response(status, headers={"location": "http://10.0.0.1/"})
        )  # fmt: skip
        hook = Webhook("http://localhost:9/", allow=frozenset({"localhost"}), transport=transport)
        with pytest.raises(httpx.HTTPStatusError):
            await hook.send(ALERT)


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(UsageError, match="not known"):
        public_addresses("no-such-host.invalid", 80)


async def test_of_a_hosts_addresses_the_first_that_takes_a_connection_gets_it(monkeypatch) -> None:
    found = [(10, 1, 6, "", ("2001:4860:4860::8888", 80, 0, 0)), (2, 1, 6, "", ("8.8.8.8", 80))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **more: found)
    called: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        called.append(request.url.host)
        if ":" in request.url.host:
            raise httpx.ConnectTimeout("no way there")
        return httpx.Response(204)

    hook = Webhook("http://both.test/x", transport=httpx.MockTransport(answer))
    await hook.send(ALERT)
    assert called == ["2001:4860:4860::8888", "8.8.8.8"]
    del found[1]
    with pytest.raises(httpx.ConnectTimeout):
        await hook.send(ALERT)


@contextlib.contextmanager
def mail_server() -> Iterator[tuple[int, list[str]]]:
    """A small SMTP server that keeps what it is sent."""
    mails: list[str] = []

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 test\r\n")
            while line := self.rfile.readline():
                word = line.split()[0].upper() if line.split() else b""
                if word == b"DATA":
                    self.wfile.write(b"354 go\r\n")
                    body = []
                    while (part := self.rfile.readline()) != b".\r\n":
                        body.append(part.decode())
                    mails.append("".join(body))
                elif word == b"QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    return
                elif b"gone@" in line:
                    self.wfile.write(b"550 no such mailbox\r\n")
                    continue
                self.wfile.write(b"250 ok\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], mails
        server.shutdown()


async def test_a_mail_server_without_a_certificate_that_holds_gets_nothing() -> None:
    with mail_server() as (port, mails):
        mail = Email("127.0.0.1", "guard@example.org", ("parent@example.org",), port=port)
        with pytest.raises((OSError, ssl.SSLError)):
            await mail.send(ALERT)
    assert mails == []


def test_starttls_checks_the_certificate(monkeypatch) -> None:
    contexts = []

    class Server:
        def __init__(self, *args, **more) -> None: ...

        def __enter__(self):
            return self

        def __exit__(self, *args) -> None: ...

        def starttls(self, *, context=None) -> None:
            contexts.append(context)

        def send_message(self, message) -> None: ...

    monkeypatch.setattr("smtplib.SMTP", Server)
    Email("mail.test", "a@b.test", ("c@d.test",))._send(ALERT)
    assert contexts[0].check_hostname
    assert contexts[0].verify_mode is ssl.CERT_REQUIRED


def test_port_465_is_encrypted_from_the_first_byte(monkeypatch) -> None:
    opened = []

    class Server:
        def __init__(self, host, port, *, timeout, context=None) -> None:
            opened.append((host, port, context.verify_mode))

        def __enter__(self):
            return self

        def __exit__(self, *args) -> None: ...

        def send_message(self, message) -> None: ...

    monkeypatch.setattr("smtplib.SMTP_SSL", Server)
    Email("mail.test", "a@b.test", ("c@d.test",), port=465)._send(ALERT)
    assert opened == [("mail.test", 465, ssl.CERT_REQUIRED)]


async def test_an_email_arrives_over_real_smtp() -> None:
    with mail_server() as (port, mails):
        mail = Email("127.0.0.1", "guard@example.org", ("parent@example.org",), port=port,
                     starttls=False)  # fmt: skip
        await mail.send(ALERT)
    assert "a child needs a grown-up now" in mails[0].replace("\r\n ", " ")
    assert "request_id: r1" in mails[0]


async def test_an_address_that_is_refused_is_noticed_beside_one_that_is_not(monkeypatch) -> None:
    class Server:
        """Refuses one address; like smtplib, raises where it has refused all."""

        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> Server:
            return self

        def __exit__(self, *_: object) -> None: ...
        def starttls(self, **_: object) -> None: ...
        def send_message(self, message: EmailMessage) -> dict[str, tuple[int, bytes]]:
            refused = {to: (550, b"") for to in message["To"].split(", ") if "gone" in to}
            if len(refused) == len(message["To"].split(", ")):
                raise smtplib.SMTPRecipientsRefused(refused)
            return refused

    monkeypatch.setattr(smtplib, "SMTP", Server)
    given = Deployment(
        Settings("http://u.test"),
        emails=("here@b.test", "gone@b.test"),
        smtp=Smtp("mail.test", "a@b.test"),
    )
    here, gone = given.notifiers()
    await here.send(ALERT)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        await gone.send(ALERT)


@pytest.mark.parametrize(
    "address", ["", "a@", "@b", "a b@c.test", "a@b c", "a@b.test, c@d.test", "a@b.test\nx: y"]
)
def test_what_is_not_one_address_is_refused_at_start(address: str) -> None:
    given = Deployment(
        Settings("http://u.test"), emails=(address,), smtp=Smtp("mail.test", "a@b.test")
    )
    with pytest.raises(UsageError, match=r"alert e-mail: .* is not one e-mail address"):
        given.notifiers()
    with pytest.raises(UsageError, match="KIDRAILS_SMTP_FROM"):
        Email("mail.test", address, ("c@d.test",))


@pytest.mark.parametrize("address", ["root", "a@b.test", "Ann Lee <a@b.test>", "ä@ö.test"])
def test_every_way_of_writing_an_address_is_taken(address: str) -> None:
    Email("mail.test", address, (address,))


def test_mail_settings_that_do_not_hold_are_said_at_start(caplog) -> None:
    with mail_server() as (port, mails):
        for to in ("here@b.test", "gone@b.test"):
            Email("127.0.0.1", "a@b.test", (to,), port=port, starttls=False).check()
    (said,) = caplog.messages
    assert "takes no mail for gone@b.test now" in said
    assert "no such mailbox" in said
    assert mails == []
    caplog.clear()
    given = Deployment(
        Settings("http://u.test"),
        emails=("here@b.test",),
        smtp=Smtp("127.0.0.1", "a@b.test", port=port),
    )
    given.audit_sink(Ledger())
    wait_until(lambda: bool(caplog.messages), what="the warning")
    assert f"127.0.0.1:{port} takes no mail for here@b.test now" in caplog.text


def test_an_empty_variable_counts_as_none(monkeypatch) -> None:
    for name, value in {"HOST": "mail.test", "FROM": "a@b.test", "PORT": "", "USER": ""}.items():
        monkeypatch.setenv(f"KIDRAILS_SMTP_{name}", value)
    assert smtp_from_environment() == Smtp("mail.test", "a@b.test")
    for port in ("0", "65536", "99999999", "²", "smtp"):
        monkeypatch.setenv("KIDRAILS_SMTP_PORT", port)
        with pytest.raises(UsageError, match=r"KIDRAILS_SMTP_PORT: .* accepted: 1 to 65535"):
            smtp_from_environment()
