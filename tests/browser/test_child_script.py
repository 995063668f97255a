"""The script of the child's page by itself, on a page that is drawn as Gradio draws the talk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import MARKS

pytestmark = MARKS

MESSAGES = 500
DRAWN = """count => {
  document.body.innerHTML = '<p id="lost" data-words="Lost"></p><div id="live"></div>' +
    '<div id="box"><textarea></textarea></div><button id="tell">Tell</button>' +
    '<div class="tell-panel"><ul></ul><p id="noted" data-failed="Not yet"></p></div>' +
    '<div id="talk"><div role="log" aria-live="polite">' +
    "</div></div>";
  window.draw = (who, text) => {
    const row = document.createElement("div");
    row.innerHTML = `<div class="${who} message"><div data-testid="${who}" aria-label="drawn">` +
      '<span class="md"></span></div></div>';
    row.querySelector(".md").textContent = text;
    document.querySelector("[role=log]").append(row);
  };
  for (let n = 0; n < count; n++) window.draw(n % 2 ? "bot" : "user", `words ${n}`);
}"""
#: Adds a word to the last bubble; returns how many bubbles were asked for their name.
WORD = """async () => {
  const ask = Element.prototype.getAttribute;
  let asked = 0;
  Element.prototype.getAttribute = function (name) { asked += 1; return ask.call(this, name); };
  [...document.querySelectorAll(".md")].at(-1).firstChild.data += " more";
  await new Promise(yes => setTimeout(yes));
  Element.prototype.getAttribute = ask;
  return asked;
}"""


@pytest.fixture
def drawn(browser: Any, repository: Path) -> Iterator[Any]:
    """A talk of many bubbles, with the script at work on it."""
    script = (repository / "kidrails_guard" / "page" / "child.js").read_text(encoding="utf-8")
    context = browser.new_context()
    tab = context.new_page()
    tab.evaluate(DRAWN, MESSAGES)
    tab.evaluate(f"(\n{script}\n)()")
    yield tab
    context.close()


def bubbles(tab: Any) -> list[str]:
    names: list[str] = tab.evaluate(
        "[...document.querySelectorAll('.message [aria-label]')].map(e => e.ariaLabel)"
    )
    return names


def test_a_word_in_a_long_talk_costs_no_look_at_the_other_bubbles(drawn: Any) -> None:
    assert drawn.evaluate(WORD) <= 4
    names = bubbles(drawn)
    assert names[:2] == ["You: words 0", "KidRails: words 1"]
    assert names[-1] == f"KidRails: words {MESSAGES - 1} more"


def test_whatever_is_drawn_later_gets_its_name(drawn: Any) -> None:
    drawn.evaluate("window.draw('user', '5 < 6')")
    drawn.wait_for_function("[...document.querySelectorAll('.user > div')].at(-1).ariaLabel"
                            " === 'You: 5 < 6'")  # fmt: skip
    # Gradio's own name again, and another speaker in the same element.
    drawn.evaluate("""() => {
      const said = [...document.querySelectorAll(".message > div")].at(-1);
      said.setAttribute("aria-label", "Gradio");
      said.dataset.testid = "bot";
    }""")
    drawn.wait_for_function("[...document.querySelectorAll('.message > div')].at(-1).ariaLabel"
                            " === 'KidRails: 5 < 6'")  # fmt: skip
    # The whole talk anew: no log that announces crumbs, no bubble with another name.
    drawn.evaluate("""() => {
      const fresh = document.querySelector("#talk").cloneNode(true);
      fresh.firstChild.setAttribute("aria-live", "polite");
      fresh.querySelector("[data-testid]").setAttribute("aria-label", "Gradio");
      document.querySelector("#talk").replaceWith(fresh);
    }""")
    drawn.wait_for_function("document.querySelector('[role=log]').ariaLive === 'off'")
    assert bubbles(drawn)[0] == "You: words 0"


def test_a_toast_is_said_in_words_for_a_child(drawn: Any) -> None:
    drawn.evaluate("""() => {
      const toast = document.createElement("div");
      toast.className = "toast-wrap";
      toast.innerHTML = '<div class="toast-body">Connection errored out</div>';
      document.body.append(toast);
    }""")
    drawn.wait_for_function("document.querySelector('#lost').textContent === 'Lost'")
    drawn.evaluate("document.querySelector('.toast-wrap').replaceChildren()")
    drawn.wait_for_function("document.querySelector('#lost').textContent === ''")


def test_a_note_that_gets_no_answer_is_said_to_be_on_its_way(drawn: Any) -> None:
    drawn.evaluate("""() => {
      AbortSignal.timeout = () => AbortSignal.abort(); // the time is over at once
      window.fetch = (_, { signal }) => new Promise((_, no) => {
        if (signal?.aborted) no(signal.reason);
        else signal?.addEventListener("abort", () => no(signal.reason));
      });
    }""")
    drawn.locator("#tell").click()
    drawn.wait_for_function("document.querySelector('#noted').textContent === 'Not yet'")
