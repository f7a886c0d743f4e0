"""Plays communities to engines of their own, without broker, ledger or clock: what do the rules make of it?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from msgspec.structs import replace

from gateway.core.engine import Engine
from gateway.core.model import Delivery, Event, Incident, ListChange, RegistryChange, Rejected, Tick
from gateway.core.state import CommunityState
from gateway.wire import Message
from simulators.catalog import read_catalog
from simulators.district import District, Settlement
from simulators.fleet import streams_of
from simulators.player import PlayClock, Source, Tally, events_of
from simulators.scenario import Instance, Plan

STEP_MS = 5_000


class Judge:
    """One community's engine, registered a minute before it hears the first message."""

    def __init__(self, district: District, settlement: Settlement, plan: Plan | None, start: int) -> None:
        states = {} if plan is None else plan.states
        devices = tuple(replace(d, state=states.get(d.id, d.state)) for d in settlement.devices)
        self.incidents: dict[str, Incident] = {}
        self.rejected: list[Rejected] = []
        self._engine = Engine(read_catalog(), CommunityState(community=settlement.community))
        self._engine.feed(RegistryChange("test", settlement.places, settlement.sources, devices), start - 60_000)
        for name, entries in district.lists.items():
            self._engine.feed(ListChange("test", name, entries), start - 60_000)

    def hear(self, messages: Iterable[tuple[int, Message]], end: int) -> Judge:
        """Takes the messages in at their times, lets every deadline fire at its own, and time go on to the end."""
        deliveries: Iterator[tuple[int, Event]] = ((now, Delivery(message, b"")) for now, message in messages)
        for now, event in chain(deliveries, [(end, Tick())]):
            while (due := self._engine.next_deadline()) is not None and due < now:
                self._take(Tick(), due)
            self._take(event, now)
        return self

    def _take(self, event: Event, now: int) -> None:
        step = self._engine.feed(event, now)
        self.incidents.update((incident.id, incident) for incident in step.incidents)
        self.rejected.extend(step.rejected)

    @property
    def opened(self) -> list[tuple[str, str]]:
        """(category, place) of each incident."""
        return sorted((i.category, i.place) for i in self.incidents.values() if i.sort == "incident")

    @property
    def noticed(self) -> list[tuple[str, tuple[str, ...]]]:
        """(rule, devices) of each maintenance notice."""
        return sorted((i.rule, i.devices) for i in self.incidents.values() if i.sort == "notice")


def judge_alone(district: District, instance: Instance, plan: Plan, after_ms: int) -> Judge:
    """Only what one scenario sends."""
    settlement = _settlement_of(district, instance)
    judge = Judge(district, settlement, plan, instance.begins)
    return judge.hear(events_of(district, [instance]), instance.ends + after_ms)


def judge_ordinary(
    district: District, settlement: Settlement, seed: int, start: int, end: int, plan: Plan | None = None
) -> Judge:
    """The ordinary readings of a community, with what the plan plays in it."""
    judge = Judge(district, settlement, plan, start)
    source = Source(settlement, streams_of(settlement, district.silent, seed), PlayClock(1.0, 0, 0), Tally(), "judged")
    if plan is not None:
        source.cast(i for i in plan.instances if i.community == settlement.community.id)
    source.begin(start)
    return judge.hear(_messages(source, start, end), end)


def _messages(source: Source, start: int, end: int) -> Iterator[tuple[int, Message]]:
    for now in range(start, end, STEP_MS):
        source.step(now)
        for lane in source.lanes.values():
            while lane.backlog:
                message = lane.backlog.popleft()
                yield now, replace(message, sent_at=max(now, message.taken_at))


def _settlement_of(district: District, instance: Instance) -> Settlement:
    return next(s for s in district.communities if s.community.id == instance.community)
