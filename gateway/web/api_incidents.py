"""``/api/v1/incidents``: what the pages do, for programs. Errors are problem+json with stable codes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from msgspec.structs import replace
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.core.model import Incident
from gateway.core.moves import VERBS
from gateway.errors import GatewayError
from gateway.runtime.access import Actor, Permission
from gateway.runtime.acting import Outcome, Wish, act, list_moves
from gateway.runtime.board import Change, Filter
from gateway.runtime.door import DoorClosed, DoorRefused
from gateway.runtime.handing_over import read_shift
from gateway.web.access import authorise, demand_cover
from gateway.web.api_values import IncidentCurve, Leaf, Point, Why
from gateway.web.board_page import read_filter
from gateway.web.console import Console
from gateway.web.incident_page import NO_ANSWER, record_act
from gateway.web.openapi import EVENTS, EXAMPLE, answers, errors
from gateway.web.problems import RETRY, Problem, away, unknown
from gateway.web.readings import list_marks, read_points, span_of
from gateway.web.rendering import key_of
from gateway.web.stream import LIFE_S, PULSE_S, Position, event, read_position, stream

Seer = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE))]
Watcher = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE, is_passive=True))]
Doer = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_ACT))]
Id = Annotated[str, Path(max_length=64, pattern=r"^[0-9a-f-]+$", examples=[EXAMPLE.id])]
Limit = Annotated[int, Query(ge=1, le=500, description="at most so many", examples=[100])]
Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[A-Za-z0-9-]{16,64}$",
        description="made by the program before it sends; the same again with the same key does nothing more "
        "and is answered alike; another request with it counts for itself, or is refused (`key-used`)",
        examples=["0d6b1f0e3c914e6fb1c5b6a2f2f0a7c4"],
    ),
]

Cursor = Annotated[
    str,
    Query(
        pattern=r"^([0-9]{27}[0-9a-f-]{1,64})?$",
        description="`next` of the page before",
        examples=["717954352601231795435200123" + EXAMPLE.id],
    ),
]

ReadingName = Annotated[
    str, Query(max_length=64, pattern=r"^[a-z0-9_]+$", description="the reading's name", examples=["temperature"])
]

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def read_moment(value: object) -> datetime:
    """A time with its zone, as RFC 3339 writes it. Raises ValueError for all else, numbers among it."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be a time such as 2026-11-23T22:00:00+08:00")
    return datetime.fromisoformat(value.upper())


Moment = Annotated[AwareDatetime, BeforeValidator(read_moment)]
"""A time in a body."""


def read_whole(value: object) -> object:
    """JSON has one kind of number: 2.0 is the whole number that 2 is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE: Final = BeforeValidator(read_whole)


def respond_json(body: Any, status: int = 200) -> Response:
    """The answer to a program."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")


class Body(BaseModel):
    """What a program sends: nothing but what the document names, and each of the type that it says."""

    model_config = ConfigDict(extra="forbid", strict=True)


SCAN: Final = 500
SCANS: Final = 6
"""Pages of the ledger that one request looks through; what it has not found by then, the next one goes on with."""


