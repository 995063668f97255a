"""The pages when something is in the way: impatience, a lost connection, a small window.

In front of a model server that says the same words slowly, so that there is time to interfere.
"""

from __future__ import annotations

from typing import Any

import pytest
from chromium import MARKS, SAYS, Place, open_child, sync_api

from kidrails_guard.audit import read_inbox
from kidrails_guard.page import texts

pytestmark = MARKS

LOW_WINDOWS = {"phone held sideways": (740, 360), "zoomed twice": (683, 384), "4 times": (320, 256)}


def said(tab: Any) -> list[str]:
    bubbles: list[str] = tab.locator("#talk .message").all_inner_texts()
    return [text.strip() for text in bubbles[1:]]  # after the greeting


def box(tab: Any) -> Any:
    return tab.get_by_label("Your question")


def wait_for_the_end(tab: Any) -> None:
    sync_api.expect(tab.get_by_role("button", name="Send")).to_be_visible()


def test_what_is_typed_while_an_answer_comes_stays(tab: Any, place: Place) -> None:
    open_child(tab, place.url)
    box(tab).fill("Why do wolves howl?")
    for _ in range(3):
        tab.keyboard.press("Enter")
    tab.keyboard.type("And whales?", delay=50)
    tab.get_by_role("button", name="Stop").wait_for()
    tab.keyboard.press("Enter")
    wait_for_the_end(tab)
    sync_api.expect(box(tab)).to_have_value("And whales?")
    sync_api.expect(box(tab)).to_be_focused()
    assert said(tab) == ["Why do wolves howl?", SAYS]


def test_a_question_that_is_quicker_than_the_page_is_not_wiped(tab: Any, place: Place) -> None:
    held: list[Any] = []
    tab.route("**/queue/join*", lambda call: call.continue_() if held else held.append(call))
    open_child(tab, place.url)
    box(tab).fill("Why do wolves howl?")
    tab.keyboard.press("Enter")
    tab.wait_for_timeout(1_000)
    assert len(held) == 1
    held[0].continue_()
    tab.get_by_role("button", name="Stop").wait_for()
    wait_for_the_end(tab)
    assert said(tab) == ["Why do wolves howl?", SAYS]


def test_a_question_during_the_answer_to_a_starter_is_not_lost(tab: Any, place: Place) -> None:
    open_child(tab, place.url)
    starter = texts.STARTERS["7-9"][0]  # type: ignore[index]
    tab.get_by_role("button", name=starter).click()
    tab.get_by_role("button", name="Stop").wait_for()
    box(tab).fill("And whales?")
    tab.keyboard.press("Enter")
    wait_for_the_end(tab)
    sync_api.expect(box(tab)).to_have_value("And whales?")
    tab.keyboard.press("Enter")
    tab.get_by_role("button", name="Stop").wait_for()
    wait_for_the_end(tab)
    assert said(tab) == [starter, SAYS, "And whales?", SAYS]


def test_an_answer_that_is_stopped_says_so_wherever_it_was(tab: Any, place: Place) -> None:
    open_child(tab, place.url)
    for pause_ms in (0, 70, 160, 300, 450, 700, 1_100):
        box(tab).fill("Why do wolves howl?")
        tab.keyboard.press("Enter")
        tab.get_by_role("button", name="Stop").wait_for()
        tab.wait_for_timeout(pause_ms)
        tab.get_by_role("button", name="Stop").click()
        wait_for_the_end(tab)
        answer = said(tab)[-1]
        assert answer.endswith(texts.STOPPED), pause_ms
        assert SAYS not in answer
        sync_api.expect(tab.locator("#live")).to_have_text(texts.STOPPED)
        assert not [e for e in tab.locator(".error").all() if e.is_visible()]


