"""The grown-up's page when it is cut off, locked elsewhere, or renewed while somebody reads."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from audited import event, write
from chromium import MARKS, PIN, Place, go_to, log_in, open_child, sync_api
from page_server import free_port, wait_for

from kidrails_guard.page import texts
from kidrails_guard.types import Action

pytestmark = MARKS


def happen(place: Place, *numbers: int, text: str = "", **options: Any) -> None:
    """Let messages be held back now."""
    now = time.time()
    events = [event(n, at=now + n / 1000, action=Action.REFUSE, text=text) for n in numbers]
    audit = place.folder / "audit"
    # Playwright has an event loop of its own on this thread.
    with ThreadPoolExecutor(1) as other:
        other.submit(lambda: asyncio.run(write(audit, *events, **options))).result()


def reasons(tab: Any) -> dict[str, bool]:
    found: dict[str, bool] = tab.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#record details')]"
        ".map(why => [why.dataset.of, why.open]))"
    )
    return found


def test_a_reason_stays_as_it_was_left_while_messages_come(tab: Any, place: Place) -> None:
    happen(place, 1, 2)
    log_in(tab, place.url)
    first = tab.locator("#record details[data-of=r1] summary")
    first.click()
    assert reasons(tab) == {"r2": True, "r1": False}
    happen(place, 3)
    sync_api.expect(tab.locator("#record li").filter(has=tab.locator("details"))).to_have_count(3)
    sync_api.expect(first).to_be_focused()
    assert reasons(tab) == {"r3": True, "r2": True, "r1": False}


def test_what_settings_answer_is_a_status_before_it_speaks(tab: Any, place: Place) -> None:
    log_in(tab, place.url)
    go_to(tab, "Settings")
    said = tab.locator("[role=status].said")
    sync_api.expect(said).to_have_count(3)
    assert [text.strip() for text in said.all_inner_texts()] == ["", "", ""]
    tab.get_by_role("button", name="Save names").click()
    sync_api.expect(said.nth(1)).to_have_text("Saved.")


def test_on_paper_there_are_all_reasons_and_no_buttons(tab: Any, place: Place) -> None:
    happen(place, 8, 9)
    log_in(tab, place.url)
    reason = tab.locator("#record details[data-of=r9]")
    reason.locator("summary").click()
    sync_api.expect(reason.locator("li").first).to_be_hidden()
    tab.emulate_media(media="print")
    sync_api.expect(reason.locator("li").first).to_be_visible()
    assert [e.inner_text() for e in tab.locator("button, a, label").all() if e.is_visible()] == []
    white = "getComputedStyle(document.querySelector('.gradio-container')).backgroundColor"
    assert tab.evaluate(white) == "rgb(255, 255, 255)"
    tab.emulate_media(media="screen")
    go_to(tab, "Rules")
    tab.set_viewport_size({"width": 690, "height": 900})  # what margins leave of a sheet
    tab.emulate_media(media="print")
    assert tab.locator("#rules .scroll").evaluate("e => e.scrollWidth <= e.clientWidth")


def test_one_long_word_of_a_childs_pushes_nothing_off_the_page(tab: Any, place: Place) -> None:
    happen(place, 11, text="no" * 200, text_retention_days=2)
    log_in(tab, place.url)
    tab.set_viewport_size({"width": 360, "height": 740})
    sync_api.expect(tab.locator("#record blockquote").first).to_contain_text("nono")
    edges = tab.evaluate("[...document.querySelectorAll('#record li, #record blockquote')]"
                         ".map(e => e.getBoundingClientRect().right)")  # fmt: skip
    assert max(edges) <= 360
    quote = tab.locator("#record blockquote").first
    assert quote.evaluate("e => e.scrollWidth <= e.clientWidth")


def test_forced_colours_show_what_is_chosen(tab: Any, place: Place) -> None:
    log_in(tab, place.url)
    tab.emulate_media(forced_colors="active")
    paint = "e => getComputedStyle(e).backgroundColor + getComputedStyle(e).backgroundImage"
    shown = [e.evaluate(paint) for e in tab.locator("#filter input").all()]
    assert shown[0] not in shown[1:]


def test_where_the_record_lies_can_be_read_on_a_phone(tab: Any, place: Place) -> None:
    log_in(tab, place.url)
    go_to(tab, "Settings")
    sync_api.expect(tab.locator("#settings code").last).to_be_visible()
    tab.set_viewport_size({"width": 360, "height": 740})
    edges = tab.evaluate("[...document.querySelectorAll('#settings code')]"
                         ".map(e => e.getBoundingClientRect().right)")  # fmt: skip
    assert max(edges) <= 360


def test_a_page_that_is_cut_off_says_so_until_it_is_not(shaky: Any, place: Place) -> None:
    log_in(shaky, place.url)
    cut_off = shaky.get_by_text(texts.CUT_OFF)
    sync_api.expect(cut_off).to_be_hidden()
    shaky.context.set_offline(True)
    sync_api.expect(cut_off).to_be_visible()
    sync_api.expect(shaky.locator("#status")).to_be_hidden()
    shaky.context.set_offline(False)
    sync_api.expect(cut_off).to_be_hidden()
    sync_api.expect(shaky.locator("#status")).to_contain_text("Age band")


def test_a_page_that_was_locked_elsewhere_asks_for_the_pin(shaky: Any, place: Place) -> None:
    log_in(shaky, place.url)
    shaky.wait_for_timeout(500)
    other = shaky.context.new_page()
    other.goto(f"{place.url}grown-up/lock")
    shaky.wait_for_url("**/grown-up/login")


def test_another_pin_locks_out_who_came_with_the_old_one(
    shaky: Any, browser: Any, place: Place
) -> None:
    log_in(shaky, place.url)
    with browser.new_context() as context:
        child = context.new_page()
        log_in(child, place.url)
        go_to(shaky, "Settings")
        shaky.get_by_label("New PIN (4 to 12").fill(PIN)  # one that was peeped at, and is set anew
        shaky.get_by_label("The new PIN once more").fill(PIN)
        shaky.get_by_role("button", name="Change the PIN").click()
        sync_api.expect(shaky.get_by_text("The new PIN holds")).to_be_visible()
        child.wait_for_url("**/grown-up/login")
    shaky.wait_for_timeout(3_000)  # longer than the page takes to renew itself
    assert shaky.url == f"{place.url}grown-up/"


def test_a_tab_that_nobody_touches_locks_itself_and_no_tab_that_is_used(
    browser: Any, place: Place
) -> None:
    with browser.new_context() as context:
        idle, used = context.new_page(), context.new_page()
        for tab in (idle, used):
            tab.clock.install()
            log_in(tab, place.url)
        for _ in range(3):  # eighteen minutes, of which the tabs' one clock tells both
            idle.clock.fast_forward("06:00")
            used.keyboard.press("Shift")
            used.wait_for_timeout(300)
        assert [tab.url for tab in (idle, used)] == [f"{place.url}grown-up/"] * 2
        idle.clock.fast_forward("16:00")
        for tab in (idle, used):
            tab.wait_for_url(lambda url: not url.endswith("/grown-up/"))
        idle.goto(f"{place.url}grown-up/")
        assert idle.url == f"{place.url}grown-up/login"


def test_both_pages_find_back_after_a_restart(
    shaky: Any, browser: Any, slow_model: int, tmp_path: Path
) -> None:
    place = Place(tmp_path, free_port(), slow_model)
    with browser.new_context() as context:
        grown = context.new_page()
        with place.run() as server:
            wait_for(f"{place.url}ready", server, log=tmp_path / "log")
            open_child(shaky, place.url)
            log_in(grown, place.url)
        shaky.get_by_label("Your question").fill("Why do wolves howl?")
        shaky.keyboard.press("Enter")
        sync_api.expect(shaky.locator("#lost")).to_have_text(texts.LOST)
        sync_api.expect(grown.get_by_text(texts.CUT_OFF)).to_be_visible()
        with place.run() as server:
            wait_for(f"{place.url}ready", server, log=tmp_path / "log")
            grown.wait_for_url("**/grown-up/login")
            sync_api.expect(shaky.locator("#lost")).to_have_text("")
            shaky.get_by_role("button", name="Send").wait_for()
