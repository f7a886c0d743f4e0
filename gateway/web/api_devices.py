"""``/api/v1/devices`` and ``/api/v1/windows``: what the property manager's pages do, for programs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from msgspec.structs import replace
from pydantic import ConfigDict, Field

from gateway.core.cameras import ADDRESS_LIMIT
from gateway.core.model import Community, Device, Silence, SilenceChange
from gateway.core.present import Present
from gateway.runtime.access import Actor, Permission
from gateway.runtime.device_desk import Alteration, Refused, Registration, Settled
from gateway.runtime.device_history import read_history
from gateway.runtime.door import DoorClosed, DoorRefused
from gateway.runtime.signals import list_points, read_recent
from gateway.runtime.silencing import bring_silence
from gateway.web.access import authorise, gate_of
from gateway.web.api_incidents import Body, Key, Limit, Moment, ReadingName, respond_json
from gateway.web.api_values import (
    AskList,
    ChapterList,
    CommunityPage,
    Curve,
    PlaceList,
    Point,
    Registered,
    RegisteredList,
    SignalList,
)
from gateway.web.console import Console
from gateway.web.device_page import ALARM_MS, POINTS
from gateway.web.device_view import find_community, offer_places, read_sick, record, veil
from gateway.web.openapi import answers, errors
from gateway.web.problems import Problem, away, unknown

Seer = Annotated[Actor, Depends(authorise(Permission.REGISTRY_SEE))]
Changer = Annotated[Actor, Depends(authorise(Permission.REGISTRY_CHANGE))]
Silencer = Annotated[Actor, Depends(authorise(Permission.SILENCES_CHANGE))]
Where = Annotated[str, Query(max_length=48, pattern=r"^[a-z0-9-]+$", description="the community", examples=["c042"])]
Place = Annotated[str, Path(max_length=48, pattern=r"^[a-z0-9-]+$", examples=["c042"])]
Id = Annotated[str, Path(max_length=48, pattern=r"^[a-z0-9-]+$", examples=["sn-2026-0042"])]
DeviceCursor = Annotated[
    str, Query(pattern=r"^[a-z0-9-]{0,48}$", description="`next` of the page before", examples=["sn-2026-0042"])
]
CommunityCursor = Annotated[
    str, Query(pattern=r"^[a-z0-9-]{0,48}$", description="`next` of the page before", examples=["c042"])
]
Window = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9-]+$", examples=["0d6b1f0e3c914e6fb1c5b6a2f2f0a7c4"])]


MOST: Final = 500
"""Devices of one list."""


class DeviceBody(Body):
    """A device of a list, as `RegistrationBody` has it."""

    code: Annotated[str, Field(max_length=80)]
    profile: Annotated[str, Field(max_length=48)]
    place: Annotated[str, Field(max_length=48)]
    source: Annotated[str, Field(max_length=48)] = ""
    name: Annotated[str, Field(max_length=60)] = ""
    address: Annotated[str, Field(max_length=120)] = ""
    secret: Annotated[str, Field(max_length=80)] = ""
    test: bool = True
    fetches: bool = False

    def wish(self, key: str) -> Registration:
        """What is to be done, once for this key."""
        texts = (self.code, self.profile, self.place, self.source, self.name, self.address, self.secret)
        return Registration(key, *texts, is_test=self.test, fetches=self.fetches)


class RegistrationBody(DeviceBody):
    """A device to register. Without ``source`` it speaks for itself and gets a password; with it, that edge agent
    carries it. With ``secret``, printed on a device that was listed beforehand, it is claimed and keeps that password.
    ``test``: it begins with a live test. ``fetches``: it fetches its password itself, with its model's secret."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "community": "c042",
                "code": "SN-2026/0042",
                "profile": "fixed-sos",
                "place": "c042-b03-u1-101",
                "test": True,
            }
        },
    )

    community: Annotated[str, Field(max_length=48)]


