"""Times and duty rosters as people write them in a table: local time (Asia/Shanghai), days as 1 (Monday) to 7.

``1-5 08:00-18:00; 6,7 09:00-17:00 2026-12-01..2026-12-31T12:00`` is two spans, the second one for a while only.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from gateway.core.worktime import SHANGHAI_MS
from gateway.runtime.ports import Duty

_LOCAL: Final = timezone(timedelta(milliseconds=SHANGHAI_MS))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_SPAN: Final = re.compile(
    r"(?P<days>[1-7](?:[-,][1-7])*) +(?P<begin>\d\d:\d\d)-(?P<end>\d\d:\d\d)(?: +(?P<since>\S*?)\.\.(?P<until>\S*))?"
)
DAY_MINUTES: Final = 1440


def read_time(text: str) -> int:
    """ISO 8601, local without a zone; milliseconds UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=_LOCAL)
    return (moment - _EPOCH) // _MS


def write_time(time: int) -> str:
    """The same the other way round, to the minute where it is one: ``2026-12-01T08:00``."""
    moment = (_EPOCH + time * _MS).astimezone(_LOCAL).replace(tzinfo=None)
    if moment.microsecond:
        return moment.isoformat(timespec="milliseconds")
    return moment.isoformat(timespec="seconds" if moment.second else "minutes")


def read_duty(text: str) -> tuple[Duty, ...]:
    """The roster; empty is always. Raises ValueError in plain words."""
    return tuple(_read_span(span.strip()) for span in text.split(";")) if text else ()


def write_duty(duty: tuple[Duty, ...]) -> str:
    """The same the other way round."""
    return "; ".join(_write_span(span) for span in duty)


def _read_span(text: str) -> Duty:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:60]!r} is no span of duty")
    days: list[int] = []
    for part in found["days"].split(","):
        first, _, last = part.partition("-")
        if "-" in last or (last and last < first):
            raise ValueError(f"{part!r} are no days")
        days += range(int(first) - 1, int(last or first))
    begin, end = _read_minute(found["begin"]), _read_minute(found["end"])
    since, until = (_read_bound(found[name]) for name in ("since", "until"))
    if since is not None and until is not None and until <= since:
        raise ValueError("it ends before it begins")
    return Duty(tuple(days), begin, end, since, until)


def _read_minute(text: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    if minute > 59 or hour * 60 + minute > DAY_MINUTES:
        raise ValueError(f"{text} is no time of the day")
    return hour * 60 + minute


def _read_bound(text: str | None) -> int | None:
    if not text:
        return None
    try:
        return read_time(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:40]!r} is no date") from None


def _write_span(duty: Duty) -> str:
    times = "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (duty.begin, duty.end))
    span = f"{_write_days(duty.days)} {times}"
    if duty.since is None and duty.until is None:
        return span
    bounds = ("" if bound is None else write_time(bound) for bound in (duty.since, duty.until))
    return f"{span} {'..'.join(bounds)}"


def _write_days(days: tuple[int, ...]) -> str:
    """Days in a row as a range, in the order in which they stand."""
    runs: list[list[int]] = []
    for day in days:
        if runs and runs[-1][-1] + 1 == day:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(f"{run[0] + 1}-{run[-1] + 1}" if len(run) > 1 else str(run[0] + 1) for run in runs)
