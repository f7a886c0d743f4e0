"""Plays a script to two engines at once, on its own clock: one as it is in service, one with routing switched off.

The first is worked on by people, who look at what it opens; what the second finds is only counted.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.core.engine import Engine
from gateway.core.model import (
    Blind,
    Delivery,
    Device,
    DeviceState,
    Event,
    Incident,
    ListChange,
    OperatorAction,
    Override,
    Phase,
    Presence,
    RegistryChange,
    Role,
    Silence,
    SilenceChange,
    Step,
    Tick,
)
from gateway.core.routing import UNROUTED, UNROUTED_STAGES
from gateway.core.rule import Status as RuleStatus
from gateway.core.state import CommunityState
from gateway.wire import Lane, Measurement, Message, Status
from simulators.catalog import alarm_readings, read_catalog
from simulators.district import Settlement
from simulators.score.compare import Truth
from simulators.score.corpus import Blindness, Deed, Happening, Link, Pack, Quiet, Script, StateChange

ACTOR: Final = "score"


class Played(Struct):
    """What came of a script: its cases at their newest revision, how many readings and events were sent (each once),
    how many of them were not believed, what there was to look at without routing, and what people were refused."""

    script: Script
    cases: list[Incident]
    signals: int
    rejected: int
    raw_alarms: int
    refused: list[str]


def play(script: Script, settlement: Settlement, lists: Mapping[str, tuple[str, ...]], without: str = "") -> Played:
    """Plays it to its end. ``without`` is a rule that is switched off."""
    service = _Service(settlement, script)
    unrouted = _Unrouted(settlement)
    plan = msgspec.convert(msgspec.to_builtins(script.devices), tuple[Device, ...])
    opening: list[Event] = [
        RegistryChange(ACTOR, settlement.places, settlement.sources, plan),
        *(ListChange(ACTOR, name, entries) for name, entries in lists.items()),
        Presence(settlement.sources[0].id, Status(online=True, connection="0")),
    ]
    if without:
        opening.append(Override(ACTOR, without, RuleStatus.RETIRED, "what is it worth?"))
    for event in opening:
        for side in (service, unrouted):
            side.take(event, script.start)
    agent = _Agent(script, settlement.sources[0].id, plan)
    for now, event in agent.events():
        for side in (service, unrouted):
            # A gateway that is stopped lets nothing fire.
            side.pass_time(event.since if isinstance(event, Blind) else now)
            side.take(event, now)
    return Played(
        script,
        list(service.cases.values()),
        agent.signals,
        service.rejected,
        unrouted.found,
        service.refused,
    )


class _Side:
    """An engine and what it has said so far."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def pass_time(self, now: int) -> None:
        """Lets every deadline before ``now`` fire at its own time."""
        while self.engine.is_due(now - 1) and (due := self.engine.next_deadline()) is not None:
            self.take(Tick(), due)

    def take(self, event: Event, now: int) -> Step:
        step = self.engine.feed(event, now)
        if isinstance(event, RegistryChange | SilenceChange | Override) and step.answer != "done":
            raise ValueError(f"{self.engine.community}: {type(event).__name__} was refused: {step.answer}")
        self.hear(step, now)
        return step

    def hear(self, step: Step, now: int) -> None:
        raise NotImplementedError


class _Unrouted(_Side):
    """Counts what is found with routing switched off."""

    def __init__(self, settlement: Settlement) -> None:
        super().__init__(Engine(read_catalog(), CommunityState(settlement.community), UNROUTED_STAGES))
        self.found = 0

    def hear(self, step: Step, now: int) -> None:
        self.found += sum(t.phase is Phase.FIRING and t.note == UNROUTED for t in step.transitions)


