"""What is kept of an announcement: never a text that anybody could have made up."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing.domain.webhook import (
    LOOK_AGAIN,
    OF_NO_INTEREST,
    STATUSES,
    Announcement,
    WebhookOutcome,
    announced,
)

OURS = "mw-abcdefgh234567ab-202611-01"


def test_a_name_of_ours_and_a_known_status_are_kept() -> None:
    assert announced("imp_1", OURS, "paid") == Announcement("imp_1", OURS, "paid")


@pytest.mark.parametrize("name", ["M-" + OURS[3:], "Abcdef7890-" + OURS[3:]])
def test_the_shortest_and_the_longest_prefix(name: str) -> None:
    assert announced("imp_1", name, None).merchant_uid == name


@pytest.mark.parametrize(
    "name",
    [
        None,
        7,
        [OURS],
        "",
        "order-0123456789abcdef01234567",
        OURS[2:],
        "Abcdef78901-" + OURS[3:],
        "m_-" + OURS[3:],
        "mw-abcdefgh234567a-202611-01",
        "mw-abcdefgh234567abc-202611-01",
        "mw-abcdefgh2345671b-202611-01",
        "mw-ABCDEFGH234567AB-202611-01",
        "mw-abcdefgh234567ab-2026111-01",
        "mw-abcdefgh234567ab-20261-01",
        "mw-abcdefgh234567ab-202611-1",
        OURS + "2",
        OURS + "\n",
        f" {OURS}",
    ],
)
def test_a_name_of_another_form_is_not_kept(name: object) -> None:
    assert announced("imp_1", name, "failed") == Announcement("imp_1", None, "failed")


@pytest.mark.parametrize("status", ["ready", "paid", "cancelled", "failed"])
def test_the_gateways_words(status: str) -> None:
    assert announced("imp_1", None, status) == Announcement("imp_1", None, status)


@pytest.mark.parametrize("status", [None, 1, ["paid"], {}, "", "PAID", "paid ", "Hong Gildong"])
def test_another_word_is_not_kept(status: object) -> None:
    assert announced("imp_1", OURS, status) == Announcement("imp_1", OURS, None)


def test_what_is_not_there_is_looked_at_for_more_than_an_hour_less_and_less_often() -> None:
    assert (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1)) == LOOK_AGAIN


def test_only_what_tells_nothing_of_a_subscriber_is_forgotten_soon() -> None:
    assert set(OF_NO_INTEREST) == {WebhookOutcome.STRANGER, WebhookOutcome.NOT_FOUND}
    assert len(STATUSES) == 4
