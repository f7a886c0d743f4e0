"""Where incidents were opened in the last days (热力): counted by community and place, weighed by level, in a scope.

The table is the answer, and the map's script draws its circles from the table's rows: whoever cannot see the map has
all that it shows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec import Struct
from starlette.responses import RedirectResponse

from gateway.core.district import climb
from gateway.core.model import Level
from gateway.core.worktime import DAY_MS
from gateway.runtime.access import Actor, Permission
from gateway.runtime.ports import Clock, Ledger, PlaceTally, Tally
from gateway.web.access import authorise
from gateway.web.console import Console
from gateway.web.languages import choose_language
from gateway.web.problems import unknown

Seer = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE))]
Word = Annotated[str, Query(max_length=64, pattern=r"^[^\x00-\x1f]*$")]
Days = Literal["", "1", "7", "30"]
"""As the page's form sends it; empty is switched off."""

DAYS: Final = (1, 7, 30)
WEIGHTS: Final[Mapping[Level, int]] = {Level.CRITICAL: 5, Level.URGENT: 2, Level.NORMAL: 1}
"""What one incident of a level counts for the size of a circle."""

FRESH_S: Final = 30.0
PLACES_SHOWN: Final = 200


class Warm(Struct):
    """A community or a place with what was opened there, by level. Without a position it is in the table alone."""

    id: str
    name: str
    lon: float | None
    lat: float | None
    levels: dict[str, int]

    @property
    def number(self) -> int:
        """Incidents."""
        return sum(self.levels.values())

    @property
    def weight(self) -> int:
        """Incidents, each counted as its level weighs."""
        return sum(WEIGHTS[Level(level)] * number for level, number in self.levels.items())


class Heat(Struct):
    """What a page shows: the warmest first, of the last ``days``, of one category or of all (""); ``categories`` are
    those that occurred."""

    days: int
    category: str
    rows: list[Warm]
    categories: list[str]
    levels: dict[str, int]

    @property
    def number(self) -> int:
        """Incidents in all rows."""
        return sum(self.levels.values())


class Tallies:
    """What the ledger counted lately: one reading for all who look within half a minute. ``clock`` is the gateway's."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._turn = asyncio.Lock()
        self._known: dict[int, tuple[float, list[Tally]]] = {}

    async def read(self, days: int) -> list[Tally]:
        """Of the last days. Raises LedgerDown."""
        async with self._turn:
            known = self._known.get(days)
            if known is not None and time.monotonic() - known[0] < FRESH_S:
                return known[1]
            now = self._clock()
            found = await asyncio.to_thread(self._ledger.tally_opened, now - days * DAY_MS, now + 1)
            self._known[days] = (time.monotonic(), found)
            return found

    async def read_places(self, community: str, days: int) -> list[PlaceTally]:
        """Of one community. Raises LedgerDown."""
        now = self._clock()
        return await asyncio.to_thread(self._ledger.tally_places, community, now - days * DAY_MS, now + 1)


def route_heat(console: Console, tallies: Tallies) -> APIRouter:
    """The parts of the map's page that change when one asks for other days; the page itself has them, too."""
    router = APIRouter()

    @router.get("/map/heat")
    async def show_heat(request: Request, actor: Seer, days: Days = "", category: Word = "") -> Response:
        """The table, and the form above it."""
        heat = await read_heat(console, tallies, actor, int(days or 0), category)
        query = urlencode({"days": days, "category": category} if days else {})
        whole = "/map" + (f"?{query}" if query else "")
        if request.headers.get("hx-request") != "true":
            return RedirectResponse(whole, 303)
        page = await console.respond(request, "_heat.html", **describe(console, request, heat))
        page.headers["HX-Replace-Url"] = whole
        return page

    @router.get("/map/heat/{community}")
    async def show_places(
        request: Request, actor: Seer, community: str, days: Literal["1", "7", "30"] = "7", category: Word = ""
    ) -> Response:
        """The places of one community."""
        places = await read_warm_places(console, tallies, actor, community, int(days), category)
        known = console.names.names.communities[community]
        template = "_heat_places.html" if request.headers.get("hx-request") == "true" else "heat_places.html"
        return await console.respond(
            request, template, community=known, places=places[:PLACES_SHOWN], number=len(places)
        )

    return router


async def read_heat(console: Console, tallies: Tallies, actor: Actor, days: int, category: str) -> Heat | None:
    """What the actor may know of it; None when it is switched off. Raises LedgerDown."""
    if days not in DAYS:
        return None
    names, spots = console.names.names, console.atlas.spots
    rows: dict[str, Warm] = {}
    categories: set[str] = set()
    seen: dict[tuple[str, str], bool] = {}
    for tally in await tallies.read(days):
        where = (tally.community, tally.grid)
        if where not in seen:
            known = names.communities.get(tally.community)
            chain: Sequence[str] = (*(known.grids if known is not None else ()), *climb(tally.grid, names.grids))
            seen[where] = actor.covers(tally.community, chain)
        if not seen[where]:
            continue
        categories.add(tally.category)
        if category in ("", tally.category):
            spot = spots.get(tally.community)
            row = rows.get(tally.community)
            if row is None:
                name = names.community(tally.community)
                lon, lat = (spot.lon, spot.lat) if spot is not None else (None, None)
                row = rows[tally.community] = Warm(tally.community, name, lon, lat, none_of_any())
            row.levels[tally.level] += tally.number
    ordered = sorted(rows.values(), key=lambda row: (-row.weight, row.name, row.id))
    return Heat(days, category, ordered, sorted(categories), sum_levels(ordered))


async def read_warm_places(
    console: Console, tallies: Tallies, actor: Actor, community: str, days: int, category: str
) -> list[Warm]:
    """The places of one community, the warmest first. Raises Problem 404, and LedgerDown."""
    known = console.names.names.communities.get(community)
    found = await tallies.read_places(community, days) if known is not None else []
    mine = [one for one in found if actor.covers(community, one.chain)]
    if known is None or not (mine or actor.covers(community, known.grids)):
        raise unknown()
    return sum_places(one for one in mine if category in ("", one.category))


def sum_places(tallies: Iterable[PlaceTally]) -> list[Warm]:
    """By place, the warmest first."""
    places: dict[str, Warm] = {}
    for tally in tallies:
        place = places.setdefault(tally.place, Warm(tally.place, tally.name, tally.lon, tally.lat, none_of_any()))
        place.levels[tally.level] += tally.number
    return sorted(places.values(), key=lambda place: (-place.weight, place.name, place.id))


def describe(console: Console, request: Request, heat: Heat | None) -> dict[str, Any]:
    """What the template needs."""
    language = choose_language(request)
    categories = [(code, console.name_category(code, language)) for code in heat.categories] if heat else []
    return {
        "heat": heat,
        "heat_days": DAYS,
        "heat_categories": sorted(categories, key=lambda pair: pair[1]),
        "heat_weights": {str(level): weight for level, weight in WEIGHTS.items()},
    }


def none_of_any() -> dict[str, int]:
    """Nothing of any level."""
    return dict.fromkeys(map(str, Level), 0)


def sum_levels(rows: Iterable[Warm]) -> dict[str, int]:
    """All of them, by level."""
    summed = none_of_any()
    for row in rows:
        for level, number in row.levels.items():
            summed[level] += number
    return summed
