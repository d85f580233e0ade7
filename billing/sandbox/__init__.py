"""A PortOne V1 for phone billing that runs on this machine, with its own ledger and faults.

Merchants test their own code on it; our tests, demo and simulation are only its first users. It
imports nothing else of ours, so that it can judge us. To embed it:

    sandbox = Sandbox(seed=7, clock=SandboxClock.manual(moment), sleep=my_sleep)
    transport = httpx.ASGITransport(create_app(sandbox))

To run it: `maewol sandbox`, `python -m billing.sandbox`, or `serve(...)`. Read `faults` for what
can go wrong, `control` for its own endpoints, `carrier` for the rules of the carrier.
"""

from __future__ import annotations

from billing.sandbox.clock import SandboxClock, moment_of
from billing.sandbox.gateway import Sandbox
from billing.sandbox.journal import LedgerFileError
from billing.sandbox.mood import FaultsError, Mood, mood, mood_from
from billing.sandbox.server import CallError, create_app, serve
from billing.sandbox.verdict import Verdict, judge
from billing.sandbox.wire import SandboxConnectionReset, SandboxNetworkFault, SandboxNoAnswer
from billing.sandbox.world import HandPayment, LineChange, NewCustomer, change, pay, register

__all__ = [
    "CallError",
    "FaultsError",
    "HandPayment",
    "LedgerFileError",
    "LineChange",
    "Mood",
    "NewCustomer",
    "Sandbox",
    "SandboxClock",
    "SandboxConnectionReset",
    "SandboxNetworkFault",
    "SandboxNoAnswer",
    "Verdict",
    "change",
    "create_app",
    "judge",
    "moment_of",
    "mood",
    "mood_from",
    "pay",
    "register",
    "serve",
]
