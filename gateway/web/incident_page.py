"""One incident: where, what is known, who must do what by when, and the moves that are open to whoever looks."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from msgspec import Struct
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse

from gateway.core.model import Incident, Sort
from gateway.core.moves import FINAL, VERBS
from gateway.errors import GatewayError
from gateway.runtime.access import Actor, Permission
from gateway.runtime.acting import Outcome, Wish, act, list_moves
from gateway.runtime.board import Filter
from gateway.runtime.commanding import list_given, sum_up
from gateway.runtime.door import DoorClosed, DoorRefused
from gateway.runtime.evidence import Evidence, gather, name_device
from gateway.web.access import authorise, demand_cover
from gateway.web.console import Console
from gateway.web.device_view import record, words
from gateway.web.languages import choose_language, pick
from gateway.web.problems import Problem, unknown
from gateway.web.readings import read_readings
from gateway.web.stream import Position, follow_one, read_position, stream
from gateway.web.words import read_input, show_input

Seer = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE))]
Watcher = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE, is_passive=True))]
Doer = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_ACT))]

TEXT_LIMIT: Final = 500
MERGE_CHOICES: Final = 60
NO_ANSWER: Final = "no answer"
"""The outcome of an act that may have happened, or not: whoever sends it again is told."""


class Notice(Struct, frozen=True):
    """What the page says about the act that has just come in. ``kind``: ``done``, ``late``, ``refused``, ``away``; for
    a command ``ordered`` and ``forbidden``, with its name as ``verb``."""

    kind: str
    verb: str = ""
    by: str = ""
    did: str = ""
    words: str = ""


def route_incidents(console: Console) -> APIRouter:
    """The pages of one incident."""
    router = APIRouter()

    find, show = partial(find_incident, console), partial(respond_incident, console)

    @router.get("/incidents/{id}")
    async def show_incident(request: Request, actor: Seer, id: str) -> Response:
        """The incident's page."""
        return await show(request, actor, await find(actor, id), "incident.html")

    @router.get("/incidents/{id}/pane")
    async def show_pane(request: Request, actor: Seer, id: str) -> Response:
        """The same without the page around it."""
        return await show(request, actor, await find(actor, id), "_incident.html")

    @router.get("/incidents/{id}/why")
    async def show_why(request: Request, actor: Seer, id: str) -> Response:
        """Why its rule fired: the journal is read again up to that moment, and the engine is asked."""
        incident = await find(actor, id)
        try:
            told = await console.explainer.explain(incident)
        except GatewayError as error:
            told = None
            why = str(error)
        else:
            why = ""
        speaker = console.speaker(choose_language(request))
        return await console.respond(request, "_why.html", told=told, why=why, speaker=speaker)

    @router.get("/incidents/{id}/stream")
    async def stream_incident(request: Request, actor: Watcher, id: str, after: Position = -1) -> Response:
        """Says when it has changed."""
        incident = await find(actor, id)
        return stream(console, request, follow_one(console, incident.id, read_position(request, after)))

    @router.post("/incidents/{id}/acts")
    async def take_act(request: Request, actor: Doer, id: str) -> Response:
        """An act of whoever looks. The same form again changes nothing."""
        incident = await find(actor, id)
        wish = read_wish(await request.form())
        is_part = request.headers.get("hx-request") == "true"
        template = "_incident.html" if is_part else "incident.html"
        try:
            outcome = await act(console.ledger, console.door, actor, incident, wish)
            await record_act(request, actor, wish, outcome)
        except (DoorClosed, DoorRefused):
            await record_act(request, actor, wish, Outcome(incident, NO_ANSWER))
            # The page keeps the act's id: sent again, it happens once.
            return await show(request, actor, incident, template, 503, Notice("away", wish.verb), wish)
        if outcome.is_done and not is_part:
            return RedirectResponse(f"/incidents/{incident.id}", 303)
        notice = tell(console, outcome, wish, choose_language(request))
        return await show(request, actor, outcome.incident, template, 200 if outcome.is_done else 409, notice)

    return router


async def record_act(request: Request, actor: Actor, wish: Wish, outcome: Outcome) -> None:
    """The act's line of the audit log: the incident's timeline says why, this says from where."""
    told = "done" if outcome.is_done else f"refused: {outcome.refusal}"[:120]
    if outcome.refusal == NO_ANSWER:
        told = NO_ANSWER
    what = wish.verb if wish.verb in VERBS else "act"
    await record(request, actor, f"incident.{what}", outcome.incident.number, told)


