"""The ledger file: what is written comes back equal, in groups, and never ahead of an answer."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from billing.sandbox import (
    LedgerFileError,
    NewCustomer,
    Sandbox,
    SandboxClock,
    create_app,
    register,
)
from billing.sandbox.clock import SEOUL
from billing.sandbox.ledger import Ledger
from billing.sandbox.model import BillingKey, Origin, Payment, Schedule, Seen, Status

PAYMENT = Payment(
    number=1,
    imp_uid="imp_1",
    merchant_uid="m-1",
    customer_uid="ada",
    amount=9_900,
    name="월간 구독",
    origin=Origin.AGAIN,
    status=Status.FAILED,
    started_at=1,
    failed_at=1,
    sandbox=True,
    visible_at=1.25,
    turns_paid_at=60.5,
)
KEY = BillingKey("ada", 9_900, "월간 구독", 1, carrier_knows=False, script="ok,declined:C")
PLAN = Schedule("plan-1", "ada", 100, 9_900, "월간 구독")
SEEN = Seen(1, 1.5, "again", "ada", "m-1", 9_900, 3, "amount", "order", "ready", "paid", "imp_1")


def test_every_row_comes_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    for row in (PAYMENT, KEY, PLAN):
        ledger.put(row)
    ledger.saw(SEEN)
    ledger.note("clock_offset", "1.5")
    ledger.close()
    with closing(Ledger(path)) as again:
        assert again.payments == [PAYMENT]
        assert again.keys == {"ada": KEY}
        assert again.schedules == {"plan-1": PLAN}
        assert again.requests == [SEEN]
        assert again.noted("clock_offset") == "1.5"
        assert again.times_asked("ada") == 3
        assert [one.number for _, one in again.late_payments(61)] == [1]
        assert [one.merchant_uid for _, one in again.planned_payments(100)] == ["plan-1"]


def test_a_replaced_row_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    ledger.put(PAYMENT)
    ledger.put(replace(PAYMENT, status=Status.PAID, paid_at=60))
    ledger.close()
    with closing(Ledger(path)) as again:
        assert [one.status for one in again.payments] == [Status.PAID]
        assert list(again.late_payments(99)) == []


def test_reset_forgets_on_the_disk_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    ledger.put(PAYMENT)
    ledger.commit()
    ledger.reset()
    ledger.close()
    with closing(Ledger(path)) as again:
        assert again.payments == []


def test_requests_of_one_turn_share_a_commit(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    statements: list[str] = []
    connection = ledger._journal._connection
    assert connection is not None
    connection.set_trace_callback(statements.append)

    async def put(number: int) -> None:
        ledger.put(replace(PAYMENT, number=number, imp_uid=f"imp_{number}"))
        await ledger.committed()
        assert "COMMIT" in statements

    async def together() -> None:
        await asyncio.gather(*(put(number) for number in range(1, 51)))

    asyncio.run(together())
    ledger.close()
    assert statements.count("COMMIT") == 1
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM payments").fetchone() == (50,)


def test_in_use_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(Ledger(path)), pytest.raises(LedgerFileError, match="another sandbox"):
        Ledger(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LedgerFileError, match="unable to open"):
        Ledger(tmp_path / "absent" / "ledger.db")


def test_a_full_disk_answers_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """The page limit stands for the full disk. What could not be written is written later."""
    path = tmp_path / "ledger.db"
    moment = datetime(2027, 2, 20, 10, tzinfo=SEOUL)
    sandbox = Sandbox(path=path, clock=SandboxClock.manual(moment))
    month_ago = datetime(2027, 1, 20, 10, tzinfo=SEOUL)
    customers = [
        NewCustomer(customer_uid=f"c-{number}", amount=9_900, name="x", paid_at=month_ago)
        for number in range(200)
    ]
    register(sandbox, customers)
    sandbox.ledger.commit()
    connection = sandbox.ledger._journal._connection
    assert connection is not None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    statuses = asyncio.run(charges_of(sandbox, [one.customer_uid for one in customers]))
    assert statuses[-1] == 500
    connection.execute("PRAGMA max_page_count = 1000000")
    sandbox.close()
    with closing(Ledger(path)) as again:
        assert sum(one.origin is Origin.AGAIN for one in again.payments) == 200


async def charges_of(sandbox: Sandbox, customers: list[str]) -> list[int]:
    got = sandbox.tokens.get_token({"imp_key": "a", "imp_secret": "b"}).body["response"]
    assert isinstance(got, dict)
    transport = httpx.ASGITransport(create_app(sandbox))
    statuses = []
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        client.headers["Authorization"] = got["access_token"]
        for uid in customers:
            body = {"customer_uid": uid, "merchant_uid": f"m-{uid}", "amount": 9_900, "name": "x"}
            answer = await client.post("/subscribe/payments/again", json=body)
            statuses.append(answer.status_code)
    return statuses
