"""Devices for those who look after them: which are not well, registering one, and all about one."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import segno
from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec import Struct
from starlette.datastructures import FormData
from starlette.responses import JSONResponse, RedirectResponse

from gateway.core.cameras import ADDRESS_LIMIT, CAMERA_ATTRIBUTES, is_camera
from gateway.core.model import Community, Device, DeviceState
from gateway.core.present import DevicePresent, Present
from gateway.core.worktime import DAY_MS
from gateway.runtime.access import Actor, Permission
from gateway.runtime.device_desk import SERIAL, Alteration, Refused, Registration, Settled, is_own_source
from gateway.runtime.device_history import read_history
from gateway.runtime.door import DoorClosed, DoorRefused
from gateway.runtime.ports import LedgerDown
from gateway.runtime.signals import list_points, read_head, read_recent, read_signals
from gateway.web.access import authorise, gate_of
from gateway.web.console import Console
from gateway.web.device_view import (
    find_community,
    look,
    name_place,
    offer_agents,
    offer_places,
    offer_profiles,
    read_key,
    read_sick,
    record,
    words,
)
from gateway.web.languages import choose_language
from gateway.web.problems import RETRY, Problem, unknown
from gateway.web.stream import LIFE_S, PULSE_S, RETRY_MS, Position, event, read_position, stream

Seer = Annotated[Actor, Depends(authorise(Permission.REGISTRY_SEE))]
Watcher = Annotated[Actor, Depends(authorise(Permission.REGISTRY_SEE, is_passive=True))]
Changer = Annotated[Actor, Depends(authorise(Permission.REGISTRY_CHANGE))]
Word = Annotated[str, Query(max_length=80, pattern=r"^[^\x00-\x1f]*$")]

TEXT_LIMIT: Final = 200
FIELDS: Final = (
    "id",
    "community",
    "code",
    "profile",
    "place",
    "source",
    "name",
    "address",
    "secret",
    "test",
    "fetches",
)
"""Of the form for a new device."""

SHOWN: Final = 300
"""Devices that a list shows at once; the search finds the others."""

ALARM_MS: Final = 7 * DAY_MS
"""That somebody asked for a device's password in vain stands above the list for so long."""

SIGNALS: Final = 40
POINTS: Final = 500
LOOK_S: Final = 0.3
"""How often a stream looks into the journal: who presses a button in a test sees it within half a second."""


class Told(Struct, frozen=True):
    """What the page says about what has just been done. ``kind``: ``done``, ``repeat``, ``refused``, ``away``."""

    kind: str
    verb: str = ""
    code: str = ""
    words: str = ""


class Shown(Struct, frozen=True):
    """A row of the list of devices."""

    device: Device
    place: str
    heard_at: int | None
    ailments: tuple[str, ...]


