"""One map (一张图): grids of all levels to walk down, communities by the health of their devices, each device, and what
is open; all of it live."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from msgspec import Struct

from gateway.core.model import DeviceState, Grid, GridLevel, Level, Sort
from gateway.core.present import Present
from gateway.runtime.access import Actor, Permission
from gateway.runtime.board import Filter
from gateway.web.access import authorise
from gateway.web.api_values import Spot
from gateway.web.console import Console
from gateway.web.device_view import find_community, look, offer_places, read_sick, words
from gateway.web.device_words import AILMENTS, GRAVE, pick_word
from gateway.web.heat import Days, Tallies, Word, describe, read_heat
from gateway.web.languages import choose_language
from gateway.web.problems import RETRY, Problem, unknown
from gateway.web.stream import Position, draw_case, follow_map, read_position, stream

Seer = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE))]
Keeper = Annotated[Actor, Depends(authorise(Permission.REGISTRY_SEE))]
Watcher = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE, is_passive=True))]
Codes = Annotated[str, Query(max_length=1600, pattern=r"^[0-9,]*$")]
Code = Annotated[str, Path(max_length=24, pattern=r"^[0-9]*$")]

FIRST: Final = (GridLevel.DISTRICT, GridLevel.TOWN, GridLevel.CENTRE)
"""The levels that stand in the list from the beginning; below a centre they come when it is opened."""

DEPTHS: Final = {
    GridLevel.DISTRICT: 0,
    GridLevel.TOWN: 1,
    GridLevel.DEPARTMENT: 1,
    GridLevel.CENTRE: 2,
    GridLevel.SPECIAL: 2,
    GridLevel.STATION: 3,
    GridLevel.BASE: 4,
}


class Node(Struct):
    """A grid with what is in it: open incidents by level, communities, devices, and those of them that are sick."""

    grid: Grid
    depth: int
    levels: dict[str, int]
    communities: int = 0
    devices: int = 0
    sick: int = 0
    has_more: bool = False
    """Whether there are grids below it."""
    points: list[tuple[float, float]] = []
    """(lon, lat) of what lies in it; borders nobody has drawn."""


def judge_health(devices: int, sick: int, silent: int) -> str:
    """How a community's devices are: ``good``, ``poor`` (some are sick), or ``bad`` (a source is silent, or one in ten
    is sick)."""
    if silent or (sick and sick * 10 >= devices):
        return "bad"
    return "poor" if sick else "good"


def route_map(console: Console, tallies: Tallies) -> APIRouter:
    """The map's pages; ``tallies`` are those of the last days."""
    router = APIRouter()

    @router.get("/map")
    async def show_map(request: Request, actor: Seer, days: Days = "", category: Word = "") -> Response:
        """The page: what it shows as a map stands beside it as a list."""
        counting = Counting(console, actor)
        heat = await read_heat(console, tallies, actor, int(days or 0), category)
        homes: dict[str, list[Spot]] = {}
        for marker in counting.markers:
            homes.setdefault(marker.grids[-1] if marker.grids else "", []).append(marker)
        return await console.respond(
            request,
            "map.html",
            nodes=counting.first(),
            departments=counting.departments(),
            homes=homes,
            position=console.board.position,
            **describe(console, request, heat),
        )

    @router.get("/map/data")
    async def read_map(request: Request, actor: Seer, open: Codes = "") -> Response:
        """Communities, open incidents and numbers, for the map's script; ``open`` are the codes of the grids below the
        centres whose numbers are shown, too."""
        language, position = choose_language(request), console.board.position
        counting = Counting(console, actor)
        cases = [draw_case(i, language) for i in console.board.select(actor.covers, Filter()) if i.lon is not None]
        shown = [*counting.first(), *counting.departments(), *counting.at(code for code in open.split(",") if code)]
        nodes = {
            node.grid.code: {
                **node.levels,
                "communities": node.communities,
                "devices": node.devices,
                "sick": node.sick,
            }
            for node in shown
        }
        towns = {node.grid.code: node.grid.name for node in shown if node.grid.level is GridLevel.TOWN}
        body = {"communities": counting.markers, "cases": cases, "towns": towns, "nodes": nodes, "position": position}
        return Response(msgspec.json.encode(body), media_type="application/json")

    @router.get("/map/grids/{code}")
    async def list_below(request: Request, actor: Seer, code: Code) -> Response:
        """The grids right below one, as rows of the list."""
        counting = Counting(console, actor)
        if not counting.shows(code):
            raise unknown()
        return await console.respond(request, "_grid_nodes.html", nodes=counting.below(code))

    @router.get("/map/communities/{id}")
    async def read_devices(request: Request, actor: Keeper, id: str) -> Response:
        """The devices of a community by where they are, for the map's script: so many lie in one point, each with its
        health."""
        here = await find_community(console, actor, id)
        present = await look(console, here.id)
        if present is None:
            raise Problem(503, "gateway-away", "the gateway does not answer; ask again", headers=RETRY)
        body = await draw_devices(console, present, choose_language(request))
        return Response(msgspec.json.encode(body), media_type="application/json")

    @router.get("/map/stream")
    async def stream_map(request: Request, actor: Watcher, after: Position = -1) -> Response:
        """What becomes of the open incidents."""
        return stream(
            console, request, follow_map(console, actor, choose_language(request), read_position(request, after))
        )

    return router


