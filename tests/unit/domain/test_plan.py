"""When attempts are planned: slots, first attempts, and what follows a decline."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter  # type: ignore[import-untyped]  # ships no py.typed
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.domain.calendar import (
    SEOUL,
    CalendarPolicy,
    CycleDates,
    cycle_dates,
    day_of,
    end_of,
    start_of,
)
from billing.domain.declines import Decline, DeclineClass
from billing.domain.errors import InvalidInput
from billing.domain.plan import (
    LONGEST_MARGIN,
    Cron,
    Declines,
    NoRetry,
    NoRetryReason,
    PlanPolicy,
    RetryAt,
    closes_at,
    first_attempt_at,
    is_every_day,
    last_start,
    next_attempt,
    resume_at,
)

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
NUUK = ZoneInfo("America/Nuuk")
# Whole seconds from 2020 to 2030: ten springs and ten autumns.
MOMENTS = st.integers(1_577_836_800, 1_893_456_000).map(lambda s: datetime.fromtimestamp(s, UTC))


def cron(expression: str) -> Cron:
    return Cron.parse(expression, field="SCAN_CRON")


USUAL = PlanPolicy(
    charge_cron=cron("0 10 * * *"),
    retry_cron=cron("0 10,18 * * *"),
    retry_soon=timedelta(minutes=30),
    attempts_per_day=2,
    max_attempts=8,
    close_margin=timedelta(minutes=30),
    zone=SEOUL,
    calendar=CalendarPolicy(),
)
# Due on 20 March 2024; the band is the 20th to the 25th.
MARCH = cycle_dates(date(2024, 1, 20), 2)


def kst(day: int, hour: int, minute: int = 0, month: int = 3) -> datetime:
    return datetime(2024, month, day, hour, minute, tzinfo=SEOUL)


def decline(kind: DeclineClass, wait_days: int = 1) -> Decline:
    return Decline(kind, None, "", wait_days)


def after(
    kind: DeclineClass,
    declined_at: datetime,
    *,
    total: int = 1,
    today: int = 1,
    wait_days: int = 1,
    policy: PlanPolicy = USUAL,
) -> RetryAt | NoRetry:
    declines = Declines(total, today)
    return next_attempt(decline(kind, wait_days), declined_at, declines, MARCH, policy)


# ------------------------------------------------------------------ cron lines


def test_a_slot_is_found_on_the_wall_clock_of_the_zone() -> None:
    line = cron("0 10,18 * * *")
    assert line.at_or_after(kst(20, 10), SEOUL) == kst(20, 10)
    assert line.at_or_after(kst(20, 10), SEOUL).tzinfo is UTC
    assert line.after(kst(20, 10), SEOUL) == kst(20, 18)
    assert line.after(kst(31, 18), SEOUL) == kst(1, 10, month=4)
    assert line.before(kst(20, 10), SEOUL) == kst(19, 18)
    assert line.at_or_before(kst(20, 10), SEOUL) == kst(20, 10)
    assert line.before(kst(1, 10, month=3), SEOUL) == kst(29, 18, month=2)
    instant = timedelta(microseconds=1)
    assert line.after(kst(20, 10) - instant, SEOUL) == kst(20, 10)
    assert line.at_or_before(kst(20, 10) - instant, SEOUL) == kst(19, 18)


def test_seconds_stand_last() -> None:
    assert cron("* * * * * *").expression == "* * * * * *"
    line = cron("*/5 * * * * */10")
    assert line.after(kst(20, 10), SEOUL) == kst(20, 10) + timedelta(seconds=10)
    assert line.after(kst(20, 10) + timedelta(seconds=50), SEOUL) == kst(20, 10, 5)
    assert is_every_day(line)


def test_every_moment_that_a_line_names_and_no_other() -> None:
    assert cron("* * * * *").times == tuple(range(0, 86_400, 60))
    assert cron("* * * * * *").times == tuple(range(86_400))
    assert cron("0 9-17/4 * * *").times == (9 * 3600, 13 * 3600, 17 * 3600)


def test_the_edges_of_a_day_whose_clocks_change() -> None:
    spring = datetime(2024, 3, 31, tzinfo=AMSTERDAM)
    assert cron("0 0 * * *").at_or_after(spring, AMSTERDAM) == spring
    # Nuuk skips the hour from 23:00 on 30 March: the slot has no day to happen on.
    noon = datetime(2024, 3, 30, 12, tzinfo=NUUK)
    assert cron("0 23 * * *").at_or_after(noon, NUUK) == datetime(2024, 3, 31, 23, tzinfo=NUUK)


def test_lines_for_some_days_only() -> None:
    mondays = cron("0 9 * * mon")
    assert mondays.after(kst(20, 0), SEOUL) == kst(25, 9)
    assert mondays.after(kst(25, 9), SEOUL) == kst(1, 9, month=4)
    assert mondays.before(kst(25, 9), SEOUL) == kst(18, 9)
    assert mondays.at_or_after(kst(25, 0), SEOUL) == kst(25, 9)
    half = timedelta(seconds=30)
    assert cron("0 9 * * mon 30").before(kst(25, 12), SEOUL) == kst(25, 9) + half
    assert cron("0 9 29 2 *").after(kst(1, 0), SEOUL) == datetime(2028, 2, 29, 9, tzinfo=SEOUL)
    assert not is_every_day(mondays)
    assert is_every_day(cron("59 23 * * *"))


@given(
    st.sampled_from(
        ["0 10,18 * * *", "*/7 9-17 * * *", "5 4 * * 1-5", "0 0 1,15 * 3", "0 6 L 2 *"]
    ),
    MOMENTS,
)
@settings(max_examples=300, deadline=None)
def test_where_no_clock_changes_croniter_agrees(line: str, moment: datetime) -> None:
    utc = ZoneInfo("UTC")
    slots = croniter(line, moment)
    assert cron(line).after(moment, utc) == slots.get_next(datetime)
    assert cron(line).before(moment, utc) == croniter(line, moment).get_prev(datetime)


def test_croniter_itself_fires_twice_in_autumn_and_reads_some_lines_oddly() -> None:
    """The traps of ADR 0004. When this fails, croniter has changed: read the ADR again."""
    slots = croniter("30 2 * * *", datetime(2026, 10, 25, tzinfo=AMSTERDAM))
    first, second = slots.get_next(datetime), slots.get_next(datetime)
    assert first.date() == second.date() == date(2026, 10, 25)
    assert croniter.expand("59/15 * * * *")[0][0] == [59]  # 0, 15, 30, 45 up to croniter 6
    assert croniter.expand("0-0 1 * * *")[0][0] == ["*"]


def test_a_wall_time_that_comes_twice_is_one_slot() -> None:
    line = cron("30 2 * * *")
    first = line.after(datetime(2026, 10, 24, 12, tzinfo=UTC), AMSTERDAM)
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    second = line.after(first, AMSTERDAM)
    assert second == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    assert line.before(second, AMSTERDAM) == first


def test_a_line_for_every_hour_keeps_on_through_the_repeated_hour() -> None:
    moment = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)
    for hours in range(1, 6):
        assert cron("0 * * * *").at_or_after(moment + timedelta(minutes=1), AMSTERDAM) == (
            moment := datetime(2026, 10, 24, 22, tzinfo=UTC) + timedelta(hours=hours)
        )


def test_a_wall_time_that_is_skipped_happens_after_the_gap() -> None:
    slot = cron("30 2 * * *").after(datetime(2026, 3, 28, 12, tzinfo=UTC), AMSTERDAM)
    assert slot.astimezone(AMSTERDAM) == datetime(2026, 3, 29, 3, 30, tzinfo=AMSTERDAM)
    half_hour = cron("15 2 * * *").after(datetime(2026, 10, 3, 0, tzinfo=UTC), LORD_HOWE)
    assert half_hour.astimezone(LORD_HOWE).timetz().replace(tzinfo=None) == time(2, 45)


def test_a_skipped_last_hour_leaves_no_slot_on_that_day() -> None:
    """Nuuk springs from 23:00 to midnight: a time of that hour has no day to happen on."""
    line = cron("30 23 * * *")
    before_it = line.before(datetime(2026, 3, 29, 12, tzinfo=UTC), NUUK)
    assert day_of(before_it, NUUK) == date(2026, 3, 27)
    assert day_of(line.after(before_it, NUUK), NUUK) == date(2026, 3, 29)


@given(
    st.sampled_from(["30 2 * * *", "0,30 0-3 * * *", "*/20 * * * *", "59 23 * * *", "0 0 * * 0"]),
    st.sampled_from([SEOUL, AMSTERDAM, LORD_HOWE, NUUK, ZoneInfo("America/Havana")]),
    MOMENTS,
)
@settings(max_examples=300, deadline=None)
def test_after_and_before_are_each_others_reverse(
    line: str, zone: ZoneInfo, moment: datetime
) -> None:
    slot = cron(line).after(moment, zone)
    assert slot > moment
    assert cron(line).at_or_after(slot, zone) == slot == cron(line).at_or_before(slot, zone)
    earlier = cron(line).before(slot, zone)
    assert earlier <= moment
    assert cron(line).after(earlier, zone) == slot


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "5 or 6 fields, not 0"),
        ("0 10 * *", "5 or 6 fields, not 4"),
        ("0 10 * * * * 2030", "5 or 6 fields, not 7"),
        ("@daily", "5 or 6 fields, not 1"),
        ("60 10 * * *", "not a cron line"),
        ("x 10 * * *", "not a cron line"),
        ("0 0 30 2 *", "not a cron line"),
        ("*/0 10 * * *", "not a cron line"),
        ("R 10 * * *", "random"),
        ("H(0-29) 10 * * *", "random"),
        ("59/15 * * * *", "no range"),
        ("0 0 31/5 * *", "no range"),
        ("0 0 * * 6/1", "no range"),
        ("0-0 1 * * *", "forwards"),
        ("0 22-2 * * *", "forwards"),
        ("*/90 * * * *", "beyond its field"),
        ("0-30/15,40/10 * * * *", "no range"),
        ("*,8 1 * * *", "all values"),
        ("0 8,* * * *", "all values"),
        ("0 8 ?,5 * *", "all values"),
        ("0 8 * * *,5", "all values"),
    ],
)
def test_a_line_that_is_wrong_or_unclear_is_refused(line: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as refused:
        Cron.parse(line, field="RETRY_CRON")
    assert refused.value.field == "RETRY_CRON"
    assert refused.value.value == line
    assert refused.value.remedy


@pytest.mark.parametrize(("place", "size"), [(0, 60), (1, 24), (2, 31), (3, 12), (4, 7), (5, 60)])
def test_a_step_may_be_as_long_as_its_field(place: int, size: int) -> None:
    fields = ["*", "*", "*", "*", "*", "0"]
    fields[place] = f"*/{size}"
    cron(" ".join(fields))
    fields[place] = f"*/{size + 1}"
    with pytest.raises(InvalidInput, match="beyond its field"):
        cron(" ".join(fields))


@pytest.mark.parametrize("line", ["*/10 * * * * *", "0 10 * * * *", "0-5 * * * * *"])
def test_seconds_that_were_written_first_are_refused(line: str) -> None:
    """Some write them so, and would get every second of each tenth minute."""
    with pytest.raises(InvalidInput, match="sixth field, the seconds") as refused:
        cron(line)
    assert "* * * * * */10" in refused.value.remedy


@pytest.mark.parametrize("line", ["0 10 * * mon", "0 10 1 * *", "0 10 * 1-11 *"])
def test_slots_that_skip_days_are_refused(line: str) -> None:
    with pytest.raises(InvalidInput, match="every day"):
        Cron.parse(line, field="CHARGE_CRON", for_each_day=True)
    with pytest.raises(InvalidInput, match=r"^CHARGE_CRON"):
        replace(USUAL, charge_cron=cron(line))
    with pytest.raises(InvalidInput, match=r"^RETRY_CRON"):
        replace(USUAL, retry_cron=cron(line))


def test_a_line_for_every_day_may_be_asked_for() -> None:
    assert Cron.parse("0 10 * * *", field="CHARGE_CRON", for_each_day=True) == cron("0 10 * * *")


def test_spaces_do_not_make_another_line() -> None:
    assert cron(" 0  10 * * * ") == cron("0 10 * * *")
    assert hash(cron("0 10\t* * *")) == hash(cron("0 10 * * *"))


def test_a_line_ends_with_the_calendar() -> None:
    with pytest.raises(InvalidInput):
        cron("0 10 * * *").after(datetime(9999, 12, 31, 5, tzinfo=UTC), SEOUL)
    with pytest.raises(InvalidInput):
        cron("0 10 * * *").before(datetime(1, 1, 1, 5, tzinfo=UTC), SEOUL)


@pytest.mark.parametrize(
    ("name", "setting", "lowest", "highest", "step"),
    [
        (
            "retry_soon",
            "RETRY_SOON_MINUTES",
            timedelta(0),
            timedelta(days=1),
            timedelta(minutes=1),
        ),
        ("attempts_per_day", "ATTEMPTS_PER_DAY", 1, 100, 1),
        ("max_attempts", "MAX_ATTEMPTS", 1, 50, 1),
        (
            "close_margin",
            "CLOSE_MARGIN_MINUTES",
            timedelta(0),
            timedelta(hours=22),
            timedelta(minutes=1),
        ),
    ],
)
def test_a_policy_that_cannot_work_is_refused(
    name: str, setting: str, lowest: Any, highest: Any, step: Any
) -> None:
    for allowed in (lowest, highest):
        assert getattr(replace(USUAL, **{name: allowed}), name) == allowed
    for wrong in (lowest - step, highest + step):
        with pytest.raises(InvalidInput) as refused:
            replace(USUAL, **{name: wrong})
        assert refused.value.field == setting
        # As a person would write it.
        assert refused.value.value == (wrong if isinstance(wrong, int) else str(wrong))


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ({"retry_soon": timedelta(days=2)}, "Use 0 to 1440"),
        ({"attempts_per_day": 101}, "Use 1 to 100"),
        ({"max_attempts": 51}, "Use 1 to 50"),
        ({"close_margin": timedelta(hours=23)}, "Use 0 to 1320"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, dict) else "",
)
def test_the_remedy_is_written_in_the_unit_of_the_setting(setting: Any, remedy: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        replace(USUAL, **setting)
    assert refused.value.remedy == remedy


@pytest.mark.parametrize(
    ("line", "minutes"),
    [
        ("* * * * *", 1),
        ("*/13 * * * *", 13),
        ("* 6-20 * * *", 9 * 60 + 1),
        ("0 1,2 * * *", 23 * 60),
        ("30 10 * * *", 24 * 60),
    ],
)
def test_the_longest_pause_may_be_the_night(line: str, minutes: int) -> None:
    assert cron(line).longest_pause == timedelta(minutes=minutes)


def test_a_fingerprint_tells_apart_what_plans_months_differently() -> None:
    others = [
        replace(USUAL, charge_cron=cron("0 11 * * *")),
        replace(USUAL, close_margin=timedelta(minutes=31)),
        replace(USUAL, calendar=CalendarPolicy(window_days=4)),
        replace(USUAL, calendar=CalendarPolicy(band_retry_days=2)),
        replace(USUAL, zone=AMSTERDAM),
    ]
    assert len({USUAL.fingerprint, *(one.fingerprint for one in others)}) == len(others) + 1
    assert replace(USUAL, retry_cron=cron("0 9 * * *")).fingerprint == USUAL.fingerprint


def test_declines_are_counted_in_all_and_by_the_day_of_the_newest() -> None:
    sent = [kst(20, 10), kst(21, 0), kst(21, 23, 59)]
    assert Declines.counted(sent, kst(21, 23, 59), SEOUL) == Declines(total=3, today=2)
    assert Declines.counted(sent, kst(22, 0), SEOUL) == Declines(total=3, today=0)


# ------------------------------------------------------------------ first attempts


def test_the_moments_of_a_cycle() -> None:
    assert first_attempt_at(MARCH, USUAL) == kst(20, 10)
    assert last_start(MARCH, USUAL) == kst(25, 23, 30)
    assert closes_at(MARCH, USUAL) == kst(26, 0)
    february = cycle_dates(date(2024, 1, 31), 1)
    assert first_attempt_at(february, USUAL) == kst(26, 10, month=2)
    assert closes_at(february, USUAL) == kst(1, 0)


def test_a_slot_too_late_for_the_last_day_moves_to_the_day_before() -> None:
    late = replace(
        USUAL, charge_cron=cron("50 23 * * *"), calendar=CalendarPolicy(band_retry_days=0)
    )
    march = cycle_dates(date(2024, 1, 31), 2, late.calendar)
    assert march.first_attempt_on == march.band.closes_on == date(2024, 3, 31)
    assert first_attempt_at(march, late) == kst(30, 23, 50)


def test_a_band_without_a_slot_is_tried_in_its_middle() -> None:
    late = replace(USUAL, charge_cron=cron("50 23 * * *"), calendar=CalendarPolicy(window_days=0))
    one_day = cycle_dates(date(2024, 1, 20), 2, late.calendar)
    assert first_attempt_at(one_day, late) == kst(20, 11, 45)


def test_a_short_day_with_the_longest_margin_is_still_tried() -> None:
    """On 29 March 2020 Amsterdam's day has 23 hours; with WINDOW_DAYS 0 it is the whole band."""
    policy = replace(
        USUAL,
        close_margin=LONGEST_MARGIN,
        zone=AMSTERDAM,
        calendar=CalendarPolicy(window_days=0),
    )
    dates = cycle_dates(date(2020, 1, 29), 2, policy.calendar)
    assert start_of(dates.due_on, AMSTERDAM) < first_attempt_at(dates, policy)
    assert first_attempt_at(dates, policy) < last_start(dates, policy)