async def find_incident(console: Console, actor: Actor, id: str) -> Incident:
    """An incident in the actor's scope. Raises Problem 404."""
    incident = await asyncio.to_thread(console.ledger.incident, id)
    if incident is None:
        raise unknown()
    demand_cover(actor, incident.community, incident.chain)
    return incident


async def respond_incident(
    console: Console,
    request: Request,
    actor: Actor,
    incident: Incident,
    template: str,
    status: int = 200,
    notice: Notice | None = None,
    again: Wish | None = None,
) -> Response:
    """The incident's page, or the part of it that ``template`` is."""
    language = choose_language(request)
    evidence = await asyncio.to_thread(gather, console.ledger, incident, console.clock())
    given = await asyncio.to_thread(list_given, console.ledger, incident)
    values = _describe(console, actor, incident, evidence, language)
    values |= words(console, language)
    values |= {"given": given, "seen": sum_up(given), "readings": await read_readings(console, incident)}
    return await console.respond(request, template, status, notice=notice, again=again, **values)


def read_wish(form: FormData) -> Wish:
    """What a form asks for. Raises Problem for a form that is none of ours."""

    def text(name: str) -> str:
        value = form.get(name, "")
        if not isinstance(value, str) or len(value) > TEXT_LIMIT:
            raise Problem(422, "not-valid", f"{name} is a text of at most {TEXT_LIMIT} characters")
        return value.strip()

    score, revision = text("score"), text("revision")
    if not (score.isdecimal() or not score) or not (revision.isdecimal() or not revision):
        raise Problem(422, "not-valid", "score and revision are numbers")
    id, verb = text("id"), text("verb")
    if not 16 <= len(id) <= 64 or not id.isalnum() or not verb:
        raise Problem(422, "not-valid", "id and verb must be there")
    return Wish(
        id,
        verb,
        text("reason"),
        read_input(text("until")),
        text("body"),
        text("into"),
        int(score) if score else None,
        int(revision) if revision else None,
    )


def tell(console: Console, outcome: Outcome, wish: Wish, language: str) -> Notice:
    """What came of an act, for the page."""
    if outcome.is_done:
        return Notice("done", wish.verb)
    speaker = console.speaker(language)
    if outcome.is_late:
        return Notice("late", wish.verb, speaker.who(outcome.by), outcome.did)
    return Notice("refused", wish.verb, words=speaker.refusal(outcome.refusal))


def _describe(console: Console, actor: Actor, incident: Incident, evidence: Evidence, language: str) -> dict[str, Any]:
    catalog, now = console.catalog, console.clock()
    category = catalog.categories.get(incident.category)
    may_act = actor.may(Permission.INCIDENTS_ACT)
    choices = list_moves(incident, actor, now) if may_act else []
    due_at = incident.due.due_at if incident.due is not None else now
    return {
        "incident": incident,
        "is_notice": incident.sort is Sort.NOTICE,
        "is_over": incident.state in FINAL,
        "category": category,
        "rule": catalog.rule(incident.rule),
        "devices": [(device, name_device(catalog, device, language)) for device in evidence.devices],
        "contacts": evidence.contacts if actor.may(Permission.CONTACTS_SEE) else (),
        "delivery": evidence.delivery,
        "merged_into": _seen(actor, evidence.into),
        "linked": _seen(actor, evidence.linked),
        "choices": sorted(choices, key=lambda choice: not choice.is_next),
        "bodies": [(body, pick(title, language)) for body, title in catalog.bodies.items()],
        "others": list(_others(console, actor, incident)) if any("into" in c.fields for c in choices) else [],
        "soonest": show_input(now),
        "later": show_input(max(now, due_at) + 86_400_000),
        "act_id": lambda: secrets.token_hex(16),
        "speaker": console.speaker(language),
        "position": console.board.position,
    }


def _seen(actor: Actor, incident: Incident | None) -> Incident | None:
    return incident if incident is not None and actor.covers(incident.community, incident.chain) else None


def _others(console: Console, actor: Actor, incident: Incident) -> Iterator[Incident]:
    """The open incidents of the same community into which it may be merged."""
    found = console.board.select(actor.covers, Filter(incident.sort, incident.community))
    return (other for other in found[:MERGE_CHOICES] if other.id != incident.id)
