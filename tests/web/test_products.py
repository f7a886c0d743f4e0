"""A model's secret fetches a password once, for a device that is registered and awaited, and opens nothing else."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.adapters.passwords import is_password
from gateway.core.model import Role
from gateway.runtime.products import Awaited, sign_ask
from gateway.runtime.signing import MINUTE_MS
from gateway.web.api_products import ASKS
from tests.web.control_room import ControlRoom
from tests.web.house import Visitor
from tests.web.test_api import code_of
from tests.web.test_devices import deeds, keeper, key, send_table

__all__ = ["keeper"]


@pytest.fixture
async def secret(room: ControlRoom) -> str:
    """The secret of the model ``fixed-sos``, as its maker got it."""
    room.add("boss", Role.ADMINISTRATOR)
    boss = await room.visitor_as("boss")
    await boss.get("/products")
    made = await boss.submit("/products", {"id": key(), "profile": "fixed-sos", "verb": "make"})
    assert made.status_code == 201
    [held] = room.products.keys("fixed-sos", room.sign_in.clock())
    assert held.decode() in made.text
    assert held.decode() not in (await boss.get("/products")).text
    return held.decode()


async def register(keeper: Visitor, code: str, **fields: str) -> httpx.Response:
    await keeper.get("/devices/new?community=c001")
    wish = {"id": key(), "community": "c001", "code": code, "profile": "fixed-sos", "place": "b1-u1-101"}
    return await keeper.submit("/devices", {**wish, "source": "", "fetches": "1", **fields})


async def change(keeper: Visitor, id: str, **fields: str) -> httpx.Response:
    await keeper.get(f"/devices/c001/{id}")
    return await keeper.submit(f"/devices/c001/{id}/changes", {"id": key(), "reason": "x", **fields})


async def ask(room: ControlRoom, secret: str, code: str, **changes: Any) -> httpx.Response:
    at = changes.pop("at", room.sign_in.clock() // 1000)
    product = changes.pop("product", "fixed-sos")
    body = {"product": product, "code": code, "at": at, "signature": sign_ask(secret.encode(), product, code, at)}
    async with httpx.AsyncClient(base_url=room.url, trust_env=False) as client:
        return await client.post("/api/v1/provision", json={**body, **changes})


async def test_a_registered_device_fetches_its_own_password_once(
    room: ControlRoom, keeper: Visitor, secret: str
) -> None:
    assert (await register(keeper, "SN/7")).status_code == 303
    assert room.ledger.credentials() == {}
    assert "等待设备领取" in (await keeper.get("/devices/c001/sn-7")).text

    granted = await ask(room, secret, "SN/7")
    told = granted.json()
    assert (granted.status_code, told["community"], told["source"]) == (200, "c001", "sn-7")
    assert is_password(told["password"], room.ledger.credentials()["sn-7"])
    assert told["password"] != secret

    assert code_of(await ask(room, secret, "SN/7")) == (403, "not-granted")
    assert is_password(told["password"], room.ledger.credentials()["sn-7"])
    for page in ("/devices/c001/sn-7", "/devices?community=c001"):
        assert "密码被再次索取 1 次" in (await keeper.get(page)).text
    outcomes = {outcome for _, _, outcome in deeds(room, "device.provision")}
    assert outcomes == {"done", "refused: not-granted"}

    await keeper.get("/devices/c001/sn-7")
    again = await keeper.submit("/devices/c001/sn-7/changes", {"id": key(), "verb": "expect"})
    assert again.status_code == 303
    assert room.ledger.credentials() == {}, "the old password ends at once"
    assert (await ask(room, secret, "SN/7")).json()["password"] not in ("", told["password"])


async def test_whoever_opens_a_device_gets_nothing_that_is_not_awaited(
    room: ControlRoom, keeper: Visitor, secret: str
) -> None:
    assert (await register(keeper, "SN-8", fetches="")).status_code == 201
    before = room.ledger.credentials()
    assert code_of(await ask(room, secret, "SN-8")) == (403, "not-granted")  # has a password of its own
    assert code_of(await ask(room, secret, "nobody")) == (403, "not-granted")
    assert code_of(await ask(room, secret, "sos-1")) == (403, "not-granted")  # an agent carries it
    assert (await register(keeper, "SN-9")).status_code == 303
    assert code_of(await ask(room, "another-secret", "SN-9")) == (401, "wrong-signature")
    assert code_of(await ask(room, secret, "SN-9", product="nb-smoke")) == (401, "wrong-signature")
    late = room.sign_in.clock() // 1000 - 3600
    assert code_of(await ask(room, secret, "SN-9", at=late)) == (403, "wrong-time")
    assert code_of(await ask(room, secret, "SN-9", signature="x")) == (422, "not-valid")
    await keeper.get("/devices/c001/sn-9")
    retired = await keeper.submit("/devices/c001/sn-9/changes", {"id": key(), "verb": "retire", "reason": "x"})
    assert retired.status_code == 303
    assert code_of(await ask(room, secret, "SN-9")) == (403, "not-granted")
    assert room.ledger.credentials() == before
    assert secret not in str(deeds(room, ""))


async def test_the_new_apparatus_fetches_and_the_one_that_was_taken_out_does_not(
    room: ControlRoom, keeper: Visitor, secret: str
) -> None:
    assert (await register(keeper, "REV-A1")).status_code == 303
    assert (await ask(room, secret, "REV-A1")).status_code == 200

    replaced = await change(keeper, "rev-a1", verb="replace", code="REV-B2")
    assert replaced.status_code == 201, "it has a password that is shown"
    for code in ("REV-A1", "REV-B2"):
        assert code_of(await ask(room, secret, code)) == (403, "not-granted"), "nothing is awaited"
    assert (await change(keeper, "rev-a1", verb="expect")).status_code == 303
    assert room.ledger.credentials() == {}
    assert code_of(await ask(room, secret, "REV-A1")) == (403, "not-granted")
    granted = await ask(room, secret, "REV-B2")
    assert (granted.status_code, granted.json()["source"]) == (200, "rev-a1")
    assert is_password(granted.json()["password"], room.ledger.credentials()["rev-a1"])

    assert code_of(await ask(room, secret, "REV-B2")) == (403, "not-granted")
    assert "密码被再次索取 1 次" in (await keeper.get("/devices/c001/rev-a1")).text


async def test_what_was_awaited_ends_with_the_apparatus_and_no_code_is_promised_twice(
    room: ControlRoom, keeper: Visitor, secret: str
) -> None:
    assert (await register(keeper, "REV-A1")).status_code == 303
    assert (await change(keeper, "rev-a1", verb="replace", code="REV-B2")).status_code == 201
    # As it is where the plug was pulled in between.
    room.products.expect([Awaited("rev-a1", "rev-a1", "c001", "fixed-sos", room.sign_in.clock() + MINUTE_MS)])
    assert code_of(await ask(room, secret, "REV-A1")) == (403, "not-granted")
    assert (await change(keeper, "rev-a1", verb="expect")).status_code == 303
    assert (await register(keeper, "REV-B2")).status_code == 422
    assert (await ask(room, secret, "REV-B2")).json()["source"] == "rev-a1"
    assert (await change(keeper, "rev-a1", verb="replace", code="///")).status_code == 201
    assert (await change(keeper, "rev-a1", verb="expect")).status_code == 422


async def test_a_secret_that_is_off_fetches_nothing_and_one_that_was_renewed_still_does(
    room: ControlRoom, keeper: Visitor, secret: str
) -> None:
    boss = await room.visitor_as("boss")
    assert (await register(keeper, "SN-1")).status_code == 303
    await boss.get("/products")
    await boss.submit("/products", {"id": key(), "profile": "fixed-sos", "verb": "off"})
    assert code_of(await ask(room, secret, "SN-1")) == (401, "wrong-signature")
    refused = await register(keeper, "SN-2")
    assert refused.status_code == 422
    await boss.get("/products")
    await boss.submit("/products", {"id": key(), "profile": "fixed-sos", "verb": "on"})
    await boss.get("/products")
    renewed = await boss.submit("/products", {"id": key(), "profile": "fixed-sos", "verb": "renew"})
    assert renewed.status_code == 201
    assert (await ask(room, secret, "SN-1")).status_code == 200
    assert (await boss.submit("/products", {"id": key(), "profile": "fixed-sos", "verb": "make"})).status_code == 409
    assert (await boss.submit("/products", {"id": key(), "profile": "no-model", "verb": "make"})).status_code == 409


async def test_a_whole_table_is_awaited_and_agents_devices_are_not(
    room: ControlRoom, keeper: Visitor, secret: str
) -> None:
    rows = "code,profile,place,source\nB-1,fixed-sos,b1-u1-101,\nB-2,fixed-sos,b1-u1-102,agent-1\nB-3,nb-smoke,b1,\n"
    answer = await send_table(keeper, rows, fetches="1")
    assert "2 台已登记，1 行没有" in answer.text
    assert "没有启用型号密钥" in answer.text
    assert room.ledger.credentials() == {}
    assert (await ask(room, secret, "B-1")).status_code == 200
    assert code_of(await ask(room, secret, "B-2")) == (403, "not-granted")


async def test_one_address_asks_so_often_and_no_more(room: ControlRoom, secret: str) -> None:
    # The bucket fills again while a slow machine asks.
    answers = [await ask(room, "guess", "SN-1")]
    while answers[-1].status_code == 401 and len(answers) < ASKS.burst * 3:
        answers.append(await ask(room, "guess", "SN-1"))
    answer = answers[-1]
    assert code_of(answer) == (429, "too-often")
    assert len(answers) > ASKS.burst
    assert int(answer.headers["Retry-After"]) > 0


async def test_a_secret_is_made_once_however_often_the_same_wish_comes(room: ControlRoom, secret: str) -> None:
    """Devices on the shelf hold the secret before: one renewal too many would end it."""
    boss = await room.visitor_as("boss")
    await boss.get("/products")
    wish = {"id": key(), "profile": "fixed-sos", "verb": "renew"}
    assert [(await boss.submit("/products", wish)).status_code for _ in range(3)] == [201, 303, 303]
    assert [held.decode() for held in room.products.keys("fixed-sos", room.sign_in.clock())][1] == secret
    assert len(deeds(room, "product.renew")) == 1