# ------------------------------------------------------------------ after a decline


def test_again_soon_waits_for_a_slot_after_half_an_hour() -> None:
    assert after(DeclineClass.AGAIN_SOON, kst(20, 10)) == RetryAt(kst(20, 18))
    assert after(DeclineClass.AGAIN_SOON, kst(20, 17, 30)) == RetryAt(kst(20, 18))
    assert after(DeclineClass.AGAIN_SOON, kst(20, 17, 31)) == RetryAt(kst(21, 10))
    at_once = replace(USUAL, retry_soon=timedelta(0))
    assert after(DeclineClass.AGAIN_SOON, kst(20, 18), policy=at_once) == RetryAt(kst(20, 18))


def test_again_soon_keeps_the_days_budget() -> None:
    often = replace(USUAL, retry_cron=cron("0 * * * *"))
    assert after(DeclineClass.AGAIN_SOON, kst(20, 12), policy=often) == RetryAt(kst(20, 13))
    assert after(DeclineClass.AGAIN_SOON, kst(20, 13), today=2, policy=often) == RetryAt(kst(21, 0))


def test_again_soon_on_the_last_evening_uses_what_is_left() -> None:
    """No slot remains, but hours do, and a month without a payment ends the subscription."""
    assert after(DeclineClass.AGAIN_SOON, kst(25, 18, 30)) == RetryAt(kst(25, 21, 15))
    over = NoRetry(NoRetryReason.BAND_OVER)
    assert after(DeclineClass.AGAIN_SOON, kst(25, 18, 30), today=2) == over
    assert after(DeclineClass.AGAIN_SOON, kst(25, 23)) == RetryAt(kst(25, 23, 30))
    assert after(DeclineClass.AGAIN_SOON, kst(25, 23, 1)) == over


