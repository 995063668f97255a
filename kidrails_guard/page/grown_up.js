// Runs when the grown-up's page opens: what must not go on as if nothing were when the page is left,
// locked or cut off, and what has to outlive that the record is drawn anew.
() => {
  // A page that nobody touches locks itself. The tabs share one session: a touch in any counts.
  const idleMinutes = 15;
  const touched = "kidrails-touched";
  const kept = (() => { try { return window.localStorage; } catch { return null; } })();
  let last = 0;
  let leaving = false;
  const leaveFor = (place) => {
    if (leaving) return; // what is asked meanwhile must not turn the way round
    leaving = true;
    window.location = place;
  };
  const touch = () => {
    if (Date.now() - last < 1000) return;
    last = Date.now();
    kept?.setItem(touched, last);
  };
  touch();
  for (const kind of ["pointerdown", "keydown", "scroll"]) {
    window.addEventListener(kind, touch, { passive: true, capture: true });
  }
  setInterval(() => {
    const anywhere = Math.max(last, Math.min(Number(kept?.getItem(touched)) || 0, Date.now()));
    if (Date.now() - anywhere > idleMinutes * 60000) leaveFor("./lock");
  }, 10000);

  const ask = window.fetch;
  window.fetch = async (...what) => {
    try {
      const answer = await ask(...what);
      document.body.classList.remove("lost");
      if (answer.status === 401) leaveFor("./login"); // locked meanwhile
      return answer;
    } catch (error) {
      if (error.name !== "AbortError") document.body.classList.add("lost");
      throw error;
    }
  };

  // Reasons that somebody opened or closed stay so, and the keyboard stays where it was.
  const opened = new Map();
  let focused = null;
  const reason = (element) => element.closest?.("summary")?.parentElement;
  document.addEventListener("click", (event) => {
    const why = reason(event.target);
    if (why?.dataset.of) opened.set(why.dataset.of, !why.open);
  });
  document.addEventListener("focusin", (event) => {
    focused = reason(event.target)?.dataset.of ?? null;
  });
  // A tab is drawn when it is opened; what answers there must be a status before it says anything.
  const label = () => {
    for (const said of document.querySelectorAll(".block.said:not([role]), #status:not([role])")) {
      said.setAttribute("role", "status");
    }
  };
  label();
  new MutationObserver(() => {
    label();
    const at = document.activeElement;
    for (const why of document.querySelectorAll("#record details")) {
      const id = why.dataset.of;
      if (opened.has(id) && why.open !== opened.get(id)) why.open = opened.get(id);
      // Gradio fills the elements that are there with other messages, or takes them away.
      if (id === focused && (at === document.body || (reason(at) && reason(at) !== why))) {
        why.querySelector("summary").focus({ preventScroll: true });
      }
    }
  }).observe(document.body, {
    childList: true, subtree: true, attributes: true, attributeFilter: ["data-of", "open"],
  });
}
