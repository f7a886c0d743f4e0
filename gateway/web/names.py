"""Names of grids and communities by their codes, as the ledger has them; read again when they are old."""

from __future__ import annotations

import asyncio
import logging
from functools import cached_property
from typing import Final

from msgspec import Struct

from gateway.core.model import Community, Grid, GridLevel
from gateway.runtime.access import Actor
from gateway.runtime.ports import Ledger, LedgerDown

log = logging.getLogger(__name__)

FRESH_S: Final = 60.0
_OFFERED: Final = {GridLevel.DISTRICT: 0, GridLevel.TOWN: 1, GridLevel.CENTRE: 2}
"""Levels of the grid by which one filters, and how deep they stand in a list; thousands of base grids help nobody."""


class Names(Struct, frozen=True, dict=True):
    """What things are called. A code that has no name stands for itself."""

    grids: dict[str, Grid] = {}
    communities: dict[str, Community] = {}

    @cached_property
    def below(self) -> dict[str, list[str]]:
        """The codes of the grids right below each grid, in order."""
        found: dict[str, list[str]] = {}
        for code, grid in sorted(self.grids.items(), key=lambda pair: pair[0]):
            if grid.parent is not None:
                found.setdefault(grid.parent, []).append(code)
        return found

    def grid(self, code: str) -> str:
        """A grid's name."""
        found = self.grids.get(code)
        return found.name if found is not None else code

    def chain(self, code: str) -> tuple[str, ...]:
        """The grid's code after those of the grids that it lies in, from the district down."""
        found: list[str] = []
        here: str | None = code
        while here is not None and here in self.grids and here not in found:
            found.append(here)
            here = self.grids[here].parent
        return tuple(reversed(found))

    def community(self, id: str) -> str:
        """A community's name."""
        found = self.communities.get(id)
        return found.name if found is not None else id

    def find(self, text: str) -> frozenset[str]:
        """Codes of grids and ids of communities whose names ``text`` stands in."""
        wanted = text.casefold()
        named = {one.code: one.name for one in self.grids.values()} | {c.id: c.name for c in self.communities.values()}
        return frozenset(key for key, name in named.items() if wanted in name.casefold())

    def offer_grids(self, actor: Actor) -> list[tuple[str, str, int]]:
        """Code, name and depth of the grids that somebody may filter by, each below its parent."""
        below: dict[str | None, list[Grid]] = {}
        for grid in self.grids.values():
            below.setdefault(grid.parent, []).append(grid)
        found: list[tuple[str, str, int]] = []

        def walk(parent: str | None, is_mine: bool, depth: int) -> None:
            for grid in sorted(below.get(parent, ()), key=lambda grid: grid.code):
                if grid.level not in _OFFERED:
                    continue
                mine = is_mine or grid.code in actor.grids
                if mine:
                    found.append((grid.code, grid.name, depth))
                walk(grid.code, mine, depth + mine)

        walk(None, is_mine=False, depth=0)
        return found

    def offer_communities(self, actor: Actor) -> list[tuple[str, str]]:
        """Id and name of the communities that somebody may see, by name."""
        seen = [c for c in self.communities.values() if actor.covers(c.id, c.grids)]
        return sorted(((c.id, c.name) for c in seen), key=lambda pair: pair[1])


class NameBook:
    """Reads the names, and again once a minute."""

    def __init__(self, ledger: Ledger) -> None:
        self.names = Names()
        self._ledger = ledger

    async def run(self) -> None:
        """Keeps them fresh for ever."""
        while True:
            try:
                self.names = await asyncio.to_thread(self._read)
            except LedgerDown as error:
                log.warning("names stay as they were: %s", error)
                await asyncio.sleep(1)
                continue
            await asyncio.sleep(FRESH_S)

    def _read(self) -> Names:
        grids = {grid.code: grid for grid in self._ledger.grids()}
        return Names(grids, {community.id: community for community in self._ledger.communities()})
