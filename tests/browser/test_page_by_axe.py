"""Every view of the pages, judged by axe-core: what of WCAG a program can see, and more."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from audited import event, write
from chromium import MARKS, Place, go_to, log_in, open_child, sync_api
from page_server import free_port, wait_for

from kidrails_guard.audit import note_inbox
from kidrails_guard.types import Action

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="run: make .venv/.dev")
pytestmark = MARKS

WIDTHS = {"desktop": (1100, 820), "phone": (360, 740)}


def problems(tab: Any) -> list[tuple[str, str]]:
    tab.wait_for_timeout(300)  # what fades in is pale for a moment
    found = axe.Axe().run(tab).response["violations"]
    return [(one["id"], node["html"][:160]) for one in found for node in one["nodes"]]


@pytest.fixture(params=WIDTHS)
def sized(tab: Any, request: pytest.FixtureRequest) -> Any:
    width, height = WIDTHS[request.param]
    tab.set_viewport_size({"width": width, "height": height})
    return tab


def test_the_childs_page(sized: Any, place: Place) -> None:
    open_child(sized, place.url)
    assert problems(sized) == []
    sized.get_by_label("Your question").fill("Why do wolves howl?")
    sized.keyboard.press("Enter")
    sized.get_by_role("button", name="Stop").wait_for()
    assert problems(sized) == []
    sync_api.expect(sized.get_by_role("button", name="Send")).to_be_visible()
    assert problems(sized) == []
    sized.get_by_role("button", name="Tell a grown-up").click()
    sync_api.expect(sized.locator("#noted")).not_to_be_empty()
    assert problems(sized) == []


def test_the_grown_ups_page(sized: Any, place: Place) -> None:
    audit = place.folder / "audit"
    note_inbox(audit, "crisis", band="7-9", hazard="K02")
    actions = (Action.ALLOW, Action.CARE, Action.REFUSE, Action.CRISIS)
    events = [event(i, at=time.time() + i / 1000, action=a) for i, a in enumerate(actions)]
    # Playwright has an event loop of its own on this thread.
    with ThreadPoolExecutor(1) as other:
        other.submit(lambda: asyncio.run(write(audit, *events))).result()
    log_in(sized, place.url)
    sync_api.expect(sized.locator("#record li.crisis").first).to_be_visible()
    assert problems(sized) == []
    for name in ("Inbox", "Rules", "Help lines", "Settings"):
        tab = sized.get_by_role("tab", name=name)
        if not tab.is_visible():  # behind "more", where the window is narrow
            sized.get_by_role("button", name="More tabs").click()
            sized.locator("#tabs .overflow-dropdown").get_by_text(name).click()
        else:
            go_to(sized, name)
        assert problems(sized) == [], name


@pytest.mark.parametrize("size", WIDTHS)
def test_the_forms(shaky: Any, place: Place, slow_model: int, tmp_path: Path, size: str) -> None:
    width, height = WIDTHS[size]
    shaky.set_viewport_size({"width": width, "height": height})
    shaky.goto(f"{place.url}grown-up/login")
    assert problems(shaky) == []
    other = Place(tmp_path, free_port(), slow_model, pin="")
    with other.run() as server:
        wait_for(f"{other.url}ready", server, log=tmp_path / "log")
        shaky.goto(other.url)
        shaky.get_by_label("Choose a PIN").fill("8642")
        shaky.get_by_label("once more").fill("8643")
        assert problems(shaky) == []
        shaky.get_by_role("button", name="Start").click()
        sync_api.expect(shaky.get_by_role("alert")).to_contain_text("differ")
        assert problems(shaky) == []
