"""What holds for every operation of the API alike: keys on writes, cursors on lists, problems with codes, when to ask
again. The document says which operations there are, so a new one is tried without being named here, if it is a read;
a write needs a row in `WRITES`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import httpx
import pytest

from gateway.core.model import DeviceState, Role
from gateway.runtime.access import Permission, roles_with
from gateway.runtime.signing import MINUTE_MS
from gateway.web import access
from gateway.web.access import Authorise, list_routes
from gateway.web.limits import Limiter, Rate
from tests.web.control_room import ControlRoom
from tests.web.test_api import client_of, code_of

API: Final = "/api/v1"
UNTIL: Final = "2026-11-23T22:00:00+08:00"
PERIOD: Final = {"by": "community", "from": "2026-11-23", "to": "2026-11-23"}
DRAFT: Final = Path("rules/fire/smoke-persists.yaml").read_text(encoding="utf-8")
DEVICE: Final = {"profile": "nb-smoke", "place": "b1-u1-101", "source": "agent-1"}
WRITES: Final[dict[str, tuple[str, dict[str, Any] | None]]] = {
    "POST /incidents/{id}/acts": ("/incidents/{incident}/acts", {"verb": "dispatch", "body": "fire-rescue"}),
    "POST /devices": ("/devices", {"community": "c001", "code": "S-1", **DEVICE}),
    "POST /devices/list": ("/devices/list", {"community": "c001", "devices": [{"code": "S-2", **DEVICE}]}),
    "POST /devices/{community}/{id}/changes": ("/devices/c001/smoke-1/changes", {"verb": "rename", "name": "x"}),
    "POST /windows": (
        "/windows",
        {"community": "c001", "kind": "silence", "device": "sos-2", "until": UNTIL, "reason": "x"},
    ),
    "POST /windows/{community}/{id}/end": ("/windows/c001/{key}/end", None),
    "POST /rules/{id}/override": ("/rules/fire.smoke-persists/override", {"status": "shadow", "reason": "x"}),
    "POST /incidents/{id}/commands": (
        "/incidents/{incident}/commands",
        {"command": "broadcast", "devices": ["speaker-1"], "args": {"text": "x"}, "reason": "x"},
    ),
    "POST /webhooks": (
        "/webhooks",
        {"title": "x", "url": "https://203.0.114.1/", "kinds": ["incident.closed"], "communities": ["c001"]},
    ),
    "POST /webhooks/{id}/changes": ("/webhooks/{webhook}/changes", {"verb": "renew"}),
    "POST /webhooks/{id}/deliveries/again": ("/webhooks/{webhook}/deliveries/again", {"id": "test/x"}),
    "POST /products/{profile}/changes": ("/products/fixed-sos/changes", {"verb": "make"}),
    "POST /trials": ("/trials", {"community": "c001", "day": "2026-11-23", "rule": DRAFT}),
}
"""How each write is asked for something that can be done."""

OTHERS: Final[dict[str, tuple[str, dict[str, Any] | None]]] = {
    "POST /incidents/{id}/acts": ("/incidents/{incident}/acts", {"verb": "dispatch", "body": "police"}),
    "POST /devices": ("/devices", {"community": "c001", "code": "smoke-1", **DEVICE}),
    "POST /devices/list": ("/devices/list", {"community": "c001", "devices": [{"code": "S-3", **DEVICE}]}),
    "POST /devices/{community}/{id}/changes": ("/devices/c001/smoke-1/changes", {"verb": "retire"}),
    "POST /windows": (
        "/windows",
        {"community": "c001", "kind": "silence", "device": "smoke-1", "until": UNTIL, "reason": "x"},
    ),
    "POST /windows/{community}/{id}/end": ("/windows/c001/0123/end", None),
    "POST /rules/{id}/override": ("/rules/fire.smoke-persists/override", {"status": "retired", "reason": "x"}),
    "POST /incidents/{id}/commands": (
        "/incidents/{incident}/commands",
        {"command": "broadcast", "devices": ["speaker-1"], "args": {"text": "y"}, "reason": "x"},
    ),
    "POST /webhooks": (
        "/webhooks",
        {"title": "y", "url": "https://203.0.114.1/", "kinds": ["incident.closed"], "communities": ["c001"]},
    ),
    "POST /webhooks/{id}/changes": ("/webhooks/{webhook}/changes", {"verb": "off"}),
    "POST /webhooks/{id}/deliveries/again": ("/webhooks/0123456789abcdef/deliveries/again", {"id": "test/x"}),
    "POST /products/{profile}/changes": ("/products/fixed-sos/changes", {"verb": "renew"}),
    "POST /trials": ("/trials", {"community": "c002", "day": "2026-11-23", "rule": DRAFT}),
}
"""What else each write may be asked for, with the same key."""

STAND: Final = {"POST /stand/runs", "POST /stand/runs/{id}/stop"}
"""With a real stand, in tests/browser/test_tester.py."""

BY_ITSELF: Final = frozenset(
    {
        "POST /webhooks",
        "POST /webhooks/{id}/changes",
        "POST /webhooks/{id}/deliveries/again",
        "POST /products/{profile}/changes",
        "POST /trials",
    }
)
"""Writes that the web process does without the gateway."""

MASKED: Final = ("password", "secret", "is_repeat", "state", "progress", "result")
"""What a repeat tells otherwise: a password is told once, and a command or a trial goes on meanwhile."""


class Programs:
    """A program for each permission, with a token of a role that has it."""

    def __init__(self, room: ControlRoom) -> None:
        self.room = room
        self._clients: dict[Role, httpx.AsyncClient] = {}

    def client(self, permission: Permission) -> httpx.AsyncClient:
        role = roles_with(permission)[0]
        if role not in self._clients:
            name = f"program-{role.replace('_', '-')}"
            self._clients[role] = client_of(self.room, name, role, wanted=tuple(Permission))
            self._clients[role].timeout = httpx.Timeout(60)
        return self._clients[role]


@pytest.fixture
def programs(room: ControlRoom) -> Programs:
    return Programs(room)


def operations(room: ControlRoom) -> Iterator[tuple[str, str, Permission]]:
    """Method, path below the API, and permission."""
    for route in list_routes(room.app.routes):
        for mark in route.marks:
            if route.path.startswith(f"{API}/") and isinstance(mark, Authorise):
                yield route.method, route.path.removeprefix(API), mark.permission


def fill(path: str) -> str:
    return path.format(community="c001", id="sos-1", profile="fixed-sos", code="370215001") if "{" in path else path


async def read_document(room: ControlRoom) -> dict[str, Any]:
    answer = await room.visitor().client.get(f"{API}/openapi.json")
    document: dict[str, Any] = answer.json()
    return document


def mask(body: Any) -> Any:
    if isinstance(body, dict):
        return {name: mask(value) for name, value in body.items() if name not in MASKED}
    return [mask(one) for one in body] if isinstance(body, list) else body


async def test_every_write_takes_a_key_and_happens_once(room: ControlRoom, programs: Programs) -> None:
    permissions = {f"{method} {path}": permission for method, path, permission in operations(room)}
    writes = {where for where in permissions if not where.startswith("GET")}
    assert writes == WRITES.keys() | STAND, "a write has a row here"
    webhook = ""
    incident = await room.press()
    document = await read_document(room)
    for number, (where, (path, body)) in enumerate(WRITES.items()):
        [key] = [
            parameter
            for parameter in document["paths"][API + where.removeprefix("POST ")]["post"]["parameters"]
            if parameter["name"] == "Idempotency-Key"
        ]
        assert key["required"], where
        client, made = programs.client(permissions[where]), f"{number:032x}"
        earlier = f"{number - 1:032x}"
        address = path.format(incident=incident.id, key=earlier, webhook=webhook)
        sent: dict[str, Any] = {} if body is None else {"json": body}
        without = await client.post(address, **sent)
        assert code_of(without) == (422, "not-valid"), where
        position = room.ledger.position()
        first = await client.post(address, headers={"Idempotency-Key": made}, **sent)
        assert first.is_success, (where, first.text)
        webhook = first.json().get("webhook", {}).get("id", webhook)
        await room.world.settle()
        state = room.world.state("c001")
        again = await client.post(address, headers={"Idempotency-Key": made}, **sent)
        await room.world.settle()
        assert (again.status_code, mask(again.json())) == (first.status_code, mask(first.json())), where
        assert room.world.state("c001") == state, where
        assert room.ledger.position() >= position


async def test_a_key_with_another_body_is_not_told_what_was_done_with_it_before(
    room: ControlRoom, programs: Programs
) -> None:
    permissions = {f"{method} {path}": permission for method, path, permission in operations(room)}
    webhook, incident = "", await room.press()
    for number, (where, (path, body)) in enumerate(WRITES.items()):
        client, headers = programs.client(permissions[where]), {"Idempotency-Key": f"{number:032x}"}
        earlier = f"{number - 1:032x}"
        address = path.format(incident=incident.id, key=earlier, webhook=webhook)
        first = await client.post(address, json=body, headers=headers)
        assert first.is_success, (where, first.text)
        webhook = first.json().get("webhook", {}).get("id", webhook)
        await room.world.settle()
        state = room.world.state("c001")
        path, body = OTHERS[where]
        address = path.format(incident=incident.id, webhook=webhook)
        other = await client.post(address, json=body, headers=headers)
        await room.world.settle()
        if other.is_success:
            assert not other.json().get("is_repeat"), where
            assert other.json() != first.json(), where
            assert where in BY_ITSELF or room.world.state("c001") != state, where
        else:
            assert other.status_code in (404, 409), (where, other.text)
            assert room.world.state("c001") == state, where
    retired = room.ledger.device("c001", "smoke-1")
    assert retired is not None
    assert retired.state is DeviceState.RETIRED, "it was asked for, and is told to be done"


async def test_a_key_of_somebody_else_is_another_key(room: ControlRoom, programs: Programs) -> None:
    """Whoever knows a key learns nothing by it, and takes nothing away."""
    other = client_of(room, "other", Role.PROPERTY_MANAGER, wanted=tuple(Permission))
    path, body = WRITES["POST /devices"]
    headers = {"Idempotency-Key": "k" * 32}
    alone = {"community": "c001", "code": "S-9", "profile": "nb-smoke", "place": "b1-u1-101"}
    first = await programs.client(Permission.REGISTRY_CHANGE).post(path, json=alone, headers=headers)
    stolen = await other.post(path, json=alone, headers=headers)

    assert first.json()["password"]
    assert code_of(stolen) == (409, "taken")
    assert first.json()["password"] not in stolen.text
    assert body is not None


async def test_every_list_that_can_be_long_is_read_page_by_page_without_a_double(
    room: ControlRoom, programs: Programs
) -> None:
    for device in ("sos-1", "sos-2"):
        await room.press(device)
        await room.press(device, "c002")
    permissions = {path: permission for method, path, permission in operations(room) if method == "GET"}
    document = await read_document(room)
    walked = set()
    for path, methods in document["paths"].items():
        names = {parameter["name"] for parameter in methods.get("get", {}).get("parameters", ())}
        if "limit" not in names:
            continue
        below = path.removeprefix(API)
        mark = "cursor" if "cursor" in names else "after"
        assert mark in names, path
        more = {"community": "c001"} if below == "/devices" else {}
        client = programs.client(permissions[below])
        if below == "/audit":
            more = {"what": "account.", "until": "2026-12-31"}
        if "{" in below:
            continue  # the deliveries of a webhook: tests/web/test_webhooks.py
        whole = (await client.get(below, params={"limit": 500, **more})).json()["items"]
        pages, cursor = [], "" if mark == "cursor" else 0
        for _ in range(100):
            page = (await client.get(below, params={"limit": 1, mark: cursor, **more})).json()
            pages += page["items"]
            cursor = page["next"] if mark == "cursor" else page["position"]
            if cursor is None or page.get("is_complete"):
                break
        assert len(whole) > 1, path
        assert pages == whole, path
        walked.add(below)
    assert {"/incidents", "/incidents/changes", "/devices", "/communities", "/audit", "/accounts"} <= walked


def assert_problem(answer: httpx.Response, status: int, code: str, where: str) -> None:
    assert answer.status_code == status, (where, answer.text[:300])
    assert answer.headers["content-type"] == "application/problem+json", where
    body = answer.json()
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code), (where, body)
    assert body["detail"], where
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1, where


def query_of(path: str) -> Mapping[str, str]:
    """What a read cannot do without."""
    wanted: dict[str, Mapping[str, str]] = {
        "/appraisal": PERIOD,
        "/devices": {"community": "c001"},
        "/devices/asks": {"community": "c001"},
        "/devices/sick": {"community": "c001"},
        "/devices/{community}/{id}/points": {"name": "battery"},
        "/incidents/{id}/points": {"name": "battery"},
        "/windows": {"community": "c001"},
        "/places": {"community": "c001"},
    }
    return wanted.get(path, {})


async def test_every_operation_refuses_in_the_same_way(room: ControlRoom, programs: Programs) -> None:
    stranger = room.visitor().client
    nobody = client_of(room, "nobody", Role.PLATFORM, wanted=())
    for method, path, permission in operations(room):
        where, address = f"{method} {path}", fill(path)
        headers = {"Accept": "text/html"}  # whatever a program says that it likes
        assert_problem(await stranger.request(method, API + address, headers=headers), 401, "sign-in-needed", where)
        assert_problem(await nobody.request(method, address, headers=headers), 403, "not-allowed", where)
        client = programs.client(permission)
        answer = await client.request(method, f"{address}?token=scg_x")
        assert_problem(answer, 400, "token-in-url", where)
        if method == "POST":
            for content in (b"{", b"\xff{}", b'{"a":' * 50_000):
                odd = await client.post(address, content=content, headers={"Content-Type": "application/json"})
                assert_problem(odd, 422, "not-valid", where)
            large = await client.post(address, content=b" " * 300_000)
            assert_problem(large, 413, "too-large", where)
        if "{community}" in path:
            gone = await client.request(
                method,
                path.format(community="c999", id="sos-1"),
                json={"verb": "test"} if "changes" in path else None,
                headers={"Idempotency-Key": "0" * 32},
                params=query_of(path),
            )
            assert_problem(gone, 404, "unknown", where)


async def test_every_operation_says_when_to_ask_again(room: ControlRoom, programs: Programs) -> None:
    with patch.object(access, "REQUESTS", Rate(1, MINUTE_MS)):
        room.app.state.gate._requests = Limiter(access.REQUESTS)
    for method, path, permission in operations(room):
        client = programs.client(permission)
        await client.get("/incidents/none")
        answer = await client.request(method, fill(path), params=query_of(path))
        assert_problem(answer, 429, "too-often", f"{method} {path}")


async def test_a_gateway_that_is_away_is_told_by_every_operation_that_needs_it(
    room: ControlRoom, programs: Programs
) -> None:
    incident = await room.press()
    permissions = {f"{method} {path}": permission for method, path, permission in operations(room)}
    await room.close_gateway()
    asked = 0
    with patch("gateway.runtime.silencing.PATIENCE_S", 0.1), patch("gateway.runtime.acting.PATIENCE_S", 0.1):
        for where, (path, body) in WRITES.items():
            if where in BY_ITSELF:
                continue
            client = programs.client(permissions[where])
            address = path.format(incident=incident.id, key="0" * 32)
            answer = await client.post(address, json=body, headers={"Idempotency-Key": f"{asked:032x}"})
            assert_problem(answer, 503, "gateway-away", where)
            asked += 1
        for where in (
            "/devices/sick",
            "/windows",
            "/places",
            "/devices/{community}/{id}",
            "/map/communities/{community}",
        ):
            client = programs.client(permissions[f"GET {where}"])
            answer = await client.get(fill(where), params=query_of(where))
            assert_problem(answer, 503, "gateway-away", where)
            asked += 1
    await room.open_gateway()
    assert asked == len(WRITES) - len(BY_ITSELF) + 5
