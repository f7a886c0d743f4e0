"""The engine of one community: events in, steps out. No clock, no I/O, no randomness.

The same start state, catalog and events give the same steps, byte for byte: live, in a replay and in a test. Nothing
in a step happens before it is committed; if that fails, the engine is thrown away and loaded again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core import incident as cases
from gateway.core.catalog import Catalog
from gateway.core.cells import Cell, EventCell, Heard, Scope, Window
from gateway.core.condition import All as AllOf
from gateway.core.condition import Any as AnyOf
from gateway.core.condition import Condition, Has, Missing, Not, iter_leaves
from gateway.core.district import DistrictError, PlaceTree
from gateway.core.evaluator import Bound, Truth, bind
from gateway.core.incident import Signal
from gateway.core.model import (
    NOTHING,
    Answer,
    Blind,
    Command,
    CursorMove,
    Deliver,
    Delivery,
    Device,
    DeviceState,
    Effect,
    Event,
    Incident,
    Level,
    ListChange,
    OperatorAction,
    Override,
    Phase,
    Place,
    Presence,
    Press,
    Refusal,
    RegistryChange,
    Rejected,
    Scalar,
    Sort,
    Source,
    Step,
    Tick,
    Transition,
)
from gateway.core.profile import Disbelief, EventSpec, Profile, ReadingSpec
from gateway.core.routing import LATE_MS, Case, Finding, Swallowed, decide
from gateway.core.rule import LATE, Response, Rule, ScopeKind, Status, Turn, Watch, WatchState, format_day
from gateway.core.state import (
    CellState,
    CommunityState,
    Cursor,
    EventCellState,
    HeardState,
    Held,
    SourceState,
)
from gateway.wire import Measurement, Message
from gateway.wire import Signal as WireSignal

GRACE_MS: Final = 60_000
"""After a time in which it could not see, the gateway lets no deadline fire for so long: what waits comes first."""

COMMAND_TTL_MS: Final = 5 * 60_000
"""A command that could not be given within five minutes is given no more: a valve is not closed an hour later."""

RECHECK_MS: Final = 60_000
"""How soon an absence that its source's outage explained is looked at again, at the earliest."""

FORMER_LIMIT: Final = 4
"""Earlier connections of a source that are remembered, so that their late last wills are known."""

HELD_LIMIT: Final = 256
"""Readings of devices not yet registered that are kept, per community."""

UNRULED_CATEGORY: Final = "ext:21-03"
"""One-button alarm: what nobody has a rule for, but somebody pressed."""

_INACTIVE: Final = (DeviceState.COMMISSIONING, DeviceState.DRILL, DeviceState.MAINTENANCE)
_SILENCED: Final = frozenset({*map(str, _INACTIVE), "shadow"})


class _Device:
    """A registered device, with its cells."""

    __slots__ = ("absence", "cells", "device", "events", "heard", "is_alerted", "place", "profile", "source")

    def __init__(self, device: Device, profile: Profile, heard: Heard) -> None:
        self.device = device
        self.profile = profile
        self.heard = heard
        self.source = device.source
        self.place = device.place
        self.cells: dict[str, _ReadingCell] = {}
        self.events: dict[str, _SignalCell] = {}
        self.absence: list[Watch] = []
        self.is_alerted = False


class _ReadingCell(Cell):
    __slots__ = ("believe", "name", "owner", "spec", "watches")

    def __init__(self, owner: _Device, spec: ReadingSpec) -> None:
        super().__init__(owner.heard)
        self.owner = owner
        self.spec = spec
        self.believe = spec.believe
        self.name = f"{owner.device.id}:{spec.id}"
        self.watches: list[Watch] = []


class _SignalCell(EventCell):
    __slots__ = ("owner", "spec", "watches")

    def __init__(self, owner: _Device, spec: EventSpec) -> None:
        super().__init__(owner.heard)
        self.owner = owner
        self.spec = spec
        self.watches: list[Watch] = []


