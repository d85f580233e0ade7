// The checkout: order at our server, pay in the gateway's window, ask our server what became of it.
// What the window tells this page is never believed; our server asks the gateway itself.
"use strict";

const form = document.querySelector("#checkout");
const button = form.querySelector("button");
const news = document.querySelector("#news");
const earlier = document.querySelector("#earlier");
const KEPT = "maewol.checkout.order";

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  busy(true);
  tell("");
  try {
    await subscribe();
  } catch (error) {
    console.error(error);
    busy(false);
    tell(form.dataset.failed);
  }
});

async function subscribe() {
  if (!window.IMP) {
    busy(false);
    tell(form.dataset.noSdk);
    return;
  }
  const answer = await post("/checkout/order", Object.fromEntries(new FormData(form)));
  const begun = answer.status === 429 ? {} : await answer.json();
  show(begun.problems || {});
  if (!answer.ok) {
    busy(false);
    if (answer.status === 429) tell(form.dataset.tooMany);
    else if (!begun.problems) tell(form.dataset.failed);
    return;
  }
  sessionStorage.setItem(KEPT, begun.order);
  const back = new URL("/checkout/return", location.origin);
  back.searchParams.set("order", begun.order);
  window.IMP.init(form.dataset.impCode);
  window.IMP.request_pay(
    { ...begun.request, m_redirect_url: back.href, language: document.documentElement.lang },
    (rsp) => finish(begun.order, rsp.imp_uid, rsp.error_msg).catch(() => look(begun.order)),
  );
}

// Asked after a failure, too: a window can be closed by a line that breaks after the payment.
async function finish(order, paid, said) {
  const answer = await post("/checkout/complete", { order, imp_uid: paid || null });
  const ended = await answer.json();
  if (ended.state === "not_paid") {
    sessionStorage.removeItem(KEPT);
    tell(`${ended.text || said || ""} ${form.dataset.again}`);
  } else if (ended.state === "nothing_shown") {
    // Perhaps it is paid: the order is kept, and the way to look again stands above the form.
    tell(`${said || ""} ${ended.text}`);
  } else {
    if (ended.to) location.assign(ended.to);
    else look(order);
    return;
  }
  remember();
  busy(false);
  button.focus();
}

function look(order) {
  location.assign(`/checkout/return?order=${encodeURIComponent(order)}`);
}

function post(where, what) {
  return fetch(where, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(what),
  });
}

function busy(yes) {
  button.disabled = yes;
  button.textContent = yes ? form.dataset.busy : form.dataset.buy;
}

function tell(text) {
  news.textContent = text;
  news.hidden = !text;
}

function show(problems) {
  for (const field of form.querySelectorAll("input")) {
    const place = document.getElementById(`${field.name}_problem`);
    const problem = problems[field.name] || "";
    place.textContent = problem;
    place.hidden = !problem;
    field.setAttribute("aria-invalid", problem ? "true" : "false");
  }
  const first = form.querySelector("[aria-invalid=true]");
  if (first) first.focus();
}

// Back by the browser's button: an order of this tab may be paid already.
window.addEventListener("pageshow", () => {
  busy(false);
  remember();
});

function remember() {
  const order = sessionStorage.getItem(KEPT);
  earlier.hidden = !order;
  if (order) earlier.querySelector("a").href = `/checkout/return?order=${encodeURIComponent(order)}`;
}
