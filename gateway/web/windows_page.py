"""Maintenance windows, silences and absences: what opens nothing for a while, who said so, and ending it early."""

from __future__ import annotations

import secrets
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec import Struct
from starlette.responses import RedirectResponse

from gateway.core.model import PlaceKind, Silence, SilenceChange
from gateway.core.worktime import DAY_MS
from gateway.runtime.access import Actor, Permission
from gateway.runtime.device_desk import Refused
from gateway.runtime.door import DoorClosed, DoorRefused
from gateway.runtime.silencing import bring_silence
from gateway.web.access import authorise
from gateway.web.console import Console
from gateway.web.device_page import read_text
from gateway.web.device_view import find_community, look, offer_places, read_key, record, words
from gateway.web.device_words import find_refusal
from gateway.web.languages import choose_language, pick
from gateway.web.problems import Problem
from gateway.web.words import read_input, show_input

Seer = Annotated[Actor, Depends(authorise(Permission.REGISTRY_SEE))]
Changer = Annotated[Actor, Depends(authorise(Permission.SILENCES_CHANGE))]
Word = Annotated[str, Query(max_length=80, pattern=r"^[^\x00-\x1f]*$")]

KINDS: Final = ("maintenance", "silence", "away")
FIELDS: Final = ("id", "community", "kind", "device", "place", "since", "until", "reason")
HOURS_2: Final = 2 * 3_600_000


class Told(Struct, frozen=True):
    """What the page says about what has just been done. ``kind``: ``done``, ``ended``, ``repeat``, ``refused``,
    ``away``."""

    kind: str
    words: str = ""


def route_windows(console: Console) -> APIRouter:
    """The pages about windows and absences."""
    router = APIRouter()

    @router.get("/windows")
    async def show_windows(request: Request, actor: Seer, community: Word = "", device: Word = "") -> Response:
        """What holds now or is to come, and the forms for more."""
        offered = console.names.names.offer_communities(actor)
        chosen = community or (offered[0][0] if offered else "")
        return await page(request, actor, chosen, {"device": device})

    async def page(
        request: Request,
        actor: Actor,
        community: str,
        fields: dict[str, str],
        status: int = 200,
        told: Told | None = None,
    ) -> Response:
        here = await find_community(console, actor, community)
        present = await look(console, here.id)
        now = console.clock()
        places = [] if present is None else offer_places(present.places)
        language = choose_language(request)
        return await console.respond(
            request,
            "windows.html",
            status,
            communities=console.names.names.offer_communities(actor),
            community=here,
            present=present,
            silences=[] if present is None else sorted(present.silences, key=lambda one: one.until),
            devices=[] if present is None else [one.device for one in present.devices],
            choices=places,
            homes=[place for place in places if place.kind == PlaceKind.HOUSEHOLD],
            place_name=lambda id: next((place.name for place in places if place.id == id), id),
            fields={**dict.fromkeys(FIELDS, ""), **fields},
            soonest=show_input(now),
            until=show_input(now + HOURS_2),
            away_until=show_input(now + 7 * DAY_MS),
            wish_id=lambda kind: (
                fields.get("id", "")
                if told is not None and told.kind == "away" and fields.get("kind") == kind
                else secrets.token_hex(16)
            ),
            may_change=actor.may(Permission.SILENCES_CHANGE) and present is not None,
            told=told,
            **words(console, language),
        )

    @router.post("/windows")
    async def begin(request: Request, actor: Changer) -> Response:
        """A window, a silence or an absence. The same form again changes nothing."""
        sent = await request.form()
        fields = {name: read_text(sent, name) for name in FIELDS}
        here = await find_community(console, actor, fields["community"])
        id, kind = read_key(fields["id"]), fields["kind"]
        until, since = read_input(fields["until"]), read_input(fields["since"])
        if kind not in KINDS or until is None:
            raise Problem(422, "not-valid", f"kind is one of {', '.join(KINDS)}, and until a time")
        absent = pick({"zh": "外出报备", "en": "away from home"}, choose_language(request))
        silence = Silence(
            id,
            until,
            fields["reason"] or (absent if kind == "away" else ""),
            actor.name,
            since or 0,
            fields["device"] or None if kind != "away" else None,
            fields["place"] or None,
            None,
            kind,
        )
        return await submit(request, actor, here.id, SilenceChange(id, actor.name, silence), fields, "done")

    @router.post("/windows/{community}/{id}/end")
    async def end(request: Request, actor: Changer, community: str, id: str) -> Response:
        """Takes one back before its time."""
        here = await find_community(console, actor, community)
        sent = await request.form()
        key = read_key(read_text(sent, "id"))
        change = SilenceChange(key, actor.name, ended=id)
        return await submit(request, actor, here.id, change, {}, "ended")

    async def submit(
        request: Request, actor: Actor, community: str, change: SilenceChange, fields: dict[str, str], done: str
    ) -> Response:
        what = "silence.end" if change.silence is None else f"silence.{change.silence.kind}"
        of = change.silence
        about = f"{community}/{(of.device or of.place or '') if of is not None else change.ended}"
        try:
            answer = await bring_silence(console.door, actor, community, change)
        except Refused as error:
            answer = error.words
        except (DoorClosed, DoorRefused):
            return await page(request, actor, community, fields, 503, Told("away"))
        if answer in ("done", "repeat"):
            detail = f"until {show_input(of.until)}: {of.reason}" if of is not None else ""
            await record(request, actor, what, about, answer, detail)
            return RedirectResponse(f"/windows?community={community}", 303)
        await record(request, actor, what, about, f"refused: {answer}"[:120])
        told = Told("refused", pick(find_refusal(answer), choose_language(request)))
        return await page(request, actor, community, fields, 409, told)

    return router
