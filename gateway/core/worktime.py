"""Limits in working time: minutes, hours, working hours, calendar days and working days, and when they are over."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class LimitUnit(StrEnum):
    """小时 and 分钟 as the clock counts them; 工作时; 自然日; 工作日."""

    MINUTES = "min"
    HOURS = "h"
    WORK_HOURS = "wh"
    DAYS = "d"
    WORKDAYS = "wd"


class Limit(Struct, frozen=True):
    """So many of a unit, written as in ``30min``, ``2h``, ``4wh``, ``3d``, ``5wd``."""

    amount: int
    unit: LimitUnit

    def __str__(self) -> str:
        return f"{self.amount}{self.unit}"
