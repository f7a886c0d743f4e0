"""Setting webhooks up and looking after them, for pages and programs alike.

Whoever makes one gives it a scope inside their own, and sees and changes only those whose scope lies inside their own.
A secret is made here, shown once and kept sealed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from gateway.core.district import climb
from gateway.core.model import Community, Grid
from gateway.core.worktime import DAY_MS
from gateway.runtime.access import Actor
from gateway.runtime.accounts import Deed, make_secret, scope_text
from gateway.runtime.keys import make_event_id
from gateway.runtime.ports import Clock, Ledger
from gateway.runtime.webhook_courier import Courier
from gateway.runtime.webhooks import KINDS, MOST, AddressRefused, Delivery, Receivers, Webhook, Webhooks, make_test

LONGEST_TITLE: Final = 60
OVERLAP_MS: Final = DAY_MS
"""After a renewal the secret before signs on for so long."""

TESTS: Final = 5
"""Test events of one webhook that may wait."""

SHOWN: Final = 100


class Unfit(Exception):
    """It cannot be done. ``code`` is stable: ``title``, ``kinds``, ``scope``, ``too-many``, ``off``, ``verb``, or one
    of AddressRefused's; ``words`` say it with the particulars; ``field`` is what is to be mended."""

    def __init__(self, code: str, words: str, field: str = "") -> None:
        super().__init__(words)
        self.code = code
        self.words = words
        self.field = field


class WebhookWish(Struct, frozen=True):
    """A webhook to make. ``id`` is the request's key: the same wish again makes no second one."""

    id: str
    title: str
    url: str
    kinds: tuple[str, ...]
    grids: tuple[str, ...] = ()
    communities: tuple[str, ...] = ()


class Hooked(Struct, frozen=True):
    """What came of it: the webhook as it is now, and its new secret where it got one, which nobody can ask for
    again. ``is_repeat``: it had happened already."""

    webhook: Webhook
    secret: str = ""
    is_repeat: bool = False


class Scope(Struct, frozen=True):
    """Grids and communities as the ledger knows them."""

    grids: dict[str, Grid]
    communities: dict[str, Community]

    def lies_inside(self, actor: Actor, grids: Sequence[str], communities: Sequence[str]) -> bool:
        """Whether all of this is in the actor's own scope."""
        return all(any(held in climb(grid, self.grids) for held in actor.grids) for grid in grids) and all(
            id in self.communities and actor.covers(id, self.communities[id].grids) for id in communities
        )


