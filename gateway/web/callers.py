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
from gateway.web.languages import choose_language, pick
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


def route_callers(ledger: Ledger, calls: Calls, pages: Pages) -> APIRouter:
    """The part of an incident's page that its callers have; who looks at it for the first time stands in the audit
    log."""
    router = APIRouter()
    seen: set[tuple[str, str, int]] = set()

    @router.get("/incidents/{id}/callers")
    async def show_callers(request: Request, actor: Caller, id: str) -> Response:
        """Who pressed on a page, how to call back, and what they said."""
        incident = await asyncio.to_thread(ledger.incident, id)
        if incident is None:
            raise unknown()
        demand_cover(actor, incident.community, incident.chain)
        # Whoever called of a case that was merged into this one is to be called back, too.
        merged = [member.key for member in incident.members if member.rule == "merge"]
        found = await asyncio.to_thread(_find_calls, calls, [*merged, id])
        said = sum(call.has_said for call in found)
        if said and (actor.id, id, said) not in seen:
            await gate_of(request).record(request, actor, "callers.see", incident.number, detail=f"{said} of {id}")
            if len(seen) >= SEEN_LIMIT:
                seen.clear()
            seen.add((actor.id, id, said))
        language = choose_language(request)
        pressed = {line.event: line.at for line in incident.timeline}
        rows = [
            {
                "at": show_full(pressed.get(call.id, call.at)),
                "waited": show_span(call.waited, language) if call.waited > SLOW_MS else "",
                "need": pick(NEED_TITLES[Need(call.need)], language) if call.need in set(Need) else "",
                "phone": call.phone,
                "words": call.words,
                "is_unreadable": call.is_unreadable,
            }
            for call in reversed(found)
        ]
        return HTMLResponse(pages.fragment(language, "_callers.html", rows=rows))

    return router
