"""What a community has: places, sources, devices, watch lists, and the cells that hold their last values."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.cameras import refuse_camera
from gateway.core.cells import Cell, ChangeWindow, EventCell, Heard, Scope, Window
from gateway.core.condition import is_answerable
from gateway.core.district import DistrictError, PlaceTree
from gateway.core.evaluator import Band
from gateway.core.model import (
    Community,
    Device,
    DeviceState,
    Grid,
    Place,
    RegistryChange,
    Responsible,
    Scalar,
    Silence,
    Source,
)
from gateway.core.profile import EventSpec, Profile, ReadingSpec
from gateway.core.rule import Rule, ScopeKind, Watch
from gateway.core.state import CellState, CommunityState, Cursor, EventCellState, HeardState, SourceState

INACTIVE: Final = frozenset({DeviceState.COMMISSIONING, DeviceState.DRILL, DeviceState.MAINTENANCE})
"""States in which a device shows its signals and opens nothing."""

SPOOLS_LIMIT: Final = 64
"""Spools of one source's lane, ever: a new one at each start would let cursors, and so repeats, grow without end."""


class KnownDevice:
    """A registered device with its cells. ``absence`` are the watches that its silence concerns."""

    __slots__ = ("absence", "cells", "device", "events", "heard", "place", "profile", "source")

    def __init__(self, device: Device, profile: Profile, heard: Heard) -> None:
        self.device = device
        self.profile = profile
        self.heard = heard
        self.source = device.source
        self.place = device.place
        self.cells: dict[str, ReadingCell] = {}
        self.events: dict[str, SignalCell] = {}
        self.absence: list[Watch] = []

    @property
    def is_inactive(self) -> bool:
        return self.device.state in INACTIVE

    def names(self) -> frozenset[str]:
        """What it reports: readings and events."""
        return frozenset(self.profile.readings) | frozenset(self.profile.events)


class ReadingCell(Cell):
    """A cell of one reading, with the check of its values and the watches that look at it.

    A float from ``believed_low`` to ``believed_high`` in ``unit`` is believed as it is. From ``low`` to ``high`` only
    the watches in ``open`` need be asked, unless ``is_busy``: one of the others is not quiet. The others' bands are
    ``still`` (low, high), or go with the values of a window (``moving``). ``timed`` are those for which a value may
    bring nearer what time alone will change."""

    __slots__ = (
        "believe",
        "believed_high",
        "believed_low",
        "is_busy",
        "moving",
        "name",
        "open",
        "owner",
        "source",
        "spec",
        "still",
        "timed",
        "unit",
        "watches",
    )

    def __init__(self, owner: KnownDevice, spec: ReadingSpec) -> None:
        super().__init__(owner.heard)
        self.owner = owner
        self.source = sys.intern(owner.source)
        self.spec = spec
        self.believe = spec.believe
        self.unit = spec.unit
        self.believed_low, self.believed_high = spec.plain_range
        self.name = sys.intern(f"{owner.device.id}:{spec.id}")
        self.watches: list[Watch] = []
        self.open: list[Watch] = []
        self.timed: list[Watch] = []
        self.still = (-math.inf, math.inf)
        self.moving: list[tuple[ChangeWindow, float, float]] = []
        self.is_busy = spec.type == "text"

    def add(self, watch: Watch, band: Band | None) -> None:
        """Lets a watch look at this cell; with ``band``, only at values outside of it while it is quiet."""
        self.watches.append(watch)
        watch.cells.append(self)
        if watch.bound.wake is not None:
            self.timed.append(watch)
        if band is None or (low := max(self.still[0], band.low)) > (high := min(self.still[1], band.high)):
            self.open.append(watch)
            return
        self.still = low, high
        for moving in band.moving:
            window = self.windows[moving.window]
            if isinstance(window, ChangeWindow):
                self.moving.append((window, moving.rise, moving.fall))

    def settle(self) -> None:
        """After all watches were asked: whether, and for which values, they must all be asked again."""
        self.is_busy = self.spec.type == "text" or any(watch.is_busy for watch in self.watches)
        low, high = self.still
        for window, rise, fall in self.moving:
            window.measure()
            low, high = max(low, window.highest + fall), min(high, window.lowest + rise)
        self.low, self.high = low, high


