"""What an operator does: each with its warning, once, and never around the rules."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import pytest

from billing.domain.errors import Conflict, InvalidSetting
from billing.presenting.texts import Texts
from billing.sandbox import HandPayment, mood, pay
from billing.services import hold
from billing.services.answer import Result
from billing.services.dispatch import dispatch
from billing.services.open_cycles import open_cycles
from billing.web.console import actions
from tests.builders import execute, query
from tests.integration.web.conftest import Edge
from tests.integration.web.console_kit import (
    Operator,
    Page,
    a_world,
    an_operator,
    number_of,
    subscribe,
)

UID = "customer-1"


def _events(edge: Edge, kind: str) -> int:
    return len(query(edge.book, "SELECT 1 FROM events WHERE kind = :kind", kind=kind))


def _status(edge: Edge) -> str:
    ((status,),) = query(edge.book, "SELECT status FROM subscriptions")
    return str(status)


@pytest.fixture
def edge(make_edge: Callable[..., Edge]) -> Edge:
    """With a receiver of notices, or none would be written."""
    return make_edge(notice_url="http://127.0.0.1:9/", notice_secret="whsec_" + "QUJD" * 8)


@pytest.fixture
def path(edge: Edge) -> str:
    """One subscriber, due today; the address of its page."""
    subscribe(edge, UID)
    open_cycles(edge.book, edge.app.state.edge.policy)
    return f"/subscriptions/{number_of(edge, UID)}"


def test_pausing_says_first_what_it_risks(edge: Edge, path: str) -> None:
    with an_operator(edge) as operator:
        asked = operator.get(f"{path}/do/pause", **{"accept-language": "ko"}).text
        assert "2026-11-25 23:30(서울) 전에 재개하십시오" in asked
        assert _status(edge) == "active"
        done = operator.submit(f"{path}/do/pause")
        assert (done.status_code, done.headers["location"]) == (303, path)
        message = operator.message(path)
        assert message.startswith("warning: ")
        assert "Resume before 2026-11-25 23:30 (Seoul)" in message
        assert 'role="status"' not in operator.get(path).text, "a message is shown once"
        assert _status(edge) == "paused"
        # The same form once more, as by an impatient finger.
        assert operator.submit(f"{path}/do/pause").status_code == 303
        assert _events(edge, "subscription.paused") == 1
        operator.submit(f"{path}/do/resume")
        assert operator.message(path).startswith("done: ")
    assert _status(edge) == "active"
    assert query(edge.book, "SELECT count(*) FROM attempts WHERE status = 'due'") == [(1,)]


def test_a_message_without_end_is_cut_and_shown(
    edge: Edge, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser drops a cookie of more than 4,096 bytes, and the operator would be told nothing."""
    chance = random.Random(1)
    problem = "".join(chr(chance.randrange(0xAC00, 0xD7A4)) for _ in range(5_000))

    def refuses(*_: object) -> None:
        raise Conflict(problem)

    monkeypatch.setattr(actions.change_status, "pause", refuses)
    with an_operator(edge) as operator:
        answer = operator.submit(f"{path}/do/pause")
        assert len(answer.headers["set-cookie"].encode()) <= 4096
        message = operator.message(path)
    assert problem[:300] in message
    assert message.endswith("…")


def test_cancelling_is_final(edge: Edge, path: str) -> None:
    with an_operator(edge) as operator:
        assert "This is final" in operator.get(f"{path}/do/cancel").text
        operator.submit(f"{path}/do/cancel")
        assert _status(edge) == "cancelled"
        operator.submit(f"{path}/do/resume")
        assert operator.message(path).startswith("refused: ")
        assert "Only an active subscription" in _retried(operator, path)
    assert _status(edge) == "cancelled"
    assert _events(edge, "subscription.cancelled") == 1


# -- retry --------------------------------------------------------------------------------------


def _retried(operator: Operator, path: str) -> str:
    assert operator.submit(f"{path}/do/retry").status_code == 303
    return operator.message(path)


