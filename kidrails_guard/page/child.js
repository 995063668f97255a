// Runs when the child's page opens: labels that Gradio does not set, and where the keyboard goes.
() => {
  const box = () => document.querySelector("#box textarea");
  window.kidrails = {
    toBox: () => setTimeout(() => box()?.focus(), 50),
    toTell: () => setTimeout(() => document.querySelector("#tell-title")?.focus(), 120),
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
