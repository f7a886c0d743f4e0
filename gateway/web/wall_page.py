"""The wall screen of the command centre (大屏): read from ten metres, touched by nobody, live, and honest when not.

It shows counts, places and deadlines; no caller, no number to call, no plate. Its permission is its own, and so is a
role that has nothing else (`gateway.runtime.access.SCREENS`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from msgspec import Struct
from starlette.responses import HTMLResponse

from gateway.core.model import Incident, Level
from gateway.runtime.access import Actor, Permission
from gateway.runtime.board import Counts, Filter
from gateway.runtime.ports import LedgerDown
from gateway.runtime.today import Day, Today
from gateway.web.access import authorise
from gateway.web.api_values import Health
from gateway.web.assets import Assets
from gateway.web.console import Console
from gateway.web.heat import WEIGHTS
from gateway.web.languages import choose_language, pick
from gateway.web.map_page import Counting, Node
from gateway.web.rendering import Scope, scope_of
from gateway.web.stream import LIFE_S, PULSE_S, RETRY_MS, event, stream
from gateway.web.words import COMMA

log = logging.getLogger(__name__)

Seer = Annotated[Actor, Depends(authorise(Permission.WALL_SEE))]
Watcher = Annotated[Actor, Depends(authorise(Permission.WALL_SEE, is_passive=True))]

RENDER_S: Final = 1.0
"""So often at most it is written anew, however much happens."""

ROWS: Final = 7
LATE_ROWS: Final = 3
"""Of the rows with deadlines: that many at most are for what is late already, so that what can still be met is seen."""

RANKED: Final = 8
ALARMS: Final = 2


class Figures(Struct, frozen=True):
    """What a wall screen shows. ``alarms`` are the newest of the ``unanswered``; ``ranked`` are towns, each with its
    share of the first's (in %)."""

    counts: Counts
    unanswered: int
    alarms: list[Incident]
    dues: list[Incident]
    ranked: list[tuple[Node, int]]
    health: Health
    day: Day


class Wall:
    """Writes what the screens show: once for all of a scope and language."""

    def __init__(self, console: Console) -> None:
        self.today: Final = Today(console.ledger, console.clock, is_test=console.is_test)
        self._console = console
        self._known: dict[tuple[Scope, str], tuple[float, int, str]] = {}
        assets = Assets()
        self.version: Final = assets.address("js/wall.js") + assets.address("css/wall.css")
        """A screen that has run since before an upgrade loads its page again."""

    async def write(self, actor: Actor, language: str) -> str:
        """The living part of the page."""
        board = self._console.board
        key = (scope_of(actor), language)
        known = self._known.get(key)
        age = time.monotonic() - known[0] if known is not None else PULSE_S
        if known is None or age >= PULSE_S or (age >= RENDER_S and known[1] != board.position):
            position = board.position
            known = self._known[key] = (time.monotonic(), position, await self._render(actor, language))
        return known[2]

    async def _render(self, actor: Actor, language: str) -> str:
        figures = await self.read(actor)
        return self._console.pages.fragment(
            language,
            "_wall.html",
            **{name: getattr(figures, name) for name in figures.__struct_fields__},
            **self._console.words(language),
        )

    async def read(self, actor: Actor) -> Figures:
        """What there is to show, as it stands."""
        console = self._console
        board, now = console.board, console.clock()
        try:
            day = await self.today.read(actor.covers)
        except LedgerDown as error:
            log.warning("today's figures stay as they were: %s", error)
            day = self.today.sum(actor.covers)
        counting = Counting(console, actor)
        markers = counting.markers
        health = Health(communities=len(markers))
        for marker in markers:
            health.devices += marker.devices
            health.sick += marker.sick
            health.silent += marker.silent > 0
        unanswered = board.unanswered(actor.covers)
        return Figures(
            board.count(actor.covers),
            len(unanswered),
            unanswered[-ALARMS:][::-1],
            choose_dues(board.select(actor.covers, Filter()), now),
            rank_towns(counting.first()),
            health,
            day,
        )


def choose_dues(incidents: list[Incident], now: int) -> list[Incident]:
    """Whose time runs out next; above them a few of those whose time is over, the gravest and longest late first."""
    timed = [(incident, incident.due.due_at) for incident in incidents if incident.due is not None]
    late = sorted(
        ((i, at) for i, at in timed if at <= now), key=lambda pair: (-pair[0].level.rank, pair[1], pair[0].id)
    )
    ahead = sorted(((i, at) for i, at in timed if at > now), key=lambda pair: (pair[1], pair[0].id))
    room = max(LATE_ROWS, ROWS - len(ahead))
    return [incident for incident, _ in (*late[:room], *ahead)][:ROWS]


def rank_towns(nodes: list[Node]) -> list[tuple[Node, int]]:
    """The towns by what is open in them, weighed by level, each with its share of the first's (in %); the grid centres
    where there is one town alone."""
    towns = [node for node in nodes if node.depth == 1]
    shown = towns if len(towns) > 1 else [node for node in nodes if node.depth == 2]
    weights = {node.grid.code: sum(WEIGHTS[Level(level)] * n for level, n in node.levels.items()) for node in shown}
    shown.sort(key=lambda node: (-weights[node.grid.code], node.grid.code))
    most = max(weights.values(), default=0) or 1
    return [(node, round(100 * weights[node.grid.code] / most)) for node in shown[:RANKED]]


def route_wall(console: Console, wall: Wall) -> APIRouter:
    """The page, its living part, and the stream that brings it."""
    router = APIRouter()

    @router.get("/wall")
    async def show_wall(request: Request, actor: Seer) -> Response:
        """The screen."""
        language = choose_language(request)
        names = [console.names.names.grid(code) for code in actor.grids]
        names += [console.names.names.community(id) for id in actor.communities]
        return await console.respond(
            request,
            "wall.html",
            whose=pick(COMMA, language).join(names[:3]),
            part=await wall.write(actor, language),
            version=wall.version,
        )

    @router.get("/wall/part")
    async def show_part(request: Request, actor: Watcher) -> Response:
        """The living part alone."""
        return HTMLResponse(await wall.write(actor, choose_language(request)))

    @router.get("/wall/stream")
    async def stream_wall(request: Request, actor: Watcher) -> Response:
        """The living part whenever it has changed."""
        return stream(console, request, follow(actor, choose_language(request)), Permission.WALL_SEE)

    async def follow(actor: Actor, language: str) -> AsyncIterator[bytes]:
        board = console.board
        ends_at, told = time.monotonic() + LIFE_S, ""
        yield f"retry: {RETRY_MS}\n\n".encode()
        while time.monotonic() < ends_at:
            begun = time.monotonic()
            html = await wall.write(actor, language)
            part = event("wall", {"html": html}) if html != told else b""
            told = html
            pulse = {
                "now": console.clock(),
                "is_fresh": board.is_fresh,
                "is_gateway_there": board.is_gateway_there,
                "version": wall.version,
            }
            yield part + event("pulse", pulse)
            await board.wait(PULSE_S)
            await asyncio.sleep(max(0.0, RENDER_S - (time.monotonic() - begun)))

    return router
