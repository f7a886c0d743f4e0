"""What devices report on an ordinary day: by profile, from a seed, crossing no threshold. Nothing here knows the
gateway.

Each reading is a `Stream`: a period, a phase, and a value that depends on the seed, the stream's name and the time
alone. Battery devices report rarely, mains-powered ones every minute to five, as their kinds do; doors when they move.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec import Struct

S: Final = 1000
M: Final = 60 * S
H: Final = 60 * M

INSTALLED: Final = 1_735_660_800_000
"""The meters run since 2025-01-01 in Jimo (ms UTC)."""

Make = Callable[[int], float | bool | str]
"""The value at a time in ms."""


class Steady(Struct, frozen=True):
    """A reading that stays as it is."""

    period: int
    value: bool | str


class Level(Struct, frozen=True):
    """A number that wanders between ``low`` and ``high``; each device has its own middle."""

    period: int
    low: float
    high: float
    step: float = 0.1


class Meter(Struct, frozen=True):
    """A running total that grows by ``rate`` an hour (the device's own, up to this), none where nobody is at home."""

    period: int
    rate: float


class Passage(Struct, frozen=True):
    """A door that somebody goes through every ``period`` in a stairwell, and every ``at_home`` in a home: reported when
    it opens, and when it closes again some seconds later."""

    period: int
    at_home: int


Habit = Steady | Level | Meter | Passage

HABITS: Final[Mapping[str, Mapping[str, Habit]]] = {
    "edge-agent": {"spool_depth": Level(M, 0, 0, 1), "clock_skew": Level(5 * M, -0.05, 0.05, 0.01)},
    "nb-smoke": {
        "smoke": Steady(12 * H, False),
        "fault": Steady(12 * H, False),
        "battery": Level(12 * H, 60, 100, 1),
    },
    "heat-detector": {
        "temperature": Level(8 * H, 15, 27),
        "fault": Steady(8 * H, False),
        "battery": Level(8 * H, 60, 100, 1),
    },
    "household-gas": {"gas": Level(30 * M, 0, 1), "valve": Steady(30 * M, "open"), "fault": Steady(30 * M, False)},
    "water-immersion": {"wet": Steady(12 * H, False), "battery": Level(12 * H, 60, 100, 1)},
    "door-magnet": {"open": Passage(20 * M, 3 * H), "battery": Level(8 * H, 60, 100, 1)},
    "cold-water-meter": {"volume": Meter(H, 0.03), "battery": Level(12 * H, 60, 100, 1)},
    "electrical-fire": {
        "residual_current": Level(5 * M, 20, 120, 1),
        "cable_temperature": Level(5 * M, 24, 40),
        "voltage": Level(5 * M, 226, 236),
        "current": Level(5 * M, 2, 30),
    },
    "hydrant-pressure": {
        "pressure": Level(H, 240, 420, 1),
        "flowing": Steady(4 * H, False),
        "tilted": Steady(4 * H, False),
        "battery": Level(12 * H, 60, 100, 1),
    },
    "manhole-cover": {
        "tilt": Level(8 * H, 0, 2),
        "water_level": Level(8 * H, 0.1, 0.8, 0.01),
        "battery": Level(8 * H, 60, 100, 1),
    },
    "lift": {"people_trapped": Steady(15 * M, False), "fault": Steady(5 * M, False), "floor": Level(M, 1, 12, 1)},
    "fire-lane-occupancy": {"occupied": Steady(H, False), "battery": Level(12 * H, 60, 100, 1)},
    "temperature-humidity": {
        "temperature": Level(5 * M, 14, 24),
        "humidity": Level(5 * M, 40, 60),
        "battery": Level(H, 60, 100, 1),
    },
    "noise-station": {"noise": Level(M, 30, 37), "noise_peak": Level(M, 38, 48)},
    "pm-station": {
        "pm25": Level(5 * M, 18, 60),
        "pm10": Level(5 * M, 30, 90),
        "temperature": Level(5 * M, 8, 14),
        "humidity": Level(5 * M, 40, 60),
    },
    "plate-camera": {"covered": Steady(5 * M, False)},
    "face-camera": {"covered": Steady(5 * M, False)},
    "ip-speaker": {"fault": Steady(5 * M, False), "loudness": Level(5 * M, 40, 60, 1)},
    "sound-light-siren": {"sounding": Steady(15 * M, False), "fault": Steady(15 * M, False)},
    "smart-valve": {"valve": Steady(30 * M, "open"), "opening": Level(30 * M, 1, 1, 1)},
    "user-transmission-device": {"connected": Steady(5 * M, True), "fault": Steady(5 * M, False)},
    "fixed-sos": {"battery": Level(12 * H, 60, 100, 1), "signal": Level(12 * H, -95, -70, 1)},
    "sos-wristband": {"battery": Level(H, 60, 100, 1), "worn": Steady(H, True)},
}
"""Profile → reading → how it behaves. Numbers are in the profiles' canonical units."""


class Stream(Struct, frozen=True):
    """One reading of one device: due at every ``phase + n * period`` (ms), in the alarm or the telemetry lane."""

    name: str
    period: int
    phase: int
    value: Make
    is_alarm: bool

    def first_after(self, time: int) -> int:
        """The first due time later than ``time``."""
        return time + 1 + (self.phase - time - 1) % self.period


def make_streams(
    device: str, profile: str, seed: int, *, is_home: bool, is_away: bool, alarms: frozenset[str] = frozenset()
) -> Iterator[Stream]:
    """The streams of a device. ``is_home``: it is in somebody's home, ``is_away``: where nobody is; ``alarms`` are the
    readings that go into the alarm lane."""
    for reading, habit in HABITS.get(profile, {}).items():
        name = f"{device}:{reading}"
        mark = zlib.crc32(f"{seed}/{name}".encode())
        is_alarm = reading in alarms
        if isinstance(habit, Passage):
            period = habit.at_home if is_home else habit.period
            opens = mark % period
            closes = opens + (5 + mark % 31) * S
            yield Stream(name, period, opens, lambda time: True, is_alarm)
            yield Stream(name, period, closes % period, lambda time: False, is_alarm)
        else:
            yield Stream(name, habit.period, mark % habit.period, _make(habit, mark, is_away), is_alarm)


def _make(habit: Steady | Level | Meter, mark: int, is_away: bool) -> Make:
    match habit:
        case Steady(_, value):
            return lambda time: value
        case Meter(_, rate):
            own = 0.0 if is_away else rate * (0.4 + 0.6 * (mark % 101) / 100)
            start = float(mark % 900)
            return lambda time: round(start + own * max(0, time - INSTALLED) / H, 3)
        case Level(period, low, high, step):
            steps = round((high - low) / step)
            if steps == 0:
                return lambda time: low
            middle = mark % (steps + 1)

            def wander(time: int) -> float:
                # A cheap hash of the sample's number: the same in every run, and no generator to carry along.
                noise = ((time // period * 2_654_435_761 + mark) >> 7) % 5 - 2
                return round(low + min(steps, max(0, middle + noise)) * step, 3)

            return wander