class SignalCell(EventCell):
    """A cell of one kind of event, and the watches that look at it."""

    __slots__ = ("owner", "spec", "watches")

    def __init__(self, owner: KnownDevice, spec: EventSpec) -> None:
        super().__init__(owner.heard)
        self.owner = owner
        self.spec = spec
        self.watches: list[Watch] = []


class KnownSource:
    """A source: its cursors, since when it is out of reach, the devices whose silence that explains (``hidden``), and
    the incident of its outage. ``former`` are earlier connections, whose late last wills say nothing of now. ``lag`` is
    by how much the gateway's clock was later than the source's when it was heard last (the way and both clocks' errors;
    None: it was not); up to ``behind_until`` it is expected to tell of the past."""

    __slots__ = (
        "behind_until",
        "connection",
        "cursors",
        "former",
        "hidden",
        "lag",
        "out_since",
        "outage",
        "source",
    )

    def __init__(self, source: Source) -> None:
        self.source = source
        self.cursors: dict[tuple[str, str], Cursor] = {}
        self.connection = ""
        self.former: list[str] = []
        self.out_since: int | None = None
        self.hidden: dict[str, None] = {}
        self.outage: str | None = None
        self.lag: int | None = None
        self.behind_until = 0

    def has_room(self, lane: str) -> bool:
        """Whether one more spool of this lane is taken in."""
        return sum(1 for _, known in self.cursors if known == lane) < SPOOLS_LIMIT


class Key(Struct, frozen=True):
    """One key of a rule: what its state stands for, where, and the devices that it looks at."""

    key: str
    place: str
    devices: tuple[KnownDevice, ...]


class Applied(Struct, frozen=True):
    """What a registry change did: the devices as they are now, the ids it touched, and those that count again."""

    devices: tuple[Device, ...]
    touched: frozenset[str]
    reactivated: tuple[str, ...]


