// Runs when the child's page opens: labels that Gradio does not set, and where the keyboard goes.
() => {
  const box = () => document.querySelector("#box textarea");
  // The element may still have to be drawn: try for two seconds.
  const focus = (find, tries = 40) => {
    const element = find();
    element?.focus();
    if ((!element || document.activeElement !== element) && tries) {
      setTimeout(() => focus(find, tries - 1), 50);
    }
  };
  window.kidrails = {
    toBox: () => focus(box),
    toTell: () => focus(() => document.querySelector("#tell-title")),
  };
  const label = () => {
    const live = document.getElementById("live");
    live?.setAttribute("role", "status");
    live?.setAttribute("aria-live", "polite");
    // Gradio announces every piece of a streamed answer; #live announces the whole one, once.
    for (const log of document.querySelectorAll("#talk [aria-live]")) {
      log.setAttribute("aria-live", "off");
      log.setAttribute("aria-label", "Our talk");
      log.setAttribute("tabindex", "0");
    }
  };
  label();
  setTimeout(label, 500);
  setTimeout(label, 2000);
}
