"""The engine of one community: events in, steps out. No clock, no I/O, no randomness.

The same start state, catalog and events give the same steps, byte for byte: live, in a replay and in a test. Nothing
in a step happens before it is committed; if that fails, the engine is thrown away and loaded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.casebook import WHY_LIMIT, Casebook, Draft
from gateway.core.catalog import Catalog
from gateway.core.evaluator import Truth
from gateway.core.incident import Signal
from gateway.core.model import (
    Answer,
    Blind,
    CursorMove,
    Delivery,
    Device,
    DeviceState,
    Event,
    Incident,
    ListChange,
    OperatorAction,
    Order,
    Override,
    Phase,
    Place,
    Presence,
    Press,
    Refusal,
    RegistryChange,
    Rejected,
    Scalar,
    Silence,
    SilenceChange,
    Source,
    Step,
    Tick,
    Told,
    Transition,
    Value,
)
from gateway.core.present import Present, describe
from gateway.core.profile import Disbelief
from gateway.core.registry import INACTIVE, KnownDevice, KnownSource, Registry, SignalCell
from gateway.core.routing import LATE_MS, SILENCED, STAGES, STORMED, UNSEEN, Finding, Stage, Swallowed, decide
from gateway.core.rule import BEHIND, BLIND, LATE, Rule, ScopeKind, Status, Turn, Watch, WatchState
from gateway.core.state import CommunityState, Cursor, Held
from gateway.core.watches import Watches
from gateway.core.worktime import FARTHEST_MS
from gateway.wire import NOT_AN_EVENT, Measurement, Message
from gateway.wire import Signal as WireSignal

GRACE_MS: Final = 60_000
"""After a time in which it could not see, the gateway lets no deadline fire for so long: what waits comes first."""

RECHECK_MS: Final = 60_000
"""How soon an absence that its source's outage explained is looked at again, at the earliest."""

CATCH_UP_MS: Final = 10_000
"""So long after a late message its source is taken to have more of them."""

FORMER_LIMIT: Final = 4
"""Earlier connections of a source that are remembered, so that their late last wills are known."""

HELD_LIMIT: Final = 256
"""Readings of devices not yet registered that are kept, per community."""

UNKNOWN_LIMIT: Final = 8
"""Unregistered devices of one source that have an incident of their own; what further ones say joins in one."""

REMEMBERED_IDS: Final = 4096
"""Ids of presses from pages and of actions that the engine remembers; the journal's unique index remembers all."""

_SILENCED: Final = frozenset({*map(str, INACTIVE), SILENCED, "shadow"})
_UNKNOWN_TITLE: Final = {"zh": "{place} 未登记设备报警", "en": "{place}: alarm from an unregistered device"}
_UNRULED_TITLE: Final = {"zh": "{place} 一键求助", "en": "{place}: call for help"}
_REFUSED_TITLE: Final = {"zh": "{place} 有告警消息无法识别", "en": "{place}: an alarm message could not be taken in"}


SILENCE_KINDS: Final = ("silence", "maintenance", "away")


class Explained(Struct, frozen=True):
    """What one rule says of one key at a time: the truth of its condition, and of each leaf in the file's words.

    ``leaves`` are (path in the file, the test in words, its truth, what it saw)."""

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