def test_a_retry_waits_for_what_is_planned(edge: Edge, path: str) -> None:
    with an_operator(edge) as operator:
        assert "An attempt waits already; it is planned for 2026-11-20 10:00" in _retried(
            operator, path
        )
    assert query(edge.book, "SELECT count(*) FROM attempts") == [(1,)]


def test_a_retry_is_planned_for_the_next_slot(edge: Edge, path: str) -> None:
    with an_operator(edge) as operator:
        operator.submit(f"{path}/do/pause")
        execute(edge.book, "UPDATE subscriptions SET status = 'active'")
        edge.clock.move(hours=2)
        assert "planned for 2026-11-20 18:00" in _retried(operator, path)
        # The second submit finds it planned.
        assert "waits already" in _retried(operator, path)
    assert query(edge.book, "SELECT count(*) FROM attempts WHERE status = 'due'") == [(1,)]


def test_a_retry_is_refused_when_the_band_is_over(edge: Edge, path: str) -> None:
    with an_operator(edge) as operator:
        operator.submit(f"{path}/do/pause")
        execute(edge.book, "UPDATE subscriptions SET status = 'active'")
        edge.clock.move(days=5, hours=13.6)
        assert "No slot is left in the band" in _retried(operator, path)
    assert query(edge.book, "SELECT count(*) FROM attempts WHERE status = 'due'") == [(0,)]


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        # For good, says the carrier; but it may be our own mistake.
        (("declined:0011",), "The cycle is held"),
        (("declined:0060/mismatch",), "The cycle is held"),
        (("timeout_after_charge",), "The outcome of an attempt is unknown."),
        (("declined:0016",), "An attempt waits already; it is planned for 2026-11-21"),
        ((), "No cycle is open now"),
    ],
)
def test_a_retry_never_goes_around_the_rules(
    edge: Edge, script: tuple[str, ...], answer: str
) -> None:
    subscribe(edge, *[f"good-{number}" for number in range(6)])
    subscribe(edge, UID, script=script)
    world = a_world(edge)
    open_cycles(edge.book, world.policy)
    _charge_all(edge)
    before = query(edge.book, "SELECT id, status FROM attempts ORDER BY id")
    path = f"/subscriptions/{number_of(edge, UID)}"
    with an_operator(edge) as operator:
        assert answer in _retried(operator, path)
    assert query(edge.book, "SELECT id, status FROM attempts ORDER BY id") == before


def test_a_held_month_is_charged_once_somebody_has_looked(edge: Edge) -> None:
    subscribe(edge, *[f"good-{number}" for number in range(6)])
    subscribe(edge, UID, script=("declined:0060/mismatch",))
    open_cycles(edge.book, a_world(edge).policy)
    _charge_all(edge)
    path = f"/subscriptions/{number_of(edge, UID)}"
    with an_operator(edge) as operator:
        assert f"{path}/do/let_go" in operator.get(path).text
        assert "Do this once you have looked" in operator.get(f"{path}/do/let_go").text
        operator.submit(f"{path}/do/let_go")
        assert "planned for 2026-11-20 18:00" in operator.message(path)
        assert f"{path}/do/let_go" not in operator.get(path).text
        operator.submit(f"{path}/do/let_go")
        assert operator.message(path).startswith("refused: ")
    assert _events(edge, "cycle.let_go") == 1


def _charge_all(edge: Edge) -> None:
    """Everything that is due, the canaries first; nothing is asked about."""
    world = a_world(edge)
    for _ in range(4):
        dispatch(edge.book, world, world.policy)
        world.work()


# -- asking and the gateway's view --------------------------------------------------------------


@pytest.fixture
def lost(edge: Edge) -> str:
    """A subscriber whose answer was lost on the way, after the charge."""
    subscribe(edge, UID, script=("timeout_after_charge",))
    open_cycles(edge.book, edge.app.state.edge.policy)
    _charge_all(edge)
    assert query(edge.book, "SELECT status FROM attempts") == [("unknown",)]
    return f"/subscriptions/{number_of(edge, UID)}"


