"""`maewol subscription add --imp-uid` and `forget`, as typed, with the sandbox behind them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import pytest

from billing import clock as clocks
from billing.embedded import Servers
from billing.sandbox import NewCustomer, Sandbox, register
from billing.store.session import Book
from tests.builders import execute

pytestmark = pytest.mark.timeout(600)

# One process for all commands: each that loads everything anew takes seconds.
_RUN = """
import json, sys
from billing.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["maewol", *words, "--json"]
    try:
        main()
    except SystemExit as end:
        print(json.dumps({"exit": end.code}), flush=True)
from scheduler.ticks import webhooks_
print(json.dumps({"tick": [webhooks_(), webhooks_()]}))
"""


def test_add_by_payment_and_forget(
    sandbox: tuple[Sandbox, str], database_url: str, book: Book, servers: Servers
) -> None:
    """And the tick that looks at webhooks, as the scheduler's worker runs it."""
    gateway, url = sandbox
    paid_at = clocks.host_time() - timedelta(minutes=1)
    old, new = register(
        gateway,
        [
            NewCustomer(customer_uid=name, amount=9900, name="plan", paid_at=paid_at)
            for name in ("old", "new")
        ],
    )
    execute(
        book,
        "INSERT INTO webhooks (imp_uid, received_at, look_at) VALUES (:imp_uid, now(), now())",
        imp_uid=new.imp_uid,
    )
    add, imp = ("subscription", "add"), "--imp-uid"
    calls = [
        [*add, imp, old.imp_uid, "--amount", "9900", "--initial-merchant-uid", old.merchant_uid],
        [*add, imp, old.imp_uid, "--amount", "19900"],
        [*add, imp, old.imp_uid, "--order-name", "plan"],
        [*add, "--previous", "old"],
        [*add, "--customer-uid", "x"],
        [*add, imp, new.imp_uid, "--previous", "old"],
        ["subscription", "forget", "old", "--yes"],
        ["subscription", "cancel", "old"],
        ["subscription", "forget", "old"],
        ["subscription", "forget", "old", "--yes"],
        [*add, imp, new.imp_uid, "--previous", "old"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(calls)],
        env={
            "PATH": "/usr/bin:/bin",
            "MAEWOL_DATABASE_URL": database_url,
            "MAEWOL_BROKER_URL": str(servers.broker_url),
            "MAEWOL_PORTONE_API_URL": url,
            "MAEWOL_PORTONE_IMP_KEY": "key",
            "MAEWOL_PORTONE_IMP_SECRET": "secret",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["exit"] for one in printed if "exit" in one] == [0, 1, 2, 2, 2, 1, 1, 0, 2, 0, 0]
    shown = [one for one in printed if "customer_uid" in one]
    assert [(one["customer_uid"], one["status"], one["previous"]) for one in shown] == [
        ("old", "active", None),
        ("old", "cancelled", None),
        ("old", "cancelled", None),
        ("new", "active", "old"),
    ]
    assert shown[2]["forgotten_at"] is not None
    assert "add --yes" in done.stderr
    assert printed[-1] == {"tick": [{"agrees": 1}, {}]}