def test_a_slot_that_leaves_no_time_for_a_scan_is_none() -> None:
    """The last start is at 23:30; a quarter of an hour before it is time enough."""
    late = replace(USUAL, retry_cron=cron("30 23 * * *"), charge_cron=cron("30 23 * * *"))
    assert after(DeclineClass.AGAIN_SOON, kst(25, 20), policy=late) == RetryAt(kst(25, 22))
    assert after(DeclineClass.CUSTOMER_MUST_ACT, kst(24, 20), policy=late) == RetryAt(
        kst(25, 11, 45)
    )
    assert resume_at(kst(25, 12), MARCH, late) == kst(25, 12)
    one_day = replace(late, calendar=CalendarPolicy(window_days=0))
    dates = cycle_dates(date(2024, 1, 20), 2, one_day.calendar)
    assert first_attempt_at(dates, one_day) == kst(20, 11, 45)
    in_time = replace(USUAL, retry_cron=cron("15 23 * * *"))
    assert after(DeclineClass.AGAIN_SOON, kst(25, 20), policy=in_time) == RetryAt(kst(25, 23, 15))
    assert resume_at(kst(25, 12), MARCH, in_time) == kst(25, 23, 15)


def test_the_last_try_is_on_the_last_day_even_where_no_slot_is_left_on_it() -> None:
    late = replace(USUAL, retry_cron=cron("50 23 * * *"))
    last = after(DeclineClass.CUSTOMER_MUST_ACT, kst(20, 10), total=7, policy=late)
    assert last == RetryAt(kst(25, 11, 45))