class Registry:
    """The registered things of one community, looked up by id."""

    def __init__(self, community: Community) -> None:
        self.community = community
        self.places: dict[str, Place] = {}
        self.sources: dict[str, KnownSource] = {}
        self.devices: dict[str, KnownDevice] = {}
        self.cells: dict[str, ReadingCell] = {}
        self.lists: dict[str, frozenset[str]] = {}
        self.grids: dict[str, Grid] = {}
        self.responsible: tuple[Responsible, ...] = ()
        self.silences: dict[str, Silence] = {}
        self.away: frozenset[str] = frozenset()
        self._tree: PlaceTree | None = None
        self._in_order: list[KnownDevice] = []

    # --- looking up ------------------------------------------------------------------------------------------

    def attribute(self, name: str, device: str | None, place: str) -> Scalar | None:
        """An attribute of the device, else of its place or the nearest place above that has it. ``away`` is true where
        somebody has said that nobody is at home (`Silence.kind`)."""
        if name == "away" and self.away and (device is not None or place):
            known = self.devices.get(device) if device is not None else None
            if not self.away.isdisjoint(self.chain(known.place if known is not None else place)):
                return True
        if device is not None and (known := self.devices.get(device)) is not None:
            if name in known.device.attributes:
                return known.device.attributes[name]
            place = known.place
        return self._tree.attribute(place, name) if self._tree is not None and place in self._tree else None

    def is_simulated(self) -> bool:
        """Whether the community is one of simulated devices."""
        return self._tree is not None and self._tree.root.is_simulated

    def listed(self, name: str) -> frozenset[str]:
        """The entries of a watch list."""
        return self.lists.get(name, frozenset())

    def within(self, place: str, kind: str) -> str:
        """The nearest place of that kind at or above, or the place itself."""
        return self._tree.within(place, kind) if self._tree is not None else place

    def label(self, place: str) -> str:
        """The place as people say it."""
        return self._tree.label(place) if self._tree is not None and place in self._tree else place

    def root(self) -> str:
        """The community as a place."""
        return self._tree.root.id if self._tree is not None else self.community.id

    def grid_of(self, place: str) -> str:
        """The code of the base grid that the place lies in, or nothing."""
        return (self._tree.grid(place) if self._tree is not None and place in self._tree else None) or ""

    def grid_chain(self, place: str) -> tuple[str, ...]:
        """The codes of the grids that the place lies in, from the district down to its base grid."""
        own, community = self.grid_of(place), self.community.grids
        if not own or own in community:
            return community
        above: list[str] = []
        code: str | None = own
        while code is not None and code not in above:
            above.append(code)
            code = self.grids[code].parent if code in self.grids else None
        if len(above) > 1:
            return tuple(reversed(above))
        return (*community, own)

    def responsible_grid(self, body: str, chain: tuple[str, ...]) -> str | None:
        """The nearest grid of the chain that has a responsible body of this kind."""
        having = {known.grid for known in self.responsible if known.body == body}
        return next((code for code in reversed(chain) if code in having), None)

    def silence_of(self, rule: str, device: str | None, place: str, now: int) -> Silence | None:
        """The silence that covers a finding now: all of what it names must fit."""
        for silence in self.silences.values():
            if silence.kind == "away" or not silence.since <= now < silence.until:
                continue
            if self.is_covered(silence, rule, device, place):
                return silence
        return None

    def is_covered(self, silence: Silence, rule: str, device: str | None, place: str) -> bool:
        """Whether a silence covers what this rule finds of this device there."""
        return (
            (silence.rule is None or silence.rule == rule)
            and (silence.device is None or silence.device == device)
            and (silence.place is None or silence.place in self.chain(place))
        )

    def settle_away(self, now: int) -> None:
        """Notes where nobody is at home now."""
        self.away = frozenset(
            silence.place
            for silence in self.silences.values()
            if silence.kind == "away" and silence.place is not None and silence.since <= now < silence.until
        )

    def position(self, place: str) -> tuple[float, float] | None:
        """(lon, lat) in degrees."""
        return self._tree.position(place) if self._tree is not None and place in self._tree else None

    def chain(self, place: str) -> tuple[str, ...]:
        """The place and all above it."""
        return (place, *self._tree.ancestors(place)) if self._tree is not None and place in self._tree else (place,)

    def own_device(self, source: KnownSource) -> KnownDevice | None:
        """The device under which the source itself is watched."""
        return self.devices.get(source.source.device) if source.source.device is not None else None

    def carried(self, source: str) -> list[KnownDevice]:
        """The devices that a source carries, by id."""
        return sorted((d for d in self.devices.values() if d.source == source), key=lambda d: d.device.id)

    def in_zone(self, place: str, zone: ScopeKind) -> list[KnownDevice]:
        """The devices in the place of that kind at or above ``place``."""
        around = self.within(place, zone)
        return [d for d in self.devices.values() if around in self.chain(d.place)]

    # --- changing --------------------------------------------------------------------------------------------

    def refuse(self, change: RegistryChange, profiles: Mapping[str, Profile]) -> str | None:
        """Why the change cannot be taken in, in words; None when it can."""
        places = self.places | {place.id: place for place in change.places}
        sources = set(self.sources) | {source.id for source in change.sources}
        home = self.community.id
        try:
            tree = PlaceTree(places.values())
        except DistrictError as error:
            return str(error)
        for source in change.sources:
            if source.place not in tree:
                return f"source {source.id}: place {source.place} is not a place of {home}; register it first"
        for device in change.devices:
            if device.profile not in profiles:
                return (
                    f"device {device.id}: there is no profile {device.profile}; "
                    f"add device_profiles/…/{device.profile}.yaml"
                )
            if device.place not in tree:
                return f"device {device.id}: place {device.place} is not a place of {home}; register it first"
            if device.source not in sources:
                return f"device {device.id}: source {device.source} is not a source of {home}; register it first"
            problem = refuse_camera(device.attributes)
            if problem is not None:
                return f"device {device.id}: {problem}"
        return None

    def apply(self, change: RegistryChange, profiles: Mapping[str, Profile], now: int) -> Applied:
        """Takes in a change that `refuse` has nothing against. `prepare` must follow."""
        if change.community is not None:
            self.community = change.community
        self.grids |= {grid.code: grid for grid in change.grids}
        if change.responsible is not None:
            self.responsible = change.responsible
        self.places |= {place.id: place for place in change.places}
        for source in change.sources:
            known_source = self.sources.get(source.id)
            if known_source is None:
                self.sources[source.id] = KnownSource(source)
            else:
                known_source.source = source
        changed: list[Device] = []
        reactivated: list[str] = []
        for id in change.retired:
            gone = self.devices.pop(id, None)
            if gone is not None:
                changed.append(replace(gone.device, state=DeviceState.RETIRED))
        for device in change.devices:
            known = self.devices.get(device.id)
            profile = profiles[device.profile]
            heard = known.heard if known is not None else Heard(device.id, now, profile.heartbeat)
            made = KnownDevice(device, profile, heard)
            if known is not None:
                made.cells, made.events = known.cells, known.events
                if known.is_inactive and device.state is DeviceState.ACTIVE:
                    reactivated.append(device.id)
            self.devices[device.id] = made
            changed.append(device)
        touched = frozenset(change.retired) | {device.id for device in change.devices}
        return Applied(tuple(changed), touched, tuple(reactivated))

    def prepare(self, profiles: Mapping[str, Profile]) -> None:
        """Makes the place tree and every device's cells as the profiles say now; values and windows stay."""
        self._tree = PlaceTree(self.places.values()) if self.places else None
        self.cells = {}
        self._in_order = [self.devices[id] for id in sorted(self.devices)]
        for device in self._in_order:
            device.profile = profiles.get(device.device.profile, device.profile)
            device.heard.heartbeat = device.profile.heartbeat
            device.absence = []
            cells, events = device.cells, device.events
            device.cells, device.events = {}, {}
            for spec in device.profile.readings.values():
                cell = ReadingCell(device, spec)
                before = cells.get(spec.id)
                if before is not None:
                    cell.at, cell.value, cell.prev, cell.windows = before.at, before.value, before.prev, before.windows
                device.cells[spec.id] = self.cells[cell.name] = cell
            for event in device.profile.events.values():
                signal = SignalCell(device, event)
                before_event = events.get(event.id)
                if before_event is not None:
                    signal.at, signal.windows = before_event.at, before_event.windows
                device.events[event.id] = signal

    def set_windows_aside(self) -> list[tuple[Cell | EventCell, dict[str, Window]]]:
        """Takes all windows off their cells; binding puts those on that are still needed, `put_windows_back` fills
        them."""
        spare: list[tuple[Cell | EventCell, dict[str, Window]]] = []
        for device in self.devices.values():
            cells: list[Cell | EventCell] = [*device.cells.values(), *device.events.values()]
            for cell in cells:
                spare += [(cell, cell.take_windows())] if cell.windows else []
        return spare

    def restart_windows(self, places: frozenset[str]) -> None:
        """Whoever was away from these places is back: what did not change meanwhile says nothing."""
        for device in self.devices.values():
            if not places.isdisjoint(self.chain(device.place)):
                for cell in device.cells.values():
                    for window in cell.windows.values():
                        window.restart()

    @staticmethod
    def put_windows_back(spare: Iterable[tuple[Cell | EventCell, dict[str, Window]]]) -> None:
        """Fills the windows that are there again with what they held."""
        for cell, windows in spare:
            load_windows(cell, {name: window.dump() for name, window in windows.items()})

    # --- the keys of rules -----------------------------------------------------------------------------------

    def keys_of(self, rule: Rule) -> Iterable[Key]:
        """Every key that the rule can be asked of: one that could ever make its condition true."""
        devices = [device for device in self._in_order if not rule.kinds or device.profile.kind in rule.kinds]
        if rule.scope is ScopeKind.DEVICE:
            for device in devices:
                if is_answerable(rule.when, device.names()):
                    yield Key(device.device.id, device.place, (device,))
            return
        groups: dict[str, list[KnownDevice]] = {}
        for device in devices:
            key = device.source if rule.scope is ScopeKind.SOURCE else self.within(device.place, rule.scope)
            groups.setdefault(key, []).append(device)
        for key in sorted(groups):
            members = groups[key]
            if is_answerable(rule.when, frozenset().union(*(device.names() for device in members))):
                place = self.sources[key].source.place if rule.scope is ScopeKind.SOURCE else key
                # A wider key cannot be silenced as a whole, so devices that do not count now are left out of it.
                counting = tuple(d for d in members if d.device.state is DeviceState.ACTIVE)
                yield Key(key, place, counting)

    def scope_of(self, key: Key) -> Scope:
        """What a condition bound to this key looks at."""
        return _KeyScope(self, key)

    # --- checkpoints -----------------------------------------------------------------------------------------

    def restore(self, state: CommunityState, profiles: Mapping[str, Profile]) -> None:
        """Takes a checkpoint's registry back; cells follow by `restore_cells`, once the rules are bound."""
        self.places = {place.id: place for place in state.places}
        self.lists = {name: frozenset(entries) for name, entries in state.lists.items()}
        self.grids = {grid.code: grid for grid in state.grids}
        self.responsible = tuple(state.responsible)
        self.silences = {silence.id: silence for silence in state.silences}
        self.away = frozenset(state.away)
        heard = {h.device: h for h in state.heard}
        for source in state.sources:
            self.sources[source.id] = KnownSource(source)
        for device in state.devices:
            profile = profiles.get(device.profile)
            if profile is None:
                raise LookupError(f"device {device.id} has profile {device.profile}, which the catalog lacks")
            known = heard.get(device.id)
            last = Heard(device.id, known.at if known else state.now, profile.heartbeat)
            last.excused = known.excused if known else 0
            self.devices[device.id] = KnownDevice(device, profile, last)
        for presence in state.presence:
            known_source = self.sources[presence.source]
            known_source.connection = presence.connection
            known_source.former = list(presence.former)
            known_source.out_since = presence.out_since
            known_source.hidden = dict.fromkeys(presence.hidden)
            known_source.outage = presence.outage
            known_source.lag = presence.lag
            known_source.behind_until = presence.behind_until
        for cursor in state.cursors:
            self.sources[cursor.source].cursors[cursor.spool, cursor.lane] = Cursor.load(cursor)

    def restore_cells(self, state: CommunityState) -> None:
        """Takes a checkpoint's values and windows back."""
        for stored in state.cells:
            cell = self.cells.get(stored.name)
            if cell is not None:
                cell.at, cell.value, cell.prev = stored.at, stored.value, stored.prev
                load_windows(cell, stored.windows)
        for stored_event in state.events:
            owner = self.devices.get(stored_event.device)
            event = owner.events.get(stored_event.kind) if owner is not None else None
            if event is not None:
                event.at = stored_event.at
                load_windows(event, stored_event.windows)

    def dump_into(self, state: CommunityState) -> None:
        """Writes the registry's part of a checkpoint."""
        state.places = list(self.places.values())
        state.sources = [source.source for source in self.sources.values()]
        state.devices = [device.device for device in self.devices.values()]
        state.lists = {name: sorted(entries) for name, entries in self.lists.items()}
        state.grids = list(self.grids.values())
        state.responsible = list(self.responsible)
        state.silences = list(self.silences.values())
        state.away = sorted(self.away)
        state.heard = [HeardState(d.heard.id, d.heard.at, d.heard.excused) for d in self.devices.values()]
        state.cells = [
            CellState(c.name, c.at, c.value, c.prev, {n: w.dump() for n, w in c.windows.items()})
            for c in self.cells.values()
            if c.value is not None
        ]
        state.events = [
            EventCellState(d.device.id, kind, c.at, {n: w.dump() for n, w in c.windows.items()})
            for d in self.devices.values()
            for kind, c in d.events.items()
            if c.at
        ]
        state.presence = [
            SourceState(
                s.source.id,
                s.connection,
                list(s.former),
                s.out_since,
                list(s.hidden),
                s.outage,
                s.lag,
                s.behind_until,
            )
            for s in self.sources.values()
        ]
        state.cursors = [cursor.dump() for s in self.sources.values() for cursor in s.cursors.values()]


class _KeyScope(Scope):
    def __init__(self, registry: Registry, key: Key) -> None:
        self._registry = registry
        self._key = key

    def cells(self, name: str) -> Sequence[Cell]:
        return [cell for device in self._key.devices if (cell := device.cells.get(name)) is not None]

    def events(self, name: str) -> Sequence[EventCell]:
        return [cell for device in self._key.devices if (cell := device.events.get(name)) is not None]

    def devices(self) -> Sequence[Heard]:
        return [device.heard for device in self._key.devices]

    def attribute(self, name: str, device: str | None) -> Scalar | None:
        devices = self._key.devices
        if device is None and len(devices) == 1:
            device = devices[0].device.id
        return self._registry.attribute(name, device, self._key.place)

    def listed(self, name: str) -> frozenset[str]:
        return self._registry.listed(name)

    def accumulates(self, cell: Cell) -> str:
        return (cell.spec.accumulates if isinstance(cell, ReadingCell) else None) or "amount"


def load_windows(cell: Cell | EventCell, stored: Mapping[str, Sequence[object]]) -> None:
    """Fills the windows of a cell that are still wanted."""
    for name, data in stored.items():
        if name in cell.windows:
            cell.windows[name].load(data)
