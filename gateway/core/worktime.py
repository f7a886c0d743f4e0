"""Limits in working time: minutes, hours, working hours, calendar days and working days, and when they are over.

Days are counted as the Civil Code counts them (民法典 Art 201: by hours, from the moment; by days, the first day does
not count; Art 203: the last day ends at 24:00, or when business hours end). Everything is local time of Asia/Shanghai,
which is UTC+8 all year since 1992, so that no table of zones is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct

SHANGHAI_MS: Final = 8 * 3_600_000
DAY_MS: Final = 86_400_000
FARTHEST_MS: Final = 10 * 366 * DAY_MS
"""How far ahead somebody may name a time: beyond lies a slip of the hand, and after 9999 no date can be written."""

_EPOCH: Final = date(1970, 1, 1)
_LIMIT: Final = re.compile(r"([1-9][0-9]{0,3})(min|h|wh|d|wd)")
_SHOWN: Final = 6


class LimitUnit(StrEnum):
    """小时 and 分钟 as the clock counts them; 工作时; 自然日; 工作日."""

    MINUTES = "min"
    HOURS = "h"
    WORK_HOURS = "wh"
    DAYS = "d"
    WORKDAYS = "wd"


_CLOCK_MS: Final = {LimitUnit.MINUTES: 60_000, LimitUnit.HOURS: 3_600_000}


class Limit(Struct, frozen=True):
    """So many of a unit, written as in ``30min``, ``2h``, ``4wh``, ``3d``, ``5wd``."""

    amount: int
    unit: LimitUnit

    def __str__(self) -> str:
        return f"{self.amount}{self.unit}"


def read_limit(text: object) -> Limit:
    """The limit that a file says. Raises ValueError in plain words."""
    found = _LIMIT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is no limit: write a number and min, h, wh (working hours), d or wd (working days)")
    return Limit(int(found[1]), LimitUnit(found[2]))


class Calendar(Struct, frozen=True):
    """Which days people work, as data: weekdays that are ``off``, weekend days that are ``made_up``, and the ``hours``
    of a working day as spans of local minutes. Outside ``known_from`` to ``known_until`` nobody knows yet, and every
    day counts as a working day: a limit is then too short rather than too long, and its arithmetic says so."""

    off: frozenset[date]
    made_up: frozenset[date]
    known_from: date
    known_until: date
    hours: tuple[tuple[int, int], ...] = ((540, 720), (780, 1020))

    def is_known(self, day: date) -> bool:
        """Whether the calendar reaches that day."""
        return self.known_from <= day <= self.known_until

    def is_workday(self, day: date) -> bool:
        """Whether people work on that day, make-up days included."""
        if not self.is_known(day):
            return True
        return day in self.made_up or (day.weekday() < 5 and day not in self.off)

    def is_ordinary_workday(self, day: date) -> bool:
        """The same for rules' schedules: past the known days, Monday to Friday."""
        return self.is_workday(day) if self.is_known(day) else day.weekday() < 5


def local_day(now: int) -> date:
    """The local day of an instant."""
    return _EPOCH + timedelta(days=(now + SHANGHAI_MS) // DAY_MS)


def day_start(day: date) -> int:
    """The instant at which a local day begins."""
    return (day - _EPOCH).days * DAY_MS - SHANGHAI_MS


def format_time(now: int) -> str:
    """The local time to the minute, ``2026-11-23 20:05``."""
    return datetime.fromtimestamp((now + SHANGHAI_MS) / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def add(since: int, limit: Limit, calendar: Calendar) -> tuple[int, str]:
    """When a limit that begins at ``since`` is over, in ms, and the arithmetic in words."""
    begin = f"{limit} from {format_time(since)}"
    if limit.unit in _CLOCK_MS:
        end, how = since + limit.amount * _CLOCK_MS[limit.unit], begin
    elif limit.unit is LimitUnit.DAYS:
        end = day_start(local_day(since) + timedelta(days=limit.amount + 1))
        how = f"{begin}, its day not counted"
    elif limit.unit is LimitUnit.WORKDAYS:
        days, skipped = _count_workdays(local_day(since), limit.amount, calendar)
        end = day_start(days[-1]) + calendar.hours[-1][1] * 60_000
        how = f"{begin}, its day not counted{_say_skipped(skipped)}"
    else:
        end, skipped = _add_working_time(since, limit.amount * 3_600_000, calendar)
        how = f"{begin}, in working hours{_say_skipped(skipped)}"
    if limit.unit in (LimitUnit.WORKDAYS, LimitUnit.WORK_HOURS) and not calendar.is_known(local_day(end)):
        how += f"; holidays are known to {calendar.known_until} only, days after count as working days"
    return end, f"{how}, ends {format_time(end)}"


def warn_at(since: int, limit: Limit, calendar: Calendar, share: float) -> int:
    """When it turns yellow: of working days, at the end of the last but one (a yellow card one working day before, as
    Shandong's hotline has it); of all others, when ``share`` (0 to 1) of their time is over."""
    if limit.unit is LimitUnit.WORKDAYS:
        if limit.amount > 1:
            days, _ = _count_workdays(local_day(since), limit.amount, calendar)
            return day_start(days[-2]) + calendar.hours[-1][1] * 60_000
        days, _ = _count_workdays(local_day(since), 1, calendar)
        return max(since, day_start(days[0]) + calendar.hours[0][0] * 60_000)
    if limit.unit is LimitUnit.WORK_HOURS:
        return _add_working_time(since, int(limit.amount * 3_600_000 * share), calendar)[0]
    end, _ = add(since, limit, calendar)
    return since + int((end - since) * share)


def _count_workdays(first: date, amount: int, calendar: Calendar) -> tuple[list[date], list[date]]:
    """The ``amount`` working days after ``first``, and the days between that are none."""
    days: list[date] = []
    skipped: list[date] = []
    day = first
    while len(days) < amount:
        day += timedelta(days=1)
        (days if calendar.is_workday(day) else skipped).append(day)
    return days, skipped


def _add_working_time(since: int, span: int, calendar: Calendar) -> tuple[int, list[date]]:
    skipped: list[date] = []
    left = span
    for day in _days_from(local_day(since)):
        if not calendar.is_workday(day):
            skipped.append(day)
            continue
        for begin, end in calendar.hours:
            start = max(since, day_start(day) + begin * 60_000)
            stop = day_start(day) + end * 60_000
            if start >= stop:
                continue
            if left <= stop - start:
                return start + left, skipped
            left -= stop - start
    raise AssertionError("days never end")


def _days_from(day: date) -> Iterator[date]:
    while True:
        yield day
        day += timedelta(days=1)


def _say_skipped(skipped: list[date]) -> str:
    """``; no working days: 2026-02-14 to 2026-02-23``, in runs."""
    if not skipped:
        return ""
    runs: list[list[date]] = []
    for day in skipped:
        if runs and day - runs[-1][-1] == timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    said = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs[:_SHOWN]]
    return f"; no working days: {', '.join(said)}" + (" and more" if len(runs) > _SHOWN else "")
