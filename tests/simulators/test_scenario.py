"""The scenarios are the truth that the demo is held against: each is played to the rules that ship, and must hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from gateway.core.district import PlaceTree
from gateway.core.model import DeviceState, PlaceKind
from simulators.district import District, generate
from simulators.scenario import Instance, Plan, compose
from simulators.scenario_file import Scenario, read_duration, read_scenarios
from tests.simulators.judging import judge_alone, judge_ordinary

START = 1_795_433_400_000
"""2026-11-23 19:30 in Jimo, a Monday."""

HOUR = 3_600_000
SCENARIOS = {scenario.id: scenario for scenario in read_scenarios()}


@pytest.fixture(scope="module")
def district() -> District:
    return generate(1, communities=60)


@pytest.fixture(scope="module")
def small() -> District:
    return generate(1, communities=8)


@pytest.fixture(scope="module")
def plan(district: District) -> Plan:
    return compose(1, district, START, causes=36, near_misses=260)


# --- the files -----------------------------------------------------------------------------------------------------


def test_there_are_enough_emergencies_and_enough_that_only_looks_like_one() -> None:
    causes = [scenario for scenario in SCENARIOS.values() if scenario.expect is not None]
    assert len({scenario.expect.category for scenario in causes if scenario.expect}) >= 8
    assert len(causes) >= 20
    assert len(SCENARIOS) - len(causes) >= 20
    assert {s.state for s in SCENARIOS.values()} >= {DeviceState.DRILL, DeviceState.COMMISSIONING}


@pytest.mark.parametrize("id", SCENARIOS)
def test_a_scenario_comes_to_exactly_what_its_file_says(id: str, small: District) -> None:
    """Alone, without the fleet's readings around it, and long after."""
    scenario = SCENARIOS[id]
    causes = int(scenario.expect is not None)
    plan = compose(1, small, START, causes=causes, near_misses=1 - causes, scenarios=[scenario])
    [instance] = plan.instances
    judge = judge_alone(small, instance, plan, after_ms=HOUR)
    if scenario.expect is None:
        assert judge.opened == []
        return
    assert judge.opened == [(scenario.expect.category, instance.place)]
    opened_at = min(incident.opened_at for incident in judge.incidents.values())
    assert instance.begins <= opened_at <= instance.ends


def test_a_file_that_is_wrong_is_named_with_its_fault(tmp_path: Path) -> None:
    good = "id: a\ntitle: {zh: t, en: t}\nprofile: lift\nacts: [{at: 0s, reading: fault, value: true}]\n"
    for text, fault in (
        (good + "levle: 3\n", "levle"),
        (good.replace("0s", "soon"), "'soon' is no duration"),
        (good.replace("reading: fault, value: true", "reading: fault"), "a reading has a value"),
        (good.replace("reading: fault, value: true", "unit: Cel"), "a reading or an event"),
        (good.replace("value: true", "value: true, device: other"), "none of others"),
        (good.replace("value: true", "value: true, every: 1s"), "go together"),
        (good + "hours: at night\n", "hours"),
        (good + "---\n" + good, "same id: a"),
        ("acts: [", "expected the node content"),
    ):
        (tmp_path / "broken.yaml").write_text(text)
        with pytest.raises(ValueError, match=fault):
            read_scenarios(tmp_path)


def test_durations() -> None:
    assert [read_duration(text) for text in (None, "500ms", "10s", "5m", "2h")] == [0, 500, 10_000, 300_000, 7_200_000]
    with pytest.raises(ValueError, match="is no duration"):
        read_duration("5 min")


# --- the plan ------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_plan_and_another_seed_another(district: District, plan: Plan) -> None:
    assert compose(1, district, START, causes=36, near_misses=260) == plan
    assert compose(2, district, START, causes=36, near_misses=260) != plan


def test_every_scenario_is_played_and_no_device_twice(plan: Plan) -> None:
    assert len(plan.causes) == 36
    assert len(plan.near_misses) == 260
    assert {instance.scenario for instance in plan.instances} == set(SCENARIOS)
    devices = Counter(device for instance in plan.instances for device in _devices(instance))
    assert set(devices.values()) == {1}


