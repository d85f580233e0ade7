"""What a customer is told of the days on which the phone bill is charged."""

from __future__ import annotations

from datetime import date
from itertools import islice

import pytest

from billing.domain.calendar import CalendarPolicy, cycles
from billing.presenting.texts import Language, Texts
from billing.services.show_order import SoldSubscription
from billing.web.checkout import pages

# Four years and a leap day, as usual and with the least and the most that may be set.
MONTHS = 50
POLICIES = [CalendarPolicy(), CalendarPolicy(window_days=0), CalendarPolicy(band_retry_days=5)]


def sold(anchor_day: int) -> SoldSubscription:
    return SoldSubscription("월간 구독", 9_900, anchor_day, date(2026, 12, 28))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("anchor_day", range(1, 32))
def test_the_days_are_those_of_the_calendar(anchor_day: int, policy: CalendarPolicy) -> None:
    told = sold(anchor_day)
    for cycle in islice(cycles(date(2026, 10, anchor_day), policy), MONTHS):
        first = cycle.first_attempt_on.day
        assert first >= told.first_day
        assert cycle.band.opens_on.day >= told.first_day
        if told.first_day == told.anchor_day:
            assert first == anchor_day


@pytest.mark.parametrize(
    ("anchor_day", "language", "text"),
    [
        (20, "ko", "매월 20일에 결제됩니다."),
        (26, "ko", "매월 26일에 결제됩니다."),
        (27, "ko", "매월 26일에서 말일 사이에 결제됩니다."),
        (31, "en", "You pay between day 26 and the last day of each month"),
    ],
)
def test_late_days_are_told_as_a_span(anchor_day: int, language: Language, text: str) -> None:
    template = pages._templates().get_template("done.html")
    page = template.render(t=Texts(language), other="en", switch="?", sold=sold(anchor_day))
    assert text in page
