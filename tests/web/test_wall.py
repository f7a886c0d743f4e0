"""The wall screen: what it shows and to whom, its long session, and the day's figures."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from gateway.core.model import Due, Incident, Level, Role
from gateway.runtime.access import PERMISSIONS, SCREENS, Permission
from gateway.runtime.signing import MINUTE_MS
from gateway.runtime.today import Day, Today
from gateway.web.wall_page import LATE_ROWS, ROWS, choose_dues
from tests.ports.incidents import FIRE
from tests.runtime.world import until
from tests.web.control_room import ControlRoom
from tests.web.house import CLI, House

DAY_MS = 24 * 60 * MINUTE_MS


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def level_of(page: str, level: str) -> int:
    found = re.search(rf'<div class="is-{level}[^"]*"><dt>.*?<dd class="digits">(\d+)', page)
    assert found, page
    return int(found[1])


async def test_it_shows_what_is_open_in_the_scope_and_comes_live(room: ControlRoom) -> None:
    await until(lambda: room.app.state.console.atlas.spots and room.app.state.console.names.names.grids)
    room.add("wall", Role.WALL)
    room.add("town", Role.WALL, grids=("370215002",))
    wall, town = await room.visitor_as("wall"), await room.visitor_as("town")
    pressed = await room.press("sos-1", "c001")

    page, other = (await wall.get("/wall")).text, (await town.get("/wall")).text
    assert (level_of(page, "critical"), level_of(other, "critical")) == (1, 0)
    assert pressed.title["zh"] in page
    assert pressed.title["zh"] not in other
    assert "即墨区" in page
    async with room.listen(wall, "/wall/stream") as stream:
        await stream.next("wall")
        await room.press("sos-1", "c002")
        _, part = await stream.next("wall")
        while level_of(part["html"], "critical") < 2:
            _, part = await stream.next("wall")
        _, pulse = await stream.next("pulse")
    assert pulse["is_fresh"]
    assert pulse["is_gateway_there"]
    assert f'data-version="{pulse["version"]}"' in page
    assert "000-0000" not in part["html"]


async def test_a_screen_may_look_at_the_wall_and_at_nothing_else(room: ControlRoom) -> None:
    room.add("wall", Role.WALL)
    wall = await room.visitor_as("wall")

    assert PERMISSIONS[Role.WALL] == {Permission.ACCOUNT_OWN, Permission.WALL_SEE}
    assert (await wall.get("/")).headers["location"] == "/wall"
    for path in ("/board", "/map", "/devices", "/handover", "/rules", "/appraisal", "/api/v1/incidents"):
        assert (await wall.get(path)).status_code == 403, path


async def test_its_session_has_no_idle_end_but_a_fixed_one_and_ends_with_its_account(house: House) -> None:
    assert {Role.WALL} == SCREENS
    account = house.add("wall", Role.WALL)
    wall = await house.visitor_as("wall")
    for _ in range(29):
        house.now += DAY_MS
        # Somebody else's sign-in sweeps sessions that are over.
        house.sign_in.accounts.drop_sessions(house.now - 30 * DAY_MS, house.now - 30 * DAY_MS)
        assert (await wall.get("/wall/part")).status_code == 200
    house.now += DAY_MS
    assert (await wall.get("/wall/part")).status_code == 303

    again = await house.visitor_as("wall")
    assert (await again.get("/wall/part")).status_code == 200
    house.officers.disable(CLI, account.id)
    assert (await again.get("/wall/part")).status_code == 303
    house.officers.enable(CLI, account.id)
    assert (await again.get("/wall/part")).status_code == 303, "it is not renewed"


async def test_other_people_keep_their_idle_end_and_see_no_session_that_is_over(house: House) -> None:
    house.add("li")
    old = await house.visitor_as("li")
    house.now += 31 * MINUTE_MS
    new = await house.visitor_as("li", "10.1.1.2")

    assert (await old.get("/wall/part")).status_code == 303
    page = (await new.get("/account")).text
    assert "10.1.1.2" in page
    assert "10.1.1.1<" not in page


async def test_the_day_is_counted_from_midnight_and_follows(room: ControlRoom) -> None:
    today = Today(room.ledger, room.clock)
    everything, nothing = lambda *_: True, lambda *_: False
    li = await room.visitor_as("li")
    yesterday = await room.press("sos-1", "c001")
    assert await today.read(everything) == Day(1, 0, 0, 0, None)
    for hours in (3, 2):  # past midnight
        room.world.clock.advance(hours * 60 * MINUTE_MS)
        await room.world.settle()
    case = await room.press("sos-2", "c001")
    room.world.clock.advance(30_000)
    for key, incident in (("a", case), ("b", yesterday)):
        await li.get(f"/incidents/{incident.id}")
        fields = {"id": key * 32, "verb": "false_alarm", "reason": "误碰", "revision": ""}
        assert (await li.submit(f"/incidents/{incident.id}/acts", fields)).status_code == 303

    day = await today.read(everything)

    assert (day.opened, day.ended, day.in_time, day.in_time_percent) == (1, 2, 1, 50)
    assert day.accepted == 2
    assert day.accept_ms == (30_000 + 30_000 + 5 * 60 * MINUTE_MS) // 2
    assert today.sum(nothing) == Day(0, 0, 0, 0, None)


def test_deadlines_that_can_still_be_met_are_seen_beside_those_that_are_over() -> None:
    def due(number: int, at: int, level: Level = Level.URGENT) -> Incident:
        awaited = Due("arrive", Role.GRID_WORKER, "370215", "", 0, "2h", "", at, at, at)
        return replace(FIRE, id=f"{number:03d}", level=level, due=awaited)

    late = [due(number, number) for number in range(1, 20)]
    ahead = [due(100 + number, 1000 + number) for number in range(20)]
    grave = due(50, 50, Level.CRITICAL)

    shown = choose_dues([*late, *ahead, grave, replace(FIRE, due=None)], 500)

    assert [one.id for one in shown] == ["050", "001", "002", "100", "101", "102", "103"]
    assert len(shown) == ROWS == LATE_ROWS + 4
    assert len(choose_dues(late, 500)) == ROWS
