// The sandbox's stand-in for the gateway's browser SDK: IMP.init, IMP.request_pay.
// No real money. On a PC the payment window is a frame over the page and `callback` gets `rsp`; a
// phone goes to the window and comes back to m_redirect_url.
(function () {
  "use strict";

  const home = new URL(document.currentScript.src).origin;
  const KNOWN = new Set([
    "pg", "channelKey", "pay_method", "merchant_uid", "name", "amount", "customer_uid", "currency",
    "buyer_name", "buyer_email", "buyer_tel", "buyer_addr", "buyer_postcode", "m_redirect_url",
    "notice_url", "custom_data", "language", "digital", "escrow", "tax_free", "app_scheme", "popup",
  ]);
  const HANDSHAKE_MILLISECONDS = 10000;

  let store = null;
  let open = false;

  function complain(text) {
    console.error("[sandbox SDK] " + text);
  }

  function init(impCode) {
    if (typeof impCode !== "string" || !impCode.trim()) {
      throw new TypeError("IMP.init: give the store's identification code, such as \"imp00000000\"");
    }
    store = impCode;
  }

  function request_pay(params, callback) {
    if (store === null) throw new Error("IMP.request_pay: call IMP.init(impCode) first");
    if (params === null || typeof params !== "object") {
      throw new TypeError("IMP.request_pay: the first argument is an object");
    }
    if (callback !== undefined && typeof callback !== "function") {
      throw new TypeError("IMP.request_pay: the second argument is a function");
    }
    if (open) throw new Error("IMP.request_pay: a payment window is open already");
    for (const name of Object.keys(params)) {
      if (!KNOWN.has(name)) console.warn("[sandbox SDK] IMP.request_pay: unknown " + name);
    }
    const phone = /Mobi|Android|iPhone|iPad/i.test(navigator.userAgent);
    if (!phone && !callback) complain("on a PC the result comes by a callback, and there is none");
    openWindow(params, phone, function (rsp) {
      if (!rsp.success && rsp.error_code === "F0001") complain(rsp.error_msg);
      if (callback) callback(rsp);
    });
  }

  function openWindow(params, phone, finished) {
    const before = document.activeElement;
    const overlay = document.createElement("div");
    const frame = document.createElement("iframe");
    Object.assign(overlay.style, {
      position: "fixed", inset: "0", zIndex: "2147483647", display: "grid", placeItems: "center",
      background: "rgba(12, 16, 28, 0.6)", overscrollBehavior: "contain",
    });
    Object.assign(frame.style, {
      width: "min(100vw, 440px)", height: "min(100vh, 760px)", border: "0", borderRadius: "16px",
      background: "transparent", colorScheme: "normal", boxShadow: "0 24px 64px rgba(0, 0, 0, 0.35)",
    });
    frame.title = "Payment window / 결제창";
    frame.src = home + "/window/open";
    overlay.setAttribute("role", "dialog");
    overlay.setAttribute("aria-modal", "true");
    overlay.setAttribute("aria-label", frame.title);
    overlay.append(frame);

    const scrolled = document.documentElement.style.overflow;
    const patience = setTimeout(function () {
      close({
        success: false, imp_success: false, merchant_uid: params.merchant_uid,
        error_code: "F0003", error_msg: "The payment window did not open / 결제창을 열 수 없습니다.",
      });
    }, HANDSHAKE_MILLISECONDS);

    function tidy() {
      clearTimeout(patience);
      window.removeEventListener("message", heard);
      document.documentElement.style.overflow = scrolled;
      overlay.remove();
      open = false;
      if (before && before.focus) before.focus();
    }

    function close(rsp) {
      tidy();
      finished(rsp);
    }

    function heard(event) {
      if (event.origin !== home || event.source !== frame.contentWindow) return;
      const told = event.data || {};
      switch (told.sandbox) {
        case "ready":
          frame.contentWindow.postMessage(
            { sandbox: "open", params: plain(params), device: phone ? "phone" : "pc" }, home);
          break;
        case "opened":
          clearTimeout(patience);
          if (phone) {
            // A browser may keep this page as it is and show it again by its back button.
            tidy();
            window.location.assign(home + told.url);
          }
          break;
        case "finished":
          close(told.rsp);
          break;
      }
    }

    open = true;
    window.addEventListener("message", heard);
    document.documentElement.style.overflow = "hidden";
    document.body.append(overlay);
    frame.focus();
  }

  // What cannot be sent to the window (functions, elements) is left out, as JSON does.
  function plain(params) {
    return JSON.parse(JSON.stringify(params));
  }

  function unknown(name) {
    return function () {
      throw new Error("IMP." + name + " is not in this sandbox; it knows init and request_pay");
    };
  }

  window.IMP = {
    init, request_pay,
    certification: unknown("certification"), loadUI: unknown("loadUI"), agency: unknown("agency"),
  };
})();
