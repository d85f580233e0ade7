"""`maewol notices`: the outbox as a person sees it, and whether the receiver works."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from billing.domain.notice import Resumed
from billing.store import events
from billing.store.session import Book
from tests.builders import a_row, enrolled, execute, query
from tests.called import Call, document
from tests.conftest import MovedClock
from tests.merchant import SECRET, Answer, Merchant, a_merchant

Maewol = Callable[..., Any]


@pytest.fixture
def maewol(call: Call) -> Maewol:
    return partial(document, call)


@pytest.fixture
def merchant(monkeypatch: pytest.MonkeyPatch) -> Iterator[Merchant]:
    with a_merchant() as running:
        monkeypatch.setenv("MAEWOL_NOTICE_URL", running.url)
        monkeypatch.setenv("MAEWOL_NOTICE_SECRET", SECRET)
        yield running


@pytest.fixture
def three(book: Book, policy: Any, clock: MovedClock) -> Book:
    """One notice of each status, the dead one in the middle."""
    enrolled(book, policy, a_row(1))
    for number in range(3):
        with book.transaction() as tx:
            news = Resumed(before=str(number))
            events.notify(tx.session, at=tx.now, subscription_id=1, news=news)
    execute(book, "UPDATE notices SET delivered_at = created_at WHERE id = 1")
    execute(book, "UPDATE notices SET dead_at = now(), problem = 'answered 500' WHERE id = 2")
    return book


def test_the_outbox_is_listed_by_status(maewol: Maewol, three: Book) -> None:
    assert [one["id"] for one in maewol("notices")] == [3, 2, 1]
    assert [one["id"] for one in maewol("notices", "--limit", "1")] == [3]
    for status, number in (("delivered", 1), ("dead", 2), ("waiting", 3)):
        (found,) = maewol("notices", "--status", status)
        assert (found["id"], found["status"]) == (number, status)
        assert found["customer_uid"] == "customer-1"
        assert found["type"] == "subscription.resumed"
        assert found["webhook_id"].startswith(f"mw_{number}_")
        assert (found["next_try_at"] is not None) == (status == "waiting")
    figures = maewol("status")
    assert (figures["notices_waiting"], figures["notices_dead"]) == (1, 1)


def test_one_that_is_no_message_is_listed_with_what_there_is(maewol: Maewol, three: Book) -> None:
    """Its death is an alarm, which names this command."""
    for odd in ("[1]", '"text"', "7"):
        execute(three, f"UPDATE notices SET data = '{odd}', subscription_id = NULL WHERE id = 2")
        (found,) = maewol("notices", "--status", "dead")
        told = (found["id"], found["webhook_id"], found["customer_uid"], found["data"])
        assert told == (2, None, None, json.loads(odd))


def test_dead_letters_are_sent_again(maewol: Maewol, three: Book) -> None:
    (dead,) = maewol("notices", "--status", "dead")
    assert maewol("notices", "resend", dead["webhook_id"]) == {"sent_again": 1}
    assert maewol("notices", "resend", "--dead") == {"sent_again": 0}
    execute(three, "UPDATE notices SET dead_at = now() WHERE id = 3")
    assert maewol("notices", "resend", "--dead") == {"sent_again": 1}
    assert query(three, "SELECT count(*) FROM notices WHERE dead_at IS NOT NULL") == [(0,)]


@pytest.mark.parametrize(
    ("words", "code"),
    [(["resend"], 2), (["resend", "1", "--dead"], 2), (["resend", "x"], 2), (["resend", "9"], 1)],
)
def test_a_wrong_call_is_told(maewol: Maewol, three: Book, words: list[str], code: int) -> None:
    assert maewol("notices", *words, code=code)["error"]


def test_the_receiver_is_tried_out(maewol: Maewol, merchant: Merchant) -> None:
    assert maewol("notices", "test") == {"delivered": True, "answer": "answered 204"}
    (seen,) = merchant.seen
    assert seen.body["type"] == "maewol.test"
    merchant.answer = lambda _: Answer(401)
    told = maewol("notices", "test", code=1)
    assert told == {"delivered": False, "answer": "answered 401"}


def test_a_secret_that_is_any_text_signs_with_its_own_bytes(
    maewol: Maewol, merchant: Merchant, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "any-text-of-24-bytes-or-more"
    monkeypatch.setenv("MAEWOL_NOTICE_SECRET", secret)
    merchant.secret = secret.encode()
    assert maewol("notices", "test") == {"delivered": True, "answer": "answered 204"}
    merchant.secret = SECRET
    assert not maewol("notices", "test", code=1)["delivered"]


def test_without_an_address_the_test_says_which_setting(maewol: Maewol) -> None:
    told = maewol("notices", "test", code=2)
    assert (told["field"], told["value"]) == ("NOTICE_URL", None)


@pytest.mark.usefixtures("merchant")
def test_the_doctor_says_what_the_receiver_answered_last(maewol: Maewol, three: Book) -> None:
    def check() -> tuple[bool, str]:
        found = {one["name"]: one for one in maewol("doctor", code=1)["checks"]}["notices"]
        return found["ok"], found["detail"]

    assert check() == (False, "the last one: nothing was sent yet; dead letters: 1")
    execute(three, "UPDATE notices SET dead_at = NULL")
    execute(three, "UPDATE receiver SET tried_at = now(), problem = 'answered 500'")
    assert check() == (False, "the last one: answered 500")
    execute(three, "UPDATE receiver SET problem = NULL")
    assert check() == (True, "the last one: taken")


def test_an_enrolment_by_hand_is_told_when_asked_to(maewol: Maewol, book: Book) -> None:
    words = ["--amount", "9900", "--order-name", "plan"]
    words += ["--initial-paid-at", "2026-10-20T14:30:00+09:00"]
    maewol("subscription", "add", "--customer-uid", "quiet", *words)
    maewol("subscription", "add", "--customer-uid", "told", *words, "--notify")
    found = maewol("notices")
    assert [one["customer_uid"] for one in found] == ["told"]