def route_devices(console: Console) -> APIRouter:
    """The pages about devices."""
    router = APIRouter()
    products = console.products

    async def respond(request: Request, template: str, status: int = 200, **values: Any) -> Response:
        known = words(console, choose_language(request))
        return await console.respond(request, template, status, **{**known, **values})

    # --- lists --------------------------------------------------------------------------------------------------

    @router.get("/devices")
    async def show_devices(
        request: Request, actor: Seer, community: Word = "", view: Word = "sick", text: Word = "", state: Word = ""
    ) -> Response:
        """The devices of a community: those that are not well, or all of them."""
        offered = console.names.names.offer_communities(actor)
        if not community and offered:
            community = offered[0][0]
        if not community:
            return await respond(request, "devices.html", communities=offered, community=None, view=view)
        here = await find_community(console, actor, community)
        present = await look(console, here.id)
        sick = await read_sick(console, present) if present is not None else []
        since = gate_of(request).sign_in.clock() - ALARM_MS
        asked = await asyncio.to_thread(products.products.list_refused, here.id, since) if products is not None else []
        shown = await _list(here, present, {p.device.id: tuple(s.ailment for s in p.symptoms) for p in sick}, state)
        wanted = text.strip().casefold()
        name = words(console, choose_language(request))["name_device"]
        if wanted:
            shown = [one for one in shown if wanted in f"{one.device.id} {name(one.device)} {one.place}".casefold()]
        return await respond(
            request,
            "devices.html",
            communities=offered,
            community=here,
            view=view if view in ("sick", "all") else "sick",
            text=text.strip(),
            state=state,
            present=present,
            sick=sick,
            places={} if present is None else {choice.id: choice.name for choice in offer_places(present.places)},
            shown=shown[:SHOWN],
            total=len(shown),
            asked=asked,
        )

    async def _list(
        here: Community, present: Present | None, ailments: dict[str, tuple[str, ...]], state: str
    ) -> list[Shown]:
        heard = {} if present is None else {one.device.id: one.heard_at for one in present.devices}
        places = {} if present is None else {choice.id: choice.name for choice in offer_places(present.places)}
        devices = await asyncio.to_thread(console.ledger.devices, here.id)
        return [
            Shown(one, places.get(one.place, one.place), heard.get(one.id), ailments.get(one.id, ()))
            for one in devices
            if (one.state == state if state else one.state is not DeviceState.RETIRED)
        ]

    # --- registering --------------------------------------------------------------------------------------------

    @router.get("/devices/new")
    async def show_form(
        request: Request, actor: Changer, community: Word = "", code: Word = "", place: Word = "", profile: Word = ""
    ) -> Response:
        """The form. A label's QR code may hold this page's address with the device's ``code``."""
        offered = console.names.names.offer_communities(actor)
        chosen = community or (offered[0][0] if offered else "")
        return await form(request, actor, chosen, {"code": code, "place": place, "profile": profile})

    async def form(
        request: Request,
        actor: Actor,
        community: str,
        fields: dict[str, str],
        status: int = 200,
        told: Told | None = None,
    ) -> Response:
        here = await find_community(console, actor, community)
        present = await look(console, here.id)
        language = choose_language(request)
        agents = offer_agents(console, present) if present is not None else []
        return await respond(
            request,
            "device_new.html",
            status if present is not None else 503,
            communities=console.names.names.offer_communities(actor),
            community=here,
            present=present,
            choices=offer_places(present.places) if present is not None else [],
            profiles=offer_profiles(console, language),
            agents=agents,
            fields={
                **dict.fromkeys(FIELDS, ""),
                "source": agents[0][0] if agents else "",
                "test": "1",
                **fields,
                "secret": "",
            },
            wish_id=fields.get("id") if told is not None and told.kind == "away" else secrets.token_hex(16),
            told=told,
            fetching=[p for p, _ in offer_profiles(console, language) if await products.is_offered(p)]
            if products is not None
            else [],
        )

    @router.post("/devices")
    async def register(request: Request, actor: Changer) -> Response:
        """Registers a device; the page that comes back shows its password, once."""
        sent = await request.form()
        fields = {name: read_text(sent, name) for name in FIELDS}
        here = await find_community(console, actor, fields["community"])
        wish = Registration(
            read_key(fields["id"]),
            fields["code"],
            fields["profile"],
            fields["place"],
            fields["source"],
            fields["name"],
            fields["address"],
            fields["secret"] if not fields["source"] else "",
            fields["test"] == "1",
            fields["fetches"] == "1" and not fields["source"],
        )
        try:
            settled = await console.desk.register(actor, here.id, wish)
        except Refused as error:
            await record(request, actor, "device.register", f"{here.id}/{wish.code}", f"refused: {error.code}")
            told = Told("refused", "register", error.code, error.words)
            return await form(request, actor, here.id, fields, 422 if error.field else 409, told)
        except (DoorClosed, DoorRefused):
            return await form(request, actor, here.id, fields, 503, Told("away", "register"))
        device = settled.device
        detail = f"{device.profile} at {device.place} by {device.source}"
        await record(
            request,
            actor,
            "device.register",
            f"{here.id}/{device.id}",
            "repeat" if settled.is_repeat else "done",
            detail,
        )
        return await answer(request, actor, here, settled, "register")

    # --- one device ---------------------------------------------------------------------------------------------

    @router.get("/devices/{community}/{id}")
    async def show_device(request: Request, actor: Seer, community: str, id: str, done: Word = "") -> Response:
        """All about one device."""
        here = await find_community(console, actor, community)
        return await page(request, actor, here, id, Told("done", done) if done else None)

    @router.get("/devices/{community}/{id}/values")
    async def show_values(request: Request, actor: Watcher, community: str, id: str) -> Response:
        """What it shows now, without the page around it."""
        here = await find_community(console, actor, community)
        present = await look(console, here.id, id)
        known = _only(present)
        if present is None:
            raise Problem(503, "gateway-away", "the gateway does not answer; ask again", headers=RETRY)
        if known is None:
            raise unknown()
        return await respond(
            request, "_device_values.html", known=known, profile=console.catalog.profiles.get(known.device.profile)
        )

    @router.get("/devices/{community}/{id}/past")
    async def show_past(request: Request, actor: Seer, community: str, id: str) -> Response:
        """What was done to it, asked of it, and what it had part in."""
        here = await find_community(console, actor, community)
        ledger = console.ledger
        history = await asyncio.to_thread(read_history, ledger, here.id, id)
        commands = await asyncio.to_thread(ledger.commands, here.id, id)
        cases = await asyncio.to_thread(ledger.incidents_of, here.id, id)
        disbelieved = await asyncio.to_thread(ledger.disbelieved, here.id, id)
        present = await look(console, here.id, id)
        names = {} if present is None else {choice.id: choice.name for choice in offer_places(present.places)}
        return await respond(
            request,
            "_device_past.html",
            history=history,
            commands=commands,
            cases=cases if actor.may(Permission.INCIDENTS_SEE) else [],
            disbelieved=disbelieved,
            place_name=lambda place: names.get(place, place),
        )

    @router.get("/devices/{community}/{id}/points")
    async def read_points(actor: Seer, community: str, id: str, name: Word) -> Response:
        """The numbers of one reading as far as the journal was looked through: ``[[ms, value], …]``."""
        here = await find_community(console, actor, community)
        device = await find_device(here, id)
        heard = await asyncio.to_thread(read_recent, console.ledger, console.catalog, here.id, device, POINTS * 4)
        return JSONResponse({"points": list_points(heard, name)[-POINTS:]})

    @router.get("/devices/{community}/{id}/stream")
    async def stream_device(
        request: Request, actor: Watcher, community: str, id: str, after: Position = -1
    ) -> Response:
        """What it sends from a row of the journal on, as soon as it is committed."""
        here = await find_community(console, actor, community)
        device = await find_device(here, id)
        events = follow(here.id, device, read_position(request, after), choose_language(request))
        return stream(console, request, events, Permission.REGISTRY_SEE)

    async def follow(community: str, device: Device, after: int, language: str) -> AsyncIterator[bytes]:
        ends_at, told_at = time.monotonic() + LIFE_S, 0.0
        if after < 0:
            after = await asyncio.to_thread(read_head, console.ledger, community)
        yield f"retry: {RETRY_MS}\n\n".encode()
        while time.monotonic() < ends_at:
            try:
                heard, after = await asyncio.to_thread(
                    read_signals, console.ledger, console.catalog, community, device, after, SIGNALS
                )
            except LedgerDown:
                heard = []
            parts = []
            for one in heard:
                html = console.pages.fragment(
                    language, "_device_signal.html", one=one, now=console.clock(), **words(console, language)
                )
                parts.append(event("signal", {"html": html, "name": one.name, "reason": one.reason}))
            if parts or time.monotonic() - told_at >= PULSE_S:
                told_at = time.monotonic()
                pulse = {
                    "now": console.clock(),
                    "is_fresh": console.board.is_fresh,
                    "is_gateway_there": console.board.is_gateway_there,
                }
                yield b"".join([*parts, event("pulse", pulse, after)])
            await asyncio.sleep(LOOK_S)

    @router.post("/devices/{community}/{id}/changes")
    async def change(request: Request, actor: Changer, community: str, id: str) -> Response:
        """Tests, moves, renames, replaces or retires it, or gives it a new password. The same form again changes
        nothing."""
        here = await find_community(console, actor, community)
        sent = await request.form()
        names = ("id", "verb", "reason", "place", "name", "code", "profile", "address")
        fields = {name: read_text(sent, name) for name in names}
        fields |= {name: read_text(sent, name, ADDRESS_LIMIT) for name in CAMERA_ATTRIBUTES}
        wish = Alteration(read_key(fields.pop("id")), **fields)
        about, what = f"{here.id}/{id}", f"device.{wish.verb}"
        try:
            settled = await console.desk.alter(actor, here.id, id, wish)
        except LookupError as error:
            raise unknown() from error
        except Refused as error:
            await record(
                request, actor, "device.change", about, f"refused: {error.code}", f"{wish.verb}: {error.words}"
            )
            told = Told("refused", wish.verb, error.code, error.words)
            return await page(request, actor, here, id, told, 422 if error.field else 409)
        except (DoorClosed, DoorRefused):
            return await page(request, actor, here, id, Told("away", wish.verb), 503, wish)
        await record(request, actor, what, about, "repeat" if settled.is_repeat else "done", wish.reason)
        return await answer(request, actor, here, settled, wish.verb)

    async def answer(request: Request, actor: Actor, here: Community, settled: Settled, verb: str) -> Response:
        id = settled.device.id
        if settled.password:
            return await page(request, actor, here, id, Told("done", verb), 201, password=settled.password)
        if settled.is_repeat:
            return await page(request, actor, here, id, Told("repeat", verb))
        return RedirectResponse(f"/devices/{here.id}/{id}?done={verb}", 303)

    async def find_device(here: Community, id: str) -> Device:
        device = await asyncio.to_thread(console.ledger.device, here.id, id)
        if device is None:
            raise unknown()
        return device

    async def page(
        request: Request,
        actor: Actor,
        here: Community,
        id: str,
        told: Told | None = None,
        status: int = 200,
        again: Alteration | None = None,
        password: str = "",
    ) -> Response:
        device = await find_device(here, id)
        position = await asyncio.to_thread(read_head, console.ledger, here.id)
        heard = await asyncio.to_thread(read_recent, console.ledger, console.catalog, here.id, device, SIGNALS)
        present = await look(console, here.id)
        known = next((one for one in present.devices if one.device.id == id), None) if present is not None else None
        language = choose_language(request)
        sick = await read_sick(console, present) if present is not None else []
        profile = console.catalog.profiles.get(device.profile)
        kinds = {p.id for p in console.catalog.profiles.values() if profile is not None and p.kind == profile.kind}
        silences = [] if present is None else [one for one in present.silences if one.device == id]
        return await respond(
            request,
            "device.html",
            status,
            community=here,
            device=known.device if known is not None else device,
            known=known,
            present=present,
            profile=profile,
            is_own=is_own_source(device),
            serial=device.attributes.get(SERIAL, ""),
            place=name_place(present.places, device.place) if present is not None else device.place,
            patient=next((one for one in sick if one.device.id == id), None),
            silences=silences,
            heard=heard[::-1],
            position=position,
            numbers=[r.id for r in profile.readings.values() if r.type in ("number", "integer")] if profile else [],
            choices=offer_places(present.places) if present is not None else [],
            profiles=[pair for pair in offer_profiles(console, language) if pair[0] in kinds],
            may_change=actor.may(Permission.REGISTRY_CHANGE) and known is not None,
            is_camera=is_camera(device, profile.kind if profile is not None else ""),
            wish_id=lambda verb: again.id if again is not None and again.verb == verb else secrets.token_hex(16),
            told=told,
            password=password,
            qr=draw_credentials(here.id, id, password) if password else "",
            awaited=await asyncio.to_thread(products.products.awaited, id) if products is not None else None,
            is_fetching=products is not None and await products.is_offered(device.profile),
        )

    return router


def draw_credentials(community: str, id: str, password: str) -> str:
    """What a device, or the app that sets it up, scans: JSON with its topic's parts and its password (docs/devices.md).
    As SVG."""
    text = f'{{"v":1,"community":"{community}","source":"{id}","password":"{password}"}}'
    return segno.make(text, error="m", micro=False).svg_inline(scale=4, border=3, dark="#000", light="#fff")


def read_text(form: FormData, name: str, limit: int = TEXT_LIMIT) -> str:
    """A field of a form. Raises Problem for a form that is none of ours."""
    value = form.get(name, "")
    if not isinstance(value, str) or len(value) > limit:
        raise Problem(422, "not-valid", f"{name} is a text of at most {limit} characters")
    return value.strip()


def _only(present: Present | None) -> DevicePresent | None:
    return present.devices[0] if present is not None and present.devices else None