def test_not_today_is_tomorrow_or_after_its_wait() -> None:
    assert after(DeclineClass.NOT_TODAY, kst(20, 10)) == RetryAt(kst(21, 10))
    assert after(DeclineClass.NOT_TODAY, kst(20, 10), wait_days=3) == RetryAt(kst(23, 10))
    assert after(DeclineClass.NOT_TODAY, kst(22, 10), wait_days=3) == RetryAt(kst(25, 10))


def test_a_wait_past_the_band_ends_in_its_last_slot() -> None:
    assert after(DeclineClass.NOT_TODAY, kst(23, 10), wait_days=3) == RetryAt(kst(25, 18))
    assert after(DeclineClass.NOT_TODAY, kst(25, 10)) == NoRetry(NoRetryReason.BAND_OVER)


@pytest.mark.parametrize("kind", [DeclineClass.NOT_THIS_MONTH, DeclineClass.CUSTOMER_MUST_ACT])
def test_where_the_customer_can_act_one_try_a_day_and_the_last_slot_of_all(
    kind: DeclineClass,
) -> None:
    assert after(kind, kst(20, 10)) == RetryAt(kst(21, 10))
    assert after(kind, kst(24, 10), total=5) == RetryAt(kst(25, 18))
    assert after(kind, kst(20, 10), total=7) == RetryAt(kst(25, 18))
    assert after(kind, kst(25, 10), total=6) == NoRetry(NoRetryReason.BAND_OVER)


