"""The month's report: its figures beside a slow count of the same book and the gateway's ledger."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.month_figures import Proven, Verdict, Way
from billing.domain.policy import BillingPolicy
from billing.presenting import month_files, month_page
from billing.presenting.month_document import document
from billing.presenting.texts import Texts
from billing.sandbox.model import Origin, Status
from billing.services.reconcile import reconcile_today
from billing.services.report import charges, covered, report
from billing.store import views
from billing.store.session import Book
from tests.builders import a_refund, execute, query
from tests.conftest import MovedClock
from tests.lived_in import HOSTILE, live
from tests.town import Town, uid
from tests.world import World

OCTOBER, NOVEMBER, DECEMBER = (date(2026, month, 1) for month in (10, 11, 12))
Rows = list[dict[str, Any]]


def test_a_month_of_a_small_shop(book: Book, policy: BillingPolicy, clock: MovedClock) -> None:
    """One book for every question: it takes seconds to be lived in."""
    world = live(book, policy, clock)
    found = {month: document(report(book, policy, month), SEOUL) for month in (OCTOBER, NOVEMBER)}
    for month, figures in found.items():
        cycles = of_month(book, month)
        assert len(cycles) >= 30
        money_is_right(figures, cycles, world)
        outcomes_are_right(figures, cycles)
        declines_are_right(figures, book)
    november, october = found[NOVEMBER], found[OCTOBER]
    assert november["before"] == {name: october[name] for name in november["before"]}
    stories_are_told(november)
    files_hold_the_same(book, policy, november)
    for language in ("en", "ko"):
        page_is_whole(month_page.page(report(book, policy, NOVEMBER), Texts(language), SEOUL))
    nothing = document(report(book, policy, DECEMBER), SEOUL)
    assert (nothing["collected"]["count"], nothing["over"]) == (0, False)
    assert nothing["cycles"]["to_come"]["count"] > 40
    what_was_given_back_had_recovered(book, policy, november["declines"])


def of_month(book: Book, month: date) -> Rows:
    with book.transaction() as tx:
        found = views.cycles(tx.session, SEOUL, limit=10_000)
    return [one for one in found if one["due_on"][:7] == f"{month:%Y-%m}"]


def total(cycles: Rows) -> dict[str, int]:
    return {"count": len(cycles), "won": sum(one["amount"] for one in cycles)}


def bare(part: dict[str, Any]) -> dict[str, int]:
    return {name: part[name] for name in ("count", "won")}


def money_is_right(figures: dict[str, Any], cycles: Rows, world: World) -> None:
    paid = [one for one in cycles if one["paid_at"] is not None]
    refunded = [one for one in cycles if one["status"] == "refunded"]
    assert figures["collected"] == total(paid)
    assert figures["refunded"] == total(refunded)
    assert figures["net_won"] == total(paid)["won"] - total(refunded)["won"]
    for day in figures["days"]:
        assert bare(day) == total([one for one in paid if one["paid_at"][:10] == day["on"]])
    assert sum(day["refunded"]["won"] for day in figures["days"]) == total(refunded)["won"]
    ledger = {
        payment.imp_uid: payment.amount
        for payment in world.sandbox.ledger.payments
        if payment.status in (Status.PAID, Status.CANCELLED) and payment.origin is Origin.AGAIN
        if f"{datetime.fromtimestamp(payment.paid_at, SEOUL):%Y-%m}" == figures["month"]
    }
    # The gateway took what the report says, but for the charge whose answer is still looked for.
    ours = {one["imp_uid"]: one["amount"] for one in paid if one["reason"] != "paid_elsewhere"}
    lost = {imp_uid: won for imp_uid, won in ledger.items() if imp_uid not in ours}
    assert ours.items() <= ledger.items()
    assert len(lost) == figures["unknowns"]["open"]


def outcomes_are_right(figures: dict[str, Any], cycles: Rows) -> None:
    def those(status: str) -> Rows:
        return [one for one in cycles if one["status"] == status]

    def declined(one: dict[str, Any]) -> bool:
        return any(tried["status"] == "declined" for tried in one["attempts"])

    paid = [*those("paid"), *those("refunded")]
    ours = [one for one in paid if one["reason"] is None]
    expected = {
        "paid": paid,
        "paid_first": [one for one in ours if not declined(one)],
        "paid_retry": [one for one in ours if declined(one)],
        "paid_late": [one for one in paid if one["reason"] == "paid_late"],
        "paid_elsewhere": [one for one in paid if one["reason"] == "paid_elsewhere"],
        "paid_then_refunded": those("refunded"),
        "missed": those("missed"),
        "skipped": those("skipped"),
    }
    told = figures["cycles"]
    assert {name: bare(told[name]) for name in expected} == {
        name: total(found) for name, found in expected.items()
    }
    still = total([*those("open"), *those("held")])
    assert {name: told["open"][name] + told["held"][name] for name in still} == still
    ends = ("paid", "missed", "skipped", "held", "open", "to_come")
    assert told["due"]["won"] == sum(told[name]["won"] for name in ends)
    assert told["due"]["count"] == sum(told[name]["count"] for name in ends)
    assert abs(sum(told[name]["share"] for name in ends) - 1) < 0.001
    assert sum(one["won"] for one in figures["missed"]) == told["missed"]["won"]
    assert sum(one["won"] for one in figures["skipped"]) == told["skipped"]["won"]


def declines_are_right(figures: dict[str, Any], book: Book) -> None:
    found = query(
        book,
        "SELECT decline_class, message FROM attempts WHERE status = 'declined'"
        " AND to_char(settled_at AT TIME ZONE 'Asia/Seoul', 'YYYY-MM') = :month",
        month=figures["month"],
    )
    by_class = Counter(decline for decline, _ in found)
    assert {one["decline_class"]: one["declines"] for one in figures["declines"]} == by_class
    codes = Counter((decline, re.findall(r"\d{4}", message)[0]) for decline, message in found)
    told = {
        (one["decline_class"], one["code"]): one["declines"] for one in figures["decline_codes"]
    }
    assert told == codes
    assert figures["decline_codes_beyond"] == 0
    became = query(
        book,
        "SELECT a.decline_class, c.paid_at IS NOT NULL, c.status = 'open', count(DISTINCT c.id)"
        " FROM attempts a JOIN cycles c ON c.id = a.cycle_id WHERE a.status = 'declined'"
        " AND to_char(a.settled_at AT TIME ZONE 'Asia/Seoul', 'YYYY-MM') = :month GROUP BY 1, 2, 3",
        month=figures["month"],
    )
    for one in figures["declines"]:
        own = [row[1:] for row in became if row[0] == one["decline_class"]]
        assert one["paid"] == sum(count for paid, _, count in own if paid)
        assert one["open"] == sum(count for _, still, count in own if still)
        assert one["cycles"] == sum(count for *_, count in own)


def what_was_given_back_had_recovered(book: Book, policy: BillingPolicy, declines: Rows) -> None:
    """Money that came in after a decline was not lost to it, whatever became of it then."""
    assert sum(one["paid"] for one in declines) >= 2
    execute(
        book,
        "UPDATE cycles SET status = 'refunded' WHERE status = 'paid' AND id IN"
        " (SELECT cycle_id FROM attempts WHERE status = 'declined')",
    )
    assert document(report(book, policy, NOVEMBER), SEOUL)["declines"] == declines


def stories_are_told(november: dict[str, Any]) -> None:
    """What `tests/lived_in.py` says of its people."""
    assert november["over"] is False
    assert november["missed"] == [
        {"reason": "declined", "last_decline": "customer_must_act", "count": 1, "won": 9_900}
    ]
    assert [(one["reason"], one["count"]) for one in november["skipped"]] == []
    assert november["cycles"]["paid_retry"]["count"] >= 2
    assert november["refunded"] == {"count": 1, "won": 9_900}
    assert november["subscribers"]["gained"]["count"] == 0
    assert {
        (one["how"], one["reason"]): one["count"] for one in november["subscribers"]["lost_by"]
    } == {
        ("suspended", "chain_broken"): 1,
        ("suspended", "key_invalid"): 1,
        ("cancelled", None): 1,
    }
    assert november["differences_open"] == {"double": 1, "not_enrolled": 1}
    assert november["proofs"]["verdict"] == "none"


def files_hold_the_same(book: Book, policy: BillingPolicy, november: dict[str, Any]) -> None:
    lines = _read(month_files.charges(charges(book, policy, NOVEMBER), SEOUL))
    assert len(lines) == november["collected"]["count"]
    assert sum(int(line["amount"]) for line in lines) == november["collected"]["won"]
    assert [line["paid_at"] for line in lines] == sorted(line["paid_at"] for line in lines)
    named = {line["customer_uid"]: line for line in lines}
    assert set(HOSTILE) <= set(named), "none of them begins as a formula does"
    assert (named["recovered"]["attempts"], named["refunded"]["status"]) == ("2", "refunded")
    made = report(book, policy, NOVEMBER)
    rows = _read(month_files.days(made.figures.days))
    assert [row["on"] for row in rows] == [f"2026-11-{day:02d}" for day in range(1, 31)]
    assert sum(int(row["net_won"]) for row in rows) == november["net_won"]
    declines = _read(month_files.declines(made.codes, made.other_texts))
    assert {(row["decline_class"], row["code"]): int(row["count"]) for row in declines} == {
        (one["decline_class"], one["code"] or ""): one["declines"]
        for one in november["decline_codes"]
    }
    lost = _read(month_files.lost(made.figures.outcomes.lost))
    assert sum(int(row["won"]) for row in lost) == november["cycles"]["missed"]["won"] > 0
    assert [(row["reason"], row["last_decline"], int(row["count"])) for row in lost] == [
        (one["reason"] or "", one["last_decline"] or "", one["count"]) for one in november["missed"]
    ]


def _read(text: Iterable[str]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(text).removeprefix("\ufeff"))))


class _Reader(HTMLParser):
    """What a page would load, and whether its elements are closed."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "onload")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_is_whole(page: str) -> None:
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.loads == []
    assert reader.seen["script"] == 0
    assert reader.seen["svg"] >= 2
    assert "url(" not in page
    assert "@import" not in page


