"""The ordinary day of a generated district: realistic amounts, the same from the same seed, and nobody is called."""

from __future__ import annotations

from itertools import pairwise

import pytest

from simulators.catalog import read_catalog
from simulators.district import District, generate
from simulators.fleet import streams_of
from simulators.habits import HABITS
from tests.simulators.judging import judge_ordinary

HOUR = 3_600_000
START = 1_795_433_400_000
"""2026-11-23 19:30 in Jimo, a Monday."""


@pytest.fixture(scope="module")
def district() -> District:
    return generate(1)


def test_every_kind_of_device_that_reports_by_itself_has_habits(district: District) -> None:
    profiles = read_catalog().profiles
    for device in {d.profile for settlement in district.communities for d in settlement.devices}:
        assert set(HABITS[device]) <= set(profiles[device].readings), device
        assert HABITS[device], device


def test_nothing_that_a_device_reports_is_doubted_and_no_device_is_silent_for_longer_than_its_heartbeat(
    district: District,
) -> None:
    profiles = read_catalog().profiles
    settlement = district.communities[0]
    by_id = {device.id: profiles[device.profile] for device in settlement.devices}
    gaps: dict[str, int] = {}
    for stream in streams_of(settlement, district.silent, seed=1):
        device, _, reading = stream.name.rpartition(":")
        spec = by_id[device].readings[reading]
        for number in range(200):
            value = stream.value(START + number * stream.period)
            assert spec.believe(value, None) == value, (stream.name, value)
        assert stream.is_alarm == (spec.lane == "alarm")
        gaps[device] = min(stream.period, gaps.get(device, stream.period))
    for device, gap in gaps.items():
        heartbeat = by_id[device].heartbeat
        assert heartbeat is None or gap <= heartbeat, device


def test_an_hour_has_a_realistic_number_of_readings(district: District) -> None:
    streams = [s for place in district.communities for s in streams_of(place, district.silent, seed=1)]
    readings = sum(HOUR / stream.period for stream in streams)
    alarms = sum(HOUR / stream.period for stream in streams if stream.is_alarm)
    assert 150_000 < readings < 400_000
    assert 0 < alarms < 0.1 * readings, "the alarm lane is for alarms"


def test_some_devices_are_silent_as_in_a_real_fleet(district: District) -> None:
    devices = [device for settlement in district.communities for device in settlement.devices]
    reporting = {
        stream.name.rpartition(":")[0]
        for settlement in district.communities
        for stream in streams_of(settlement, district.silent, seed=1)
    }
    assert reporting.isdisjoint(district.silent)
    assert {device.id for device in devices} == reporting | district.silent
    assert 0.004 < len(district.silent) / len(devices) < 0.03


def test_the_same_seed_gives_the_same_values_and_another_seed_others(district: District) -> None:
    settlement = district.communities[3]

    def values(seed: int) -> list[object]:
        streams = streams_of(settlement, district.silent, seed)
        return [(s.name, s.first_after(START), s.value(START)) for s in streams]

    assert values(7) == values(7)
    assert values(7) != values(8)


def test_a_stream_is_due_regularly_and_strictly_after_a_time(district: District) -> None:
    for stream in streams_of(district.communities[0], district.silent, seed=1):
        first = stream.first_after(START)
        assert START < first <= START + stream.period
        assert stream.first_after(first) == first + stream.period
        assert stream.first_after(first - 1) == first


def test_a_meter_never_runs_backwards_and_stands_still_where_nobody_is_at_home(district: District) -> None:
    away, home = 0, 0
    for settlement in district.communities[:40]:
        places = {place.id: place for place in settlement.places}
        devices = {device.id: device for device in settlement.devices}
        for stream in streams_of(settlement, district.silent, seed=1):
            device, _, reading = stream.name.rpartition(":")
            if reading != "volume":
                continue
            totals = [stream.value(START + n * stream.period) for n in range(12)]
            steps = [float(b) - float(a) for a, b in pairwise(totals)]
            assert min(steps) >= 0
            is_away = places[devices[device].place].attributes.get("away") is True
            away, home = away + is_away, home + (not is_away)
            assert (sum(steps) == 0) == is_away, device
    assert away
    assert home > away


def test_doors_open_and_close_again(district: District) -> None:
    settlement = district.communities[0]
    doors = [s for s in streams_of(settlement, district.silent, seed=1) if s.name.endswith(":open")]
    moves = sorted((s.name, time, s.value(time)) for s in doors for time in [s.first_after(START + HOUR)])
    assert {name for name, _, is_open in moves if is_open} == {name for name, _, is_open in moves if not is_open}
    for opening, closing in [doors[i : i + 2] for i in range(0, len(doors), 2)]:
        opened = opening.first_after(START)
        assert (opening.value(opened), closing.value(opened)) == (True, False)
        assert 5_000 <= closing.first_after(opened) - opened <= 35_000


def test_a_day_and_a_night_of_ordinary_readings_open_nothing(district: District) -> None:
    for settlement in district.communities[:8]:
        judge = judge_ordinary(district, settlement, seed=1, start=START, end=START + 24 * HOUR)
        assert judge.opened == []
        assert judge.rejected == []
        silent = {device.id for device in settlement.devices} & district.silent
        for rule, devices in judge.noticed:
            assert rule in {"ops.device-offline", "fire.detector-fault"}
            assert set(devices) <= silent, f"{rule}: {devices}"
