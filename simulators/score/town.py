"""One community while its part of the corpus is written: who is free when, what is sent, and what must come of it.

Nothing here knows the gateway but its wire.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Final, Literal

from msgspec import Struct

from gateway.wire import Measurement, Signal
from simulators.habits import Stream, make_streams
from simulators.scenario_file import AFTER_MS, Scenario, Sending, Value, read_duration, sendings_of
from simulators.score.corpus import (
    ClockStep,
    Deed,
    Device,
    Estate,
    Happening,
    Label,
    Link,
    NearMiss,
    Outage,
    Pack,
    Place,
    Script,
    StateChange,
)

S: Final = 1000
M: Final = 60 * S
H: Final = 60 * M

PACK_MS: Final = 60 * S
"""So often an agent sends what its devices report by themselves."""

REST_MS: Final = 4 * H
"""So long after a scenario its devices and places are left alone: by then people have closed its case."""

UNATTENDED: Final = 0.1
"""The share of cases that nobody ever looks at."""

BACK_MS: Final = 10 * M
TRIES: Final = 400
SLOW: Final = {"temperature-humidity": {"temperature": 8.0}}
"""Readings that go back to where they belong by no more than so much an hour: a room has its mass."""

FIRE: Final = "ext:21-01"
CALLED_BACK: Final = ("ext:21-03", "ext:21-09")
"""Categories in which the first thing that people do is to call back."""

Span = tuple[int, int]


class Line(Struct, frozen=True):
    """The way from an agent to the gateway. While ``dark`` the agent has no power, and takes nothing in; while ``cut``
    it has no link, and keeps all until it has one; while ``blind`` the gateway is stopped, and the broker keeps it."""

    dark: tuple[Span, ...] = ()
    cut: tuple[Span, ...] = ()
    blind: tuple[Span, ...] = ()

    def is_dark(self, at: int) -> bool:
        return _is_in(self.dark, at)

    def is_whole(self, since: int, until: int) -> bool:
        """Whether nothing is the matter in that time."""
        return not any(begin < until and since < end for begin, end in (*self.dark, *self.cut, *self.blind))

    def carry(self, taken: int) -> tuple[int, int]:
        """When what is taken then is sent, and when it is heard."""
        sent = taken
        for since, until in self.cut:
            # What waited goes out quickly and in its order, and what comes meanwhile after it.
            drained = until + 500 + (until - since) // 400
            if since <= sent < until:
                sent = until + 500 + (sent - since) // 400
            elif until <= sent < drained + 500:
                sent = drained + (sent - until) // 400
        heard = sent + 50 + (sent // 5_000 * 2_654_435_761 >> 7) % 400
        for since, until in self.blind:
            if since <= heard < until:
                heard = until + 100 + (heard - since) // 1000
        return sent, heard


class Town:
    """A community's script in the making, from ``start`` to ``end``."""

    def __init__(
        self,
        chapter: str,
        estate: Estate,
        seed: int,
        span: Span,
        line: Line | None = None,
        wanted: Sequence[str] = (),
    ) -> None:
        self.chapter = chapter
        self.id = estate.community.id
        self.seed = seed
        self.start, self.end = span
        self.rng = Random(f"{seed}/{chapter}/{self.id}")
        self.line = line or Line()
        [self.source] = estate.sources
        self.devices = {device.id: device for device in estate.devices}
        self.labels: list[Label] = []
        self.near_misses: list[NearMiss] = []
        self.clock: list[ClockStep] = []
        self.outages: list[Outage] = []
        self.lost: list[Span] = []
        self.repeated: list[Span] = []
        self._places = {place.id: place for place in estate.places}
        self._wanted = wanted
        self._happenings: list[Happening] = []
        self._booked: dict[str, list[Span]] = {}
        self._muted: dict[str, list[Span]] = {}
        self._shifts: dict[str, tuple[int, float]] = {}
        for since, until in (*self.line.dark, *self.line.cut):
            self.tell(Link(since, False), Link(until, True))

    # --- who and where ---------------------------------------------------------------------------------------------

    def of_profile(self, *profiles: str) -> list[Device]:
        """The devices of these profiles, by id."""
        return [device for device in self.devices.values() if device.profile in profiles]

    def within(self, place: str, kind: str) -> str:
        """The nearest place of that kind at or above the place; itself where there is none."""
        return next((above.id for above in self._chain(place) if above.kind == kind), place)

    def places(self, kind: str) -> list[str]:
        """The places of a kind, by id."""
        return sorted(place.id for place in self._places.values() if place.kind == kind)

    def inside(self, place: str, *profiles: str) -> list[Device]:
        """The devices in a place and all below it; with ``profiles`` those of them."""
        devices = self.of_profile(*profiles) if profiles else self.devices.values()
        return [device for device in devices if any(above.id == place for above in self._chain(device.place))]

    def has(self, device: Device, attribute: str) -> bool:
        """Whether a device has an attribute, itself or by its place."""
        own = [device.attributes, *(place.attributes for place in self._chain(device.place))]
        return next((given[attribute] for given in own if attribute in given), False) is True

    def register(self, *devices: Device) -> None:
        """Adds devices, or exchanges what they are registered with."""
        self.devices.update((device.id, device) for device in devices)

    def _chain(self, place: str) -> Iterator[Place]:
        above: str | None = place
        while above is not None:
            found = self._places[above]
            yield found
            above = found.parent

    # --- what is free ----------------------------------------------------------------------------------------------

    def book(self, marks: Iterable[str], since: int, until: int) -> None:
        """From now on these are taken in that time."""
        for mark in marks:
            self._booked.setdefault(mark, []).append((since, until))

    def is_free(self, marks: Iterable[str], since: int, until: int) -> bool:
        return not any(b < until and since < e for mark in marks for b, e in self._booked.get(mark, ()))

    # --- what is sent ----------------------------------------------------------------------------------------------

    def tell(self, *happenings: Happening) -> None:
        """Adds what happens, at its own time."""
        self._happenings.extend(happenings)

    def send(self, at: int, measurements: list[Measurement], signals: tuple[Signal, ...] = (), again: int = 0) -> int:
        """The agent takes this in at that time; returns when the gateway hears it."""
        sent, heard = self.line.carry(at)
        self.tell(Pack(at, sent, heard, measurements, signals, again))
        return heard

    def report(self, at: int, device: str, reading: str, value: Value) -> int:
        """A device reports one reading; returns when the gateway hears it."""
        return self.send(at, [Measurement(f"{device}:{reading}", value)])

    def press(self, at: int, device: str, kind: str = "pressed") -> int:
        """A device tells of an event; returns when the gateway hears it."""
        return self.send(at, [], (Signal(device, kind, {}),))

    def mute(self, names: Iterable[str], since: int, until: int) -> None:
        """In that time these readings (``device:reading``, or all of a ``device``) are not reported by themselves."""
        for name in names:
            self._muted.setdefault(name, []).append((since, until))

    def stop_meter(self, device: Device, since: int, until: int) -> None:
        """Nothing runs through a meter in that time; then it goes on from where it stood."""
        [stream] = [s for s in self._streams_of(device) if s.name.endswith(":volume")]
        stood = float(stream.value(since))
        self.mute([stream.name], since, until)
        for at in range(since, until, H):
            self.send(at, [Measurement(stream.name, stood)])
        self._shifts[stream.name] = (until, stood - float(stream.value(until)))

    # --- scenarios -------------------------------------------------------------------------------------------------

    def cast(self, scenario: Scenario, since: int, until: int, *, anyway: bool = False) -> bool:
        """Plays a scenario once between these times, on devices that are free; False when that cannot be. ``anyway``:
        also when the agent has no link or the gateway is stopped."""
        latest = until - scenario.length - AFTER_MS
        candidates = self.of_profile(scenario.profile)
        if latest <= since or not candidates:
            return False
        for _ in range(TRIES):
            device, begins = self.rng.choice(candidates), self.rng.randrange(since, latest)
            ends = begins + scenario.length + AFTER_MS
            if not scenario.is_at_its_hour(begins, scenario.length) or not (anyway or self.line.is_whole(begins, ends)):
                continue
            if self.has(device, "away") or not (scenario.attribute is None or self.has(device, scenario.attribute)):
                continue
            cast = self._find_others(scenario, device, begins, ends)
            if cast is not None and self._play(scenario, cast, begins, ends):
                return True
        return False

    def _find_others(self, scenario: Scenario, device: Device, begins: int, ends: int) -> dict[str, str] | None:
        cast = {"": device.id}
        for name, other in scenario.others.items():
            around = self.within(device.place, other.within)
            fitting = [
                found.id
                for found in self.inside(around, other.profile)
                if found.id not in cast.values() and self.is_free((found.id,), begins, ends + REST_MS)
            ]
            if not fitting:
                return None
            cast[name] = self.rng.choice(fitting)
        return cast

    def _play(self, scenario: Scenario, cast: Mapping[str, str], begins: int, ends: int) -> bool:
        device = self.devices[cast[""]]
        expected, like = scenario.expect, scenario.like or ""
        category = expected.category if expected is not None else like
        place = device.place if expected is None or expected.at == "device" else self.within(device.place, expected.at)
        marks = {*cast.values(), f"{category}@{place}"}
        if category == FIRE:
            # Whatever smells of fire in a building is one fire.
            marks.add(f"fire in {self.within(device.place, 'building')}")
        is_left = self.rng.random() < UNATTENDED
        # A meter is played with once: its total must not depend on what is played with it before.
        is_once = any(act.adds for act in scenario.acts)
        since = self.start if is_once else begins - AFTER_MS
        rest = REST_MS * (2 if device.profile in SLOW else 1)
        until = self.end if is_left or is_once else ends + rest
        if not self.is_free(marks, since, until):
            return False
        self.book(marks, since, until)
        sendings = sendings_of(scenario, cast, begins, self.rng, self._wanted)
        if scenario.state is not None:
            self.tell(StateChange(begins - M, (device.id,), scenario.state, ends + M))
        heard = self._act(sendings, begins, ends)
        if expected is None:
            self.near_misses.append(NearMiss(scenario.id, like, begins, device.id))
            return True
        first, last = min(heard), max(heard)
        opened = first + read_duration(expected.within) if expected.within is not None else last + AFTER_MS
        deeds = () if is_left else self.work(category, first, max(ends, last + AFTER_MS))
        self.label(scenario.id, "emergency", category, place, first, opened, tuple(cast.values()), deeds)
        return True

    def _act(self, sendings: Sequence[Sending], begins: int, ends: int) -> list[int]:
        """Sends all of it, and what is ordinary again when it is over; returns when the gateway hears it."""
        devices = {part.device for sending in sendings for part in sending.parts}
        streams = {stream.name: stream for device in devices for stream in self._streams_of(self.devices[device])}
        stood: dict[str, float] = {}
        last: dict[str, Value] = {}
        heard: list[int] = []
        for sending in sendings:
            measured = []
            for part in sending.parts:
                name, value = f"{part.device}:{part.reading}", part.value
                if part.adds:
                    value = stood[name] = round(float(streams[name].value(begins)) + float(value), 3)
                measured.append(Measurement(name, value, part.unit, part.offset))
                last[name] = (float(value) - 32) / 1.8 if part.unit == "degF" else value
            signals = () if sending.event is None else (Signal(sending.device, sending.event, sending.data),)
            sent, arrives = self.line.carry(sending.time + sending.late)
            self.tell(Pack(sending.time, sent, arrives, measured, signals, 2 * S if sending.twice else 0))
            heard.append(arrives)
        acted = sorted({f"{part.device}:{part.reading}" for sending in sendings for part in sending.parts})
        self.mute(acted, begins, ends)
        for name in acted:
            if name in stood:
                # A meter goes on from where it stands now.
                self._shifts[name] = (ends, stood[name] - float(streams[name].value(ends)))
                self.send(ends, [Measurement(name, stood[name])])
            elif name in streams:
                self._go_back(streams[name], last[name], ends)
        return heard

    def _go_back(self, stream: Stream, stands: Value, ends: int) -> None:
        """From the end of a scenario on the reading is what it is on an ordinary day."""
        device, _, reading = stream.name.rpartition(":")
        pace = SLOW.get(self.devices[device].profile, {}).get(reading)
        at = ends
        if pace is not None:
            step = pace * BACK_MS / H
            while abs(gap := float(stream.value(at)) - float(stands)) > step and at < self.end:
                stands = float(stands) + math.copysign(step, gap)
                self.send(at, [Measurement(stream.name, round(stands, 1))])
                at += BACK_MS
            self.mute([stream.name], ends, at)
        self.send(at, [Measurement(stream.name, stream.value(at))])

    # --- what must come of it --------------------------------------------------------------------------------------

    def label(
        self,
        scenario: str,
        kind: Literal["emergency", "upset"],
        category: str,
        place: str,
        since: int,
        until: int,
        devices: tuple[str, ...] = (),
        deeds: tuple[Deed, ...] = (),
        *,
        sort: Literal["incident", "notice"] = "incident",
        in_storm: bool = False,
    ) -> None:
        """Writes down that one case must come of something."""
        self.labels.append(
            Label(scenario, kind, sort, self.id, category, place, since, until, devices, in_storm, deeds)
        )

    def work(self, category: str, since: int, ends: int) -> tuple[Deed, ...]:
        """What people do about a case that is opened at ``since``, when all is over at ``ends``."""
        rng = self.rng
        is_called_back = category in CALLED_BACK
        deeds = [
            Deed(
                since + rng.randrange(20 * S, 4 * M), "call_back" if is_called_back else "accept", "dispatcher", "通话"
            )
        ]
        way = rng.random()
        at = deeds[0].at + rng.randrange(M, 10 * M)
        deeds.append(Deed(at, "dispatch", "dispatcher"))
        at = max(at, ends) + rng.randrange(M, 20 * M)
        if way < 0.1:
            deeds.append(Deed(at, "park", "dispatcher", "等待备件", hold=30 * M))
            at += rng.randrange(5 * M, 20 * M)
            deeds.append(Deed(at, "resume", "dispatcher"))
        elif way < 0.2:
            deeds.append(Deed(at, "whistle", "grid_worker", "需要上级协调"))
            at += rng.randrange(2 * M, 8 * M)
            deeds.append(Deed(at, "report_in", "dispatcher"))
        for verb, role, reason in (
            ("arrive", "property_manager", ""),
            ("resolve", "property_manager", "已处置"),
            ("verify", "grid_worker", ""),
            ("close", "dispatcher", "核查属实"),
        ):
            at += rng.randrange(2 * M, 25 * M)
            deeds.append(Deed(at, verb, role, reason))
        return tuple(deeds)

    # --- the script ------------------------------------------------------------------------------------------------

    def write(self) -> Script:
        """The finished script."""
        happenings = sorted(self._happenings, key=lambda happening: happening.at)
        return Script(
            self.chapter,
            self.id,
            tuple(self.devices.values()),
            self.start,
            self.end,
            heapq.merge(happenings, self._pack(), key=lambda happening: happening.at),
            tuple(sorted(self.labels, key=lambda label: (label.since, label.place))),
            tuple(self.near_misses),
            tuple(self.clock),
            tuple(self.outages),
        )

    def _streams_of(self, device: Device) -> Iterator[Stream]:
        is_home = self._places[device.place].kind == "household"
        return make_streams(device.id, device.profile, self.seed, is_home=is_home, is_away=self.has(device, "away"))

    def _pack(self) -> Iterator[Pack]:
        """What the devices report by themselves."""
        streams = [stream for device in self.devices.values() for stream in self._streams_of(device)]
        muted = [
            (*self._muted.get(stream.name, ()), *self._muted.get(stream.name.rpartition(":")[0], ()))
            for stream in streams
        ]
        due = [(stream.first_after(self.start), index) for index, stream in enumerate(streams)]
        heapq.heapify(due)
        for at in range(self.start + PACK_MS, self.end + 1, PACK_MS):
            measured: list[Measurement] = []
            is_dark = self.line.is_dark(at)
            while due and due[0][0] <= at:
                time, index = due[0]
                stream = streams[index]
                heapq.heapreplace(due, (time + stream.period, index))
                if is_dark or (muted[index] and _is_in(muted[index], time)):
                    continue
                value = stream.value(time)
                shift = self._shifts.get(stream.name)
                if shift is not None and time >= shift[0]:
                    value = round(float(value) + shift[1], 3)
                measured.append(Measurement(stream.name, value, None, time - at))
            if not measured:
                continue
            sent, heard = self.line.carry(at)
            is_lost = _is_in(self.lost, at)
            yield Pack(at, sent, None if is_lost else heard, measured, (), 5 * S if _is_in(self.repeated, at) else 0)


def _is_in(spans: Iterable[Span], at: int) -> bool:
    return any(since <= at <= until for since, until in spans)