class RegistrationsBody(Body):
    """Many devices of one community. What can be registered is, as one change; the others are told with why not."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "community": "c042",
                "devices": [{"code": "SN-2026/0042", "profile": "fixed-sos", "place": "c042-b03-u1-101"}],
            }
        },
    )

    community: Annotated[str, Field(max_length=48)]
    devices: Annotated[list[DeviceBody], Field(min_length=1, max_length=MOST)]


class AlterationBody(Body):
    """A change of a device; what each verb takes, docs/devices.md says."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"verb": "move", "place": "c042-b03-u1-102", "reason": "搬家"}}
    )

    verb: Literal["test", "end_test", "move", "rename", "replace", "camera", "retire", "renew", "expect"]
    reason: Annotated[str, Field(max_length=200)] = ""
    place: Annotated[str, Field(max_length=48)] = ""
    name: Annotated[str, Field(max_length=60)] = ""
    code: Annotated[str, Field(max_length=80)] = ""
    profile: Annotated[str, Field(max_length=48)] = ""
    address: Annotated[str, Field(max_length=120)] = ""
    gb28181: Annotated[str, Field(max_length=20)] = ""
    rtsp: Annotated[str, Field(max_length=ADDRESS_LIMIT)] = ""


class WindowBody(Body):
    """A maintenance window, a silence, or an absence (``away``: ``place`` alone, a household)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "community": "c042",
                "kind": "maintenance",
                "device": "c042-lift-01",
                "until": "2026-11-23T22:00:00+08:00",
                "reason": "年检",
            }
        },
    )

    community: Annotated[str, Field(max_length=48)]
    kind: Literal["maintenance", "silence", "away"]
    until: Moment
    reason: Annotated[str, Field(min_length=1, max_length=200)]
    device: Annotated[str, Field(max_length=48)] | None = None
    place: Annotated[str, Field(max_length=48)] | None = None
    since: Moment | None = None


def route_devices_api(console: Console) -> APIRouter:
    """The routes about devices and windows."""
    router = APIRouter(prefix="/api/v1", tags=["devices"], default_response_class=Response)

    async def look(community: Community, device: str = "") -> Present:
        try:
            return await console.door.look(community.id, device)
        except (DoorClosed, DoorRefused) as error:
            raise away() from error

    @router.get("/devices", responses={**answers("DevicePage", "a page"), **errors(401, 403, 404, 422, 429, 503)})
    async def list_devices(
        actor: Seer,
        community: Where,
        limit: Limit = 100,
        cursor: DeviceCursor = "",
    ) -> Response:
        """The devices of a community by id, the retired ones too, as they are registered."""
        here = await find_community(console, actor, community)
        devices = await asyncio.to_thread(console.ledger.devices, here.id)
        found = [device for device in devices if device.id > cursor]
        more = found[limit - 1].id if len(found) > limit else None
        return respond_json({"items": [veil(actor, device) for device in found[:limit]], "next": more})

    @router.get("/devices/sick", responses={**answers("SickList", "it"), **errors(401, 403, 404, 422, 429, 503)})
    async def list_sick(actor: Seer, community: Where) -> Response:
        """The devices that are not well, by how much it hurts: those that lives hang on first, then by the homes
        behind them."""
        here = await find_community(console, actor, community)
        sick = await read_sick(console, await look(here))
        return respond_json({"items": [replace(patient, device=veil(actor, patient.device)) for patient in sick]})

    @router.get(
        "/devices/{community}/{id}",
        responses={**answers("DevicePresent", "it"), **errors(401, 403, 404, 422, 429, 503)},
    )
    async def read_device(actor: Seer, community: Place, id: Id) -> Response:
        """One registered device with its last values, and when it was last heard of."""
        here = await find_community(console, actor, community)
        found = (await look(here, id)).devices
        if not found:
            raise unknown()
        return respond_json(replace(found[0], device=veil(actor, found[0].device)))

    @router.get("/devices/{community}/{id}/points", responses={**answers("Curve", "it"), **errors(404, 422)})
    async def read_curve(actor: Seer, community: Place, id: Id, name: ReadingName) -> Response:
        """The numbers of one reading, as far as the newest part of the journal reaches: its last 500."""
        here = await find_community(console, actor, community)
        device = await find_device(here, id)
        heard = await asyncio.to_thread(read_recent, console.ledger, console.catalog, here.id, device, POINTS * 4)
        return respond_json(Curve([Point(*one) for one in list_points(heard, name)[-POINTS:]]))

    @router.get("/devices/{community}/{id}/signals", responses={**answers("SignalList", "they"), **errors(404, 422)})
    async def list_signals(actor: Seer, community: Place, id: Id) -> Response:
        """What the device sent last, believed or not and before any rule: at most 500, the newest first."""
        here = await find_community(console, actor, community)
        device = await find_device(here, id)
        heard = await asyncio.to_thread(read_recent, console.ledger, console.catalog, here.id, device, POINTS)
        return respond_json(SignalList(heard[::-1]))

    @router.get("/devices/asks", responses={**answers("AskList", "they"), **errors(404, 422)})
    async def list_asks(request: Request, actor: Seer, community: Where) -> Response:
        """Devices that should fetch their password with their model's secret and were refused in the last days: a wrong
        secret, a code that nobody registered so, a time that was over."""
        here = await find_community(console, actor, community)
        since = gate_of(request).sign_in.clock() - ALARM_MS
        desk = console.products
        asked = await asyncio.to_thread(desk.products.list_refused, here.id, since) if desk is not None else []
        return respond_json(AskList(asked))

    async def find_device(here: Community, id: str) -> Device:
        device = await asyncio.to_thread(console.ledger.device, here.id, id)
        if device is None:
            raise unknown()
        return device

    @router.post(
        "/devices",
        responses={**answers("Settled", "it is registered"), **errors(400, 401, 403, 404, 409, 422, 429, 503)},
    )
    async def register(request: Request, actor: Changer, body: RegistrationBody, key: Key) -> Response:
        """Registers a device. ``password`` is told this once; the same key again does nothing more, and tells none."""
        here = await find_community(console, actor, body.community)
        about = f"{here.id}/{body.code}"
        try:
            settled = await console.desk.register(actor, here.id, body.wish(key))
        except Refused as error:
            await record(request, actor, "device.register", about, f"refused: {error.code}")
            raise _refused(error) from error
        except (DoorClosed, DoorRefused) as error:
            raise away() from error
        await record(request, actor, "device.register", f"{here.id}/{settled.device.id}", _outcome(settled))
        return respond_json(settled)

    @router.post(
        "/devices/list",
        responses={**answers("RegisteredList", "what came of each"), **errors(404, 409, 422)},
    )
    async def register_many(request: Request, actor: Changer, body: RegistrationsBody, key: Key) -> Response:
        """Registers many devices. The same key again does nothing more, and tells no password."""
        here = await find_community(console, actor, body.community)
        try:
            outcomes = await console.desk.register_all(actor, here.id, key, [one.wish("") for one in body.devices])
        except Refused as error:
            await record(request, actor, "device.bulk", here.id, f"refused: {error.code}")
            raise _refused(error) from error
        except (DoorClosed, DoorRefused) as error:
            raise away() from error
        told = [_tell_registered(one) for one in outcomes]
        count = sum(one.device is not None for one in told)
        await record(request, actor, "device.bulk", here.id, "done", f"{count} of {len(told)} of a list")
        return respond_json(RegisteredList(told))

    @router.get("/devices/{community}/{id}/history", responses={**answers("ChapterList", "it"), **errors(404, 422)})
    async def read_chapters(actor: Seer, community: Place, id: Id) -> Response:
        """What was done to a device since it was registered, also to one that is retired."""
        here = await find_community(console, actor, community)
        if await asyncio.to_thread(console.ledger.device, here.id, id) is None:
            raise unknown()
        return respond_json(ChapterList(await asyncio.to_thread(read_history, console.ledger, here.id, id)))

    @router.get("/communities", responses={**answers("CommunityPage", "a page"), **errors(422)})
    async def list_communities(
        actor: Seer,
        limit: Limit = 100,
        cursor: CommunityCursor = "",
    ) -> Response:
        """The communities of one's scope, by id."""
        known = await asyncio.to_thread(console.ledger.communities)
        found = sorted((c for c in known if c.id > cursor and actor.covers(c.id, c.grids)), key=lambda c: c.id)
        more = found[limit - 1].id if len(found) > limit else None
        return respond_json(CommunityPage(found[:limit], more))

    @router.get("/places", responses={**answers("PlaceList", "they"), **errors(404, 422)})
    async def list_places(actor: Seer, community: Where) -> Response:
        """The places of a community, where devices can be."""
        here = await find_community(console, actor, community)
        return respond_json(PlaceList(offer_places((await look(here)).places)))

    @router.post(
        "/devices/{community}/{id}/changes",
        responses={**answers("Settled", "it was done"), **errors(400, 401, 403, 404, 409, 422, 429, 503)},
    )
    async def change(
        request: Request, actor: Changer, community: Place, id: Id, body: AlterationBody, key: Key
    ) -> Response:
        """Tests, moves, renames, replaces or retires a device, or gives it a new password (told this once)."""
        here = await find_community(console, actor, community)
        about = f"{here.id}/{id}"
        try:
            settled = await console.desk.alter(actor, here.id, id, Alteration(key, **body.model_dump()))
        except LookupError as error:
            raise unknown() from error
        except Refused as error:
            await record(request, actor, f"device.{body.verb}", about, f"refused: {error.code}")
            raise _refused(error) from error
        except (DoorClosed, DoorRefused) as error:
            raise away() from error
        await record(request, actor, f"device.{body.verb}", about, _outcome(settled), body.reason)
        return respond_json(settled)

    @router.get("/windows", responses={**answers("WindowList", "they"), **errors(401, 403, 404, 422, 429, 503)})
    async def list_windows(actor: Seer, community: Where) -> Response:
        """The maintenance windows, silences and absences that hold or are to come."""
        here = await find_community(console, actor, community)
        return respond_json({"items": (await look(here)).silences})

    @router.post(
        "/windows", responses={**answers("WindowList", "it holds"), **errors(400, 401, 403, 404, 409, 422, 429, 503)}
    )
    async def begin(request: Request, actor: Silencer, body: WindowBody, key: Key) -> Response:
        """A window, a silence or an absence. Its id is the key."""
        here = await find_community(console, actor, body.community)
        since = round(body.since.timestamp() * 1000) if body.since is not None else 0
        until = round(body.until.timestamp() * 1000)
        silence = Silence(key, until, body.reason, actor.name, since, body.device, body.place, None, body.kind)
        await submit(request, actor, here, SilenceChange(key, actor.name, silence), f"silence.{body.kind}")
        return respond_json({"items": (await look(here)).silences})

    @router.post(
        "/windows/{community}/{id}/end",
        responses={**answers("WindowList", "it is over"), **errors(400, 401, 403, 404, 409, 422, 429, 503)},
    )
    async def end(request: Request, actor: Silencer, community: Place, id: Window, key: Key) -> Response:
        """Takes one back before its time."""
        here = await find_community(console, actor, community)
        await submit(request, actor, here, SilenceChange(key, actor.name, ended=id), "silence.end")
        return respond_json({"items": (await look(here)).silences})

    async def submit(request: Request, actor: Actor, here: Community, change: SilenceChange, what: str) -> None:
        of = change.silence
        about = f"{here.id}/{(of.device or of.place or '') if of is not None else change.ended}"
        try:
            answer = await bring_silence(console.door, actor, here.id, change)
        except Refused as error:
            await record(request, actor, what, about, f"refused: {error.code}")
            raise _refused(error) from error
        except (DoorClosed, DoorRefused) as error:
            raise away() from error
        is_done = answer in ("done", "repeat")
        await record(request, actor, what, about, answer if is_done else f"refused: {answer}"[:120])
        if not is_done:
            raise Problem(409, "refused", answer)

    return router


def _tell_registered(one: Settled | Refused) -> Registered:
    if isinstance(one, Refused):
        return Registered(None, code=one.code, detail=one.words, field=one.field)
    return Registered(one.device, one.password, is_repeat=one.is_repeat)


def _outcome(settled: Settled) -> str:
    return "repeat" if settled.is_repeat else "done"


def _refused(error: Refused) -> Problem:
    """Always 409: what the document allows and the district as it stands does not. ``field`` names the one to mend."""
    return Problem(409, error.code, error.words, field=error.field)
