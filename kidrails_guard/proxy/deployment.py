"""What `kidrails serve` puts together: a value that every worker process can be given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route

from kidrails_guard.errors import UsageError
from kidrails_guard.guard import Guard
from kidrails_guard.policy import Policy, load_policy
from kidrails_guard.proxy import seams
from kidrails_guard.proxy.app import build_app, make_upstream
from kidrails_guard.proxy.records import Records, Smtp
from kidrails_guard.proxy.service import Service
from kidrails_guard.proxy.settings import Settings
from kidrails_guard.proxy.tracing import Traced, TracingMeter, make_exporter, make_tracer
from kidrails_guard.types import AgeBand


@dataclass(frozen=True, slots=True)
class Deployment(Records):
    """Everything that the operator chose.

    Attributes:
        settings: of the proxy.
        policy: path of the policy; None is the default one.
        band: age band of everyone who calls, where there are no keys.
        keys: path of the key file; None serves anyone.
        sessions: ``memory`` or a Redis URL.
        metrics: whether ``/metrics`` is there, on the port of the API.
        metrics_port: a port for ``/metrics`` alone; None opens none.
    """

    settings: Settings
    policy: str | None = None
    band: AgeBand | None = None
    keys: str | None = None
    sessions: str = "memory"
    metrics: bool = False
    metrics_port: int | None = None

    @property
    def measured(self) -> bool:
        """Whether anything is counted."""
        return self.metrics or self.metrics_port is not None

    def to_json(self) -> str:
        """Return it as text for a worker's environment."""
        values = asdict(self)
        values["settings"]["pass_fields"] = sorted(self.settings.pass_fields)
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Deployment:
        """Return what `to_json` wrote."""
        values = json.loads(text)
        settings = values.pop("settings")
        settings["pass_fields"] = frozenset(settings["pass_fields"])
        band, smtp = values.pop("band"), values.pop("smtp")
        for name in ("webhooks", "webhook_hosts", "emails"):
            values[name] = tuple(values[name])
        return cls(
            settings=Settings(**settings),
            band=AgeBand(band) if band else None,
            smtp=Smtp(**smtp) if smtp else None,
            **values,
        )

    def load_policy(self) -> Policy:
        """Return the policy.

        Raises:
            PolicyError: it is wrong.
            UsageError: it does not serve the band.
        """
        policy = load_policy(self.policy)
        if self.band is not None and self.band not in policy.bands:
            raise UsageError(
                f"--band: {self.band} is not served by policy {policy.name!r}; accepted: "
                f"{', '.join(policy.bands)}"
            )
        return policy

    def check(self) -> None:
        """Load what every worker will load, so that an error is said once and at once.

        Raises:
            KidRailsError: the policy, a check, the key file, the upstream or a webhook is wrong.
        """
        self.tenants(seams.NoMeter())
        make_upstream(self.settings)
        self.session_store()
        self.notifiers()
        make_exporter()

    def cautions(self, workers: int) -> list[str]:
        """Return what several workers do not share, for the operator to read at start.

        Raises:
            KidRailsError: the key file is wrong.
        """
        if workers < 2:
            return []
        found = []
        if self.sessions == "memory" and self.settings.session_header is not None:
            found.append(
                f"each of the {workers} workers remembers sessions of its own (--sessions memory): "
                "a child may be greeted twice and a break may come late; give --sessions "
                "redis://host:port/0 to share them"
            )
        if self.keys is not None:
            from kidrails_guard.proxy.keys import load_keys

            if any(k.limits.requests_per_minute for k in load_keys(Path(self.keys)).keys):
                found.append(
                    f"requests_per_minute is counted in each of the {workers} workers: a key may "
                    f"make up to {workers} times as many"
                )
        return found

    def tenants(
        self,
        meter: seams.Meter,
        expect: Callable[[Iterable[seams.Tenant]], None] = seams.expect_nobody,
    ) -> seams.Tenants:
        """Return who may call.

        Args:
            meter: told of every check.
            expect: told the tenants, now and whenever keys are added.

        Raises:
            KidRailsError: the policy, a check or the key file is wrong.
        """
        policy = self.load_policy()
        if self.keys is None:
            one = seams.OneTenant(Guard(policy, observer=meter.check), band=self.band)
            expect([one.tenant])
            return one
        from kidrails_guard.proxy.keyed_tenants import KeyedTenants

        return KeyedTenants(Path(self.keys), policy, observer=meter.check, expect=expect)

    def session_store(self) -> seams.SessionStore | None:
        """Return what sessions are kept in; None is this process's memory.

        Raises:
            KidRailsError: the place is unknown, or Redis's client is not installed.
        """
        if self.sessions == "memory":
            return None
        if not self.sessions.startswith(("redis://", "rediss://", "unix://")):
            raise UsageError(
                f"--sessions: {self.sessions!r}; accepted: memory, or redis://host:port/db"
            )
        from kidrails_guard.proxy.redis_sessions import RedisSessions

        return RedisSessions(self.sessions)

    def app(self, on_start: Callable[[Service], None] | None = None) -> Starlette:
        """Return the application that one worker runs.

        Raises:
            KidRailsError: something that the operator chose does not hold.
        """
        meter: seams.Meter = seams.NoMeter()
        routes: list[BaseRoute] = []
        prometheus = None
        if self.measured:
            from kidrails_guard.proxy.metrics import PrometheusMeter
            from kidrails_guard.proxy.metrics_page import MetricsPort, metrics_route

            prometheus = meter = PrometheusMeter()
            if self.metrics:
                routes.append(metrics_route(prometheus))
        exporter = make_exporter()
        tracer = make_tracer(exporter) if exporter is not None else None
        if tracer is not None:
            meter = TracingMeter(meter, tracer)
        tenants = self.tenants(
            meter, seams.expect_nobody if prometheus is None else prometheus.expect
        )
        app = build_app(
            self.settings,
            tenants=tenants,
            audit=self.audit_sink(meter),
            meter=meter,
            sessions=self.session_store(),
            routes=routes,
            on_start=on_start,
        )
        if tracer is not None:
            paths = frozenset(r.path for r in app.routes if isinstance(r, Route))
            app.add_middleware(Traced, tracer=tracer, routes=paths)
        if prometheus is not None and self.metrics_port is not None:
            app.add_middleware(MetricsPort, meter=prometheus, port=self.metrics_port)
        return app


def describe(deployment: Deployment, *, url: str, workers: int) -> str:
    """Return what the operator reads when the proxy is up."""
    policy = deployment.load_policy()
    band: Any = deployment.band or policy.fallback_band
    who = f"keys {deployment.keys}" if deployment.keys else f"anyone, band {band}"
    kept = deployment.audit or "no audit log"
    port = deployment.metrics_port
    watched = "" if port is None else f", /metrics on port {port}"
    return (
        f"KidRails guards {deployment.settings.upstream} at {url}/v1\n"
        f"  policy {policy.name} ({policy.digest()[:12]}), {who}, {kept}, {workers} worker"
        f"{'s' if workers != 1 else ''}{watched}"
    )
