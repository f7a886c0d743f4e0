"""What the pages about incidents share: the board, names, words, and how a page comes about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from fastapi import Request
from msgspec.structs import replace
from starlette.responses import HTMLResponse

from gateway.core.catalog import Catalog
from gateway.runtime.appraiser import Appraiser
from gateway.runtime.board import Board, Filter
from gateway.runtime.calls import NEED_TITLES
from gateway.runtime.clock import RunningClock
from gateway.runtime.device_desk import DeviceDesk
from gateway.runtime.door import DoorClient
from gateway.runtime.ports import Ledger
from gateway.runtime.products import ProductDesk
from gateway.runtime.rule_desk import RuleDesk
from gateway.runtime.stand import Stand, StandDesk
from gateway.runtime.trial_desk import TrialDesk
from gateway.runtime.writer import Catalogs
from gateway.web.access import gate_of
from gateway.web.atlas import Atlas
from gateway.web.explainer import Explainer
from gateway.web.languages import choose_language, pick
from gateway.web.names import NameBook
from gateway.web.pages import Pages
from gateway.web.rendering import Rendering, key_of
from gateway.web.sentences import Speaker
from gateway.web.words import LEVELS

PAGE: Final = 200
"""Rows that a list shows at once."""


class Console:
    """One for the web process. ``clock`` is the gateway's, which in a simulation runs faster than real time;
    ``catalogs`` finds those of earlier times."""

    def __init__(
        self,
        ledger: Ledger,
        door: DoorClient,
        catalog: Catalog,
        catalogs: Catalogs,
        clock: RunningClock,
        pages: Pages,
        stand: Stand | None = None,
        products: ProductDesk | None = None,
        *,
        is_test: bool = False,
    ) -> None:
        self.ledger: Final = ledger
        self.door: Final = door
        self.catalog: Final = catalog
        self.clock: Final = clock
        self.pages: Final = pages
        self.is_test: Final = is_test
        """The platform is declared a test: what is simulated counts in figures."""

        self.board: Final = Board(ledger, clock, clock.speed)
        self.names: Final = NameBook(ledger)
        self.atlas: Final = Atlas(ledger)
        self.explainer: Final = Explainer(ledger, catalog, catalogs)
        self.leaving: Final = asyncio.Event()
        """Set when the process ends: streams end then, and browsers come again."""

        self.listening = 0
        """Streams that are open now."""

        self.desk: Final = DeviceDesk(ledger, door, catalog, clock, products, clock.speed)
        self.products: Final = products
        self.rules: Final = RuleDesk(ledger, door, catalog, clock, is_test=is_test)
        self.appraiser: Final = Appraiser(ledger, catalog, clock, is_test=is_test)
        self.trials: Final = TrialDesk(ledger, catalog, catalogs, clock)
        self.stand: Final = StandDesk(stand, ledger, door, clock.speed)
        self.rendering: Final = Rendering(pages, self.board, self.words)

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        """Follows the ledger for as long as this is open."""
        tasks = [asyncio.create_task(work.run()) for work in (self.board, self.names, self.atlas)]
        try:
            async with self.trials.live():
                yield
        finally:
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks)

    def words(self, language: str) -> dict[str, Any]:
        """What templates about incidents call things, and what time it is."""
        names = self.names.names
        return {
            "now": self.clock(),
            "speed": self.clock.speed,
            "grid_name": names.grid,
            "community_name": names.community,
            "body_name": lambda body: self.name_body(body, language),
            "category_name": lambda code: self.name_category(code, language),
            "levels": [(str(level), pick(title, language)) for level, title in LEVELS.items()],
            "key_of": key_of,
            "needs_of": lambda id: [pick(NEED_TITLES[need], language) for need in self.board.needs(id)],
        }

    def recognise(self, wanted: Filter) -> Filter:
        """A filter that knows the grids and communities whose names its text stands in."""
        return replace(wanted, named=self.names.names.find(wanted.text)) if wanted.text else wanted

    def name_body(self, body: str, language: str) -> str:
        """A responsible body in words."""
        return pick(self.catalog.bodies.get(body, {"zh": body}), language)

    def name_category(self, code: str, language: str) -> str:
        """A category in words."""
        category = self.catalog.categories.get(code)
        return pick(category.title, language) if category is not None else code

    def speaker(self, language: str) -> Speaker:
        """Whoever reads timelines out in a language."""
        return Speaker(language, self.catalog, self.names.names.grid, self.clock())

    async def respond(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page, or a part of one."""
        visit = await gate_of(request).look(request)
        words = self.words(choose_language(request))
        return self.pages.respond(request, visit, template, status, **{**words, **values})
