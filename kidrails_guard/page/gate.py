"""Decides who may open what, and lets no page load anything from elsewhere.

Gradio brings far more than two pages need: uploads, file and proxy routes, an API, a run history.
Only the paths that the pages use are let through; everything of the grown-up's needs the PIN.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kidrails_guard.page import texts
from kidrails_guard.page.settings import SettingsError, SettingsStore

_log = logging.getLogger(__name__)

GROWN_UP: Final = "/grown-up"
LOGIN, SETUP, LOCK = f"{GROWN_UP}/login", f"{GROWN_UP}/setup", f"{GROWN_UP}/lock"
STYLE, READY, TELL = "/style.css", "/ready", "/tell"
SESSION_COOKIE: Final = "kidrails_grown_up"
VISIT_COOKIE: Final = "kidrails_visit"

_OPEN: Final = frozenset({LOGIN, SETUP, LOCK, STYLE, READY, TELL, "/favicon.ico"})
_GRADIO: Final = re.compile(
    r"/(?:$|theme\.css$|config$|favicon\.ico$|manifest\.json$|assets/|static/"
    r"|gradio_api/(?:queue/(?:join|data)$|heartbeat/|cancel$|reset$|info$|app_id$|startup-events$))"
)
#: Says only which start of the page this is; a page that lost its connection asks for it.
_APP_ID: Final = "/gradio_api/app_id"
_LARGEST_BODY: Final = 64 * 1024
_LIFE_S: Final = 12 * 3600.0
_FOREIGN_META: Final = re.compile(
    rb"\s*<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>", re.IGNORECASE
)

# Gradio starts from inline scripts and compiles small handlers, hence the two unsafe words; what
# counts here is that nothing is fetched from, or sent to, any other server.
_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors {ancestors}"
)


class Sessions:
    """Who has shown the PIN; in memory, so that a restart locks the page.

    Args:
        clock: seconds that only grow (for tests).
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: dict[str, float] = {}
        self._lock = threading.Lock()

    def open(self) -> str:
        """Return a new session's secret."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            now = self._clock()
            self._ends = {t: end for t, end in self._ends.items() if end > now}
            self._ends[token] = now + _LIFE_S
        return token

    def holds(self, token: str | None) -> bool:
        """Return whether a secret belongs to an open session."""
        return token is not None and self._ends.get(token, 0.0) > self._clock()

    def close(self, token: str) -> None:
        """Close one session."""
        with self._lock:
            self._ends.pop(token, None)

    def close_all(self, *, but: str | None = None) -> None:
        """Close every session, or every other one."""
        with self._lock:
            self._ends = {token: end for token, end in self._ends.items() if token == but}


class Gate:
    """The outermost layer of the pages (ASGI).

    Args:
        app: the pages.
        store: knows whether a PIN has been set.
        sessions: who has shown it.
        hosts: names under which the page may be asked for; None for any. It keeps other sites
            from reaching a page on this machine through a name that they control.
        frame_ancestors: who may show the page inside theirs, as in Content-Security-Policy.
    """

    def __init__(
        self,
        app: ASGIApp,
        store: SettingsStore,
        sessions: Sessions,
        *,
        hosts: frozenset[str] | None,
        frame_ancestors: str = "'none'",
    ) -> None:
        self._app, self._store, self._sessions = app, store, sessions
        self._hosts = hosts
        self._policy = _POLICY.format(ancestors=frame_ancestors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or answer it here."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        visit = connection.cookies.get(VISIT_COOKIE, "")
        fresh = "" if visit else secrets.token_urlsafe(16)

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._seal(MutableHeaders(scope=message), fresh)
            await send(message)

        answer = self._decide(connection, scope["method"], scope["path"])
        if answer is not None:
            await answer(scope, receive, sealed)
        elif scope["path"] in {"/", f"{GROWN_UP}/"}:
            await self._app(scope, receive, _without_foreign_meta(sealed))
        else:
            await self._app(scope, receive, sealed)

    def _decide(self, connection: HTTPConnection, method: str, path: str) -> Response | None:
        """Return an answer that ends the request here, or None to let it through."""
        headers = connection.headers
        if self._hosts is not None and _host(headers.get("host", "")) not in self._hosts:
            return PlainTextResponse("This page is not reachable under that name.", 421)
        if method not in {"GET", "HEAD", "POST"}:
            return PlainTextResponse("Not allowed.", 405)
        if method == "POST" and (problem := _refused_post(headers)):
            return problem
        if path == READY:
            return PlainTextResponse("ready")
        if path == GROWN_UP:
            return _go(f"{GROWN_UP}/")
        if path in _OPEN:
            return None
        inner = path.removeprefix(GROWN_UP) if path.startswith(f"{GROWN_UP}/") else path
        if not _GRADIO.match(inner):
            return PlainTextResponse("There is nothing here.", 404)
        page = inner == "/"
        try:
            if page and self._store.read() is None:
                return _go(SETUP)
        except SettingsError as error:
            return settings_broken(error)
        if inner not in {path, _APP_ID} and not self._sessions.holds(
            connection.cookies.get(session_cookie(headers))
        ):
            return _go(LOGIN) if page else PlainTextResponse("Locked.", 401)
        return None

    def _seal(self, headers: MutableHeaders, fresh_visit: str) -> None:
        headers["content-security-policy"] = self._policy
        headers["x-content-type-options"] = "nosniff"
        # Not "no-referrer": with it a form says that it comes from nowhere.
        headers["referrer-policy"] = "same-origin"
        headers["permissions-policy"] = "camera=(), microphone=(), geolocation=(), payment=()"
        headers["cross-origin-opener-policy"] = "same-origin"
        if headers.get("content-type", "").startswith("text/html"):
            headers["cache-control"] = "no-store"
            if fresh_visit:
                headers.append(
                    "set-cookie",
                    f"{VISIT_COOKIE}={fresh_visit}; Path=/; HttpOnly; SameSite=Strict",
                )


def session_cookie(headers: Mapping[str, str]) -> str:
    """Return the name of the session's cookie on the page that a request asks for.

    Browsers keep one jar for all ports of a host: the pages of two groups on one machine would
    lock each other.

    >>> session_cookie({"host": "127.0.0.1:7861"}), session_cookie({"host": "kids.example"})
    ('kidrails_grown_up_7861', 'kidrails_grown_up')
    """
    port = headers.get("host", "").rpartition(":")[2]
    return f"{SESSION_COOKIE}_{port}" if port.isdecimal() else SESSION_COOKIE


def settings_broken(error: SettingsError) -> Response:
    """Say that no page can open, to a child and to the grown-up who can put it right."""
    _log.error("%s", error)
    return PlainTextResponse(f"{texts.BROKEN}\n\nFor the grown-up: {error}", 503)


def _go(path: str) -> Response:
    return RedirectResponse(path, 303, headers={"cache-control": "no-store"})


def _host(header: str) -> str:
    """Return the name in a Host header, without the port.

    >>> _host("localhost:7860"), _host("[::1]:7860"), _host("127.0.0.1")
    ('localhost', '[::1]', '127.0.0.1')
    """
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0].lower()


def _refused_post(headers: Headers) -> Response | None:
    """Refuse what another site's page sends, and bodies that no page here would send."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return PlainTextResponse("Only this page itself may send that.", 403)
    length = headers.get("content-length", "")
    if not length.isdigit():
        return PlainTextResponse("The length of the body is missing.", 411)
    if int(length) > _LARGEST_BODY:
        return PlainTextResponse("That is too long.", 413)
    return None


def _without_foreign_meta(send: Send) -> Send:
    """Strip the preview pictures and names of other sites from a page's head."""
    start: Message = {}
    body = bytearray()

    async def collect(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        body.extend(message.get("body", b""))
        if not message.get("more_body"):
            page = _FOREIGN_META.sub(b"", bytes(body))
            MutableHeaders(scope=start)["content-length"] = str(len(page))
            await send(start)
            await send({"type": "http.response.body", "body": page})

    return collect
