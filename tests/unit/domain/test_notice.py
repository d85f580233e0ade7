"""A notice as it goes out: its form, and its one name."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from billing.domain.customer_advice import REGISTER_ANEW, for_customer
from billing.domain.declines import DeclineClass
from billing.domain.notice import News, NoticeKind, Resumed, id_of, outgoing

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
    for_good = decline_class in (DeclineClass.REGISTER_ANEW, DeclineClass.CHAIN_BROKEN)
    assert (told == REGISTER_ANEW) == for_good
