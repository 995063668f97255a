"""The pages as a person meets them: what a browser test opens, types, and looks for."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from page_server import running

sync_api = pytest.importorskip("playwright.sync_api", reason="run: make .venv/.dev")
pytest.importorskip("gradio", reason="the page's extra is not installed; run: make install")

CHROMIUM = os.environ.get("KIDRAILS_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MARKS = [
    pytest.mark.browser,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on the PATH; run: apt-get install chromium"
    ),
]

PIN = "8642"
#: A busy machine writes a few words a second.
ANSWER_MS = 600_000
SAYS = "Wolves live in packs. They howl to find each other in the dark woods. Pups learn it too."
GROWN_UPS = "grown-up|parent|mum|dad|teacher|adult|person you trust"
PATIENCE_MS = 60_000
SIZES = {"desktop": (1100, 820), "tablet": (768, 1024), "phone": (360, 740)}

CONTRAST = """
() => {
  const channel = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const rgba = text => {
    const n = text.match(/[\\d.]+/g).map(Number);
    return n.length < 4 ? [...n, 1] : n;
  };
  const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3]));
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor);
      if (c[3] > 0.99) return c;
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || !element.checkVisibility({visibilityProperty: true}))
      continue;
    if (element.closest("#live, .sr-only, script, style")) continue;
    const back = behind(element);
    const front = over(rgba(style.color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    found.push({
      text: walker.currentNode.data.trim().slice(0, 40),
      contrast: (a + 0.05) / (b + 0.05),
      size: parseFloat(style.fontSize),
    });
  }
  return found;
}
"""


@dataclass(frozen=True)
class Place:
    """Where a page runs and keeps its things."""

    folder: Path
    port: int
    model: int
    pin: str = PIN

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def run(self) -> Any:
        """Serve the page until the end of a block."""
        log = self.folder / "log"
        command = ["demo", "--port", str(self.port), "--band", "7-9"]
        command += ["--proxy", f"http://127.0.0.1:{self.model}/v1"]
        command += ["--audit", str(self.folder / "audit")]
        config = {"KIDRAILS_CONFIG": str(self.folder / "config"), "KIDRAILS_PIN": self.pin}
        return running(command, log=log, environment=config)


class Seen:
    """Everything that a browser asked for, and everything that went wrong in it."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.wrong: list[str] = []

    def watch(self, context: Any) -> None:
        context.set_default_timeout(PATIENCE_MS)
        context.on("request", lambda request: self.urls.append(request.url))
        context.on("weberror", lambda error: self.note(str(error.error)))
        context.on(
            "console",
            lambda message: self.note(message.text) if message.type == "error" else None,
        )
        context.on("page", lambda page: page.on("websocket", lambda s: self.urls.append(s.url)))

    def note(self, text: str) -> None:
        # A page that is left breaks its open event stream off: that is no fault of the page.
        if "AbortError" not in text and "errored out" not in text:
            self.wrong.append(text)

    def elsewhere(self) -> list[str]:
        hosts = {"127.0.0.1", "localhost", None}
        return [url for url in self.urls if urlsplit(url).hostname not in hosts]


def open_child(tab: Any, page_url: str) -> None:
    """Open the child's page; the first time a grown-up sets it up."""
    tab.goto(page_url)
    if "/setup" in tab.url:
        tab.get_by_label("7 to 9 years").check()
        tab.get_by_label("Choose a PIN").fill(PIN)
        tab.get_by_label("once more").fill(PIN)
        tab.get_by_role("button", name="Start").click()
    sync_api.expect(tab.locator("#talk .message.bot")).to_contain_text("computer")
    sync_api.expect(tab.get_by_role("button", name="Send")).to_be_visible()


def ask(tab: Any, text: str) -> list[str]:
    """Type as a child would; return what stood in the bubble, one entry a change."""
    tab.get_by_label("Your question").fill(text)
    bubbles = tab.locator("#talk .message.bot")
    before = bubbles.count()
    tab.evaluate(
        """before => {
      window.states = [];
      const look = () => {
        const all = document.querySelectorAll("#talk .message.bot");
        const text = all.length > before ? all[before].innerText.trim() : "";
        if (text && text !== window.states.at(-1)) window.states.push(text);
      };
      window.looking = setInterval(look, 10);
    }""",
        before,
    )
    tab.keyboard.press("Enter")
    sync_api.expect(bubbles).to_have_count(before + 1)
    sync_api.expect(tab.get_by_role("button", name="Send")).to_be_visible(timeout=ANSWER_MS)
    tab.wait_for_timeout(300)
    states: list[str] = tab.evaluate("clearInterval(window.looking), window.states")
    return states


def log_in(tab: Any, page_url: str) -> None:
    tab.goto(f"{page_url}grown-up/")
    if "/login" in tab.url:
        tab.get_by_label("PIN", exact=True).fill(PIN)
        tab.get_by_role("button", name="Open").click()
    tab.locator("#tabs").wait_for()


def go_to(tab: Any, name: str) -> None:
    tab.get_by_role("tab", name=name).click()


def names(tab: Any) -> dict[str, Any]:
    """Return what a screen reader needs: names, levels, languages."""
    found: dict[str, Any] = tab.evaluate("""() => ({
      lang: document.documentElement.lang,
      title: document.title,
      h1: [...document.querySelectorAll("h1")].map(h => h.innerText),
      nameless: [...document.querySelectorAll("button, a, input, textarea")]
        .filter(e => e.checkVisibility())
        .filter(e => !(e.innerText || e.getAttribute("aria-label") || e.title
                       || e.labels?.length || e.getAttribute("aria-labelledby")))
        .map(e => e.outerHTML.slice(0, 120)),
      images: [...document.querySelectorAll("img:not([alt])")].length,
    })""")
    return found
