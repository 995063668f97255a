// Runs when the grown-up's page opens: a page that nobody touches locks itself.
() => {
  const idleMinutes = 15;
  let last = Date.now();
  for (const kind of ["pointerdown", "keydown", "scroll"]) {
    window.addEventListener(kind, () => { last = Date.now(); }, { passive: true, capture: true });
  }
  setInterval(() => {
    if (Date.now() - last > idleMinutes * 60000) window.location = "./lock";
  }, 10000);
  for (const said of document.querySelectorAll(".said, #status")) {
    said.setAttribute("role", "status");
    said.setAttribute("aria-live", "polite");
  }
}
