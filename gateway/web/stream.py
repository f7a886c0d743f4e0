"""Server-sent events: what changes on somebody's board, in order, with a position to come back to.

A stream looks at the board's log from its own position on, so that a slow browser holds nobody up and nothing is kept
for it: what it has missed for too long it reads again as a whole (``resync``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import msgspec
from fastapi import Query, Request
from starlette.responses import StreamingResponse

from gateway.core.model import Incident, Level, Sort
from gateway.core.moves import FINAL
from gateway.runtime.access import Actor, Permission
from gateway.runtime.ports import LedgerDown
from gateway.web.access import gate_of
from gateway.web.console import Console
from gateway.web.languages import pick
from gateway.web.rendering import COUNTS_S, Viewer, key_of
from gateway.web.words import name_level, name_state

PULSE_S: Final = 5.0
"""How often a stream says that it is alive, and what time it is."""

LIFE_S: Final = 900.0
"""Then it ends and the browser comes again, with the scope that its account has by then."""

ADMITTED_S: Final = 25.0
"""How often it is asked whether whoever listens still may: with a `PULSE_S` more, within half a minute nobody listens
whose account was disabled. A ledger that cannot be asked ends nothing: then the board stands still for everybody."""

RETRY_MS: Final = 2_000

Position = Annotated[int, Query(ge=-1, le=2**62, description="a position that is known", examples=[4711])]
"""How far a page has come: a position of the ledger, or a row of the journal. -1 where it has none."""

HEADERS: Final = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
"""A proxy that gathers events before it sends them would make a live board an old one."""


def stream(
    console: Console,
    request: Request,
    events: AsyncIterator[bytes],
    permission: Permission = Permission.INCIDENTS_SEE,
) -> StreamingResponse:
    """The answer that sends these events to whoever may see such, for as long as they may."""
    admitted = _while_admitted(console, request, events, permission)
    return StreamingResponse(admitted, media_type="text/event-stream", headers=HEADERS)


async def _while_admitted(
    console: Console, request: Request, events: AsyncIterator[bytes], permission: Permission
) -> AsyncIterator[bytes]:
    """The events, until whoever listens may no longer, or until the process leaves: it waits for no browser. A person's
    browser is told beside them in how many seconds the session ends (``session``)."""
    gate, asked_at = gate_of(request), -ADMITTED_S
    leaving = asyncio.ensure_future(console.leaving.wait())
    upcoming = asyncio.ensure_future(anext(events, None))
    console.listening += 1
    try:
        while True:
            await asyncio.wait({upcoming, leaving}, return_when=asyncio.FIRST_COMPLETED)
            part = upcoming.result() if upcoming.done() else None
            if part is None or leaving.done():
                return
            if time.monotonic() - asked_at >= ADMITTED_S:
                asked_at = time.monotonic()
                try:
                    if not await gate.still_admits(request, permission):
                        return
                    left_s = await gate.time_left(request)
                except LedgerDown:
                    left_s = None
                if left_s is not None:
                    part += event("session", {"left_s": left_s})
            upcoming = asyncio.ensure_future(anext(events, None))
            yield part
    finally:
        console.listening -= 1
        leaving.cancel()
        upcoming.cancel()


def read_position(request: Request, after: int) -> int:
    """How far whoever asks has come: the browser's own word counts before the address of its page."""
    told = request.headers.get("last-event-id", "")
    return int(told) if told.isdecimal() and len(told) < 19 else after


