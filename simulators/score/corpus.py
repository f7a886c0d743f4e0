"""What the score plays, as values: communities as the import file has them, what happens there, and what must come of
it. Nothing here knows the gateway but its import file and its wire.

Times are ms UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from gateway.wire import Measurement, Signal

Scalar = float | int | bool | str


# --- the import file -----------------------------------------------------------------------------------------------


class Place(Struct, frozen=True):
    """A place; ``kind`` is ``community``, ``building``, ``unit``, ``household`` or ``public``."""

    id: str
    kind: str
    parent: str | None = None
    attributes: dict[str, Scalar] = {}


class Device(Struct, frozen=True, omit_defaults=True):
    """A device as it is registered."""

    id: str
    profile: str
    source: str
    place: str
    name: str = ""
    address: str = ""
    attributes: dict[str, Scalar] = {}


class Source(Struct, frozen=True):
    """The edge agent of a community; ``device`` is the device under which it is watched itself."""

    id: str
    place: str
    device: str


class Community(Struct, frozen=True):
    """What names a community."""

    id: str


class Estate(Struct, frozen=True):
    """A community of the import file, with one agent."""

    community: Community
    places: tuple[Place, ...]
    sources: tuple[Source, ...]
    devices: tuple[Device, ...]


class ImportFile(Struct, frozen=True):
    """A district as the gateway imports it, as far as the score looks at it."""

    communities: tuple[Estate, ...]
    lists: dict[str, tuple[str, ...]]


_import_files = msgspec.json.Decoder(ImportFile)


def read_import_file(data: bytes) -> ImportFile:
    """The communities of an import file."""
    return _import_files.decode(data)


# --- what happens --------------------------------------------------------------------------------------------------


class Pack(Struct, gc=False):
    """What an agent takes in at once, at time ``at``, when it sends it, and when the gateway hears it; None: never, the
    agent has let it go. ``again`` is how much later it is sent once more; 0: it is not."""

    at: int
    sent: int
    arrives: int | None
    measurements: list[Measurement]
    signals: tuple[Signal, ...] = ()
    again: int = 0


class Link(Struct, frozen=True):
    """The agent's connection comes up, or is gone."""

    at: int
    is_up: bool


class ClockStep(Struct, frozen=True):
    """From now on the agent's clock is so many ms ahead of the time."""

    at: int
    offset: int


class StateChange(Struct, frozen=True):
    """Somebody puts devices into a drill, a commissioning or a maintenance, until a time."""

    at: int
    devices: tuple[str, ...]
    state: Literal["commissioning", "drill", "maintenance"]
    until: int


class Quiet(Struct, frozen=True):
    """Somebody registers a silence, a maintenance window or an absence of a device or a place."""

    at: int
    until: int
    kind: Literal["silence", "maintenance", "away"]
    reason: str
    device: str | None = None
    place: str | None = None


class Blindness(Struct, frozen=True):
    """The gateway was stopped from ``since`` on, and hears again at ``at``."""

    at: int
    since: int


Happening = Pack | Link | StateChange | Quiet | Blindness


# --- what must come of it ------------------------------------------------------------------------------------------


class Deed(Struct, frozen=True):
    """What somebody does about a case: not before ``at``, and not before the deed before it."""

    at: int
    verb: str
    role: str
    reason: str = ""
    hold: int = 0
    """For ``park``: for so many ms."""


class Label(Struct, frozen=True):
    """A cause, and the one case that must come of it: of this category, at this place, opened from ``since`` to
    ``until``. ``kind``: an ``emergency`` is what people must be told of; an ``upset`` is a device, an agent or a
    community that is out of order and must be told of once. ``sort`` is whom the case is for (``incident`` or
    ``notice``). With ``in_storm`` it may stand in the list of its community's storm instead.

    ``devices`` are those that show it. ``deeds`` are what people do about the case."""

    scenario: str
    kind: Literal["emergency", "upset"]
    sort: Literal["incident", "notice"]
    community: str
    category: str
    place: str
    since: int
    until: int
    devices: tuple[str, ...] = ()
    in_storm: bool = False
    deeds: tuple[Deed, ...] = ()


class NearMiss(Struct, frozen=True):
    """What only looks like an emergency of the category ``like`` (empty: of none), and must come to nothing."""

    scenario: str
    like: str
    begins: int
    device: str


class Outage(Struct, frozen=True):
    """A time in which an agent is out, with so many devices behind it."""

    community: str
    devices: int
    since: int
    until: int


class Script(Struct):
    """One community's part: the devices that are registered at ``start``, everything that happens until ``end`` in
    order of its time, and the truth about it."""

    chapter: str
    community: str
    devices: tuple[Device, ...]
    start: int
    end: int
    happenings: Iterator[Happening]
    labels: tuple[Label, ...]
    near_misses: tuple[NearMiss, ...]
    clock: tuple[ClockStep, ...] = ()
    outages: tuple[Outage, ...] = ()


Corpus = Iterable[Script]