def test_the_gateway_is_asked_now(edge: Edge, lost: str) -> None:
    edge.clock.move(minutes=1)
    with an_operator(edge) as operator:
        operator.submit(f"{lost}/do/ask")
        assert "It was paid" in operator.message(lost)
        operator.submit(f"{lost}/do/ask")
        assert "nothing to ask" in operator.message(lost)
    assert query(edge.book, "SELECT status FROM cycles") == [("paid",)]


def test_a_gateway_that_is_away_proves_nothing(edge: Edge, lost: str) -> None:
    edge.sandbox.mood = mood({"chances": {"lookup": {"http:503": 1.0}}})
    edge.clock.move(minutes=1)
    with an_operator(edge) as operator:
        operator.submit(f"{lost}/do/ask")
        assert operator.message(lost).startswith("warning: ")
        view = operator.get(f"{lost}/gateway")
        assert view.status_code == 502
        assert "did not answer" in view.text
    assert query(edge.book, "SELECT status FROM attempts") == [("unknown",)]


def test_both_sides_are_shown_beside_each_other(edge: Edge) -> None:
    subscribe(edge, UID)
    world = a_world(edge)
    world.run(times=3)
    path = f"/subscriptions/{number_of(edge, UID)}"
    with an_operator(edge) as operator:
        agreed = operator.get(f"{path}/gateway").text
        assert agreed.count("✓ agree") == 1
        assert "⚠" not in agreed
        edge.clock.move(minutes=10)
        pay(edge.sandbox, HandPayment(customer_uid=UID))
        edge.clock.move(minutes=10)
        twice = operator.get(f"{path}/gateway").text
        assert twice.count("⚠ differ") == 1
        assert "not in the book" in twice


# -- refunds ------------------------------------------------------------------------------------


@pytest.fixture
def paid(edge: Edge) -> str:
    """A subscriber who paid this month."""
    subscribe(edge, UID)
    a_world(edge).run(times=3)
    edge.clock.move(minutes=5)
    return f"/subscriptions/{number_of(edge, UID)}"


def _refund_page(operator: Operator, path: str) -> str:
    (link,) = [one for one in Page(operator.get(path)).links if "/refund?" in one]
    return link


def test_a_refund_says_first_what_it_breaks(edge: Edge, paid: str) -> None:
    with an_operator(edge) as operator:
        page = _refund_page(operator, paid)
        asked = operator.get(page).text
        assert "the month is left without a payment" in asked
        assert _events(edge, "refund.requested") == 0
        action = page.partition("?")[0]
        for _ in range(2):
            assert operator.submit(page, action, reason="asked for").status_code == 303
            assert operator.message(paid).startswith("done: ")
    assert query(edge.book, "SELECT status FROM refunds") == [("done",)]
    assert query(edge.book, "SELECT status FROM cycles") == [("refunded",)]


def test_nobody_elses_payment_is_given_back(edge: Edge, paid: str) -> None:
    subscribe(edge, "another")
    with an_operator(edge) as operator:
        page = _refund_page(operator, paid)
        other = f"/subscriptions/{number_of(edge, 'another')}"
        moved = page.replace(paid, other)
        assert operator.get(moved).status_code == 404
        token = operator.token()
        fields = dict(pair.split("=") for pair in page.partition("?")[2].split("&"))
        operator.client.post(f"{other}/refund", data={"token": token, **fields})
        assert operator.message(other).startswith("refused: ")
    assert query(edge.book, "SELECT count(*) FROM refunds") == [(0,)]


# -- all charging -------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["", "Stopp", "yes", "start"])
def test_charging_stops_only_by_the_word(edge: Edge, word: str) -> None:
    with an_operator(edge) as operator:
        assert operator.submit(
            "/system/stop", typed=word, reason="a <b>reason</b>"
        ).status_code in (422,)
        assert query(edge.book, "SELECT hold_reason FROM installation") == [(None,)]


