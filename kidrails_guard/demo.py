"""The pages as one ASGI application: the child's at ``/``, the grown-up's at ``/grown-up/``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# Before gradio is imported anywhere: it would tell its makers that it was started.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# It would keep what the child wrote in the browser's own database.
os.environ["GRADIO_RUN_HISTORY"] = "False"
# It makes a folder as it starts; /tmp/gradio may be another user's, and the page would not open.
os.environ["GRADIO_TEMP_DIR"] = os.environ.get("GRADIO_TEMP_DIR") or str(
    Path(tempfile.gettempdir()) / f"kidrails-page-{os.getuid()}"
)

import gradio as gr
import httpx
from fastapi import FastAPI
from gradio.themes.utils import fonts
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from kidrails_guard.page import child, gate, grown_up
from kidrails_guard.page.chat import ProxyChat
from kidrails_guard.page.forms import Forms
from kidrails_guard.page.gate import Gate, Sessions
from kidrails_guard.page.settings import SettingsError, SettingsStore
from kidrails_guard.page.talk import ChildPage
from kidrails_guard.policy import load_policy
from kidrails_guard.types import AgeBand

_PAGE_FOLDER: Final = Path(__file__).parent / "page"
#: Between two looks of Gradio's queue for a question: its own pause on Windows. Elsewhere it looks
#: a thousand times a second, which keeps an idle machine busy.
_QUEUE_PAUSE_S: Final = 0.05
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class PageOptions:
    """What the pages are started with.

    Attributes:
        proxy: the guard proxy's base URL, with ``/v1``.
        audit: the audit folder that the proxy writes.
        config: the folder that keeps PIN and settings.
        policy: the policy file; None for the default one.
        band: chosen beforehand at setup, and set at once where there is one already.
        keys: API key by age band, where the proxy wants keys.
        sampling: further fields of every request, such as ``temperature``.
        host: the address that is listened on.
        frame_ancestors: who may show the page inside theirs.
    """

    proxy: str
    audit: Path
    config: Path
    policy: Path | None = None
    band: AgeBand | None = None
    keys: Mapping[AgeBand, str] = field(default_factory=dict, repr=False)
    sampling: Mapping[str, float] = field(default_factory=dict)
    host: str = "127.0.0.1"
    frame_ancestors: str = "'none'"


def build_app(
    options: PageOptions, *, transport: httpx.AsyncBaseTransport | None = None
) -> ASGIApp:
    """Return the pages.

    Args:
        options: what they are started with.
        transport: instead of the network to the proxy (for tests).

    Raises:
        PolicyError: the policy file is wrong.
        SettingsError: the settings file is wrong.
    """
    policy = load_policy(options.policy)
    store, sessions = SettingsStore(options.config), Sessions()
    if store.read() is not None and options.band is not None:
        store.change(band=options.band)
    chat = ProxyChat(
        options.proxy, keys=options.keys, sampling=options.sampling, transport=transport
    )
    child_page = ChildPage(chat, store, policy, audit=options.audit)
    # No OpenAPI pages: they would load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(SettingsError, _broken)
    app.router.routes += [
        *Forms(
            store,
            sessions,
            bands=sorted(policy.bands, key=lambda band: band.ages),
            band=options.band or policy.fallback_band,
        ).routes(),
        Route(gate.STYLE, _style),
        Route("/favicon.ico", _icon),
        child.tell_route(child_page),
    ]
    grown_page = grown_up.GrownUpPage(chat, store, policy, sessions, audit=options.audit)
    # The longer path first: the other one matches everything.
    _mount(app, grown_up.build_grown_up_page(grown_page), gate.GROWN_UP)
    _mount(app, child.build_child_page(child_page, visit_of=_visit_of), "/", script=child.SCRIPT)
    local = options.host in {"127.0.0.1", "localhost", "::1"}
    return Gate(
        app,
        store,
        sessions,
        hosts=_LOCAL_NAMES if local else None,
        frame_ancestors=options.frame_ancestors,
    )


async def _broken(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SettingsError)
    return gate.settings_broken(error)


def _visit_of(request: gr.Request) -> str:
    return str(request.cookies.get(gate.VISIT_COOKIE, ""))


# Gradio takes the rules of an @media in a stylesheet for what lies within its container.
_ON_PAPER: Final = """<style>@media print {
  body, gradio-app, .gradio-container {
    --page: #ffffff !important; background: #ffffff !important;
  }
  main.contain > .column:is(:has(#talk), :has(#tabs)) {
    height: auto !important; max-width: none !important; padding: 0 !important;
    overflow: visible !important;
  }
}</style>"""


def _mount(app: FastAPI, blocks: gr.Blocks, path: str, *, script: str | None = None) -> None:
    # No option of Gradio's sets it; its workers read it before every pause.
    blocks._queue.sleep_when_free = _QUEUE_PAUSE_S
    blocks._queue.progress_update_sleep_when_free = 2 * _QUEUE_PAUSE_S
    gr.mount_gradio_app(
        app,
        blocks,
        path=path,
        footer_links=[],
        run_history=False,
        show_error=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        theme=_theme(),
        css_paths=[_PAGE_FOLDER / "style.css"],
        head=_ON_PAPER,
        js=script,
        max_file_size=1,
    )


def _theme() -> gr.themes.Base:
    # Ships with gradio, whole, unlike most fonts beside it, whose files lack the Latin letters.
    letters = fonts.LocalFont("Quicksand", weights=(400, 700))
    return gr.themes.Base(font=[letters, "sans-serif"], font_mono=["monospace"])


async def _style(request: Request) -> Response:
    return FileResponse(_PAGE_FOLDER / "style.css", media_type="text/css")


async def _icon(request: Request) -> Response:
    return FileResponse(_PAGE_FOLDER / "icon.svg", media_type="image/svg+xml")