class ActBody(Body):
    """An act on an incident. Which verbs are open now, and what each needs, the incident's ``moves`` say."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"verb": "dispatch", "body": "fire-rescue", "reason": "有烟", "revision": 3}},
    )

    verb: Annotated[str, Field(pattern=f"^({'|'.join(VERBS)})$")]
    reason: Annotated[str, Field(max_length=500)] = ""
    until: Moment | None = None
    body: Annotated[str, Field(max_length=48)] = ""
    into: Annotated[str, Field(max_length=64)] = ""
    score: Annotated[int, Field(ge=1, le=5), WHOLE] | None = None
    revision: Annotated[int, Field(ge=1, le=2**31), WHOLE] | None = None


def route_api(console: Console) -> APIRouter:
    """The routes about incidents."""
    router = APIRouter(prefix="/api/v1", tags=["incidents"], default_response_class=Response)

    async def find(id: str, actor: Actor) -> Incident:
        incident = await asyncio.to_thread(console.ledger.incident, id)
        if incident is None:
            raise unknown()
        demand_cover(actor, incident.community, incident.chain)
        return incident

    @router.get("/incidents", responses={**answers("IncidentPage", "a page"), **errors(401, 403, 422, 429, 503)})
    async def list_open(
        actor: Seer,
        wanted: Annotated[Filter, Depends(read_filter)],
        limit: Limit = 100,
        cursor: Cursor = "",
    ) -> Response:
        """The open incidents of one's scope that the filters take, the most pressing first."""
        found = console.board.select(actor.covers, console.recognise(wanted))
        if cursor:
            found = [incident for incident in found if key_of(incident) > cursor]
        shown = found[:limit]
        after = key_of(shown[-1]) if len(found) > limit else None
        return respond_json({"items": shown, "next": after, "position": console.board.position})

    @router.get("/incidents/changes", responses={**answers("ChangePage", "a page"), **errors(401, 403, 422, 429, 503)})
    async def list_changes(
        actor: Seer,
        after: Annotated[
            int, Query(ge=0, le=2**62, description="`position` of the page before; 0 at first", examples=[4711])
        ] = 0,
        limit: Limit = 100,
    ) -> Response:
        """Everything of one's scope, open or over, as it stands, in the order of its last change. Whoever asks again
        with ``position`` follows and misses nothing; ``is_complete`` says that nothing is left now."""
        items, position, is_complete = await asyncio.to_thread(_scan, console, actor, after, limit)
        return respond_json({"items": items, "position": position, "is_complete": is_complete})

    @router.get(
        "/incidents/stream",
        responses={
            200: {"content": {"text/event-stream": {"example": EVENTS}}, "description": "events"},
            **errors(401, 403, 422, 429),
        },
    )
    async def stream_changes(request: Request, actor: Watcher, after: Position = -1) -> Response:
        """Server-sent events: ``incident`` (as it stands, without its timeline; ``id`` is the position) for each
        change of one's scope after ``after``, and ``pulse`` every few seconds. ``resync``, and the end, when there is
        no position or it lies too far back: read ``changes``, and come again with the position of its last page.
        Whoever comes back with ``Last-Event-ID`` is told what it has missed."""
        return stream(console, request, _follow(console, actor, read_position(request, after)))

    @router.get("/handover", responses={**answers("Shift", "the shift"), **errors(422)})
    async def read_handover(actor: Seer, hours: Annotated[int, Query(ge=1, le=24, examples=[8])] = 8) -> Response:
        """What whoever comes on duty has to know: what is open, what happened in the last hours, and how much."""
        now = console.clock()
        since = now - hours * 3_600_000
        shift = await asyncio.to_thread(read_shift, console.ledger, console.board, actor.covers, since, now)
        return respond_json(shift)

    @router.get("/incidents/{id}", responses={**answers("IncidentWithMoves", "it"), **errors(401, 403, 404, 422, 429)})
    async def read_one(actor: Seer, id: Id) -> Response:
        """One incident with its timeline, and the moves that are open to the caller now."""
        return respond_json(_with_moves(console, actor, await find(id, actor)))

    @router.get("/incidents/{id}/why", responses={**answers("Why", "why"), **errors(401, 403, 404, 422, 429, 503)})
    async def read_why(actor: Seer, id: Id) -> Response:
        """Why its rule fired: the engine reads the journal of that moment again."""
        incident = await find(id, actor)
        try:
            told = await console.explainer.explain(incident)
        except GatewayError as error:
            return respond_json(Why(incident.rule, incident.opened_at, "", "", False, [], str(error)))
        if told is None:
            silent = "no judgement of this rule stands in the journal of that time"
            return respond_json(Why(incident.rule, incident.opened_at, "", "", False, [], silent))
        leaves = [Leaf(*leaf) for leaf in told.explained.leaves]
        line = told.line
        return respond_json(Why(incident.rule, line.at, line.device, line.why, told.is_momentary, leaves))

    @router.get("/incidents/{id}/points", responses={**answers("IncidentCurve", "it"), **errors(404, 422)})
    async def read_curve(actor: Seer, id: Id, name: ReadingName) -> Response:
        """One reading of the device that began it, half an hour before and after; when its signals came; and from when
        to when the curve goes."""
        incident = await find(id, actor)
        since, until = span_of(incident, console.clock())
        marks = [at for at in list_marks(incident) if since <= at <= until]
        points = [Point(*one) for one in await read_points(console, incident, name)]
        return respond_json(IncidentCurve(points, marks, since, until))

    @router.post(
        "/incidents/{id}/acts",
        responses={**answers("IncidentWithMoves", "it was done"), **errors(400, 401, 403, 404, 409, 422, 429, 503)},
    )
    async def take_act(request: Request, actor: Doer, id: Id, body: ActBody, key: Key) -> Response:
        """Acts on an incident. With ``revision``, the act is refused if a person has moved the incident since."""
        incident = await find(id, actor)
        until = round(body.until.timestamp() * 1000) if body.until is not None else None
        wish = Wish(key, body.verb, body.reason, until, body.body, body.into, body.score, body.revision)
        try:
            outcome = await act(console.ledger, console.door, actor, incident, wish)
            await record_act(request, actor, wish, outcome)
        except DoorClosed as error:
            await record_act(request, actor, wish, Outcome(incident, NO_ANSWER))
            raise away() from error
        except DoorRefused as error:
            raise Problem(503, str(error), "the gateway cannot take it in now", headers=RETRY) from error
        if not outcome.is_done:
            now = outcome.incident
            code = "late" if outcome.is_late else "refused"
            raise Problem(409, code, outcome.refusal, state=now.state, revision=now.revision, by=outcome.by)
        return respond_json(_with_moves(console, actor, outcome.incident))

    return router


def _with_moves(console: Console, actor: Actor, incident: Incident) -> dict[str, Any]:
    moves = list_moves(incident, actor, console.clock()) if actor.may(Permission.INCIDENTS_ACT) else []
    return {"incident": incident, "moves": moves}


def _scan(console: Console, actor: Actor, after: int, limit: int) -> tuple[list[Incident], int, bool]:
    items: list[Incident] = []
    for _ in range(SCANS):
        page = console.ledger.changes(after, SCAN)
        for position, incident in page:
            if actor.covers(incident.community, incident.chain):
                if len(items) == limit:
                    return items, after, False
                items.append(replace(incident, timeline=(), members=()))
            after = position
        if len(page) < SCAN:
            return items, after, True
    return items, after, False


async def _follow(console: Console, actor: Actor, position: int) -> AsyncIterator[bytes]:
    board = console.board
    ends_at = time.monotonic() + LIFE_S
    while time.monotonic() < ends_at:
        changes = board.since(position)
        if changes is None:
            yield event("resync", {"position": board.position})
            return
        parts = [_tell(change) for change in changes if actor.covers(change[1].community, change[1].chain)]
        position = changes[-1][0] if changes else position
        pulse = {"now": console.clock(), "is_fresh": board.is_fresh, "is_gateway_there": board.is_gateway_there}
        yield b"".join([*parts, event("pulse", pulse, position)])
        await board.wait(PULSE_S)


def _tell(change: Change) -> bytes:
    position, incident = change
    return f"id: {position}\nevent: incident\ndata: ".encode() + msgspec.json.encode(incident) + b"\n\n"
