"""Prometheus metrics: what the guard decides, how long it takes, what fails.

Every label comes from a closed set (tenant names are from the key file), so no text can become a
label and the number of series is bounded.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from kidrails_guard.proxy.seams import Failure, Route, Tenant
from kidrails_guard.types import Action, Hazard, Stage

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30)
_CHARACTERS = (8, 16, 32, 64, 128, 256, 512)
_CRISES: Final = (Hazard.SELF_HARM, Hazard.ABUSE_DISCLOSURE)


class PrometheusMeter:
    """A `Meter` whose numbers Prometheus reads from ``/metrics``.

    With ``PROMETHEUS_MULTIPROC_DIR`` set, the workers of one service are added up.

    Args:
        registry: where the numbers stand; one of their own by default.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def histogram(
            name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
        ) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

        self._verdicts = counter(
            "kidrails_verdicts_total",
            "Verdicts of the guard",
            "tenant",
            "stage",
            "action",
            "hazard",
        )
        self._checks = histogram(
            "kidrails_check_seconds",
            "Seconds of one run of one check",
            ("check", "stage"),
            _SECONDS,
        )
        self._check_failures = counter(
            "kidrails_check_failures_total", "Checks that raised or timed out", "check", "stage"
        )
        self._held_characters = histogram(
            "kidrails_held_characters", "Characters of one released or withheld part", (),
            _CHARACTERS,
        )  # fmt: skip
        self._held_seconds = histogram(
            "kidrails_held_seconds",
            "Seconds that such a part, complete, waited for its check",
            (),
            _SECONDS,
        )
        self._failures = counter(
            "kidrails_failures_total", "Requests that did not go as they should", "kind"
        )
        self._requests = counter("kidrails_requests_total", "Finished requests", "route", "status")
        self._request_seconds = histogram(
            "kidrails_request_seconds", "Seconds of one request, of a stream until its end",
            ("route",), _SECONDS,
        )  # fmt: skip
        self._streams = Gauge(
            "kidrails_open_streams",
            "Streams that are open now",
            registry=self.registry,
            multiprocess_mode="livesum",
        )

        # A counter that first appears as 1 is no increase to Prometheus: what somebody is woken for
        # stands there as 0 from the start.
        for kind in get_args(Failure):
            self._failures.labels(kind)

    def expect(self, tenants: Iterable[Tenant]) -> None:
        """Let the counters of tenants' crises and of their checks' failures begin at 0."""
        for tenant in tenants:
            for hazard in _CRISES:
                self._verdicts.labels(
                    tenant.name, str(Stage.INPUT), Action.CRISIS.label, str(hazard)
                )
            for rule in tenant.guard.policy.checks:
                for stage in Stage:
                    self._check_failures.labels(rule.name, str(stage))

    def verdict(self, tenant: str, stage: Stage, action: Action, hazard: Hazard) -> None:
        """Count one verdict."""
        self._verdicts.labels(tenant, str(stage), action.label, str(hazard)).inc()

    def check(self, check: str, stage: Stage, seconds: float, failed: bool) -> None:
        """Count one run of one check."""
        self._checks.labels(check, str(stage)).observe(seconds)
        self._check_failures.labels(check, str(stage)).inc(failed)

    def held(self, characters: int, seconds: float | None = None) -> None:
        """Note one released or withheld unit, and how long a released one waited."""
        self._held_characters.observe(characters)
        if seconds is not None:
            self._held_seconds.observe(seconds)

    def failure(self, kind: Failure) -> None:
        """Count one failure."""
        self._failures.labels(kind).inc()

    def request(self, route: Route, status: int, seconds: float) -> None:
        """Note one finished request."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def streams(self, change: int) -> None:
        """Change the number of open streams."""
        self._streams.inc(change)

    def exposition(self) -> tuple[bytes, str]:
        """Return the page that Prometheus reads, and its content type."""
        registry = self.registry
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder:
            _forget_dead_workers(Path(folder))
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST


@lru_cache(maxsize=1)
def shared_meter() -> PrometheusMeter:
    """Return the meter whose numbers stand among the process's own, on its host's ``/metrics``.

    There is one, since a registry takes a name once, and a host may make a guardrail anew.
    """
    return PrometheusMeter(REGISTRY)


def _forget_dead_workers(folder: Path) -> None:
    """Delete the gauges of workers that were killed, whose open streams nobody closes any more."""
    for path in folder.glob("gauge_live*_*.db"):
        with contextlib.suppress(ValueError, ProcessLookupError, PermissionError):
            try:
                os.kill(int(path.stem.rpartition("_")[2]), 0)
            except ProcessLookupError:
                path.unlink(missing_ok=True)
