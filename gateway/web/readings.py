"""What the device that began an incident reported around that moment: as values, and as the points of a curve."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Struct

from gateway.core.condition import iter_leaves
from gateway.core.model import Incident
from gateway.core.present import DevicePresent
from gateway.core.profile import Profile
from gateway.runtime.door import DoorClosed, DoorRefused
from gateway.runtime.signals import list_points, read_around
from gateway.web.console import Console

BEFORE_MS: Final = 30 * 60_000
AFTER_MS: Final = 30 * 60_000
POINTS: Final = 1_000
LOOK_S: Final = 1.0
MARKS: Final = 20
"""Signals that are marked in the curve, the first of them."""

DRAWN: Final = frozenset({"number", "integer", "boolean"})


class Readings(Struct, frozen=True):
    """The device of the first signal. ``names`` are its readings that can be drawn, those that the rule looks at
    first; ``known`` is what it shows now, None while the gateway does not say."""

    device: str
    profile: Profile
    names: tuple[str, ...]
    known: DevicePresent | None = None


async def read_readings(console: Console, incident: Incident) -> Readings | None:
    """What the page shows of them; None where the device is not known."""
    profile = await _find_profile(console, incident)
    if profile is None:
        return None
    device = first_device(incident)
    try:
        present = await console.door.look(incident.community, device, LOOK_S)
    except (DoorClosed, DoorRefused):
        known = None
    else:
        known = present.devices[0] if present.devices else None
    return Readings(device, profile, _choose_names(console, incident, profile), known)


async def read_points(console: Console, incident: Incident, name: str) -> list[tuple[int, float]]:
    """One reading around the incident's opening, as (ms, value); true is 1. Raises LedgerDown."""
    device = await asyncio.to_thread(console.ledger.device, incident.community, first_device(incident))
    if device is None:
        return []
    since, until = span_of(incident)
    heard = await asyncio.to_thread(
        read_around, console.ledger, console.catalog, incident.community, device, since, until, POINTS
    )
    return list_points(heard, name)


def span_of(incident: Incident, now: int | None = None) -> tuple[int, int]:
    """From when to when a curve goes, in ms; not beyond ``now``."""
    until = incident.opened_at + AFTER_MS
    return incident.opened_at - BEFORE_MS, until if now is None else max(incident.opened_at, min(now, until))


def list_marks(incident: Incident) -> list[int]:
    """When its signals came, in ms."""
    return [line.at for line in incident.timeline if line.what in ("opened", "joined")][:MARKS]


def first_device(incident: Incident) -> str:
    """The device of the signal that opened it; empty where it was none's."""
    opened = next((line.device for line in incident.timeline if line.what == "opened"), "")
    return opened or next(iter(incident.devices), "")


async def _find_profile(console: Console, incident: Incident) -> Profile | None:
    id = first_device(incident)
    device = await asyncio.to_thread(console.ledger.device, incident.community, id) if id else None
    return console.catalog.profiles.get(device.profile) if device is not None else None


def _choose_names(console: Console, incident: Incident, profile: Profile) -> tuple[str, ...]:
    rule = console.catalog.rule(incident.rule)
    looked_at = [leaf.name for _, leaf in iter_leaves(rule.when)] if rule is not None else []
    names = [spec.id for spec in profile.readings.values() if spec.type in DRAWN]
    return tuple(sorted(names, key=lambda name: (name not in looked_at, names.index(name))))
