"""``/api/v1/incidents/{id}/commands`` and ``…/cameras``: what a dispatcher reaches in the community, for programs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from msgspec.structs import replace
from pydantic import ConfigDict, Field

from gateway.core.model import Incident
from gateway.core.ordering import ORDER_DEVICES
from gateway.core.present import Present
from gateway.runtime.access import Actor, Permission
from gateway.runtime.commanding import Bidding, give, list_cameras, list_given, list_offers
from gateway.runtime.door import DoorClosed, DoorRefused
from gateway.web.access import authorise
from gateway.web.api_incidents import Body, Id, Key, respond_json
from gateway.web.command_page import REASON_LIMIT, TEXT_LIMIT, record_order, scope_of
from gateway.web.console import Console
from gateway.web.device_view import record, veil
from gateway.web.incident_page import find_incident
from gateway.web.openapi import answers, errors
from gateway.web.problems import RETRY, Problem, away

Seer = Annotated[Actor, Depends(authorise(Permission.INCIDENTS_SEE))]
Giver = Annotated[Actor, Depends(authorise(Permission.COMMANDS_GIVE))]
Looker = Annotated[Actor, Depends(authorise(Permission.CAMERAS_SEE))]

# No control characters: what is spoken, and what stands in a timeline, is one line of text.
_LINE: Final = r"^[^\x00-\x1f\x7f]*$"
_WHOLE: Final = 2**53
Line = Annotated[str, Field(max_length=TEXT_LIMIT, pattern=_LINE)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-_WHOLE, le=_WHOLE)]


class OrderBody(Body):
    """A command to devices. What may be asked of which, and with which arguments, ``offers`` says."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "command": "broadcast",
                "devices": ["c042-speaker-0003"],
                "args": {"text": "三号楼发生火情，请沿安全通道撤离"},
                "reason": "现场确认有明火",
            }
        },
    )

    command: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
    devices: Annotated[
        list[Annotated[str, Field(pattern=r"^[a-z0-9-]{1,48}$")]], Field(min_length=1, max_length=ORDER_DEVICES)
    ]
    reason: Annotated[str, Field(min_length=1, max_length=REASON_LIMIT, pattern=_LINE)]
    args: Annotated[dict[str, bool | Whole | Number | Line], Field(max_length=16, default_factory=dict)]


def route_commands_api(console: Console) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api/v1", tags=["commands"], default_response_class=Response)

    async def look(incident: Incident) -> Present:
        try:
            return await console.door.look(incident.community)
        except (DoorClosed, DoorRefused) as error:
            raise away() from error

    @router.get(
        "/incidents/{id}/commands",
        responses={**answers("GivenList", "they"), **errors(401, 403, 404, 422, 429, 503)},
    )
    async def list_commands(actor: Seer, id: Id) -> Response:
        """What was asked of devices for this incident, by rules and by people, with the outcomes, the newest first.
        While ``state`` is ``pending`` or ``sent`` an outcome is awaited; then it is ``done``, ``failed``, ``refused``,
        ``expired`` or ``timed-out``."""
        incident = await find_incident(console, actor, id)
        return respond_json({"items": await asyncio.to_thread(list_given, console.ledger, incident)})

    @router.get(
        "/incidents/{id}/commands/offers",
        responses={**answers("OfferList", "they"), **errors(401, 403, 404, 422, 429, 503)},
    )
    async def list_what_may_be_asked(actor: Giver, id: Id) -> Response:
        """What may be asked of the devices around it that are in use, the nearest first."""
        incident = await find_incident(console, actor, id)
        offers = list_offers(await look(incident), console.catalog, incident, scope_of(console, actor, incident))
        shown = [
            replace(offer, devices=tuple(replace(near, device=veil(actor, near.device)) for near in offer.devices))
            for offer in offers
        ]
        return respond_json({"items": shown})

    @router.post(
        "/incidents/{id}/commands",
        responses={**answers("GivenList", "they are asked"), **errors(400, 401, 403, 404, 409, 422, 429, 503)},
    )
    async def order(request: Request, actor: Giver, id: Id, body: OrderBody, key: Key) -> Response:
        """Commands devices for an open incident. It is not given later than two minutes from now; what became of it,
        the list says. The same key again does nothing more."""
        incident = await find_incident(console, actor, id)
        wish = Bidding(key, body.command, tuple(body.devices), body.reason.strip(), dict(body.args))
        try:
            bid = await give(console.ledger, console.door, actor, incident, wish)
        except DoorClosed as error:
            raise away() from error
        except DoorRefused as error:
            raise Problem(503, str(error), "the gateway cannot take it in now", headers=RETRY) from error
        await record_order(request, actor, incident, wish, bid.refusal)
        if bid.refusal:
            raise Problem(409, "refused", bid.refusal, state=bid.incident.state, revision=bid.incident.revision)
        return respond_json({"items": await asyncio.to_thread(list_given, console.ledger, bid.incident)})

    @router.get(
        "/incidents/{id}/cameras",
        responses={**answers("SightList", "they"), **errors(401, 403, 404, 422, 429, 503)},
    )
    async def list_sights(request: Request, actor: Looker, id: Id) -> Response:
        """The nearest cameras, with their ids of GB/T 28181 and their addresses. No password: whoever looks signs in at
        the video platform. Who asks stands in the audit log."""
        incident = await find_incident(console, actor, id)
        sights = list_cameras(await look(incident), console.catalog, incident, scope_of(console, actor, incident))
        await record(request, actor, "cameras.see", incident.number, detail=", ".join(one.device for one in sights))
        return respond_json({"items": sights})

    return router
