"""The board's pages and its stream: what stands on it, who sees it, and that nobody misses anything."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from urllib.parse import quote

import pytest

from gateway.core.model import Press, Role
from gateway.runtime import board as board_module
from gateway.runtime.calls import Need
from tests.runtime.world import until
from tests.web.control_room import ControlRoom, two_towns
from tests.web.house import CLI


def rows_of(page: str) -> list[str]:
    """The ids of the incidents that a page lists, in its order."""
    return re.findall(r'<li class="case[^>]* data-id="([^"]+)"', page)


async def test_the_most_pressing_stands_first_and_filters_take_the_rest_away(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press("sos-1", "c001")
    other = await room.press("sos-2", "c002")

    whole = (await li.get("/board")).text
    town = (await li.get("/board?grid=370215002")).text
    searched = (await li.get(f"/board?text={pressed.number[-7:]}")).text
    none = (await li.get("/board?state=parked")).text

    assert set(rows_of(whole)) >= {pressed.id, other.id}
    assert rows_of(town) == [other.id]
    assert rows_of(searched) == [pressed.id]
    assert rows_of(none) == []
    assert "没有符合条件的未结事件" in none


async def test_the_search_knows_the_names_of_towns_and_communities(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    mine, other = await room.press("sos-1", "c001"), await room.press("sos-2", "c002")
    names = room.app.state.console.names.names
    town, home = names.grid("370215002"), names.community("c001")

    assert rows_of((await li.get("/board", params={"text": town})).text) == [other.id]
    assert rows_of((await li.get("/board", params={"text": home})).text) == [mine.id]
    async with room.listen(li, f"/board/stream?after={room.board.position}&text={quote(town)}") as stream:
        await room.press("sos-3", "c001")
        seen = await room.press("sos-3", "c002")
        _, row = await stream.next("row")
    assert row["id"] == seen.id


async def test_everybody_sees_the_own_scope_alone(room: ControlRoom) -> None:
    mine = await room.press(community="c001")
    await room.press(community="c002")
    room.add("town", grids=("370215001",))
    room.add("keeper", Role.PROPERTY_MANAGER, grids=(), communities=("c002",))

    town = await room.visitor_as("town")
    page = (await town.get("/board")).text

    assert rows_of(page) == [mine.id]
    assert f'data-ids="{mine.id}"' in page  # the alarm, too
    assert (await (await room.visitor_as("keeper")).get(f"/incidents/{mine.id}")).status_code == 404
    async with room.listen(town, f"/board/stream?after={room.board.position}") as stream:
        await room.press("sos-2", "c002")
        seen = await room.press("sos-2", "c001")
        _, row = await stream.next("row", "gone")
    assert row["id"] == seen.id


async def test_a_new_incident_comes_as_a_row_and_as_an_alarm(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    async with room.listen(li, f"/board/stream?after={room.board.position}") as stream:
        assert stream.type.startswith("text/event-stream")
        pressed = await room.press()
        _, row = await stream.next("row")
        _, alarms = await stream.next("alarms")

    assert row["id"] == pressed.id
    assert rows_of(row["html"]) == [pressed.id]
    assert f'data-ids="{pressed.id}"' in alarms["html"]


async def test_the_numbers_above_the_list_follow_without_waiting_for_the_pulse(
    room: ControlRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.stream.PULSE_S", 60.0)
    monkeypatch.setattr("gateway.web.rendering.STALE_S", 60.0)
    li = await room.visitor_as("li")
    async with room.listen(li, f"/board/stream?after={room.board.position}") as stream:
        await stream.next("counts")
        for number in (1, 2):
            await room.press(f"sos-{number}", f"c00{number}")
        html = ""
        async with asyncio.timeout(10):
            while not re.search(r"\b2\b", re.sub(r"<[^>]+>", " ", html)):
                _, counts = await stream.next("counts")
                html = counts["html"]


async def test_a_browser_that_comes_back_is_told_what_it_missed_and_nothing_twice(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    async with room.listen(li, f"/board/stream?after={room.board.position}") as stream:
        first = await room.press("sos-1")
        await stream.next("row")
        await stream.next("pulse")
        seen = stream.last
    missed = await room.press("sos-2", "c002")

    async with room.listen(li, "/board/stream?after=0", last=seen) as stream:
        _, row = await stream.next("row")
        await stream.next("pulse")
        assert row["id"] == missed.id
        assert stream.last == room.board.position
    async with room.listen(li, "/board/stream?after=0", last=room.board.position) as stream:
        name, _ = await stream.next("row", "gone", "pulse")
        assert name == "pulse"
    assert first.id != missed.id


async def test_the_position_outlives_the_web_process(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    await room.press("sos-1")
    seen = room.board.position
    await room.close_web()
    event = room.world.press("sos-2", "c002")
    await until(lambda: any(line.event == event for i in room.world.incidents() for line in i.timeline))
    await room.open_web()

    # What happened meanwhile is not in its memory: then everything is read again.
    async with room.listen(li, "/board/stream", last=seen) as stream:
        name, _ = await stream.next("row", "resync")
    assert name == "resync"
    assert len(rows_of((await li.get("/board")).text)) == 2


async def test_whoever_was_away_for_too_long_reads_everything_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "KEPT", 2)
    async with ControlRoom(tmp_path, two_towns(4)) as room:
        room.add("li")
        li = await room.visitor_as("li")
        seen = room.board.position
        for number in range(1, 5):
            await room.press("sos-1", f"c{number:03d}")
        async with room.listen(li, "/board/stream", last=seen) as stream:
            name, _ = await stream.next("row", "resync")
    assert name == "resync"


async def test_the_kind_of_help_that_a_caller_chose_stands_in_the_row(room: ControlRoom) -> None:
    await room.issue_page("c001", "b1-u1")
    [page] = [device.id for device in room.ledger.devices("c001") if device.profile == "resident-page"]
    li = await room.visitor_as("li")
    presses = [
        Press(f"page/{number:032x}", page, data={"need": need})
        for number, need in enumerate(("medical", "threat", "medical"))
    ]
    for press in presses:
        assert await room.world.pipeline.submit("c001", press, press.id) == "done"
    incident = await room.wait_for_incident(presses[-1].id)
    plain = await room.press("sos-1", "c001")

    rows = re.findall(r'<li class="case.*?</li>', (await li.get("/board")).text, re.DOTALL)
    li.client.cookies.set("language", "en")
    english = (await li.get("/board/rows")).text

    assert re.findall(r'is-need">([^<]+)', next(row for row in rows if incident.id in row)) == [
        "急病、受伤",
        "人身受威胁",
    ]
    assert "is-need" not in next(row for row in rows if plain.id in row)
    assert "Ill or hurt" in english
    await room.board.load()
    assert room.board.needs(incident.id) == (Need.MEDICAL, Need.THREAT)


async def test_a_stream_ends_soon_after_its_account_was_disabled_or_has_another_scope(
    room: ControlRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.stream.ADMITTED_S", 0.1)
    monkeypatch.setattr("gateway.web.stream.PULSE_S", 0.1)
    for path, end in (
        ("/board/stream", room.officers.disable),
        ("/map/stream", lambda hand, id: room.officers.grant(hand, id, Role.DISPATCHER, ("370215001",), (), "")),
        ("/wall/stream", room.officers.disable),
        ("/api/v1/incidents/stream?after=0", room.officers.disable),
    ):
        name = "on" + path.split("/")[1]
        account = room.accounts.find_account(room.add(name).name)
        assert account is not None
        visitor = await room.visitor_as(name)
        async with room.listen(visitor, path) as stream:
            await stream.next("session")
            end(CLI, account.id)
            with pytest.raises(AssertionError, match="the stream ended"):
                await stream.next("never")


async def test_a_stream_says_when_the_session_ends_and_one_click_puts_it_off(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    await li.get("/board")
    async with room.listen(li, "/board/stream") as stream:
        _, fresh = await stream.next("session")
    room.world.run_sql(f"UPDATE session SET seen_at = seen_at - {20 * 60_000}")
    async with room.listen(li, "/board/stream") as stream:
        _, idle = await stream.next("session")
    token = re.search(r'name="csrf" content="([0-9a-f]{64})"', li.page)
    assert token is not None
    stayed = await li.client.post("/account/stay", headers={"X-CSRF-Token": token[1]})

    assert 1780 <= fresh["left_s"] <= 1800
    assert 570 <= idle["left_s"] <= 600
    assert 1780 <= stayed.json()["left_s"] <= 1800
    assert (await li.client.post("/account/stay")).status_code == 403


async def test_what_is_over_goes(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    await li.get(f"/incidents/{pressed.id}")
    async with room.listen(li, f"/board/stream?after={room.board.position}") as stream:
        answer = await li.submit(
            f"/incidents/{pressed.id}/acts",
            {"id": "a" * 32, "verb": "false_alarm", "reason": "误碰", "revision": str(pressed.revision)},
        )
        assert answer.status_code == 303, answer.text
        _, gone = await stream.next("gone")
        _, alarms = await stream.next("alarms")
    assert gone["id"] == pressed.id
    assert 'data-ids=""' in alarms["html"]
    assert rows_of((await li.get("/board")).text) == []


async def test_a_long_list_comes_by_pages_in_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.board_page.PAGE", 2)
    async with ControlRoom(tmp_path, two_towns(5)) as room:
        room.add("li")
        li = await room.visitor_as("li")
        for number in range(1, 6):
            await room.press("sos-1", f"c{number:03d}")
        seen: list[str] = []
        page = (await li.get("/board")).text
        while True:
            seen += rows_of(page)
            found = re.search(r'hx-get="(/board/rows\?[^"]*)"', page)
            if found is None:
                break
            page = (await li.get(found[1].replace("&amp;", "&"))).text
    assert len(seen) == len(set(seen)) == 5


async def test_the_pulse_says_whether_the_gateway_is_there(room: ControlRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.stream.PULSE_S", 0.2)
    li = await room.visitor_as("li")
    async with room.listen(li, f"/board/stream?after={room.board.position}") as stream:
        _, pulse = await stream.next("pulse")
        assert pulse == {"now": room.clock(), "is_fresh": True, "is_gateway_there": True}
        await room.close_gateway()
        room.world.clock.advance(60_000)
        while pulse["is_gateway_there"]:
            _, pulse = await stream.next("pulse")


async def test_what_cannot_be_a_filter_is_refused_by_name(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    answer = await li.get("/board?sort=nonsense", headers={"Accept": "application/json"})
    assert answer.status_code == 422
    assert "sort" in answer.json()["detail"]
