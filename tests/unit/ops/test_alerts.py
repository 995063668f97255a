"""A crisis reaches a grown-up, without the child's words, and only at addresses that may be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator

import httpx
import pytest

from kidrails_guard.alerts import Alert, AlertingSink, Email, Webhook, public_addresses
from kidrails_guard.errors import UsageError
from kidrails_guard.proxy.seams import AuditEvent, AuditFailed, NoAudit
from kidrails_guard.types import Action, AgeBand, Hazard, Verdict

ALERT = Alert("2026-11-23T10:00:00+00:00", "home", "7-9", "self_harm", "r1")


def crisis(text: str = "the child's words", action: Action = Action.CRISIS) -> AuditEvent:
    verdict = Verdict(action, hazard=Hazard.SELF_HARM)
    return AuditEvent("r1", "home", "", AgeBand.MIDDLE, verdict, text, "d", "m")


class Collects:
    def __init__(self, fail: int = 0) -> None:
        self.fail, self.got = fail, []

    async def send(self, alert: Alert) -> None:
        if self.fail:
            self.fail -= 1
            raise ConnectionError("no words of mine")
        self.got.append(alert)


async def test_only_a_crisis_alerts_and_never_with_words_by_default() -> None:
    notifier = Collects()
    sink = AlertingSink(NoAudit(), [notifier])
    await sink.record(crisis(action=Action.REFUSE))
    await sink.record(crisis())
    await sink.close()
    assert len(notifier.got) == 1
    assert "child's words" not in json.dumps(notifier.got[0].payload())
    opted_in = Collects()
    sink = AlertingSink(NoAudit(), [opted_in], with_text=True)
    await sink.record(crisis())
    await sink.close()
    assert opted_in.got[0].payload()["text"] == "the child's words"
    assert "words" not in repr(opted_in.got[0])


async def test_it_retries_and_gives_up_aloud(caplog) -> None:
    flaky, dead, lost = Collects(fail=2), Collects(fail=99), []
    sink = AlertingSink(NoAudit(), [flaky, dead], retry_seconds=(0, 0), on_given_up=lost.append)
    await sink.record(crisis())
    await asyncio.sleep(0.05)
    await sink.close()
    assert len(flaky.got) == 1
    assert [alert.request_id for alert in lost] == ["r1"]
    assert "given up" in caplog.text
    assert "words" not in caplog.text


async def test_a_failing_log_does_not_stop_the_alert() -> None:
    class Full(NoAudit):
        async def record(self, event: AuditEvent) -> None:
            raise AuditFailed("disk full")

    notifier = Collects()
    sink = AlertingSink(Full(), [notifier])
    with pytest.raises(AuditFailed):
        await sink.record(crisis())
    await sink.close()
    assert len(notifier.got) == 1


@pytest.mark.parametrize(
    "url", ["ftp://example.org", "http://", "https://user:pw@example.org/x", "javascript:1"]
)
def test_odd_webhooks_are_refused_at_start(url: str) -> None:
    with pytest.raises(UsageError, match="webhook"):
        Webhook(url)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.0.0.7", "169.254.169.254", "::1", "0.0.0.0", "::ffff:127.0.0.1"],
)
async def test_private_addresses_are_not_called(host: str) -> None:
    called = []
    transport = httpx.MockTransport(lambda request: called.append(request) or httpx.Response(200))
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    hook = Webhook(f"http://{name}:9/alert", transport=transport)
    with pytest.raises(UsageError, match=r"not a public address|not known"):
        await hook.send(ALERT)
    assert called == []


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
                self.wfile.write(b"250 ok\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], mails
        server.shutdown()


async def test_an_email_arrives_over_real_smtp() -> None:
    with mail_server() as (port, mails):
        mail = Email("127.0.0.1", "guard@example.org", ("parent@example.org",), port=port,
                     starttls=False)  # fmt: skip
        await mail.send(ALERT)
    assert "a child needs a grown-up now" in mails[0].replace("\r\n ", " ")
    assert "request_id: r1" in mails[0]
