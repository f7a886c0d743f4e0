"""What somebody may ask of the devices around an incident, asking it through the door, and what became of it.

The nearest devices stand first. The engine decides for good (`gateway.core.ordering`): between a look and an order a
device may have been taken into maintenance, or the case closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from zlib import crc32

from msgspec import Struct

from gateway.core.cameras import GB28181, RTSP, is_camera
from gateway.core.catalog import Catalog
from gateway.core.district import DistrictError, PlaceTree, climb
from gateway.core.incident import derive_command_id
from gateway.core.model import Community, Device, DeviceState, Grid, Incident, Order, PlaceKind, Scalar
from gateway.core.ordering import ON_THE_SPOT, ORDER_DEVICES, UPKEEP
from gateway.core.present import Present
from gateway.core.profile import FieldSpec
from gateway.runtime.access import Actor
from gateway.runtime.acting import PATIENCE_S
from gateway.runtime.coordinates import measure_distance
from gateway.runtime.door import DoorClient
from gateway.runtime.keys import make_event_id
from gateway.runtime.ports import GivenCommand, Ledger

LOUD: Final = frozenset({"broadcast", "sound"})
"""Commands that one gives to all devices of a place at once."""

FIRST: Final = ("broadcast", "close_valve", "close_water_valve", "open_gate", "sound", "speak", "mute")
"""What is wanted most often stands first; the others follow by name."""

CAMERAS: Final = 8

ENDS: Final = frozenset({"done", "failed", "refused", "expired", "timed-out"})
"""States of a command after which nothing more is awaited."""

IsMine = Callable[[str], bool]
"""Whether what lies in this base grid is the actor's."""

PLACE, BUILDING, COMMUNITY = "place", "building", "community"
_NEARNESS: Final = {PLACE: 0, BUILDING: 1, COMMUNITY: 2}


class Near(Struct, frozen=True, omit_defaults=True):
    """A device, and where it is from the incident: ``place`` (the same one), ``building`` or ``community``.
    ``distance`` is in metres, where both places are known; ``is_out``: its source is out of reach, or it is silent."""

    device: Device
    nearness: str
    place_name: str
    distance: int | None = None
    is_out: bool = False


class Offer(Struct, frozen=True):
    """One command that may be given: its arguments, and the devices that can do it, the nearest first."""

    name: str
    args: dict[str, FieldSpec]
    devices: tuple[Near, ...]

    @property
    def is_loud(self) -> bool:
        return self.name in LOUD

    def zones(self) -> list[tuple[str, tuple[Near, ...]]]:
        """The devices at the place, in the building, and in the whole community, as far as these differ."""
        found: list[tuple[str, tuple[Near, ...]]] = []
        for zone, reach in _NEARNESS.items():
            inside = tuple(near for near in self.devices if _NEARNESS[near.nearness] <= reach)
            if inside and (not found or len(inside) > len(found[-1][1])):
                found.append((zone, inside[:ORDER_DEVICES]))
        return found


class Sight(Struct, frozen=True, omit_defaults=True):
    """A camera near an incident, with its id for the video platform and its address for a player, where it has them.
    Neither holds a password."""

    device: str
    name: str
    place_name: str
    nearness: str
    gb28181: str = ""
    rtsp: str = ""
    distance: int | None = None
    is_out: bool = False


class Given(Struct, frozen=True, omit_defaults=True):
    """A command that was given for an incident. ``by`` is who ordered it, and ``reason`` why; empty where a rule did.
    ``is_over``: nothing more is awaited of it."""

    command: GivenCommand
    by: str = ""
    reason: str = ""

    @property
    def is_over(self) -> bool:
        return self.command.state in ENDS


class Bidding(Struct, frozen=True, omit_defaults=True):
    """What somebody wants done. ``id`` is made by the page or the program before it sends, and makes it happen once."""

    id: str
    name: str
    devices: tuple[str, ...]
    reason: str
    args: dict[str, Scalar] = {}


class Bid(Struct, frozen=True):
    """What came of it: the incident as it stands now, and the engine's reason where it refused."""

    incident: Incident
    refusal: str = ""


# --- what is near -----------------------------------------------------------------------------------------------


class _Whereabouts:
    """The places of a community from one incident."""

    def __init__(self, present: Present, incident: Incident) -> None:
        try:
            self._tree: PlaceTree | None = PlaceTree(present.places)
        except DistrictError:
            self._tree = None
        self._incident = incident
        self._out = {source.source.id for source in present.sources if source.out_since is not None}

    def find(self, device: Device, *, is_silent: bool) -> Near:
        place, tree = device.place, self._tree
        is_out = is_silent or device.source in self._out
        if tree is None or place not in tree:
            return Near(device, COMMUNITY, place, is_out=is_out)
        return Near(device, self._nearness(tree, place), self._name(tree, place), self._distance(tree, place), is_out)

    def grid_of(self, device: Device) -> str:
        """The base grid that the device lies in, as far as it is known."""
        if self._tree is None or device.place not in self._tree:
            return ""
        return self._tree.grid(device.place) or ""

    def _nearness(self, tree: PlaceTree, place: str) -> str:
        here = self._incident.place
        if place == here:
            return PLACE
        if here not in tree:
            return COMMUNITY
        mine = tree.within(here, PlaceKind.BUILDING)
        is_mine = tree.place(mine).kind is PlaceKind.BUILDING and mine == tree.within(place, PlaceKind.BUILDING)
        return BUILDING if is_mine else COMMUNITY

    def _name(self, tree: PlaceTree, place: str) -> str:
        chain = (place, *tree.ancestors(place))
        names = [tree.place(one).name for one in chain if one != tree.root.id]
        return "".join(reversed(names)) or tree.root.name

    def _distance(self, tree: PlaceTree, place: str) -> int | None:
        there = tree.position(place)
        here = tree.position(self._incident.place) if self._incident.place in tree else None
        # What lies at the community's own position only is somewhere in it.
        if there is None or here is None or (there == here and self._nearness(tree, place) != PLACE):
            return None
        return round(measure_distance(here, there))


