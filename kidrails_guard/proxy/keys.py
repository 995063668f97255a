"""API keys: who calls, under which policy, band, locale and limits.

One YAML file holds hashed keys. It is read again when it changes; a broken change is reported and
the last good state stays, so that a typing mistake locks nobody out and lets nobody in.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kidrails_guard.errors import KeysError, KidRailsError, PolicyError
from kidrails_guard.files import write_atomic
from kidrails_guard.guard import Guard, Observer
from kidrails_guard.policy import Policy, describe_error, load_policy, read_yaml
from kidrails_guard.proxy.seams import MEBIBYTE, Limits, Rejected, Tenant
from kidrails_guard.types import AgeBand

_log = logging.getLogger(__name__)
_HINT = "run: kidrails keys list --file FILE"
RELOAD_SECONDS = 1.0


class KeyLimits(BaseModel):
    """Bounds on one key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int | None = Field(default=None, gt=0)
    body_bytes: int = Field(default=MEBIBYTE, gt=0)


class KeyEntry(BaseModel):
    """One key as the file holds it: never the key itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    id: str = Field(pattern=r"^[0-9a-f]{8}$")
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="BLAKE2b of the secret with the salt")
    band: AgeBand
    policy: str | None = Field(default=None, description="path; null: the service's policy")
    locale: str | None = None
    country: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")
    limits: KeyLimits = KeyLimits()
    created_on: date
    revoked_on: date | None = None


class KeyFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[KeyEntry, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> KeyFile:
        for attribute in ("name", "id"):
            values = [getattr(k, attribute) for k in self.keys if k.revoked_on is None]
            twice = {v for v in values if values.count(v) > 1}
            if twice:
                raise ValueError(f"keys: {attribute} {sorted(twice)[0]!r} stands there twice")
        return self


def load_keys(path: Path) -> KeyFile:
    """Read a key file.

    Raises:
        KeysError: the file is absent or wrong; names the file, the key and what is accepted.
    """
    try:
        return KeyFile.model_validate(read_yaml(path) or {})
    except PolicyError as error:
        if not path.exists():
            raise KeysError(f"{path}: no such key file; run: kidrails keys add NAME") from None
        raise KeysError(str(error)) from None
    except ValidationError as error:
        lines = [describe_error(detail, KeyFile) for detail in error.errors(include_url=False)]
        raise KeysError("\n".join(f"{path}: {line}" for line in lines) + f"\n{_HINT}") from None


def save_keys(path: Path, keys: KeyFile) -> None:
    """Write a key file, whole or not at all, readable by its owner only."""
    text = "# API keys of KidRails, hashed. Made by `kidrails keys`; a lost key cannot be shown.\n"
    text += yaml.safe_dump(keys.model_dump(mode="json", exclude_none=True), sort_keys=False)
    write_atomic(path, text)
    path.chmod(0o600)


def new_key(
    name: str,
    band: AgeBand,
    *,
    policy: str | None = None,
    locale: str | None = None,
    country: str | None = None,
    limits: KeyLimits = KeyLimits(),  # noqa: B008  # a frozen value
) -> tuple[str, KeyEntry]:
    """Return a new key, to be shown once, and its entry.

    Raises:
        KeysError: the name or country is not acceptable.
    """
    identifier, secret, salt = (
        secrets.token_hex(4),
        secrets.token_urlsafe(32),
        secrets.token_hex(16),
    )
    try:
        entry = KeyEntry(
            name=name,
            id=identifier,
            salt=salt,
            hash=_hash(secret, salt),
            band=band,
            policy=policy,
            locale=locale,
            country=country,
            limits=limits,
            created_on=datetime.now(UTC).date(),
        )
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise KeysError("; ".join(describe_error(d, KeyEntry) for d in details)) from None
    return f"kr_{identifier}_{secret}", entry


def _hash(secret: str, salt: str) -> str:
    # The secret has 256 random bits: a slow hash would only slow every request down.
    return hashlib.blake2b(
        secret.encode("utf-8", "surrogatepass"), digest_size=32, salt=bytes.fromhex(salt)
    ).hexdigest()


class _Bucket:
    """Requests of one key within the last minute, as a token bucket."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute, self.tokens, self.at = per_minute, float(per_minute), now

    def take(self, now: float) -> float:
        """Take one token; return the seconds to wait, 0.0 when there was one."""
        rate = self.per_minute / 60
        self.tokens = min(self.per_minute, self.tokens + max(0.0, now - self.at) * rate)
        self.at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / rate


@dataclass(frozen=True, slots=True)
class _Known:
    entry: KeyEntry
    tenant: Tenant


