"""Limits in working time, against cases worked out by hand; the arithmetic stands beside each."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.worktime import Limit, LimitUnit, add, format_time, local_day, read_limit, warn_at
from tests.core.worlds import real_catalog

CALENDAR = real_catalog().calendar
"""Working hours 09:00-12:00 and 13:00-17:00. In 2026: New Year 1 to 3 January (4 January made up), Spring Festival 15
to 23 February (Saturdays 14 and 28 February made up), National Day 1 to 7 October (Sunday 20 September and Saturday 10
October made up)."""


def at(text: str) -> int:
    """Local time to ms."""
    return int(datetime.fromisoformat(f"{text}:00+08:00").timestamp() * 1000)


@pytest.mark.parametrize(
    ("since", "limit", "expected", "why"),
    [
        ("2026-11-23 20:00", "1min", "2026-11-23 20:01", "the clock alone"),
        ("2026-11-20 23:30", "2h", "2026-11-21 01:30", "into Saturday: hours do not stop at night"),
        # Working hours: 16:00-17:00 on Friday is 1 h, the weekend none, Monday 09:00-12:00 the other 3.
        ("2026-11-20 16:00", "4wh", "2026-11-23 12:00", "across a weekend"),
        ("2026-11-23 12:20", "1wh", "2026-11-23 14:00", "begins in the lunch break: 13:00-14:00"),
        ("2026-11-23 22:00", "1wh", "2026-11-24 10:00", "begins at night: 09:00-10:00 of the next day"),
        ("2026-11-23 16:59", "1wh", "2026-11-24 09:59", "1 min of Monday's last, 59 min of Tuesday's first"),
        ("2026-11-23 11:00", "2wh", "2026-11-23 14:00", "11-12 and 13-14"),
        # Friday 13 February: 16:00-17:00; Saturday 14 is made up: 09:00-12:00.
        ("2026-02-13 16:00", "4wh", "2026-02-14 12:00", "a make-up Saturday counts"),
        # Saturday 14 (made up) 16:00-17:00 is 1 h; 15 to 23 February are off; Tuesday 24 09:00-10:00.
        ("2026-02-14 16:00", "2wh", "2026-02-24 10:00", "across the Spring Festival"),
        ("2026-02-18 10:00", "1wh", "2026-02-24 10:00", "begins on a holiday"),
        # The first day does not count: Saturday 14 (made up) 1, then 24 2, 25 3, 26 4, 27 5.
        ("2026-02-13 10:00", "5wd", "2026-02-27 17:00", "five working days across the Spring Festival"),
        # 27 February is Friday; Saturday 28 is made up: 1; Monday 2 March: 2.
        ("2026-02-27 10:00", "2wd", "2026-03-02 17:00", "a make-up Saturday is a working day"),
        # Wednesday 30 September; 1 to 7 October off; 8 is 1, 9 is 2, Saturday 10 (made up) is 3.
        ("2026-09-30 18:00", "3wd", "2026-10-10 17:00", "National Day"),
        ("2026-11-20 09:00", "1wd", "2026-11-23 17:00", "Friday's does not count, Saturday and Sunday neither"),
        ("2026-11-23 00:00", "3d", "2026-11-27 00:00", "24, 25, 26 November, ended at 24:00"),
        ("2026-02-13 10:00", "7d", "2026-02-21 00:00", "calendar days know no holidays"),
        # Friday 18 September 16:00-17:00; Saturday off; Sunday 20 is made up for National Day: 09:00-12:00.
        ("2026-09-18 16:00", "4wh", "2026-09-20 12:00", "a make-up Sunday counts"),
        # Friday 2 January is off, Saturday 3 too; Sunday 4 is made up: 1; Monday 5: 2.
        ("2026-01-02 10:00", "2wd", "2026-01-05 17:00", "New Year, begun on a holiday"),
        # Past the last known day every day counts: 31 December, 1 and 2 January.
        ("2026-12-30 10:00", "3wd", "2027-01-02 17:00", "past the known days"),
        ("2027-05-01 10:00", "1wh", "2027-05-01 11:00", "past the known days, a Saturday and a holiday"),
    ],
)
def test_hand_worked_limits(since: str, limit: str, expected: str, why: str) -> None:
    end, how = add(at(since), read_limit(limit), CALENDAR)
    assert format_time(end) == expected, (why, how)
    assert how.startswith(f"{limit} from {since}")
    assert how.endswith(f"ends {expected}")


def test_the_arithmetic_names_what_it_passed_over() -> None:
    _, how = add(at("2026-02-13 10:00"), read_limit("5wd"), CALENDAR)
    assert "no working days: 2026-02-15 to 2026-02-23" in how
    _, beyond = add(at("2026-12-30 10:00"), read_limit("3wd"), CALENDAR)
    assert "holidays are known to 2026-12-31 only" in beyond


@pytest.mark.parametrize(
    ("since", "limit", "expected"),
    [
        ("2026-11-23 20:00", "4h", "2026-11-23 23:00"),  # three quarters of 4 h
        ("2026-11-20 16:00", "4wh", "2026-11-23 11:00"),  # three of four working hours: 1 on Friday, 2 on Monday
        ("2026-02-13 10:00", "5wd", "2026-02-26 17:00"),  # one working day before 27 February
        ("2026-11-20 09:00", "1wd", "2026-11-23 09:00"),  # of one day: the morning of that day
    ],
)
def test_when_a_limit_turns_yellow(since: str, limit: str, expected: str) -> None:
    assert format_time(warn_at(at(since), read_limit(limit), CALENDAR, 0.75)) == expected


@pytest.mark.parametrize("text", ["", "5", "5 wd", "wd5", "0h", "-1h", "1.5h", "3days", "99999h", None, 5])
def test_what_is_no_limit(text: object) -> None:
    with pytest.raises(ValueError, match="is no limit"):
        read_limit(text)


SINCE = st.integers(at("2024-01-05 00:00") // 60_000, at("2027-06-01 00:00") // 60_000).map(
    lambda minute: minute * 60_000
)
LIMITS = st.builds(Limit, st.integers(1, 40), st.sampled_from(list(LimitUnit)))


@given(SINCE, SINCE, LIMITS)
def test_who_begins_later_ends_no_earlier(one: int, other: int, limit: Limit) -> None:
    first, second = sorted((one, other))
    assert add(first, limit, CALENDAR)[0] <= add(second, limit, CALENDAR)[0]


@given(SINCE, st.integers(1, 40))
def test_working_hours_add_up_and_end_in_working_hours(since: int, hours: int) -> None:
    end, _ = add(since, Limit(hours, LimitUnit.WORK_HOURS), CALENDAR)
    halfway, _ = add(since, Limit(1, LimitUnit.WORK_HOURS), CALENDAR)
    if hours > 1:
        assert add(halfway, Limit(hours - 1, LimitUnit.WORK_HOURS), CALENDAR)[0] == end
    minute = (end + 8 * 3_600_000) % 86_400_000 // 60_000
    assert any(begin < minute <= stop for begin, stop in CALENDAR.hours)
    assert CALENDAR.is_workday(local_day(end))


@given(SINCE, LIMITS)
def test_it_is_yellow_before_it_is_red(since: int, limit: Limit) -> None:
    end, _ = add(since, limit, CALENDAR)
    assert since <= warn_at(since, limit, CALENDAR, 0.75) <= end
