"""What comes of simulated devices is marked, and reaches no platform and nobody's telephone unless these are a test."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.core.model import SIMULATED, Incident, OperatorAction, RegistryChange, Role
from gateway.runtime.notifying import SIMULATED as TOLD_NOBODY
from gateway.runtime.notifying import Teller
from gateway.runtime.outbox import Outbox
from gateway.runtime.ports import Contact, OutboxState, Verdict
from gateway.runtime.registrar import DistrictFile
from tests.runtime.test_notifying import GRIDS, KEEPER, Line
from tests.runtime.world import World, district_of, until


class Receiver:
    """A platform that takes everything."""

    def __init__(self) -> None:
        self.got: list[Incident] = []

    async def deliver(self, effect_id: str, incident: Incident) -> Verdict:
        self.got.append(incident)
        return Verdict(accepted=True, refused=False, detail="200")


def first_is_simulated() -> DistrictFile:
    """Two communities, the first one of simulated devices."""
    return mark_first(district_of(2))


def mark_first(district: DistrictFile) -> DistrictFile:
    """The same, the first of its two communities being one of simulated devices."""
    first, second = district.communities
    places = tuple(
        replace(place, attributes={SIMULATED: True}) if place.parent is None else place for place in first.places
    )
    return replace(district, communities=(replace(first, places=places), second))


async def deliver(world: World, *, is_test: bool) -> Receiver:
    """A press in each community, and what reaches the platform of it."""
    await world.start()
    receiver = Receiver()
    pipeline = world.pipeline
    outbox = Outbox(
        world.ledger, pipeline.on_ledger, pipeline.submit, receiver, world.inbox, world.clock, is_test=is_test
    )
    pipeline._on_effects = outbox.kick
    running = asyncio.create_task(outbox.run())
    try:
        for community in ("c001", "c002"):
            world.press(community=community)
            await world.receipted(community)
        outbox.kick()
        await until(lambda: not world.ledger.outbox_counts().get("waiting"))
        [simulated] = world.incidents("c001")
        if not is_test:
            await until(lambda: world.ledger.outbox_state(f"{simulated.id}/1") is OutboxState.HELD)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return receiver


@pytest.mark.parametrize("is_test", [False, True])
async def test_it_goes_to_a_declared_test_platform_alone(tmp_path: Path, is_test: bool) -> None:
    world = World(tmp_path, first_is_simulated())
    try:
        receiver = await deliver(world, is_test=is_test)
        marks = {incident.community: incident.simulated for incident in world.incidents()}
    finally:
        await world.close()

    assert marks == {"c001": True, "c002": False}
    assert {(one.community, one.simulated) for one in receiver.got} == (
        {("c002", False)} | ({("c001", True)} if is_test else set())
    )


async def test_a_community_that_becomes_real_holds_nothing_back_any_more(tmp_path: Path) -> None:
    world = World(tmp_path, first_is_simulated())
    try:
        await world.start()
        world.press()
        await world.receipted()
        root = next(place for place in district_of(1).communities[0].places if place.parent is None)
        change = RegistryChange("test", places=(root,))
        assert await world.pipeline.submit("c001", change, "registry/1") == "done"
        [incident] = world.incidents("c001")
        action = OperatorAction("a1", "wang", incident.id, "accept", "", Role.DISPATCHER)
        assert await world.pipeline.submit("c001", action, "a1") == "done"
        [after] = world.incidents("c001")
    finally:
        await world.close()

    assert (incident.simulated, after.simulated) == (True, False)


@pytest.mark.parametrize("is_test", [False, True])
async def test_it_rings_nobody_but_where_the_ways_are_a_test(tmp_path: Path, is_test: bool) -> None:
    world = World(tmp_path, first_is_simulated())
    line = Line()
    contacts: list[Contact] = [KEEPER]
    world.ledger.put_district(GRIDS, [], contacts)
    try:
        await world.start()
        pipeline = world.pipeline
        teller = Teller(world.ledger, pipeline.on_ledger, [line], pipeline.submit, world.clock, is_test=is_test)
        world.press()
        await world.receipted()
        rows = world.ledger.due_effects(world.clock(), 10, "notify")
        outcomes = [await teller.perform(row) for row in rows]
    finally:
        await world.close()

    assert rows
    if is_test:
        assert line.called
    else:
        assert {(outcome.state, outcome.detail) for outcome in outcomes} == {(OutboxState.HELD, TOLD_NOBODY)}
        assert line.called == []