class KeyedTenants:
    """`Tenants` from a key file.

    Args:
        path: the key file.
        default: the policy of keys without one of their own.
        observer: given to every guard.
        clock: seconds that only grow (for tests).

    Raises:
        KeysError: the file is wrong at start.
        PolicyError: a policy that a key names is wrong at start.
    """

    def __init__(
        self,
        path: Path,
        default: Policy,
        *,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.default, self.observer, self.clock = path, default, observer, clock
        self._guards: dict[str, Guard] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._stamp = self._file_stamp()
        self._looked_at = clock()
        self._known = self._read()

    def all(self) -> tuple[Tenant, ...]:
        """Return every tenant whose key is not revoked."""
        return tuple(k.tenant for k in self._known.values() if k.entry.revoked_on is None)

    async def authenticate(self, headers: Mapping[str, str]) -> Tenant:
        """Return the caller's tenant and count the request.

        Raises:
            Rejected: no key, an unknown or revoked one, or too many requests.
        """
        self._reload_if_changed()
        scheme, _, presented = headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() != "bearer":
            presented = headers.get("x-api-key", "")  # as LiteLLM sends it
        if not presented.strip():
            raise Rejected(
                401,
                "invalid_api_key",
                "no API key: send `Authorization: Bearer kr_…`; the operator makes one with "
                "`kidrails keys add NAME`",
            )
        prefix, _, rest = presented.strip().partition("_")
        identifier, _, secret = rest.partition("_")
        known = self._known.get(identifier) if prefix == "kr" else None
        # An unknown id costs the same hash as a known one, so time tells nothing.
        salt = known.entry.salt if known else "0" * 32
        expected = known.entry.hash if known else "0" * 64
        same = hmac.compare_digest(_hash(secret, salt), expected)
        if known is None or not same:
            raise Rejected(401, "invalid_api_key", "this API key is not known here; check for a "
                           "missing part, or ask the operator for a new one")  # fmt: skip
        if known.entry.revoked_on is not None:
            raise Rejected(403, "revoked_api_key", f"the key {known.entry.name!r} was revoked on "
                           f"{known.entry.revoked_on}; ask the operator for a new one")  # fmt: skip
        self._count(known)
        return known.tenant

    def _count(self, known: _Known) -> None:
        per_minute = known.tenant.limits.requests_per_minute
        if per_minute is None:
            return
        bucket = self._buckets.get(known.entry.id)
        if bucket is None or bucket.per_minute != per_minute:
            bucket = self._buckets[known.entry.id] = _Bucket(per_minute, self.clock())
        wait = bucket.take(self.clock())
        if wait > 0:
            seconds = max(1, round(wait))
            raise Rejected(429, "rate_limit_exceeded", f"more than {per_minute} requests a minute "
                           f"for {known.entry.name!r}; try again in {seconds} s",
                           retry_after_seconds=seconds)  # fmt: skip

    def _file_stamp(self) -> tuple[int, int, int]:
        try:
            stat = self.path.stat()
        except OSError:
            return (0, 0, 0)
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _reload_if_changed(self) -> None:
        now = self.clock()
        if now - self._looked_at < RELOAD_SECONDS:
            return
        self._looked_at = now
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._known = self._read()
            _log.info("read %d keys from %s", len(self._known), self.path)
        except KidRailsError as error:
            _log.error("keeping the last good keys: %s", error)

    def _read(self) -> dict[str, _Known]:
        guards: dict[str, Guard] = {}
        known = {}
        for entry in load_keys(self.path).keys:
            guard = self._guard(entry, guards)
            if entry.band not in guard.policy.bands:
                raise KeysError(
                    f"{self.path}: keys.{entry.name}.band: {entry.band} is not served by policy "
                    f"{guard.policy.name!r}; accepted: {', '.join(guard.policy.bands)}"
                )
            limits = Limits(entry.limits.body_bytes, entry.limits.requests_per_minute)
            digest = guard.policy.digest()
            known[entry.id] = _Known(entry, Tenant(entry.name, guard, entry.band, digest, limits))
        self._guards = guards
        return known

    def _guard(self, entry: KeyEntry, made: dict[str, Guard]) -> Guard:
        policy = self.default
        if entry.policy is not None:
            policy = load_policy(self.path.parent / entry.policy)
        changes = {"locale": entry.locale, "country": entry.country}
        policy = policy.model_copy(update={k: v for k, v in changes.items() if v is not None})
        digest = policy.digest()
        if digest not in made:
            # The same policy keeps its guard over a reload: its checks are loaded once.
            made[digest] = self._guards.get(digest) or (
                Guard(policy, observer=self.observer) if self.observer else Guard(policy)
            )
        return made[digest]
