"""Where incidents were opened in the last days: counted in one's own scope, by community and place, and by category."""

from __future__ import annotations

import re

import pytest

from gateway.core.model import Level
from gateway.runtime.ports import PlaceTally
from gateway.web.heat import Warm, sum_places
from tests.runtime.world import until
from tests.web.control_room import ControlRoom

HOUR = 3_600_000
HX = {"HX-Request": "true"}


def rows_of(page: str) -> list[tuple[str, int]]:
    """(id, number) of the rows of a table of warmth."""
    return [(id, int(n)) for id, n in re.findall(r'<tr data-id="([^"]+)".*?data-number="(\d+)"', page)]


async def smoke(room: ControlRoom, community: str) -> None:
    room.world.send({"smoke-1:smoke": True}, community=community)
    await room.world.receipted(community)
    await room.world.pass_time(12_000, 2_000)


@pytest.fixture
async def warm(room: ControlRoom) -> ControlRoom:
    """Two presses and a fire in the first community, one press in the second, and one of two days ago there."""
    await until(lambda: room.app.state.console.atlas.spots and room.app.state.console.names.names.grids)
    await room.press("sos-1", "c002")
    for _ in range(4):
        room.world.clock.advance(12 * HOUR)
        await room.world.settle()
    await room.press("sos-1", "c001")
    await room.press("sos-2", "c001")
    await room.press("sos-1", "c002")
    await smoke(room, "c001")
    return room


async def test_the_warmest_community_stands_first_in_ones_own_scope(warm: ControlRoom) -> None:
    warm.add("town", grids=("370215002",))
    li, town = await warm.visitor_as("li"), await warm.visitor_as("town")

    day = (await li.get("/map?days=1")).text
    week = (await li.get("/map/heat?days=7", headers=HX)).text
    part = (await town.get("/map/heat?days=7", headers=HX)).text
    off = (await li.get("/map")).text

    assert rows_of(day) == [("c001", 3), ("c002", 1)]
    assert rows_of(week) == [("c001", 3), ("c002", 2)]
    assert rows_of(part) == [("c002", 2)]
    assert rows_of(off) == []
    assert "data-lon=" in week
    assert "近 1 天立案 4 件" in day


async def test_one_category_alone(warm: ControlRoom) -> None:
    li = await warm.visitor_as("li")

    page = (await li.get("/map/heat?days=7&category=ext:21-01", headers=HX)).text
    whole = await li.get("/map/heat?days=7&category=ext:21-01")

    assert rows_of(page) == [("c001", 1)]
    assert set(re.findall(r'<option value="([^"]*)"', page)) == {"", "ext:21-01", "ext:21-03"}
    assert (whole.status_code, whole.headers["location"]) == (303, "/map?days=7&category=ext%3A21-01")


async def test_the_places_of_a_community_and_of_no_other(warm: ControlRoom) -> None:
    warm.add("town", grids=("370215002",))
    li, town = await warm.visitor_as("li"), await warm.visitor_as("town")

    places = (await li.get("/map/heat/c001?days=7", headers=HX)).text
    alone = (await li.get("/map/heat/c001?days=7")).text
    hidden = await town.get("/map/heat/c001?days=7")

    assert sum(number for _, number in rows_of(places)) == 3
    assert "<h1>" in alone
    assert rows_of(alone) == rows_of(places)
    assert hidden.status_code == 404
    assert (await li.get("/map/heat/nowhere?days=7")).status_code == 404
    assert (await li.get("/map?days=3", headers={"Accept": "application/json"})).status_code == 422


async def test_whoever_has_one_community_sees_it_alone(warm: ControlRoom) -> None:
    warm.add("keeper", grids=(), communities=("c001",))
    keeper = await warm.visitor_as("keeper")

    assert rows_of((await keeper.get("/map/heat?days=7", headers=HX)).text) == [("c001", 3)]


def test_a_place_weighs_by_its_levels() -> None:
    tallies = [
        PlaceTally("gate", "大门", "a", Level.NORMAL, 4),
        PlaceTally("home", "101室", "b", Level.CRITICAL, 1, (), 120.5, 36.4),
        PlaceTally("gate", "大门", "b", Level.URGENT, 0),
    ]

    places = sum_places(tallies)

    assert [(one.id, one.number, one.weight) for one in places] == [("home", 1, 5), ("gate", 4, 4)]
    assert isinstance(places[0], Warm)
    assert (places[0].lon, places[1].lon) == (120.5, None)
