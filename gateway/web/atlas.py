"""Where communities lie and how many devices they have, for the map: read once in a while, not for every look.

Places stand in the engines' state; the newest checkpoint of each community tells them. A place that was moved since
then is seen after the next checkpoint, a day later at most; incidents carry their own position.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct

from gateway.core.model import Community, Device, DeviceState, Place
from gateway.runtime.ports import Ledger, LedgerDown

log = logging.getLogger(__name__)

FRESH_S: Final = 300.0


class _Places(Struct):
    """The part of a checkpoint's state that is looked at."""

    community: Community
    places: list[Place] = []


_places: Final = msgspec.msgpack.Decoder(_Places)


class Patch(Struct, frozen=True):
    """What of a community lies in one base grid: the ``points`` (lon, lat) of its places, and its devices' ids."""

    points: frozenset[tuple[float, float]]
    devices: frozenset[str]


class Spot(Struct, frozen=True):
    """A community on the map: ``devices`` in use, and its ``sources`` of which so many are ``silent``. ``patches`` are
    by the codes of base grids."""

    community: Community
    lon: float
    lat: float
    devices: int
    sources: int
    silent: int
    patches: dict[str, Patch] = {}


class Atlas:
    """Knows the spots by community."""

    def __init__(self, ledger: Ledger) -> None:
        self.spots: dict[str, Spot] = {}
        self._ledger = ledger

    async def run(self) -> None:
        """Keeps them fresh for ever."""
        while True:
            try:
                self.spots = await asyncio.to_thread(self._read)
            except LedgerDown as error:
                log.warning("the map stays as it was: %s", error)
                await asyncio.sleep(5)
                continue
            await asyncio.sleep(FRESH_S if self.spots else 5)

    def _read(self) -> dict[str, Spot]:
        sources = self._ledger.sources()
        all_sources = Counter(view.community for view in sources)
        silent = Counter(view.community for view in sources if not view.status.online)
        found: dict[str, Spot] = {}
        for community in self._ledger.communities():
            places = self._read_places(community.id)
            position = find_position(community.id, places)
            if position is not None:
                devices = [d for d in self._ledger.devices(community.id) if d.state != DeviceState.RETIRED]
                lon, lat = position
                found[community.id] = Spot(
                    community,
                    lon,
                    lat,
                    len(devices),
                    all_sources[community.id],
                    silent[community.id],
                    find_patches(places, devices),
                )
        return found

    def _read_places(self, community: str) -> list[Place]:
        checkpoint = self._ledger.load_checkpoint(community)
        if checkpoint is None:
            return []
        try:
            return _places.decode(checkpoint.state).places
        except msgspec.MsgspecError as error:
            log.warning("the places of %s cannot be read: %s", community, error)
            return []


def find_position(community: str, places: Iterable[Place]) -> tuple[float, float] | None:
    """Where a community is: its own position, otherwise the middle of its places'; None when none has one."""
    points: list[tuple[float, float]] = []
    for place in places:
        if place.lon is None or place.lat is None:
            continue
        if place.id == community:
            return place.lon, place.lat
        points.append((place.lon, place.lat))
    if not points:
        return None
    return sum(lon for lon, _ in points) / len(points), sum(lat for _, lat in points) / len(points)


def find_patches(places: Iterable[Place], devices: Iterable[Device]) -> dict[str, Patch]:
    """What lies in which base grid: a place that names none lies in that of what it belongs to."""
    known = {place.id: place for place in places}
    grids: dict[str, str] = {}
    for id in known:
        passed: list[str] = []
        place: Place | None = known[id]
        while place is not None and place.id not in passed and place.grid is None and place.id not in grids:
            passed.append(place.id)
            place = known.get(place.parent) if place.parent else None
        code = grids.get(place.id) or place.grid if place is not None else None
        if code:
            grids.update(dict.fromkeys([*passed, id], code))
    points: defaultdict[str, set[tuple[float, float]]] = defaultdict(set)
    inside: defaultdict[str, set[str]] = defaultdict(set)
    for id, code in grids.items():
        lon, lat = known[id].lon, known[id].lat
        if lon is not None and lat is not None:
            points[code].add((lon, lat))
    for device in devices:
        if device.place in grids:
            inside[grids[device.place]].add(device.id)
    return {code: Patch(frozenset(points[code]), frozenset(inside[code])) for code in sorted({*grids.values()})}
