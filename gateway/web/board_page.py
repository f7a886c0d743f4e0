"""The dispatchers' board: the list of what is open, and the stream of what becomes of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import RedirectResponse

from gateway.core.model import Incident, Sort
from gateway.core.moves import FINAL, State
from gateway.runtime.access import Actor, Permission
from gateway.runtime.board import Filter
from gateway.web.access import authorise
from gateway.web.console import PAGE, Console
from gateway.web.languages import choose_language, pick
from gateway.web.rendering import Viewer, key_of
from gateway.web.stream import Position, follow, read_position, stream
from gateway.web.words import SORTS, name_state

Seer = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE))]
Watcher = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE, is_passive=True))]
Word = Annotated[str, Query(max_length=64, pattern=r"^[^\x00-\x1f]*$")]
LevelWord = Literal["", "normal", "urgent", "critical"]
StateWord = Literal[
    "",
    "reported",
    "filed",
    "dispatched",
    "handling",
    "fed_back",
    "verified",
    "closed",
    "rated",
    "parked",
    "merged",
    "false_alarm",
]
"""`Level` and `State`; empty is what a form sends of a choice that was not made."""


def read_filter(
    sort: Annotated[Sort, Query(examples=["incident"])] = Sort.INCIDENT,
    community: Annotated[Word, Query(description="its id", examples=["c042"])] = "",
    grid: Annotated[Word, Query(description="a grid's code: what lies in it", examples=["370215001"])] = "",
    level: Annotated[LevelWord, Query(examples=["critical"])] = "",
    state: Annotated[StateWord, Query(examples=["reported"])] = "",
    category: Annotated[Word, Query(examples=["ext:21-01"])] = "",
    body: Annotated[Word, Query(description="the responsible body", examples=["fire-rescue"])] = "",
    overdue: Annotated[
        Literal["", "warned", "overdue"], Query(description="yellow or red, or red alone", examples=["overdue"])
    ] = "",
    text: Annotated[
        Word, Query(description="stands in number, title, place, or a name of what it lies in", examples=["龙山街道"])
    ] = "",
) -> Filter:
    """What a board's address asks for."""
    return Filter(sort, community, grid, level, state, category, body, overdue, text.strip())


Wanted = Annotated[Filter, Depends(read_filter)]


def write_query(wanted: Filter) -> str:
    """The address of the same board again."""
    fields = {name: str(getattr(wanted, name)) for name in wanted.__struct_fields__ if name != "named"}
    if fields["sort"] == Sort.INCIDENT:
        del fields["sort"]
    return urlencode({name: value for name, value in fields.items() if value})


def route_board(console: Console) -> APIRouter:
    """The board's pages."""
    router = APIRouter()

    @router.get("/")
    async def go_home(actor: Annotated[Actor, Depends(authorise(Permission.ACCOUNT_OWN))]) -> Response:
        """Where somebody's work is."""
        pages = {
            Permission.INCIDENTS_SEE: "/board",
            Permission.ACCOUNTS_SEE: "/accounts",
            Permission.AUDIT_SEE: "/audit",
            Permission.WALL_SEE: "/wall",
        }
        return RedirectResponse(next((page for need, page in pages.items() if actor.may(need)), "/account"), 303)

    @router.get("/board")
    async def show_board(request: Request, actor: Seer, wanted: Wanted, after: Word = "") -> Response:
        """The board, or for htmx its list alone."""
        values = _list(console, actor, wanted, after)
        if request.headers.get("hx-request") == "true":
            return await console.respond(request, "_list.html", **values)
        values |= _choices(console, actor, choose_language(request))
        unanswered = console.board.unanswered(actor.covers)
        return await console.respond(request, "board.html", unanswered=unanswered, **values)

    @router.get("/board/rows")
    async def show_rows(request: Request, actor: Seer, wanted: Wanted, after: Word = "") -> Response:
        """The rows after a key."""
        return await console.respond(request, "_rows.html", **_list(console, actor, wanted, after))

    @router.get("/board/alarms")
    async def show_alarms(request: Request, actor: Seer) -> Response:
        """The critical incidents that nobody has taken on."""
        unanswered = console.board.unanswered(actor.covers)
        return await console.respond(request, "_alarms.html", unanswered=unanswered)

    @router.get("/board/stream")
    async def stream_board(request: Request, actor: Watcher, wanted: Wanted, after: Position = -1) -> Response:
        """What changes, from a position on, as server-sent events. A browser that comes back says itself how far it
        has come."""
        viewer = Viewer(actor, console.recognise(wanted), choose_language(request))
        return stream(console, request, follow(console, viewer, read_position(request, after)))

    return router


def _list(console: Console, actor: Actor, wanted: Filter, after: str) -> dict[str, Any]:
    found = console.board.select(actor.covers, console.recognise(wanted))
    total = len(found)
    if after:
        found = [incident for incident in found if key_of(incident) > after]
    shown = found[:PAGE]
    return {
        "incidents": shown,
        "more": key_of(shown[-1]) if len(found) > PAGE else "",
        "total": total,
        "wanted": wanted,
        "query": write_query(wanted),
        "position": console.board.position,
        "counts": console.board.count(actor.covers, wanted.sort),
    }


def _choices(console: Console, actor: Actor, language: str) -> dict[str, Any]:
    """What one may filter by: of categories and bodies those that occur."""
    names = console.names.names
    seen: list[Incident] = [i for sort in Sort for i in console.board.select(actor.covers, Filter(sort))]
    categories = {i.category: console.name_category(i.category, language) for i in seen}
    bodies = {i.body: console.name_body(i.body, language) for i in seen if i.body}
    return {
        "sorts": [(str(sort), pick(title, language)) for sort, title in SORTS.items()],
        "states": [(state, name_state(state, language)) for state in State if state not in FINAL],
        "grids": names.offer_grids(actor),
        "communities": names.offer_communities(actor),
        "categories": sorted(categories.items(), key=lambda pair: pair[1]),
        "bodies": sorted(bodies.items(), key=lambda pair: pair[1]),
    }
