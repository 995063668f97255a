"""A browser for the tests of the pages; no request of it may leave this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    # The fixtures import it when they run: without Playwright the test files skip and say why.
    from chromium import Seen


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
