"""The web process by itself: health, headers, and errors that a program can read."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.adapters.ledger import open_ledger
from gateway.adapters.memory_ledger import open_memory_ledger
from gateway.runtime.door import DoorClient, DoorServer, Entering
from gateway.web.app import create_app
from gateway.web.guard import HEADERS
from tests.web.test_callbacks import CATALOG, code_of


async def _answer(community: str, event: Entering, event_id: str) -> str:
    return "done"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    ledger = open_memory_ledger()
    app = create_app(ledger, DoorClient(tmp_path / "door.sock"), CATALOG)

    @app.get("/trips")
    async def trip() -> None:
        raise RuntimeError("a secret of ours")

    @app.get("/number")
    async def take_number(n: int) -> int:
        return n

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://web") as made:
        yield made
    ledger.close()


async def test_it_is_ready_when_the_ledger_is_read_and_the_gateway_is_there(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    away = await client.get("/readyz")
    door = DoorServer(tmp_path / "door.sock", _answer)
    await door.start()
    there = await client.get("/readyz")
    await door.stop()

    assert (away.status_code, away.json()) == (503, {"ledger": "readable", "gateway": "not there"})
    assert away.headers["retry-after"] == "5"
    assert (there.status_code, there.json()) == (200, {"ledger": "readable", "gateway": "there"})
    assert (await client.get("/healthz")).json() == {"status": "alive"}


async def test_a_ledger_that_cannot_be_read_is_not_ready_but_alive(tmp_path: Path) -> None:
    ledger = open_ledger("postgresql+psycopg://nobody@127.0.0.1:9/none")
    app = create_app(ledger, DoorClient(tmp_path / "door.sock"), CATALOG)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://web") as client:
        assert (await client.get("/readyz")).json() == {"ledger": "down", "gateway": "not there"}
        assert (await client.get("/healthz")).status_code == 200
    ledger.close()


async def test_every_answer_has_the_headers(client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz", "/no-such", "/trips", "/platform/callbacks"):
        answer = await client.get(path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path
        assert "server" not in answer.headers


async def test_errors_are_problems_with_stable_codes(client: httpx.AsyncClient) -> None:
    assert code_of(await client.get("/no-such")) == (404, "no-such-page")
    assert code_of(await client.get("/platform/callbacks")) == (405, "no-such-method")
    assert code_of(await client.get("/number?n=x")) == (422, "not-valid")
    assert "query.n" in (await client.get("/number?n=x")).json()["detail"]


async def test_what_we_trip_over_tells_nothing_of_our_insides(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = await client.get("/trips")

    assert code_of(answer) == (500, "fault")
    assert "secret" not in answer.text
    assert "a secret of ours" in caplog.text
