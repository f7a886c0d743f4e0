"""Laws of the engine, held against generated days of a small community."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import json

from gateway.core.engine import Engine
from gateway.core.incident import derive_id
from gateway.core.model import (
    Blind,
    Command,
    Delivery,
    Device,
    DeviceState,
    Event,
    OperatorAction,
    Order,
    Presence,
    Step,
    Tick,
)
from gateway.core.profile import ReadingSpec
from gateway.core.registry import ReadingCell
from gateway.core.state import encode_state
from gateway.wire import Lane, Status
from tests.core.worlds import DEVICES, START, Sender, new_engine, real_catalog, restored, with_state

S = 1000
Timed = tuple[int, Event]

_READINGS = (
    ("smoke-1:smoke", st.booleans()),
    ("smoke-2:smoke", st.booleans()),
    ("smoke-3:smoke", st.booleans()),
    ("smoke-1:battery", st.sampled_from([100.0, 15.0, 5.0, 240.0])),
    ("room-1:temperature", st.sampled_from([20.0, 40.0, 60.0, 90.0, -30.0, 999.0])),
)


_FIRST_PRESS = derive_id("c001", "sos", "sos-1", "agent-1/spool1/alarm/1/0")
"""The incident of a day that begins with a press."""


@st.composite
def orders(draw: st.DrawFn) -> Order:
    """Of a few ids, so that some come again; for an incident that is there or not, of devices that can do it or not."""
    id = draw(st.sampled_from(["o-1", "o-2"]))
    incident = draw(st.sampled_from([_FIRST_PRESS, "nowhere"]))
    devices = draw(st.sampled_from([("speaker-1",), ("speaker-2", "speaker-1"), ("smoke-1",), ("sos-1",)]))
    return Order(id, "wang", incident, "broadcast", devices, "因为", {"text": "请撤离"})


@st.composite
def days(draw: st.DrawFn) -> list[Timed]:
    """Events in order of time: readings, presses, repeats, presence, drills, ticks, blindness, actions."""
    sender, now = Sender(), START
    events: list[Timed] = []
    sent: list[Delivery] = []
    for _ in range(draw(st.integers(1, 25))):
        now += draw(st.sampled_from([0, 1, 500, 5 * S, 10 * S, 11 * S, 60 * S, 600 * S, 7200 * S]))
        match draw(st.integers(0, 12)):
            case 0 | 1 | 2 | 3:
                name, values = draw(st.sampled_from(_READINGS))
                waited = draw(st.sampled_from([0, 0, 0, 3 * S, 90 * S]))
                lane = draw(st.sampled_from(list(Lane)))
                sent.append(sender.send(now, {name: draw(values)}, lane=lane, waited=waited))
                events.append((now, sent[-1]))
            case 4 | 5:
                button = draw(st.sampled_from(["sos-1", "sos-2", "nobody"]))
                sent.append(sender.send(now, signals=[(button, "pressed")]))
                events.append((now, sent[-1]))
            case 6 if sent:
                events.append((now, draw(st.sampled_from(sent))))
            case 7:
                online = draw(st.booleans())
                events.append((now, Presence("agent-1", Status(online=online, connection="c1"))))
            case 8:
                state = draw(st.sampled_from([DeviceState.DRILL, DeviceState.ACTIVE]))
                until = now + 600 * S if state is DeviceState.DRILL else None
                events.append((now, with_state(draw(st.sampled_from(["smoke-1", "sos-1"])), state, until)))
            case 9:
                events.append((now, Blind(now - 3600 * S, now)))
            case 10:
                events.append((now, draw(orders())))
            case _:
                events.append((now, Tick()))
    return events


def play(engine: Engine, events: list[Timed]) -> list[bytes]:
    return [json.encode(engine.feed(event, now)) for now, event in events]


def steps_of(engine: Engine, events: list[Timed]) -> list[Step]:
    return [engine.feed(event, now) for now, event in events]


@given(days())
@settings(deadline=None, max_examples=150)
def test_same_events_same_steps(events: list[Timed]) -> None:
    assert play(new_engine(), events) == play(new_engine(), events)


@given(days(), st.integers(0, 25))
@settings(deadline=None, max_examples=150)
def test_splitting_anywhere_and_restoring_changes_nothing(events: list[Timed], cut: int) -> None:
    whole = play(new_engine(), events)
    engine = new_engine()
    first = play(engine, events[:cut])
    assert first + play(restored(engine), events[cut:]) == whole


@given(days())
@settings(deadline=None, max_examples=100)
def test_a_repeated_delivery_changes_nothing(events: list[Timed]) -> None:
    engine, kept = new_engine(), []
    for now, event in events:
        kept.append(json.encode(engine.feed(event, now)))
        if isinstance(event, Delivery):
            before = json.encode(engine.snapshot())
            assert engine.feed(event, now) == Step(answer="repeat")
            assert json.encode(engine.snapshot()) == before
    assert kept == play(new_engine(), events)


@given(days())
@settings(deadline=None, max_examples=100)
def test_every_press_stands_in_exactly_one_incident(events: list[Timed]) -> None:
    engine = new_engine()
    timelines: dict[str, set[str]] = {}
    presses: set[str] = set()
    in_drill: set[str] = set()
    for now, event in events:
        was = {d.id for d in engine.devices_of("agent-1") if d.state is not DeviceState.ACTIVE}
        step = engine.feed(event, now)
        for incident in step.incidents:
            timelines[incident.id] = {line.event for line in incident.timeline if line.event}
        if isinstance(event, Delivery) and step.answer == "":
            for index, signal in enumerate(event.message.signals):
                id = f"agent-1/spool1/{event.message.lane}/{event.message.seq}/{index}"
                still = {d.id for d in engine.devices_of("agent-1") if d.state is not DeviceState.ACTIVE}
                (in_drill if signal.device in was & still else presses).add(id)
    for press in presses:
        assert sum(press in events for events in timelines.values()) == 1, press


@given(days())
@settings(deadline=None, max_examples=100)
def test_no_command_is_given_twice(events: list[Timed]) -> None:
    first = (START, Sender().send(START, signals=[("sos-1", "pressed")]))
    steps = steps_of(new_engine(), [first, *events])
    assert steps[0].incidents[0].id == _FIRST_PRESS
    given_ids = [effect.id for step in steps for effect in step.effects if isinstance(effect, Command)]
    assert len(given_ids) == len(set(given_ids))


@given(st.permutations(["smoke-1", "smoke-3", "sos-1", "room-1"]))
@settings(deadline=None, max_examples=24)
def test_order_between_unrelated_keys_is_irrelevant(order: list[str]) -> None:
    def run(names: list[str]) -> set[tuple[str, str, str]]:
        engine = new_engine()
        for name in names:
            sender = Sender(spool=f"spool-{name}")
            if name == "sos-1":
                event = sender.send(START, signals=[(name, "pressed")])
            elif name == "room-1":
                event = sender.send(START, {f"{name}:temperature": 90.0})
            else:
                event = sender.send(START, {f"{name}:smoke": True})
            engine.feed(event, START)
        for second in range(1, 600):
            engine.feed(Tick(), START + second * S)
        return {(i.cause, i.key, i.level) for i in engine.snapshot().incidents}

    assert run(order) == run(["smoke-1", "smoke-3", "sos-1", "room-1"])


@given(st.lists(st.integers(1, 40_000), min_size=0, max_size=30))
@settings(deadline=None, max_examples=100)
def test_a_tick_never_loses_a_finding(pauses: list[int]) -> None:
    """However often time is told, or not at all until late, the smoke that persists is found once."""
    engine, sender = new_engine(), Sender()
    engine.feed(sender.send(START, {"smoke-1:smoke": True}), START)
    now, steps = START, []
    for pause in [*pauses, 3_600_000]:
        now += pause
        steps.append(engine.feed(Tick(), now))
    assert [i.cause for s in steps for i in s.incidents if i.revision == 1 and i.cause == "fire"] == ["fire"]


@given(st.sampled_from([-10, 10]).map(lambda years: years * 365 * 86_400_000), days())
@settings(deadline=None, max_examples=60)
def test_a_clock_ten_years_off_changes_no_other_devices_incidents(skew: int, events: list[Timed]) -> None:
    others = [event for event in events if not isinstance(event[1], OperatorAction)]

    def run(skewed: int) -> set[tuple[str, str]]:
        engine = new_engine()
        odd = Sender(source="agent-1", spool="odd", skew=skewed)
        found = set()
        for now, event in others:
            step = engine.feed(odd.send(now, {"room-1:temperature": 21.0}, lane=Lane.TELEMETRY), now)
            found |= {(i.cause, i.key) for i in step.incidents}
            found |= {(i.cause, i.key) for i in engine.feed(event, now).incidents}
        return found

    assert run(skew) == run(0)


def test_the_world_has_every_device_registered() -> None:
    engine = new_engine()
    assert {device.id for device in engine.devices_of("agent-1")} == {device.id for device in DEVICES}


# --- replay is live --------------------------------------------------------------------------------------------------

_PROFILES = {profile.id: profile for profile in real_catalog().profiles.values()}
_WIDE = (
    Device("agent-1", "edge-agent", "agent-1", "gate"),
    *(Device(f"{id}-1", id, "agent-1", "b1-u1-101") for id in sorted(_PROFILES) if id != "edge-agent"),
)


def _values(spec: ReadingSpec) -> st.SearchStrategy[float | bool | str]:
    match spec.type:
        case "boolean":
            return st.booleans()
        case "text":
            return st.sampled_from(spec.values or ("a", "b"))
        case _:
            low, high = spec.low or 0.0, 100.0 if spec.high is None else spec.high
            return st.sampled_from([low, high, *(low + (high - low) * part for part in (0.01, 0.1, 0.3, 0.6))]).map(
                lambda value: float(round(value)) if spec.type == "integer" else value
            )


@st.composite
def wide_days(draw: st.DrawFn) -> list[Timed]:
    """A few devices of all kinds say what they like, and time passes in steps of all sizes."""
    chosen = draw(st.lists(st.sampled_from(_WIDE[1:]), min_size=1, max_size=3, unique_by=lambda device: device.id))
    sender, now = Sender(), START
    events: list[Timed] = []
    for _ in range(draw(st.integers(1, 40))):
        now += draw(st.sampled_from([0, 1, S, 5 * S, 30 * S, 60 * S, 150 * S, 600 * S, 3600 * S, 13 * 3600 * S]))
        device = draw(st.sampled_from(chosen))
        profile = _PROFILES[device.profile]
        match draw(st.integers(0, 9)):
            case 0:
                events.append((now, Blind(now - draw(st.sampled_from([60 * S, 36_000 * S])), now)))
            case 1:
                online = draw(st.booleans())
                connection = draw(st.sampled_from(["c1", "c2"]))
                events.append((now, Presence("agent-1", Status(online=online, connection=connection))))
            case 2 | 3:
                events.append((now, Tick()))
            case 4 if profile.events:
                event = draw(st.sampled_from(sorted(profile.events)))
                events.append((now, sender.send(now, signals=[(device.id, event)])))
            case _ if profile.readings:
                spec = draw(st.sampled_from(sorted(profile.readings.values(), key=lambda spec: spec.id)))
                waited = draw(st.sampled_from([0, 0, 0, 10 * S, 90 * S]))
                readings = {f"{device.id}:{spec.id}": draw(_values(spec))}
                events.append((now, sender.send(now, readings, waited=waited)))
            case _:
                events.append((now, Tick()))
    return events


@given(wide_days(), st.randoms(use_true_random=False), st.integers(0, 40))
@settings(deadline=None, max_examples=250)
def test_whoever_looks_for_deadlines_changes_nothing(events: list[Timed], chance: Random, cut: int) -> None:
    """A replay never asks for deadlines, a gateway does all the time, and a restart may come at any point."""
    replayed = new_engine(_WIDE)
    expected = play(replayed, events)
    live = new_engine(_WIDE)
    found = []
    for index, (now, event) in enumerate(events):
        if chance.random() < 0.5:
            live.next_deadline()
        if index == cut:
            live = restored(live)
        found.append(json.encode(live.feed(event, now)))
        if chance.random() < 0.5:
            live.next_deadline()
    assert found == expected
    assert encode_state(live.snapshot()) == encode_state(replayed.snapshot())


_FAULT_BEHIND_A_DEAD_AGENT: list[Timed] = [
    (START, Presence("agent-1", Status(online=False, connection="c1"))),
    (START, Sender().send(START, {"loop-smoke-1:fault": True}, lane=Lane.ALARM)),
]
"""Its fault holds again and again, each time behind the outage."""


@given(wide_days())
@example(_FAULT_BEHIND_A_DEAD_AGENT)
@settings(deadline=None, max_examples=100)
def test_a_deadline_that_is_due_is_told_in_time(events: list[Timed]) -> None:
    """A tick at each time that the engine asks for finds what one that comes late finds, at the same times."""

    def run(is_asked: bool) -> list[tuple[str, str, str, int, str]]:
        engine = new_engine(_WIDE)
        found: list[tuple[str, str, str, int, str]] = []
        for (now, event), (until, _) in zip(events, [*events[1:], (events[-1][0] + 600 * S, Tick())], strict=True):
            steps = [engine.feed(event, now)]
            last = max(now, until - 1)
            if is_asked:
                while (due := engine.next_deadline()) is not None and due <= last:
                    steps.append(engine.feed(Tick(), due))
                    assert (after := engine.next_deadline()) is None or after > due
            else:
                steps.append(engine.feed(Tick(), last))
            found += [(t.rule, t.key, t.phase, t.at, t.note) for step in steps for t in step.transitions]
        return found

    assert run(is_asked=True) == run(is_asked=False)


# --- quiet bands -----------------------------------------------------------------------------------------------------


def all_asked(events: list[Timed], devices: tuple[Device, ...]) -> list[bytes]:
    """As `play`, but with every rule asked of every value."""
    with pytest.MonkeyPatch.context() as patch:
        add = ReadingCell.add
        patch.setattr(ReadingCell, "add", lambda self, watch, band: add(self, watch, None))
        return play(new_engine(devices), events)


@given(wide_days())
@settings(deadline=None, max_examples=100)
def test_what_quiet_rules_are_not_asked_would_have_changed_nothing(events: list[Timed]) -> None:
    assert play(new_engine(_WIDE), events) == all_asked(events, _WIDE)


@given(st.lists(st.tuples(st.sampled_from([1, 30, 61, 300, 1200, 4000]), st.floats(-12, 12)), min_size=1, max_size=60))
@settings(deadline=None, max_examples=150)
def test_no_rise_and_no_fall_is_missed(walk: list[tuple[int, float]]) -> None:
    sender, now, value = Sender(), START, 20.0
    events: list[Timed] = []
    for pause, step in walk:
        now, value = now + pause * S, max(-39.0, min(79.0, value + step))
        events.append((now, sender.send(now, {"room-1:temperature": value}, lane=Lane.TELEMETRY)))
        events.append((now, Tick()))
    assert play(new_engine(), events) == all_asked(events, DEVICES)