class WebhookDesk:
    """One for the web process. ``clock`` is real time; ``courier`` delivers, where this process does."""

    def __init__(
        self, ledger: Ledger, webhooks: Webhooks, receivers: Receivers, clock: Clock, courier: Courier | None = None
    ) -> None:
        self._ledger = ledger
        self._webhooks = webhooks
        self._receivers = receivers
        self._clock = clock
        self._courier = courier

    async def run(self) -> None:
        """Delivers until cancelled."""
        try:
            if self._courier is not None:
                await self._courier.run()
        finally:
            await self._receivers.close()

    async def list_all(self, actor: Actor) -> list[Webhook]:
        """Those of the actor's scope. Raises LedgerDown."""
        scope = await asyncio.to_thread(self._read_scope)
        found = await asyncio.to_thread(self._webhooks.webhooks)
        return [one for one in found if scope.lies_inside(actor, one.grids, one.communities)]

    async def find(self, actor: Actor, id: str) -> Webhook:
        """Raises LookupError for one that is not there, or not in the actor's scope."""
        found = await asyncio.to_thread(self._webhooks.webhook, id)
        scope = await asyncio.to_thread(self._read_scope)
        if found is None or not scope.lies_inside(actor, found.grids, found.communities):
            raise LookupError(id)
        return found

    async def add(self, actor: Actor, where: str, wish: WebhookWish) -> Hooked:
        """Raises Unfit, LedgerDown."""
        id = hashlib.sha256(make_event_id("webhook", actor, wish.id, wish).encode()).hexdigest()[:32]
        known = await asyncio.to_thread(self._webhooks.webhook, id)
        if known is not None:
            return Hooked(known, is_repeat=True)
        title = wish.title.strip()
        if not title or len(title) > LONGEST_TITLE or not title.isprintable():
            raise Unfit("title", f"a title is a line of at most {LONGEST_TITLE} characters", "title")
        kinds = tuple(kind for kind in KINDS if kind in wish.kinds)
        if not kinds or len(kinds) != len(set(wish.kinds)):
            raise Unfit("kinds", f"kinds are some of {', '.join(KINDS)}", "kinds")
        grids, communities = tuple(sorted(set(wish.grids))), tuple(sorted(set(wish.communities)))
        scope = await asyncio.to_thread(self._read_scope)
        if not (grids or communities) or not scope.lies_inside(actor, grids, communities):
            raise Unfit("scope", "name grids or communities, each inside your own scope", "grids")
        try:
            await self._receivers.check(wish.url)
        except AddressRefused as error:
            raise Unfit(error.code, error.words, "url") from error
        now = self._clock()
        secret = make_secret()
        webhook = Webhook(id, title, wish.url, kinds, grids, communities, actor.name, now)
        detail = f"{_host(wish.url)}, {', '.join(kinds)}, {scope_text(grids, communities)}"
        made = await asyncio.to_thread(
            self._webhooks.add, webhook, secret, self._deed(actor, where, "webhook.add", id, detail)
        )
        if made is None:
            raise Unfit("too-many", f"there are {MOST} webhooks already; take one away first")
        return Hooked(made, secret)

    async def alter(self, actor: Actor, where: str, id: str, verb: str, key: str) -> Hooked:
        """``off``, ``on``, ``renew`` (another secret), ``test`` (an event to try it with), or ``drop``. Raises Unfit,
        LookupError, LedgerDown."""
        webhook = await self.find(actor, id)
        now = self._clock()
        deed = self._deed(actor, where, f"webhook.{verb}", id, _host(webhook.url))
        match verb:
            case "off":
                await asyncio.to_thread(self._webhooks.switch, id, now, deed)
            case "on":
                await asyncio.to_thread(self._webhooks.switch, id, None, deed)
            case "renew":
                secret, wish = make_secret(), make_event_id("webhook.renew", actor, key, id)
                if not await asyncio.to_thread(self._webhooks.renew, id, secret, wish, now + OVERLAP_MS, deed):
                    return Hooked(webhook, is_repeat=True)
                return Hooked(await self.find(actor, id), secret)
            case "test":
                if not webhook.is_on:
                    raise Unfit("off", "it is switched off: nothing is sent")
                if not await asyncio.to_thread(self._webhooks.send, make_test(webhook, key, now), TESTS, deed):
                    raise Unfit("too-many", f"{TESTS} test events wait already")
            case "drop":
                await asyncio.to_thread(self._webhooks.drop, id, deed)
                return Hooked(webhook)
            case _:
                raise Unfit("verb", "it is off, on, renew, test or drop", "verb")
        if self._courier is not None:
            self._courier.kick()
        return Hooked(await self.find(actor, id))

    async def list_deliveries(
        self, actor: Actor, id: str, limit: int = SHOWN, before: int | None = None
    ) -> list[Delivery]:
        """The newest, without their bodies. Raises LookupError, LedgerDown."""
        await self.find(actor, id)
        return await asyncio.to_thread(self._webhooks.deliveries, id, limit, before)

    async def send_again(self, actor: Actor, where: str, id: str, delivery: str, key: str) -> bool:
        """Whether there is such a delivery that does not wait already, and that ``key`` has not sent again. Raises
        LookupError, LedgerDown."""
        await self.find(actor, id)
        deed = self._deed(actor, where, "webhook.again", id, delivery)
        wish = make_event_id("webhook.again", actor, key, id, delivery)
        is_found = await asyncio.to_thread(self._webhooks.send_again, id, delivery, wish, self._clock(), deed)
        if self._courier is not None:
            self._courier.kick()
        return is_found

    def _read_scope(self) -> Scope:
        grids = {grid.code: grid for grid in self._ledger.grids()}
        return Scope(grids, {community.id: community for community in self._ledger.communities()})

    def _deed(self, actor: Actor, where: str, what: str, id: str, detail: str) -> Deed:
        return Deed(self._clock(), actor.name, what, id, where, detail=detail, role=actor.role)


def _host(url: str) -> str:
    """Of an address, what may stand in a log: its path may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
