"""The shift hand-over sheet (交接班), to be read on a screen or printed and signed."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.core.model import Community, Silence
from gateway.core.worktime import DAY_MS
from gateway.runtime.access import Actor, Permission
from gateway.runtime.handing_over import in_force, read_shift
from gateway.web.access import authorise
from gateway.web.console import Console
from gateway.web.device_view import look, words
from gateway.web.languages import choose_language

Seer = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE))]

HOUR_MS: Final = DAY_MS // 24
SHIFTS: Final = (8, 12, 24)
AT_ONCE: Final = 8
NO_DEVICE: Final = "."
"""No device is called so: the look tells the rest of a community without them."""


def route_handover(console: Console) -> APIRouter:
    """The page."""
    router = APIRouter()

    @router.get("/handover")
    async def show(request: Request, actor: Seer, hours: Annotated[int, Query(ge=1, le=24)] = 8) -> Response:
        """What whoever comes on duty has to know: of the last hours, and of what goes on."""
        language, now = choose_language(request), console.clock()
        shift = await asyncio.to_thread(
            read_shift, console.ledger, console.board, actor.covers, now - hours * HOUR_MS, now
        )
        silences = await read_silences(actor, now) if actor.may(Permission.REGISTRY_SEE) else None
        return await console.respond(
            request,
            "handover.html",
            shift=shift,
            hours=hours,
            shifts=SHIFTS,
            silences=silences,
            sees_silences=actor.may(Permission.REGISTRY_SEE),
            speaker=console.speaker(language),
            **{**words(console, language), "now": now},
        )

    async def read_silences(actor: Actor, now: int) -> list[tuple[Community, str, Silence]] | None:
        """What opens nothing now, with the name of its place; None while the gateway does not answer."""
        communities = await asyncio.to_thread(console.ledger.communities)
        mine = [one for one in communities if actor.covers(one.id, one.grids)]
        found: list[tuple[Community, str, Silence]] = []
        for first in range(0, len(mine), AT_ONCE):
            some = mine[first : first + AT_ONCE]
            shown = await asyncio.gather(*(look(console, one.id, NO_DEVICE) for one in some))
            for community, present in zip(some, shown, strict=True):
                if present is None:
                    return None
                names = {place.id: place.name for place in present.places}
                found += [
                    (community, names.get(silence.place or "", silence.place or ""), silence)
                    for silence in in_force(present.silences, now)
                ]
        return sorted(found, key=lambda one: one[2].until)

    return router