class Counting:
    """What is in the grids and communities that an actor may see, as it stands at one moment."""

    def __init__(self, console: Console, actor: Actor) -> None:
        self._actor = actor
        self._names = console.names.names
        self._levels: dict[str, dict[str, int]] = {}
        """Open incidents by grid or community, and level."""
        sick: dict[str, set[str]] = {}
        for incident in console.board.select(actor.covers, Filter()):
            for key in {incident.community, incident.grid, *incident.chain}:
                self._levels.setdefault(key, _no_levels())[incident.level] += 1
        for notice in console.board.select(actor.covers, Filter(Sort.NOTICE)):
            sick.setdefault(notice.community, set()).update(notice.devices or (notice.key,))
        self._spots = {id: s for id, s in console.atlas.spots.items() if actor.covers(id, s.community.grids)}
        self._sick = sick
        self._inside: dict[str, list[str]] = {}
        """Communities by the code of a grid that they lie in, with a part at least."""
        for id, spot in self._spots.items():
            below = {code for patch in spot.patches for code in self._names.chain(patch)}
            for code in {*spot.community.grids, *below}:
                self._inside.setdefault(code, []).append(id)

    @property
    def markers(self) -> list[Spot]:
        """The communities, by name."""
        found = []
        for id, spot in self._spots.items():
            sick = len(self._sick.get(id, ()))
            found.append(
                Spot(
                    id=id,
                    name=spot.community.name,
                    lon=spot.lon,
                    lat=spot.lat,
                    grids=spot.community.grids,
                    devices=spot.devices,
                    sick=sick,
                    silent=spot.silent,
                    levels=self._levels.get(id) or _no_levels(),
                    health=judge_health(spot.devices, sick, spot.silent),
                )
            )
        return sorted(found, key=lambda marker: marker.name)

    def shows(self, code: str) -> bool:
        """Whether the actor may see that there is such a grid, and what is in it."""
        grid = self._names.grids.get(code)
        return grid is not None and (code in self._inside or self._actor.covers("", self._names.chain(code)))

    def first(self) -> list[Node]:
        """District, towns and centres with communities in them, each below its parent."""
        grids = self._names.grids
        inside = sorted(code for code in self._inside if code in grids and grids[code].level in FIRST)
        return [self._count(grids[code]) for code in inside]

    def departments(self) -> list[Node]:
        """The departments, which have grids of their own (专属网格)."""
        grids = self._names.grids
        roots = [code for code, grid in grids.items() if grid.parent is None]
        second = [grids[code] for root in roots for code in self._names.below.get(root, ())]
        return [self._count(g) for g in second if g.level is GridLevel.DEPARTMENT and self.shows(g.code)]

    def below(self, code: str) -> list[Node]:
        """The grids right below one that have not been listed with the first."""
        found = (self._names.grids[one] for one in self._names.below.get(code, ()) if self.shows(one))
        return [self._count(grid) for grid in found if grid.level not in FIRST]

    def at(self, codes: Any) -> list[Node]:
        """Those of these grids that the actor may see."""
        return [self._count(self._names.grids[code]) for code in codes if self.shows(code)]

    def _count(self, grid: Grid) -> Node:
        levels = self._levels.get(grid.code) or _no_levels()
        below = self._names.below.get(grid.code, ())
        has_more = any(self._names.grids[one].level not in FIRST for one in below[:1])
        node = Node(grid, DEPTHS[grid.level], levels, has_more=has_more)
        points: set[tuple[float, float]] = set()
        for id in self._inside.get(grid.code, ()):
            spot = self._spots[id]
            node.communities += 1
            if grid.code in spot.community.grids:
                node.devices += spot.devices
                node.sick += len(self._sick.get(id, ()))
                continue
            for code, patch in spot.patches.items():
                if grid.code in self._names.chain(code):
                    node.devices += len(patch.devices)
                    node.sick += len(patch.devices & self._sick.get(id, set()))
                    points |= patch.points
        node.points = sorted(points)
        return node


def _no_levels() -> dict[str, int]:
    return dict.fromkeys(map(str, Level), 0)


async def draw_devices(console: Console, present: Present, language: str) -> dict[str, Any]:
    """The devices of a community that are in use. ``points``: where they are (lon, lat, the place's name, its devices);
    ``elsewhere``: those whose place has no position, nor what it belongs to. Health is ``bad``, ``poor``, ``idle`` (not
    in operation: a test, a drill, maintenance) or ``good``; ``why`` says it in words."""
    name_device = words(console, language)["name_device"]
    name_state = words(console, language)["name_device_state"]
    ailments = {p.device.id: p.worst.ailment for p in await read_sick(console, present)}
    places = {place.id: place for place in present.places}
    names = {choice.id: choice.name for choice in offer_places(present.places)}
    points: dict[tuple[float, float], dict[str, Any]] = {}
    elsewhere: list[dict[str, Any]] = []
    for known in present.devices:
        device = known.device
        if device.state is DeviceState.RETIRED:
            continue
        ailment = ailments.get(device.id)
        if device.state is not DeviceState.ACTIVE:
            health, why = "idle", name_state(device.state)
        elif ailment is None:
            health, why = "good", ""
        else:
            health, why = "bad" if ailment in GRAVE else "poor", pick_word(AILMENTS, ailment, language)
        row = {"id": device.id, "name": name_device(device), "health": health, "why": why}
        place = places.get(device.place)
        passed: set[str] = set()
        while place is not None and place.lon is None and place.id not in passed:
            passed.add(place.id)
            place = places.get(place.parent) if place.parent else None
        if place is None or place.lon is None or place.lat is None:
            elsewhere.append(row)
            continue
        at = (place.lon, place.lat)
        if at not in points:
            points[at] = {"lon": at[0], "lat": at[1], "name": names[place.id], "devices": []}
        points[at]["devices"].append(row)
    return {"points": list(points.values()), "elsewhere": elsewhere}
