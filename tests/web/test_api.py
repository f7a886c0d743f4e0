"""The API for incidents: listed by cursor, followed by position, acted on once, refused by code, and described."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from gateway.core.model import Role
from gateway.runtime.access import MACHINES, Permission
from gateway.runtime.accounts import Deed
from tests.runtime.world import until
from tests.web.control_room import ControlRoom, Listener
from tests.web.house import CLI

KEY = "a-key-of-a-program-0001"


@pytest.fixture
def program(room: ControlRoom) -> httpx.AsyncClient:
    """The central platform's program, with a token for the whole district."""
    return client_of(room, "platform", Role.PLATFORM)


def client_of(
    room: ControlRoom,
    name: str,
    role: Role,
    grids: tuple[str, ...] = ("370215",),
    wanted: tuple[Permission, ...] = (Permission.INCIDENTS_SEE, Permission.INCIDENTS_ACT),
) -> httpx.AsyncClient:
    account, _ = room.officers.add(CLI, name, "", password=None, must_change=False, is_machine=role in MACHINES)
    account = room.officers.grant(CLI, account.id, role, grids, (), "")
    secret, _ = room.sign_in.issue_token(account, "a program", wanted, 30, Deed(0, name, "token.add", name))
    client = httpx.AsyncClient(
        base_url=f"{room.url}/api/v1", headers={"Authorization": f"Bearer {secret}"}, trust_env=False
    )
    room.clients.append(client)
    return client


def code_of(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


async def test_open_incidents_come_page_by_page_without_a_double(room: ControlRoom, program: httpx.AsyncClient) -> None:
    for device in ("sos-1", "sos-2"):
        for community in ("c001", "c002"):
            await room.press(device, community)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await program.get("/incidents", params={"limit": 3, "cursor": cursor})).json()
        seen += [incident["id"] for incident in page["items"]]
        cursor = page["next"]
    town = (await program.get("/incidents", params={"community": "c002"})).json()["items"]

    assert len(seen) == len(set(seen)) == 4
    assert {incident["community"] for incident in town} == {"c002"}


async def test_a_cursor_that_is_none_is_refused(program: httpx.AsyncClient) -> None:
    """An empty page would look like the end."""
    assert code_of(await program.get("/incidents", params={"cursor": "zzz"})) == (422, "not-valid")


async def test_whoever_follows_by_position_has_everything_also_what_is_over(
    room: ControlRoom, program: httpx.AsyncClient
) -> None:
    pressed, other = await room.press("sos-1"), await room.press("sos-2", "c002")
    body = {"verb": "false_alarm", "reason": "误碰", "revision": pressed.revision}
    await program.post(f"/incidents/{pressed.id}/acts", json=body, headers={"Idempotency-Key": KEY})
    states: dict[str, str] = {}
    position, is_complete = 0, False
    while not is_complete:
        page = (await program.get("/incidents/changes", params={"after": position, "limit": 1})).json()
        states |= {incident["id"]: incident["state"] for incident in page["items"]}
        position, is_complete = page["position"], page["is_complete"]

    assert states == {pressed.id: "false_alarm", other.id: "reported"}
    again = (await program.get("/incidents/changes", params={"after": position})).json()
    assert again == {"items": [], "position": position, "is_complete": True}


async def test_a_program_sees_the_scope_of_its_account(room: ControlRoom) -> None:
    mine, other = await room.press(community="c001"), await room.press(community="c002")
    town = client_of(room, "town", Role.PLATFORM, ("370215001",))

    listed = (await town.get("/incidents")).json()["items"]
    changed = (await town.get("/incidents/changes")).json()["items"]
    assert [i["id"] for i in listed] == [i["id"] for i in changed] == [mine.id]
    assert code_of(await town.get(f"/incidents/{other.id}")) == (404, "unknown")
    refused = await town.post(f"/incidents/{other.id}/acts", json={"verb": "accept"}, headers={"Idempotency-Key": KEY})
    assert code_of(refused) == (404, "unknown")


