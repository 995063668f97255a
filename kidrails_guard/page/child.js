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
  const noteMs = 15000;
  let sending = false;
  const leaveNote = async (waitMs = 3000) => {
    sending = true;
    kept?.setItem("kidrails-note", "unsent");
    // A connection that dies without a word would leave the child without one as well.
    const signal = AbortSignal.timeout?.(noteMs);
    const answer = await fetch("./tell", { method: "POST", signal }).catch(() => null);
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
  // Only what has changed: in a long talk, all of it at every word would be most of the work.
  const talkLog = "#talk [aria-live]:not([aria-live=off])";
  const bubble = "#talk .message [aria-label]";
  const hush = (log) => {
    // Gradio announces every piece of a streamed answer; #live announces the whole one, once.
    log.setAttribute("aria-live", "off");
    log.setAttribute("aria-label", "Our talk");
    log.setAttribute("tabindex", "0");
  };
  const name = (said) => {
    // Gradio's names for the bubbles hold the words as they are sent: "5 &lt; 6".
    const who = said.dataset.testid === "user" ? "You" : "KidRails";
    const words = `${who}: ${said.textContent.trim()}`;
    if (said.getAttribute("aria-label") !== words) said.setAttribute("aria-label", words);
  };
  const label = () => {
    const live = find("#live:not([role])");
    live?.setAttribute("role", "status");
    live?.setAttribute("aria-live", "polite");
    // What it shows as a toast for adults, said in words for a child.
    const lost = find("#lost");
    const words = find(".toast-wrap .toast-body") ? lost?.dataset.words : "";
    if (lost && lost.textContent !== words) lost.textContent = words;
  };
  const look = (changes) => {
    const [logs, said] = [new Set(), new Set()];
    let elsewhere = false;
    for (const { target, addedNodes } of changes) {
      const at = target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement;
      if (!at?.isConnected) continue;
      if (!at.closest("#talk")) elsewhere = true;
      if (at.matches(talkLog)) logs.add(at);
      const around = at.closest(bubble);
      if (around) said.add(around);
      for (const added of addedNodes) {
        if (added.nodeType !== Node.ELEMENT_NODE) continue;
        for (const [selector, found] of [[talkLog, logs], [bubble, said]]) {
          if (added.matches(selector)) found.add(added);
          for (const inner of added.querySelectorAll(selector)) found.add(inner);
        }
      }
    }
    logs.forEach(hush);
    said.forEach(name);
    if (elsewhere) label();
  };
  document.querySelectorAll(talkLog).forEach(hush);
  document.querySelectorAll(bubble).forEach(name);
  label();
  new MutationObserver(look).observe(document.body, {
    childList: true, subtree: true, characterData: true,
    attributes: true, attributeFilter: ["aria-live", "aria-label", "data-testid"],
  });
}
