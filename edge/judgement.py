"""Offline judgement: while nobody at the gateway hears, the agent runs the rules marked ``offline: true`` on the same
pure engine, on what its own devices say, and gives their commands by itself.

The engine is fed all the time, so that it knows how things stand when the link goes. It sees the very messages that
will go up, under their own numbers: so the gateway comes to the same incident id, and the same command ids, when they
arrive, and nothing is done or opened twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from gateway.core.catalog import Catalog
from gateway.core.engine import Engine
from gateway.core.model import (
    Command,
    Community,
    Delivery,
    Device,
    DeviceState,
    Place,
    PlaceKind,
    RegistryChange,
    Source,
    Step,
    Tick,
)
from gateway.core.state import CommunityState
from gateway.runtime.clock import ForwardClock, read_steady
from gateway.wire import Message, SourceConfig

log = logging.getLogger(__name__)


def select_offline(catalog: Catalog) -> Catalog:
    """The catalog with no rules but those that an agent judges."""
    return replace(catalog, rules=tuple(rule for rule in catalog.rules if rule.offline))


class Judgement:
    """The engine of one agent. ``clock`` is the agent's own, in ms, which runs ``speed`` times as fast as ``steady``
    (real ms that only go forward). Only differences count; an engine's time never goes back, so when the agent's clock
    is set back, the judgement's goes on."""

    def __init__(
        self,
        catalog: Catalog,
        community: str,
        source: str,
        clock: Callable[[], int],
        speed: float = 1.0,
        steady: Callable[[], int] = read_steady,
    ) -> None:
        self._catalog = catalog
        self._community = community
        self._source = source
        self._make_clock = partial(ForwardClock, clock, speed, steady)
        self._now = self._make_clock()
        self._engine: Engine | None = None

    def renew(self, config: SourceConfig) -> None:
        """Begins anew, on this list of devices: after a change of it, and when the gateway hears again, because from
        then on its incidents are the true ones."""
        places = tuple(
            Place(place.id, PlaceKind(place.kind), place.name, place.parent, attributes=place.attributes)
            for place in config.places
            if place.kind in set(PlaceKind)
        )
        devices = tuple(
            Device(
                device.id,
                device.profile,
                self._source,
                device.place,
                device.name,
                device.address,
                # A drill or a commissioning that ends while the link is down ends when the link is back.
                DeviceState(device.state) if device.state in set(DeviceState) else DeviceState.ACTIVE,
                attributes=device.attributes,
            )
            for device in config.devices
            if device.profile in self._catalog.profiles
        )
        home = next((place.id for place in places if place.kind is PlaceKind.COMMUNITY), "")
        if not home:
            self._engine = None
            return
        name = next(place.name for place in places if place.id == home)
        self._now = self._make_clock()
        engine = Engine(self._catalog, CommunityState(Community(self._community, 0, name)))
        step = engine.feed(RegistryChange("registry", places, (Source(self._source, home),), devices), self._now())
        if step.answer != "done":
            log.error("no offline judgement, the device list is not consistent: %s", step.answer)
            self._engine = None
            return
        self._engine = engine

    def take(self, message: Message) -> list[Command]:
        """What the rules would have done on this message, as it went into the spool."""
        if self._engine is None:
            return []
        return _commands_of(self._engine.feed(Delivery(message, b""), self._now()))

    def tick(self) -> list[Command]:
        """What the rules would have done because time passed."""
        now = self._now()
        if self._engine is None or not self._engine.is_due(now):
            return []
        return _commands_of(self._engine.feed(Tick(), now))


def _commands_of(step: Step) -> list[Command]:
    return [effect for effect in step.effects if isinstance(effect, Command)]
