"""The map's page: what lies where, how its devices are, what is open, in one's own scope, and live."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.model import Device, Place, PlaceKind, Role
from gateway.web.atlas import find_patches, find_position
from tests.runtime.world import until
from tests.web.control_room import ControlRoom, all_levels


async def test_each_sees_the_communities_and_cases_of_the_own_scope(room: ControlRoom) -> None:
    await until(lambda: room.app.state.console.atlas.spots)
    room.add("town", grids=("370215001",))
    pressed, other = await room.press(community="c001"), await room.press(community="c002")
    li, town = await room.visitor_as("li"), await room.visitor_as("town")

    whole = (await li.get("/map/data")).json()
    part = (await town.get("/map/data")).json()

    assert {one["id"] for one in whole["communities"]} == {"c001", "c002"}
    assert {one["id"] for one in whole["cases"]} == {pressed.id, other.id}
    assert [one["id"] for one in part["communities"]] == ["c001"]
    assert [one["id"] for one in part["cases"]] == [pressed.id]
    assert part["towns"] == {"370215001": "环秀街道"}
    [community] = part["communities"]
    assert (community["devices"], community["levels"]["critical"]) == (9, 1)


async def test_a_sick_device_and_a_silent_source_colour_their_community(room: ControlRoom) -> None:
    room.world.send({"smoke-1:fault": True}, community="c001")
    await room.world.receipted("c001")
    await room.world.pass_time(65_000, 5_000)
    await until(lambda: room.world.incidents("c001"))
    await room.caught_up()
    atlas = room.app.state.console.atlas
    atlas.spots = atlas._read()
    li = await room.visitor_as("li")

    communities = {one["id"]: one for one in (await li.get("/map/data")).json()["communities"]}

    assert (communities["c001"]["sick"], communities["c001"]["health"]) == (1, "bad")  # one of nine
    assert communities["c002"]["health"] == "good"


async def test_the_list_beside_the_map_counts_by_grid(room: ControlRoom) -> None:
    await until(lambda: room.app.state.console.atlas.spots and room.app.state.console.names.names.grids)
    await room.press(community="c001")
    li = await room.visitor_as("li")

    page = (await li.get("/map")).text

    nodes = dict(re.findall(r'data-grid="(\d+)".*?grid-counts">(.*?)</li>', page, re.DOTALL))
    assert "/board?grid=370215&amp;level=critical" in nodes["370215"]
    assert '<span class="n">2</span> 个小区' in nodes["370215"]
    assert 'level=critical"><span' in nodes["370215001"]
    assert 'level=critical" hidden' in nodes["370215002"]


@pytest.fixture
async def deep(tmp_path: Path) -> AsyncIterator[ControlRoom]:
    async with ControlRoom(tmp_path, all_levels()) as room:
        await until(lambda: room.app.state.console.atlas.spots)
        room.add("li")
        room.add("keeper", Role.PROPERTY_MANAGER, (), ("c001",))
        room.add("other", Role.PROPERTY_MANAGER, (), ("c002",))
        yield room


def read_nodes(page: str) -> dict[str, dict[str, int]]:
    """The numbers of each grid's row."""
    rows = re.findall(r'data-grid="(\d+)".*?grid-counts">(.*?)</li>', page, re.DOTALL)
    part = r'data-n="(\w+)".*?class="n">(\d+)<'
    return {code: {name: int(n) for name, n in re.findall(part, row, re.DOTALL)} for code, row in rows}


async def test_one_walks_down_to_the_base_grids_and_the_departments(deep: ControlRoom) -> None:
    pressed = await deep.press("sos-1", "c001")
    li, other = await deep.visitor_as("li"), await deep.visitor_as("other")

    first = read_nodes((await li.get("/map")).text)
    stations = read_nodes((await li.get("/map/grids/370215001001")).text)
    bases = read_nodes((await li.get("/map/grids/37021500100101")).text)
    special = read_nodes((await li.get("/map/grids/370215901")).text)
    data = (await li.get("/map/data?open=37021500100101,370215001001001,999")).json()

    assert {"370215", "370215001", "370215002", "370215001001", "370215901"} == set(first)
    assert pressed.chain[-1] == "370215001001001"
    assert [node["critical"] for node in (first["370215001001"], *stations.values(), *bases.values())] == [1, 1, 1, 0]
    assert list(bases) == ["370215001001001", "370215001001002"]
    assert bases["370215001001001"]["devices"] + bases["370215001001002"]["devices"] == first["370215001"]["devices"]
    assert list(special) == ["370215901001"]
    assert data["nodes"]["370215001001001"] == {**bases["370215001001001"], "communities": 1}
    assert data["nodes"]["37021500100101"]["critical"] == 1
    assert "999" not in data["nodes"]
    for code in ("370215001001", "370215001001001", "370215901", "999"):
        assert (await other.get(f"/map/grids/{code}")).status_code == 404, code
    assert "370215901" not in (await other.get("/map")).text


