"""`maewol subscription correct`, and giving back what a verified import brought in, as typed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from billing.sandbox import NewCustomer, Sandbox, register
from billing.sandbox.model import Payment
from billing.store.session import Book
from tests.builders import chargeable_now, execute, query
from tests.called import Call, Done

WHO = "somebody"
CORRECT = ("subscription", "correct", WHO)


class Shop:
    """A merchant with one customer, who has just registered."""

    def __init__(self, call: Call, sandbox: tuple[Sandbox, str], folder: Path) -> None:
        self._call = call
        self.sandbox, self._url = sandbox
        self._file = folder / "customers.csv"
        # What is given back is of this month, which must not end meanwhile.
        paid_at = chargeable_now()
        (self.payment,) = register(
            self.sandbox,
            [
                NewCustomer(
                    customer_uid=WHO,
                    amount=9900,
                    name="plan",
                    paid_at=paid_at,
                    buyer_tel="010-1234-5678",
                )
            ],
        )
        self._file.write_text(
            "customer_uid,amount,order_name,initial_paid_at,buyer_tel\n"
            f"{WHO},9900,plan,{paid_at.isoformat()},010-1234-5678\n"
        )

    def maewol(self, *words: str) -> Done:
        return self._call(
            *words,
            PORTONE_API_URL=self._url,
            PORTONE_IMP_KEY="key",
            PORTONE_IMP_SECRET="secret",
            GATEWAY_VISIBILITY_SECONDS="0",
        )

    def document(self, *words: str, code: int = 0) -> Any:
        done = self.maewol(*words, "--json")
        assert done.code == code, done.err
        return done.document()

    def imported(self) -> Any:
        return self.document("subscription", "import", str(self._file), "--verify")


@pytest.fixture
def shop(call: Call, sandbox: tuple[Sandbox, str], tmp_path: Path) -> Shop:
    made = Shop(call, sandbox, tmp_path)
    report = made.imported()
    assert (report["added"], report["rejected"]) == (1, [])
    return made


def by_hand(book: Book, change: str) -> None:
    execute(book, f"SET LOCAL session_replication_role = replica; {change}")


def amount(book: Book) -> int:
    return int(query(book, "SELECT amount FROM subscriptions")[0][0])


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, answer: bool) -> list[str]:
    """Where every question gets this answer; the questions."""
    asked: list[str] = []

    def confirm(question: str, **_: Any) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", confirm)
    return asked


def test_it_says_what_differs_and_writes_only_after_a_yes(shop: Shop, book: Book) -> None:
    by_hand(book, "UPDATE subscriptions SET amount = 19900; UPDATE buyers SET tel = '1'")
    done = shop.maewol(*CORRECT)
    assert done.code == 1
    assert "amount: 19900 in the book, 9900 in the initial payment." in done.err
    assert "seal is broken" in done.err
    assert "봉인이 깨졌습니다" in done.err
    assert "add --yes" in done.err
    assert "5678" not in done.out + done.err
    assert amount(book) == 19900

    found = shop.document(*CORRECT, code=1)
    payment = shop.payment
    assert found == {
        "customer_uid": WHO,
        "imp_uid": payment.imp_uid,
        "merchant_uid": payment.merchant_uid,
        "differs": [
            {"field": "amount", "book": 19900, "gateway": 9900},
            {"field": "buyer_tel", "book": "[hidden]", "gateway": "[hidden]"},
        ],
        "seal": "broken",
        "corrected": False,
        "was_held": None,
        "held": None,
        "next_attempt_at": None,
        "why_not": None,
    }
    assert shop.document(*CORRECT, "--yes") == found | {"corrected": True}
    assert amount(book) == 9900
    assert shop.document("invariants") is not None

    again = shop.maewol(*CORRECT)
    assert again.code == 0
    assert f"agrees with the initial payment ({payment.imp_uid})" in again.err
    assert shop.document(*CORRECT) == found | {"differs": [], "seal": "intact"}


@pytest.mark.parametrize("answer", [True, False])
def test_at_a_terminal_it_asks(
    shop: Shop, book: Book, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    by_hand(book, "UPDATE subscriptions SET amount = 19900")
    asked = at_a_terminal(monkeypatch, answer)
    done = shop.maewol(*CORRECT)
    assert (done.code, len(asked)) == (0 if answer else 1, 1)
    assert amount(book) == (9900 if answer else 19900)
    assert "--yes" not in done.err
    # Who says yes beforehand is not asked, nor who reads JSON.
    by_hand(book, "UPDATE subscriptions SET amount = 29900")
    shop.document(*CORRECT, code=1)
    assert shop.maewol(*CORRECT, "--yes").code == 0
    assert len(asked) == 1


def test_a_refusal_names_field_value_and_remedy(shop: Shop, book: Book) -> None:
    by_hand(book, "UPDATE subscriptions SET amount = 19900, initial_imp_uid = 'imp_gone'")
    told = shop.document(*CORRECT, "--yes", code=1)
    assert (told["field"], told["value"]) == ("initial_imp_uid", "imp_gone")
    assert "nothing vouches for the book" in told["error"]
    assert "maewol doctor" in told["remedy"]
    assert amount(book) == 19900
    assert "no subscription" in shop.document("subscription", "correct", "x", code=1)["error"]


def test_where_the_carrier_alone_refuses_it_says_so(shop: Shop, book: Book) -> None:
    execute(
        book,
        "INSERT INTO cycles (subscription_id, number, month, amount, due_on, opens_on, closes_on,"
        " band_opens_at, last_start_at, closes_at, status, held, opened_at) SELECT id, 1,"
        " date_trunc('month', now() + interval '1 month')::date, amount, d, d, d, now(), now(),"
        " now() + interval '1 day', 'open', 'facts_mismatch', now() FROM subscriptions,"
        " (SELECT date_trunc('month', now() + interval '1 month')::date + 9 AS d) days",
    )
    done = shop.maewol(*CORRECT)
    assert done.code == 0
    assert "refused it all the same" in done.err
    assert "maewol release" in done.err


def test_what_a_verified_import_brought_in_can_be_given_back(shop: Shop, book: Book) -> None:
    """The file names no payment; the verification found it."""
    assert shop.imported()["unchanged"] == 1
    done = shop.document("subscription", "cancel", WHO, "--refund")
    assert (done["status"], done["subscription"]) == ("done", "cancelled")
    assert done["imp_uid"] == shop.payment.imp_uid
    assert given_back(shop).cancelled_at


def test_by_its_name_too(shop: Shop) -> None:
    done = shop.maewol("refund", shop.payment.merchant_uid, "--reason", "asked for")
    assert done.code == 0
    assert "Next month's payment will be refused" in done.err
    assert given_back(shop).cancelled_at
    told = shop.document("why", WHO)
    assert "Next month's payment will be refused" in told["next"]
    assert "register again" in told["what_a_person_can_do"]


def given_back(shop: Shop) -> Payment:
    found = shop.sandbox.ledger.by_imp_uid(shop.payment.imp_uid)
    assert found is not None
    return found
