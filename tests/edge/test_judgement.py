"""Offline judgement by itself: what the rules ask for, whatever the agent's clock does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edge.judgement import Judgement, select_offline
from gateway.core.model import Command
from gateway.wire import DeviceConfig, Lane, Measurement, Message, PlaceConfig, SourceConfig
from tests.core.worlds import DEVICES, PLACES, START, real_catalog

CONFIG = SourceConfig(
    1,
    tuple(DeviceConfig(device.id, device.profile, f"wall/{device.id}", device.place) for device in DEVICES),
    tuple(PlaceConfig(place.id, place.kind, place.name, place.parent) for place in PLACES),
)


class Hall:
    """An agent's judgement, on a clock that runs and jumps as the test says."""

    def __init__(self) -> None:
        self._steady = 0
        self._ahead = START
        self._seq = 0
        self._judgement = Judgement(
            select_offline(real_catalog()), "c001", "agent-1", self._read_clock, steady=lambda: self._steady
        )
        self.renew()

    def renew(self) -> None:
        self._judgement.renew(CONFIG)

    def _read_clock(self) -> int:
        return self._steady + self._ahead

    def set_clock(self, by_s: int) -> None:
        self._ahead += by_s * 1000

    def wait(self, seconds: int) -> Sequence[Command]:
        found: list[Command] = []
        for _ in range(seconds):
            self._steady += 1000
            found += self._judgement.tick()
        return found

    def smell(self, value: bool) -> Sequence[Command]:
        self._seq += 1
        now = self._read_clock()
        measured = [Measurement("smoke-1:smoke", value)]
        message = Message("c001", "agent-1", Lane.ALARM, "spool", self._seq, 0, now, now, (), measured, (), self._seq)
        return self._judgement.take(message)


@pytest.mark.parametrize("by_s", [0, -90, -3_600, -86_400 * 365, 90, 3_600])
def test_smoke_is_a_fire_after_its_time_whatever_the_clock_is_set_to(by_s: int) -> None:
    hall = Hall()
    assert hall.smell(False) == []
    assert hall.wait(5) == []
    hall.set_clock(by_s)
    assert hall.smell(True) == []
    assert hall.wait(5) == []
    assert [(command.device, command.name) for command in hall.wait(15)] == [("speaker-1", "broadcast")]


def test_a_clock_that_is_set_back_while_the_smoke_stands_delays_little() -> None:
    hall = Hall()
    hall.smell(True)
    hall.wait(5)
    hall.set_clock(-3_600)
    assert [(command.device, command.name) for command in hall.wait(10)] == [("speaker-1", "broadcast")]


def test_what_begins_anew_goes_by_the_clock_as_it_is_now() -> None:
    hall = Hall()
    hall.set_clock(-3_600)
    hall.renew()
    hall.smell(True)
    assert hall.wait(9) == []
    assert len(hall.wait(2)) == 1