@pytest.mark.parametrize("kind", [DeclineClass.UNRECOGNIZED, DeclineClass.OPERATOR])
def test_what_we_do_not_understand_or_did_wrong_waits_for_tomorrow(kind: DeclineClass) -> None:
    assert after(kind, kst(20, 10)) == RetryAt(kst(21, 10))
    assert after(kind, kst(24, 10)) == RetryAt(kst(25, 10))
    assert after(kind, kst(25, 10)) == NoRetry(NoRetryReason.BAND_OVER)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (DeclineClass.REGISTER_ANEW, NoRetryReason.PERMANENT),
        (DeclineClass.CHAIN_BROKEN, NoRetryReason.PERMANENT),
        (DeclineClass.MISMATCH, NoRetryReason.HELD),
        (DeclineClass.ALREADY_PAID, NoRetryReason.ASK),
    ],
)
def test_some_declines_end_the_attempts_whatever_else_holds(
    kind: DeclineClass, why: NoRetryReason
) -> None:
    assert after(kind, kst(20, 10)) == NoRetry(why)
    assert after(kind, kst(25, 23), total=8) == NoRetry(why)


def test_attempts_are_used_up() -> None:
    used_up = NoRetry(NoRetryReason.ATTEMPTS_USED_UP)
    assert after(DeclineClass.AGAIN_SOON, kst(20, 10), total=8) == used_up
    assert after(DeclineClass.NOT_TODAY, kst(25, 23), total=9) == used_up


