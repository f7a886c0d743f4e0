"""What the parts of an edge agent ask of each other: drivers bring what devices say, and do what devices are asked.

A driver knows one bus and its protocol. It does not know MQTT topics, spools or rules: it hands what a device said to
its `Desk`, and when `Desk.take` returns, that is on the disk. Only then may the driver tell the device that it was
heard. All times are ``int`` milliseconds UTC by the agent's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from gateway.core.profile import Profile
from gateway.wire import Measurement, Signal


class NotTaken(Exception):
    """What a device said could not be made durable (the disk is full, or broken): do not acknowledge it. A device that
    repeats what nobody acknowledged will say it again."""


class Carried(Struct, frozen=True):
    """A device that this agent carries, as the gateway's registry says. ``bus`` and ``address`` are the two parts of
    its registered address, ``bus/address on the bus``."""

    id: str
    profile: Profile
    bus: str
    address: str
    place: str


class Report(Struct, frozen=True):
    """What one device said at one time. ``measurements`` are named ``{device}:{reading}`` and hold the value and the
    unit as the device gave them: the gateway believes them or not, so that what is rejected is seen and counted."""

    device: str
    signals: tuple[Signal, ...] = ()
    measurements: tuple[Measurement, ...] = ()


class Lamp(StrEnum):
    """What a button shows: its press is recorded; a person has seen it, somebody is coming."""

    RECORDED = "recorded"
    COMING = "coming"


class Order(Struct, frozen=True):
    """A command as a driver is given it; ``args`` are as the device's profile says."""

    id: str
    device: Carried
    name: str
    args: Mapping[str, object]


class Outcome(Struct, frozen=True):
    """What became of an order: ``done``, ``failed`` or ``refused``, and in words why."""

    outcome: str
    detail: str = ""


class Desk(Protocol):
    """Where a driver hands in. One desk per driver."""

    bus: str

    def now(self) -> int:
        """The agent's clock, in ms."""

    def find(self, address: str) -> Carried | None:
        """The device at this address of the driver's bus."""

    def carried(self) -> Sequence[Carried]:
        """All devices on the driver's bus. Asked again at each round: the registry changes while the agent runs."""

    async def take(self, *reports: Report) -> tuple[str, ...]:
        """Makes reports durable, all or none; returns when they are on the disk. Raises NotTaken.

        Gives the ids of the events among them, in order: what the incident's timeline will say."""

    def tell(self, address: str, trouble: str) -> None:
        """What is wrong with a device, or with the bus itself (``address`` empty), in words, for the agent's status;
        empty when it is well (again). Counted, and logged when it changes."""


class Driver(Protocol):
    """One bus."""

    async def run(self, desk: Desk) -> None:
        """Listens and polls until cancelled. Comes back by itself from whatever its peers do, and says so by
        ``desk.tell``; raises only for what no waiting mends (a port that is taken, a missing library)."""

    async def perform(self, order: Order) -> Outcome:
        """Does what a device is asked to. Never raises for what the device does; takes 10 s at most."""

    async def show(self, device: Carried, lamp: Lamp) -> None:
        """Shows a lamp at a device that has one; nothing where it has none."""
