"""A crisis reaches a grown-up, without the child's words, and only at addresses that may be."""

from __future__ import annotations

import asyncio
import json

import pytest
from clients import Ledger, Proxied
from planted import Planted, planted_guard

from kidrails_guard.alerts import Alert, AlertingSink
from kidrails_guard.audit import AuditLog, read_inbox
from kidrails_guard.notifiers import Webhook
from kidrails_guard.proxy.deployment import Deployment
from kidrails_guard.proxy.seams import AuditEvent, AuditFailed, NoAudit
from kidrails_guard.proxy.settings import Settings
from kidrails_guard.types import Action, AgeBand, Hazard, Stage, Verdict


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


@pytest.fixture(autouse=True)
def _close_soon(monkeypatch) -> None:
    monkeypatch.setattr("kidrails_guard.alerts.CLOSING_SECONDS", 0.2)


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


async def test_two_children_with_the_same_first_words_are_two_alerts() -> None:
    check, notifier = Planted(), Collects()
    proxy = Proxied(guard=planted_guard(check))
    sink = AlertingSink(proxy.ledger, [notifier])
    proxy.app.state.service.audit = sink
    for name in ("anna", "ben"):
        answer = await proxy.chat("i want to vanish", headers={"x-kidrails-session": name})
        assert answer.headers["x-kidrails-action"] == "crisis"
    await sink.close()
    # The second verdict is remembered; what follows from it is not left out.
    assert check.windows == ["i want to vanish"]
    assert [event.session for event in proxy.ledger.events] == ["anna", "ben"]
    assert len({alert.request_id for alert in notifier.got}) == 2
    assert proxy.ledger.verdicts == [
        ("local", Stage.INPUT, Action.CRISIS, Hazard.SELF_HARM),
        ("local", Stage.INPUT, Action.CRISIS, Hazard.SELF_HARM),
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_child_in_danger_is_answered_and_somebody_told_on_a_full_disk(stream) -> None:
    proxy, notifier = Proxied(), Collects()
    sink = AlertingSink(proxy.ledger, [notifier])
    proxy.app.state.service.audit = sink
    proxy.ledger.refuse = lambda event: True
    response = await proxy.chat("i want to vanish", stream=stream)
    assert response.status_code == 200
    assert "trust" in response.text
    assert (await proxy.chat("hello", stream=stream)).status_code == 503
    await sink.close()
    assert len(notifier.got) == 1
    assert proxy.ledger.failures == ["audit", "audit"]
    assert proxy.upstream.asked == []


async def test_an_alert_that_never_arrives_is_counted_by_the_service(monkeypatch) -> None:
    monkeypatch.setattr("kidrails_guard.alerts.RETRY_SECONDS", (0.0,))
    monkeypatch.setattr("kidrails_guard.notifiers.public_addresses", lambda *a, **b: ["127.0.0.1"])
    deployment = Deployment(Settings("http://u.test"), webhooks=("http://alerts.test:9/x",))
    ledger = Ledger()
    sink = deployment.audit_sink(ledger)
    await sink.record(crisis())
    await sink.close()
    assert ledger.failures == ["alert"]


async def test_what_is_not_delivered_at_a_stop_is_sent_after_the_start(tmp_path, caplog) -> None:
    lost, down, up = [], Collects(fail=99), Collects()

    def sink(*notifiers: Collects) -> AlertingSink:
        return AlertingSink(
            AuditLog(tmp_path), notifiers, with_text=True, retry_seconds=(60.0,),
            on_given_up=lost.append, folder=tmp_path,
        )  # fmt: skip

    first = sink(down)
    await first.record(crisis())
    await first.record(crisis())
    await first.close()
    assert "sent when it starts again" in caplog.text
    for path in tmp_path.iterdir():
        assert b"child's words" not in path.read_bytes()
    forged = tmp_path / "alerts.jsonl"
    forged.write_text(forged.read_text() + forged.read_text().replace("r1", "r2") + "{half")
    second = sink(up)
    await second.tend()
    await second.close()
    assert [(alert.request_id, alert.text) for alert in up.got] == [("r1", None)]
    assert "none of our alerts" in caplog.text
    third = sink(up)
    await third.tend()
    await third.close()
    assert len(up.got) == 1
    assert lost == []
    assert len(read_inbox(tmp_path)) == 2


async def test_an_alert_that_cannot_wait_for_a_start_is_given_up_aloud(caplog) -> None:
    lost: list[Alert] = []
    sink = AlertingSink(
        NoAudit(), [Collects(fail=99)], retry_seconds=(60.0,), on_given_up=lost.append
    )
    await sink.record(crisis())
    await sink.close()
    assert [alert.request_id for alert in lost] == ["r1"]
    assert "given up: the service stops" in caplog.text
    assert "words" not in caplog.text


async def test_the_log_says_why_a_webhook_is_not_called(caplog) -> None:
    sink = AlertingSink(NoAudit(), [Webhook("http://127.0.0.1:9/x")], retry_seconds=())
    await sink.record(crisis())
    await sink.close()
    assert "start with --alert-host 127.0.0.1" in caplog.text
