"""What the proxy asks of its surroundings: who calls, what is written down, what is counted.

The proxy (``app.py``) knows only these protocols. The defaults here serve one anonymous caller,
write nothing down and count nothing; keys, audit log, metrics and Redis are implementations.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kidrails_guard.errors import KidRailsError
from kidrails_guard.guard import Guard
from kidrails_guard.types import Action, AgeBand, Hazard, Stage, Verdict

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one tenant.

    Attributes:
        body_bytes: largest request body.
        requests_per_minute: None for no bound; enforced by `Tenants.authenticate`.
    """

    body_bytes: int = MEBIBYTE
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who calls, and under which guard. Locale and country are those of ``guard.policy``.

    Attributes:
        name: stands in audit lines and metrics; from the key file, so from a closed set.
        guard: decides for this tenant; never changes under a running request.
        band: the age band of this tenant's children, set by the grown-up who runs the service.
        policy_digest: ``guard.policy.digest()``, computed once.
        limits: bounds on one request and on the rate.
    """

    name: str
    guard: Guard
    band: AgeBand
    policy_digest: str
    limits: Limits = Limits()


class Rejected(KidRailsError):
    """The caller may not go on; becomes an OpenAI-shaped error.

    Args:
        status: 401 (no or unknown key), 403 (revoked) or 429 (too many requests).
        code: OpenAI's ``error.code``, e.g. ``invalid_api_key``.
        message: what was wrong and what to do; never the key itself.
        retry_after_seconds: for 429.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after_seconds: int | None = None
    ) -> None:
        self.status, self.code, self.retry_after_seconds = status, code, retry_after_seconds
        super().__init__(message)


def expect_nobody(tenants: Iterable[Tenant]) -> None:
    """Begin no counters for tenants: nothing counts them."""


class Tenants(Protocol):
    """Knows who calls."""

    async def authenticate(self, headers: Mapping[str, str]) -> Tenant:
        """Return the caller's tenant, by headers with lower-case names (``authorization``).

        Called before the body is read; counts the request against the tenant's rate.

        Raises:
            Rejected: the caller may not go on.
        """
        ...

    def all(self) -> tuple[Tenant, ...]:
        """Return every tenant, e.g. to load their checks before the first request."""
        ...


class OneTenant:
    """Everyone is the same caller: for a proxy that only its own machine can reach."""

    def __init__(self, guard: Guard, *, band: AgeBand | None = None, name: str = "local") -> None:
        policy = guard.policy
        self.tenant = Tenant(name, guard, band or policy.fallback_band, policy.digest())

    async def authenticate(self, headers: Mapping[str, str]) -> Tenant:
        """Return the one tenant."""
        return self.tenant

    def all(self) -> tuple[Tenant, ...]:
        """Return the one tenant."""
        return (self.tenant,)


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """What the proxy did about one text: one event for the child's message, one for the reply.

    ``text`` is there to be hashed with a key (and, where the operator switched that on, to be
    encrypted); it never reaches a log, and ``repr`` leaves it out.

    Attributes:
        request_id: the same for both events of a request; also in ``x-kidrails-request-id``.
        tenant: the tenant's name.
        session: the caller's session header as sent, or empty; the sink hashes it with its key.
        band: the age band that was used.
        verdict: action, findings, failed checks, stage, milliseconds.
        text: what was checked, as it came (not redacted).
        policy_digest: which policy decided.
        model: the model's name as the caller wrote it; bounded in length.
        withheld_characters: how much of the text did not reach the child.
        streamed: whether the reply went out in pieces.
        note: from a closed set: ``""`` or how the reply ended out of the ordinary.
        time: seconds since the epoch.
    """

    request_id: str
    tenant: str
    session: str = field(repr=False)
    band: AgeBand
    verdict: Verdict
    text: str = field(repr=False)
    policy_digest: str
    model: str = field(repr=False)
    withheld_characters: int = 0
    streamed: bool = False
    note: Literal["", "upstream_failed", "caller_left", "shutdown"] = ""
    time: float = field(default_factory=time.time)


class AuditSink(Protocol):
    """Writes events down."""

    async def record(self, event: AuditEvent) -> None:
        """Write one event down before returning.

        The input's event is recorded before the model is asked, the reply's at its end.

        Raises:
            AuditFailed: it could not be written and the operator wants no unrecorded answers; the
                proxy then answers with an error and does not ask the model; fixed words, such as
                those for a child in danger, are given all the same.
        """
        ...

    async def tend(self) -> None:
        """Do what time alone brings, such as forgetting; called about once an hour."""
        ...

    async def close(self) -> None:
        """Write what is left and release the file; called once at shutdown."""
        ...


class AuditFailed(KidRailsError):
    """An event could not be written down, and the operator wants no unrecorded answers."""


class NoAudit:
    """Writes nothing down."""

    async def record(self, event: AuditEvent) -> None:
        """Forget the event."""

    async def tend(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


Failure = Literal[
    "upstream_unreachable",
    "upstream_timeout",
    "upstream_status",
    "upstream_garbage",
    "upstream_broken_off",
    "audit",
    "alert",
    "session_store",
    "internal",
    "bad_request",
    "rejected",
    "rate_limited",
    "too_large",
]
"""Why a request did not go as it should: the closed set of the metric's label."""

Route = Literal["chat", "completions", "responses", "embeddings", "models", "moderations", "other"]


class Meter(Protocol):
    """Counts. Every argument comes from a closed set or is a number; none is ever a text.

    Methods are called on the hot path: they must not block and must not raise.
    """

    def verdict(self, tenant: str, stage: Stage, action: Action, hazard: Hazard) -> None:
        """Count one verdict."""
        ...

    def check(self, check: str, stage: Stage, seconds: float, failed: bool) -> None:
        """Count one run of one check (the signature of `guard.Observer`)."""
        ...

    def held(self, characters: int, seconds: float | None = None) -> None:
        """Note one released or withheld unit; of a stream's released one, how long it waited."""
        ...

    def failure(self, kind: Failure) -> None:
        """Count one failure."""
        ...

    def request(self, route: Route, status: int, seconds: float) -> None:
        """Note one finished request (for a stream: when it ended)."""
        ...

    def streams(self, change: int) -> None:
        """Change the number of open streams by +1 or -1."""
        ...


class NoMeter:
    """Counts nothing."""

    def verdict(self, tenant: str, stage: Stage, action: Action, hazard: Hazard) -> None:
        """Forget it."""

    def check(self, check: str, stage: Stage, seconds: float, failed: bool) -> None:
        """Forget it."""

    def held(self, characters: int, seconds: float | None = None) -> None:
        """Forget it."""

    def failure(self, kind: Failure) -> None:
        """Forget it."""

    def request(self, route: Route, status: int, seconds: float) -> None:
        """Forget it."""

    def streams(self, change: int) -> None:
        """Forget it."""


class SessionStore(Protocol):
    """Keeps small values for a while, so that several replicas can share a child's session.

    The proxy calls it with a bounded, hashed key and the bytes of a `SessionState`.
    """

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None where there is none or it has expired.

        Raises:
            SessionStoreError: the store does not answer; the request goes on without a session.
        """
        ...

    async def put(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """Keep a value for so long.

        Raises:
            SessionStoreError: the store does not answer; the request goes on without a session.
        """
        ...

    async def close(self) -> None:
        """Release connections; called once at shutdown."""
        ...


class SessionStoreError(KidRailsError):
    """The session store does not answer."""