async def test_one_incident_has_its_timeline_and_the_moves_that_are_open(
    room: ControlRoom, program: httpx.AsyncClient
) -> None:
    pressed = await room.press()
    found = (await program.get(f"/incidents/{pressed.id}")).json()

    assert found["incident"]["timeline"][0]["what"] == "opened"
    verbs = [move["verb"] for move in found["moves"]]
    assert "accept" in verbs
    assert "call_back" not in verbs  # a machine calls nobody back


async def test_why_it_fired_is_told_leaf_by_leaf(room: ControlRoom, program: httpx.AsyncClient) -> None:
    pressed = await room.press()
    told = (await program.get(f"/incidents/{pressed.id}/why")).json()
    assert (told["rule"], told["at"], told["device"]) == (pressed.rule, pressed.opened_at, "sos-1")
    assert (told["is_momentary"], told["silent"]) == (True, "")
    assert told["said"] == pressed.timeline[0].why
    assert [leaf["text"] for leaf in told["leaves"]], "each test of its condition"


async def test_an_act_with_the_same_key_happens_once_and_is_answered_alike(
    room: ControlRoom, program: httpx.AsyncClient
) -> None:
    pressed = await room.press()
    path, headers = f"/incidents/{pressed.id}/acts", {"Idempotency-Key": KEY}
    body = {"verb": "dispatch", "body": "fire-rescue", "reason": "有烟", "revision": pressed.revision}
    first = await program.post(path, json=body, headers=headers)
    again = await program.post(path, json=body, headers=headers)

    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert first.json()["incident"]["state"] == "dispatched"
    lines = [line for line in again.json()["incident"]["timeline"] if line["who"] == "platform"]
    assert len(lines) == 1


async def test_who_is_late_or_wrong_is_told_by_code(room: ControlRoom, program: httpx.AsyncClient) -> None:
    pressed = await room.press()
    path = f"/incidents/{pressed.id}/acts"

    async def send(body: Mapping[str, Any], key: str = KEY, **more: Any) -> httpx.Response:
        return await program.post(path, json=body, headers={"Idempotency-Key": key}, **more)

    assert (await send({"verb": "accept", "revision": pressed.revision})).status_code == 200
    late = await send({"verb": "merge", "reason": "x", "into": "y", "revision": pressed.revision}, KEY + "2")
    assert code_of(late) == (409, "late")
    assert late.json()["by"] == "platform"
    assert late.json()["state"] == "filed"
    assert code_of(await send({"verb": "close", "reason": "x"}, KEY + "3")) == (409, "refused")
    assert code_of(await send({"verb": "close", "reason": "x", "revision": 2.0}, KEY + "7"))[0] == 409
    assert code_of(await send({"verb": "close", "reason": "x", "revision": "2"}, KEY + "8")) == (422, "not-valid")
    assert code_of(await send({"verb": "park", "reason": "x", "until": 0}, KEY + "9")) == (422, "not-valid")
    assert code_of(await send({"verb": "fly"}, KEY + "4")) == (422, "not-valid")
    assert code_of(await send({"verb": "park", "until": "2026-12-01T00:00:00"}, KEY + "5")) == (422, "not-valid")
    assert code_of(await send({"verb": "accept", "actor": "somebody"}, KEY + "6")) == (422, "not-valid")
    assert code_of(await program.post(path, json={"verb": "accept"})) == (422, "not-valid")
    assert code_of(await send({"verb": "accept"}, "short")) == (422, "not-valid")


async def test_the_stream_tells_each_change_with_its_position(room: ControlRoom, program: httpx.AsyncClient) -> None:
    await room.press("sos-1")
    seen = room.board.position
    async with program.stream("GET", "/incidents/stream", headers={"Last-Event-ID": str(seen)}) as answer:
        stream = Listener(answer)
        pressed = await room.press("sos-2")
        _, incident = await stream.next("incident")
        assert incident["id"] == pressed.id
        assert stream.last > seen
    await until(lambda: room.app.state.console.listening == 0)


