// Bring a page up to date while it is looked at. Without script, reload by hand.
"use strict";
const main = document.querySelector("main[data-refresh]");
if (main) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain updates";
  let paused = false;
  const tell = () => {
    button.textContent = paused ? "Resume updates" : "Pause updates";
  };
  tell();
  button.addEventListener("click", () => {
    paused = !paused;
    tell();
  });
  main.after(button);
  const update = async () => {
    const busy = main.contains(document.activeElement) && document.activeElement !== main;
    if (paused || busy || document.hidden) return;
    const answer = await fetch(location.href, { redirect: "error" }).catch(() => null);
    if (!answer || !answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("main");
    if (fresh && !main.contains(document.activeElement)) main.replaceChildren(...fresh.childNodes);
  };
  setInterval(update, Number(main.dataset.refresh) * 1000);
}
