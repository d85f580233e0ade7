// Inside the SDK's frame, before the window: takes the order from the shop's page and opens it.
"use strict";

let asked = false;

window.addEventListener("message", async function (event) {
  const told = event.data || {};
  if (event.source !== window.parent || told.sandbox !== "open" || asked) return;
  asked = true;
  const answer = await fetch("/window", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ params: told.params, device: told.device, shop: event.origin }),
  });
  const opened = await answer.json();
  const tell = (message) => window.parent.postMessage(message, event.origin);
  if (opened.url) {
    tell({ sandbox: "opened", url: opened.url });
    if (told.device !== "phone") window.location.replace(opened.url);
  } else {
    tell({
      sandbox: "finished",
      rsp: opened.rsp || { success: false, error_code: "F0003", error_msg: opened.error },
    });
  }
});

// Says nothing that anybody could not know.
if (window.parent !== window) window.parent.postMessage({ sandbox: "ready" }, "*");
