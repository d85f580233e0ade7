// Keeps Today up to date: what changed is exchanged, what has the focus is left alone. Everything
// works without this file.
"use strict";
(() => {
  const button = document.getElementById("refresh");
  const live = document.querySelector("[data-live]");
  if (!button || !live) return;
  const every = Number(live.dataset.live) * 1000;
  let on = true;

  const exchange = (fresh) => {
    const now = Array.from(live.children);
    const next = Array.from(fresh.children);
    if (now.length !== next.length) return live.replaceChildren(...next);
    now.forEach((part, place) => {
      const busy = part.contains(document.activeElement) || String(getSelection());
      if (!busy && part.innerHTML !== next[place].innerHTML) part.replaceWith(next[place]);
    });
  };

  const refresh = async () => {
    if (!on || document.hidden) return;
    const answer = await fetch(location.pathname, { headers: { "X-Refresh": "1" } });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("[data-live]");
    if (fresh) exchange(fresh);
    for (const one of [".standing", "footer p"]) {
      const [old, young] = [document.querySelector(one), page.querySelector(one)];
      if (old && young && !old.contains(document.activeElement)) old.replaceWith(young);
    }
  };

  button.hidden = false;
  button.addEventListener("click", () => {
    on = !on;
    button.setAttribute("aria-pressed", String(on));
    if (on) refresh().catch(() => {});
  });
  setInterval(() => refresh().catch(() => {}), every);
})();
