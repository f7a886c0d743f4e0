"""One incident's page: what it tells, which moves it offers to whom, and that an act happens once or is refused."""

from __future__ import annotations

import re
import secrets

from gateway.core.model import Role
from gateway.core.moves import allowed
from gateway.runtime.acting import list_moves
from tests.web.control_room import ControlRoom
from tests.web.test_devices import deeds


def verbs_of(page: str) -> list[str]:
    return re.findall(r'name="verb" value="([^"]+)"', page)


def form(verb: str, revision: int, **fields: str) -> dict[str, str]:
    return {"id": secrets.token_hex(16), "verb": verb, "revision": str(revision), **fields}


async def test_it_tells_where_why_who_and_by_when(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    page = (await li.get(f"/incidents/{pressed.id}")).text

    assert pressed.number in page
    assert "101室" in page
    assert "收到按键" in page
    assert "回拨核实" in page
    assert "自 2026-11-23 20:00 起 1 分钟" in page
    assert "即墨区 › 环秀街道" in page or "即墨区 › 潮海街道" in page
    assert "家属（模拟）" in page
    assert "000-0000-0001" in page


async def test_why_it_fired_is_told_by_the_engine_itself(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    answer = await li.get(f"/incidents/{pressed.id}/why")

    assert answer.status_code == 200
    assert "收到按键" in answer.text or "pressed" in answer.text
    assert "✓" in answer.text


async def test_numbers_of_people_are_for_those_who_may_see_them(room: ControlRoom) -> None:
    room.add("tester", Role.TESTER)
    tester = await room.visitor_as("tester")
    pressed = await room.press()
    page = (await tester.get(f"/incidents/{pressed.id}")).text

    assert pressed.number in page
    assert "000-0000-0001" not in page
    assert verbs_of(page) == []


async def test_exactly_the_moves_of_the_table_are_offered(room: ControlRoom) -> None:
    actors = {
        "li": room.sign_in.accounts.find_account("li"),
        "worker": room.accounts.find_account(room.add("worker", Role.GRID_WORKER).name),
        "keeper": room.accounts.find_account(room.add("keeper", Role.PROPERTY_MANAGER).name),
    }
    pressed = await room.press()
    for name, account in actors.items():
        assert account is not None
        actor = account.actor()
        assert actor is not None
        page = (await (await room.visitor_as(name)).get(f"/incidents/{pressed.id}")).text
        offered = verbs_of(page)
        assert sorted(offered) == sorted(choice.verb for choice in list_moves(pressed, actor, room.clock()))
        # What the table allows and is not offered would be refused for another reason: nobody asked, nobody whistled.
        assert set(allowed(pressed, actor.role)) - set(offered) <= {"grant_extension", "refuse_extension", "report_in"}
        assert offered[0] == "call_back"  # what it waits for comes first


async def test_an_act_is_done_by_the_signed_in_person_and_told(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    await li.get(f"/incidents/{pressed.id}")
    wish = form("dispatch", pressed.revision, body="fire-rescue", reason="有烟")
    answer = await li.submit(f"/incidents/{pressed.id}/acts", wish, headers={"HX-Request": "true"})
    again = await li.submit(f"/incidents/{pressed.id}/acts", wish, headers={"HX-Request": "true"})

    assert (answer.status_code, again.status_code) == (200, 200)
    assert "「派遣」已办理" in answer.text
    incident = room.ledger.incident(pressed.id)
    assert incident is not None
    assert (incident.state, incident.body) == ("dispatched", "fire-rescue")
    mine = [line for line in incident.timeline if line.who == "li"]
    assert [(line.what, line.why) for line in mine] == [("dispatch", "有烟; to fire-rescue")]
    written = deeds(room, "incident.dispatch")
    assert written == [("li", pressed.number, "done")] * 2


async def test_of_two_who_act_one_is_told_who_was_faster(room: ControlRoom) -> None:
    room.add("wang")
    li, wang = await room.visitor_as("li"), await room.visitor_as("wang")
    pressed = await room.press()
    await li.get(f"/incidents/{pressed.id}")
    await wang.get(f"/incidents/{pressed.id}")
    first = await li.submit(f"/incidents/{pressed.id}/acts", form("accept", pressed.revision))
    second = await wang.submit(
        f"/incidents/{pressed.id}/acts",
        form("false_alarm", pressed.revision, reason="误碰"),
        headers={"HX-Request": "true"},
    )

    assert first.status_code == 303
    assert second.status_code == 409
    assert "li 先一步：立案" in second.text
    assert "你的「误报」没有办理" in second.text
    incident = room.ledger.incident(pressed.id)
    assert incident is not None
    assert incident.state == "filed"
    assert 'value="dispatch"' in second.text  # what is open now is offered at once


async def test_a_refusal_says_why_in_the_readers_language(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    await li.get(f"/incidents/{pressed.id}")
    path, headers = f"/incidents/{pressed.id}/acts", {"HX-Request": "true"}
    chinese = await li.submit(path, form("close", pressed.revision, reason="好了"), headers=headers)
    li.client.cookies.set("language", "en")
    english = await li.submit(path, form("resolve", pressed.revision), headers=headers)

    assert (chinese.status_code, english.status_code) == (409, 409)
    assert "事件当前为「上报」，不能结案" in chinese.text
    assert "resolve is not allowed while the incident is reported" in english.text


async def test_an_act_of_a_page_that_is_not_ours_is_refused(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    li.page = ""
    answer = await li.submit(f"/incidents/{pressed.id}/acts", form("accept", pressed.revision))

    assert answer.status_code == 403
    incident = room.ledger.incident(pressed.id)
    assert incident is not None
    assert incident.state == "reported"


async def test_when_the_gateway_does_not_answer_the_same_act_can_be_sent_again(
    room: ControlRoom, monkeypatch: object
) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    await li.get(f"/incidents/{pressed.id}")
    await room.close_gateway()
    wish = form("accept", pressed.revision)
    away = await li.submit(f"/incidents/{pressed.id}/acts", wish, headers={"HX-Request": "true"})
    await room.open_gateway()
    again = await li.submit(f"/incidents/{pressed.id}/acts", wish, headers={"HX-Request": "true"})

    assert away.status_code == 503
    assert wish["id"] in away.text  # the page keeps the act's id
    assert again.status_code == 200
    incident = room.ledger.incident(pressed.id)
    assert incident is not None
    assert incident.state == "filed"


async def test_texts_of_people_are_shown_and_never_run(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    await li.get(f"/incidents/{pressed.id}")
    await li.submit(
        f"/incidents/{pressed.id}/acts", form("call_back", pressed.revision, reason="<script>alert(1)</script>")
    )
    page = (await li.get(f"/incidents/{pressed.id}")).text

    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


async def test_what_is_no_act_of_ours_is_refused_before_the_gateway_hears_of_it(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    await li.get(f"/incidents/{pressed.id}")
    path, headers = f"/incidents/{pressed.id}/acts", {"Accept": "application/json"}
    for fields in ({"id": "short"}, {"score": "five"}, {"reason": "长" * 501}, {"verb": ""}):
        await li.get(f"/incidents/{pressed.id}")
        answer = await li.submit(path, {**form("accept", 1), **fields}, headers=headers)
        assert answer.status_code == 422, fields


async def test_a_stream_of_one_incident_says_when_it_has_changed(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press("sos-1")
    await li.get(f"/incidents/{pressed.id}")
    async with room.listen(li, f"/incidents/{pressed.id}/stream?after={room.board.position}") as stream:
        await room.press("sos-2")
        await li.submit(f"/incidents/{pressed.id}/acts", form("accept", pressed.revision))
        _, changed = await stream.next("changed")
    incident = room.ledger.incident(pressed.id)
    assert incident is not None
    assert changed["revision"] == incident.revision
