"""A web process with accounts, for tests: its pages over ASGI, a clock to turn, and visitors with their own cookies."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import httpx
import pyotp
from argon2 import PasswordHasher
from msgspec.structs import replace

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.calls import SqlCalls
from gateway.adapters.memory_ledger import open_memory_ledger
from gateway.adapters.products import SqlProducts
from gateway.adapters.receivers import HttpReceivers
from gateway.adapters.secrets import ArgonSecrets
from gateway.adapters.webhooks import SqlWebhooks
from gateway.core.model import Community, Grid, GridLevel, Role
from gateway.runtime.access import MACHINES, ROLE_TITLES
from gateway.runtime.accounts import Account, AuditFilter, Deed, Portal
from gateway.runtime.door import DoorClient
from gateway.runtime.help_pages import PageKeys
from gateway.runtime.officers import Hand, Officers
from gateway.runtime.products import ProductDesk
from gateway.runtime.signing import Policy, SignIn
from gateway.runtime.webhook_desk import WebhookDesk
from gateway.web.access import Gate, Site
from gateway.web.app import create_app
from gateway.web.help_desk import HelpDesk
from tests.web.test_callbacks import CATALOG

NOON: Final = 1_795_435_200_000  # 2026-11-23T12:00:00Z
HTTPS: Final = "https://gateway.test"
CHEAP: Final = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD: Final = "Lanting-7-Willows"
ANOTHER: Final = "Harbour-9-Magpies"
CLI: Final = Hand("cli:root")
DISTRICT: Final = "370215"
TOWN: Final = "370215001"
LOOPBACK: Final = (ip_network("127.0.0.0/8"),)
COMMUNITIES: Final = (
    Community("c001", 1, "一号小区", (DISTRICT, TOWN, "370215001001")),
    Community("c002", 2, "二号小区", (DISTRICT, "370215002", "370215002001")),
)


class House:
    """The application, and all that stands behind it. ``now`` is its clock."""

    def __init__(
        self,
        policy: Policy | None = None,
        public_url: str | None = HTTPS,
        portal: Portal | None = None,
        trusted_proxies: tuple[str, ...] = (),
    ) -> None:
        self.now = NOON
        self.ledger = open_memory_ledger()
        self.ledger.add_communities(COMMUNITIES)
        levels = (GridLevel.DISTRICT, GridLevel.TOWN, GridLevel.CENTRE)
        chains = [
            list(zip(community.grids, levels, (None, *community.grids[:-1]), strict=True)) for community in COMMUNITIES
        ]
        grids = {code: Grid(code, level, f"网格{code}", up) for chain in chains for code, level, up in chain}
        self.ledger.put_district(list(grids.values()), [], [])
        self.accounts = SqlAccounts(self.ledger.database)
        self.secrets = ArgonSecrets(bytes(32), CHEAP)
        self.sign_in = SignIn(
            self.accounts, self.secrets, lambda: self.now, policy or Policy(second_factor=frozenset())
        )
        self.officers = Officers(self.sign_in, self.ledger)
        self.origin = public_url or "http://127.0.0.1:8080"
        self.webhooks = SqlWebhooks(self.ledger.database, bytes(32))
        self.app = create_app(
            self.ledger,
            DoorClient(Path("/nowhere/door.sock")),
            CATALOG,
            clock=lambda: self.now,
            gate=Gate(self.sign_in, self.officers, Site(public_url)),
            portal=portal,
            trusted_proxies=trusted_proxies,
            desk=HelpDesk(
                self.ledger,
                SqlCalls(self.ledger.database, bytes(32)),
                DoorClient(Path("/nowhere/door.sock")),
                PageKeys(Path("/nowhere")),
                lambda: self.now,
            ),
            webhooks=WebhookDesk(self.ledger, self.webhooks, HttpReceivers(LOOPBACK), lambda: self.now),
            products=ProductDesk(self.ledger, SqlProducts(self.ledger.database, bytes(32)), CATALOG, lambda: self.now),
        )
        self.app.state.console.leaving.set()  # nobody listens here: a stream ends as soon as it has begun

    def close(self) -> None:
        self.ledger.close()

    def add(
        self,
        name: str,
        role: Role | None = Role.DISPATCHER,
        *,
        title: str = "",
        grids: tuple[str, ...] = (DISTRICT,),
        communities: tuple[str, ...] = (),
        portal: str = "",
        must_change: bool = False,
    ) -> Account:
        """An account with `PASSWORD`."""
        account, _ = self.officers.add(
            CLI,
            name,
            title,
            password=PASSWORD,
            must_change=must_change,
            is_machine=role in MACHINES,
        )
        return self.officers.grant(CLI, account.id, role, grids, communities, portal)

    def add_all(self) -> dict[Role, Account]:
        """An account for each role, named after it."""
        return {role: self.add(role.replace("_", "-"), role) for role in ROLE_TITLES}

    def give_factor(self, account: Account) -> pyotp.TOTP:
        """A device for one-time codes, as the person holds it."""
        factor, uri = self.sign_in.offer_factor(account)
        present = self.accounts.account(account.id)
        assert present is not None
        self.accounts.change_account(replace(present, factor=factor), Deed(self.now, "test", "factor.change"))
        return read_device(uri)

    def token(self, account: Account, *permissions: Any, days: int = 30) -> str:
        secret, _ = self.sign_in.issue_token(
            account, "a program", permissions, days, Deed(self.now, account.name, "token.add", account.name)
        )
        return secret

    def visitor(self, address: str = "10.1.1.1", headers: Mapping[str, str] | None = None) -> Visitor:
        """A browser that has never been here."""
        transport = httpx.ASGITransport(self.app, client=(address, 50_000))
        client = httpx.AsyncClient(
            transport=transport,
            base_url=self.origin,
            headers={"Accept": "text/html", "Origin": self.origin, **(headers or {})},
        )
        return Visitor(client)

    async def visitor_as(self, name: str, address: str = "10.1.1.1") -> Visitor:
        """A browser in which this account has signed in with `PASSWORD` alone."""
        visitor = self.visitor(address)
        answer = await visitor.sign_in(name)
        assert answer.status_code == 303, answer.text
        return visitor

    def deeds(self, what: str = "") -> list[Deed]:
        """What stands in the audit log, the newest first."""
        return [row.deed for row in self.accounts.find_audit(AuditFilter(what=what), 1000)]


class Visitor:
    """A browser: it keeps cookies, and sends a page's form with the page's token."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.page = ""

    async def get(self, path: str, **more: Any) -> httpx.Response:
        answer = await self.client.get(path, **more)
        self.page = answer.text
        return answer

    async def submit(self, path: str, fields: Mapping[str, str] | None = None, **more: Any) -> httpx.Response:
        """Sends a form with the token of the page that was loaded last."""
        answer = await self.client.post(path, data={"csrf": self.csrf, **(fields or {})}, **more)
        if answer.status_code != 303:
            self.page = answer.text
        return answer

    async def sign_in(self, name: str, password: str = PASSWORD, next: str = "/") -> httpx.Response:
        await self.get("/login")
        return await self.submit("/login", {"name": name, "password": password, "next": next})

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.page)
        return found[1] if found else ""

    def hidden(self, name: str) -> str:
        """What a hidden field of the page's own form holds; the form for the language stands before it."""
        found = re.findall(rf'name="{name}" value="([^"]*)"', self.page)
        assert found, self.page
        return html.unescape(found[-1])

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.client.cookies.items() if name != "language")


def read_device(uri: str) -> pyotp.TOTP:
    """The device that has scanned this."""
    device = pyotp.parse_uri(uri)
    assert isinstance(device, pyotp.TOTP)
    return device
