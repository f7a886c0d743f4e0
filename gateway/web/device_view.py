"""What the pages about devices share: whose community it is, what the engine shows of it, and how that is put."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from fastapi import Request
from msgspec.structs import replace

from gateway.core.cameras import CAMERA_ATTRIBUTES
from gateway.core.model import Community, Device, DeviceState, Place, Sort
from gateway.core.present import Present
from gateway.runtime.access import Actor, Permission
from gateway.runtime.board import Filter
from gateway.runtime.door import DoorClosed, DoorRefused
from gateway.runtime.help_pages import PROFILE
from gateway.runtime.sick import Patient, list_sick
from gateway.web import device_words
from gateway.web.access import demand_cover, gate_of
from gateway.web.api_values import PlaceChoice
from gateway.web.console import Console
from gateway.web.languages import pick
from gateway.web.problems import Problem, unknown
from gateway.web.words import DEVICE_STATES

KEY_LENGTHS: Final = range(16, 65)


async def find_community(console: Console, actor: Actor, id: str) -> Community:
    """A community of the actor's. Its devices are looked after as a whole, so its scope must take in the whole of it.
    Raises Problem 404."""
    found = console.names.names.communities.get(id)
    if found is None:
        known = await asyncio.to_thread(console.ledger.communities)
        found = next((community for community in known if community.id == id), None)
    if found is None:
        raise unknown()
    demand_cover(actor, found.id, found.grids)
    return found


async def look(console: Console, community: str, device: str = "") -> Present | None:
    """What the engine shows now; None while the gateway does not answer."""
    try:
        return await console.door.look(community, device)
    except (DoorClosed, DoorRefused):
        return None


def veil(actor: Actor, device: Device) -> Device:
    """The device as the actor may see it: how a camera is reached is for those who look through it."""
    if actor.may(Permission.CAMERAS_SEE) or not any(name in device.attributes for name in CAMERA_ATTRIBUTES):
        return device
    shown = {name: value for name, value in device.attributes.items() if name not in CAMERA_ATTRIBUTES}
    return replace(device, attributes=shown)


async def read_sick(console: Console, present: Present) -> list[Patient]:
    """The devices of the community that are not well."""
    community = next((place.id for place in present.places if place.parent is None), "")
    cases = [i for sort in Sort for i in console.board.select(lambda *_: True, Filter(sort, community))]
    disbelieved = await asyncio.to_thread(console.ledger.disbelieved, community)
    return list_sick(present, cases, disbelieved, console.catalog)


def offer_places(places: Iterable[Place]) -> list[PlaceChoice]:
    """All places of a community in the order of their names, each below what it belongs to."""
    known = {place.id: place for place in places}

    def path(place: Place) -> tuple[str, ...]:
        names: list[str] = []
        seen: set[str] = set()
        now: Place | None = place
        while now is not None and now.id not in seen:
            seen.add(now.id)
            names.append(now.name)
            now = known.get(now.parent) if now.parent else None
        return tuple(reversed(names))

    def made(place: Place) -> PlaceChoice:
        names = path(place)
        return PlaceChoice(place.id, " ".join(names[1:]) or names[0], str(place.kind), place.lon, place.lat)

    return [made(place) for place in sorted(known.values(), key=lambda place: [_natural(n) for n in path(place)])]


def _natural(name: str) -> tuple[int, str]:
    """So that 10号楼 comes after 9号楼."""
    digits = "".join(c for c in name if c.isdigit())
    return (int(digits[:9]) if digits else 0, name)


def name_place(places: Iterable[Place], id: str) -> str:
    """A place in words."""
    return next((choice.name for choice in offer_places(places) if choice.id == id), id)


def offer_profiles(console: Console, language: str) -> list[tuple[str, str]]:
    """Id and title of the models, by title; without the help page, which comes with its sheet."""
    profiles = console.catalog.profiles.values()
    found = [(p.id, pick(p.title, language)) for p in profiles if p.status != "draft" and p.id != PROFILE]
    return sorted(found, key=lambda pair: pair[1])


def offer_agents(console: Console, present: Present) -> list[tuple[str, bool]]:
    """The edge agents that may carry a device, and whether each is there."""
    profiles = console.catalog.profiles
    agents = {
        one.device.id
        for one in present.devices
        if (profile := profiles.get(one.device.profile)) is not None and profile.kind == "edge-agent"
    }
    return [(one.source.id, one.out_since is None) for one in present.sources if one.source.id in agents]


def read_key(value: str) -> str:
    """An event's id as a page or a program made it. Raises Problem."""
    if len(value) not in KEY_LENGTHS or not value.replace("-", "").isalnum() or not value.isascii():
        raise Problem(422, "not-valid", "id is 16 to 64 letters, digits and dashes, new for each wish")
    return value


def words(console: Console, language: str) -> dict[str, Any]:
    """What templates about devices call things."""

    def name_model(device: Device) -> str:
        profile = console.catalog.profiles.get(device.profile)
        return pick(profile.title, language) if profile is not None else device.profile

    def name_device(device: Device) -> str:
        return device.name or name_model(device)

    return {
        "name_model": name_model,
        "name_device": name_device,
        "name_signal": lambda code: device_words.pick_word(device_words.SIGNALS, code, language),
        "name_argument": lambda code: device_words.pick_word(device_words.ARGUMENTS, code, language),
        "name_nearness": lambda code: device_words.pick_word(device_words.NEARNESS, code, language),
        "name_ailment": lambda code: device_words.pick_word(device_words.AILMENTS, code, language),
        "name_change": lambda code: device_words.pick_word(device_words.VERBS, code, language),
        "name_refusal": lambda code: device_words.pick_word(device_words.REFUSALS, code, language),
        "name_reason": lambda code: device_words.pick_word(device_words.REASONS, code, language),
        "name_command_state": lambda code: device_words.pick_word(device_words.COMMAND_STATES, code, language),
        "name_silence": lambda code: device_words.pick_word(device_words.SILENCE_KINDS, code, language),
        "name_device_state": lambda state: device_words.pick_word(DEVICE_STATES, state, language),
        "is_grave": lambda ailment: ailment in device_words.GRAVE,
        "show_value": lambda value: device_words.show_value(value, language),
        "show_unit": device_words.show_unit,
        "DeviceState": DeviceState,
    }


async def record(
    request: Request, actor: Actor, what: str, about: str, outcome: str = "done", detail: str = ""
) -> None:
    """A line of the audit log."""
    await gate_of(request).record(request, actor, what, about, outcome=outcome, detail=detail[:300])
