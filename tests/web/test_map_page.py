"""The map's page: what lies where, how its devices are, what is open, in one's own scope, and live."""

from __future__ import annotations

import re

from gateway.core.model import Place, PlaceKind
from gateway.web.atlas import find_position
from tests.runtime.world import until
from tests.web.control_room import ControlRoom


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
    assert "2 个小区" in nodes["370215"]
    assert "level=critical" in nodes["370215001"]
    assert "level=critical" not in nodes["370215002"]


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