async def test_the_description_has_every_route_with_an_example_and_only_what_exists(
    room: ControlRoom, program: httpx.AsyncClient
) -> None:
    document = (await program.get("/openapi.json")).json()
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]

    assert {where for where, _ in operations} == {
        "GET /api/v1/incidents",
        "GET /api/v1/incidents/changes",
        "GET /api/v1/incidents/stream",
        "GET /api/v1/incidents/{id}",
        "POST /api/v1/incidents/{id}/acts",
        "GET /api/v1/incidents/{id}/why",
        "GET /api/v1/incidents/{id}/callers",
        "GET /api/v1/incidents/{id}/cameras",
        "GET /api/v1/incidents/{id}/points",
        "GET /api/v1/incidents/{id}/commands",
        "GET /api/v1/incidents/{id}/commands/offers",
        "POST /api/v1/incidents/{id}/commands",
        "GET /api/v1/accounts",
        "GET /api/v1/audit",
        "GET /api/v1/audit/verdict",
        "GET /api/v1/communities",
        "GET /api/v1/devices/{community}/{id}/history",
        "GET /api/v1/handover",
        "GET /api/v1/places",
        "POST /api/v1/devices/list",
        "GET /api/v1/devices",
        "GET /api/v1/devices/asks",
        "GET /api/v1/devices/sick",
        "GET /api/v1/devices/{community}/{id}/points",
        "GET /api/v1/devices/{community}/{id}/signals",
        "GET /api/v1/devices/{community}/{id}",
        "POST /api/v1/devices",
        "POST /api/v1/devices/{community}/{id}/changes",
        "GET /api/v1/windows",
        "POST /api/v1/windows",
        "POST /api/v1/windows/{community}/{id}/end",
        "GET /api/v1/rules",
        "GET /api/v1/rules/{id}",
        "POST /api/v1/rules/{id}/override",
        "GET /api/v1/appraisal",
        "POST /api/v1/trials",
        "GET /api/v1/trials/{id}",
        "GET /api/v1/stand",
        "POST /api/v1/stand/runs",
        "GET /api/v1/stand/runs/{id}",
        "GET /api/v1/stand/runs/{id}/signals",
        "POST /api/v1/stand/runs/{id}/stop",
        "GET /api/v1/map",
        "GET /api/v1/map/grids/{code}",
        "GET /api/v1/map/communities/{community}",
        "GET /api/v1/heat",
        "GET /api/v1/heat/{community}",
        "GET /api/v1/wall",
        "GET /api/v1/webhooks",
        "POST /api/v1/webhooks",
        "GET /api/v1/webhooks/{id}",
        "POST /api/v1/webhooks/{id}/changes",
        "GET /api/v1/webhooks/{id}/deliveries",
        "POST /api/v1/webhooks/{id}/deliveries/again",
        "GET /api/v1/products",
        "POST /api/v1/products/{profile}/changes",
        "POST /api/v1/provision",
    }
    for where, operation in operations:
        assert operation["description"], where
        for status, answer in operation["responses"].items():
            for kind, content in answer["content"].items():
                assert content["example"], (where, status, kind)
        for parameter in operation.get("parameters", ()):
            assert parameter["schema"].get("examples"), (where, parameter["name"])
        for content in operation.get("requestBody", {}).get("content", {}).values():
            name = content["schema"]["$ref"].rpartition("/")[2]
            assert document["components"]["schemas"][name]["example"], where
    names = set(document["components"]["schemas"])
    referred = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert referred <= names


async def test_a_refused_act_that_comes_again_is_refused_again_though_the_same_was_done_before(
    room: ControlRoom, program: httpx.AsyncClient
) -> None:
    pressed = await room.press()
    path = f"/incidents/{pressed.id}/acts"
    wish = {"verb": "dispatch", "body": "fire-rescue", "revision": pressed.revision}

    done = await program.post(path, json=wish, headers={"Idempotency-Key": "a" * 32})
    once = await program.post(path, json=wish, headers={"Idempotency-Key": "b" * 32})
    again = await program.post(path, json=wish, headers={"Idempotency-Key": "b" * 32})
    same = await program.post(path, json=wish, headers={"Idempotency-Key": "a" * 32})

    assert (done.status_code, same.status_code) == (200, 200)
    assert code_of(once) == code_of(again) == (409, "late")


