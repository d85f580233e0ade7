"""What goes wrong: by script, by seeded chance, and between two moments for everybody.

A faults file is TOML or JSON (by its ending); the control endpoint takes the same document.
Everything is optional:

    failed_merchant_uid = "loose"    # may a failed merchant_uid be used again? loose | strict
    test_mode = false                # new payments are flagged `sandbox`, hidden by default
    racy = false                     # "is it paid already?" is checked before the wait, not after
    lookup_lag_seconds = 0           # a new payment stays hidden from look-ups for 0 to so many s
    code_style = "bracket"           # fail_reason as "[0031] text", or "plain": the text alone

    [carrier]                        # see carrier.CarrierRules
    window = "both"                  # both | anchor | previous | off
    margin_days = 5
    once_a_month = true
    failures_per_day = 3

    [latency]                        # milliseconds, drawn evenly for each request
    charge = [20, 80]
    lookup = 5

    [chances.charge]                 # shares of the requests; together at most 1
    timeout_after_charge = 0.01
    "declined:0098" = 0.02
    [chances.lookup]
    "http:503" = 0.01

    [[scripts]]                      # the n-th `again` of each of these customers; then as usual
    customers = "limit-*"
    does = ["declined:0031", "timeout_after_charge", "ok"]

    [[spells]]                       # between two moments of the sandbox's clock, for all
    from = 2027-02-25T10:00:00+09:00
    until = 2027-02-25T11:00:00+09:00
    does = "http:503"                # or slow:3000, timeout, reset, ...

What a charge can meet (`BEFORE_OR_AFTER` is written `timeout_before_charge` and so on; "after"
means that the money moved and only the answer is lost):

    ok                               as the carrier decides
    declined:CODE | :CODE/NAME | :CLASS   a refusal of texts.toml
    timeout, reset, http:STATUS, html, cut_json, cut_body     each with _before_charge/_after_charge
    unauthorized                     401: the token is refused
    too_many:SECONDS                 429 with Retry-After, nothing charged
    wrong_amount, wrong_merchant_uid, wrong_customer_uid      charged rightly, answered wrongly
    ready                            charged, yet answered as `ready`
    late_paid:SECONDS                answered as failed, and paid after all so much later
    slow:MILLISECONDS                late, else as usual

A look-up can meet: timeout, reset, http:STATUS, html, cut_json, cut_body, unauthorized,
too_many:SECONDS, slow:MILLISECONDS, hidden (nothing is found).

A cancellation ([chances.cancel]) can meet: timeout, reset, http:STATUS, html, cut_json, cut_body,
each with _before_cancel or _after_cancel; unauthorized, too_many:SECONDS, slow:MILLISECONDS;
refused:CODE, which names a `[[cancel]]` of texts.toml, and cancels nothing.

A webhook ([chances.webhook]) can be: lost, late:SECONDS, doubled.

A spell names one of what look-ups can meet, but hidden: it strikes charges and
cancellations before they are made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from billing.sandbox.texts import cancel_text, matching

# The transport's and server's faults, with what their argument is.
BROKEN = {
    "timeout": "",
    "reset": "",
    "http": "status",
    "html": "",
    "cut_json": "",
    "cut_body": "",
}
_DOOR = {"unauthorized": "", "too_many": "number", "slow": "number"}
_ANSWER = {
    "ok": "",
    "declined": "decline",
    "wrong_amount": "",
    "wrong_merchant_uid": "",
    "wrong_customer_uid": "",
    "ready": "",
    "late_paid": "number",
}


def _around(act: str) -> dict[str, str]:
    return {
        f"{name}_{when}_{act}": kind
        for name, kind in BROKEN.items()
        for when in ("before", "after")
    }


_CHARGE = {**_DOOR, **_ANSWER, **_around("charge")}
_CANCEL = {**_DOOR, "ok": "", "refused": "refusal", **_around("cancel")}
_LOOKUP = {**BROKEN, **_DOOR, "ok": "", "hidden": ""}
_SPELL = {**BROKEN, **_DOOR}
_WEBHOOK = {"ok": "", "lost": "", "late": "number", "doubled": ""}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong: `kind` without its ending, its argument, and whether the money
    has moved when it strikes (None where that does not depend on it), by which `act`."""

    kind: str
    argument: str = ""
    charged: bool | None = None
    act: str = "charge"

    @property
    def number(self) -> int:
        """The argument as a number: seconds, milliseconds or an HTTP status."""
        return int(self.argument)

    @property
    def breaks(self) -> bool:
        """Whether there is no usable answer at all."""
        return self.kind in BROKEN

    def __str__(self) -> str:
        when = {None: "", True: f"_after_{self.act}", False: f"_before_{self.act}"}[self.charged]
        return f"{self.kind}{when}{':' if self.argument else ''}{self.argument}"


OK = Fault("ok")


def charge_fault(text: str) -> Fault:
    """What a charge meets. Raises `ValueError` that names the word and the remedy."""
    return _struck(_parsed(text, _CHARGE, "charge"), "charge")


def cancel_fault(text: str) -> Fault:
    """What a cancellation meets. Raises `ValueError`."""
    return _struck(_parsed(text, _CANCEL, "cancellation"), "cancel")


def _struck(found: Fault, act: str) -> Fault:
    for ending, moved in ((f"_before_{act}", False), (f"_after_{act}", True)):
        if found.kind.endswith(ending):
            return Fault(found.kind.removesuffix(ending), found.argument, moved, act)
    return found


def lookup_fault(text: str) -> Fault:
    """What a look-up meets. Raises `ValueError`."""
    return _parsed(text, _LOOKUP, "look-up")


def webhook_fault(text: str) -> Fault:
    """What happens to a webhook. Raises `ValueError`."""
    return _parsed(text, _WEBHOOK, "webhook")


def spell_fault(text: str) -> Fault:
    """What everybody meets for a while; charges meet it before they are made. Raises
    `ValueError`."""
    found = _parsed(text, _SPELL, "spell")
    return Fault(found.kind, found.argument, False) if found.breaks else found


def script(text: str) -> list[Fault]:
    """A comma-separated script. Raises `ValueError`."""
    return [charge_fault(part.strip()) for part in text.split(",") if part.strip()]


def _parsed(text: str, known: dict[str, str], what: str) -> Fault:
    kind, _, argument = text.partition(":")
    if kind not in known:
        raise ValueError(f"{text!r} is nothing that a {what} can meet; known: {', '.join(known)}")
    match known[kind]:
        case "" if argument:
            raise ValueError(f"{text!r}: {kind} takes no argument")
        case "number" if not re.fullmatch("[0-9]{1,7}", argument):
            raise ValueError(f"{text!r}: write {kind}:NUMBER")
        case "status" if not re.fullmatch("[45][0-9][0-9]", argument):
            raise ValueError(f"{text!r}: write {kind}:STATUS, 400 to 599")
        case "decline":
            matching(argument)
        case "refusal":
            cancel_text(argument)
    return Fault(kind, argument)
