"""What the proxy remembers of a child's session between two requests: numbers, never words.

It makes the reply's check stricter after heavy turns, says once at the start that the child talks
with a computer program, and offers a break when one is due (California SB 243: every three hours).
Neither counts as said before a reply that says it has ended: what was held back told nobody.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from kidrails_guard.proxy.seams import Meter, SessionStore, SessionStoreError
from kidrails_guard.session import TTL_S, advance, disclosed, load_state, paused
from kidrails_guard.types import Verdict


@dataclass(frozen=True, slots=True)
class Sitting:
    """What follows from a session for one reply.

    Attributes:
        disclosure_due: whether the child has not been told yet that this is a program.
        wary: whether the reply is held to the stricter check.
        break_due: whether a break is offered.
    """

    disclosure_due: bool = False
    wary: bool = False
    break_due: bool = False


NO_SITTING = Sitting()
"""Of a caller that names no session, or whose session cannot be read."""


class Sittings:
    """Reads and writes sessions; where their store fails, requests go on without.

    Args:
        store: in memory, or shared by several replicas.
        meter: told when the store fails.
        clock: seconds since the epoch.
    """

    def __init__(
        self, store: SessionStore, meter: Meter, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._meter, self._clock = store, meter, clock

    async def turn(
        self, tenant: str, session: str, verdict: Verdict, *, break_after_minutes: int
    ) -> Sitting:
        """Note one turn of the child; return what follows for the reply.

        Args:
            tenant: sessions of two tenants never meet, whatever they are called.
            session: the header as sent; empty for none.
            verdict: on the child's words.
            break_after_minutes: of the policy.
        """
        if not session:
            return NO_SITTING
        key, now = _key(tenant, session), self._clock()
        try:
            before = load_state(await self._store.get(key))
            state = advance(before, verdict, now)
            await self._store.put(key, state.to_bytes(), ttl_seconds=TTL_S)
        except SessionStoreError:
            self._meter.failure("session_store")
            return NO_SITTING
        # Heavy before this turn is enough: one calm word does not make the reply to it easy.
        wary = state.wary(now) or (before is not None and before.wary(now))
        # A break is offered with an answer of the model; a crisis is not the moment.
        due = not verdict.action.answers and state.break_due(now, after_minutes=break_after_minutes)
        return Sitting(not state.disclosed, wary, due)

    async def shown(
        self, tenant: str, session: str, *, disclosure: bool, break_offer: bool
    ) -> None:
        """Note what a reply that has ended told the child.

        Args:
            tenant: as in `turn`.
            session: as in `turn`.
            disclosure: that this is a program.
            break_offer: that it is time for a break.
        """
        if not session or not (disclosure or break_offer):
            return
        key = _key(tenant, session)
        try:
            state = load_state(await self._store.get(key))
            if state is None:
                return
            state = disclosed(state) if disclosure else state
            state = paused(state, self._clock()) if break_offer else state
            await self._store.put(key, state.to_bytes(), ttl_seconds=TTL_S)
        except SessionStoreError:
            self._meter.failure("session_store")

    async def close(self) -> None:
        """Release the store."""
        await self._store.close()


def _key(tenant: str, session: str) -> str:
    return hashlib.blake2b(f"{tenant}\0{session}".encode(), digest_size=16).hexdigest()
