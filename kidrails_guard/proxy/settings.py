"""How one proxy is set up. Only its operator sets these; no request changes them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from kidrails_guard.errors import UsageError
from kidrails_guard.proxy.fields import check_pass_fields

LITELLM_PREFIX: Final = "litellm:"
_MOST_S: Final = 86_400.0
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HEADER: Final = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's choices.

    Attributes:
        upstream: base URL of an OpenAI-compatible API, or ``litellm:provider/model``.
        upstream_key: sent as bearer token to the upstream; callers' keys never are.
        model: asked of the upstream, whatever model the caller names; None passes the name on.
        band_header: a request header that names the age band; only for a trusted service in front
            that sets or removes it on every request. None: no header is looked at.
        session_header: a request header that names the child's session; None: no sessions.
        disclosure: whether a session's first reply begins by saying that this is a program; off
            where the page that shows it says so itself.
        operator_headers: also say in ``x-kidrails-hazards`` what was found; for callers that are
            grown-ups' tools, since a label is nothing for a child.
        pass_fields: further request fields that the upstream may see (see ``fields.py``).
        connect_timeout_s: for reaching the upstream.
        read_timeout_s: longest silence of the upstream.
        answer_timeout_s: longest time for one whole answer.
        body_timeout_s: for the caller to send its request.
        heartbeat_s: a comment keeps a stream open that has nothing to release for so long.
        shutdown_s: what is open may go on for so long when the server is told to stop; then
            streams end with a kind sentence, and who waits for the model is told to ask again.
        upstream_connections: most at a time.
        checks_at_once: texts that one worker checks at a time; the next ones wait.
        remembered_verdicts: verdicts on earlier turns kept in memory, by keyed hash.
    """

    upstream: str
    upstream_key: str | None = field(default=None, repr=False)
    model: str | None = None
    band_header: str | None = None
    session_header: str | None = "x-kidrails-session"
    disclosure: bool = True
    operator_headers: bool = False
    pass_fields: frozenset[str] = frozenset()
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 120.0
    answer_timeout_s: float = 600.0
    body_timeout_s: float = 30.0
    heartbeat_s: float = 15.0
    shutdown_s: float = 20.0
    upstream_connections: int = 1_100
    checks_at_once: int = 4
    remembered_verdicts: int = 20_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "upstream", check_upstream(self.upstream))
        for name in ("band_header", "session_header"):
            value = getattr(self, name)
            if value is not None:
                if not _HEADER.fullmatch(value.lower()):
                    raise UsageError(f"{name}: {value!r} is not a header's name, e.g. x-child-band")
                object.__setattr__(self, name, value.lower())
        for option, seconds in (
            ("--read-timeout", self.read_timeout_s),
            ("--shutdown-seconds", self.shutdown_s),
        ):
            if not 0 <= seconds <= _MOST_S:  # nan is not either
                raise UsageError(f"{option}: {seconds:g}; accepted: 0 to {_MOST_S:g} seconds")
        if _CONTROL.search(self.upstream_key or ""):
            raise UsageError(
                "KIDRAILS_UPSTREAM_KEY: holds a line end or another control character, which no "
                "HTTP header may; give the key alone (of a file written on Windows, each line ends "
                "with one)"
            )
        check_pass_fields(self.pass_fields)


def check_upstream(upstream: str) -> str:
    """Return the upstream's base URL without a slash at its end; ``/v1`` where it has no path.

    Raises:
        UsageError: not http or https, with a password, a query or a fragment, or without a host.
    """
    if upstream.startswith(LITELLM_PREFIX):
        if not re.fullmatch(r"[\w.-]+/\S+", upstream.removeprefix(LITELLM_PREFIX)):
            raise UsageError(
                f"upstream: {upstream!r} should be litellm:provider/model, e.g. "
                "litellm:anthropic/claude-sonnet-4-5"
            )
        return upstream
    try:
        parts = urlsplit(upstream)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"upstream: not a URL ({error}); e.g. http://localhost:8000/v1") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "upstream: a URL must not hold a user or password; give the key in "
            "KIDRAILS_UPSTREAM_KEY instead"
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(
            f"upstream: {upstream!r} is neither an http(s) URL, e.g. http://localhost:8000/v1, nor "
            "litellm:provider/model"
        )
    if parts.query or parts.fragment or re.search(r"[\s\\]", upstream):
        raise UsageError(f"upstream: {upstream!r} must be a plain base URL, without ? or #")
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"
