"""``python -m gateway holidays``: the holidays and make-up working days that `chinesecalendar` knows, as catalog data.

They are kept as a file beside the rules, so that a replay judges by the days that were known then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from importlib.metadata import version
from itertools import groupby
from typing import Final

import chinese_calendar.constants as known

FIRST_YEAR: Final = 2024
"""Earlier days concern nothing that a gateway counts."""

_HEAD: Final = """\
# Which days people work: weekdays that are off, and weekend days that are worked to make up for them.
# Written by `python -m gateway holidays` from chinesecalendar {version}, which has them from the State Council's yearly
# notice on holidays. After known_until every day counts as a working day, until a newer file is there.
"""


def render_holidays() -> str:
    """The text of rules/holidays.yaml."""
    last = max(day.year for day in known.holidays)
    span = range(FIRST_YEAR, last + 1)
    off = [day for day in sorted(known.holidays) if day.year in span and day.weekday() < 5]
    made_up = [day for day in sorted(known.workdays) if day.year in span and day.weekday() >= 5]
    lines = [
        _HEAD.format(version=version("chinesecalendar")).rstrip(),
        f"known_from: {FIRST_YEAR}-01-01",
        f"known_until: {last}-12-31",
        "off:",
        *_list(off),
        "made_up:",
        *_list(made_up),
    ]
    return "\n".join(lines) + "\n"


def _list(days: Iterable[date]) -> Iterator[str]:
    for _, month in groupby(days, key=lambda day: (day.year, day.month)):
        yield from (f"  - {day}" for day in month)