def test_the_day_of_a_decline_is_the_day_in_seoul() -> None:
    just_after_midnight = datetime(2024, 3, 20, 15, 5, tzinfo=UTC)
    assert after(DeclineClass.NOT_TODAY, just_after_midnight) == RetryAt(kst(22, 10))


def test_a_naive_moment_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="offset"):
        after(DeclineClass.NOT_TODAY, kst(20, 10).replace(tzinfo=None))


# ------------------------------------------------------------------ resumed


def test_a_resumed_subscription_takes_the_next_slot() -> None:
    assert resume_at(kst(1, 12), MARCH, USUAL) == kst(20, 10)
    assert resume_at(kst(21, 10), MARCH, USUAL) == kst(21, 10)
    assert resume_at(kst(21, 11), MARCH, USUAL) == kst(21, 18)
    assert resume_at(kst(25, 19), MARCH, USUAL) == kst(25, 19)
    assert resume_at(kst(25, 23, 30), MARCH, USUAL) == kst(25, 23, 30)
    assert resume_at(kst(25, 23, 31), MARCH, USUAL) is None


# ------------------------------------------------------------------ whatever happens

LINES = st.sampled_from(
    ["0 10 * * *", "0 10,18 * * *", "50 23 * * *", "0 0 * * *", "*/15 9-17 * * *", "0 * * * * 30"]
)
PLANS = st.builds(
    PlanPolicy,
    charge_cron=LINES.map(cron),
    retry_cron=LINES.map(cron),
    retry_soon=st.integers(0, 1440).map(lambda minutes: timedelta(minutes=minutes)),
    attempts_per_day=st.integers(1, 4),
    max_attempts=st.integers(1, 12),
    close_margin=st.integers(0, 1320).map(lambda minutes: timedelta(minutes=minutes)),
    zone=st.sampled_from([SEOUL, AMSTERDAM]),
    calendar=st.builds(CalendarPolicy, st.integers(0, 5), st.integers(0, 7)),
)
ANCHORS = st.dates(date(2020, 1, 1), date(2029, 12, 31))


