"""Webhooks by the API and on their pages: made inside one's scope, to addresses outside, with a secret that is shown
once."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from gateway.core.model import Role
from gateway.runtime.access import Permission
from gateway.runtime.webhooks import Ended, Outcome, State
from tests.web.house import DISTRICT, NOON, TOWN, House, Visitor
from tests.web.test_callbacks import code_of

BODY = {
    "title": "街道大屏",
    "url": "http://127.0.0.1:9/hook/of-a-secret-path",
    "kinds": ["incident.opened", "incident.closed"],
    "grids": [TOWN],
}
KEY = "a-key-of-a-program-0001"


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def program(house: House, grids: tuple[str, ...] = (DISTRICT,), name: str = "wang") -> httpx.AsyncClient:
    account = house.add(name, Role.ADMINISTRATOR, grids=grids)
    token = house.token(account, Permission.WEBHOOKS_CHANGE)
    transport = httpx.ASGITransport(house.app, client=("10.1.1.1", 50_000))
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": KEY}
    return httpx.AsyncClient(transport=transport, base_url=f"{house.origin}/api/v1", headers=headers)


async def test_a_webhook_is_made_once_and_its_secret_is_told_once(house: House) -> None:
    api = program(house)
    made = (await api.post("/webhooks", json=BODY)).json()
    assert len(made["secret"]) == 43
    id = made["webhook"]["id"]
    assert house.webhooks.keys(id, NOON) == [made["secret"].encode()]
    again = (await api.post("/webhooks", json=BODY)).json()
    assert (again["webhook"]["id"], again["secret"], again["is_repeat"]) == (id, "", True)
    shown = await api.get(f"/webhooks/{id}")
    assert made["secret"] not in shown.text + (await api.get("/webhooks")).text
    [deed] = house.deeds("webhook.add")
    assert (deed.who, deed.about, deed.where) == ("wang", id, "10.1.1.1")
    assert "http://127.0.0.1:9," in deed.detail
    assert "secret-path" not in deed.detail


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"url": "https://169.254.169.254/latest"}, 409, "private-address"),
        ({"url": "https://10.0.0.1/"}, 409, "private-address"),
        ({"url": "http://203.0.114.1/"}, 409, "plain-http"),
        ({"url": "file:///etc/passwd"}, 409, "bad-address"),
        ({"kinds": ["incident.opened", "everything"]}, 409, "kinds"),
        ({"grids": []}, 409, "scope"),
        ({"grids": ["370999"]}, 409, "scope"),
        ({"grids": [], "communities": ["c999"]}, 409, "scope"),
        ({"title": " "}, 409, "title"),
        ({"more": 1}, 422, "not-valid"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_field(
    house: House, change: dict[str, object], status: int, code: str
) -> None:
    answer = await program(house).post("/webhooks", json={**BODY, **change})
    assert code_of(answer) == (status, code)
    assert house.webhooks.webhooks() == []


async def test_nobody_tells_more_than_their_own_scope_or_sees_what_is_told_beyond_it(house: House) -> None:
    whole, town = program(house), program(house, (TOWN,), "li")
    id = (await whole.post("/webhooks", json={**BODY, "grids": [DISTRICT]})).json()["webhook"]["id"]
    assert (await town.get("/webhooks")).json() == {"items": []}
    for method, path, body in (
        ("GET", f"/webhooks/{id}", None),
        ("GET", f"/webhooks/{id}/deliveries", None),
        ("POST", f"/webhooks/{id}/changes", {"verb": "drop"}),
        ("POST", f"/webhooks/{id}/deliveries/again", {"id": "x"}),
    ):
        assert code_of(await town.request(method, path, json=body)) == (404, "unknown")
    for scope in ({"grids": [DISTRICT]}, {"grids": ["370215002"]}, {"grids": [], "communities": ["c002"]}):
        assert code_of(await town.post("/webhooks", json={**BODY, **scope})) == (409, "scope")
    assert (await town.post("/webhooks", json={**BODY, "grids": [], "communities": ["c001"]})).status_code == 200


async def test_a_webhook_is_tried_switched_renewed_and_taken_away(house: House) -> None:
    api = program(house)
    made = (await api.post("/webhooks", json=BODY)).json()
    id, path = made["webhook"]["id"], f"/webhooks/{made['webhook']['id']}"

    async def change(verb: str, key: str = KEY) -> httpx.Response:
        return await api.post(f"{path}/changes", json={"verb": verb}, headers={"Idempotency-Key": key})

    assert (await change("test")).status_code == (await change("test")).status_code == 200
    [sent] = (await api.get(f"{path}/deliveries")).json()["items"]
    assert (sent["id"], sent["kind"], sent["state"]) == (f"test/{KEY}", "test", "waiting")
    renewed = (await change("renew")).json()
    assert renewed["secret"] not in ("", made["secret"])
    assert (await change("renew")).json()["secret"] == ""
    assert house.webhooks.keys(id, NOON) == [renewed["secret"].encode(), made["secret"].encode()]
    assert (await change("off")).json()["webhook"]["off_why"] == "by-hand"
    assert code_of(await change("test", KEY + "2")) == (409, "off")
    assert "off_at" not in (await change("on")).json()["webhook"]
    house.webhooks.settle([Outcome(id, sent["id"], Ended.DONE, NOON, "200 ok")])
    for state in (State.WAITING, State.DONE):  # the same key sends nothing again a second time
        assert (await api.post(f"{path}/deliveries/again", json={"id": sent["id"]})).status_code == 200
        assert house.webhooks.deliveries(id, 9)[0].state is state
        house.webhooks.settle([Outcome(id, sent["id"], Ended.DONE, NOON, "200 ok")])
    for number in range(5):
        await change("test", f"{KEY}-{number}")
    assert code_of(await change("test", f"{KEY}-9")) == (409, "too-many")
    page = (await api.get(f"{path}/deliveries", params={"limit": 2})).json()
    assert len(page["items"]) >= 1
    assert (await change("drop")).status_code == 200
    assert code_of(await api.get(path)) == (404, "unknown")
    whats = {deed.what for deed in house.deeds("webhook.")}
    assert whats == {f"webhook.{verb}" for verb in ("add", "test", "renew", "off", "on", "again", "drop")}


async def test_the_pages_make_one_show_its_secret_once_and_how_it_goes(house: House) -> None:
    house.add("wang", Role.ADMINISTRATOR)
    visitor: Visitor = await house.visitor_as("wang")
    assert "还没有推送对象" in (await visitor.get("/webhooks")).text
    url = str(BODY["url"])
    form = {"id": "a" * 32, "title": "<b>大屏</b>", "url": url, "kind.incident.opened": "1", "grids": TOWN}
    refused = await visitor.submit("/webhooks", {**form, "url": "https://10.0.0.1/"})
    assert refused.status_code == 422
    assert "内部地址" in refused.text
    made = await visitor.submit("/webhooks", form)
    assert made.status_code == 201
    [hook] = house.webhooks.webhooks()
    secret = house.webhooks.keys(hook.id, NOON)[0].decode()
    assert secret in made.text
    assert "<b>大屏" not in made.text
    assert (await visitor.submit("/webhooks", form)).status_code == 303
    page = await visitor.get(f"/webhooks/{hook.id}")
    assert secret not in page.text
    sent = await visitor.submit(f"/webhooks/{hook.id}/changes", {"id": "b" * 32, "verb": "test"})
    assert sent.headers["location"] == f"/webhooks/{hook.id}?done=test"
    [waiting] = house.webhooks.deliveries(hook.id, 9)
    shown = await visitor.get(f"/webhooks/{hook.id}/deliveries")
    assert "hx-get" in shown.text
    house.webhooks.settle([Outcome(hook.id, waiting.id, Ended.REFUSED, NOON, "422 <script>")])
    shown = await visitor.get(f"/webhooks/{hook.id}/deliveries")
    assert "422 &lt;script&gt;" in shown.text
    assert "hx-get" not in shown.text
    assert (await visitor.submit(f"/webhooks/{hook.id}/again", {"id": KEY, "delivery": waiting.id})).status_code == 303
    house.webhooks.settle([Outcome(hook.id, waiting.id, Ended.GONE, NOON, "410")])
    assert "对方答复 410" in (await visitor.get("/webhooks")).text
    dropped = await visitor.submit(f"/webhooks/{hook.id}/changes", {"id": "c" * 32, "verb": "drop"})
    assert dropped.headers["location"] == "/webhooks"
