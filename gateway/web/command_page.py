"""The parts of an incident's page that reach into the community: commands to devices, cameras, and the curve."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.datastructures import FormData
from starlette.responses import JSONResponse, RedirectResponse

from gateway.core.model import Incident, Scalar
from gateway.core.present import Present
from gateway.core.profile import FieldSpec
from gateway.runtime.access import Actor, Permission
from gateway.runtime.commanding import (
    Bidding,
    IsMine,
    Near,
    Offer,
    give,
    list_cameras,
    list_given,
    list_offers,
    make_scope,
    sum_up,
)
from gateway.runtime.door import DoorClosed, DoorRefused
from gateway.web.access import authorise
from gateway.web.console import Console
from gateway.web.device_view import look, read_key, record, words
from gateway.web.incident_page import Notice, find_incident, respond_incident
from gateway.web.languages import choose_language
from gateway.web.problems import Problem
from gateway.web.readings import list_marks, read_points, span_of

Seer = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE))]
Watcher = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE, is_passive=True))]
Giver = Annotated[Actor, Depends(authorise(Permission.COMMANDS_GIVE))]
Looker = Annotated[Actor, Depends(authorise(Permission.CAMERAS_SEE))]
Seen = Annotated[str, Query(max_length=80, pattern=r"^[\w.-]*$")]

REASON_LIMIT: Final = 200
TEXT_LIMIT: Final = 256
OPENING: Final = frozenset({"open_water_valve"})
"""Commands before which one asks on site: what was shut off runs again."""

_WRONG: Final = object()


def route_commands(console: Console) -> APIRouter:
    """The routes."""
    router = APIRouter()

    async def respond(request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """A part for a page that is open, or a page of its own for a browser without scripts."""
        language = choose_language(request)
        known = {**words(console, language), "speaker": console.speaker(language), **values}
        is_part = request.headers.get("hx-request") == "true"
        page = template if is_part else "incident_part.html"
        return await console.respond(request, page, status, part=template, **known)

    @router.get("/incidents/{id}/commands")
    async def show_desk(request: Request, actor: Giver, id: str) -> Response:
        """What may be asked of the devices around it, the nearest first."""
        incident = await find_incident(console, actor, id)
        present = await look(console, incident.community)
        offers = list_offers(present, console.catalog, incident, scope_of(console, actor, incident)) if present else []
        return await respond(request, "_orders_desk.html", incident=incident, offers=offers, present=present)

    @router.get("/incidents/{id}/commands/given")
    async def show_given(request: Request, actor: Watcher, id: str, seen: Seen = "") -> Response:
        """What was asked, and what became of it. 204 for whoever has ``seen`` it as it stands."""
        incident = await find_incident(console, actor, id)
        given = await asyncio.to_thread(list_given, console.ledger, incident)
        if seen and seen == sum_up(given):
            return Response(status_code=204)
        return await respond(request, "_given.html", incident=incident, given=given, seen=sum_up(given))

    @router.post("/incidents/{id}/commands")
    async def order(request: Request, actor: Giver, id: str) -> Response:
        """Asks once more in words what is to be done, and with ``confirmed`` does it. The same form again changes
        nothing."""
        incident = await find_incident(console, actor, id)
        form = await request.form()
        if read_field(form, "confirmed") == "1":
            return await do(request, actor, incident, form)
        present = await look(console, incident.community)
        if present is None:
            return await respond(request, "_order_step.html", 503, incident=incident, asked=None, problem="away")
        asked, problem = prepare(console, actor, incident, present, form)
        status = 200 if asked is not None else 422
        return await respond(request, "_order_step.html", status, incident=incident, asked=asked, problem=problem)

    async def do(request: Request, actor: Actor, incident: Incident, form: FormData) -> Response:
        devices = tuple(value for value in form.getlist("device") if isinstance(value, str))
        wish = Bidding(
            read_key(read_field(form, "id")),
            read_field(form, "command"),
            devices,
            read_field(form, "reason", REASON_LIMIT),
            await asyncio.to_thread(_read_known_args, console, incident, form, devices),
        )
        is_part = request.headers.get("hx-request") == "true"
        template = "_incident.html" if is_part else "incident.html"
        try:
            bid = await give(console.ledger, console.door, actor, incident, wish)
        except (DoorClosed, DoorRefused):
            # The form keeps the order's id: sent again, it happens once.
            asked = {"wish": wish, "devices": [], "is_opening": wish.name in OPENING}
            again = await respond(request, "_order_step.html", 503, incident=incident, asked=asked, problem="away")
            again.headers.update({"HX-Retarget": "#order-step", "HX-Reswap": "innerHTML"})
            return again
        await record_order(request, actor, incident, wish, bid.refusal)
        if bid.refusal:
            said = console.speaker(choose_language(request)).refusal(bid.refusal)
            notice = Notice("forbidden", wish.name, words=said)
            return await respond_incident(console, request, actor, bid.incident, template, 409, notice)
        if not is_part:
            return RedirectResponse(f"/incidents/{incident.id}", 303)
        notice = Notice("ordered", wish.name)
        return await respond_incident(console, request, actor, bid.incident, template, 200, notice)

    @router.get("/incidents/{id}/cameras")
    async def show_cameras(request: Request, actor: Looker, id: str) -> Response:
        """The nearest cameras, and how they are reached. Who asks stands in the audit log."""
        incident = await find_incident(console, actor, id)
        present = await look(console, incident.community)
        mine = scope_of(console, actor, incident)
        sights = list_cameras(present, console.catalog, incident, mine) if present is not None else []
        await record(request, actor, "cameras.see", incident.number, detail=", ".join(one.device for one in sights))
        return await respond(request, "_cameras.html", incident=incident, sights=sights, present=present)

    @router.get("/incidents/{id}/points")
    async def show_points(actor: Seer, id: str, name: Seen) -> Response:
        """One reading of the device that began it, around that moment, ``[[ms, value], …]``; when signals came; and
        from when to when that is."""
        incident = await find_incident(console, actor, id)
        points = await read_points(console, incident, name)
        span = span_of(incident, console.clock())
        marks = [at for at in list_marks(incident) if span[0] <= at <= span[1]]
        return JSONResponse({"points": points, "marks": marks, "span": span})

    return router


def scope_of(console: Console, actor: Actor, incident: Incident) -> IsMine:
    """Which base grids of the incident's community are the actor's."""
    names = console.names.names
    return make_scope(actor, incident, names.communities.get(incident.community), names.grids)


async def record_order(request: Request, actor: Actor, incident: Incident, wish: Bidding, refusal: str) -> None:
    """Who gave which command for which incident, why, and whether it was taken, in the audit log."""
    said = "; ".join(str(value) for value in wish.args.values())
    detail = "; ".join(part for part in (wish.reason, f"{wish.name} → {', '.join(wish.devices)}", said) if part)
    await record(request, actor, "command.give", incident.number, f"refused: {refusal}" if refusal else "done", detail)


def prepare(
    console: Console, actor: Actor, incident: Incident, present: Present, form: FormData
) -> tuple[dict[str, Any] | None, str]:
    """What the form asks for, ready to be confirmed; otherwise None, and a code of what is wrong with it."""
    name, target = read_field(form, "command"), read_field(form, "target")
    offers = [
        offer
        for offer in list_offers(present, console.catalog, incident, scope_of(console, actor, incident))
        if offer.name == name
    ]
    found = _find_target(offers, target)
    if found is None:
        return None, "no-target"
    offer, nears = found
    args = read_args(form, offer.args)
    if args is None:
        return None, "bad-argument"
    reason = read_field(form, "reason", REASON_LIMIT)
    if not reason:
        return None, "no-reason"
    wish = Bidding(secrets.token_hex(16), name, tuple(near.device.id for near in nears), reason, args)
    return {"wish": wish, "devices": nears, "is_opening": name in OPENING}, ""


def _find_target(offers: Sequence[Offer], target: str) -> tuple[Offer, tuple[Near, ...]] | None:
    kind, _, wanted = target.partition(":")
    for offer in offers:
        if kind == "zone" and offer.is_loud:
            inside = dict(offer.zones()).get(wanted)
        else:
            inside = tuple(near for near in offer.devices if kind == "device" and near.device.id == wanted)
        if inside:
            return offer, inside
    return None


def read_args(form: FormData, specs: Mapping[str, FieldSpec]) -> dict[str, Scalar] | None:
    """A command's arguments out of a form, each as its type has it; None where one cannot be."""
    found: dict[str, Scalar] = {}
    for name, spec in specs.items():
        value = _read_value(read_field(form, f"arg_{name}", TEXT_LIMIT), spec)
        if spec.refuse(value) is not None or not isinstance(value, str | int | float):
            return None
        found[name] = value
    return found


def _read_value(text: str, spec: FieldSpec) -> object:
    match spec.type:
        case "boolean":
            return {"true": True, "false": False}.get(text, _WRONG)
        case "integer":
            return int(text) if text.lstrip("-").isdecimal() and len(text) < 16 else _WRONG
        case "number":
            try:
                return float(text)
            except ValueError:
                return _WRONG
        case _:
            return text if text.isprintable() else _WRONG


def _read_known_args(console: Console, incident: Incident, form: FormData, devices: Sequence[str]) -> dict[str, Scalar]:
    """The arguments as the first device's model declares them. What does not fit, the engine refuses in words."""
    device = console.ledger.device(incident.community, devices[0]) if devices else None
    profile = console.catalog.profiles.get(device.profile) if device is not None else None
    spec = profile.commands.get(read_field(form, "command")) if profile is not None else None
    return (read_args(form, spec.args) or {}) if spec is not None else {}


def read_field(form: FormData, name: str, limit: int = 80) -> str:
    """A field of a form. Raises Problem for a form that is none of ours."""
    value = form.get(name, "")
    if not isinstance(value, str) or len(value) > limit:
        raise Problem(422, "not-valid", f"{name} is a text of at most {limit} characters")
    return value.strip()