def lies_in_band(moment: datetime, dates: CycleDates, policy: PlanPolicy) -> bool:
    opens = start_of(dates.band.opens_on, policy.zone)
    return opens <= moment <= end_of(dates.band.closes_on, policy.zone) - policy.close_margin


@given(ANCHORS, st.integers(1, 36), PLANS)
@settings(max_examples=500, deadline=None)
def test_a_first_attempt_always_lies_in_the_band(
    anchor_on: date, number: int, policy: PlanPolicy
) -> None:
    dates = cycle_dates(anchor_on, number, policy.calendar)
    at = first_attempt_at(dates, policy)
    assert at.tzinfo is UTC
    assert lies_in_band(at, dates, policy)


@given(ANCHORS, st.integers(1, 36), PLANS, st.data())
@settings(max_examples=500, deadline=None)
def test_a_cycle_that_is_always_declined_stays_in_bounds_and_ends(
    anchor_on: date, number: int, policy: PlanPolicy, data: st.DataObject
) -> None:
    """Sent when planned, declined minutes later, for whatever reason, until the plan gives up."""
    dates = cycle_dates(anchor_on, number, policy.calendar)
    sent = [first_attempt_at(dates, policy)]
    while True:
        declined_at = sent[-1] + timedelta(seconds=data.draw(st.integers(0, 3_600)))
        today = day_of(declined_at, policy.zone)
        declines = Declines(
            total=len(sent), today=sum(day_of(moment, policy.zone) == today for moment in sent)
        )
        reason = decline(data.draw(st.sampled_from(DeclineClass)), data.draw(st.integers(1, 31)))
        step = next_attempt(reason, declined_at, declines, dates, policy)
        if isinstance(step, NoRetry):
            break
        assert step.at >= declined_at
        assert step.at.tzinfo is UTC
        if reason.decline_class is not DeclineClass.AGAIN_SOON:
            assert day_of(step.at, policy.zone) > today
        sent.append(step.at)
    assert all(lies_in_band(moment, dates, policy) for moment in sent)
    assert len(sent) <= policy.max_attempts
    per_day = Counter(day_of(moment, policy.zone) for moment in sent)
    assert max(per_day.values()) <= policy.attempts_per_day


@given(ANCHORS, PLANS, st.integers(-10, 40), st.integers(0, 86_399))
@settings(max_examples=300, deadline=None)
def test_resuming_is_possible_exactly_until_the_last_start(
    anchor_on: date, policy: PlanPolicy, days: int, seconds: int
) -> None:
    dates = cycle_dates(anchor_on, 1, policy.calendar)
    now = start_of(dates.month, policy.zone) + timedelta(days=days, seconds=seconds)
    at = resume_at(now, dates, policy)
    assert (at is None) == (now > last_start(dates, policy))
    if at is not None:
        assert at >= now
        assert lies_in_band(at, dates, policy)
