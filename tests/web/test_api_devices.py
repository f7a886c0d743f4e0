"""The API for devices: registered once, changed once, refused by code, and seen in one's scope alone."""

from __future__ import annotations

import httpx
import pytest

from gateway.adapters.passwords import is_password
from gateway.core.model import Role
from gateway.runtime.access import Permission
from tests.web.control_room import ControlRoom
from tests.web.test_api import KEY, client_of, code_of

WANTED = (Permission.REGISTRY_SEE, Permission.REGISTRY_CHANGE, Permission.SILENCES_CHANGE)
DEVICE = {"community": "c001", "code": "SN-7", "profile": "fixed-sos", "place": "b1-u1-102"}


@pytest.fixture
def program(room: ControlRoom) -> httpx.AsyncClient:
    """The program of the property company in the first town."""
    return client_of(room, "company", Role.PROPERTY_MANAGER, ("370215001",), WANTED)


def with_key(key: str = KEY) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def test_a_device_is_registered_once_and_its_password_told_once(
    room: ControlRoom, program: httpx.AsyncClient
) -> None:
    first = await program.post("/devices", json=DEVICE, headers=with_key())
    again = await program.post("/devices", json=DEVICE, headers=with_key())

    assert (first.status_code, again.status_code) == (200, 200)
    assert is_password(first.json()["password"], room.ledger.credentials()["sn-7"])
    assert (again.json()["password"], again.json()["is_repeat"]) == ("", True)
    assert first.json()["device"] == again.json()["device"]
    room.press_own("sn-7")
    await room.world.settle()
    shown = (await program.get("/devices/c001/sn-7")).json()
    assert shown["device"]["state"] == "commissioning"
    assert shown["events"] == {"pressed": room.clock()}


async def test_devices_come_page_by_page(program: httpx.AsyncClient) -> None:
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await program.get("/devices", params={"community": "c001", "limit": 4, "cursor": cursor})).json()
        seen += [device["id"] for device in page["items"]]
        cursor = page["next"]
    assert len(seen) == len(set(seen)) == 9


async def test_what_cannot_be_is_refused_by_code(room: ControlRoom, program: httpx.AsyncClient) -> None:
    taken = await program.post("/devices", json=DEVICE | {"code": "sos-1"}, headers=with_key())
    no_key = await program.post("/devices", json=DEVICE)
    foreign = await program.post("/devices", json=DEVICE | {"community": "c002"}, headers=with_key())
    unknown = await program.post("/devices", json=DEVICE | {"state": "active"}, headers=with_key())
    other = await program.post(
        "/devices/c001/sos-1/changes", json={"verb": "replace", "code": "X", "profile": "nb-smoke"}, headers=with_key()
    )
    gone = await program.post("/devices/c001/nobody/changes", json={"verb": "test"}, headers=with_key())

    assert code_of(taken) == (409, "taken")
    assert taken.json()["field"] == "code"
    assert code_of(no_key) == (422, "not-valid")
    assert code_of(foreign) == (404, "unknown")
    assert code_of(unknown) == (422, "not-valid")
    assert code_of(other) == (409, "another-kind")
    assert code_of(gone) == (404, "unknown")
    await room.close_gateway()
    away = await program.post("/devices", json=DEVICE, headers=with_key(), timeout=20)
    await room.open_gateway()
    assert code_of(away) == (503, "gateway-away")
    assert away.headers["retry-after"]
    again = await program.post("/devices", json=DEVICE, headers=with_key())
    assert again.json()["password"], "what never came to the gateway happens now"


async def test_windows_begin_and_end_once(program: httpx.AsyncClient) -> None:
    body = {
        "community": "c001",
        "kind": "maintenance",
        "device": "smoke-1",
        "until": "2026-11-23T22:00:00+08:00",
        "reason": "换电池",
    }
    begun = await program.post("/windows", json=body, headers=with_key())
    again = await program.post("/windows", json=body, headers=with_key())
    assert begun.json() == again.json()
    [window] = begun.json()["items"]
    assert (window["id"], window["actor"]) == (KEY, "company")
    refused = await program.post(
        "/windows", json=body | {"until": "2026-11-29T22:00:00+08:00"}, headers=with_key(KEY + "2")
    )
    assert code_of(refused) == (409, "refused")
    ended = await program.post(f"/windows/c001/{KEY}/end", headers=with_key(KEY + "3"))
    assert ended.json() == {"items": []}
    assert (await program.get("/windows", params={"community": "c001"})).json() == {"items": []}


async def test_the_sick_are_told_with_whom_it_hurts(room: ControlRoom, program: httpx.AsyncClient) -> None:
    room.world.send({"smoke-1:battery": 240.0})
    await room.world.receipted()
    [patient] = (await program.get("/devices/sick", params={"community": "c001"})).json()["items"]
    assert (patient["device"]["id"], patient["is_life_safety"], patient["homes"]) == ("smoke-1", True, 1)
    assert patient["symptoms"][0]["ailment"] == "implausible"