def test_every_cause_has_an_incident_of_its_own(district: District, plan: Plan) -> None:
    assert len({(c.community, c.category, c.place) for c in plan.causes}) == len(plan.causes)
    buildings = [b for instance in plan.instances if (b := _building(district, instance)) is not None]
    assert len(set(buildings)) == len(buildings), "what is in one building might be one fire"


def test_nothing_begins_or_ends_outside_the_hour_and_nothing_is_played_by_a_silent_device(
    district: District, plan: Plan
) -> None:
    for instance in plan.instances:
        assert START < instance.begins < instance.ends <= START + HOUR
        for sending in instance.sendings:
            assert instance.begins <= sending.time <= sending.time + sending.late < instance.ends
    assert district.silent.isdisjoint(device for instance in plan.instances for device in _devices(instance))


def test_only_who_is_in_a_drill_has_one(plan: Plan) -> None:
    in_drill = {i.device: SCENARIOS[i.scenario].state for i in plan.instances if SCENARIOS[i.scenario].state}
    assert plan.states == in_drill


def test_later_hours_leave_open_incidents_alone(district: District, plan: Plan) -> None:
    taken = {(cause.community, cause.category, cause.place) for cause in plan.causes}
    earlier = plan
    for number in range(1, 4):
        start = START + number * HOUR
        later = compose(1, district, start, causes=20, near_misses=120, earlier=earlier)
        assert later.states == plan.states, "nobody changes a device's state on the way"
        devices = {device for instance in later.instances for device in _devices(instance)}
        assert devices.isdisjoint(device for cause in earlier.causes for device in _devices(cause))
        for cause in later.causes:
            assert (cause.community, cause.category, cause.place) not in taken
            taken.add((cause.community, cause.category, cause.place))
        for instance in later.instances:
            assert plan.states.get(instance.device) == SCENARIOS[instance.scenario].state
        earlier = later


def test_what_belongs_to_the_day_is_not_played_at_night(district: District) -> None:
    by_day = {scenario.id for scenario in SCENARIOS.values() if scenario.hours}
    assert by_day
    night = compose(1, district, START + 3 * HOUR, causes=25, near_misses=60)
    assert by_day.isdisjoint(instance.scenario for instance in night.instances)


def test_a_district_that_is_too_small_says_so(district: District) -> None:
    drills = [SCENARIOS["smoke-drill"]]
    with pytest.raises(ValueError, match="no free nb-smoke for smoke-drill"):
        compose(
            1, generate(1, communities=1, devices_per_community=60), START, causes=0, near_misses=60, scenarios=drills
        )


def test_moved_is_the_same_at_another_time(plan: Plan) -> None:
    instance = plan.instances[0]
    moved = instance.moved(5_000)
    assert moved.begins - instance.begins == moved.ends - instance.ends == 5_000
    assert [s.time - t.time for s, t in zip(moved.sendings, instance.sendings, strict=True)] == [5_000] * len(
        moved.sendings
    )
    assert moved.moved(-5_000) == instance


async def test_a_whole_hour_amid_ordinary_readings_comes_to_its_causes_alone(district: District, plan: Plan) -> None:
    """As the demo plays it, but with engines alone: the same plan, the fleet's readings, every clock right."""
    opened: list[tuple[str, str]] = []
    for settlement in district.communities:
        judge = judge_ordinary(district, settlement, seed=1, start=START, end=START + HOUR, plan=plan)
        opened.extend(judge.opened)
        await asyncio.sleep(0)
    assert sorted(opened) == sorted((cause.category, cause.place) for cause in plan.causes)


def _devices(instance: Instance) -> set[str]:
    return {instance.device, *(part.device for sending in instance.sendings for part in sending.parts)}


def _building(district: District, instance: Instance) -> str | None:
    settlement = next(s for s in district.communities if s.community.id == instance.community)
    place = next(device.place for device in settlement.devices if device.id == instance.device)
    tree = PlaceTree(settlement.places)
    building = tree.within(place, "building")
    return building if any(p.id == building and p.kind is PlaceKind.BUILDING for p in settlement.places) else None


def test_scenarios_are_values() -> None:
    scenario = SCENARIOS["sos-pressed"]
    assert isinstance(scenario, Scenario)
    with pytest.raises(ValueError, match="frozen"):
        scenario.weight = 9  # type: ignore[misc]