async def follow(console: Console, viewer: Viewer, position: int) -> AsyncIterator[bytes]:
    """The events of a stream: ``row`` (a case that is shown, new or changed), ``gone`` (one that is not, or no longer),
    ``alarms``, ``counts``, ``pulse``, and ``resync`` when everything must be read again."""
    board, rendering = console.board, console.rendering
    ends_at = time.monotonic() + LIFE_S
    yield f"retry: {RETRY_MS}\n\n".encode()
    told_counts, told_state, told_at = "", (False, False), 0.0
    is_first = True
    while time.monotonic() < ends_at:
        changes = board.since(position)
        if changes is None:
            yield event("resync", {})
            return
        parts: list[bytes] = []
        newest = {incident.id: incident for _, incident in changes}
        now = console.clock()
        for incident in newest.values():
            if not viewer.actor.covers(incident.community, incident.chain):
                continue
            if incident.state not in FINAL and viewer.wanted.takes(incident, now):
                row = {"id": incident.id, "key": key_of(incident), "html": rendering.row(incident, viewer.language)}
                parts.append(event("row", row))
            else:
                parts.append(event("gone", {"id": incident.id}))
        if is_first or any(incident.level is Level.CRITICAL for incident in newest.values()):
            parts.append(event("alarms", {"html": rendering.alarms(viewer)}))
        counts = rendering.counts(viewer)
        if counts != told_counts:
            told_counts = counts
            parts.append(event("counts", {"html": counts}))
        if changes:
            position = changes[-1][0]
        state, spent = (board.is_fresh, board.is_gateway_there), time.monotonic() - told_at
        if parts or state != told_state or spent >= PULSE_S:
            told_state, told_at = state, time.monotonic()
            # It carries the position, so that a browser never comes back before what it has seen whole.
            pulse = {"now": now, "is_fresh": state[0], "is_gateway_there": state[1]}
            parts.append(event("pulse", pulse, position))
            yield b"".join(parts)
        is_first = False
        left_s = PULSE_S - (time.monotonic() - told_at)
        await board.wait(max(0.05, min(left_s, COUNTS_S + 0.05) if rendering.owes_counts(viewer) else left_s))


async def follow_one(console: Console, id: str, position: int) -> AsyncIterator[bytes]:
    """``changed`` whenever one incident has, and ``pulse``."""
    board = console.board
    ends_at = time.monotonic() + LIFE_S
    yield f"retry: {RETRY_MS}\n\n".encode()
    while time.monotonic() < ends_at:
        changes = board.since(position)
        revisions = [incident.revision for _, incident in changes or () if incident.id == id]
        # Nobody knows what was missed: it is looked at again.
        told = (
            event("changed", {"revision": revisions[-1] if revisions else 0}) if revisions or changes is None else b""
        )
        position = board.position if changes is None else changes[-1][0] if changes else position
        pulse = {"now": console.clock(), "is_fresh": board.is_fresh, "is_gateway_there": board.is_gateway_there}
        yield told + event("pulse", pulse, position)
        waits_until = time.monotonic() + PULSE_S
        while time.monotonic() < waits_until and not _has_moved(console, id, position):
            await board.wait(waits_until - time.monotonic())


async def follow_map(console: Console, actor: Actor, language: str, position: int) -> AsyncIterator[bytes]:
    """``case`` for each open incident that is new or has changed, ``gone``, ``pulse``, and ``resync``."""
    board = console.board
    ends_at = time.monotonic() + LIFE_S
    yield f"retry: {RETRY_MS}\n\n".encode()
    while time.monotonic() < ends_at:
        changes = board.since(position)
        if changes is None:
            yield event("resync", {})
            return
        parts: list[bytes] = []
        for incident in {incident.id: incident for _, incident in changes}.values():
            if incident.sort is not Sort.INCIDENT or not actor.covers(incident.community, incident.chain):
                continue
            if incident.state in FINAL or incident.lon is None:
                parts.append(event("gone", {"id": incident.id}))
            else:
                parts.append(event("case", draw_case(incident, language)))
        position = changes[-1][0] if changes else position
        pulse = {"now": console.clock(), "is_fresh": board.is_fresh, "is_gateway_there": board.is_gateway_there}
        yield b"".join([*parts, event("pulse", pulse, position)])
        await board.wait(PULSE_S)


def draw_case(incident: Incident, language: str) -> dict[str, Any]:
    """An open incident as a point of the map."""
    return {
        "id": incident.id,
        "number": incident.number,
        "title": pick(incident.title, language),
        "level": incident.level,
        "level_name": name_level(incident.level, language),
        "state": name_state(incident.state, language),
        "community": incident.community,
        "lon": incident.lon,
        "lat": incident.lat,
        "simulated": incident.simulated,
    }


def _has_moved(console: Console, id: str, position: int) -> bool:
    changes = console.board.since(position)
    return changes is None or any(incident.id == id for _, incident in changes)


def event(name: str, data: dict[str, Any], position: int | None = None) -> bytes:
    """One server-sent event. JSON has no bare line break, so its data is one line."""
    id = b"" if position is None else f"id: {position}\n".encode()
    return id + f"event: {name}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"
