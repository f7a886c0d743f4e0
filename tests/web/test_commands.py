"""What a dispatcher reaches from an incident's page: commands with their outcomes, cameras, and the curve."""

from __future__ import annotations

import html
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from gateway.core.model import Command, Device, DeviceState, Incident, Role
from gateway.runtime.access import Permission
from gateway.runtime.accounts import AuditFilter, Deed
from gateway.runtime.ports import OutboxState, Outcome
from gateway.wire import Lane, Reply
from tests.core.worlds import DEVICES, START
from tests.runtime.world import until
from tests.web.control_room import ControlRoom, two_towns
from tests.web.house import Visitor
from tests.web.test_api import client_of, code_of

GAS = Device("gas-1", "household-gas", "agent-1", "b1-u1-101", "厨房燃气")
FLEET = (
    *DEVICES,
    GAS,
    replace(GAS, id="gas-2", place="b2-u1-101", name="对楼燃气"),
    replace(GAS, id="gas-3", place="b1-u1-102", state=DeviceState.MAINTENANCE, state_until=START + 3_600_000),
    Device(
        "cam-gate",
        "plate-camera",
        "agent-1",
        "gate",
        "大门相机",
        attributes={"gb28181": "37021501001320000001", "rtsp": "rtsp://10.1.2.3:554/main"},
    ),
    Device("cam-b1", "ip-camera", "agent-1", "b1", "楼道相机", attributes={"gb28181": "37021501001320000002"}),
    Device("cam-bare", "ip-camera", "agent-1", "b2", "未编号相机"),
)
COMMANDS = (Permission.INCIDENTS_SEE, Permission.COMMANDS_GIVE)
KEY = "a-key-of-a-program-0001"


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[ControlRoom]:
    """Two communities with valves, speakers and cameras, and a dispatcher ``li`` of the whole district."""
    async with ControlRoom(tmp_path, two_towns(devices=FLEET)) as made:
        made.add("li")
        yield made


def confirmed(page: str) -> dict[str, str]:
    """What the confirming form would send."""
    form = page.partition('id="order-confirm"')[2]
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
    return {name: html.unescape(value) for name, value in fields if name != "csrf"}


async def ask(visitor: Visitor, incident: Incident, **fields: str) -> httpx.Response:
    await visitor.get(f"/incidents/{incident.id}")
    sent = {"command": "close_valve", "target": "device:gas-1", "reason": "闻到燃气味", **fields}
    return await visitor.submit(f"/incidents/{incident.id}/commands", sent, headers={"HX-Request": "true"})


def answer(room: ControlRoom, outcome: str, detail: str = "") -> None:
    """The agent answers the only command that waits."""
    [row] = room.ledger.due_effects(START + 10_000_000, 9, "command")
    assert isinstance(row.effect, Command)
    room.ledger.settle([Outcome(row.id, OutboxState.DONE, START, "sent")])
    room.world.say_reply(Reply(row.id, row.effect.device, outcome, detail))