async def test_a_communitys_devices_lie_where_their_places_are(deep: ControlRoom) -> None:
    deep.world.send({"smoke-1:fault": True}, community="c001")
    await deep.world.receipted("c001")
    await deep.world.pass_time(65_000, 5_000)
    await until(lambda: deep.world.incidents("c001"))
    await deep.caught_up()
    keeper, other = await deep.visitor_as("keeper"), await deep.visitor_as("other")

    found = (await keeper.get("/map/communities/c001")).json()
    devices = {one["id"]: one for point in found["points"] for one in point["devices"]}

    assert devices.keys() == {device.id for device in deep.ledger.devices("c001")}
    assert found["elsewhere"] == []
    assert (devices["smoke-1"]["health"], devices["smoke-1"]["why"]) == ("bad", "故障")
    assert all(set(point) == {"lon", "lat", "name", "devices"} for point in found["points"])
    assert (await other.get("/map/communities/c001")).status_code == 404


def test_a_place_lies_in_the_grid_of_what_it_belongs_to() -> None:
    places = [
        Place("c1", PlaceKind.COMMUNITY, "小区", grid="370215001001001", lon=120.5, lat=36.4),
        Place("b1", PlaceKind.BUILDING, "1号楼", "c1", grid="370215001001002", lon=120.6, lat=36.4),
        Place("b1-u1", PlaceKind.UNIT, "1单元", "b1"),
        Place("b2", PlaceKind.BUILDING, "2号楼", "c1", lon=120.7, lat=36.4),
        Place("lost", PlaceKind.BUILDING, "3号楼", "nowhere"),
    ]
    devices = [Device(f"d-{place}", "nb-smoke", "agent-1", place) for place in ("c1", "b1-u1", "b2", "lost")]

    patches = find_patches(places, devices)

    assert set(patches) == {"370215001001001", "370215001001002"}
    assert patches["370215001001001"].points == {(120.5, 36.4), (120.7, 36.4)}
    assert patches["370215001001001"].devices == {"d-c1", "d-b2"}
    assert patches["370215001001002"].devices == {"d-b1-u1"}


async def test_what_opens_and_ends_comes_live(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    await li.get("/map")
    async with room.listen(li, f"/map/stream?after={room.board.position}") as stream:
        pressed = await room.press()
        _, case = await stream.next("case")
        await li.get(f"/incidents/{pressed.id}")
        act = {"id": "b" * 32, "verb": "cancel", "reason": "误碰", "revision": str(pressed.revision)}
        await li.submit(f"/incidents/{pressed.id}/acts", act)
        _, gone = await stream.next("gone")
    assert (case["id"], case["level"]) == (pressed.id, "critical")
    assert (case["lon"], case["lat"]) == (pressed.lon, pressed.lat)
    assert gone["id"] == pressed.id


def test_a_community_lies_where_it_says_otherwise_amid_its_places() -> None:
    whole = Place("c1", PlaceKind.COMMUNITY, "小区", lon=120.5, lat=36.4)
    here, there = (
        Place(id, PlaceKind.BUILDING, id, "c1", lon=lon, lat=36.0) for id, lon in (("b1", 120.0), ("b2", 121.0))
    )
    nowhere = Place("b3", PlaceKind.BUILDING, "b3", "c1")

    assert find_position("c1", [here, whole]) == (120.5, 36.4)
    assert find_position("c1", [here, there, nowhere]) == (120.5, 36.0)
    assert find_position("c1", [nowhere]) is None
