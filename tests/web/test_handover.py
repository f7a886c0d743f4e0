"""The shift hand-over sheet: what is open, what happened in the shift, what opens nothing now."""

from __future__ import annotations

import re

from gateway.core.model import Silence, SilenceChange
from tests.web.control_room import ControlRoom
from tests.web.house import Visitor

HOUR_MS = 3_600_000


def section(page: str, name: str) -> str:
    """A part of the sheet."""
    found = re.search(rf'aria-labelledby="{name}-title".*?</section>', page, re.DOTALL)
    assert found, page
    return found[0]


async def act(visitor: Visitor, incident: str, key: str, verb: str) -> None:
    await visitor.get(f"/incidents/{incident}")
    answer = await visitor.submit(
        f"/incidents/{incident}/acts", {"id": key, "verb": verb, "reason": "孩子按着玩", "revision": ""}
    )
    assert answer.status_code == 303, answer.text


async def test_the_sheet_tells_what_is_open_what_happened_and_what_is_silenced(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    old = await room.press("sos-1", "c001")
    for hours in (9, 1):
        room.clock.advance(hours * HOUR_MS)
        await room.world.settle()
    called_off = await room.press("sos-2", "c001")
    await act(li, called_off.id, "0123456789abcdef", "cancel")
    until = room.clock() + HOUR_MS
    silence = Silence("s1", until, "年检", "li", 0, "smoke-1", kind="maintenance")
    assert await room.world.pipeline.submit("c001", SilenceChange("s1", "li", silence), "silence/s1") == "done"
    await room.caught_up()

    page = (await li.get("/handover?hours=8")).text
    whole = (await li.get("/handover?hours=24")).text

    assert old.id in section(page, "open")
    assert "已超时" in section(page, "open")
    assert called_off.id not in section(page, "open")
    assert "孩子按着玩" in section(page, "happened")
    assert old.opened_at < room.clock() - 8 * HOUR_MS
    assert re.findall(r'<dd class="digits[^>]*>(\d+)', page) == ["1", "1", "1", "1"]
    assert re.findall(r'<dd class="digits[^>]*>(\d+)', whole) == ["1", "1", "2", "1"]
    assert "年检" in section(page, "silences")
    assert (await li.get("/handover?hours=200")).status_code == 422


async def test_it_tells_of_the_own_scope_and_says_when_the_gateway_is_away(room: ControlRoom) -> None:
    mine, other = await room.press("sos-1", "c001"), await room.press("sos-1", "c002")
    room.add("town", grids=("370215001",))
    town = await room.visitor_as("town")
    page = (await town.get("/handover")).text
    await room.close_gateway()
    away = (await town.get("/handover")).text

    assert mine.id in page
    assert other.id not in page
    assert "网关没有应答" not in page
    assert "网关没有应答" in section(away, "silences")
