"""A gateway with its web process, for tests: pipeline, ledger in a file, door, and pages on a port of loopback.

The gateway's clock stands still until a test moves it; devices speak through the broker's place in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Self

import httpx
import uvicorn
from msgspec.structs import replace

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.calls import SqlCalls
from gateway.adapters.ledger import SqlLedger
from gateway.adapters.products import SqlProducts
from gateway.adapters.receivers import HttpReceivers
from gateway.adapters.secrets import ArgonSecrets
from gateway.adapters.webhooks import SqlWebhooks
from gateway.assembly import open_catalogs
from gateway.core.model import Device, Grid, GridLevel, Incident, Place, Role
from gateway.runtime.access import Actor
from gateway.runtime.board import Board
from gateway.runtime.clock import RunningClock
from gateway.runtime.door import DoorClient, DoorServer
from gateway.runtime.help_pages import PageKeys, issue_pages, plan_pages
from gateway.runtime.officers import Officers
from gateway.runtime.ports import Contact
from gateway.runtime.products import ProductDesk
from gateway.runtime.registrar import DistrictFile
from gateway.runtime.signing import Policy, SignIn
from gateway.runtime.webhook_desk import WebhookDesk
from gateway.web.access import Gate, Site
from gateway.web.app import create_app
from gateway.web.help_desk import HelpDesk
from gateway.wire import Lane, Message, Signal, encode_message, topic_of
from tests.core.worlds import DEVICES
from tests.runtime.world import HandClock, World, district_of, until
from tests.web.house import CHEAP, CLI, PASSWORD, Visitor

GRIDS = (
    Grid("370215", GridLevel.DISTRICT, "即墨区"),
    Grid("370215001", GridLevel.TOWN, "环秀街道", "370215"),
    Grid("370215002", GridLevel.TOWN, "潮海街道", "370215"),
)
CONTACTS = (
    Contact("family-1", "家属（模拟）", "family", "c001", "b1-u1-101", phone="000-0000-0001"),
    Contact("duty-1", "街道值班（模拟）", "duty", grid="370215001", phone="000-0000-0002"),
)
TOWNS = ("370215001", "370215002")


def two_towns(communities: int = 2, devices: Iterable[Device] = DEVICES) -> DistrictFile:
    """Copies of the small community: the odd ones lie in one town, the even ones in the other, each with a position."""
    made = district_of(communities, devices)
    placed = []
    for number, file in enumerate(made.communities):
        community = replace(file.community, grids=("370215", TOWNS[number % 2]))
        places = tuple(_place(place, number) for place in file.places)
        placed.append(replace(file, community=community, places=places))
    return replace(made, communities=tuple(placed), grids=())


def _place(place: Place, number: int) -> Place:
    """Somewhere in Jimo; the base grid's code is the place's of the original."""
    return replace(place, lon=120.44 + number * 0.02, lat=36.39 + number * 0.01, grid=None)


DEEP = (
    Grid("370215001001", GridLevel.CENTRE, "环秀一社区网格中心", "370215001"),
    Grid("37021500100101", GridLevel.STATION, "环秀一工作站", "370215001001"),
    Grid("370215001001001", GridLevel.BASE, "环秀一网格", "37021500100101"),
    Grid("370215001001002", GridLevel.BASE, "环秀二网格", "37021500100101"),
    Grid("370215901", GridLevel.DEPARTMENT, "应急管理局", "370215"),
    Grid("370215901001", GridLevel.SPECIAL, "应急专属网格", "370215901"),
)


def all_levels() -> DistrictFile:
    """Two communities: building 2 of the first lies in another base grid than the rest of it."""
    made = two_towns()
    first, second = made.communities
    grids = {"c001": "370215001001001", "b2": "370215001001002"}
    places = tuple(replace(place, grid=grids.get(place.id)) for place in first.places)
    community = replace(first.community, grids=(*first.community.grids, "370215001001"))
    return replace(
        made, grids=(*GRIDS, *DEEP), communities=(replace(first, community=community, places=places), second)
    )


class ControlRoom:
    """The whole of it. Use it as an async context."""

    is_test = False
    """Whether the platform is declared a test."""

    def __init__(self, folder: Path, district: DistrictFile | None = None) -> None:
        self.world = World(folder, district or two_towns())
        ledger = self.world.ledger
        assert isinstance(ledger, SqlLedger)
        ledger.put_district((district.grids if district is not None else ()) or GRIDS, [], CONTACTS)
        # The same hands as the gateway's, at the pace of real time: a page counts seconds.
        self.clock = HandClock(speed=1.0, moment=self.world.clock.moment)
        self.furnish(folder, ledger)
        self._door: DoorServer | None = None

    def furnish(self, folder: Path, ledger: SqlLedger) -> None:
        """What the web process needs, whichever gateway it stands beside."""
        self.folder, self.ledger = folder, ledger
        self.accounts = SqlAccounts(ledger.database)
        self.sign_in = SignIn(
            self.accounts, ArgonSecrets(bytes(32), CHEAP), RunningClock(), Policy(second_factor=frozenset())
        )
        self.officers = Officers(self.sign_in, ledger)
        self.webhooks = SqlWebhooks(ledger.database, bytes(32))
        self.products = SqlProducts(ledger.database, bytes(32))
        self.page_keys = PageKeys(folder)
        self.url = ""
        self._port = 0
        self._web: tuple[uvicorn.Server, asyncio.Task[None]] | None = None
        self.clients: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Self:
        await self.open_gateway()
        await self.open_web()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            await client.aclose()
        await self.close_web()
        await self.close_gateway()
        await self.world.close()

    # --- its parts ------------------------------------------------------------------------------------------------

    async def open_gateway(self) -> None:
        await self.world.start()
        self._door = DoorServer(self.folder / "door.sock", self.world.pipeline.submit, self.world.pipeline.look)
        await self._door.start()

    async def close_gateway(self) -> None:
        if self._door is not None:
            await self._door.stop()
            self._door = None
            await self.world.stop()

    async def open_web(self) -> None:
        """The pages, on the port that they had before."""
        door = DoorClient(self.folder / "door.sock")
        calls = SqlCalls(self.ledger.database, bytes(32))
        self.app = create_app(
            self.ledger,
            door,
            self.world.catalog,
            gate=Gate(self.sign_in, self.officers, Site()),
            gateway_clock=self.clock,
            catalogs=open_catalogs(self.ledger, self.world.catalog),
            desk=HelpDesk(self.ledger, calls, door, self.page_keys, RunningClock()),
            webhooks=WebhookDesk(self.ledger, self.webhooks, HttpReceivers(), RunningClock()),
            products=ProductDesk(self.ledger, self.products, self.world.catalog, RunningClock()),
            is_test=self.is_test,
        )
        listening = socket.create_server(("127.0.0.1", self._port))
        self._port = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        config = uvicorn.Config(self.app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        # Its own way to take signals is for the main program.
        task = asyncio.create_task(server._serve([listening]))
        self._web = server, task
        await until(lambda: server.started)
        await until(lambda: self.board.is_fresh)

    async def close_web(self) -> None:
        if self._web is not None:
            server, task = self._web
            server.should_exit = True
            await task
            self._web = None

    @property
    def board(self) -> Board:
        board: Board = self.app.state.console.board
        return board

    # --- people ---------------------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        role: Role = Role.DISPATCHER,
        grids: tuple[str, ...] = ("370215",),
        communities: tuple[str, ...] = (),
        title: str = "",
    ) -> Actor:
        """An account that can sign in with `PASSWORD`."""
        account, _ = self.officers.add(CLI, name, title, password=PASSWORD, must_change=False)
        actor = self.officers.grant(CLI, account.id, role, grids, communities, "").actor()
        assert actor is not None
        return actor

    def visitor(self) -> Visitor:
        """A browser without scripts that has never been here."""
        client = httpx.AsyncClient(
            base_url=self.url, headers={"Accept": "text/html", "Origin": self.url}, trust_env=False, timeout=60
        )
        self.clients.append(client)
        return Visitor(client)

    async def visitor_as(self, name: str) -> Visitor:
        visitor = self.visitor()
        answer = await visitor.sign_in(name)
        assert answer.status_code == 303, answer.text
        return visitor

    # --- what happens ---------------------------------------------------------------------------------------------

    async def issue_page(self, community: str, place: str) -> str:
        """The address of a new help page of a place."""
        state = self.world.pipeline.writers[community].engine.snapshot()
        [page], change = plan_pages(state, [place], phone="000-0000-0000", actor="test")
        door = DoorClient(self.folder / "door.sock")
        await issue_pages(door, community, change)
        await door.close()
        return f"/r/{self.page_keys.sign(page.code)}"

    async def press(self, device: str = "sos-1", community: str = "c001") -> Incident:
        """Somebody presses a button; the incident that it opened, or joined."""
        event = self.world.press(device, community)
        return await self.wait_for_incident(event)

    def press_own(self, device: str, community: str = "c001") -> None:
        """Somebody presses a device that speaks for itself."""
        now = self.world.clock()
        pressed = (Signal(device, "pressed", {}),)
        message = Message(community, device, Lane.ALARM, "own1", 1, 1, now, now, pressed, [], (), 0)
        self.world.inbox.send(topic_of(community, device, Lane.ALARM), encode_message(message))

    async def wait_for_incident(self, event: str) -> Incident:
        """The incident that stands on an event, once it is on the board."""

        def look() -> Incident | None:
            found = [i for i in self.world.incidents() if any(line.event == event for line in i.timeline)]
            return found[0] if found and self.board.position >= self.ledger.position() else None

        await until(look)
        found = look()
        assert found is not None
        return found

    async def caught_up(self) -> None:
        """Until the board knows all that is in the ledger."""
        await until(lambda: self.board.position >= self.ledger.position())

    @contextlib.asynccontextmanager
    async def listen(self, visitor: Visitor, path: str, last: int | None = None) -> AsyncIterator[Listener]:
        """A stream of server-sent events, as a browser opens it."""
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        async with visitor.client.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield Listener(answer)


class Listener:
    """Reads a stream's events."""

    def __init__(self, answer: httpx.Response) -> None:
        self.type = answer.headers["content-type"]
        self.last = -1
        self._lines = answer.aiter_lines()

    async def next(self, *names: str) -> tuple[str, dict[str, Any]]:
        """The next event of one of these names; all others on the way are passed over."""
        async with asyncio.timeout(10):
            name = ""
            async for line in self._lines:
                field, _, value = line.partition(": ")
                if field == "id":
                    self.last = int(value)
                elif field == "event":
                    name = value
                elif field == "data" and name in names:
                    return name, json.loads(value)
        raise AssertionError(f"the stream ended without {names}")
