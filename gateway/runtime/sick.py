"""Which devices are not well, and whom that hurts: first those that lives hang on, then by the homes behind them. Pure.

What is wrong is told by the engine's own findings (open maintenance notices), by what the device has sent that nobody
believed, and by what it does not send.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.catalog import Catalog
from gateway.core.model import Device, DeviceState, Incident, Place, PlaceKind, Sort
from gateway.core.present import DevicePresent, Present
from gateway.core.worktime import DAY_MS
from gateway.runtime.ports import Disbelieved

IMPLAUSIBLE_MS: Final = DAY_MS
"""A value that was not believed counts for so long."""

CHATTER: Final = 3
"""A case that cleared and came back so often is chattering."""


class Ailment(StrEnum):
    """What is wrong with a device; the worst first."""

    OFFLINE = "offline"
    CUT_OFF = "cut-off"
    FAULTY = "faulty"
    FLAT = "flat"
    IMPLAUSIBLE = "implausible"
    CHATTERING = "chattering"
    UNHEARD = "unheard"


CAUSES: Final[Mapping[str, Ailment]] = {
    "agent-offline": Ailment.OFFLINE,
    "battery": Ailment.FLAT,
    "device-down": Ailment.FAULTY,
    "camera-covered": Ailment.FAULTY,
    "valve-fault": Ailment.FAULTY,
    "agent-clock": Ailment.FAULTY,
    "agent-spool": Ailment.FAULTY,
    "agent-flapping": Ailment.CHATTERING,
}
"""Causes of maintenance notices, as rules/ has them, and what they say of the device."""

OFFLINE_RULE: Final = "ops.device-offline"
"""It has the cause of faults, so that a device that is broken and silent is one notice."""

_GRAVITY: Final = {ailment: number for number, ailment in enumerate(Ailment)}


class Symptom(Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong, since when (ms), with the case that tells it, or how often which ``reading`` had a value
    that was not believed, the last one, and why."""

    ailment: Ailment
    since: int
    incident: str = ""
    count: int = 0
    reading: str = ""
    value: str = ""
    reason: str = ""


class Patient(Struct, frozen=True):
    """A device with all that is wrong with it. ``homes`` are those that go unwatched by it."""

    device: Device
    symptoms: tuple[Symptom, ...]
    is_life_safety: bool
    homes: int

    @property
    def worst(self) -> Symptom:
        return self.symptoms[0]


def list_sick(
    present: Present, cases: Iterable[Incident], disbelieved: Iterable[Disbelieved], catalog: Catalog
) -> list[Patient]:
    """The devices of a community that are not well, by how much that hurts. ``cases`` are its open incidents and
    notices."""
    symptoms: defaultdict[str, dict[Ailment, Symptom]] = defaultdict(dict)

    def note(device: str, symptom: Symptom) -> None:
        symptoms[device].setdefault(symptom.ailment, symptom)

    for case in cases:
        ailment = Ailment.OFFLINE if case.rule == OFFLINE_RULE else CAUSES.get(case.cause)
        for device in case.devices:
            if case.sort is Sort.NOTICE and ailment is not None:
                note(device, Symptom(ailment, case.opened_at, case.id))
            if case.flaps >= CHATTER:
                note(device, Symptom(Ailment.CHATTERING, case.opened_at, case.id, case.flaps))
    for one in disbelieved:
        if present.now - one.last_at < IMPLAUSIBLE_MS:
            odd = Symptom(Ailment.IMPLAUSIBLE, one.first_at, "", one.count, one.reading, one.value, one.reason)
            note(one.device, odd)
    for known in present.devices:
        if known.device.state is DeviceState.ACTIVE:
            for symptom in _listen(known):
                note(known.device.id, symptom)
    safety, homes = life_safety_kinds(catalog), _Homes(present.places)
    found = []
    for known in present.devices:
        ill = symptoms.get(known.device.id)
        if ill:
            if Ailment.UNHEARD in ill and Ailment.OFFLINE in ill:
                notice = ill.pop(Ailment.OFFLINE)
                ill[Ailment.UNHEARD] = replace(ill[Ailment.UNHEARD], incident=notice.incident)
            carried = _carried(known.device, present)
            is_vital = any(_kind(device, catalog) in safety for device in carried)
            places = [device.place for device in carried]
            ordered = tuple(sorted(ill.values(), key=lambda symptom: _GRAVITY[symptom.ailment]))
            found.append(Patient(known.device, ordered, is_vital, homes.behind(places)))
    return sorted(found, key=_hurt)


def _hurt(patient: Patient) -> tuple[bool, int, int, int, str]:
    worst = patient.worst
    return (not patient.is_life_safety, -patient.homes, _GRAVITY[worst.ailment], worst.since, patient.device.id)


def _listen(known: DevicePresent) -> Iterable[Symptom]:
    """What a device's silence says."""
    if known.is_cut_off:
        yield Symptom(Ailment.CUT_OFF, known.heard_at or 0)
    elif known.silent_since is not None and known.heard_at is not None:
        yield Symptom(Ailment.OFFLINE, known.silent_since)
    elif known.silent_since is not None:
        yield Symptom(Ailment.UNHEARD, known.silent_since)


def _carried(device: Device, present: Present) -> Sequence[Device]:
    """The device, and where it is an edge agent all that speak through it."""
    others = [one.device for one in present.devices if one.device.source == device.id]
    return others or [device]


def _kind(device: Device, catalog: Catalog) -> str:
    profile = catalog.profiles.get(device.profile)
    return profile.kind if profile is not None else ""


def life_safety_kinds(catalog: Catalog) -> frozenset[str]:
    """The kinds of device that people's lives hang on: those of the rules with such a category, and all that somebody
    can press for help."""
    kinds = {p.kind for p in catalog.profiles.values() if any(event.press for event in p.events.values())}
    for rule in catalog.rules:
        category = catalog.categories.get(rule.category)
        if category is not None and category.life_safety:
            kinds.update(rule.kinds)
    return frozenset(kinds)


class _Homes:
    """Counts households by place."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = {place.id: place for place in places}
        self._below: defaultdict[str, set[str]] = defaultdict(set)
        for place in places:
            if place.kind is PlaceKind.HOUSEHOLD:
                for above in self._chain(place.id):
                    self._below[above].add(place.id)

    def _chain(self, id: str) -> Iterable[str]:
        seen: set[str] = set()
        place = self._places.get(id)
        while place is not None and place.id not in seen:
            seen.add(place.id)
            yield place.id
            place = self._places.get(place.parent) if place.parent else None

    def behind(self, places: Iterable[str]) -> int:
        """Homes at or below these places; a public place stands for those of the place that it belongs to."""
        homes: set[str] = set()
        for id in places:
            place = self._places.get(id)
            if place is not None and place.kind is PlaceKind.PUBLIC and place.parent:
                id = place.parent
            homes |= self._below[id]
        return len(homes)
