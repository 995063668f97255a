// Runs when the child's page opens: what must work without a connection, labels that Gradio does not
// set, and where the keyboard goes.
() => {
  const find = (selector) => document.querySelector(selector);
  const box = () => find("#box textarea");
  // The element may still have to be drawn: try for two seconds.
  const focus = (selector, tries = 40) => {
    const element = find(selector);
    element?.focus();
    if ((!element || document.activeElement !== element) && tries) {
      setTimeout(() => focus(selector, tries - 1), 50);
    }
  };
  const toBox = () => focus("#box textarea");
  const write = (text) => {
    box().value = text;
    box().dispatchEvent(new Event("input", { bubbles: true }));
  };
  let asked = null;
  document.addEventListener("keypress", (event) => {
    if (event.key === "Enter" && event.target === box()) asked = box().value;
  }, { capture: true });
  document.addEventListener("click", (event) => {
    if (event.target.closest("#send")) asked = box().value;
  }, { capture: true });
  // A page that is still being opened would wipe a question that is asked meanwhile: it waits.
  let opened;
  const open = new Promise((yes) => { opened = yes; });
  window.kidrails = {
    toBox,
    opened,
    // Gradio comes for the question a little after Enter: what has been typed since stays in the
    // box, and a second Enter that was as quick finds nothing.
    take: async (text) => {
      await Promise.race([open, new Promise((yes) => setTimeout(yes, 10000))]);
      if (find("#stop")?.checkVisibility()) return ""; // one answer at a time: it stays in the box
      const now = box().value;
      const wanted = asked ?? (now.startsWith(text) ? text : "");
      asked = null;
      write(now.startsWith(wanted) ? now.slice(wanted.length) : now);
      toBox();
      return wanted;
    },
    ask: (text) => {
      write(text);
      setTimeout(() => find("#send").click());
    },
  };

  // "Tell a grown-up": shown at once; the note is sent beside it until it has arrived. Both outlive
  // the reload that ends a lost connection. A frame may have no storage.
  const kept = (() => { try { return window.sessionStorage; } catch { return null; } })();
  let sending = false;
  const leaveNote = async (waitMs = 3000) => {
    sending = true;
    kept?.setItem("kidrails-note", "unsent");
    const answer = await fetch("./tell", { method: "POST" }).catch(() => null);
    const noted = find("#noted");
    if (answer?.ok) {
      sending = false;
      kept?.removeItem("kidrails-note");
      find(".tell-panel ul").innerHTML = await answer.text();
      noted.textContent = noted.dataset.left;
    } else {
      noted.textContent = noted.dataset.failed;
      setTimeout(leaveNote, waitMs, Math.min(2 * waitMs, 60000));
    }
  };
  const showTelling = (open) => {
    document.body.classList.toggle("telling", open);
    if (open) kept?.setItem("kidrails-telling", "yes");
    else kept?.removeItem("kidrails-telling");
    focus(open ? "#tell-title" : "#box textarea");
  };
  document.addEventListener("click", (event) => {
    if (event.target.closest("#tell")) {
      find("#noted").textContent = "";
      showTelling(true);
      if (!sending) leaveNote();
    } else if (event.target.closest("#tell-close")) showTelling(false);
  });
  if (kept?.getItem("kidrails-telling")) showTelling(true);
  if (kept?.getItem("kidrails-note")) leaveNote();

  // Gradio draws as it pleases, on a slow tablet late: what it draws is looked after when it is there.
  const label = () => {
    const live = find("#live:not([role])");
    live?.setAttribute("role", "status");
    live?.setAttribute("aria-live", "polite");
    // Gradio announces every piece of a streamed answer; #live announces the whole one, once.
    for (const log of document.querySelectorAll("#talk [aria-live]:not([aria-live=off])")) {
      log.setAttribute("aria-live", "off");
      log.setAttribute("aria-label", "Our talk");
      log.setAttribute("tabindex", "0");
    }
    // Its names for the bubbles hold the words as they are sent: "5 &lt; 6".
    for (const said of document.querySelectorAll("#talk .message [aria-label]")) {
      const who = said.dataset.testid === "user" ? "You" : "KidRails";
      const name = `${who}: ${said.textContent.trim()}`;
      if (said.getAttribute("aria-label") !== name) said.setAttribute("aria-label", name);
    }
    // What it shows as a toast for adults, said in words for a child.
    const lost = find("#lost");
    const words = find(".toast-wrap .toast-body") ? lost?.dataset.words : "";
    if (lost && lost.textContent !== words) lost.textContent = words;
  };
  label();
  new MutationObserver(label).observe(document.body, {
    childList: true, subtree: true, characterData: true,
    attributes: true, attributeFilter: ["aria-live", "aria-label"],
  });
}