async def test_the_map_the_wall_and_the_heat_are_there_for_programs(room: ControlRoom) -> None:
    program = client_of(room, "whole", Role.DISPATCHER, wanted=tuple(Permission))
    await until(lambda: room.app.state.console.atlas.spots)
    pressed = await room.press("sos-1", "c001")
    await room.press("sos-1", "c002")
    room.app.state.console.names.names = room.app.state.console.names._read()

    seen = (await program.get("/map")).json()
    wall = (await program.get("/wall")).json()
    heat = (await program.get("/heat", params={"days": "1"})).json()
    places = (await program.get("/heat/c001", params={"days": "1", "category": pressed.category})).json()["items"]
    devices = (await program.get("/map/communities/c001")).json()

    assert {one["id"]: one["levels"]["critical"] for one in seen["communities"]} == {"c001": 1, "c002": 1}
    assert {one["code"]: one["levels"]["critical"] for one in seen["grids"]}["370215"] == 2
    assert (wall["counts"]["total"], wall["unanswered"], len(wall["towns"])) == (2, 2, 2)
    assert wall["today"]["opened"] == 2
    assert {one["id"]: (one["number"], one["weight"]) for one in heat["items"]} == {"c001": (1, 5), "c002": (1, 5)}
    assert [(one["id"], one["number"]) for one in places] == [(pressed.place, 1)]
    assert (await program.get("/heat/c001", params={"days": "1", "category": "ext:99"})).json()["items"] == []
    listed = {one["id"] for point in devices["points"] for one in point["devices"]}
    assert listed == {device.id for device in room.ledger.devices("c001")}


async def test_what_a_device_sent_is_there_as_signals_and_as_a_curve(room: ControlRoom) -> None:
    program = client_of(room, "whole", Role.DISPATCHER, wanted=tuple(Permission))
    for battery in (88.0, 87.0):
        room.world.send({"smoke-1:battery": battery, "smoke-1:smoke": False})
        await room.world.receipted()
        room.world.clock.advance(60_000)

    signals = (await program.get("/devices/c001/smoke-1/signals")).json()["items"]
    curve = (await program.get("/devices/c001/smoke-1/points", params={"name": "battery"})).json()["points"]

    assert [one["value"] for one in signals if one["name"] == "battery"] == [87.0, 88.0]
    assert [point["value"] for point in curve] == [88.0, 87.0]
    assert curve[0]["at"] < curve[1]["at"]
    assert (await program.get("/devices/c001/smoke-1/points")).status_code == 422
    assert (await program.get("/devices/c001/none/signals")).status_code == 404


async def test_a_cursor_or_a_filter_that_is_none_is_refused_by_name(room: ControlRoom) -> None:
    program = client_of(room, "whole", Role.DISPATCHER, wanted=tuple(Permission))
    for address, name in (
        ("/incidents?cursor=x", "cursor"),
        ("/incidents?level=x", "level"),
        ("/incidents?state=open", "state"),
        ("/incidents?overdue=yes", "overdue"),
        ("/devices?community=c001&cursor=A%20B", "cursor"),
        ("/communities?cursor=%2F", "cursor"),
        ("/heat?days=2", "days"),
    ):
        answer = await program.get(address)
        assert (answer.status_code, answer.json()["code"]) == (422, "not-valid"), address
        assert name in answer.json()["detail"], address


async def test_metrics_are_numbers_that_prometheus_reads(room: ControlRoom) -> None:
    await room.press()
    visitor = room.visitor()
    answer = await visitor.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.e+-]+')
    lines = answer.text.splitlines()
    assert all(line.startswith("#") or sample.fullmatch(line) for line in lines), lines
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values["scg_ledger_up"] == values["scg_gateway_up"] == "1"
    assert values['scg_open_incidents{sort="incident",level="critical"}'] == "1"
    assert values["scg_changes_total"] == str(room.board.position)
    assert "c001" not in answer.text
