"""A notice as it goes out: its form, and its one name."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from billing.domain.customer_advice import REGISTER_ANEW, for_customer
from billing.domain.cycle import CycleReason
from billing.domain.declines import DeclineClass
from billing.domain.notice import (
    Enrolled,
    News,
    NoticeKind,
    Resumed,
    Suspended,
    Trial,
    id_of,
    outgoing,
)

AT = datetime(2026, 11, 20, 1, 0, 0, 123456, tzinfo=UTC)


def test_the_form_is_that_of_standard_webhooks() -> None:
    sent = outgoing(7, NoticeKind.RESUMED, AT, "somebody", Resumed(before="paused").data())
    assert json.loads(sent.body) == {
        "type": "subscription.resumed",
        "timestamp": "2026-11-20T10:00:00+09:00",
        "data": {"customer_uid": "somebody", "before": "paused"},
    }
    assert len(sent.webhook_id) < 64
    assert "." not in sent.webhook_id, "it stands before the first point of what is signed"
    assert "somebody" not in repr(sent)


def test_the_text_is_short_and_korean_stands_in_it_as_it_is() -> None:
    text = outgoing(1, NoticeKind.TEST, AT, None, Trial().data()).body.decode()
    assert "시험용 알림입니다" in text
    assert ": " not in text
    assert ", " not in text


def test_what_a_field_holds_as_json_holds_it() -> None:
    """Of every kind that is no text or number: a date, a moment, advice, a word of ours."""
    enrolled = Enrolled(
        amount=9900, anchor_on=date(2026, 11, 20), first_cycle=1, first_due_at=AT
    ).data()
    assert enrolled == {
        "amount": 9900,
        "currency": "KRW",
        "anchor_on": "2026-11-20",
        "first_cycle": 1,
        "first_due_at": "2026-11-20T10:00:00+09:00",
    }
    both = {"en": REGISTER_ANEW.en, "ko": REGISTER_ANEW.ko}
    reason = CycleReason.DECLINED
    suspended = Suspended(reason=reason, advice=REGISTER_ANEW, for_customer=REGISTER_ANEW).data()
    assert suspended == {"reason": "declined", "advice": both, "for_customer": both}
    # A member of an enum is no plain text to every reader of the book's JSON.
    assert type(suspended["reason"]) is str


def test_the_order_in_which_the_facts_are_told_makes_no_other_notice() -> None:
    """The book gives JSON back in an order of its own."""
    there, back = {"before": "paused", "cycle": 1}, {"cycle": 1, "before": "paused"}
    sent = [outgoing(7, NoticeKind.RESUMED, AT, "a", data).webhook_id for data in (there, back)]
    assert sent[0] == sent[1]


def test_one_notice_has_one_id_and_another_book_has_others() -> None:
    data = {"before": "paused"}
    mine = outgoing(7, "subscription.resumed", AT, "a", data).webhook_id
    assert mine == outgoing(7, "subscription.resumed", AT, "a", dict(data)).webhook_id
    others = [
        outgoing(8, "subscription.resumed", AT, "a", data),
        outgoing(7, "subscription.paused", AT, "a", data),
        outgoing(7, "subscription.resumed", AT + timedelta(microseconds=1), "a", data),
        outgoing(7, "subscription.resumed", AT, "a", {"before": "suspended"}),
    ]
    assert len({mine, *(one.webhook_id for one in others)}) == 5
    assert all(id_of(one.webhook_id) == 7 for one in others[1:])


@pytest.mark.parametrize(
    "text", ["", "mw_", "0", "-1", "1e3", "٣", "1; DROP", "mw_1_xyz", "9" * 40]
)
def test_what_names_no_notice(text: str) -> None:
    assert id_of(text) is None


def test_every_kind_is_told_by_some_news() -> None:
    def below(found: type[News]) -> set[NoticeKind]:
        own = {found.kind} if "kind" in found.__dict__ else set()
        return own.union(*(below(one) for one in found.__subclasses__()))

    assert below(News) == set(NoticeKind)


@pytest.mark.parametrize("decline_class", [None, *DeclineClass])
def test_the_customer_is_told_something_in_both_languages(
    decline_class: DeclineClass | None,
) -> None:
    told = for_customer(decline_class, AT)
    assert told.en.isascii()
    assert any("가" <= sign <= "힣" for sign in told.ko)
    must_act = decline_class in (DeclineClass.NOT_THIS_MONTH, DeclineClass.CUSTOMER_MUST_ACT)
    assert ("2026-11-20 10:00" in told.en) == must_act
    assert ("2026-11-20 10:00" in told.ko) == must_act
    by_itself = decline_class in (DeclineClass.AGAIN_SOON, DeclineClass.NOT_TODAY)
    assert ("tried again automatically" in told.en) == by_itself
    assert ("자동으로 다시 시도" in told.ko) == by_itself
    for_good = decline_class in (DeclineClass.REGISTER_ANEW, DeclineClass.CHAIN_BROKEN)
    assert (told == REGISTER_ANEW) == for_good