def test_a_screen_reader_hears_the_same_answer_again(tab: Any, place: Place) -> None:
    open_child(tab, place.url)
    tab.evaluate("""() => {
      window.heard = [];
      const live = document.querySelector("#live");
      const look = () => window.heard.push(live.innerText.trim());
      new MutationObserver(look).observe(live, {
        childList: true, subtree: true, characterData: true,
      });
    }""")
    for _ in range(2):
        box(tab).fill("Why do wolves howl?")
        tab.keyboard.press("Enter")
        tab.get_by_role("button", name="Stop").wait_for()
        wait_for_the_end(tab)
        sync_api.expect(tab.locator("#live")).to_have_text(SAYS)
    heard = tab.evaluate("window.heard")
    changes = [words for words, before in zip(heard, ["", *heard], strict=False) if words != before]
    assert changes == [SAYS, "", SAYS]


def test_what_gradio_draws_late_is_still_not_announced_in_crumbs(tab: Any, place: Place) -> None:
    open_child(tab, place.url)
    tab.wait_for_timeout(2_500)
    tab.evaluate("""() => {
      document.querySelector("#talk [role=log]").setAttribute("aria-live", "polite");
      const live = document.querySelector("#live");
      const fresh = live.cloneNode(true);
      for (const name of ["role", "aria-live"]) fresh.removeAttribute(name);
      live.replaceWith(fresh);
    }""")
    sync_api.expect(tab.locator("#talk [role=log]")).to_have_attribute("aria-live", "off")
    sync_api.expect(tab.locator("#live")).to_have_attribute("role", "status")


def test_markup_in_a_message_is_shown_as_it_was_typed(tab: Any, place: Place) -> None:
    open_child(tab, place.url)
    typed = "is 5 &lt; 6 <b>bold</b> <a href='http://x.example/'>here</a> <img src='/favicon.ico'>"
    box(tab).fill(typed)
    tab.keyboard.press("Enter")
    bubble = tab.locator("#talk .message.user")
    sync_api.expect(bubble).to_have_text(typed)
    assert bubble.locator("a, b, img").count() == 0
    sync_api.expect(bubble.locator("[aria-label]")).to_have_attribute("aria-label", f"You: {typed}")


def test_hebrew_and_arabic_run_from_the_right_each_line_for_itself(tab: Any, place: Place) -> None:
    open_child(tab, place.url)
    words = ["למה wolves", "لماذا wolves", "why ذئب"]
    box(tab).fill("\n".join(words))
    assert box(tab).evaluate("e => getComputedStyle(e).unicodeBidi") == "plaintext"
    tab.keyboard.press("Enter")
    bubble = tab.locator("#talk .message.user .md")
    sync_api.expect(bubble).to_contain_text("wolves")
    from_the_right = bubble.evaluate("""e => {
      const node = document.createTreeWalker(e, NodeFilter.SHOW_TEXT).nextNode();
      const left = at => {
        const range = document.createRange();
        range.setStart(node, at); range.setEnd(node, at + 1);
        return range.getBoundingClientRect().left;
      };
      let start = 0;
      return node.data.split("\\n").map(line => {
        const [first, last] = [left(start), left(start + line.length - 1)];
        start += line.length + 1;
        return first > last;
      });
    }""")
    assert from_the_right == [True, True, False]


def test_a_talk_can_be_printed_whole(tab: Any, place: Place) -> None:
    open_child(tab, place.url)
    box(tab).fill("wolves? " * 120)
    tab.keyboard.press("Enter")
    tab.get_by_role("button", name="Stop").wait_for()
    wait_for_the_end(tab)
    tab.emulate_media(media="print")
    assert [e.inner_text() for e in tab.locator("button, a").all() if e.is_visible()] == []
    log = tab.locator("#talk [role=log]")
    assert log.evaluate("e => e.clientHeight >= e.scrollHeight")
    page_ends = tab.evaluate("document.documentElement.scrollHeight")
    assert log.evaluate("e => e.getBoundingClientRect().bottom") <= page_ends + 1