@pytest.mark.parametrize(
    ("stop", "start"), [("stop", "start"), (" 중지 ", "시작"), ("STOP", "Start")]
)
def test_charging_stops_and_starts(edge: Edge, stop: str, start: str) -> None:
    with an_operator(edge) as operator:
        for _ in range(2):
            done = operator.submit("/system/stop", typed=stop, reason="wrong <b>prices</b>")
            assert done.headers["location"] == "/system"
        assert "wrong &lt;b&gt;prices&lt;/b&gt;" in operator.get("/").text
        assert _events(edge, "charging.held") == 1
        for _ in range(2):
            assert operator.submit("/system/start", typed=start).status_code == 303
        assert _events(edge, "charging.released") == 1
    assert query(edge.book, "SELECT hold_reason FROM installation") == [(None,)]


@pytest.mark.parametrize(
    ("reason", "told"),
    [("a\0b\u202ec", "a b c"), ("\ud83d", "held by hand"), (" \0 ", "held by hand")],
)
def test_charging_stops_whatever_the_reason_is_made_of(edge: Edge, reason: str, told: str) -> None:
    hold.hold(edge.book, reason)
    assert query(edge.book, "SELECT hold_reason FROM installation") == [(told,)]


def test_a_reason_that_a_database_cannot_hold_stops_charging(edge: Edge) -> None:
    with an_operator(edge) as operator:
        assert operator.submit("/system/stop", typed="stop", reason="a\0b").status_code == 303
    assert query(edge.book, "SELECT hold_reason FROM installation") == [("a b",)]


# -- notices ------------------------------------------------------------------------------------


def test_notices_that_were_given_up_are_sent_again(edge: Edge, path: str) -> None:
    with an_operator(edge) as operator:
        for _ in range(2):
            operator.submit(f"{path}/do/pause")
            operator.submit(f"{path}/do/resume")
        dead = "UPDATE notices SET dead_at = created_at, problem = 'HTTP 500'"
        execute(edge.book, dead)
        count = len(query(edge.book, "SELECT 1 FROM notices"))
        assert count >= 2
        ((first,), *_) = query(edge.book, "SELECT id FROM notices ORDER BY id")
        operator.submit("/notices?show=dead", f"/notices/{first}/resend")
        assert operator.message("/notices").endswith("with the next tick: 1.")
        operator.submit("/notices?show=dead", "/notices/resend")
        assert operator.message("/notices").endswith(f"with the next tick: {count - 1}.")
        assert (
            operator.client.post(
                "/notices/999999/resend", data={"token": operator.token()}
            ).status_code
            == 404
        )
    assert query(edge.book, "SELECT count(*) FROM notices WHERE dead_at IS NOT NULL") == [(0,)]


# -- people's data ------------------------------------------------------------------------------


def test_a_buyer_is_masked_until_somebody_asks(
    edge: Edge, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), an_operator(edge) as operator:
        assert "홍길동" not in operator.get(path).text
        assert "1234-5678" not in operator.get(path).text
        assert _events(edge, "buyer.shown") == 0
        shown = operator.submit(path, f"{path}/buyer")
        assert "홍길동" in shown.text
        assert "010-1234-5678" in shown.text
        assert _events(edge, "buyer.shown") == 1
        assert "홍길동" not in operator.get(path).text
    assert "홍길동" not in caplog.text
    # The line says who was looked at, not what was seen.
    ((data,),) = query(edge.book, "SELECT data FROM events WHERE kind = 'buyer.shown'")
    assert data == {}


def test_without_credentials_the_rest_still_works(make_edge: Callable[..., Edge]) -> None:
    """Only what needs the gateway says that a setting is missing."""
    edge = make_edge()
    subscribe(edge, UID)
    path = f"/subscriptions/{number_of(edge, UID)}"

    async def none() -> object:
        raise InvalidSetting("PORTONE_IMP_KEY", None, "not set", "Set it")

    edge.app.state.edge.gateway = none
    with an_operator(edge) as operator:
        assert operator.get(path).status_code == 200
        answer = operator.get(f"{path}/gateway")
        assert answer.status_code == 503
        assert "PORTONE_IMP_KEY" in answer.text


def test_what_came_out_is_said() -> None:
    """Every outcome of asking has words."""
    assert {Result.APPROVED, Result.DECLINED, Result.UNKNOWN} <= {
        result for result in Result if Texts("en").has(f"asked.{result}")
    }