class _Source:
    """A source: its cursors, whether it can be reached, and what its silence explains."""

    __slots__ = ("connection", "cursors", "former", "hidden", "out_since", "outage", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.cursors: dict[tuple[str, str], Cursor] = {}
        self.connection = ""
        self.former: list[str] = []
        self.out_since: int | None = None
        self.hidden: dict[str, None] = {}
        self.outage: str | None = None


class _Scope(Scope):
    """What one key of a rule looks at."""

    def __init__(self, engine: Engine, place: str, devices: Sequence[_Device]) -> None:
        self._engine = engine
        self._place = place
        self._devices = devices

    def cells(self, name: str) -> Sequence[Cell]:
        return [cell for device in self._devices if (cell := device.cells.get(name)) is not None]

    def events(self, name: str) -> Sequence[EventCell]:
        return [cell for device in self._devices if (cell := device.events.get(name)) is not None]

    def devices(self) -> Sequence[Heard]:
        return [device.heard for device in self._devices]

    def attribute(self, name: str, device: str | None) -> Scalar | None:
        if device is None and len(self._devices) == 1:
            device = self._devices[0].device.id
        return self._engine.attribute(name, device, self._place)

    def listed(self, name: str) -> frozenset[str]:
        return self._engine.listed(name)

    def accumulates(self, cell: Cell) -> str:
        return (cell.spec.accumulates if isinstance(cell, _ReadingCell) else None) or "amount"


class Explained(Struct, frozen=True):
    """What one rule says of one key at a time: the truth of its condition, and of each leaf in the file's words."""

    rule: str
    title: dict[str, str]
    status: str
    key: str
    phase: Phase
    since: int
    truth: Truth
    incident: str | None
    note: str
    leaves: tuple[tuple[str, str, Truth, str], ...]


class _Draft:
    """The step in the making."""

    __slots__ = ("answer", "devices", "effects", "incidents", "judged", "rejected", "revisions", "transitions")

    def __init__(self) -> None:
        self.transitions: list[Transition] = []
        self.incidents: dict[str, Incident] = {}
        self.revisions: dict[str, int] = {}
        self.effects: list[Effect] = []
        self.rejected: list[Rejected] = []
        self.devices: list[Device] = []
        self.answer = ""
        self.judged = 0


class Engine:
    """One community's engine. ``feed`` takes every event, ``now`` in ms; ``swap`` exchanges the catalog."""

    def __init__(self, catalog: Catalog, state: CommunityState) -> None:
        self._community = state.community
        self._catalog = catalog
        self.now = state.now
        self._grace_until = state.grace_until
        self._places: dict[str, Place] = {place.id: place for place in state.places}
        self._lists = {name: frozenset(entries) for name, entries in state.lists.items()}
        self._overrides = dict(state.overrides)
        self._sources: dict[str, _Source] = {}
        self._devices: dict[str, _Device] = {}
        self._cells: dict[str, _ReadingCell] = {}
        self._watches: dict[tuple[str, str], Watch] = {}
        self._watches_of: dict[str, list[Watch]] = {}
        self._heap: list[tuple[int, str, str]] = []
        self._incidents: dict[str, Incident] = {incident.id: incident for incident in state.incidents}
        self._open: dict[tuple[str, str], str] = {}
        self._firing: dict[str, set[tuple[str, str]]] = {}
        self._commands = dict(state.commands)
        self._held: dict[str, Held] = {held.name: held for held in state.held}
        self._presses: dict[str, None] = dict.fromkeys(state.presses)
        self._day = state.day
        self._number = state.number
        self._tree: PlaceTree | None = None
        self._is_deadline = False
        self._draft = _Draft()
        self._restore(state)

    # --- the one way in ------------------------------------------------------------------------------------------

    @property
    def community(self) -> str:
        return self._community.id

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    def feed(self, event: Event, now: int) -> Step:
        """Takes one event in at ``now`` (ms UTC; it never decreases: an earlier one counts as the last)."""
        now = self.now = max(self.now, now)
        self._draft = draft = _Draft()
        move: CursorMove | None = None
        match event:
            case Delivery(message, _):
                cursor = self._admit(message)
                if cursor is None:
                    return Step(answer=draft.answer)
                self._deliver(message, now)
                cursor.take(message.seq, message.digest, message.floor)
                move = cursor.move()
                if not (draft.transitions or draft.incidents or draft.rejected or draft.effects):
                    return Step(cursor=move, judged=draft.judged)
            case Tick():
                self._fire_deadlines(now)
            case Presence():
                self._fire_deadlines(now)
                self._meet(event, now)
            case Blind():
                self._excuse(event)
            case Answer():
                self._hear_answer(event, now)
            case Press():
                self._press(event, now)
            case RegistryChange():
                self._fire_deadlines(now)
                self._register(event, now)
            case ListChange():
                self._lists[event.name] = frozenset(event.entries)
            case Override():
                self._override(event, now)
            case OperatorAction():
                self._act(event, now)
            case Refusal():
                move = self._refuse(event, now)
        return self._finish(move)

    def next_deadline(self) -> int | None:
        """When the engine wants a Tick, in ms; None when nothing waits."""
        while self._heap:
            time, rule, key = self._heap[0]
            if rule:
                watch = self._watches.get((rule, key))
                if watch is None or watch.wake_at != time:
                    heapq.heappop(self._heap)
                    continue
                if self._is_put_off(watch, time):
                    continue
            return max(time, self._grace_until)
        return None

    def _is_put_off(self, watch: Watch, time: int) -> bool:
        """A device that was heard of since has put its absence deadline off: that needs no tick, only a new time."""
        if watch.phase is not Phase.QUIET or watch.note:
            return False
        due = watch.due(time - 1)
        if due == time:
            return False
        heapq.heappop(self._heap)
        watch.wake_at = None
        if due is not None:
            self._push(watch, due)
        return True

    def swap(self, catalog: Catalog, now: int) -> Step:
        """Exchanges the catalog. What is judged alike keeps its state; what is judged otherwise starts again from the
        last values, and what fires keeps its incident; a retired rule's incident stays open, by hand."""
        now = self.now = max(self.now, now)
        self._draft = _Draft()
        self._fire_deadlines(now)
        old = {rule.id: rule for rule in self._catalog.rules}
        old_status = {id: self._status(rule) for id, rule in old.items()}
        self._catalog = catalog
        renamed = {rule.was: rule.id for rule in catalog.rules if rule.was and rule.was in old}
        states = []
        again: set[str] = set()
        for rule in catalog.rules:
            before = old.get(rule.was or rule.id) or old.get(rule.id)
            if before is None or not rule.judges_like(before) or old_status[before.id] is not self._status(rule):
                again.add(rule.id)
        for state in self._dump_watches():
            state.rule = renamed.get(state.rule, state.rule)
            if state.rule not in again or (state.phase is Phase.FIRING and state.incident is not None):
                states.append(state)
        self._rebind(states)
        for watch in self._watches.values():
            if watch.rule.id in again:
                self._look(watch, now)
        return self._finish(None)

    def snapshot(self) -> CommunityState:
        """The whole state, as plain values."""
        return CommunityState(
            community=self._community,
            now=self.now,
            grace_until=self._grace_until,
            places=list(self._places.values()),
            sources=[source.source for source in self._sources.values()],
            devices=[device.device for device in self._devices.values()],
            lists={name: sorted(entries) for name, entries in self._lists.items()},
            overrides=dict(self._overrides),
            heard=[HeardState(d.heard.id, d.heard.at, d.heard.excused) for d in self._devices.values()],
            cells=[
                CellState(c.name, c.at, c.value, c.prev, {n: w.dump() for n, w in c.windows.items()})
                for c in self._cells.values()
                if c.value is not None
            ],
            events=[
                EventCellState(d.device.id, kind, c.at, {n: w.dump() for n, w in c.windows.items()})
                for d in self._devices.values()
                for kind, c in d.events.items()
                if c.at
            ],
            watches=self._dump_watches(),
            incidents=list(self._incidents.values()),
            commands=dict(self._commands),
            presence=[
                SourceState(s.source.id, s.connection, list(s.former), s.out_since, list(s.hidden), s.outage)
                for s in self._sources.values()
            ],
            cursors=[cursor.dump() for s in self._sources.values() for cursor in s.cursors.values()],
            held=list(self._held.values()),
            presses=list(self._presses),
            day=self._day,
            number=self._number,
        )

    # --- what others may ask ---------------------------------------------------------------------------------------

    def admit(self, message: Message) -> str:
        """What the cursor says of a message, without feeding it: ``unknown-source``, or as `Cursor.admit`."""
        source = self._sources.get(message.source)
        if source is None:
            return "unknown-source"
        cursor = source.cursors.get((message.spool, message.lane))
        return "fresh" if cursor is None else cursor.admit(message.seq, message.digest, message.floor)

    def cursor(self, source: str, spool: str, lane: str) -> Cursor | None:
        known = self._sources.get(source)
        return None if known is None else known.cursors.get((spool, lane))

    def phase(self, rule: str, key: str) -> Phase:
        watch = self._watches.get((rule, key))
        return Phase.QUIET if watch is None else watch.phase

    def keys(self, rule: str) -> list[str]:
        return [key for (id, key) in self._watches if id == rule]

    def devices_of(self, source: str) -> list[Device]:
        """The devices that a source carries, by id."""
        return sorted((d.device for d in self._devices.values() if d.source == source), key=lambda d: d.id)

    def sources(self) -> list[Source]:
        return [source.source for source in self._sources.values()]

    def has_device(self, device: str) -> bool:
        return device in self._devices

    def incident(self, id: str) -> Incident | None:
        """An open incident of this community."""
        return self._incidents.get(id)

    def explain(self, device: str, now: int) -> list[Explained]:
        """For each rule that looks at the device: what it sees at ``now``, which leaf holds or not, and what stands."""
        found = []
        for watch in self._watches_of.get(device, ()):
            leaves = tuple((leaf.path, leaf.text, leaf.test(now), leaf.look(now)) for leaf in watch.bound.leaves)
            found.append(
                Explained(
                    watch.rule.id,
                    watch.rule.title,
                    self._status(watch.rule),
                    watch.key,
                    watch.phase,
                    watch.since,
                    watch.test(now),
                    watch.incident,
                    watch.note,
                    leaves,
                )
            )
        return found

    def attribute(self, name: str, device: str | None, place: str) -> Scalar | None:
        """An attribute of the device, else of its place or the nearest place above that has it."""
        if device is not None and (known := self._devices.get(device)) is not None:
            if name in known.device.attributes:
                return known.device.attributes[name]
            place = known.place
        return self._tree.attribute(place, name) if self._tree is not None and place in self._tree else None

    def listed(self, name: str) -> frozenset[str]:
        return self._lists.get(name, frozenset())

    # --- what routing asks (its View) --------------------------------------------------------------------------------

    def is_source_out(self, source: str) -> bool:
        known = self._sources.get(source)
        return known is not None and (known.out_since is not None or known.outage is not None)

    def source_device(self, source: str) -> str | None:
        known = self._sources.get(source)
        return None if known is None else known.source.device

    def open_incident(self, cause: str, key: str) -> Incident | None:
        id = self._open.get((cause, key))
        return None if id is None else self._incidents.get(id)

    def within(self, place: str, kind: str) -> str:
        return self._tree.within(place, kind) if self._tree is not None else place

    def label(self, place: str) -> str:
        return self._tree.label(place) if self._tree is not None else place

    def grid_of(self, place: str) -> str:
        return (self._tree.grid(place) if self._tree is not None else None) or ""

    def body_of(self, category: str) -> str:
        found = self._catalog.categories.get(category)
        return found.body if found is not None else ""

    # --- deliveries ------------------------------------------------------------------------------------------------

    def _admit(self, message: Message) -> Cursor | None:
        source = self._sources.get(message.source)
        if source is None:
            self._draft.answer = "unknown-source"
            return None
        cursor = source.cursors.get((message.spool, message.lane))
        if cursor is None:
            cursor = Cursor(message.source, message.spool, message.lane)
        verdict = cursor.admit(message.seq, message.digest, message.floor)
        if verdict != "fresh":
            self._draft.answer = verdict
            return None
        source.cursors[message.spool, message.lane] = cursor
        return cursor

    def _deliver(self, message: Message, now: int) -> None:
        # The source's clock cancels out: only the time that the message lay at the source counts.
        at = min(now, now - (message.sent_at - message.taken_at))
        if self._heap and self._heap[0][0] < at:
            self._fire_deadlines(at - 1)
        source = self._sources[message.source]
        if source.source.device is not None and (own := self._devices.get(source.source.device)) is not None:
            self._hear(own, now)
        for bad in message.bad:
            device, _, reading = bad.name.rpartition(":")
            self._reject(message.source, device, reading, bad.reason, bad.detail)
        for index, signal in enumerate(message.signals):
            self._signal(message, signal, index, at, now)
        cells, id, judged = self._cells, message.source, 0
        quiet = Phase.QUIET
        for index, measured in enumerate(message.measurements, len(message.signals)):
            cell = cells.get(measured.name)
            if cell is None or cell.owner.source != id:
                self._meet_unknown(message, measured, index, at, now)
                continue
            value = cell.believe(measured.value, measured.unit)
            if isinstance(value, Disbelief):
                self._reject(id, cell.owner.device.id, cell.spec.id, value.reason, measured.value)
                continue
            judged += 1
            when = at + measured.offset
            if when < cell.at:
                continue  # older than what is known: it changes no state
            cell.put(when, value)
            owner = cell.owner
            heard = owner.heard
            if when > heard.at:
                heard.at = when
            if heard.excused:
                heard.excused = 0
            if owner.is_alerted:
                self._wake_absence(owner, when)
            for watch in cell.watches:
                truth = watch.test(when)
                if truth or watch.phase is not quiet:
                    self._advance(watch, truth, when, _event_id(message, index), now)
        self._draft.judged += judged

    def _signal(self, message: Message, signal: WireSignal, index: int, at: int, now: int) -> None:
        device = self._devices.get(signal.device)
        event = _event_id(message, index)
        if device is None or device.source != message.source:
            reason = "unknown-device" if device is None else "not-carried"
            self._reject(message.source, signal.device, signal.kind, reason, signal.kind)
            if message.lane == "alarm":
                self._open_unknown(message.source, signal.device, signal.kind, event, at, now)
            return
        self._judge_signal(device, signal.kind, signal.data, event, at, now)

    def _judge_signal(
        self, device: _Device, kind: str, data: Mapping[str, Scalar], event: str, at: int, now: int
    ) -> None:
        cell = device.events.get(kind)
        if cell is None:
            self._reject(device.source, device.device.id, kind, "unknown-event", kind)
            return
        problem = cell.spec.refuse(data)
        if problem is not None:
            self._reject(device.source, device.device.id, f"{kind}.{problem.field}", problem.reason, problem.value)
            if not cell.spec.press:
                return
            data = {}
        self._hear(device, at)
        self._draft.judged += 1
        cell.put(at, data)
        is_held = False
        for watch in cell.watches:
            truth = watch.test(at)
            if watch.is_momentary:
                if truth:
                    is_held |= self._find(watch, event, at, now, cell) is not None
            elif truth or watch.phase is not Phase.QUIET:
                self._advance(watch, truth, at, event, now)
        cell.forget()
        if cell.spec.press and not is_held and not self._is_inactive(device):
            # The promise: every press is in exactly one incident, also when no rule is there for it.
            self._open_unruled(device, kind, event, at, now)

    def _is_inactive(self, device: _Device) -> bool:
        return device.device.state in _INACTIVE

    def _press(self, press: Press, now: int) -> None:
        if press.id in self._presses:
            self._draft.answer = "repeat"
            return
        device = self._devices.get(press.device)
        if device is None:
            self._draft.answer = "unknown-device"
            return
        self._fire_deadlines(now - 1)
        self._presses[press.id] = None
        while len(self._presses) > REMEMBERED_PRESSES:
            del self._presses[next(iter(self._presses))]
        self._judge_signal(device, press.kind, press.data, press.id, now, now)
        self._draft.answer = "done"

    def _hear(self, device: _Device, at: int) -> None:
        heard = device.heard
        heard.at = max(heard.at, at)
        heard.excused = 0
        if device.is_alerted:
            self._wake_absence(device, at)

    def _wake_absence(self, device: _Device, at: int) -> None:
        """The device is heard of again: what its silence had begun is looked at."""
        device.is_alerted = False
        for watch in device.absence:
            if watch.phase is not Phase.QUIET:
                self._advance(watch, watch.test(at), at, f"heard/{device.device.id}/{at}", self.now)
                device.is_alerted |= watch.is_busy

    def _reject(self, source: str, device: str, reading: str, reason: str, value: object) -> None:
        self._draft.rejected.append(Rejected(source, device[:64], reading[:64], reason, str(value)[:64]))

    # --- devices that nobody registered ------------------------------------------------------------------------------

    def _meet_unknown(self, message: Message, measured: Measurement, index: int, at: int, now: int) -> None:
        device, _, reading = measured.name.rpartition(":")
        known = self._devices.get(device)
        if known is not None and known.source == message.source:
            self._reject(message.source, device, reading, "unknown-reading", measured.value)
            return
        reason = "unknown-device" if known is None else "not-carried"
        self._reject(message.source, device, reading, reason, measured.value)
        if message.lane == "alarm" and measured.value is True:
            self._open_unknown(message.source, device, reading, _event_id(message, index), at, now)
        if known is None and (measured.name in self._held or len(self._held) < HELD_LIMIT):
            self._held[measured.name] = Held(message.source, measured.name, measured.value, measured.unit, at)

    def _open_unknown(self, source: str, device: str, what: str, event: str, at: int, now: int) -> None:
        """An alarm from a device that its source does not carry: somebody pressed, somewhere near the source."""
        where = self._sources[source].source.place
        signal = Signal(event, at, "", (device[:48],), f"{what[:48]} from a device that is not registered", True)
        self._open_or_join(
            "unknown-device", f"{source}/{device[:48]}", where, UNRULED_CATEGORY, _UNKNOWN_TITLE, signal, now
        )

    def _open_unruled(self, device: _Device, kind: str, event: str, at: int, now: int) -> None:
        signal = Signal(
            event, at, "", (device.device.id,), f"{kind}; no active rule looks at it", True, self._is_late(at, now)
        )
        self._open_or_join("sos", device.device.id, device.place, UNRULED_CATEGORY, _UNRULED_TITLE, signal, now)

    def _refuse(self, refusal: Refusal, now: int) -> CursorMove | None:
        source = self._sources.get(refusal.source)
        if source is None:
            self._draft.answer = "unknown-source"
            return None
        if refusal.lane == "alarm":
            event = f"{refusal.source}/{refusal.spool}/{refusal.lane}/{refusal.seq}/refused"
            why = f"a message of the alarm lane could not be taken in: {refusal.reason} {refusal.detail}".rstrip()
            signal = Signal(event, now, "", (), why[:400])
            self._open_or_join(
                "refused", refusal.source, source.source.place, UNRULED_CATEGORY, _REFUSED_TITLE, signal, now
            )
        cursor = source.cursors.get((refusal.spool, refusal.lane))
        if cursor is None:
            cursor = source.cursors[refusal.spool, refusal.lane] = Cursor(refusal.source, refusal.spool, refusal.lane)
        if cursor.admit(refusal.seq, 0, 0) == "fresh":
            cursor.take(refusal.seq, 0, 0)
        return cursor.move()

    def _open_or_join(
        self, cause: str, key: str, place: str, category: str, title: Mapping[str, str], signal: Signal, now: int
    ) -> None:
        """For what no rule stands behind: the newest open incident of this cause and key, or a new one."""
        found = self.open_incident(cause, key)
        if found is not None and cases.is_joinable(found, now):
            self._put(cases.join(found, signal, found.level, now))
            return
        draft = self._draft_incident(Sort.INCIDENT, cause, key, place, category, Level.CRITICAL, title, "", signal, now)
        self._open_incident(replace(draft, linked=found.id if found else None), found, signal, now)

    # --- findings ------------------------------------------------------------------------------------------------------

    def _advance(self, watch: Watch, truth: Truth, at: int, event: str, now: int) -> None:
        for turn in watch.advance(truth, at, event):
            match turn:
                case Turn.PENDING:
                    self._note(watch, at, event)
                case Turn.LAPSED:
                    self._record(watch, Phase.QUIET, at, at, event)
                case Turn.FIRED:
                    self._find(watch, watch.event or event, at, now, None)
                case Turn.CLEARED:
                    self._clear(watch, event, at, now)
                    if truth:
                        self._advance(watch, truth, at, event, now)
        if watch.phase is not Phase.QUIET or watch.needs_wake:
            self._schedule(watch, at)
        if watch.phase is not Phase.QUIET and watch.rule.is_absence:
            for heard in watch.heard:
                self._devices[heard.id].is_alerted = True

    def _note(self, watch: Watch, at: int, event: str, note: str = "") -> None:
        self._record(watch, watch.phase, at, watch.since, event, note, watch.incident)

    def _record(
        self,
        watch: Watch,
        phase: Phase,
        at: int,
        since: int,
        event: str,
        note: str = "",
        incident: str | None = None,
        key: str | None = None,
    ) -> None:
        self._draft.transitions.append(
            Transition(watch.rule.id, key or watch.key, phase, at, since, event, note, incident)
        )

    def _find(self, watch: Watch, event: str, at: int, now: int, cell: _SignalCell | None) -> str | None:
        """The condition held for long enough. Returns the incident that now holds the signal, if any."""
        rule = watch.rule
        holders = [id for leaf in watch.bound.leaves for id in leaf.holders(at)]
        device = self._device_of(watch, holders, cell)
        why = "; ".join(f"{leaf.text}: {leaf.look(at)}" for leaf in watch.bound.leaves if leaf.test(at))
        devices = tuple(dict.fromkeys(holders)) or ((device.device.id,) if device else ())
        is_press = cell is not None and cell.spec.press
        signal = Signal(event, at, rule.id, devices, why[:400], is_press, self._is_late(at, now))
        finding = Finding(
            rule,
            self._status(rule),
            watch.key,
            device.place if device is not None else watch.place,
            signal,
            device.device if device is not None else None,
            device.source if device is not None else (watch.key if rule.scope is ScopeKind.SOURCE else None),
            () if cell is None or cell.data is None else tuple(str(cell.data.get(field, "")) for field in rule.key),
        )
        decided = decide(finding, self)
        key = ":".join((watch.key, *finding.fields))
        if isinstance(decided, Swallowed):
            self._swallow(watch, finding, decided, at, now, key)
            return None
        incident = self._open_case(decided, now)
        note = "opened" if decided.joins is None else "joined"
        if not watch.is_momentary:
            watch.incident, watch.note = incident.id, note
            self._firing.setdefault(incident.id, set()).add((rule.id, watch.key))
        self._record(watch, Phase.FIRING, at, watch.since or at, event, note, incident.id, key)
        if not signal.is_late:
            self._respond(incident, finding, now)
        if rule.scope is ScopeKind.SOURCE and (rule.is_absence or self.is_source_out(watch.key)):
            self._take_in(watch.key, incident.id, now)
        return incident.id

    def _is_late(self, at: int, now: int) -> bool:
        """What a message brings can be late; what a deadline finds is true now, however long nobody looked."""
        return now - at > LATE_MS and not self._is_deadline

    def _device_of(self, watch: Watch, holders: Sequence[str], cell: _SignalCell | None) -> _Device | None:
        if cell is not None:
            return cell.owner
        if watch.rule.scope is ScopeKind.DEVICE:
            return self._devices.get(watch.key)
        if watch.rule.scope is ScopeKind.SOURCE:
            return None
        return self._devices.get(holders[0]) if holders else None

    def _swallow(self, watch: Watch, finding: Finding, decided: Swallowed, at: int, now: int, key: str) -> None:
        is_new = watch.note != decided.note
        if decided.note == "inhibited":
            event = watch.event
            watch.reset()
            watch.note = decided.note
            self._push(watch, now + max([RECHECK_MS, *(heard.heartbeat or 0 for heard in watch.heard)]))
            source = self._sources[finding.source or ""]
            if finding.device is not None and finding.device.id not in source.hidden:
                source.hidden[finding.device.id] = None
                if source.outage is not None and (outage := self._incidents.get(source.outage)) is not None:
                    self._put(cases.swallow(outage, finding.device.id, finding.rule.id, now))
            if is_new:
                self._record(watch, Phase.QUIET, at, at, event, decided.note)
            return
        if decided.note == LATE and not watch.is_momentary:
            # What is late opens nothing; if it still holds when a live reading comes, that one will fire.
            watch.phase, watch.since = Phase.PENDING, at - watch.hold
        if is_new or watch.is_momentary:
            self._record(watch, Phase.FIRING, at, watch.since or at, finding.signal.event, decided.note, None, key)
        if not watch.is_momentary:
            watch.note = decided.note

    def _open_case(self, case: Case, now: int) -> Incident:
        finding = case.finding
        rule, signal = finding.rule, finding.signal
        if case.joins is not None:
            return self._put(cases.join(case.joins, signal, case.level, now))
        draft = self._draft_incident(
            rule.sort,
            rule.cause,
            case.key,
            case.place,
            rule.category,
            case.level,
            rule.incident_title,
            rule.id,
            signal,
            now,
        )
        name = finding.device.name or finding.device.id if finding.device is not None else finding.key
        title = {
            language: text.replace("{place}", case.place_name).replace("{device}", name)
            for language, text in rule.incident_title.items()
        }
        draft = replace(
            draft,
            title=title,
            place_name=case.place_name,
            grid=case.grid,
            body=case.body,
            linked=case.outlived.id if case.outlived is not None else None,
        )
        return self._open_incident(draft, case.outlived, signal, now)

    def _draft_incident(
        self,
        sort: Sort,
        cause: str,
        key: str,
        place: str,
        category: str,
        level: Level,
        title: Mapping[str, str],
        rule: str,
        signal: Signal,
        now: int,
    ) -> Incident:
        day = format_day(now)
        if day != self._day:
            self._day, self._number = day, 0
        self._number += 1
        position = self._tree.position(place) if self._tree is not None and place in self._tree else None
        label = self.label(place)
        return Incident(
            id=cases.derive_id(self._community.id, cause, key, signal.event),
            number=f"JM{day}-{self._community.serial:03d}-{self._number:03d}",
            sort=sort,
            community=self._community.id,
            cause=cause,
            key=key,
            category=category,
            level=level,
            title={language: text.replace("{place}", label) for language, text in title.items()},
            place=place,
            place_name=label,
            grid=self.grid_of(place),
            body=self.body_of(category),
            rule=rule,
            opened_by=signal.event,
            opened_at=now,
            updated_at=now,
            revision=0,
            state=cases.State.REPORTED,
            joinable=True,
            lon=None if position is None else position[0],
            lat=None if position is None else position[1],
        )

    def _open_incident(self, draft: Incident, outlived: Incident | None, signal: Signal, now: int) -> Incident:
        if outlived is not None and outlived.joinable:
            self._put(cases.end_joining(outlived, now))
        return self._put(cases.start(draft, signal, now))

    def _put(self, incident: Incident) -> Incident:
        """Takes a new revision into the state and the step. What one step changes is one revision."""
        before = self._draft.revisions.setdefault(incident.id, self._revision_of(incident.id))
        if incident.revision != before + 1:
            incident = replace(incident, revision=before + 1)
        self._draft.incidents[incident.id] = incident
        slot = (incident.cause, incident.key)
        if incident.state in cases.FINAL:
            self._incidents.pop(incident.id, None)
            self._firing.pop(incident.id, None)
            self._commands = {id: case for id, case in self._commands.items() if case != incident.id}
        else:
            self._incidents[incident.id] = incident
        if incident.joinable:
            self._open[slot] = incident.id
        elif self._open.get(slot) == incident.id and incident.state in cases.FINAL:
            del self._open[slot]
        return incident

    def _revision_of(self, incident: str) -> int:
        known = self._incidents.get(incident)
        return 0 if known is None else known.revision

    def _clear(self, watch: Watch, event: str, at: int, now: int) -> None:
        incident = self._incidents.get(watch.incident) if watch.incident else None
        self._record(watch, Phase.QUIET, at, at, event, "cleared", watch.incident)
        if incident is not None:
            firing = self._firing.get(incident.id, set())
            firing.discard((watch.rule.id, watch.key))
            if not firing:
                cleared = self._put(cases.clear(incident, watch.rule.id, event, now))
                if cleared.state in cases.FINAL:
                    for source in self._sources.values():
                        if source.outage == incident.id:
                            source.outage = None
        watch.reset()

    def _respond(self, incident: Incident, finding: Finding, now: int) -> None:
        for response in finding.rule.respond:
            targets = self._targets(response, finding)
            for device in targets:
                id = cases.derive_command_id(
                    incident.id, finding.rule.id, finding.signal.event, device.device.id, response.command
                )
                self._draft.effects.append(
                    Command(
                        id,
                        self._community.id,
                        device.source,
                        device.device.id,
                        response.command,
                        response.args,
                        now + COMMAND_TTL_MS,
                        incident.id,
                    )
                )
                self._commands[id] = incident.id
            if targets:
                why = f"{response.command} → {', '.join(d.device.id for d in targets)}"
            else:
                why = f"{response.command}: no device in this {response.zone} can do it"
            self._put(cases.note(self._incidents[incident.id], "commanded", why[:400], now))

    def _targets(self, response: Response, finding: Finding) -> list[_Device]:
        zone = response.zone
        if zone is ScopeKind.DEVICE:
            own = self._devices.get(finding.device.id) if finding.device is not None else None
            candidates: Iterable[_Device] = () if own is None else (own,)
        elif zone is ScopeKind.SOURCE:
            candidates = [d for d in self._devices.values() if d.source == finding.source]
        else:
            around = self.within(finding.place, zone)
            candidates = [d for d in self._devices.values() if self._is_in(d.place, around)]
        return [
            d
            for d in candidates
            if response.command in d.profile.commands and d.device.state is not DeviceState.RETIRED
        ]

    def _is_in(self, place: str, around: str) -> bool:
        return place == around or (self._tree is not None and around in self._tree.ancestors(place))

    def _take_in(self, source: str, incident: str, now: int) -> None:
        """The source's outage has its incident: the devices whose silence it explains stand under it."""
        known = self._sources.get(source)
        if known is None:
            return
        known.outage = incident
        for device in known.hidden:
            self._put(cases.swallow(self._incidents[incident], device, "silent since its source is", now))

    # --- people, sources, commands --------------------------------------------------------------------------------------

    def _act(self, action: OperatorAction, now: int) -> None:
        draft = self._draft
        if action.id in self._presses:
            draft.answer = "repeat"
            return
        self._fire_deadlines(now - 1)
        incident = self._incidents.get(action.incident)
        if incident is None:
            draft.answer = "no such open incident in this community"
            return
        moved = cases.act(incident, action.actor, action.verb, action.reason, now)
        if isinstance(moved, str):
            draft.answer = moved
            return
        self._presses[action.id] = None
        self._put(moved)
        draft.answer = "done"

    def _hear_answer(self, answer: Answer, now: int) -> None:
        self._fire_deadlines(now - 1)
        id = self._commands.pop(answer.reply.command, None)
        incident = self._incidents.get(id) if id is not None else None
        if incident is not None:
            reply = answer.reply
            self._put(
                cases.note(
                    incident, "answered", f"{reply.outcome} {reply.detail}".strip()[:400], now, device=reply.device
                )
            )

    def _meet(self, presence: Presence, now: int) -> None:
        """A birth, a regular status, or a death; a death counts only for the connection that it belongs to."""
        source = self._sources.get(presence.source)
        if source is None:
            self._draft.answer = "unknown-source"
            return
        status = presence.status
        own = self._devices.get(source.source.device) if source.source.device is not None else None
        if status.online:
            if source.out_since is not None:
                away = now - source.out_since
                for device in self._devices.values():
                    if device.source == presence.source and device is not own:
                        self._extend(device, away)
            self._connect(source, status.connection)
            source.out_since = None
            source.hidden.clear()
            if own is not None:
                self._hear(own, now)
        elif status.connection in source.former or source.out_since is not None:
            self._draft.answer = "stale-death"
            return
        else:
            self._connect(source, status.connection)
            source.out_since = now
        cell = own.cells.get("offline") if own is not None else None
        if cell is not None and own is not None and cell.value is not (not status.online):
            cell.put(now, not status.online)
            for watch in cell.watches:
                truth = watch.test(now)
                if truth or watch.phase is not Phase.QUIET:
                    self._advance(watch, truth, now, f"{presence.source}/status/{status.connection}/{now}", now)

    def _connect(self, source: _Source, connection: str) -> None:
        """Remembers the connection, and the ones before it: a late last will of those says nothing of now."""
        if connection != source.connection:
            if source.connection:
                source.former = [*source.former, source.connection][-FORMER_LIMIT:]
            source.connection = connection

    def _extend(self, device: _Device, blind: int) -> None:
        """Absence deadlines shift by the time that nothing could be heard in, and one heartbeat more."""
        device.heard.excused += blind + (device.heard.heartbeat or 0)

    def _excuse(self, blind: Blind) -> None:
        for device in self._devices.values():
            self._extend(device, max(0, blind.until - blind.since))
        self._grace_until = max(self._grace_until, blind.until + GRACE_MS)

    def _override(self, override: Override, now: int) -> None:
        rule = next((rule for rule in self._catalog.rules if rule.id == override.rule), None)
        if rule is None or (override.status is not None and override.status not in set(Status)):
            self._draft.answer = "no such rule" if rule is None else "no such status"
            return
        before = self._status(rule)
        if override.status is None:
            self._overrides.pop(override.rule, None)
        else:
            self._overrides[override.rule] = override.status
        self._draft.answer = "done"
        if self._status(rule) is before:
            return
        self._rebind([s for s in self._dump_watches() if s.rule != rule.id or s.incident is not None])
        for key in self.keys(rule.id):
            self._look(self._watches[rule.id, key], now)

    def _status(self, rule: Rule) -> Status:
        override = self._overrides.get(rule.id)
        return min(rule.status, Status(override), key=lambda s: s.rank) if override is not None else rule.status

    # --- the registry ------------------------------------------------------------------------------------------------

    def _register(self, change: RegistryChange, now: int) -> None:
        """Takes a change in whole, or refuses it whole with its reason."""
        places = self._places | {place.id: place for place in change.places}
        sources = {source.source.id: source.source for source in self._sources.values()}
        sources |= {source.id: source for source in change.sources}
        problem = self._refuse_change(change, places, sources)
        if problem is not None:
            self._draft.answer = problem
            return
        if change.community is not None:
            self._community = change.community
        self._places = places
        for source in change.sources:
            known = self._sources.get(source.id)
            if known is None:
                self._sources[source.id] = _Source(source)
            else:
                known.source = source
        touched = set(change.retired)
        for id in change.retired:
            gone = self._devices.pop(id, None)
            if gone is not None:
                self._draft.devices.append(replace(gone.device, state=DeviceState.RETIRED))
        reactivated = []
        for device in change.devices:
            known_device = self._devices.get(device.id)
            profile = self._catalog.profiles[device.profile]
            heard = known_device.heard if known_device is not None else Heard(device.id, now, profile.heartbeat)
            made = _Device(device, profile, heard)
            if known_device is not None:
                made.cells, made.events = known_device.cells, known_device.events
                if known_device.device.state in _INACTIVE and device.state is DeviceState.ACTIVE:
                    reactivated.append(device.id)
            self._devices[device.id] = made
            self._draft.devices.append(device)
            touched.add(device.id)
        self._rebind(self._dump_watches())
        changed_places = {place.id for place in change.places}
        for watch in self._watches.values():
            if any(
                heard.id in touched or not changed_places.isdisjoint(self._chain(self._devices[heard.id].place))
                for heard in watch.heard
            ):
                self._look(watch, now)
        for id in reactivated:
            self._reconsider(id, now)
        self._feed_held(change.devices, now)
        self._draft.answer = "done"

    def _refuse_change(
        self, change: RegistryChange, places: Mapping[str, Place], sources: Mapping[str, Source]
    ) -> str | None:
        try:
            tree = PlaceTree(places.values())
        except DistrictError as error:
            return str(error)
        for source in change.sources:
            if source.place not in tree:
                return f"source {source.id}: place {source.place} is not a place of {self._community.id}; register it first"
        for device in change.devices:
            if device.profile not in self._catalog.profiles:
                return f"device {device.id}: there is no profile {device.profile}; add device_profiles/…/{device.profile}.yaml"
            if device.place not in tree:
                return f"device {device.id}: place {device.place} is not a place of {self._community.id}; register it first"
            if device.source not in sources:
                return f"device {device.id}: source {device.source} is not a source of {self._community.id}; register it first"
        return None

    def _chain(self, place: str) -> tuple[str, ...]:
        return (place, *self._tree.ancestors(place)) if self._tree is not None else (place,)

    def _reconsider(self, device: str, now: int) -> None:
        """The device counts again: what fired and opened nothing is judged anew."""
        for watch in self._watches_of.get(device, ()):
            if watch.phase is Phase.FIRING and watch.incident is None and watch.note in _SILENCED:
                watch.reset()
                self._look(watch, now)

    def _feed_held(self, devices: Iterable[Device], now: int) -> None:
        """What a device sent before it was registered is judged now that it is."""
        new = {device.id for device in devices}
        names_held = [name for name in self._held if name.rpartition(":")[0] in new]
        for name in names_held:
            held = self._held.pop(name)
            cell = self._cells.get(name)
            if cell is None or cell.owner.source != held.source:
                continue
            value = cell.believe(held.value, held.unit)
            if isinstance(value, Disbelief):
                self._reject(held.source, cell.owner.device.id, cell.spec.id, value.reason, held.value)
                continue
            cell.put(held.at, value)
            for watch in cell.watches:
                self._advance(watch, watch.test(held.at), held.at, f"held/{name}/{held.at}", now)

    # --- time ----------------------------------------------------------------------------------------------------------

    def _fire_deadlines(self, until: int) -> None:
        """Fires what is due up to ``until``, by (deadline, rule, key); nothing while the gateway is catching up."""
        if self.now < self._grace_until:
            return
        while self._heap and self._heap[0][0] <= until:
            time, rule, key = heapq.heappop(self._heap)
            if not rule:
                self._end_state(key, time)
                continue
            watch = self._watches.get((rule, key))
            if watch is None or watch.wake_at != time:
                continue
            watch.wake_at = None
            self._is_deadline = True
            self._advance(watch, watch.test(time), time, f"{rule}/{key}/{time}", self.now)
            self._is_deadline = False

    def _look(self, watch: Watch, now: int) -> None:
        """Judges a watch from what is known, without anything new."""
        if watch.is_momentary:
            return
        truth = watch.test(now)
        if truth or watch.phase is not Phase.QUIET:
            self._advance(watch, truth, now, f"{watch.rule.id}/{watch.key}/{now}", now)
        elif watch.needs_wake:
            self._schedule(watch, now)

    def _schedule(self, watch: Watch, now: int) -> None:
        due = watch.due(now)
        if due is not None and (watch.wake_at is None or due < watch.wake_at):
            self._push(watch, due)

    def _push(self, watch: Watch, due: int) -> None:
        watch.wake_at = due
        heapq.heappush(self._heap, (due, watch.rule.id, watch.key))

    def _end_state(self, id: str, time: int) -> None:
        """A commissioning, a drill or a maintenance window is over."""
        device = self._devices.get(id)
        if device is None or device.device.state not in _INACTIVE or device.device.state_until != time:
            return
        device.device = replace(device.device, state=DeviceState.ACTIVE, state_until=None)
        self._draft.devices.append(device.device)
        self._rebind(self._dump_watches())
        self._reconsider(id, time)

    # --- building ------------------------------------------------------------------------------------------------------

    def _restore(self, state: CommunityState) -> None:
        heard = {h.device: h for h in state.heard}
        for source in state.sources:
            self._sources[source.id] = _Source(source)
        for device in state.devices:
            profile = self._catalog.profiles.get(device.profile)
            if profile is None:
                raise LookupError(f"device {device.id} has profile {device.profile}, which the catalog lacks")
            known = heard.get(device.id)
            cell = Heard(device.id, known.at if known else state.now, profile.heartbeat)
            cell.excused = known.excused if known else 0
            self._devices[device.id] = _Device(device, profile, cell)
        for presence in state.presence:
            source_state = self._sources[presence.source]
            source_state.connection = presence.connection
            source_state.former = list(presence.former)
            source_state.out_since = presence.out_since
            source_state.hidden = dict.fromkeys(presence.hidden)
            source_state.outage = presence.outage
        for cursor in state.cursors:
            self._sources[cursor.source].cursors[cursor.spool, cursor.lane] = Cursor.load(cursor)
        for incident in state.incidents:
            if incident.joinable:
                self._open[incident.cause, incident.key] = incident.id
        self._rebuild()
        for stored in state.cells:
            cell_now = self._cells.get(stored.name)
            if cell_now is not None:
                cell_now.at, cell_now.value, cell_now.prev = stored.at, stored.value, stored.prev
                _load_windows(cell_now, stored.windows)
        for stored_event in state.events:
            owner = self._devices.get(stored_event.device)
            event_cell = owner.events.get(stored_event.kind) if owner is not None else None
            if event_cell is not None:
                event_cell.at = stored_event.at
                _load_windows(event_cell, stored_event.windows)
        self._load_watches(state.watches)

    def _dump_watches(self) -> list[WatchState]:
        return [
            watch.dump()
            for watch in self._watches.values()
            if watch.phase is not Phase.QUIET or watch.wake_at is not None or watch.note
        ]

    def _rebind(self, states: Iterable[WatchState]) -> None:
        """Binds anew after a change of registry or rules, and goes on from these states."""
        self._rebuild()
        self._load_watches(states)

    def _load_watches(self, states: Iterable[WatchState]) -> None:
        for state in states:
            watch = self._watches.get((state.rule, state.key))
            if watch is None:
                continue
            watch.load(state)
            if state.wake_at is not None:
                self._push(watch, state.wake_at)
            if watch.phase is Phase.QUIET:
                continue
            if watch.incident is not None:
                self._firing.setdefault(watch.incident, set()).add((watch.rule.id, watch.key))
            if watch.rule.is_absence:
                for heard in watch.heard:
                    self._devices[heard.id].is_alerted = True

    def _rebuild(self) -> None:
        """Binds every rule to every key that it can be asked of. Cells keep their values and windows."""
        self._tree = PlaceTree(self._places.values()) if self._places else None
        self._cells = {}
        self._heap = []
        self._watches = {}
        self._watches_of = {}
        self._firing = {}
        for id in sorted(self._devices):
            self._prepare(self._devices[id])
        spare = self._set_windows_aside()
        for rule in self._catalog.rules:
            if self._status(rule).rank >= Status.SHADOW.rank:
                for key, place, devices in self._keys(rule):
                    self._bind(rule, key, place, devices)
        for cell, windows in spare:
            for name, window in windows.items():
                if name in cell.windows:
                    cell.windows[name].load(window.dump())
        heapq.heapify(self._heap)

    def _set_windows_aside(self) -> list[tuple[Cell | EventCell, dict[str, Window]]]:
        spare: list[tuple[Cell | EventCell, dict[str, Window]]] = []
        for device in self._devices.values():
            cells: list[Cell | EventCell] = [*device.cells.values(), *device.events.values()]
            for cell in cells:
                if cell.windows:
                    spare.append((cell, cell.windows))
                    cell.windows = {}
        return spare

    def _prepare(self, device: _Device) -> None:
        """Makes the device's cells as its profile says now; what it had before is carried over."""
        profile = device.profile = self._catalog.profiles.get(device.device.profile, device.profile)
        device.heard.heartbeat = profile.heartbeat
        cells, events = device.cells, device.events
        device.cells, device.events = {}, {}
        device.absence = []
        for spec in profile.readings.values():
            cell = _ReadingCell(device, spec)
            before = cells.get(spec.id)
            if before is not None:
                cell.at, cell.value, cell.prev, cell.windows = before.at, before.value, before.prev, before.windows
            device.cells[spec.id] = self._cells[cell.name] = cell
        for event in profile.events.values():
            event_cell = _SignalCell(device, event)
            before_event = events.get(event.id)
            if before_event is not None:
                event_cell.at, event_cell.windows = before_event.at, before_event.windows
            device.events[event.id] = event_cell
        if device.device.state in _INACTIVE and device.device.state_until is not None:
            heapq.heappush(self._heap, (device.device.state_until, "", device.device.id))

    def _keys(self, rule: Rule) -> Iterable[tuple[str, str, list[_Device]]]:
        """The keys of a rule: (key, place, the devices that it looks at)."""
        devices = [
            self._devices[id]
            for id in sorted(self._devices)
            if (not rule.kinds or self._devices[id].profile.kind in rule.kinds)
            and self._devices[id].device.state is not DeviceState.RETIRED
        ]
        if rule.scope is ScopeKind.DEVICE:
            for device in devices:
                if is_answerable(rule.when, _names_of(device.profile)):
                    yield device.device.id, device.place, [device]
            return
        groups: dict[str, list[_Device]] = {}
        for device in devices:
            key = device.source if rule.scope is ScopeKind.SOURCE else self.within(device.place, rule.scope)
            groups.setdefault(key, []).append(device)
        for key in sorted(groups):
            members = groups[key]
            known = frozenset().union(*(_names_of(device.profile) for device in members))
            if is_answerable(rule.when, known):
                place = self._sources[key].source.place if rule.scope is ScopeKind.SOURCE else key
                # A wider key cannot be silenced as a whole, so devices that do not count now are left out of it.
                counting = [d for d in members if d.device.state is DeviceState.ACTIVE]
                yield key, place, counting

    def _bind(self, rule: Rule, key: str, place: str, devices: list[_Device]) -> None:
        scope = _Scope(self, place, devices)
        bound = bind(rule.when, scope)
        clear: Bound | None = bind(rule.clear, scope) if rule.clear is not None else None
        watch = Watch(rule, key, place, bound, clear, tuple(device.heard for device in devices))
        self._watches[rule.id, key] = watch
        used = {
            leaf.name
            for condition in _conditions(rule)
            for _, leaf in iter_leaves(condition)
            if not isinstance(leaf, Has)
        }
        is_about_silence = rule.is_absence or rule.missing == "clear"
        for device in devices:
            self._watches_of.setdefault(device.device.id, []).append(watch)
            for name in used:
                if name in device.cells:
                    device.cells[name].watches.append(watch)
                if name in device.events:
                    device.events[name].watches.append(watch)
            if is_about_silence:
                device.absence.append(watch)

    def _finish(self, move: CursorMove | None) -> Step:
        draft = self._draft
        if draft.incidents:
            delivered = [
                Deliver(f"{incident.id}/{incident.revision}", incident)
                for incident in draft.incidents.values()
                if incident.sort is Sort.INCIDENT
            ]
            draft.effects[:0] = delivered
        elif not (draft.transitions or draft.effects or draft.rejected or draft.devices or draft.answer or move):
            return NOTHING
        return Step(
            tuple(draft.transitions),
            tuple(draft.incidents.values()),
            tuple(draft.effects),
            tuple(draft.rejected),
            tuple(draft.devices),
            move,
            draft.answer,
            draft.judged,
        )


REMEMBERED_PRESSES: Final = 4096
"""Ids of presses from pages and of actions that the engine remembers; the journal's unique index remembers all."""

_UNKNOWN_TITLE: Final = {"zh": "{place} 未登记设备报警", "en": "{place}: alarm from an unregistered device"}
_UNRULED_TITLE: Final = {"zh": "{place} 一键求助", "en": "{place}: call for help"}
_REFUSED_TITLE: Final = {"zh": "{place} 有告警消息无法识别", "en": "{place}: an alarm message could not be taken in"}


def is_answerable(condition: Condition, known: frozenset[str]) -> bool:
    """Whether a key with these readings and events could ever make the condition true."""
    match condition:
        case AllOf(parts):
            return all(is_answerable(part, known) for part in parts)
        case AnyOf(parts):
            return any(is_answerable(part, known) for part in parts)
        case Not(part):
            return is_answerable(part, known)
        case Has() | Missing(name="device"):
            return True
        case _:
            return condition.name in known


def _names_of(profile: Profile) -> frozenset[str]:
    return frozenset(profile.readings) | frozenset(profile.events)


def _conditions(rule: Rule) -> list[Condition]:
    return [rule.when] if rule.clear is None else [rule.when, rule.clear]


def _event_id(message: Message, index: int) -> str:
    return f"{message.source}/{message.spool}/{message.lane}/{message.seq}/{index}"


def _load_windows(cell: Cell | EventCell, stored: Mapping[str, Sequence[object]]) -> None:
    for name, data in stored.items():
        if name in cell.windows:
            cell.windows[name].load(data)


__all__ = ["Engine", "Explained", "is_answerable"]
