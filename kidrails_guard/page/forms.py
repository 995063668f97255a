"""The two plain pages that stand before the grown-up's: choose a PIN, enter it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from kidrails_guard.page import gate, texts
from kidrails_guard.page.gate import Sessions, session_cookie
from kidrails_guard.page.settings import PIN_LENGTH, SettingsError, SettingsStore
from kidrails_guard.types import AgeBand

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title} – {name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/style.css"><link rel="icon" href="/favicon.ico"></head>
<body class="form-page"><main><h1>{title}</h1>{error}
<form method="post" autocomplete="off">{fields}<button type="submit">{button}</button></form>
{after}</main></body></html>"""

_PIN: Final = (
    '<label for="{id}">{label}</label><input id="{id}" name="{id}" type="password" '
    'inputmode="numeric" pattern="[0-9]*" minlength="{least}" maxlength="{most}" required '
    'autocomplete="{complete}" {more}>'
)


def _pin_field(name: str, label: str, *, complete: str, more: str = "") -> str:
    least, most = PIN_LENGTH
    return _PIN.format(id=name, label=label, least=least, most=most, complete=complete, more=more)


def _page(title: str, fields: str, *, button: str, after: str, error: str = "") -> HTMLResponse:
    told = f'<p class="error" role="alert" id="error">{html.escape(error)}</p>' if error else ""
    page = _PAGE.format(
        title=title, name=texts.NAME, fields=fields, button=button, after=after, error=told
    )
    return HTMLResponse(page, 400 if error else 200)


def _login_page(error: str = "") -> HTMLResponse:
    more = "autofocus" + (' aria-describedby="error" aria-invalid="true"' if error else "")
    return _page(
        "For grown-ups",
        _pin_field("pin", "PIN", complete="current-password", more=more),
        button="Open",
        error=error,
        after='<p><a href="/">Back to the child’s page</a></p><details><summary>PIN forgotten?'
        "</summary><p>Where the program was started, run <code>kidrails demo --forget-pin</code>. "
        "Then open this page again and choose a new one.</p></details>",
    )


def _setup_page(bands: Sequence[AgeBand], band: AgeBand, error: str = "") -> HTMLResponse:
    choices = "".join(
        f'<label class="choice"><input type="radio" name="band" value="{b}"'
        f"{' checked' if b is band else ''}> {b.replace('-', ' to ')} years</label>"
        for b in bands
    )
    fields = (
        "<p>A grown-up sets this up once. The PIN opens the grown-up’s page, where you see what "
        "was held back and why, and change the age. The child’s page needs none.</p>"
        f"<fieldset><legend>How old is the child?</legend>{choices}</fieldset>"
        + _pin_field("pin", "Choose a PIN (4 to 12 digits)", complete="new-password")
        + _pin_field("again", "The PIN once more", complete="new-password")
    )
    return _page(
        "Welcome",
        fields,
        button="Start",
        error=error,
        after="<p class='small'>The PIN is kept as a scrypt hash on this machine. "
        "The child’s words are not kept unless you switch that on.</p>",
    )


class Forms:
    """The routes of login, setup and lock.

    Args:
        store: where PIN and band are kept.
        sessions: who has shown the PIN.
        bands: the age bands that are served.
        band: which of them is chosen beforehand at setup.
    """

    def __init__(
        self,
        store: SettingsStore,
        sessions: Sessions,
        *,
        bands: Sequence[AgeBand],
        band: AgeBand,
    ) -> None:
        self._store, self._sessions, self._bands, self._band = store, sessions, bands, band

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(gate.LOGIN, self.login, methods=["GET", "POST"]),
            Route(gate.SETUP, self.setup, methods=["GET", "POST"]),
            Route(gate.LOCK, self.lock, methods=["GET"]),
        ]

    async def login(self, request: Request) -> Response:
        """Ask for the PIN, or open the grown-up's page when it is right."""
        if self._store.read() is None:
            return RedirectResponse(gate.SETUP, 303)
        if request.method != "POST":
            return _login_page()
        pin = (await _form(request)).get("pin", "")
        # scrypt is slow on purpose: not on the event loop.
        answer = await run_in_threadpool(self._store.try_pin, pin)
        if answer.right:
            return self._opened(gate.GROWN_UP + "/", request)
        if answer.wait_s:
            return _login_page(
                f"Not accepted. Please wait {answer.wait_s} seconds, then try again."
            )
        return _login_page("That is not the PIN.")

    async def setup(self, request: Request) -> Response:
        """Ask for a PIN and the age band once, and keep them."""
        if self._store.read() is not None:
            return RedirectResponse(gate.LOGIN, 303)
        if request.method != "POST":
            return _setup_page(self._bands, self._band)
        form = await _form(request)
        band = form.get("band", "")
        if band not in self._bands:
            return _setup_page(self._bands, self._band, "Please choose how old the child is.")
        if form.get("pin", "") != form.get("again", ""):
            return _setup_page(self._bands, AgeBand(band), "The two PINs differ.")
        try:
            await run_in_threadpool(self._store.set_up, form.get("pin", ""), band=AgeBand(band))
        except SettingsError as error:
            return _setup_page(self._bands, AgeBand(band), str(error))
        self._sessions.close_all()  # opened with a PIN that has been forgotten since
        return self._opened("/", request, remember=False)

    async def lock(self, request: Request) -> Response:
        """Close the grown-up's page and go back to the child's."""
        cookie = session_cookie(request.headers)
        if token := request.cookies.get(cookie):
            self._sessions.close(token)
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(cookie, path=gate.GROWN_UP, httponly=True, samesite="strict")
        return answer

    def _opened(self, to: str, request: Request, *, remember: bool = True) -> Response:
        answer = RedirectResponse(to, 303)
        if remember:
            answer.set_cookie(
                session_cookie(request.headers),
                self._sessions.open(),
                path=gate.GROWN_UP,
                httponly=True,
                samesite="strict",
                secure=request.url.scheme == "https",
            )
        return answer


async def _form(request: Request) -> dict[str, str]:
    """Return a small form's fields, none where it is no form; the gate has bounded its size."""
    body = (await request.body()).decode("utf-8", "replace")
    try:
        return dict(parse_qsl(body, max_num_fields=10))
    except ValueError:
        return {}
