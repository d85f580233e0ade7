"""Every page answers, in both languages, and survives what people call themselves."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta

import pytest
from sqlalchemy import create_engine

from billing.domain.calendar import SEOUL
from billing.domain.money import Sum
from billing.presenting import told
from billing.services import forecast, hold
from billing.services.month import month
from billing.services.open_cycles import open_cycles
from billing.services.outlook import outlook
from billing.store.heartbeats import beat
from tests.builders import a_row, enrolled, execute, query
from tests.integration.web.conftest import Edge
from tests.integration.web.console_kit import (
    Page,
    a_world,
    an_operator,
    number_of,
    only_reading,
    quoted,
    subscribe,
)
from tests.lived_in import HOSTILE

PAGES = (
    "/",
    "/calendar",
    "/calendar?month=2024-02",
    "/money",
    "/money?month=nonsense",
    f"/money?month={10**20}-01",
    f"/calendar?month=2026-{10**20}",
    "/forecast?weeks=13",
    "/subscriptions",
    "/subscriptions?status=suspended",
    "/subscriptions?q=nobody",
    "/cycles",
    "/cycles?show=soon",
    "/cycles?show=held",
    "/cycles?show=missed",
    "/events",
    "/events?show=all",
    "/differences",
    "/notices",
    "/notices?show=dead",
    "/system",
    "/system/stop",
    "/system/start",
    "/system/invariants",
)
SLASHED = '<script>alert("/")</script>/../é?#%2F'


@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_page_answers_for_an_empty_book(edge: Edge, language: str) -> None:
    with an_operator(edge) as operator:
        for path in PAGES:
            page = operator.get(path, **{"accept-language": language})
            assert page.status_code == 200, path
            assert f'<html lang="{language}"' in page.text
            assert page.headers["content-security-policy"].startswith("default-src 'none'")
            # The policy forbids both; nothing may rely on them.
            assert " style=" not in page.text
            assert "<script>" not in page.text


def test_a_korean_operator_reads_korean(edge: Edge) -> None:
    """What checks found, what to do, why all is stopped, what events hold, which fact is broken."""
    subscribe(edge, "customer-1")
    a_world(edge).run(times=1)
    execute(edge.book, "UPDATE attempts SET sent_at = '2026-01-01T00:00:00Z'")
    hold.hold(edge.book, "the database went back in time, or failed over")
    with an_operator(edge) as operator:
        english, korean = (
            {
                path: operator.get(path, **{"accept-language": language}).text
                for path in ("/system", "/system/invariants", "/events?show=all")
            }
            for language in ("en", "ko")
        )
    for text in ("went back in time", "Run: maewol release", "failures in a row"):
        assert text in english["/system"]
        assert text not in korean["/system"]
    assert "실행: maewol release" in korean["/system"]
    assert "연속 실패 0회" in korean["/system"]
    assert "I2 inside the band" in english["/system/invariants"]
    assert "I2 시도 구간 안에서만" in korean["/system/invariants"]
    assert "closing margin" not in korean["/system/invariants"]
    names = re.findall(r'<span class="name">(.*?)</span>', korean["/events?show=all"])
    assert {"회차", "사유", "점유 번호", "merchant_uid"} <= set(names)
    assert {one for one in names if one.isascii()} <= told.AS_THEY_ARE


def test_a_tick_of_once_a_day_is_not_quiet_for_the_rest_of_it(edge: Edge) -> None:
    ticks = ("open", "seal", "check", "reconcile", "prune")
    quiet = {}
    for hours in (1, 3, 25, 27):
        seen = edge.clock.now - timedelta(hours=hours)
        for tick in ticks:
            edge.book.run(lambda tx, t=tick, at=seen: beat(tx.session, f"maewol.tick.{t}", at))
        with an_operator(edge) as operator:
            page = operator.get("/system", **{"accept-language": "en"}).text
        rows = re.findall(r"<code>maewol.tick.(\w+)</code>(.*?)</tr>", page)
        quiet[hours] = [tick for tick, row in rows if "⚠" in row]
    assert quiet == {
        1: ["open"],
        3: ["check", "open", "seal"],
        25: ["check", "open", "seal"],
        27: ["check", "open", "prune", "reconcile", "seal"],
    }


def test_all_that_is_linked_is_there(edge: Edge) -> None:
    """From Today on, every link of every page leads to a page; nothing is taken for markup."""
    subscribe(edge, *HOSTILE)
    enrolled(edge.book, edge.app.state.edge.policy, _row(SLASHED))
    a_world(edge).run(times=3)
    seen, todo = {"/"}, ["/"]
    with an_operator(edge) as operator:
        while todo:
            path = todo.pop()
            answer = operator.get(path)
            # The sandbox knows no customer whose name has a slash, encoded or not.
            gateway_page = path.endswith("/gateway")
            assert answer.status_code in ((200, 502) if gateway_page else (200, 303)), path
            if not answer.headers["content-type"].startswith("text/html"):
                continue
            assert "<script>alert" not in answer.text
            assert "<img src=x" not in answer.text
            assert "{{" not in answer.text.replace("{{ 7 * 7 }}", "")
            page = Page(answer)
            assert len(page.ids) == len(set(page.ids)), path
            for link in page.links:
                target = link.partition("#")[0]
                # Months go on for ever.
                endless = target.startswith(("/calendar?month", "/money?month"))
                if target.startswith("/") and target not in seen and not endless:
                    seen.add(target)
                    todo.append(target)
    assert len(seen) > 60


def _row(uid: str) -> str:
    return f"{quoted(uid)},9900,plan,2026-10-20T14:30:00+09:00,,"


@pytest.mark.parametrize("uid", [*HOSTILE, SLASHED])
def test_a_strange_name_is_found_and_shown(edge: Edge, uid: str) -> None:
    enrolled(edge.book, edge.app.state.edge.policy, _row(uid))
    number = number_of(edge, uid)
    with an_operator(edge) as operator:
        found = operator.client.get("/subscriptions", params={"q": uid})
        assert found.headers["location"] == f"/subscriptions/{number}"
        shown = Page(operator.get(found.headers["location"]))
        assert f"/subscriptions/{number}/do/pause" in shown.links


def test_search_finds_whatever_is_at_hand(edge: Edge) -> None:
    rows = [a_row(number) for number in (1, 2, 11)]
    enrolled(edge.book, edge.app.state.edge.policy, *rows)
    execute(edge.book, "UPDATE subscriptions SET reference = '50%_off-' || amount")
    open_cycles(edge.book, edge.app.state.edge.policy)
    ((merchant_uid, number), *_) = query(
        edge.book,
        "SELECT a.merchant_uid, c.subscription_id FROM attempts a"
        " JOIN cycles c ON c.id = a.cycle_id ORDER BY a.id",
    )
    with an_operator(edge) as operator:

        def search(text: str) -> list[str]:
            answer = operator.client.get("/subscriptions", params={"q": text})
            if answer.status_code == 303:
                return [answer.headers["location"]]
            links = Page(answer).links
            return [link for link in links if link.startswith("/subscriptions/")]

        assert search(merchant_uid) == [f"/subscriptions/{number}"]
        assert search("customer-2") == [f"/subscriptions/{number_of(edge, 'customer-2')}"]
        assert len(search("customer-1")) == 2
        assert len(search("50%_off-1")) == 3
        assert search("50_") == search("%") == []
        assert search("  customer-2 ") == search("customer-2")


def test_search_finds_who_has_paid_nothing_but_the_first_payment(edge: Edge) -> None:
    """On the day of the order its number is all that a customer who calls can name."""
    subscribe(edge, "somebody", "else")
    execute(
        edge.book,
        "UPDATE subscriptions SET initial_merchant_uid = 'order-1', initial_imp_uid = 'imp_1'"
        " WHERE customer_uid = 'somebody'",
    )
    with an_operator(edge) as operator:
        for wanted in ("order-1", "imp_1"):
            answer = operator.client.get("/subscriptions", params={"q": wanted})
            assert answer.headers.get("location") == f"/subscriptions/{number_of(edge, 'somebody')}"


def test_lists_go_on_where_the_page_before_ended(edge: Edge) -> None:
    rows = [a_row(number) for number in range(1, 121)]
    enrolled(edge.book, edge.app.state.edge.policy, *rows)
    seen: list[str] = []
    path = "/subscriptions?status=active"
    with an_operator(edge) as operator:
        for _ in range(3):
            page = Page(operator.get(path))
            seen += [one for one in page.links if one.removeprefix("/subscriptions/").isdigit()]
            path = next((one for one in page.links if "before=" in one), "")
    assert path == ""
    assert len(seen) == len(set(seen)) == 120


@pytest.mark.parametrize(
    "path",
    [
        "/subscriptions/999999",
        "/subscriptions/999999/gateway",
        "/subscriptions/999999/do/pause",
        "/subscriptions/0",
        "/subscriptions/abc",
        "/subscriptions/9223372036854775808",
        "/cycles?before=-1",
        "/forecast?weeks=1000",
        "/charts/days.svg?theme=blue",
        "/subscriptions/1/do/destroy",
        "/system/destroy",
    ],
)
def test_what_is_not_there_is_a_page_too(edge: Edge, path: str) -> None:
    with an_operator(edge) as operator:
        answer = operator.get(path, **{"accept-language": "ko"})
        assert answer.status_code in (404, 422)
        assert "처리하지 못했습니다" in answer.text


def test_a_database_that_is_away_is_a_page_without_its_address(
    make_edge: Callable[..., Edge], monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = make_edge()
    edge.book._engine.dispose()
    url = edge.book._engine.url.set(host="127.0.0.1", port=9, password="hunter2", query={})
    monkeypatch.setattr(edge.book, "_engine", create_engine(url))
    with an_operator(edge) as operator:
        answer = operator.get("/")
    assert answer.status_code == 503
    assert "cannot be reached" in answer.text
    assert "hunter2" not in answer.text


def test_a_database_that_only_reads_just_now_is_away_for_the_console(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """As the old primary is after a failover."""
    with only_reading(edge), an_operator(edge) as operator:
        answer = operator.submit("/system/stop", typed="stop")
    assert answer.status_code == 503
    assert "cannot be reached" in answer.text
    assert "a page failed" not in caplog.text


def test_charts_are_pictures_with_a_policy_of_their_own(edge: Edge) -> None:
    subscribe(edge, "somebody")
    a_world(edge).run(times=3)
    with an_operator(edge) as operator:
        for name in ("days", "months", "hours", "ahead"):
            for query_ in ("", "?theme=dark&size=narrow&lang=ko"):
                answer = operator.get(f"/charts/{name}.svg{query_}")
                assert answer.headers["content-type"] == "image/svg+xml"
                assert answer.text.startswith("<svg")
                assert "<script" not in answer.text
                assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "수납액" in operator.get("/charts/days.svg?lang=ko").text


def test_files_of_ours_are_kept_and_need_no_session(make_edge: Callable[..., Edge]) -> None:
    edge = make_edge(console_password="secret")
    with an_operator(edge, peer="203.0.113.9") as visitor:
        sheet = visitor.get("/console/static/console.css")
        assert sheet.status_code == 200
        assert "immutable" in sheet.headers["cache-control"]
        assert "set-cookie" not in sheet.headers
        for name in ("../look.py", "..%2Flook.py", "base.html", ""):
            assert visitor.get(f"/console/static/{name}").status_code == 404


# -- exports ------------------------------------------------------------------------------------


def test_exports_open_in_a_spreadsheet_and_run_nothing(edge: Edge) -> None:
    subscribe(edge, "somebody", "홍길동의 구독")
    execute(edge.book, "UPDATE subscriptions SET reference = '=1+1' WHERE customer_uid='somebody'")
    a_world(edge).run(times=3)
    with an_operator(edge) as operator:
        for path, rows in (
            ("/subscriptions.csv", 2),
            ("/cycles.csv", 2),
            ("/cycles.csv?show=soon", 0),
        ):
            answer = operator.get(path)
            assert answer.headers["content-type"] == "text/csv; charset=utf-8"
            assert "attachment" in answer.headers["content-disposition"]
            assert answer.content.startswith(b"\xef\xbb\xbf")
            found = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
            assert len(found) == rows
            assert not any(cell.startswith("=") for row in found for cell in row.values())
        paid = list(
            csv.DictReader(io.StringIO(operator.get("/cycles.csv?show=paid").text.lstrip("\ufeff")))
        )
    by_uid = {row["customer_uid"]: row for row in paid}
    assert by_uid["somebody"]["reference"] == "'=1+1"
    assert by_uid["somebody"]["amount"] == "9900"
    assert by_uid["somebody"]["paid_at"] == "2026-11-20T10:00:00+09:00"
    assert set(by_uid) == {"somebody", "홍길동의 구독"}


def test_a_long_export_is_whole(edge: Edge) -> None:
    rows = [a_row(number) for number in range(1, 2_502)]
    enrolled(edge.book, edge.app.state.edge.policy, *rows)
    with an_operator(edge) as operator:
        lines = operator.get("/subscriptions.csv").text.splitlines()
    assert len(lines) == len(set(lines)) == 2_502


@pytest.mark.parametrize(("language", "wanted"), [("en", "By week"), ("ko", "주별")])
def test_the_table_of_weeks_is_called_by_weeks(edge: Edge, language: str, wanted: str) -> None:
    """Its rows are weeks, with their days beneath; only the picture is by day."""
    with an_operator(edge) as operator:
        page = operator.get("/forecast", **{"accept-language": language}).text
    assert f"<caption>{wanted}</caption>" in page


# -- what the figures say -----------------------------------------------------------------------


def test_the_outlook_is_the_sum_of_the_forecast(edge: Edge) -> None:
    """The days ahead, counted by groups, are what the list of single charges adds up to."""
    policy = edge.app.state.edge.policy
    rows = [
        a_row(number, f"2026-{month:02d}-{day:02d}T14:30:00+09:00")
        for number, (month, day) in enumerate(
            [(10, day) for day in range(1, 32)] + [(1, 31), (2, 28), (9, 30), (11, 20), (11, 1)]
        )
    ]
    enrolled(edge.book, policy, *rows)
    open_cycles(edge.book, policy)
    days = {day.on: day.charges for day in outlook(edge.book, policy, 120) if day.charges.count}
    singles: dict[date, Sum] = {}
    until = datetime(2026, 11, 20, tzinfo=SEOUL) + timedelta(days=120)
    for one in forecast.due(edge.book, policy, None, 120):
        at = datetime.fromisoformat(one["at"])
        if at < until:
            on = at.date()
            singles[on] = singles.get(on, Sum()) + Sum(1, one["amount"])
    assert days == singles


def test_a_month_holds_every_cycle_once(edge: Edge) -> None:
    policy = edge.app.state.edge.policy
    rows = [a_row(day, f"2026-10-{day:02d}T14:30:00+09:00") for day in range(1, 32)]
    enrolled(edge.book, policy, *rows)
    open_cycles(edge.book, policy)
    # Those whose November was over at the enrolment begin in December.
    started = len(query(edge.book, "SELECT 1 FROM subscriptions WHERE next_due_at < '2026-11-30'"))
    opened = len(query(edge.book, "SELECT 1 FROM cycles"))
    for first, expected in (
        (date(2026, 11, 1), started + opened),
        (date(2026, 12, 1), 31),
        (date(2027, 2, 1), 31),
    ):
        shown = month(edge.book, policy, first)
        assert sum(band.total.count for band in shown.bands) == expected
        assert sum(day.first.count for day in shown.days) == expected
        # Whoever is unpaid has a day on which it may be charged.
        assert all(
            day.in_band.count == 0 or any(day.on in band.dates.band for band in shown.bands)
            for day in shown.days
        )
    # The 29th, 30th and 31st share February's last day.
    last = month(edge.book, policy, date(2027, 2, 1)).bands[-1]
    assert (last.dates.due_on, last.total.count) == (date(2027, 2, 28), 4)


def test_the_month_is_taken_away(edge: Edge) -> None:
    """As a page for paper, in the language asked for, and as files for spreadsheets."""
    subscribe(edge, "customer-1", SLASHED)
    subscribe(edge, "customer-3", script=("declined:0031",))
    edge.clock.move_to(datetime(2026, 11, 20, 10, 0, tzinfo=SEOUL))
    a_world(edge).run(times=4)
    with an_operator(edge) as operator:
        links = Page(operator.get("/money?month=2026-11&lang=ko")).links
        paper = operator.get("/money/report.html?month=2026-11&lang=ko")
        assert '<html lang="ko">' in paper.text
        assert "2026-11 정기결제 보고서" in paper.text
        assert "19,800원" in paper.text
        assert paper.headers["content-disposition"].startswith("attachment; filename=")
        assert "default-src 'none'" in paper.headers["content-security-policy"]
        assert "<script" not in paper.text
        files = {"days": 30, "declines": 1, "lost": 0, "charges": 2}
        for path, lines in ((f"/money/{name}.csv", count) for name, count in files.items()):
            answer = operator.get(f"{path}?month=2026-11")
            assert answer.headers["content-type"] == "text/csv; charset=utf-8"
            assert len(answer.text.splitlines()) == lines + 1
            assert f"{path}?month=2026-11" in links
        assert "/money/report.html?month=2026-11&lang=ko" in links
    with edge.browse(peer="203.0.113.9", host="shop.example") as stranger:
        for path in ("/money/report.html", *(f"/money/{name}.csv" for name in files)):
            assert stranger.get(path).status_code == 403
