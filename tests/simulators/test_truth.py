"""The whole plan of an hour, seed after seed: each cause opens one incident at its place, and nothing else does.

Plates go through the seal as they do in the gateway, so that the watch list is matched as it is there."""

from __future__ import annotations

from functools import cache

import pytest
from msgspec.structs import replace

from gateway.assembly import plate_fields
from gateway.core.engine import Engine
from gateway.core.model import Delivery, Incident, ListChange, RegistryChange, Sort, Step, Tick
from gateway.core.state import CommunityState
from gateway.runtime.plates import PlateSeal
from simulators.demo import match
from simulators.district import District, generate
from simulators.player import events_of
from simulators.scenario import Plan, compose
from tests.core.worlds import START, real_catalog

HOUR = 3_600_000
SEEDS = (1, 2, 3)


@cache
def district_of(seed: int) -> District:
    return generate(seed, 60)


@cache
def plan_of(seed: int) -> Plan:
    return compose(seed, district_of(seed), START)


def play(district: District, plan: Plan) -> tuple[list[Incident], list[Step]]:
    """The plan through one engine per community, to the end of its hour: the incidents, and every step."""
    seal = PlateSeal(b"k" * 32, plate_fields(real_catalog()))
    engines: dict[str, Engine] = {}
    steps: list[Step] = []
    for settlement in district.communities:
        engine = engines[settlement.community.id] = Engine(real_catalog(), CommunityState(settlement.community))
        devices = tuple(replace(d, state=plan.states.get(d.id, d.state)) for d in settlement.devices)
        steps.append(engine.feed(RegistryChange("test", settlement.places, settlement.sources, devices), START))
        assert steps[-1].answer == "done"
        for name, plates in district.lists.items():
            engine.feed(ListChange("test", name, tuple(seal.seal(plate) for plate in plates)), START)
    for arrival, message in events_of(district, plan.instances):
        engine = engines[message.community]
        sealed, body = seal.apply(message, b"")
        steps += pass_time(engine, arrival)
        steps.append(engine.feed(Delivery(sealed, body), arrival))
    for engine in engines.values():
        steps += pass_time(engine, START + HOUR)
    newest = {incident.id: incident for step in steps for incident in step.incidents}
    return [incident for incident in newest.values() if incident.sort is Sort.INCIDENT], steps


def pass_time(engine: Engine, until: int) -> list[Step]:
    """The engine's deadlines before ``until``, each at its time."""
    steps: list[Step] = []
    while (due := engine.next_deadline()) is not None and due < until:
        steps.append(engine.feed(Tick(), due))
    return steps


def assert_true(plan: Plan, incidents: list[Incident]) -> None:
    """Nothing lost, nothing doubled, nothing without a cause."""
    told = ("community", "category", "place", "opened_at", "number", "rule", "devices")
    found = match(plan.causes, [{name: getattr(incident, name) for name in told} for incident in incidents])
    assert [(lost.scenario, lost.device) for lost in found.lost] == []
    assert [(more["rule"], more["devices"]) for more in found.doubled] == []
    assert found.matched == len(plan.causes) == len(incidents)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_plan_has_enough_of_everything_inside_its_hour(seed: int) -> None:
    plan = plan_of(seed)
    assert len(plan.causes) >= 20
    assert len({cause.category for cause in plan.causes}) >= 8
    assert len(plan.near_misses) >= 200
    keys = {(cause.community, cause.category, cause.place) for cause in plan.causes}
    assert len(keys) == len(plan.causes)
    for instance in plan.instances:
        assert instance.begins > START
        assert max(sending.time + sending.late for sending in instance.sendings) <= instance.ends <= START + HOUR


@pytest.mark.parametrize("seed", SEEDS)
def test_each_cause_is_one_incident_and_nothing_else_is(seed: int) -> None:
    plan = plan_of(seed)
    incidents, steps = play(district_of(seed), plan)
    assert_true(plan, incidents)
    # The near-misses were heard and judged: what is impossible was rejected, and a drill shows its signals.
    assert {"out-of-range", "wrong-type"} <= {rejected.reason for step in steps for rejected in step.rejected}
    assert {"drill", "commissioning"} <= {transition.note for step in steps for transition in step.transitions}


def test_the_next_hour_is_true_too() -> None:
    """No place where an incident is still open, and no drill that is not registered."""
    district, plan = district_of(1), plan_of(1)
    later = compose(1, district, START + HOUR, earlier=plan)
    assert later.states == plan.states
    assert {cause.place for cause in plan.causes}.isdisjoint(cause.place for cause in later.causes)
    at_start = replace(later, instances=tuple(instance.moved(-HOUR) for instance in later.instances))
    assert_true(at_start, play(district, at_start)[0])
