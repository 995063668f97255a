"""Who asks: the tenant, the age band and the session of a request, before its body is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request

from kidrails_guard.proxy import seams
from kidrails_guard.proxy.body import parse_object, read_body
from kidrails_guard.proxy.exchange import Caller
from kidrails_guard.proxy.problems import Problem, bad_field
from kidrails_guard.proxy.settings import Settings
from kidrails_guard.types import AgeBand

_SESSION: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)


class Callers:
    """Knows who asks.

    Args:
        settings: which headers the operator trusts.
        tenants: knows the keys.
    """

    def __init__(self, settings: Settings, tenants: seams.Tenants) -> None:
        self._settings, self._tenants = settings, tenants

    async def tenant(self, headers: Mapping[str, str]) -> seams.Tenant:
        """Return the caller's tenant.

        Raises:
            Problem: the caller may not go on.
        """
        try:
            return await self._tenants.authenticate(headers)
        except seams.Rejected as rejected:
            raise Problem(
                rejected.status,
                rejected.code,
                str(rejected),
                failure="rate_limited" if rejected.status == 429 else "rejected",
                retry_after_s=rejected.retry_after_seconds,
            ) from None

    async def opened(self, request: Request, request_id: str) -> tuple[Caller, dict[str, Any]]:
        """Return who asks, and the body: known caller first, then what it says.

        Raises:
            Problem: the caller may not go on, or a header or the body is wrong.
            CallerLeft: the connection closed before the body's end.
        """
        headers = request.headers
        tenant = await self.tenant(headers)
        caller = Caller(tenant, self._band(headers, tenant), request_id, self._session(headers))
        data = await read_body(
            request.receive,
            headers,
            most_bytes=tenant.limits.body_bytes,
            within_s=self._settings.body_timeout_s,
        )
        return caller, parse_object(data)

    def _band(self, headers: Mapping[str, str], tenant: seams.Tenant) -> AgeBand:
        """Return the tenant's band, or that of the header that the operator trusts."""
        name = self._settings.band_header
        value = headers.get(name) if name else None
        if value is None:
            return tenant.band
        for band in tenant.guard.policy.bands:
            if value == band:
                return band
        accepted = ", ".join(tenant.guard.policy.bands)
        raise bad_field(str(name), f"must be one of {accepted}")

    def _session(self, headers: Mapping[str, str]) -> str:
        name = self._settings.session_header
        value = headers.get(name, "") if name else ""
        if value and not _SESSION.fullmatch(value):
            raise bad_field(str(name), "must be 1 to 128 letters, digits or . : _ -")
        return value
