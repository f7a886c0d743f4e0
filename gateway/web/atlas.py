"""Where communities lie and how many devices they have, for the map: read once in a while, not for every look.

Places stand in the engines' state; the newest checkpoint of each community tells them. A place that was moved since
then is seen after the next checkpoint, a day later at most; incidents carry their own position.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct

from gateway.core.model import Community, DeviceState, Place
from gateway.runtime.ports import Ledger, LedgerDown

log = logging.getLogger(__name__)

FRESH_S: Final = 300.0


class _Places(Struct):
    """The part of a checkpoint's state that is looked at."""

    community: Community
    places: list[Place] = []


_places: Final = msgspec.msgpack.Decoder(_Places)


class Spot(Struct, frozen=True):
    """A community on the map: ``devices`` in use, and its ``sources`` of which so many are ``silent``."""

    community: Community
    lon: float
    lat: float
    devices: int
    sources: int
    silent: int


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
            position = find_position(community.id, self._read_places(community.id))
            if position is not None:
                devices = sum(d.state != DeviceState.RETIRED for d in self._ledger.devices(community.id))
                lon, lat = position
                found[community.id] = Spot(
                    community, lon, lat, devices, all_sources[community.id], silent[community.id]
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
