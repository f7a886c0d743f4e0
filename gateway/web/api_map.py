"""``/api/v1/map``, ``heat`` and ``wall``: what the map, its heat and the wall screen show, for programs."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response

from gateway.core.model import Sort
from gateway.runtime.access import Actor, Permission
from gateway.web.access import authorise
from gateway.web.api_devices import Place
from gateway.web.api_incidents import respond_json
from gateway.web.api_values import (
    DevicePoints,
    GridCount,
    GridCountList,
    HeatPlaces,
    HeatRow,
    HeatTable,
    MapView,
    TownShare,
    WallFigures,
)
from gateway.web.console import Console
from gateway.web.device_view import find_community, look
from gateway.web.heat import Tallies, Warm, read_heat, read_warm_places
from gateway.web.map_page import Counting, Node, draw_devices
from gateway.web.openapi import answers, errors
from gateway.web.problems import away, unknown
from gateway.web.wall_page import Wall

Seer = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE))]
Keeper = Annotated[Actor, Depends(authorise(Permission.REGISTRY_SEE))]
Watcher = Annotated[Actor, Depends(authorise(Permission.WALL_SEE))]
Grid = Annotated[str, Path(max_length=24, pattern=r"^[0-9]+$", examples=["370215001004"])]
DayCount = Annotated[Literal["1", "7", "30"], Query(description="the last so many days", examples=["7"])]
Category = Annotated[
    str, Query(max_length=64, pattern=r"^[^\x00-\x1f]*$", description="of one category alone", examples=["ext:21-01"])
]


def route_map_api(console: Console, tallies: Tallies, wall: Wall) -> APIRouter:
    """The routes about where things are and how many."""
    router = APIRouter(prefix="/api/v1", tags=["map"], default_response_class=Response)

    @router.get("/map", responses={**answers("MapView", "it"), **errors()})
    async def read_map(actor: Seer) -> Response:
        """The communities of one's scope with their position, open incidents and the health of their devices, and the
        grids from the district to the centres. The incidents themselves are those of ``/incidents``."""
        counting = Counting(console, actor)
        nodes = [*counting.first(), *counting.departments()]
        return respond_json(MapView(counting.markers, [tell_grid(node) for node in nodes], console.board.position))

    @router.get("/map/grids/{code}", responses={**answers("GridCountList", "they"), **errors(404, 422)})
    async def list_grids(actor: Seer, code: Grid) -> Response:
        """The grids right below a centre, a workstation or a department, with what is in them."""
        counting = Counting(console, actor)
        if not counting.shows(code):
            raise unknown()
        return respond_json(GridCountList([tell_grid(node) for node in counting.below(code)]))

    @router.get("/map/communities/{community}", responses={**answers("DevicePoints", "they"), **errors(404, 422)})
    async def read_devices(actor: Keeper, community: Place) -> Response:
        """The devices of a community by where they are, each with its health."""
        here = await find_community(console, actor, community)
        present = await look(console, here.id)
        if present is None:
            raise away()
        return respond_json(msgspec.convert(await draw_devices(console, present, actor.language), DevicePoints))

    @router.get("/heat", responses={**answers("HeatTable", "it"), **errors(422)})
    async def read_days(actor: Seer, days: DayCount = "7", category: Category = "") -> Response:
        """Where incidents were opened in the last days: the warmest communities first, weighed by level."""
        heat = await read_heat(console, tallies, actor, int(days), category)
        rows = [tell_heat(row) for row in heat.rows] if heat is not None else []
        return respond_json(HeatTable(int(days), category, sum(row.number for row in rows), rows))

    @router.get("/heat/{community}", responses={**answers("HeatPlaces", "they"), **errors(404, 422)})
    async def read_places(actor: Seer, community: Place, days: DayCount = "7", category: Category = "") -> Response:
        """The places of one community where incidents were opened, the warmest first."""
        places = await read_warm_places(console, tallies, actor, community, int(days), category)
        return respond_json(HeatPlaces([tell_heat(place) for place in places]))

    @router.get("/wall", responses={**answers("WallFigures", "they"), **errors()})
    async def read_wall(actor: Watcher) -> Response:
        """What the wall screen shows: counts, the newest alarms that nobody has taken on, whose time runs out next, the
        towns by what is open, the devices' health, and the day so far."""
        figures = await wall.read(actor)
        return respond_json(
            WallFigures(
                console.board.count(actor.covers, Sort.INCIDENT),
                figures.unanswered,
                figures.alarms,
                figures.dues,
                [TownShare(node.grid.code, node.grid.name, node.levels, share) for node, share in figures.ranked],
                figures.health,
                figures.day,
            )
        )

    return router


def tell_grid(node: Node) -> GridCount:
    """A grid as the document has it."""
    grid = node.grid
    return GridCount(
        grid.code, grid.level, grid.name, grid.parent, node.levels, node.communities, node.devices, node.sick
    )


def tell_heat(warm: Warm) -> HeatRow:
    """A community or a place as the document has it."""
    return HeatRow(warm.id, warm.name, warm.lon, warm.lat, warm.levels, warm.number, warm.weight)