def _find_near(present: Present, incident: Incident, is_mine: IsMine) -> list[Near]:
    """Every device of the community that is in use and in the actor's grid, the nearest first."""
    whereabouts = _Whereabouts(present, incident)
    found = [
        whereabouts.find(one.device, is_silent=one.silent_since is not None)
        for one in present.devices
        if one.device.state is DeviceState.ACTIVE and is_mine(whereabouts.grid_of(one.device))
    ]
    return sorted(found, key=_rank)


def make_scope(actor: Actor, incident: Incident, community: Community | None, grids: Mapping[str, Grid]) -> IsMine:
    """Whether what lies in a base grid of the incident's community is the actor's to command and to look at: all of it
    for whoever has the community or more, otherwise what lies below the grid by which the actor has the incident."""
    own = actor.acting_grid(incident.community, incident.chain)
    if own is None:
        return lambda code: False
    if not own or (community is not None and own in community.grids):
        return lambda code: True

    return lambda code: code == own or own in climb(code, grids)


def _rank(near: Near) -> tuple[int, int, str]:
    return _NEARNESS[near.nearness], near.distance if near.distance is not None else 1 << 30, near.device.id


def list_offers(present: Present, catalog: Catalog, incident: Incident, is_mine: IsMine) -> list[Offer]:
    """What may be asked of devices in use, each command once, with the nearest devices first. Devices whose arguments
    differ stand apart."""
    found: dict[tuple[str, str], list[Near]] = {}
    args: dict[tuple[str, str], dict[str, FieldSpec]] = {}
    for near in _find_near(present, incident, is_mine):
        profile = catalog.profiles.get(near.device.profile)
        for spec in profile.commands.values() if profile is not None else ():
            if spec.id not in UPKEEP | ON_THE_SPOT:
                key = (spec.id, repr(sorted(spec.args.items())))
                args[key] = spec.args
                found.setdefault(key, []).append(near)
    offers = [Offer(key[0], args[key], tuple(nears)) for key, nears in found.items()]
    return sorted(
        offers, key=lambda offer: (FIRST.index(offer.name) if offer.name in FIRST else len(FIRST), offer.name)
    )


def list_cameras(present: Present, catalog: Catalog, incident: Incident, is_mine: IsMine) -> list[Sight]:
    """The nearest cameras that are in use; those that can be looked through first where two are as near."""
    found = []
    for near in _find_near(present, incident, is_mine):
        device = near.device
        profile = catalog.profiles.get(device.profile)
        if is_camera(device, profile.kind if profile is not None else ""):
            id, address = (str(device.attributes.get(name, "")) for name in (GB28181, RTSP))
            place, far = near.place_name, near.distance
            found.append(Sight(device.id, device.name, place, near.nearness, id, address, far, near.is_out))
    found.sort(key=lambda sight: (sight.nearness != PLACE, not (sight.gb28181 or sight.rtsp)))
    return found[:CAMERAS]


# --- asking it, and what became of it ---------------------------------------------------------------------------


async def give(ledger: Ledger, door: DoorClient, actor: Actor, incident: Incident, wish: Bidding) -> Bid:
    """Brings the order in and waits for the commit. The same ``id`` again changes nothing and has the same outcome.
    Raises DoorClosed, DoorRefused, LedgerDown, and LookupError for an incident outside the actor's scope."""
    grid = actor.acting_grid(incident.community, incident.chain)
    if grid is None:
        raise LookupError(incident.id)
    event_id = make_event_id("order", actor, wish.id, incident.id, wish)
    order = Order(event_id, actor.name, incident.id, wish.name, wish.devices, wish.reason, wish.args, actor.role, grid)
    answer = await door.submit(incident.community, order, event_id, PATIENCE_S)
    after = await asyncio.to_thread(ledger.incident, incident.id) or incident
    if answer == "repeat":
        # The journal keeps the order and not the answer: one that was taken has left its line.
        was_done = any(line.event == event_id for line in after.timeline)
        answer = "done" if was_done else "it was refused when it came first"
    return Bid(after, "" if answer == "done" else answer)


def list_given(ledger: Ledger, incident: Incident) -> list[Given]:
    """What was commanded for the incident, the newest first, with who ordered it. Raises LedgerDown."""
    orders = [line for line in incident.timeline if line.what == "commanded" and line.event]

    def find(command: GivenCommand) -> Given:
        for line in orders:
            if command.id == derive_command_id(incident.id, "", line.event, command.device, command.name):
                return Given(command, line.who, _read_reason(line.why, command.args))
        return Given(command)

    return [find(command) for command in ledger.commands_for(incident.id) if command.name not in UPKEEP]


def sum_up(given: Sequence[Given]) -> str:
    """A text that is another as soon as one of them stands otherwise."""
    states = "".join(f"{one.command.id}{one.command.state};" for one in given)
    return f"{crc32(states.encode()):08x}"


def _read_reason(why: str, args: Mapping[str, object]) -> str:
    """The reason out of an order's line (`incident.write_order`): what stands behind the devices and the arguments."""
    reason = why.partition("; ")[2]
    for value in args.values():
        reason = reason.removeprefix(str(value).strip()).removeprefix("; ")
    return reason