class Engine:
    """One community's engine. ``feed`` takes every event, ``now`` in ms; ``swap`` exchanges the catalog.

    ``stages`` are what a finding goes through; with `routing.UNROUTED_STAGES` the transitions show all that there would
    be to look at without any routing, and only presses, which are never let go, open something."""

    def __init__(self, catalog: Catalog, state: CommunityState, stages: tuple[Stage, ...] = STAGES) -> None:
        self._catalog = catalog
        self._stages = stages
        self.now = state.now
        self._grace_until = state.grace_until
        self._blind_since = state.blind_since
        self._overrides = dict(state.overrides)
        self._held = {held.name: held for held in state.held}
        self._ids: dict[str, None] = dict.fromkeys(state.presses)
        self._is_deadline = False
        self._draft = Draft()
        self._registry = Registry(state.community)
        self._registry.restore(state, catalog.profiles)
        self._cases = Casebook(catalog, self._registry, state)
        self._watches = Watches()
        self._rebuild()
        self._registry.restore_cells(state)
        self._load_watches(state.watches)

    # --- the one way in --------------------------------------------------------------------------------------

    def feed(self, event: Event, now: int) -> Step:
        """Takes one event in at ``now`` (ms UTC; it never decreases: an earlier one counts as the last)."""
        now = self._begin(now)
        draft = self._draft
        move: CursorMove | None = None
        match event:
            case Delivery(message, _):
                cursor = self._admit(message)
                if cursor is None:
                    return Step(answer=draft.answer)
                self._deliver(message, now)
                cursor.take(message.seq, message.digest, message.floor)
                move = cursor.move()
                if draft.is_plain():
                    return Step(cursor=move, judged=draft.judged)
            case Tick():
                self._fire_deadlines(now)
            case Presence():
                self._fire_deadlines(now)
                self._meet(event, now)
            case Blind():
                self._excuse(event)
            case Answer(_, reply):
                self._fire_deadlines(now - 1)
                outcome = f"{reply.outcome} {reply.detail}".strip()
                self._cases.hear_answer(reply.command, reply.device, outcome, reply.incident)
            case Press():
                self._press(event, now)
            case RegistryChange():
                self._fire_deadlines(now)
                self._register(event, now)
            case ListChange():
                self._registry.lists[event.name] = frozenset(event.entries)
            case Override():
                self._override(event, now)
            case OperatorAction():
                self._take_once(event.id, now, lambda: self._cases.act(event))
            case Order():
                self._take_once(event.id, now, lambda: self._cases.order(event))
            case SilenceChange():
                self._fire_deadlines(now)
                self._silence(event, now)
            case Told():
                self._cases.hear_told(event)
            case Refusal():
                move = self._refuse(event, now)
        return draft.finish(move)

    def next_deadline(self) -> int | None:
        """When the engine wants a Tick, in ms; None when nothing waits."""
        times = [due for due in (self._watches.next_due(), self._cases.next_due()) if due is not None]
        return max(min(times), self._grace_until) if times else None

    def is_due(self, now: int) -> bool:
        """Whether a Tick at ``now`` would find a deadline: cheaper than `next_deadline`, for whoever asks often."""
        if now < self._grace_until:
            return False
        return self._watches.has_due(now) or self._cases.next_due(now) is not None

    def swap(self, catalog: Catalog, now: int) -> Step:
        """Exchanges the catalog. What is judged alike keeps its state; what is judged otherwise starts again from the
        last values, and what fires keeps its incident; a retired rule's incident stays open, by hand."""
        now = self._begin(now)
        self._fire_deadlines(now)
        old = {rule.id: (rule, self._status(rule)) for rule in self._catalog.rules}
        self._catalog = self._cases.catalog = catalog
        renamed = {rule.was: rule.id for rule in catalog.rules if rule.was in old}
        again: set[str] = set()
        for rule in catalog.rules:
            before = old.get(rule.was or rule.id) or old.get(rule.id)
            if before is None or not rule.judges_like(before[0]) or before[1] is not self._status(rule):
                again.add(rule.id)
        states = []
        for state in self._watches.dump():
            state.rule = renamed.get(state.rule, state.rule)
            if state.rule not in again or (state.phase is Phase.FIRING and state.incident is not None):
                states.append(state)
        self._rebind(states)
        for watch in self._watches:
            if watch.rule.id in again:
                self._look(watch, now)
            elif watch.needs_wake:
                self._watches.schedule(watch, now)  # a profile's heartbeat may be shorter than it was
        return self._draft.finish(None)

    def snapshot(self) -> CommunityState:
        """The whole state, as plain values."""
        state = CommunityState(
            community=self._registry.community,
            now=self.now,
            grace_until=self._grace_until,
            blind_since=self._blind_since,
            overrides=dict(self._overrides),
            watches=self._watches.dump(),
            held=list(self._held.values()),
            presses=list(self._ids),
        )
        self._registry.dump_into(state)
        self._cases.dump_into(state)
        return state

    # --- what others may ask ---------------------------------------------------------------------------------

    @property
    def community(self) -> str:
        """The community's id."""
        return self._registry.community.id

    @property
    def catalog(self) -> Catalog:
        """The catalog in force."""
        return self._catalog

    def cursor(self, source: str, spool: str, lane: str) -> Cursor | None:
        """Which messages of a source's lane are in."""
        known = self._registry.sources.get(source)
        return None if known is None else known.cursors.get((spool, lane))

    def phase(self, rule: str, key: str) -> Phase:
        """The phase of a rule for a key."""
        watch = self._watches.get(rule, key)
        return Phase.QUIET if watch is None else watch.phase

    def keys(self, rule: str) -> list[str]:
        """The keys that a rule is asked of."""
        return [watch.key for watch in self._watches.of_rule(rule)]

    def place_name(self, rule: str, key: str) -> str:
        """Where a rule's key is, as people say it; the key itself where the rule is not asked of it."""
        watch = self._watches.get(rule, key)
        return key if watch is None else self._registry.label(watch.place)

    def devices_of(self, source: str) -> list[Device]:
        """The devices that a source carries, by id."""
        return [known.device for known in self._registry.carried(source)]

    def places_of(self, source: str) -> list[Place]:
        """Where a source and its devices are, up to the community, by id."""
        registry = self._registry
        own = registry.sources[source].source.place
        ids = {id for known in registry.carried(source) for id in registry.chain(known.place)}
        return [registry.places[id] for id in sorted(ids | set(registry.chain(own)))]

    def sources(self) -> list[Source]:
        """The community's sources."""
        return [source.source for source in self._registry.sources.values()]

    def orphans_of(self, catalog: Catalog) -> list[Device]:
        """The devices whose profile that catalog does not have: with them it cannot be exchanged."""
        devices = (known.device for known in self._registry.devices.values())
        return [device for device in devices if device.profile not in catalog.profiles]

    def has_device(self, device: str) -> bool:
        """Whether a device is registered."""
        return device in self._registry.devices

    def incident(self, id: str) -> Incident | None:
        """An incident of this community: an open one, or one that ended lately."""
        return self._cases.get(id)

    def open_incidents(self) -> list[Incident]:
        """The open incidents and notices."""
        return self._cases.list_open()

    def silences(self) -> list[Silence]:
        """The silences, maintenance windows and absences that hold or are to come."""
        return list(self._registry.silences.values())

    def present(self, now: int, device: str = "") -> Present:
        """What the community's devices show at ``now``, or what one of them shows."""
        return describe(self._registry, max(self.now, now), device)

    def explain(self, device: str, now: int) -> list[Explained]:
        """For each rule that looks at the device: what it sees at ``now``, which leaf holds or not, and what stands."""
        return [self._explain(watch, now) for watch in self._watches.of_device(device)]

    def explain_watch(self, rule: str, key: str, now: int) -> Explained | None:
        """The same for one rule and one of its keys; None where the rule is not asked of that key."""
        watch = self._watches.get(rule, key)
        return None if watch is None else self._explain(watch, now)

    def _explain(self, watch: Watch, now: int) -> Explained:
        return Explained(
            watch.rule.id,
            watch.rule.title,
            self._status(watch.rule),
            watch.key,
            watch.phase,
            watch.since,
            watch.test(now),
            watch.incident,
            watch.note,
            tuple((leaf.path, leaf.text, leaf.test(now), leaf.look(now)) for leaf in watch.bound.leaves),
        )

    # --- deliveries ------------------------------------------------------------------------------------------

    def _begin(self, now: int) -> int:
        self.now = max(self.now, now)
        self._draft = self._cases.begin(self.now)
        return self.now

    def _admit(self, message: Message) -> Cursor | None:
        source = self._registry.sources.get(message.source)
        if source is None:
            self._draft.answer = "unknown-source"
            return None
        cursor = source.cursors.get((message.spool, message.lane))
        if cursor is None:
            if not source.has_room(message.lane):
                self._draft.answer = "too-many-spools"
                return None
            cursor = Cursor(message.source, message.spool, message.lane)
        verdict = cursor.admit(message.seq, message.digest, message.floor)
        if verdict != "fresh":
            self._draft.answer = verdict
            return None
        source.cursors[message.spool, message.lane] = cursor
        return cursor

    def _deliver(self, message: Message, now: int) -> None:
        registry, id = self._registry, message.source
        source = registry.sources[id]
        # The source's clock cancels out: only the time that the message lay at the source counts.
        at = min(now, now - (message.sent_at - message.taken_at) - self._kept_for(source, message, now))
        if now - at > LATE_MS:
            source.behind_until = now + CATCH_UP_MS
        if self._watches.has_due_before(at) or self._cases.has_due_before(at):
            self._fire_deadlines(at - 1)
        own = registry.own_device(source)
        if own is not None:
            self._hear(own, now, now)
        is_alarm = message.lane == "alarm"
        for index, bad in enumerate(message.bad):
            device, _, reading = bad.name.rpartition(":")
            self._reject(id, device, reading, bad.reason, bad.detail)
            if is_alarm and bad.reason == NOT_AN_EVENT:
                self._open_unclear(id, source.source.place, bad.detail, _event_id(message, f"bad{index}"), at)
        for index, signal in enumerate(message.signals):
            self._signal(message, signal, index, at, now)
        cells, quiet, judged = registry.cells, Phase.QUIET, 0
        for index, measured in enumerate(message.measurements, len(message.signals)):
            cell = cells.get(measured.name)
            if cell is None or cell.source != id:
                self._meet_unknown(message, measured, index, at, now)
                continue
            value: Value | Disbelief = measured.value
            unit = measured.unit
            if (
                value.__class__ is not float
                or (unit is not None and unit != cell.unit)
                or not cell.believed_low <= value <= cell.believed_high
            ):
                value = cell.believe(measured.value, unit)
                if value.__class__ is Disbelief:
                    self._reject(id, cell.owner.device.id, cell.spec.id, value.reason, measured.value)
                    continue
            judged += 1
            when = at + measured.offset
            if when < cell.at:
                continue  # older than what is known: it changes no state
            cell.put(when, value)  # type: ignore[arg-type]
            heard = cell.heard
            if when > heard.at:
                gained = when - heard.at
                heard.at = when
                if heard.excused:
                    self._use_excuse(cell.owner, gained, now)
            if heard.is_alerted:
                self._wake_absence(cell.owner, when)
            if cell.is_busy or not cell.low <= value <= cell.high:  # type: ignore[operator]
                for watch in cell.watches:
                    truth = watch.test(when)
                    if truth or watch.phase is not quiet:
                        self._advance(watch, truth, when, _event_id(message, index), now)
                cell.settle()
            else:
                for watch in cell.open:
                    truth = watch.test(when)
                    if truth or watch.phase is not quiet:
                        self._advance(watch, truth, when, _event_id(message, index), now)
            for watch in cell.timed:
                if watch.phase is quiet:
                    self._watches.schedule(watch, when)
        self._draft.judged += judged

    def _kept_for(self, source: KnownSource, message: Message, now: int) -> int:
        """How long the broker has kept a message because the gateway could not hear: by how much it is later, by the
        source's clock, than those before that time were. The clock may have moved meanwhile, so it is never more than
        the time in which nothing was heard, and only what comes right after it is asked."""
        lag = now - message.sent_at
        if now >= self._grace_until:
            source.lag = lag
            return 0
        return 0 if source.lag is None else max(0, min(lag - source.lag, now - self._blind_since))

    def _signal(self, message: Message, signal: WireSignal, index: int, at: int, now: int) -> None:
        device = self._registry.devices.get(signal.device)
        event = _event_id(message, index)
        if device is None or device.source != message.source:
            reason = "unknown-device" if device is None else "not-carried"
            self._reject(message.source, signal.device, signal.kind, reason, signal.kind)
            if message.lane == "alarm":
                self._open_unknown(message.source, signal.device, signal.kind, event, at)
            return
        if signal.kind not in device.events:
            self._reject(device.source, device.device.id, signal.kind, "unknown-event", signal.kind)
            if message.lane == "alarm" and not device.is_inactive:
                self._open_unclear(device.device.id, device.place, f"{signal.kind[:48]} is no event of it", event, at)
            return
        self._judge_signal(device, signal.kind, signal.data, event, at, now)

    def _judge_signal(
        self,
        device: KnownDevice,
        kind: str,
        data: Mapping[str, Scalar],
        event: str,
        at: int,
        now: int,
        *,
        joins_open: bool = False,
    ) -> None:
        cell = device.events[kind]
        problem = cell.spec.refuse(data)
        if problem is not None:
            self._reject(device.source, device.device.id, f"{kind}.{problem.field}", problem.reason, problem.value)
            if not cell.spec.press:
                return
            data = {}  # whatever else it says, somebody pressed
        self._hear(device, at, now)
        self._draft.judged += 1
        cell.put(at, data)
        is_held = False
        for watch in cell.watches:
            truth = watch.test(at)
            if watch.is_momentary:
                if truth:
                    is_held |= self._find(watch, event, at, now, cell, joins_open=joins_open)
            elif truth or watch.phase is not Phase.QUIET:
                self._advance(watch, truth, at, event, now)
            elif watch.needs_wake:
                self._watches.schedule(watch, at)
        cell.forget()
        if cell.spec.press and not is_held and not device.is_inactive:
            # The promise: every press is in exactly one incident, also when no rule is there for it.
            why = "; ".join((kind, *cell.spec.tell(data), "no active rule looks at it"))
            signal = Signal(
                event,
                at,
                "",
                (device.device.id,),
                why,
                is_press=True,
                is_late=self._is_late(at, now),
                joins_open=joins_open,
            )
            self._cases.open_or_join("sos", device.device.id, device.place, _UNRULED_TITLE, signal)

    def _hear(self, device: KnownDevice, at: int, now: int) -> None:
        heard = device.heard
        if at > heard.at:
            gained = at - heard.at
            heard.at = at
            if heard.excused:
                self._use_excuse(device, gained, now)
        if heard.is_alerted:
            self._wake_absence(device, at)

    def _use_excuse(self, device: KnownDevice, gained: int, now: int) -> None:
        """Heard of again, so many ms after the last time: it has no more time than others. But what comes late, as from
        a spool, says nothing of whether it is there now: it is due when it was."""
        heard = device.heard
        heard.excused = max(0, heard.excused - gained) if now - heard.at > LATE_MS else 0
        for watch in device.absence:
            self._watches.schedule(watch, heard.at)

    def _wake_absence(self, device: KnownDevice, at: int) -> None:
        """The device is heard of again: what its silence had begun is looked at."""
        heard = device.heard
        heard.is_alerted = False
        for watch in device.absence:
            if watch.is_busy:
                self._advance(watch, watch.test(at), at, f"heard/{device.device.id}/{at}", self.now)
                heard.is_alerted |= watch.is_busy

    def _reject(self, source: str, device: str, reading: str, reason: str, value: object) -> None:
        self._draft.rejected.append(Rejected(source, device[:64], reading[:64], reason, str(value)[:64]))

    # --- what nobody registered, or nobody could take in -----------------------------------------------------

    def _meet_unknown(self, message: Message, measured: Measurement, index: int, at: int, now: int) -> None:
        device, _, reading = measured.name.rpartition(":")
        known = self._registry.devices.get(device)
        if known is not None and known.source == message.source:
            self._reject(message.source, device, reading, "unknown-reading", measured.value)
            if message.lane == "alarm" and measured.value is True and not known.is_inactive:
                why = f"{reading[:48]} is no reading of it"
                self._open_unclear(device, known.place, why, _event_id(message, index), at)
            return
        reason = "unknown-device" if known is None else "not-carried"
        self._reject(message.source, device, reading, reason, measured.value)
        if message.lane == "alarm" and measured.value is True:
            self._open_unknown(message.source, device, reading, _event_id(message, index), at)
        if known is None and (measured.name in self._held or len(self._held) < HELD_LIMIT):
            self._held[measured.name] = Held(message.source, measured.name, measured.value, measured.unit, at)

    def _open_unknown(self, source: str, device: str, what: str, event: str, at: int) -> None:
        """An alarm from a device that its source does not carry: somebody pressed, somewhere near the source."""
        why = f"{what[:48]} from a device that is not registered"
        signal = Signal(event, at, "", (device[:48],), why, is_press=True)
        where = self._registry.sources[source].source.place
        key = f"{source}/{device[:48]}"
        is_crowded = self._cases.count_open("unknown-device", f"{source}/") >= UNKNOWN_LIMIT
        if is_crowded and self._cases.open_incident("unknown-device", key) is None:
            key = source
        self._cases.open_or_join("unknown-device", key, where, _UNKNOWN_TITLE, signal)

    def _open_unclear(self, key: str, place: str, why: str, event: str, at: int) -> None:
        """Something came in the alarm lane that nobody understands: it may have been a press."""
        signal = Signal(event, at, "", (), why[:WHY_LIMIT], is_press=True)
        self._cases.open_or_join("refused", key, place, _REFUSED_TITLE, signal)

    def _refuse(self, refusal: Refusal, now: int) -> CursorMove | None:
        source = self._registry.sources.get(refusal.source)
        if source is None:
            self._draft.answer = "unknown-source"
            return None
        if refusal.lane == "alarm":
            event = f"{refusal.source}/{refusal.spool}/{refusal.lane}/{refusal.seq}/refused"
            why = f"a message of the alarm lane could not be taken in: {refusal.reason} {refusal.detail}".rstrip()
            signal = Signal(event, now, "", (), why[:WHY_LIMIT])
            self._cases.open_or_join("refused", refusal.source, source.source.place, _REFUSED_TITLE, signal)
        cursor = source.cursors.get((refusal.spool, refusal.lane))
        if cursor is None:
            if not source.has_room(refusal.lane):
                return None
            cursor = source.cursors[refusal.spool, refusal.lane] = Cursor(refusal.source, refusal.spool, refusal.lane)
        if cursor.admit(refusal.seq, 0, 0) == "fresh":
            cursor.take(refusal.seq, refusal.digest, 0)
        return cursor.move()

    # --- findings --------------------------------------------------------------------------------------------

    def _advance(self, watch: Watch, truth: Truth, at: int, event: str, now: int) -> None:
        for turn in watch.advance(truth, at, event):
            match turn:
                case Turn.PENDING:
                    if now - at > LATE_MS and not self._is_deadline:
                        watch.note = BEHIND
                    self._record(watch, Phase.PENDING, at, watch.since, event)
                case Turn.LAPSED:
                    self._record(watch, Phase.QUIET, at, at, event)
                case Turn.FIRED:
                    self._find(watch, watch.event or event, at, now, None)
                case Turn.CLEARED:
                    self._record(watch, Phase.QUIET, at, at, event, "cleared", watch.incident)
                    self._cases.clear(watch, event, at)
                    watch.reset()
                    if truth:
                        self._advance(watch, truth, at, event, now)
        if watch.is_busy or watch.needs_wake:
            self._watches.schedule(watch, at)
        if watch.is_busy:
            for cell in watch.cells:
                cell.is_busy = True
            if watch.rule.is_absence:
                self._alert(watch)

    def _alert(self, watch: Watch) -> None:
        for heard in watch.heard:
            heard.is_alerted = True

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

    def _find(
        self, watch: Watch, event: str, at: int, now: int, cell: SignalCell | None, *, joins_open: bool = False
    ) -> bool:
        """The condition held for long enough. Whether an incident holds the signal now."""
        rule = watch.rule
        holders = [id for leaf in watch.bound.leaves for id in leaf.holders(at)]
        device = self._device_of(watch, holders, cell)
        seen = [f"{leaf.text}: {leaf.look(at)}" for leaf in watch.bound.leaves if leaf.test(at)]
        said = cell.spec.tell(cell.data) if cell is not None and cell.data is not None else ()
        why = "; ".join((*seen, *said))
        signal = Signal(
            event,
            at,
            rule.id,
            tuple(dict.fromkeys(holders)) or ((device.device.id,) if device else ()),
            why[:WHY_LIMIT],
            is_press=cell is not None and cell.spec.press,
            is_late=self._is_late(at, now),
            joins_open=joins_open,
        )
        finding = Finding(
            rule,
            self._status(rule),
            watch.key,
            device.place if device is not None else watch.place,
            signal,
            device.device if device is not None else None,
            device.source if device is not None else (watch.key if rule.scope is ScopeKind.SOURCE else None),
            () if cell is None or cell.data is None else tuple(str(cell.data.get(field, "")) for field in rule.key),
            self._is_deadline,
        )
        decided = decide(finding, self._cases, self._stages)
        if isinstance(decided, Swallowed):
            self._swallow(watch, finding, decided, at, now)
            return False
        incident = self._cases.take(decided)
        note = "opened" if decided.joins is None else "joined"
        if not watch.is_momentary:
            watch.incident, watch.note = incident.id, note
            self._cases.keep_firing(watch)
        self._record(watch, Phase.FIRING, at, watch.since or at, event, note, incident.id, finding.full_key)
        if not signal.is_late:
            self._cases.respond(incident, finding)
        if rule.scope is ScopeKind.SOURCE and (rule.is_absence or self._cases.is_source_out(watch.key)):
            self._cases.take_in(watch.key, incident.id)
        return True

    def _is_late(self, at: int, now: int) -> bool:
        """What a message brings can be late; what a deadline finds is true now, however long nobody looked."""
        return now - at > LATE_MS and not self._is_deadline

    def _device_of(self, watch: Watch, holders: Sequence[str], cell: SignalCell | None) -> KnownDevice | None:
        if cell is not None:
            return cell.owner
        match watch.rule.scope:
            case ScopeKind.DEVICE:
                return self._registry.devices.get(watch.key)
            case ScopeKind.SOURCE:
                return None
            case _:
                return self._registry.devices.get(holders[0]) if holders else None

    def _swallow(self, watch: Watch, finding: Finding, swallowed: Swallowed, at: int, now: int) -> None:
        note, by = swallowed.note, swallowed.by
        is_new = watch.note != note
        if note == UNSEEN:
            event = watch.event
            watch.reset()
            watch.note = note
            if is_new:
                self._record(watch, Phase.QUIET, at, at, event, note)
            return
        if note == "inhibited":
            event = watch.event
            watch.reset()
            watch.note = note
            above = self._registry.devices.get(by)
            waits = [heard.heartbeat or 0 for heard in (*watch.heard, *((above.heard,) if above is not None else ()))]
            watch.recheck_at = at + max([RECHECK_MS, *waits])
            if finding.device is not None and finding.source is not None:
                if by == finding.source:
                    self._cases.hide(finding.source, finding.device.id, finding.rule.id)
                else:
                    self._cases.hide_behind(by, finding.device.id, finding.rule.id)
            if is_new:
                self._record(watch, Phase.QUIET, at, at, event, note)
            self._watches.schedule(watch, at)
            return
        if is_new or watch.is_momentary:
            since, event = watch.since or at, finding.signal.event
            into = self._cases.take_storm(finding).id if note == STORMED else by or None
            self._record(watch, Phase.FIRING, at, since, event, note, into, finding.full_key)
        if not watch.is_momentary:
            if note == LATE:
                # What is late opens nothing; if it still holds when a live reading comes, that one will fire.
                watch.phase, watch.since = Phase.PENDING, at - watch.hold
            watch.note = note

    # --- people and sources ----------------------------------------------------------------------------------

    def _press(self, press: Press, now: int) -> None:
        device = self._registry.devices.get(press.device)
        if press.id in self._ids or device is None or press.kind not in device.events:
            unknown = "unknown-device" if device is None else "unknown-event"
            self._draft.answer = "repeat" if press.id in self._ids else unknown
            return
        self._fire_deadlines(now - 1)
        self._remember(press.id)
        self._judge_signal(device, press.kind, press.data, press.id, now, now, joins_open=press.joins_open)
        self._draft.answer = "done"

    def _take_once(self, id: str, now: int, take: Callable[[], str]) -> None:
        """What a person asks for, once for its id: ``take`` does it, and answers ``done`` or in words why not."""
        if id in self._ids:
            self._draft.answer = "repeat"
            return
        self._fire_deadlines(now - 1)
        self._draft.answer = take()
        if self._draft.answer == "done":
            self._remember(id)

    def _silence(self, change: SilenceChange, now: int) -> None:
        """A silence begins or ends; what it must not cover is refused in words."""
        if change.id in self._ids:
            self._draft.answer = "repeat"
            return
        silences, silence = self._registry.silences, change.silence
        if change.ended is not None:
            ended = silences.pop(change.ended, None)
            self._draft.answer = "done" if ended is not None else f"there is no silence {change.ended[:48]}"
            if ended is not None:
                self._remember(change.id)
                self._unsilence(ended, now)
            return
        self._draft.answer = "a silence is needed, or the id of one that ends"
        if silence is not None:
            problem = self._refuse_silence(silence, now)
            self._draft.answer = problem or "done"
            if problem is None:
                self._remember(change.id)
                silences[silence.id] = silence
                self._watches.note_edge(silence.id, silence.since, silence.until, now)
                self._settle_away(now)

    def _refuse_silence(self, silence: Silence, now: int) -> str | None:
        registry = self._registry
        if silence.device is None and silence.place is None and silence.rule is None:
            return "a silence names a device, a place or a rule: the whole community cannot be silenced"
        if silence.kind not in SILENCE_KINDS:
            return f"a silence is one of {', '.join(SILENCE_KINDS)}"
        if silence.kind == "away" and (silence.place is None or silence.device or silence.rule):
            return "whoever is away is so from a place: name the household alone"
        if silence.device is not None and silence.device not in registry.devices:
            return f"there is no device {silence.device[:48]} in this community"
        if silence.place is not None and silence.place not in registry.places:
            return f"there is no place {silence.place[:48]} in this community"
        if silence.rule is not None and self._catalog.rule(silence.rule) is None:
            return f"there is no rule {silence.rule[:64]}"
        if not silence.reason.strip():
            return "a silence needs a reason"
        begin = max(now, silence.since)
        if silence.until <= begin:
            return "a silence ends after it begins, and in the future"
        if silence.until > now + FARTHEST_MS:
            return "a silence ends within ten years"
        longest = self._catalog.policy.life_safety_silence
        if silence.kind != "away" and silence.until - begin > longest and self._covers_life_safety(silence):
            return f"it covers devices that people's lives hang on: for those it ends after {longest // 3_600_000} h"
        return None

    def _covers_life_safety(self, silence: Silence) -> bool:
        for watch in self._watches:
            if self._cases.is_life_safety(watch.rule.category):
                devices = [self._registry.devices[heard.id] for heard in watch.heard]
                if any(self._registry.is_covered(silence, watch.rule.id, d.device.id, d.place) for d in devices):
                    return True
        return False

    def _end_silence(self, id: str, time: int) -> None:
        """A silence begins or is over by itself."""
        silence = self._registry.silences.get(id)
        if silence is not None and silence.until <= time:
            del self._registry.silences[id]
            self._unsilence(silence, time)
        elif silence is not None:
            self._settle_away(time)

    def _unsilence(self, silence: Silence, now: int) -> None:
        """What fired under it, opened nothing and still holds is found now; it has held for long enough."""
        self._settle_away(now)
        for watch in list(self._watches):
            if watch.phase is Phase.FIRING and watch.incident is None and watch.note == SILENCED:
                if watch.test(now):
                    watch.phase, watch.note = Phase.PENDING, ""
                else:
                    watch.reset()
                self._look(watch, now)

    def _settle_away(self, now: int) -> None:
        before = self._registry.away
        self._registry.settle_away(now)
        changed = before ^ self._registry.away
        self._registry.restart_windows(before - self._registry.away)
        if changed:
            self._rebind(self._watches.dump())  # attributes are looked up when a rule is bound
            for watch in list(self._watches):
                if any(self._is_in_any(heard.id, set(changed)) for heard in watch.heard):
                    self._look(watch, now)

    def _remember(self, id: str) -> None:
        self._ids[id] = None
        while len(self._ids) > REMEMBERED_IDS:
            del self._ids[next(iter(self._ids))]

    def _meet(self, presence: Presence, now: int) -> None:
        """A birth, a regular status, or a death; a death counts only for the connection that it belongs to."""
        source = self._registry.sources.get(presence.source)
        if source is None:
            self._draft.answer = "unknown-source"
            return
        status = presence.status
        own = self._registry.own_device(source)
        if status.online:
            if source.out_since is not None:
                away = now - source.out_since
                for device in self._registry.carried(presence.source):
                    if device is not own:
                        _extend(device, away)
            source.out_since = None
            # From now on silence is the device's own, also while the outage's case is still open, as of one that flaps.
            source.outage = None
            source.hidden.clear()
            if own is not None:
                self._hear(own, now, now)
        elif status.connection in source.former or source.out_since is not None:
            self._draft.answer = "stale-death"
            return
        else:
            source.out_since = now
        _connect(source, status.connection)
        cell = own.cells.get("offline") if own is not None else None
        if cell is None or cell.value is (not status.online):
            return
        cell.put(now, not status.online)
        for watch in cell.watches:
            truth = watch.test(now)
            if truth or watch.is_busy:
                self._advance(watch, truth, now, f"{presence.source}/status/{status.connection}/{now}", now)

    def _excuse(self, blind: Blind) -> None:
        for device in self._registry.devices.values():
            _extend(device, max(0, blind.until - blind.since))
        for watch in self._watches:
            if watch.phase is Phase.PENDING:
                watch.note = BLIND
        if blind.has_jumped:
            for source in self._registry.sources.values():
                source.lag = None
        if self.now >= self._grace_until:
            self._blind_since = blind.since
        self._grace_until = max(self._grace_until, blind.until + GRACE_MS)

    def _override(self, override: Override, now: int) -> None:
        rule = self._catalog.rule(override.rule)
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
        self._rebind([s for s in self._watches.dump() if s.rule != rule.id or s.incident is not None])
        for watch in self._watches.of_rule(rule.id):
            self._look(watch, now)

    def _status(self, rule: Rule) -> Status:
        override = self._overrides.get(rule.id)
        return min(rule.status, Status(override), key=lambda s: s.rank) if override is not None else rule.status

    # --- the registry ----------------------------------------------------------------------------------------

    def _register(self, change: RegistryChange, now: int) -> None:
        """Takes a change in whole, or refuses it whole with its reason."""
        problem = self._registry.refuse(change, self._catalog.profiles)
        if problem is not None:
            self._draft.answer = problem
            return
        applied = self._registry.apply(change, self._catalog.profiles, now)
        self._draft.devices.extend(applied.devices)
        self._rebind(self._watches.dump())
        if change.places or change.community is not None or change.grids:
            self._cases.relocate()
        places = {place.id for place in change.places}
        for watch in self._watches:
            if any(heard.id in applied.touched or self._is_in_any(heard.id, places) for heard in watch.heard):
                self._look(watch, now)
        for id in applied.reactivated:
            self._reconsider(id, now)
        self._feed_held(change.devices, now)
        self._draft.answer = "done"

    def _is_in_any(self, device: str, places: set[str]) -> bool:
        return not places.isdisjoint(self._registry.chain(self._registry.devices[device].place))

    def _reconsider(self, device: str, now: int) -> None:
        """The device counts again: what fired and opened nothing is judged anew."""
        for watch in self._watches.of_device(device):
            if watch.phase is Phase.FIRING and watch.incident is None and watch.note in _SILENCED:
                watch.reset()
                self._look(watch, now)

    def _feed_held(self, devices: Iterable[Device], now: int) -> None:
        """What a device sent before it was registered is judged now that it is."""
        new = {device.id for device in devices}
        for name in [name for name in self._held if name.rpartition(":")[0] in new]:
            held = self._held.pop(name)
            cell = self._registry.cells.get(name)
            if cell is None or cell.owner.source != held.source:
                continue
            value = cell.believe(held.value, held.unit)
            if isinstance(value, Disbelief):
                self._reject(held.source, cell.owner.device.id, cell.spec.id, value.reason, held.value)
                continue
            cell.put(held.at, value)
            for watch in cell.watches:
                self._advance(watch, watch.test(held.at), held.at, f"held/{name}/{held.at}", now)

    # --- time ------------------------------------------------------------------------------------------------

    def _fire_deadlines(self, until: int) -> None:
        """Fires what is due up to ``until``, by (deadline, rule, key); nothing while the gateway is catching up."""
        if self.now < self._grace_until:
            return
        while True:
            case_due = self._cases.next_due(until)
            due = self._watches.pop_due(until if case_due is None else case_due)
            if due is None:
                if case_due is None:
                    return
                self._cases.fire_next()
                continue
            time, what = due
            if isinstance(what, str):
                if what in self._registry.silences:
                    self._end_silence(what, time)
                self._end_state(what, time)
                continue
            if what.recheck_at is not None and what.recheck_at <= time:
                what.recheck_at = None
            if what.note == BEHIND and (caught_up := self._caught_up_at(what)) > time:
                what.recheck_at = caught_up
                self._watches.schedule(what, time)
                continue
            self._is_deadline = True
            self._advance(what, what.test(time), time, f"{what.rule.id}/{what.key}/{time}", self.now)
            self._is_deadline = False

    def _caught_up_at(self, watch: Watch) -> int:
        """When the sources of what a watch looks at will have told all that they have kept, as far as is known."""
        devices = self._registry.devices
        return max((self._registry.sources[devices[heard.id].source].behind_until for heard in watch.heard), default=0)

    def _look(self, watch: Watch, now: int) -> None:
        """Judges a watch from what is known, without anything new."""
        if watch.is_momentary:
            return
        truth = watch.test(now)
        if truth or watch.is_busy:
            self._advance(watch, truth, now, f"{watch.rule.id}/{watch.key}/{now}", now)
        elif watch.needs_wake:
            self._watches.schedule(watch, now)

    def _end_state(self, id: str, time: int) -> None:
        """A commissioning, a drill or a maintenance window is over, for all whose time this is: binding anew is costly,
        and a drill has many devices."""
        known = self._registry.devices.get(id)
        if known is None or not known.is_inactive or known.device.state_until != time:
            return
        devices = self._registry.devices
        over = [devices[id] for id in sorted(devices) if devices[id].device.state_until == time]
        over = [device for device in over if device.is_inactive]
        for ended in over:
            ended.device = replace(ended.device, state=DeviceState.ACTIVE, state_until=None)
            self._draft.devices.append(ended.device)
        self._rebind(self._watches.dump())
        for ended in over:
            self._reconsider(ended.device.id, time)

    # --- binding ---------------------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        self._registry.prepare(self._catalog.profiles)
        self._cases.forget_firing()
        judged = [rule for rule in self._catalog.rules if self._status(rule).rank >= Status.SHADOW.rank]
        self._watches.rebuild(judged, self._registry, self.now)

    def _rebind(self, states: Iterable[WatchState]) -> None:
        """Binds anew after a change of registry or rules, and goes on from these states."""
        self._rebuild()
        self._load_watches(states)

    def _load_watches(self, states: Iterable[WatchState]) -> None:
        for watch in self._watches.load(states):
            self._cases.keep_firing(watch)
            if watch.rule.is_absence:
                self._alert(watch)


def _extend(device: KnownDevice, blind: int) -> None:
    """Absence deadlines shift by the time that nothing could be heard in, and one heartbeat more."""
    device.heard.excused += blind + (device.heard.heartbeat or 0)


def _connect(source: KnownSource, connection: str) -> None:
    """Remembers the connection, and the ones before it: a late last will of those says nothing of now."""
    if connection != source.connection:
        if source.connection:
            source.former = [*source.former, source.connection][-FORMER_LIMIT:]
        source.connection = connection


def _event_id(message: Message, index: int | str) -> str:
    return f"{message.source}/{message.spool}/{message.lane}/{message.seq}/{index}"