class _Service(_Side):
    """The engine as it is in service, with the people who work on its cases."""

    def __init__(self, settlement: Settlement, script: Script) -> None:
        super().__init__(Engine(read_catalog(), CommunityState(settlement.community)))
        self.cases: dict[str, Incident] = {}
        self.rejected = 0
        self.refused: list[str] = []
        self._truth = Truth(script.labels)
        self._todo: list[tuple[int, int, str, tuple[Deed, ...]]] = []
        self._number = count()

    def pass_time(self, now: int) -> None:
        while self._todo and self._todo[0][0] < now:
            at, number, case, (deed, *rest) = heapq.heappop(self._todo)
            super().pass_time(at)
            until = at + deed.hold if deed.hold else None
            action = OperatorAction(
                f"{case}/{number}", ACTOR, case, deed.verb, deed.reason, Role(deed.role), until=until
            )
            answer = self.take(action, at).answer
            if answer != "done":
                self.refused.append(f"{deed.verb}: {answer}")
            self._plan(case, tuple(rest), at)
        super().pass_time(now)

    def hear(self, step: Step, now: int) -> None:
        self.rejected += len(step.rejected)
        for case in step.incidents:
            if case.id not in self.cases:
                label = self._truth.take(case)
                if label is not None:
                    self._plan(case.id, label.deeds, now)
            self.cases[case.id] = case

    def _plan(self, case: str, deeds: tuple[Deed, ...], now: int) -> None:
        if deeds:
            heapq.heappush(self._todo, (max(deeds[0].at, now + 1000), next(self._number), case, deeds))


class _Agent:
    """The edge agent of a script: what it takes in becomes messages, each with its place in its lane."""

    def __init__(self, script: Script, source: str, devices: Iterable[Device]) -> None:
        self.signals = 0
        self._script = script
        self._source = source
        self._devices = {device.id: device for device in devices}
        self._alarms = {f"{d.id}:{reading}" for d in self._devices.values() for reading in alarm_readings(d.profile)}
        self._seq = dict.fromkeys(Lane, 0)
        self._floor = dict.fromkeys(Lane, 1)
        self._connections = 0
        self._waiting: list[tuple[int, int, Message]] = []
        self._number = count()

    def events(self) -> Iterator[tuple[int, Event]]:
        """Everything that reaches the gateway, in order of time, to the end of the script."""
        for happening in self._script.happenings:
            yield from self._arrive(happening.at)
            if isinstance(happening, Pack):
                self._spool(happening)
            else:
                yield happening.at, self._tell(happening)
        yield from self._arrive(self._script.end)
        yield self._script.end, Tick()

    def _arrive(self, until: int) -> Iterator[tuple[int, Event]]:
        while self._waiting and self._waiting[0][0] <= until:
            now, _, message = heapq.heappop(self._waiting)
            yield now, Delivery(message, b"")

    def _tell(self, happening: Happening) -> Event:
        match happening:
            case Link(_, is_up):
                self._connections += is_up
                return Presence(self._source, Status(online=is_up, connection=str(self._connections)))
            case Blindness(at, since):
                return Blind(since, at, "stopped")
            case Quiet(at, until, kind, reason, device, place):
                id = f"quiet-{next(self._number)}"
                return SilenceChange(id, ACTOR, Silence(id, until, reason, ACTOR, at, device, place, kind=kind))
            case StateChange(_, devices, state, until):
                changed = [replace(self._devices[id], state=DeviceState(state), state_until=until) for id in devices]
                return RegistryChange(ACTOR, devices=tuple(changed))
        raise TypeError(happening)

    def _spool(self, pack: Pack) -> None:
        alarms: list[Measurement] = []
        others: list[Measurement] = []
        for measured in pack.measurements:
            (alarms if measured.name in self._alarms else others).append(measured)
        if pack.signals or alarms:
            self._send(Lane.ALARM, pack, alarms)
        if others:
            self._send(Lane.TELEMETRY, pack, others)

    def _send(self, lane: Lane, pack: Pack, measured: list[Measurement]) -> None:
        self._seq[lane] += 1
        seq = self._seq[lane]
        if pack.arrives is None:
            self._floor[lane] = seq + 1
            return
        signals = pack.signals if lane is Lane.ALARM else ()
        self.signals += len(measured) + len(signals)
        taken, sent = (at + self._ahead(at) for at in (pack.at, pack.sent))
        floor = self._floor[lane]
        message = Message(
            self._script.community, self._source, lane, "spool", seq, floor, sent, taken, signals, measured, (), seq
        )
        heapq.heappush(self._waiting, (pack.arrives, next(self._number), message))
        if pack.again:
            again = replace(message, sent_at=sent + pack.again)
            heapq.heappush(self._waiting, (pack.arrives + pack.again, next(self._number), again))

    def _ahead(self, at: int) -> int:
        """How far the agent's clock is ahead at that time."""
        return next((step.offset for step in reversed(self._script.clock) if step.at <= at), 0)
