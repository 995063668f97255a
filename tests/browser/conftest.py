"""A browser for the tests of the pages; no request of it may leave this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from page_server import free_port, wait_for
from processes import KIT, process

if TYPE_CHECKING:
    # The fixtures import it when they run: without Playwright the test files skip and say why.
    from chromium import Place, Seen


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from chromium import CHROMIUM, PATIENCE_MS, sync_api

    sync_api.expect.set_options(timeout=PATIENCE_MS)
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def seen() -> Seen:
    from chromium import Seen

    return Seen()


@pytest.fixture
def tab(browser: Any, seen: Seen) -> Iterator[Any]:
    from chromium import SIZES

    width, height = SIZES["desktop"]
    context = browser.new_context(viewport={"width": width, "height": height})
    seen.watch(context)
    yield context.new_page()
    context.close()
    assert seen.urls
    assert seen.elsewhere() == []
    assert seen.wrong == []


@pytest.fixture(scope="module")
def slow_model() -> Iterator[int]:
    """The port of a model that says the same few words slowly: there is time to interfere."""
    from chromium import SAYS

    port = free_port()
    command = (sys.executable, str(KIT / "say_server.py"), str(port), "0.15", SAYS)
    with process(*command, until=f"http://127.0.0.1:{port}/v1/models"):
        yield port


@pytest.fixture(scope="module")
def place(slow_model: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    from chromium import Place

    place = Place(tmp_path_factory.mktemp("page"), free_port(), slow_model)
    with place.run() as server:
        wait_for(f"{place.url}ready", server, log=place.folder / "log")
        yield place


@pytest.fixture
def shaky(browser: Any, seen: Seen) -> Iterator[Any]:
    """A tab that may be refused something or lose its connection: errors to a browser."""
    context = browser.new_context(viewport={"width": 768, "height": 900})
    seen.watch(context)
    yield context.new_page()
    context.close()
    assert seen.elsewhere() == []