def test_a_talk_can_be_begun_anew_in_mid_answer(tab: Any, place: Place) -> None:
    open_child(tab, place.url)
    for _ in range(3):
        box(tab).fill("Why do wolves howl?")
        tab.keyboard.press("Enter")
        tab.get_by_role("button", name="Stop").wait_for()
        tab.get_by_role("button", name="Start again").click()
        sync_api.expect(tab.locator("#talk .message")).to_have_count(1)
        wait_for_the_end(tab)
        tab.wait_for_timeout(500)  # nothing of the old answer comes later
        assert said(tab) == []
        sync_api.expect(tab.locator("#starters")).to_be_visible()


def test_the_way_to_a_grown_up_needs_no_connection(shaky: Any, place: Place) -> None:
    open_child(shaky, place.url)
    before = len(read_inbox(place.folder / "audit"))
    shaky.context.set_offline(True)
    shaky.get_by_role("button", name="Tell a grown-up").click()
    sync_api.expect(shaky.get_by_role("heading", name="Go to a grown-up")).to_be_focused()
    sync_api.expect(shaky.locator("#noted")).to_have_text(texts.NOTE_FAILED)
    shaky.context.set_offline(False)
    sync_api.expect(shaky.locator("#noted")).to_have_text(texts.NOTE_LEFT)
    assert len(read_inbox(place.folder / "audit")) == before + 1
    shaky.get_by_role("button", name="Back to our talk").click()
    sync_api.expect(box(shaky)).to_be_focused()


def test_a_lost_connection_is_told_kindly_and_found_again(shaky: Any, place: Place) -> None:
    open_child(shaky, place.url)
    shaky.context.set_offline(True)
    box(shaky).fill("Why do wolves howl?")
    shaky.keyboard.press("Enter")
    sync_api.expect(shaky.locator("#lost")).to_have_text(texts.LOST)
    assert "Connection" not in shaky.locator("body").inner_text()
    shaky.get_by_role("button", name="Tell a grown-up").click()
    sync_api.expect(shaky.get_by_role("heading", name="Go to a grown-up")).to_be_visible()
    shaky.context.set_offline(False)
    sync_api.expect(shaky.locator("#lost")).to_have_text("")
    # What the child was reading outlives that the page was loaded anew.
    sync_api.expect(shaky.get_by_role("heading", name="Go to a grown-up")).to_be_visible()
    shaky.get_by_role("button", name="Back to our talk").click()
    box(shaky).fill("Why do wolves howl?")
    shaky.keyboard.press("Enter")
    shaky.get_by_role("button", name="Stop").wait_for()
    wait_for_the_end(shaky)
    assert said(shaky) == ["Why do wolves howl?", SAYS]


@pytest.mark.parametrize("window", LOW_WINDOWS)
def test_everything_can_be_reached_in_a_low_window(tab: Any, place: Place, window: str) -> None:
    width, height = LOW_WINDOWS[window]
    tab.set_viewport_size({"width": width, "height": height})
    open_child(tab, place.url)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.mouse.move(width // 2, 20)  # over the header: it is the page that scrolls, not the talk
    for name in ("Tell a grown-up", "Start again"):
        tab.mouse.wheel(0, 5_000)
        sync_api.expect(tab.get_by_role("button", name=name)).to_be_in_viewport(ratio=0.99)
    tab.get_by_role("button", name="Tell a grown-up").click()
    sync_api.expect(tab.get_by_role("heading", name="Go to a grown-up")).to_be_focused()
    sync_api.expect(tab.locator("#noted")).to_have_text(texts.NOTE_LEFT)
    tab.mouse.wheel(0, 5_000)
    back = tab.get_by_role("button", name="Back to our talk")
    sync_api.expect(back).to_be_in_viewport(ratio=0.99)


def test_a_phone_offers_two_starters(tab: Any, place: Place) -> None:
    tab.set_viewport_size({"width": 360, "height": 740})
    open_child(tab, place.url)
    sync_api.expect(tab.locator("button.idea").first).to_be_visible()
    assert sum(idea.is_visible() for idea in tab.locator("button.idea").all()) == 2
