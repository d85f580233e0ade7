"""Daily proofs as reconciliation writes them: both sides of every day, chained, never rewritten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from billing.domain import proof
from billing.domain.errors import InvalidInput
from billing.domain.policy import BillingPolicy
from billing.portone.client import PortOneClient
from billing.sandbox.model import Status
from billing.services import prove
from billing.services.open_cycles import open_cycles
from billing.services.prove import first_missing, verify
from billing.services.reconcile import Report, reconcile_today
from billing.store.session import Book
from tests.builders import query
from tests.conftest import MovedClock
from tests.town import Town


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *", charges_per_second=0)


@pytest.fixture
def town(book: Book, policy: BillingPolicy, clock: MovedClock) -> Town:
    """Three subscribers charged on 20 November; one was refunded in the console on the 21st."""
    town = Town(book, policy, clock)
    town.subscribe(3)
    assert town.charge() == {"approved": 3}
    town.at("2026-11-21 12:00").cancel_outside(town.paid_imp_uid(2))
    town.at("2026-11-22 05:30")
    return town


def text_of(folder: Path, day: str) -> str:
    return (folder / f"maewol-proof-{day}.txt").read_text(encoding="utf-8")


def daily(town: Town, folder: Path | None) -> Report:
    async def no_sleep(seconds: float) -> None:
        town.move(seconds=seconds)

    return town.run(
        lambda client: reconcile_today(town.book, client, town.policy, None, folder, sleep=no_sleep)
    )


def test_the_days_of_a_month(town: Town, tmp_path: Path) -> None:
    report = daily(town, tmp_path)
    assert report.proofs.disagree == []
    assert report.proofs.written == [f"2026-11-{day:02d}" for day in range(1, 22)]
    paid = text_of(tmp_path, "2026-11-20")
    assert paid.count("3 payments, 3006 won") == 2, "money that was taken, whatever became of it"
    assert "ledger cancelled: 0 payments" in paid
    cancelled = text_of(tmp_path, "2026-11-21")
    assert cancelled.count("cancelled: 1 payments, 1002 won") == 2
    assert verify(town.book, tmp_path) == []


def test_the_chain_goes_on_and_signed_days_stay(town: Town, tmp_path: Path) -> None:
    daily(town, tmp_path)
    before = text_of(tmp_path, "2026-11-20")
    town.at("2026-12-03 05:30")
    report = daily(town, tmp_path)
    assert report.proofs.written[0] == "2026-11-22"
    assert report.proofs.written[-1] == "2026-12-02"
    assert report.proofs.changed == []
    assert text_of(tmp_path, "2026-11-20") == before
    assert verify(town.book, tmp_path) == []


def test_without_a_folder_the_daily_run_is_whole_and_proves_nothing(town: Town) -> None:
    report = daily(town, None)
    assert (report.whole, report.proofs.written) == (True, [])
    assert [one.kind for one in report.applied] == ["cancelled_at_gateway"]


def test_doubled_runs_write_the_same(town: Town, tmp_path: Path) -> None:
    async def twice(client: PortOneClient) -> list[Report]:
        runs = (reconcile_today(town.book, client, town.policy, None, tmp_path) for _ in range(2))
        return list(await asyncio.gather(*runs))

    town.run(twice)
    assert verify(town.book, tmp_path) == []
    assert {proof.day_of_name(path.name) is None for path in tmp_path.iterdir()} == {False}


def test_a_day_that_a_run_beside_this_one_signs_in_between_is_followed(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    daily(town, theirs)
    is_next = prove._is_next

    def after_them(folder: Path, day: date) -> bool:
        name = proof.file_name(day)
        if day.day == 2:
            (folder / name).write_bytes((theirs / name).read_bytes())
        return is_next(folder, day)

    monkeypatch.setattr(prove, "_is_next", after_them)
    daily(town, ours)
    assert verify(town.book, ours) == []
    for path in theirs.iterdir():
        assert (ours / path.name).read_bytes() == path.read_bytes()


def test_a_signed_day_that_the_gateway_tells_otherwise_now(town: Town, tmp_path: Path) -> None:
    daily(town, tmp_path)
    town.changed(town.paid_imp_uid(3), status=Status.FAILED, paid_at=0)
    report = daily(town, tmp_path)
    assert report.proofs.changed == ["2026-11-20"]
    assert report.proofs.disagree == ["2026-11-20"]
    assert not report.clean


def test_sides_that_differ_are_written_down_as_such(town: Town, tmp_path: Path) -> None:
    town.changed(town.paid_imp_uid(3), amount=9)
    report = daily(town, tmp_path)
    assert report.proofs.disagree == ["2026-11-20"]
    assert "agree: no" in text_of(tmp_path, "2026-11-20")
    assert verify(town.book, tmp_path) == [], "it is a true proof of a difference"


def test_no_day_is_left_out(town: Town, tmp_path: Path) -> None:
    town.reconcile("2026-11-01", "2026-11-10", proofs=tmp_path)
    assert str(first_missing(tmp_path)) == "2026-11-11"
    with pytest.raises(InvalidInput, match="--from 2026-11-11"):
        town.reconcile("2026-11-15", "2026-11-20", proofs=tmp_path)
    town.reconcile("2026-11-11", "2026-11-20", proofs=tmp_path)
    assert verify(town.book, tmp_path) == []


def test_nothing_is_asked_of_the_gateway_for_a_chain_that_would_have_a_gap(
    town: Town, tmp_path: Path
) -> None:
    town.reconcile("2026-11-01", "2026-11-10", proofs=tmp_path)
    asked = len(town.sandbox.ledger.requests)
    with pytest.raises(InvalidInput, match="leaves days out"):
        town.reconcile("2026-11-15", "2026-11-20", proofs=tmp_path)
    assert len(town.sandbox.ledger.requests) == asked


def test_proofs_that_ended_long_ago_wait_for_a_person_and_nothing_else_does(
    town: Town, tmp_path: Path
) -> None:
    daily(town, tmp_path)
    town.at("2027-02-22 05:30")
    assert daily(town, tmp_path).proofs.written[-1] == "2027-02-21", "92 days are caught up with"
    town.at("2027-05-26 05:30")
    for _ in range(2):
        report = daily(town, tmp_path)
        assert (report.whole, report.proofs.written) == (True, [])
    told = "SELECT data, alarm FROM events WHERE kind = 'reconcile.unproved'"
    assert query(town.book, told) == [({"no_proof_since": "2027-02-22"}, True)]
    town.at("2027-05-27 05:30")
    daily(town, tmp_path)
    assert len(query(town.book, told)) == 2, "again every day"
    town.reconcile("2027-02-22", "2027-05-26", proofs=tmp_path)
    assert daily(town, tmp_path).whole
    assert len(query(town.book, told)) == 2
    assert verify(town.book, tmp_path) == []


def test_days_before_the_beginning_are_not_added(town: Town, tmp_path: Path) -> None:
    town.reconcile("2026-11-15", "2026-11-20", proofs=tmp_path)
    town.reconcile("2026-11-01", "2026-11-20", proofs=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir())[0] == "maewol-proof-2026-11-15.txt"
    assert verify(town.book, tmp_path) == []


def test_today_is_not_proved(town: Town, tmp_path: Path) -> None:
    town.at("2026-11-22 00:00:20")
    report = daily(town, tmp_path)
    assert report.proofs.written[-1] == "2026-11-20", "not all of the 21st must be visible yet"


def test_what_is_changed_later_is_found(town: Town, tmp_path: Path) -> None:
    daily(town, tmp_path)
    path = tmp_path / "maewol-proof-2026-11-20.txt"
    path.write_text(path.read_text().replace("1001", "1000"))
    (problem, *_) = verify(town.book, tmp_path)
    assert problem[0] == path.name
    path.unlink()
    assert [name for name, _ in verify(town.book, tmp_path)] == ["maewol-proof-2026-11-21.txt"] * 2


def test_a_folder_without_proofs(town: Town, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no proofs"):
        verify(town.book, tmp_path)


def test_no_day_is_signed_by_a_run_that_is_not_whole(town: Town, tmp_path: Path) -> None:
    """A payment by hand that could not be looked up: the day would be signed as not agreeing."""
    town.subscribe(1, first=4)
    by_hand = town.pay_by_hand(4, at=town.clock.now - timedelta(days=1))
    town.move(minutes=5)
    open_cycles(town.book, town.policy)
    town.wire.faults[by_hand.imp_uid] = "http:503"
    report = daily(town, tmp_path)
    assert (report.whole, report.proofs.written, list(tmp_path.iterdir())) == (False, [], [])
    town.wire.faults.clear()
    report = daily(town, tmp_path)
    assert report.whole
    assert report.proofs.disagree == []
    assert report.proofs.written[-1] == "2026-11-21"
