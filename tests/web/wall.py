"""A community's gateway in this process, the web process's application before it, and one help page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import httpx

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.calls import SqlCalls
from gateway.adapters.ledger import SqlLedger
from gateway.assembly import open_catalogs
from gateway.core.model import Incident, OperatorAction
from gateway.runtime.accounts import AuditFilter
from gateway.runtime.door import DoorClient, DoorServer
from gateway.runtime.help_pages import HelpPage, PageCode, PageKeys, issue_pages, plan_pages
from gateway.runtime.writer import load_engine
from gateway.web.app import create_app
from gateway.web.help_desk import HelpDesk
from tests.runtime.world import World
from tests.web.house import NOON

JSON: Final = {"Accept": "application/json"}
PHONE: Final = "0532-5550100"


def secret(number: int) -> str:
    """What a page makes for a press."""
    return f"{number:032x}"


class Wall:
    """The page is that of ``b1-u1``. ``now`` is the clock of the web process; the gateway's is the world's."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        assert isinstance(world.ledger, SqlLedger)
        self.ledger = world.ledger
        self.now = NOON
        self.socket = folder / "door.sock"
        self.door = DoorClient(self.socket)
        self.server = DoorServer(self.socket, world.pipeline.submit)
        self.keys = PageKeys(folder)
        self.calls = SqlCalls(self.ledger.database, bytes(32))
        self.desk = HelpDesk(self.ledger, self.calls, self.door, self.keys, lambda: self.now, door_s=0.3)
        self.app = create_app(self.ledger, self.door, world.catalog, desk=self.desk)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://web")
        self.page = HelpPage(PageCode("c001", "b1-u1", 0), "", "", "")

    async def open(self) -> None:
        await self.world.start()
        self.server = DoorServer(self.socket, self.world.pipeline.submit)
        await self.server.start()

    async def stop_gateway(self) -> None:
        await self.server.stop()
        await self.world.stop()

    async def issue(self, *places: str, **options: Any) -> list[HelpPage]:
        [community] = self.ledger.communities()
        catalogs = open_catalogs(self.ledger, self.world.catalog)
        state = load_engine(self.ledger, community, catalogs, self.world.catalog).engine.snapshot()
        pages, change = plan_pages(state, places, **{"phone": PHONE, "actor": "cli:chen", **options})
        await issue_pages(self.door, "c001", change)
        return pages

    @property
    def path(self) -> str:
        return f"/r/{self.keys.sign(self.page.code)}"

    async def press(self, id: str = secret(1), path: str | None = None, **fields: str) -> httpx.Response:
        return await self.client.post(path or self.path, data={"id": id, **fields}, headers=JSON)

    async def look(self, id: str = secret(1)) -> dict[str, Any]:
        answer = await self.client.get(f"/r/receipt/{id}", headers=JSON)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def act(self, verb: str, reason: str = "", actor: str = "li", **more: Any) -> None:
        case = self.cases()[-1]
        action = OperatorAction(f"{verb}-{case.revision}", actor, case.id, verb, reason, **more)
        assert await self.door.submit("c001", action, action.id) == "done"

    def cases(self) -> list[Incident]:
        """What was opened for presses, the oldest first."""
        return sorted(self.world.incidents(cause="sos"), key=lambda case: (case.opened_at, case.number))

    def audit(self) -> list[tuple[str, str, str, str]]:
        rows = SqlAccounts(self.ledger.database).find_audit(AuditFilter(what="press"), 500)
        return [(row.deed.about, row.deed.outcome, row.deed.detail, row.deed.where) for row in reversed(rows)]

    async def close(self) -> None:
        await self.client.aclose()
        await self.door.close()
        await self.server.stop()
        await self.world.close()
