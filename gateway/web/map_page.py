"""One map (一张图): the grids to walk down, communities with the health of their devices, and what is open, live."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from msgspec import Struct

from gateway.core.model import Grid, GridLevel, Level, Sort
from gateway.runtime.access import Actor, Permission
from gateway.runtime.board import Filter
from gateway.web.access import authorise
from gateway.web.console import Console
from gateway.web.heat import Days, Tallies, Word, describe, read_heat
from gateway.web.languages import choose_language
from gateway.web.stream import Position, draw_case, follow_map, read_position, stream

Seer = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE))]
Watcher = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE, is_passive=True))]

WALKED = (GridLevel.DISTRICT, GridLevel.TOWN, GridLevel.CENTRE)
"""The levels by which one walks down; below them come the communities."""


class Node(Struct):
    """A grid with what is in it: open incidents by level, communities, devices, and those of them that are sick."""

    grid: Grid
    depth: int
    levels: dict[str, int]
    communities: int = 0
    devices: int = 0
    sick: int = 0


class Marker(Struct):
    """A community as the map shows it. ``levels`` are its open incidents by level; ``sick`` are devices that an open
    maintenance notice is about, ``silent`` sources that are not there."""

    id: str
    name: str
    lon: float
    lat: float
    grids: tuple[str, ...]
    devices: int
    sick: int
    silent: int
    levels: dict[str, int]

    @property
    def health(self) -> str:
        """``good``, ``poor`` (some devices are sick), or ``bad`` (a source is silent, or one in ten is sick)."""
        if self.silent or (self.sick and self.sick * 10 >= self.devices):
            return "bad"
        return "poor" if self.sick else "good"


def route_map(console: Console, tallies: Tallies) -> APIRouter:
    """The map's pages; ``tallies`` are those of the last days."""
    router = APIRouter()

    @router.get("/map")
    async def show_map(request: Request, actor: Seer, days: Days = "", category: Word = "") -> Response:
        """The page: what it shows as a map stands beside it as a list."""
        markers = list_markers(console, actor)
        heat = await read_heat(console, tallies, actor, int(days or 0), category)
        return await console.respond(
            request,
            "map.html",
            nodes=count_nodes(console, markers),
            markers=markers,
            position=console.board.position,
            **describe(console, request, heat),
        )

    @router.get("/map/data")
    async def read_map(request: Request, actor: Seer) -> Response:
        """Communities and open incidents, for the map's script."""
        language = choose_language(request)
        markers = [
            {**{name: getattr(marker, name) for name in marker.__struct_fields__}, "health": marker.health}
            for marker in list_markers(console, actor)
        ]
        cases = [draw_case(i, language) for i in console.board.select(actor.covers, Filter()) if i.lon is not None]
        names = console.names.names
        towns = {
            code: names.grid(code)
            for code in {grid for marker in markers for grid in marker["grids"]}
            if (found := names.grids.get(code)) is not None and found.level is GridLevel.TOWN
        }
        body = msgspec.json.encode({"communities": markers, "cases": cases, "towns": towns})
        return Response(body, media_type="application/json")

    @router.get("/map/stream")
    async def stream_map(request: Request, actor: Watcher, after: Position = -1) -> Response:
        """What becomes of the open incidents."""
        return stream(
            console, request, follow_map(console, actor, choose_language(request), read_position(request, after))
        )

    return router


def list_markers(console: Console, actor: Actor) -> list[Marker]:
    """The communities that somebody may see, by name."""
    levels: dict[str, dict[str, int]] = {}
    for incident in console.board.select(actor.covers, Filter()):
        counts = levels.setdefault(incident.community, dict.fromkeys(map(str, Level), 0))
        counts[incident.level] += 1
    sick: dict[str, set[str]] = {}
    for notice in console.board.select(actor.covers, Filter(Sort.NOTICE)):
        sick.setdefault(notice.community, set()).update(notice.devices or (notice.key,))
    found = [
        Marker(
            id=id,
            name=spot.community.name,
            lon=spot.lon,
            lat=spot.lat,
            grids=spot.community.grids,
            devices=spot.devices,
            sick=len(sick.get(id, ())),
            silent=spot.silent,
            levels=levels.get(id, dict.fromkeys(map(str, Level), 0)),
        )
        for id, spot in console.atlas.spots.items()
        if actor.covers(id, spot.community.grids)
    ]
    return sorted(found, key=lambda marker: marker.name)


def count_nodes(console: Console, markers: list[Marker]) -> list[Node]:
    """The grids that these communities lie in, each below its parent, with what is in them."""
    grids = console.names.names.grids
    nodes: dict[str, Node] = {}
    for marker in markers:
        for code in marker.grids:
            grid = grids.get(code)
            if grid is None or grid.level not in WALKED:
                continue
            node = nodes.get(code)
            if node is None:
                node = nodes[code] = Node(grid, WALKED.index(grid.level), dict.fromkeys(map(str, Level), 0))
            node.communities += 1
            node.devices += marker.devices
            node.sick += marker.sick
            for level, count in marker.levels.items():
                node.levels[level] += count
    return [nodes[code] for code in sorted(nodes)]