async def test_the_nearest_devices_in_use_are_offered_first(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    desk = (await li.get(f"/incidents/{pressed.id}/commands", headers={"HX-Request": "true"})).text

    assert re.findall(r'value="device:(gas-\d)"', desk)[:2] == ["gas-1", "gas-2"]
    assert "gas-3" not in desk  # it is in maintenance
    assert "同一地点" in desk
    assert desk.index('value="zone:building"') < desk.index('value="zone:community"')
    assert 'value="lamp"' not in desk
    assert 'name="arg_text"' in desk


async def test_from_the_question_to_the_outcome(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    asked = await ask(li, pressed)

    assert "对「1号楼1单元101室 厨房燃气」下发「关阀」？" in asked.text
    assert room.ledger.commands_for(pressed.id) == []  # nothing happens before it is confirmed
    wish = confirmed(asked.text)
    path, part = f"/incidents/{pressed.id}/commands", {"HX-Request": "true"}
    done, again = [await li.submit(path, wish, headers=part) for _ in range(2)]

    assert (done.status_code, again.status_code) == (200, 200)
    assert "「关阀」已下发" in done.text
    assert "待发送" in done.text
    assert len(room.ledger.commands_for(pressed.id)) == 1
    answer(room, "done", "as asked")
    await until(lambda: room.ledger.commands_for(pressed.id)[0].state == "done")
    given = (await li.get(f"{path}/given", headers=part)).text
    assert "已执行" in given
    assert "li · 闻到燃气味" in given
    assert "every 2s" not in given
    page = (await li.get(f"/incidents/{pressed.id}")).text
    assert "关阀 → gas-1：闻到燃气味" in page
    assert "已执行 as asked" in page
    li.client.cookies.set("language", "en")
    assert "Close the valve → gas-1: 闻到燃气味" in (await li.get(f"/incidents/{pressed.id}")).text
    [deed] = [row.deed for row in room.accounts.find_audit(AuditFilter(what="command.give"), 9)][:1]
    assert (deed.who, deed.about, deed.outcome) == ("li", pressed.number, "done")
    assert "close_valve → gas-1" in deed.detail


async def test_a_broadcast_is_spoken_by_the_speakers_of_the_zone(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    asked = await ask(li, pressed, command="broadcast", target="zone:community", arg_text="请沿楼梯撤离")

    assert "对 2 台设备下发「广播」？" in asked.text
    assert "请沿楼梯撤离" in asked.text
    await li.submit(f"/incidents/{pressed.id}/commands", {**confirmed(asked.text), "device": "speaker-1"})
    [given] = room.ledger.commands_for(pressed.id)
    assert (given.device, given.args) == ("speaker-1", {"text": "请沿楼梯撤离"})


async def test_what_is_not_filled_in_well_is_said_before_anything_is_asked(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    mute = {"command": "mute", "target": "device:smoke-1"}
    faults: list[tuple[dict[str, str], str]] = [
        ({"reason": " "}, "请填写理由"),
        ({"target": "device:gas-3"}, "所选设备现在不能执行这条指令"),
        ({"target": "device:nobody"}, "所选设备现在不能执行这条指令"),
        ({"target": "zone:community"}, "所选设备现在不能执行这条指令"),
        ({"command": "lamp", "target": "device:sos-1", "arg_show": "off"}, "所选设备现在不能执行这条指令"),
        ({**mute, "arg_minutes": "481"}, "请检查填写的内容"),
        ({**mute, "arg_minutes": "ten"}, "请检查填写的内容"),
        ({**mute, "arg_minutes": ""}, "请检查填写的内容"),
        ({"command": "broadcast", "target": "device:speaker-1", "arg_text": "a\x07b"}, "请检查填写的内容"),
    ]
    for fields, words in faults:
        refused = await ask(li, pressed, **fields)
        assert refused.status_code == 422, fields
        assert words in refused.text, fields
        assert confirmed(refused.text) == {}
    too_long = await ask(li, pressed, reason="长" * 201)
    assert too_long.status_code == 422
    assert room.ledger.commands_for(pressed.id) == []


async def test_what_the_engine_refuses_is_told_in_words_and_in_the_audit_log(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    wish = confirmed((await ask(li, pressed)).text)
    path, part = f"/incidents/{pressed.id}/commands", {"HX-Request": "true"}
    foreign = await li.submit(path, {**wish, "id": secrets.token_hex(16), "device": "agent-2"}, headers=part)
    idle = await li.submit(path, {**wish, "id": secrets.token_hex(16), "device": "gas-3"}, headers=part)
    act = {"id": secrets.token_hex(16), "verb": "false_alarm", "reason": "误碰", "revision": str(pressed.revision)}
    await li.submit(f"/incidents/{pressed.id}/acts", act)
    await li.get(f"/incidents/{pressed.id}")
    over = await li.submit(path, wish, headers=part)

    assert (foreign.status_code, idle.status_code, over.status_code) == (409, 409, 409)
    assert "本小区没有设备 agent-2" in foreign.text
    assert "设备 gas-3 处于「检修」，不能下发指令" in idle.text
    assert "事件已「误报」，不能再下发指令" in over.text
    assert "下发指令</summary>" not in over.text
    assert room.ledger.commands_for(pressed.id) == []
    deeds = [row.deed for row in room.accounts.find_audit(AuditFilter(what="command.give"), 9)]
    assert [deed.outcome.partition(":")[0] for deed in deeds] == ["refused"] * 3


async def test_only_whoever_may_is_offered_commands_and_cameras(room: ControlRoom) -> None:
    room.add("worker", Role.GRID_WORKER)
    room.add("keeper", Role.PROPERTY_MANAGER)
    pressed = await room.press()
    worker, keeper = await room.visitor_as("worker"), await room.visitor_as("keeper")
    page = (await worker.get(f"/incidents/{pressed.id}")).text
    kept = (await keeper.get(f"/incidents/{pressed.id}")).text

    assert "下发指令</summary>" not in page
    assert "附近摄像机</summary>" not in page
    assert "附近摄像机</summary>" in kept
    assert "下发指令</summary>" not in kept
    wish = {"command": "close_valve", "target": "device:gas-1", "reason": "x", "confirmed": "1", "device": "gas-1"}
    refused = await worker.submit(f"/incidents/{pressed.id}/commands", {**wish, "id": secrets.token_hex(16)})
    assert refused.status_code == 403
    assert (await worker.get(f"/incidents/{pressed.id}/cameras")).status_code == 403


async def test_an_incident_of_another_town_is_not_there(room: ControlRoom) -> None:
    room.add("east", grids=("370215001",))
    east = await room.visitor_as("east")
    inside, outside = await room.press("sos-1", "c001"), await room.press("sos-1", "c002")
    if "370215001" not in inside.chain:
        inside, outside = outside, inside
    await east.get(f"/incidents/{inside.id}")
    for path in ("commands", "commands/given", "cameras", "points?name=battery"):
        assert (await east.client.get(f"/incidents/{inside.id}/{path}")).status_code == 200, path
        assert (await east.client.get(f"/incidents/{outside.id}/{path}")).status_code == 404, path
    wish = {"command": "close_valve", "target": "device:gas-1", "reason": "x"}
    assert (await east.submit(f"/incidents/{outside.id}/commands", wish)).status_code == 404
    program = client_of(room, "east-program", Role.DISPATCHER, ("370215001",), (*COMMANDS, Permission.CAMERAS_SEE))
    for path in ("commands", "commands/offers", "cameras"):
        assert code_of(await program.get(f"/incidents/{outside.id}/{path}")) == (404, "unknown"), path
    body = {"command": "close_valve", "devices": ["gas-1"], "reason": "x"}
    foreign = await program.post(f"/incidents/{outside.id}/commands", json=body, headers={"Idempotency-Key": KEY})
    assert code_of(foreign) == (404, "unknown")
    assert room.ledger.commands_for(outside.id) == []


async def test_a_form_of_another_site_commands_nothing(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    wish = confirmed((await ask(li, pressed)).text)
    li.page = ""

    assert (await li.submit(f"/incidents/{pressed.id}/commands", wish)).status_code == 403
    assert room.ledger.commands_for(pressed.id) == []


async def test_when_the_gateway_is_away_the_same_form_goes_again(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    wish = confirmed((await ask(li, pressed)).text)
    path, part = f"/incidents/{pressed.id}/commands", {"HX-Request": "true"}
    await room.close_gateway()
    desk = await li.client.get(path, headers=part)
    away = await li.submit(path, wish, headers=part)
    await room.open_gateway()

    assert "现在不能下发指令" in desk.text
    assert (away.status_code, away.headers["hx-retarget"]) == (503, "#order-step")
    assert confirmed(away.text) == wish
    assert (await li.submit(path, confirmed(away.text), headers=part)).status_code == 200
    assert len(room.ledger.commands_for(pressed.id)) == 1


async def test_it_all_goes_without_scripts(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    await li.get(f"/incidents/{pressed.id}/commands")
    assert "<!doctype html>" in li.page
    wish = {"command": "close_valve", "target": "device:gas-1", "reason": "闻到燃气味"}
    asked = await li.submit(f"/incidents/{pressed.id}/commands", wish)
    assert "<!doctype html>" in asked.text
    done = await li.submit(f"/incidents/{pressed.id}/commands", confirmed(asked.text))

    assert (done.status_code, done.headers["location"]) == (303, f"/incidents/{pressed.id}")
    assert "待发送" in (await li.get(f"/incidents/{pressed.id}")).text


async def test_cameras_are_listed_by_nearness_with_what_reaches_them_and_no_password(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    pressed = await room.press()
    shown = (await li.get(f"/incidents/{pressed.id}/cameras", headers={"HX-Request": "true"})).text

    assert shown.index("楼道相机") < shown.index("大门相机") < shown.index("未编号相机")
    assert "37021501001320000001" in shown
    assert 'href="rtsp://10.1.2.3:554/main"' in shown
    assert "没有登记国标编号或取流地址" in shown
    [deed] = [row.deed for row in room.accounts.find_audit(AuditFilter(what="cameras.see"), 9)]
    assert (deed.who, deed.about) == ("li", pressed.number)
    assert "rtsp" not in deed.detail


async def test_how_a_camera_is_reached_is_not_told_to_whoever_may_not_look_through_it(room: ControlRoom) -> None:
    keeper = client_of(room, "keeper", Role.PROPERTY_MANAGER, wanted=(Permission.REGISTRY_SEE, Permission.CAMERAS_SEE))
    tester = client_of(room, "tester", Role.TESTER, wanted=(Permission.REGISTRY_SEE,))
    for path in ("/devices?community=c001", "/devices/c001/cam-gate", "/devices/sick?community=c001"):
        seen, veiled = await keeper.get(path), await tester.get(path)
        assert (seen.status_code, veiled.status_code) == (200, 200)
        assert "rtsp" not in veiled.text
        assert "37021501001320000001" not in veiled.text
    assert "37021501001320000001" in (await keeper.get("/devices/c001/cam-gate")).text


async def test_readings_stand_on_the_page_and_their_points_are_told_with_the_signals(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    for value in (False, True, True):
        room.world.send({"smoke-1:smoke": value})
        await room.world.receipted()
        await room.world.pass_time(6_000)
    room.world.send({"smoke-2:smoke": True}, lane=Lane.TELEMETRY)
    await until(lambda: room.world.incidents(cause="fire"))
    [fire] = room.world.incidents(cause="fire")
    page = (await li.get(f"/incidents/{fire.id}")).text
    told = (await li.get(f"/incidents/{fire.id}/points?name=smoke")).json()
    nothing = (await li.get(f"/incidents/{fire.id}/points?name=humidity")).json()

    assert "<dt>烟雾</dt><dd><b" in page
    assert f'data-address="/incidents/{fire.id}/points"' in page
    assert [value for _, value in told["points"]] == [0.0, 1.0, 1.0]
    assert [at - START for at, _ in told["points"]] == [0, 6_000, 12_000]
    assert told["marks"] == [fire.opened_at]
    assert told["span"] == [fire.opened_at - 1_800_000, room.clock()]
    assert nothing["points"] == []


@pytest.fixture
def program(room: ControlRoom) -> httpx.AsyncClient:
    """A dispatcher's program."""
    return client_of(room, "desk", Role.DISPATCHER, wanted=(*COMMANDS, Permission.CAMERAS_SEE))


async def test_a_program_commands_once_and_reads_the_outcome(room: ControlRoom, program: httpx.AsyncClient) -> None:
    pressed = await room.press()
    path, headers = f"/incidents/{pressed.id}/commands", {"Idempotency-Key": KEY}
    offers = (await program.get(f"{path}/offers")).json()["items"]
    [mute] = [offer for offer in offers if offer["name"] == "mute" and offer["args"]["minutes"]["high"] == 480]
    body = {
        "command": "mute",
        "devices": [near["device"]["id"] for near in mute["devices"]][:2],
        "args": {"minutes": 10},
        "reason": "已确认; 为误报",
    }
    first, again = [await program.post(path, json=body, headers=headers) for _ in range(2)]

    assert (first.status_code, again.status_code) == (200, 200)
    items = again.json()["items"]
    assert sorted(item["command"]["device"] for item in items) == ["smoke-1", "smoke-2"]
    assert {(item["by"], item["reason"], item["command"]["state"]) for item in items} == {
        ("desk", "已确认; 为误报", "pending")
    }
    assert (await program.get(path)).json() == again.json()
    sights = (await program.get(f"/incidents/{pressed.id}/cameras")).json()["items"]
    assert [sight["device"] for sight in sights] == ["cam-b1", "cam-gate", "cam-bare"]


async def test_a_program_is_told_by_code_what_is_wrong(room: ControlRoom, program: httpx.AsyncClient) -> None:
    pressed = await room.press()
    plain: dict[str, Any] = {"command": "close_valve", "devices": ["gas-1"], "reason": "x"}
    wrong: list[tuple[dict[str, Any], tuple[int, str]]] = [
        ({"devices": ["gas-3"]}, (409, "refused")),
        ({"devices": ["speaker-of-another"]}, (409, "refused")),
        ({"devices": ["gas-1", "gas-1"]}, (409, "refused")),
        ({"args": {"x": 1}}, (409, "refused")),
        ({"reason": "   "}, (409, "refused")),
        ({"reason": ""}, (422, "not-valid")),
        ({"devices": []}, (422, "not-valid")),
        ({"devices": ["../x"]}, (422, "not-valid")),
        ({"args": {"x": 2**70}}, (409, "refused")),
        ({"args": {"x": "a\u0007b"}}, (422, "not-valid")),
        ({"args": {"x": ["list"]}}, (422, "not-valid")),
        ({"actor": "somebody"}, (422, "not-valid")),
    ]
    for number, (fields, expected) in enumerate(wrong):
        sent = {**plain, **fields}
        key = {"Idempotency-Key": f"{KEY}-{number}"}
        answered = await program.post(f"/incidents/{pressed.id}/commands", json=sent, headers=key)
        assert code_of(answered) == expected, (fields, answered.text)
    without = await program.post(f"/incidents/{pressed.id}/commands", json=plain)
    assert code_of(without) == (422, "not-valid")
    assert room.ledger.commands_for(pressed.id) == []


async def test_a_token_that_does_not_carry_it_commands_nothing(room: ControlRoom) -> None:
    pressed = await room.press()
    seer = client_of(room, "seer", Role.DISPATCHER, wanted=(Permission.INCIDENTS_SEE,))
    body = {"command": "close_valve", "devices": ["gas-1"], "reason": "x"}
    refused = await seer.post(f"/incidents/{pressed.id}/commands", json=body, headers={"Idempotency-Key": KEY})

    assert code_of(refused) == (403, "not-allowed")
    deeds = [row.deed for row in room.accounts.find_audit(AuditFilter(what="access"), 9)]
    assert isinstance(deeds[0], Deed)


async def test_how_a_camera_is_reached_is_registered_without_a_password(room: ControlRoom) -> None:
    room.add("keeper", Role.PROPERTY_MANAGER)
    keeper = await room.visitor_as("keeper")
    path = "/devices/c001/cam-bare"
    wish = {"verb": "camera", "gb28181": "37021501001320000009", "rtsp": "rtsp://10.1.2.9/main"}

    async def send(**fields: str) -> httpx.Response:
        await keeper.get(path)
        return await keeper.submit(f"{path}/changes", {"id": secrets.token_hex(16), **wish, **fields})

    secret = await send(rtsp="rtsp://admin:Secret-7@10.1.2.9/main")
    short = await send(gb28181="123")
    assert (secret.status_code, short.status_code) == (422, 422)
    assert "其中不能有账号和密码" in secret.text
    assert "Secret-7" not in secret.text
    assert (await send()).status_code == 303
    device = room.ledger.device("c001", "cam-bare")
    assert device is not None
    assert device.attributes == {"gb28181": wish["gb28181"], "rtsp": wish["rtsp"]}
    assert wish["rtsp"] in (await keeper.get(path)).text
    deeds = [row.deed for row in room.accounts.find_audit(AuditFilter(what="device.change"), 9)]
    assert all("Secret-7" not in deed.detail for deed in deeds)
    assert (await send(gb28181="", rtsp="")).status_code == 303
    device = room.ledger.device("c001", "cam-bare")
    assert device is not None
    assert device.attributes == {}