@pytest.fixture
def town(book: Book, policy: BillingPolicy, clock: MovedClock) -> Town:
    """Three subscribers who paid on 20 November; one was refunded in the console on the 21st."""
    town = Town(book, policy, clock)
    town.at("2026-11-20 10:00").subscribe(3)
    assert town.charge() == {"approved": 3}
    town.at("2026-11-21 12:00").cancel_outside(town.paid_imp_uid(2))
    return town


def daily(town: Town, folder: Path) -> None:
    town.run(lambda client: reconcile_today(town.book, client, town.policy, None, folder))


def whole_november(town: Town, folder: Path) -> None:
    """The daily runs that sign every day of it; the first of all looks back to the 1st."""
    for moment in ("2026-11-22 05:30", "2026-12-01 05:30"):
        town.at(moment)
        daily(town, folder)


class TestProofs:
    def test_a_whole_month_agrees(self, town: Town, tmp_path: Path) -> None:
        whole_november(town, tmp_path)
        made = report(town.book, town.policy, NOVEMBER, tmp_path)
        assert {one.says for one in made.proofs} == {Proven.AGREES}
        assert (made.verdict, len(made.proofs)) == (Verdict.AGREE, 30)
        assert made.figures.days[20].refunded.won == 1002

    def test_days_that_are_not_over(self, town: Town, tmp_path: Path) -> None:
        town.at("2026-11-23 05:30")
        daily(town, tmp_path)
        town.at("2026-11-24 12:00")
        made = report(town.book, town.policy, NOVEMBER, tmp_path)
        says = [one.says for one in made.proofs]
        assert says[:22] == [Proven.AGREES] * 22
        assert says[22] is Proven.MISSING
        assert says[23:] == [Proven.TO_COME] * 7
        assert made.verdict is Verdict.INCOMPLETE

    def test_without_proofs(self, town: Town, tmp_path: Path) -> None:
        for folder in (None, tmp_path, tmp_path / "nowhere"):
            assert report(town.book, town.policy, NOVEMBER, folder).verdict is Verdict.NONE

    def test_a_proof_that_was_edited(self, town: Town, tmp_path: Path) -> None:
        whole_november(town, tmp_path)
        path = tmp_path / "maewol-proof-2026-11-20.txt"
        path.write_text(path.read_text(encoding="utf-8").replace("1001", "1000"), encoding="utf-8")
        made = report(town.book, town.policy, NOVEMBER, tmp_path)
        says = {one.on.day: one.says for one in made.proofs if one.says is not Proven.AGREES}
        assert says == {20: Proven.DAMAGED}
        assert made.verdict is Verdict.DISAGREE

    @pytest.mark.parametrize("day", [1, 12, 30])
    def test_a_proof_that_is_gone_says_nothing_of_the_day_after(
        self, town: Town, tmp_path: Path, day: int
    ) -> None:
        whole_november(town, tmp_path)
        (tmp_path / f"maewol-proof-2026-11-{day:02}.txt").unlink()
        made = report(town.book, town.policy, NOVEMBER, tmp_path)
        says = {one.on.day: one.says for one in made.proofs if one.says is not Proven.AGREES}
        assert says == {day: Proven.MISSING}
        assert made.verdict is Verdict.INCOMPLETE

    def test_a_book_that_says_something_else_now(self, town: Town, tmp_path: Path) -> None:
        whole_november(town, tmp_path)
        execute(
            town.book,
            "UPDATE cycles SET paid_at = paid_at - interval '1 day' WHERE id ="
            " (SELECT min(id) FROM cycles)",
        )
        made = report(town.book, town.policy, NOVEMBER, tmp_path)
        says = {one.on.day: one.says for one in made.proofs if one.says is not Proven.AGREES}
        assert says == {19: Proven.CHANGED, 20: Proven.CHANGED}
        assert made.verdict is Verdict.DISAGREE

    def test_a_day_on_which_the_sides_differed(self, town: Town, tmp_path: Path) -> None:
        town.at("2026-11-21 13:00").pay_by_hand(1)
        whole_november(town, tmp_path)
        made = report(town.book, town.policy, NOVEMBER, tmp_path)
        says = {one.on.day: one.says for one in made.proofs if one.says is not Proven.AGREES}
        assert says == {21: Proven.DIFFERED}
        assert made.differences == {"double": 1}

    def test_earlier_proofs_may_be_kept_elsewhere(self, town: Town, tmp_path: Path) -> None:
        town.at("2026-12-31 05:30")
        daily(town, tmp_path)
        for path in tmp_path.glob("maewol-proof-2026-11-*.txt"):
            path.unlink()
        made = report(town.book, town.policy, DECEMBER, tmp_path)
        assert {one.says for one in made.proofs[:30]} == {Proven.AGREES}


