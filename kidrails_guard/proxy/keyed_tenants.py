"""Who calls, by API key: looked up in constant time, bounded, read again while serving.

The key file is read again when it changes. A broken change is reported and the last good state
stays, so that a typing mistake locks nobody out and lets nobody in; only what is revoked is refused
whatever else is wrong.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kidrails_guard.errors import KeysError, KidRailsError, PolicyError
from kidrails_guard.guard import Guard, Observer
from kidrails_guard.policy import Policy
from kidrails_guard.proxy.keys import KeyEntry, KeyFile, hash_secret, key_policy, load_keys
from kidrails_guard.proxy.seams import Limits, Rejected, Tenant, expect_nobody

_log = logging.getLogger(__name__)
RELOAD_SECONDS = 1.0
RETRY_SECONDS = 5.0
"""After a reload that failed, the file is read again so often, also where it has not changed."""


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
    tenant: Tenant | None  # None: revoked, so nothing is loaded for it


class KeyedTenants:
    """`Tenants` from a key file.

    Args:
        path: the key file.
        default: the policy of keys without one of their own.
        observer: given to every guard.
        expect: told the tenants after each reading, so that their counters begin.
        clock: seconds that only grow (for tests).

    Raises:
        KeysError: the file, or a policy that a key in use names, is wrong at start.
    """

    def __init__(
        self,
        path: Path,
        default: Policy,
        *,
        observer: Observer | None = None,
        expect: Callable[[Iterable[Tenant]], None] = expect_nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.default, self.observer, self.clock = path, default, observer, clock
        self._expect = expect
        self._guards: dict[str, Guard] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._stamp = self._file_stamp()
        self._looked_at = clock()
        self._failed_at: float | None = None
        self._said = ""
        self._task: asyncio.Task[None] | None = None
        self._known = self._read(load_keys(path))
        self._expect(self.all())

    def all(self) -> tuple[Tenant, ...]:
        """Return every tenant whose key is not revoked."""
        return tuple(k.tenant for k in self._known.values() if k.tenant is not None)

    async def authenticate(self, headers: Mapping[str, str]) -> Tenant:
        """Return the caller's tenant and count the request.

        Raises:
            Rejected: no key, an unknown or revoked one, or too many requests.
        """
        await self._reload_if_changed()
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
        same = hmac.compare_digest(hash_secret(secret, salt), expected)
        if known is None or not same:
            raise Rejected(401, "invalid_api_key", "this API key is not known here; check for a "
                           "missing part, or ask the operator for a new one")  # fmt: skip
        if known.tenant is None:
            raise Rejected(403, "revoked_api_key", f"the key {known.entry.name!r} was revoked on "
                           f"{known.entry.revoked_on}; ask the operator for a new one")  # fmt: skip
        self._count(known.entry)
        return known.tenant

    def _count(self, entry: KeyEntry) -> None:
        per_minute = entry.limits.requests_per_minute
        if per_minute is None:
            return
        bucket = self._buckets.get(entry.id)
        if bucket is None or bucket.per_minute != per_minute:
            bucket = self._buckets[entry.id] = _Bucket(per_minute, self.clock())
        wait = bucket.take(self.clock())
        if wait > 0:
            seconds = math.ceil(wait)  # who comes a moment earlier is refused once more
            raise Rejected(429, "rate_limit_exceeded", f"more than {per_minute} requests a minute "
                           f"for {entry.name!r}; try again in {seconds} s",
                           retry_after_seconds=seconds)  # fmt: skip

    def _file_stamp(self) -> tuple[int, int, int]:
        try:
            stat = self.path.stat()
        except OSError:
            return (0, 0, 0)
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    async def _reload_if_changed(self) -> None:
        now = self.clock()
        reading = self._task is not None and not self._task.done()
        if reading or now - self._looked_at < RELOAD_SECONDS:
            return
        self._looked_at = now
        stamp = self._file_stamp()
        waits = self._failed_at is None or now - self._failed_at < RETRY_SECONDS
        if stamp == self._stamp and waits:
            return
        self._stamp = stamp
        try:
            keys = load_keys(self.path)
        except KeysError as error:
            self._failed(error)
            return
        self._shut_out(keys)
        # A caller that leaves takes the reading with it no more than the others wait for it.
        self._task = asyncio.create_task(self._take(keys))
        await asyncio.shield(self._task)

    async def _take(self, keys: KeyFile) -> None:
        try:
            # A guard for a policy that is new takes a while to load, and replies go on meanwhile.
            known = await asyncio.to_thread(self._read, keys)
        except Exception as error:
            # Whatever it is, such as a want of memory, may pass: it must be tried again.
            self._failed(error)
            return
        self._known = known
        self._expect(self.all())
        self._failed_at, self._said = None, ""
        _log.info("read %d keys from %s", len(known), self.path)

    def _failed(self, error: Exception) -> None:
        self._failed_at = self.clock()  # what a key names may be put right without the key file
        said = str(error) if isinstance(error, KidRailsError) else f"{self.path}: {error!r}"
        if said != self._said:
            self._said = said
            _log.error("keeping the last good keys, without revoked ones: %s", said)

    def _shut_out(self, keys: KeyFile) -> None:
        """Refuse what is revoked or gone, at once and whatever else is wrong in the file."""
        entries = {entry.id: entry for entry in keys.keys}
        self._known = {
            i: _Known(entries[i], None) if entries[i].revoked_on else known
            for i, known in self._known.items()
            if i in entries and entries[i].hash == known.entry.hash
        }

    def _read(self, keys: KeyFile) -> dict[str, _Known]:
        guards: dict[str, Guard] = {}
        known = {}
        try:
            for entry in keys.keys:
                if entry.revoked_on is not None:
                    known[entry.id] = _Known(entry, None)
                    continue
                guard = self._guard(entry, guards)
                limits = Limits(entry.limits.body_bytes, entry.limits.requests_per_minute)
                tenant = Tenant(entry.name, guard, entry.band, guard.policy.digest(), limits)
                known[entry.id] = _Known(entry, tenant)
        except Exception:
            self._guards |= guards  # the next try, some seconds later, loads them no second time
            raise
        self._guards = guards
        return known

    def _guard(self, entry: KeyEntry, made: dict[str, Guard]) -> Guard:
        policy = key_policy(self.path, entry, self.default)
        digest = policy.digest()
        if digest not in made:
            # The same policy keeps its guard over a reload: its checks are loaded once.
            try:
                made[digest] = self._guards.get(digest) or (
                    Guard(policy, observer=self.observer) if self.observer else Guard(policy)
                )
            except PolicyError as error:
                raise KeysError(f"{self.path}: keys.{entry.name}: {error}") from None
        return made[digest]
