"""What callers said beside their presses, for those who call back: numbers and words of one incident's help pages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import HTMLResponse

from gateway.runtime.access import Actor, Permission
from gateway.runtime.calls import NEED_TITLES, Call, Calls, Need
from gateway.runtime.ports import Ledger
from gateway.web.access import authorise, demand_cover, gate_of
from gateway.web.api_incidents import Id, respond_json
from gateway.web.api_values import CallerLine, CallerList
from gateway.web.languages import choose_language, pick
from gateway.web.openapi import answers, errors
from gateway.web.pages import Pages
from gateway.web.problems import unknown
from gateway.web.words import show_full, show_span

Caller = Annotated[Actor, Depends(authorise(Permission.CONTACTS_SEE, is_passive=True))]

SEEN_LIMIT: Final = 10_000
SLOW_MS: Final = 10_000
"""A press that took longer to arrive is told with how long ago it was made."""


def _find_calls(calls: Calls, incidents: Sequence[str]) -> list[Call]:
    found = [call for incident in incidents for call in calls.calls_of(incident)]
    return sorted(found, key=lambda call: call.at)


class CallerDesk:
    """Tells what callers said; who looks at it for the first time stands in the audit log."""

    def __init__(self, ledger: Ledger, calls: Calls) -> None:
        self._ledger = ledger
        self._calls = calls
        self._seen: set[tuple[str, str, int]] = set()

    async def read(self, request: Request, actor: Actor, id: str) -> list[CallerLine]:
        """The callers of an incident, the newest first. Raises Problem 404, and LedgerDown."""
        incident = await asyncio.to_thread(self._ledger.incident, id)
        if incident is None:
            raise unknown()
        demand_cover(actor, incident.community, incident.chain)
        # Whoever called of a case that was merged into this one is to be called back, too.
        merged = [member.key for member in incident.members if member.rule == "merge"]
        found = await asyncio.to_thread(_find_calls, self._calls, [*merged, id])
        said = sum(call.has_said for call in found)
        if said and (actor.id, id, said) not in self._seen:
            await gate_of(request).record(request, actor, "callers.see", incident.number, detail=f"{said} of {id}")
            if len(self._seen) >= SEEN_LIMIT:
                self._seen.clear()
            self._seen.add((actor.id, id, said))
        pressed = {line.event: line.at for line in incident.timeline}
        return [
            CallerLine(
                pressed.get(call.id, call.at),
                call.waited,
                Need(call.need) if call.need in set(Need) else None,
                call.phone,
                call.words,
                call.is_unreadable,
            )
            for call in reversed(found)
        ]


def route_callers(desk: CallerDesk, pages: Pages) -> APIRouter:
    """The part of an incident's page that its callers have."""
    router = APIRouter()

    @router.get("/incidents/{id}/callers")
    async def show_callers(request: Request, actor: Caller, id: str) -> Response:
        """Who pressed on a page, how to call back, and what they said."""
        language = choose_language(request)
        rows = [
            {
                "at": show_full(one.at),
                "waited": show_span(one.waited, language) if one.waited > SLOW_MS else "",
                "need": pick(NEED_TITLES[one.need], language) if one.need else "",
                "phone": one.phone,
                "words": one.words,
                "is_unreadable": one.is_unreadable,
            }
            for one in await desk.read(request, actor, id)
        ]
        return HTMLResponse(pages.fragment(language, "_callers.html", rows=rows))

    return router


def route_callers_api(desk: CallerDesk) -> APIRouter:
    """The same for programs."""
    router = APIRouter(prefix="/api/v1", tags=["incidents"], default_response_class=Response)

    @router.get("/incidents/{id}/callers", responses={**answers("CallerList", "they"), **errors(404, 422)})
    async def list_callers(request: Request, actor: Caller, id: Id) -> Response:
        """Who pressed on a help page, how to call back, and what they said; whoever reads it first stands in the audit
        log."""
        return respond_json(CallerList(await desk.read(request, actor, id)))

    return router
