"""What Prometheus reads: known names, labels from closed sets, nothing that anybody wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import httpx
from clients import Proxied
from planted import Planted, planted_policy
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from upstreams import Says

from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy
from kidrails_guard.proxy.app import build_app
from kidrails_guard.proxy.deployment import Deployment
from kidrails_guard.proxy.metrics import PrometheusMeter
from kidrails_guard.proxy.seams import Failure, OneTenant, Route
from kidrails_guard.proxy.settings import Settings
from kidrails_guard.types import Action, Hazard, Stage

CLOSED = {
    "tenant": {"local"},
    "stage": set(Stage),
    "action": {action.label for action in Action},
    "hazard": set(Hazard),
    "kind": set(get_args(Failure)),
    "route": set(get_args(Route)),
    "check": {"planted"},
}


class Metered(Proxied):
    """A proxy that counts as the service does."""

    def __init__(self, upstream: Says | httpx.AsyncBaseTransport | None = None) -> None:
        super().__init__(upstream)
        self.meter = PrometheusMeter()
        guard = Guard(planted_policy(), checks=[Planted()], observer=self.meter.check)
        transport = self.upstream.transport() if isinstance(self.upstream, Says) else self.upstream
        self.app = build_app(
            Settings("http://upstream.test"), tenants=OneTenant(guard), transport=transport,
            audit=self.ledger, meter=self.meter,
        )  # fmt: skip
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://proxy.test"
        )

    def page(self) -> str:
        return self.meter.exposition()[0].decode()

    def value(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for family in families(self.page())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def families(page: str) -> list[Metric]:
    return list(text_string_to_metric_families(page))


async def hostile(proxy: Proxied) -> None:
    """Requests of every kind, with a word that must not come back."""
    headers = {"x-kidrails-session": "zorblat-1", "authorization": "Bearer zorblat"}
    for stream in (False, True):
        await proxy.chat("a zorblat", headers=headers, stream=stream)
        await proxy.chat("hello", headers=headers, stream=stream)
        await proxy.chat("i want to vanish", model="zorblat", stream=stream)
    await proxy.http.request("ZORBLAT", "/v1/zorblat?zorblat=1")
    await proxy.http.get("/v1/models/zorblat")
    await proxy.post("/v1/completions", {"model": "zorblat", "prompt": "zorblat"})
    await proxy.post("/v1/moderations", {"input": "zorblat"})
    kind = {"content-type": "application/json"}
    await proxy.http.post("/v1/chat/completions", content=b"zorblat", headers=kind)


async def test_labels_come_from_closed_sets_and_hold_no_words() -> None:
    proxy = Metered(Says("Here is a zorblat. ", "And more."))
    await hostile(proxy)
    assert "zorblat" not in proxy.page().lower()
    for family in families(proxy.page()):
        assert family.name.startswith("kidrails_")
        assert family.documentation
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label == "status":
                    assert value.isdigit()
                elif label != "le":
                    assert value in CLOSED[label], (sample.name, label, value)


async def test_only_what_waited_counts_as_waiting() -> None:
    proxy = Metered()
    await proxy.chat("hello")  # whole: nothing waited for a border
    assert proxy.value("kidrails_held_characters_count") == 1
    assert proxy.value("kidrails_held_seconds_count") == 0
    streamed = await proxy.stream("hello")
    assert streamed.text()
    assert proxy.value("kidrails_held_seconds_count") > 0


async def test_what_happens_is_counted() -> None:
    proxy = Metered()
    await hostile(proxy)
    assert proxy.value("kidrails_verdicts_total", action="crisis", stage="input") == 2
    assert proxy.value("kidrails_verdicts_total", action="refuse", stage="input") == 3
    assert proxy.value("kidrails_requests_total", route="chat", status="200") == 6
    assert proxy.value("kidrails_requests_total", route="chat", status="400") == 1
    assert proxy.value("kidrails_request_seconds_count", route="chat") == 7
    assert proxy.value("kidrails_check_seconds_count", check="planted") > 4
    assert proxy.value("kidrails_held_characters_count") > 0
    assert proxy.value("kidrails_held_seconds_count") > 0
    assert proxy.value("kidrails_open_streams") == 0
    assert proxy.value("kidrails_failures_total", kind="bad_request") > 0

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("zorblat")

    proxy = Metered(httpx.MockTransport(fail))
    await proxy.chat("hello")
    assert proxy.value("kidrails_failures_total", kind="upstream_unreachable") == 1


async def test_what_somebody_is_woken_for_begins_at_0() -> None:
    app = Deployment(Settings("http://u.test"), metrics=True).app()
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://proxy.test")
    page = (await http.get("/metrics")).text
    for kind in get_args(Failure):
        assert f'kidrails_failures_total{{kind="{kind}"}} 0.0' in page
    for hazard in ("K01", "K02"):
        labels = f'action="crisis",hazard="{hazard}",stage="input",tenant="local"'
        assert f"kidrails_verdicts_total{{{labels}}} 0.0" in page
    for rule in load_policy().checks:  # also of one whose very first run fails
        for stage in Stage:
            labels = f'check="{rule.name}",stage="{stage}"'
            assert f"kidrails_check_failures_total{{{labels}}} 0.0" in page


async def test_a_port_of_its_own_serves_the_numbers_and_nothing_else() -> None:
    app = Deployment(Settings("http://u.test"), metrics_port=9464).app()
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app))
    page = await http.get("http://proxy.test:9464/metrics")
    assert "kidrails_verdicts_total" in page.text
    for path in ("/health", "/v1/models", "/"):
        assert (await http.get(f"http://proxy.test:9464{path}")).status_code == 404
    # A caller's header does not choose the port.
    named = {"host": "proxy.test:9464"}
    assert (await http.get("http://proxy.test:8080/metrics", headers=named)).status_code == 404
    assert (await http.get("http://proxy.test:8080/health")).status_code == 200


WORKER = """
import os, sys
from kidrails_guard.proxy.metrics import PrometheusMeter
from kidrails_guard.types import Action, Hazard, Stage
meter = PrometheusMeter()
meter.verdict("local", Stage.INPUT, Action.ALLOW, Hazard.BENIGN)
meter.streams(1)
if sys.argv[1] == "die":
    os._exit(9)
print(meter.exposition()[0].decode())
"""


def test_workers_are_added_up_and_the_streams_of_a_killed_one_forgotten(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def worker(what: str) -> str:
        command = [sys.executable, "-c", WORKER, what]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        ).stdout

    for _ in range(2):
        worker("die")
    page = worker("report")
    found = {f.name: f.samples for f in families(page)}
    assert sum(s.value for s in found["kidrails_verdicts"] if s.name.endswith("_total")) == 3
    assert [s.value for s in found["kidrails_open_streams"]] == [1]
