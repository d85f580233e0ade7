// Inside the payment window: comforts only; every step works as a plain form.
"use strict";

const done = document.querySelector("[data-rsp]");
const shop = document.body.dataset.shop;

function goBack() {
  window.parent.postMessage({ sandbox: "finished", rsp: JSON.parse(done.dataset.rsp) }, shop);
}

if (done) {
  const back = done.querySelector("button[data-back]");
  if (back) back.addEventListener("click", goBack);
  // Whoever gave up wants to be back, not to read about it.
  if (done.hasAttribute("data-at-once")) {
    const way = done.querySelector("a[data-back]");
    if (way) window.location.replace(way.href);
    else goBack();
  }
}

const all = document.querySelector("#agree_all");
if (all) {
  const single = [...document.querySelectorAll("input[name^=agree_]")];
  all.closest("[hidden]").hidden = false;
  const follow = () => { all.checked = single.every((one) => one.checked); };
  all.addEventListener("change", () => single.forEach((one) => { one.checked = all.checked; }));
  single.forEach((one) => one.addEventListener("change", follow));
  follow();
}

const number = document.querySelector("#number");
if (number) {
  const format = () => {
    const digits = number.value.replace(/\D/g, "").slice(0, 11);
    const middle = digits.length === 11 ? 7 : 6;
    number.value = [digits.slice(0, 3), digits.slice(3, middle), digits.slice(middle)]
      .filter(Boolean).join("-");
  };
  number.addEventListener("change", format);
  format();
}

const next = document.querySelector("[aria-invalid=true], #code, .end .primary");
if (next) next.focus();

document.addEventListener("keydown", (event) => {
  const cancel = document.querySelector("#cancel");
  if (event.key === "Escape" && cancel) cancel.requestSubmit();
});

// A form is sent once.
for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
}
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form")) delete form.dataset.sent;
});