def test_no_transaction_is_open_while_proofs_are_read(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month of ten million has gigabytes of them, and what stands idle for a minute is ended."""
    idle = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state = 'idle in transaction'"
    )
    seen: list[Any] = []

    def looked_at(*told: Any, **more: Any) -> Any:
        seen.extend(query(town.book, idle))
        return covered(*told, **more)

    monkeypatch.setattr("billing.services.report.covered", looked_at)
    assert report(town.book, town.policy, NOVEMBER, tmp_path).verdict is Verdict.NONE
    assert seen == [(0,)]


def test_a_second_payment_that_was_given_back_is_in_neither_sum(town: Town) -> None:
    """The book counts one payment for a month; the other came, and went."""
    town.at("2026-11-21 13:00")
    second = town.pay_by_hand(1)
    town.cancel_outside(second.imp_uid)
    a_refund(town.book, second.imp_uid, datetime(2026, 11, 21, 5, tzinfo=UTC))
    figures = report(town.book, town.policy, NOVEMBER).figures
    assert (figures.besides.count, figures.besides.won) == (1, 1001)
    assert figures.collected.won == 1001 + 1002 + 1003
    assert figures.refunded.won == 0, "nobody has compared yet"


def test_a_month_that_was_paid_by_hand(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    town = Town(book, policy, clock)
    town.at("2026-11-20 09:00").subscribe(2)
    town.pay_by_hand(2)
    town.at("2026-11-20 10:00").charge()
    made = report(book, policy, NOVEMBER).figures
    ways = {way: total.count for way, total in made.outcomes.by_way.items() if total.count}
    assert ways == {Way.FIRST: 1, Way.ELSEWHERE: 1}
    (page,) = charges(book, policy, NOVEMBER)
    assert {row.customer_uid: row.attempts for row in page} == {uid(1): 1, uid(2): 0}


def test_a_page_of_charges_begins_where_the_last_one_ended(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between payments of the same second."""
    execute(town.book, "UPDATE cycles SET paid_at = (SELECT min(paid_at) FROM cycles)")
    monkeypatch.setattr("billing.services.report.PAGE", 1)
    pages = list(charges(town.book, town.policy, NOVEMBER))
    assert [[row.amount for row in page] for page in pages] == [[1001], [1002], [1003]]
