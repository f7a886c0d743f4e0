"""What the engine does with one event after another, on the real profiles and rules."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.core.engine import UNKNOWN_LIMIT, Engine
from gateway.core.incident import PRESS_JOIN_MS, PRESS_SIGNALS
from gateway.core.model import (
    Blind,
    Command,
    Deliver,
    Device,
    DeviceState,
    Incident,
    OperatorAction,
    Override,
    Phase,
    Presence,
    Press,
    Refusal,
    RegistryChange,
    Sort,
    Source,
    Step,
    Tick,
)
from gateway.core.registry import SPOOLS_LIMIT
from gateway.wire import BadRecord, Lane, Status
from tests.core.worlds import DEVICES, START, Sender, new_engine, restored, with_state

S = 1000
M = 60 * S
H = 60 * M


def opened(step: Step) -> list[Incident]:
    return [incident for incident in step.incidents if incident.revision == 1]


def test_a_press_opens_one_critical_incident_at_once() -> None:
    engine, sender = new_engine(), Sender()
    step = engine.feed(sender.send(START + S, signals=[("sos-1", "pressed")]), START + S)
    [incident] = opened(step)
    assert incident.level == "critical"
    assert incident.place == "b1-u1-101"
    assert incident.grid == "370215001001001"
    assert incident.timeline[0].event == "agent-1/spool1/alarm/1/0"
    assert [effect.id for effect in step.effects if isinstance(effect, Deliver)] == [f"{incident.id}/1"]
    assert step.cursor is not None
    assert step.cursor.contiguous == 1


def test_presses_join_for_ten_minutes_and_then_open_a_linked_one() -> None:
    engine, sender = new_engine(), Sender()
    first = opened(engine.feed(sender.send(START, signals=[("sos-1", "pressed")]), START))[0]
    step = engine.feed(sender.send(START + 5 * M, signals=[("sos-1", "pressed")]), START + 5 * M)
    [joined] = step.incidents
    assert joined.id == first.id
    assert joined.signals == 2
    later = START + PRESS_JOIN_MS + 1
    step = engine.feed(sender.send(later, signals=[("sos-1", "pressed")]), later)
    [second] = opened(step)
    assert second.id != first.id
    assert second.linked == first.id
    assert [i.joinable for i in step.incidents if i.id == first.id] == [False]


def test_a_press_after_a_handler_came_opens_a_new_one() -> None:
    engine, sender = new_engine(), Sender()
    first = opened(engine.feed(sender.send(START, signals=[("sos-1", "pressed")]), START))[0]
    for number, verb in enumerate(("accept", "dispatch", "arrive")):
        step = engine.feed(OperatorAction(f"a{number}", "zhang", first.id, verb), START + S * (number + 1))
        assert step.answer == "done"
    [second] = opened(engine.feed(sender.send(START + 10 * S, signals=[("sos-1", "pressed")]), START + 10 * S))
    assert second.linked == first.id


def test_a_persons_acceptance_lights_the_second_lamp_at_the_button() -> None:
    engine, sender = new_engine(), Sender()
    [incident] = opened(engine.feed(sender.send(START, signals=[("sos-1", "pressed")]), START))
    step = engine.feed(OperatorAction("a1", "zhang", incident.id, "accept"), START + S)
    [lamp] = [effect for effect in step.effects if isinstance(effect, Command)]
    assert (lamp.device, lamp.name, lamp.args, lamp.incident) == ("sos-1", "lamp", {"show": "coming"}, incident.id)
    again = engine.feed(OperatorAction("a1", "zhang", incident.id, "accept"), START + 2 * S)
    assert not again.effects


def test_a_second_press_never_cancels_and_other_buttons_have_their_own() -> None:
    engine, sender = new_engine(), Sender()
    step = engine.feed(sender.send(START, signals=[("sos-1", "pressed"), ("sos-2", "pressed")]), START)
    assert len(opened(step)) == 2
    step = engine.feed(sender.send(START + S, signals=[("sos-1", "pressed")]), START + S)
    assert [incident.state for incident in step.incidents] == ["reported"]


def test_a_press_that_no_active_rule_looks_at_still_opens_one() -> None:
    engine, sender = new_engine(), Sender()
    for rule in engine.catalog.rules:
        if rule.cause == "sos":
            engine.feed(Override("test", rule.id, "retired", "trying"), START)
    [incident] = opened(engine.feed(sender.send(START + S, signals=[("sos-1", "pressed")]), START + S))
    assert incident.rule == ""
    assert incident.level == "critical"


def test_an_alarm_of_an_unknown_device_opens_at_its_source() -> None:
    engine, sender = new_engine(), Sender()
    step = engine.feed(sender.send(START, signals=[("nobody-9", "pressed")]), START)
    [incident] = opened(step)
    assert incident.place == "gate"
    assert [rejected.reason for rejected in step.rejected] == ["unknown-device"]
    step = engine.feed(sender.send(START + S, {"nobody-9:temperature": 20.0}, lane=Lane.TELEMETRY), START + S)
    assert not step.incidents


@pytest.mark.parametrize(
    ("readings", "signals", "bad", "where"),
    [
        ({}, [("sos-1", "prest")], (), "b1-u1-101"),
        ({"smoke-1:smoek": True}, [], (), "b1-u1-101"),
        ({}, [], (BadRecord("", "not-an-event", "events[0] is no object"),), "gate"),
    ],
    ids=["an event that its profile has not", "a reading that its profile has not", "an event that cannot be made out"],
)
def test_an_alarm_that_nobody_understands_is_somebodys_case(
    readings: dict[str, float], signals: list[tuple[str, str]], bad: tuple[BadRecord, ...], where: str
) -> None:
    def send(lane: Lane) -> Step:
        engine, sender = new_engine(), Sender()
        delivery = sender.send(START, readings, signals, lane)
        return engine.feed(replace(delivery, message=replace(delivery.message, bad=bad)), START)

    step = send(Lane.ALARM)
    [incident] = opened(step)
    assert (incident.cause, incident.place, incident.level) == ("refused", where, "critical")
    assert len(step.rejected) == 1
    assert not send(Lane.TELEMETRY).incidents


def test_a_source_that_invents_devices_opens_a_few_incidents_and_loses_no_press() -> None:
    engine, sender = new_engine(), Sender()
    steps = [engine.feed(sender.send(START, signals=[(f"made-up-{n}", "pressed")]), START) for n in range(30)]
    incidents = {incident.id: incident for step in steps for incident in step.incidents}
    assert len(incidents) == UNKNOWN_LIMIT + 1
    lines = [line.event for incident in incidents.values() for line in incident.timeline if line.event]
    assert sorted(lines) == sorted(f"agent-1/spool1/alarm/{n}/0" for n in range(1, 31))


def test_a_stuck_button_fills_one_incident_after_the_other_and_loses_no_press() -> None:
    engine, sender = new_engine(), Sender()
    count = PRESS_SIGNALS + 20
    steps = [engine.feed(sender.send(START + n, signals=[("sos-1", "pressed")]), START + n) for n in range(count)]
    incidents = {incident.id: incident for step in steps for incident in step.incidents}
    assert [incident.signals for incident in incidents.values()] == [PRESS_SIGNALS, 20]
    lines = [line.event for incident in incidents.values() for line in incident.timeline if line.event]
    assert len(lines) == len(set(lines)) == count


def test_a_source_that_makes_a_new_spool_each_time_is_refused_in_the_end() -> None:
    engine = new_engine()
    presses = [Sender(spool=f"spool-{n}").send(START, signals=[("sos-1", "pressed")]) for n in range(SPOOLS_LIMIT + 1)]
    answers = [engine.feed(press, START).answer for press in presses]
    assert answers == [""] * SPOOLS_LIMIT + ["too-many-spools"]
    refused = engine.feed(Refusal("agent-1", f"spool-{SPOOLS_LIMIT}", "alarm", 1, "too-many-spools"), START)
    assert [incident.cause for incident in opened(refused)] == ["refused"]
    assert refused.cursor is None
    assert engine.feed(presses[0], START).answer == "repeat"


def test_smoke_that_persists_opens_once_and_speaks() -> None:
    engine, sender = new_engine(), Sender()
    at = START
    assert engine.feed(sender.send(at, {"smoke-1:smoke": True}), at).transitions[0].phase is Phase.PENDING
    deadline = engine.next_deadline()
    assert deadline == at + 10 * S
    assert not engine.feed(Tick(), deadline - 1).incidents
    step = engine.feed(Tick(), deadline)
    [incident] = opened(step)
    assert incident.cause == "fire"
    assert incident.place == "b1"
    commands = [effect for effect in step.effects if isinstance(effect, Command)]
    assert [command.device for command in commands] == ["speaker-1"]
    again = engine.feed(sender.send(at + 20 * S, {"smoke-2:smoke": True}), at + 20 * S)
    assert not again.incidents
    step = engine.feed(Tick(), at + 30 * S)
    [joined] = step.incidents
    assert joined.id == incident.id
    assert set(joined.devices) == {"smoke-1", "smoke-2"}
    step = engine.feed(sender.send(at + 40 * S, {"smoke-3:smoke": True}), at + 40 * S)
    [other] = opened(engine.feed(Tick(), at + 50 * S))
    assert other.place == "b2"


def test_a_fire_that_two_detectors_found_is_not_found_again_by_an_older_reading_of_one_of_them() -> None:
    engine = new_engine()
    engine.feed(RegistryChange("test", devices=(Device("heat-1", "heat-detector", "agent-1", "b1"),)), START)
    sender = Sender()
    at = START + M
    engine.feed(sender.send(at, {"smoke-1:smoke": True}), at)
    assert opened(engine.feed(sender.send(at + S, {"heat-1:temperature": 50.0}), at + S))
    engine.feed(sender.send(at + 30 * S, {"smoke-1:smoke": False, "heat-1:temperature": 30.0}), at + 30 * S)
    engine.feed(Tick(), at + 11 * M)
    assert engine.phase("fire.smoke-and-heat", "b1") is Phase.QUIET
    # It lay at its source since a time at which there had been smoke within ten minutes.
    lying = sender.send(at + 11 * M, {"heat-1:temperature": 48.0}, waited=2 * M)
    for each in (restored(engine), engine):
        assert not each.feed(lying, at + 11 * M).incidents
        assert each.phase("fire.smoke-and-heat", "b1") is Phase.QUIET


def test_a_puff_opens_nothing() -> None:
    engine, sender = new_engine(), Sender()
    engine.feed(sender.send(START, {"smoke-1:smoke": True}), START)
    engine.feed(sender.send(START + 5 * S, {"smoke-1:smoke": False}), START + 5 * S)
    for minute in range(1, 10):
        assert not engine.feed(Tick(), START + minute * M).incidents


def test_a_value_that_is_not_believed_never_becomes_normal() -> None:
    engine, sender = new_engine(), Sender()
    engine.feed(sender.send(START, {"smoke-1:smoke": True}), START)
    step = engine.feed(sender.send(START + S, {"smoke-1:smoke": 7.0, "smoke-1:battery": 240.0}), START + S)
    assert [(r.reading, r.reason) for r in step.rejected] == [("smoke", "wrong-type"), ("battery", "out-of-range")]
    assert opened(engine.feed(Tick(), START + 10 * S))


def test_a_repeat_changes_nothing_and_another_content_is_a_conflict() -> None:
    engine, sender = new_engine(), Sender()
    delivery = sender.send(START, signals=[("sos-1", "pressed")])
    engine.feed(delivery, START)
    before = engine.snapshot()
    again = engine.feed(delivery, START + S)
    assert again.answer == "repeat"
    assert not again.incidents
    sender.seq[Lane.ALARM] = 0
    other = sender.send(START + 2 * S, signals=[("sos-2", "pressed")])
    changed = replace(other, message=replace(other.message, digest=999))
    assert engine.feed(changed, START + 2 * S).answer == "conflict"
    assert engine.snapshot().incidents == before.incidents


def test_a_gap_is_a_counted_loss_once_the_source_lets_it_go() -> None:
    engine, sender = new_engine(), Sender()
    engine.feed(sender.send(START, signals=[("sos-1", "pressed")]), START)
    sender.seq[Lane.ALARM] = 4
    step = engine.feed(sender.send(START + S, signals=[("sos-1", "pressed")]), START + S)
    assert step.cursor is not None
    assert (step.cursor.contiguous, step.cursor.above, step.cursor.lost) == (1, (5,), 0)
    delivery = sender.send(START + 2 * S, signals=[("sos-1", "pressed")])
    step = engine.feed(replace(delivery, message=replace(delivery.message, floor=5)), START + 2 * S)
    assert step.cursor is not None
    assert (step.cursor.contiguous, step.cursor.above, step.cursor.lost) == (6, (), 3)


def test_a_refused_message_is_passed_and_an_operator_looks() -> None:
    engine = new_engine()
    step = engine.feed(Refusal("agent-1", "spool1", "alarm", 1, "commit-refused"), START)
    assert [incident.cause for incident in opened(step)] == ["refused"]
    assert step.cursor is not None
    assert step.cursor.contiguous == 1
    assert not engine.feed(Refusal("agent-1", "spool1", "telemetry", 1, "commit-refused"), START).incidents


def test_what_is_late_opens_only_when_it_is_grave_and_answers_nothing() -> None:
    engine, sender = new_engine(), Sender()
    late = sender.send(START + H, signals=[("sos-1", "pressed")], waited=H)
    step = engine.feed(late, START + H)
    [incident] = opened(step)
    assert incident.late
    assert not [effect for effect in step.effects if isinstance(effect, Command)]


@pytest.mark.parametrize("state", [DeviceState.DRILL, DeviceState.COMMISSIONING, DeviceState.MAINTENANCE])
def test_a_device_that_does_not_count_shows_and_opens_nothing(state: DeviceState) -> None:
    engine, sender = new_engine(), Sender()
    engine.feed(with_state("sos-1", state, START + 30 * M), START)
    step = engine.feed(sender.send(START + S, signals=[("sos-1", "pressed")]), START + S)
    assert not step.incidents
    assert [transition.note for transition in step.transitions] == [str(state)]
    engine.feed(Tick(), START + 30 * M)
    assert opened(engine.feed(sender.send(START + 31 * M, signals=[("sos-1", "pressed")]), START + 31 * M))


def test_smoke_that_outlasts_a_drill_is_real() -> None:
    engine, sender = new_engine(), Sender()
    engine.feed(with_state("smoke-1", DeviceState.DRILL, START + 30 * M), START)
    engine.feed(sender.send(START + S, {"smoke-1:smoke": True}), START + S)
    quiet = engine.feed(Tick(), START + 20 * M)
    assert "fire" not in {incident.cause for incident in quiet.incidents}
    steps = [engine.feed(Tick(), START + 30 * M), engine.feed(Tick(), START + 31 * M)]
    assert [i.cause for step in steps for i in opened(step)] == ["fire"]


def test_a_drill_of_many_devices_is_over_for_all_of_them_at_once() -> None:
    engine = new_engine()
    for device in ("smoke-1", "smoke-2", "sos-1"):
        engine.feed(with_state(device, DeviceState.DRILL, START + 30 * M), START)
    step = engine.feed(Tick(), START + 30 * M)
    assert [(device.id, device.state) for device in step.devices] == [
        ("smoke-1", DeviceState.ACTIVE),
        ("smoke-2", DeviceState.ACTIVE),
        ("sos-1", DeviceState.ACTIVE),
    ]


def test_a_dead_agent_is_one_notice_that_takes_its_devices_in() -> None:
    engine = new_engine()
    engine.feed(Presence("agent-1", Status(online=True, connection="c1")), START)
    engine.feed(Presence("agent-1", Status(online=False, connection="c1")), START + M)
    steps = [engine.feed(Tick(), START + minute * M) for minute in range(2, 60 * 30)]
    notices = {i.id: i for step in steps for i in step.incidents}
    assert [(n.sort, n.cause) for n in notices.values()] == [(Sort.NOTICE, "agent-offline")]
    [notice] = notices.values()
    assert {"smoke-1", "room-1"} <= {member.key for member in notice.members}
    back = START + 30 * H
    step = engine.feed(Presence("agent-1", Status(online=True, connection="c2")), back)
    late_will = engine.feed(Presence("agent-1", Status(online=False, connection="c1")), back + S)
    assert late_will.answer == "stale-death"
    steps = [step, *(engine.feed(Tick(), back + minute * M) for minute in range(1, 15))]
    assert [(i.id, i.state) for step in steps for i in step.incidents] == [(notice.id, "closed")]


def test_a_gateway_that_was_stopped_for_an_hour_opens_nothing_false() -> None:
    engine, sender = new_engine(), Sender()
    engine.feed(Presence("agent-1", Status(online=True, connection="c1")), START)
    engine.feed(sender.send(START + S, {"smoke-1:smoke": True, "room-1:temperature": 20.0}), START + S)
    engine = restored(engine)
    back = START + H
    assert not engine.feed(Blind(START + 2 * S, back), back).incidents
    assert not engine.feed(Tick(), back + S).incidents
    cleared = sender.send(back + 2 * S, {"smoke-1:smoke": False}, waited=H - 5 * S)
    assert not engine.feed(cleared, back + 2 * S).incidents
    # The speakers' heartbeat is 15 minutes: they are excused for the hour and one heartbeat more.
    for minute in range(2, 30):
        assert not engine.feed(Tick(), back + minute * M).incidents
    assert {i.cause for i in engine.feed(Tick(), back + 31 * M).incidents} == {"device-down"}


def test_a_spool_that_is_drained_message_by_message_makes_nobody_silent() -> None:
    engine, sender = new_engine(), Sender()
    speakers = {"speaker-1:fault": False, "speaker-2:fault": False}
    engine.feed(Presence("agent-1", Status(online=True, connection="c1")), START)
    engine.feed(sender.send(START, speakers, lane=Lane.TELEMETRY), START)
    engine.feed(Presence("agent-1", Status(online=False, connection="c1")), START + M)
    back = START + 40 * M
    steps = [engine.feed(Tick(), back - S), engine.feed(Presence("agent-1", Status(True, "c2")), back)]
    # The second speaker has died on the way.
    for number, minute in enumerate(range(5, 40, 5)):
        now = back + number * 300
        readings = {"speaker-1:fault": False} | ({"speaker-2:fault": False} if minute < 12 else {})
        waited = now - START - minute * M
        steps.append(engine.feed(sender.send(now, readings, lane=Lane.TELEMETRY, waited=waited), now))
        steps.append(engine.feed(Tick(), now + 200))
    for minute in range(1, 40):
        now = back + minute * M
        steps.append(engine.feed(Tick(), now - S))
        if minute % 5 == 0:
            steps.append(engine.feed(sender.send(now, {"speaker-1:fault": False}, lane=Lane.TELEMETRY), now))
    [told] = [i for step in steps for i in opened(step) if i.cause == "device-down"]
    assert told.devices == ("speaker-2",)
    assert back + 15 * M <= told.opened_at <= back + 30 * M


@pytest.mark.parametrize(("seconds", "causes"), [(5, []), (15, ["fire"])])
def test_a_hold_in_a_spool_is_measured_by_the_readings_and_not_by_how_fast_they_come(
    seconds: int, causes: list[str]
) -> None:
    engine, sender = new_engine(), Sender()
    now = START + 10 * M
    steps = [
        engine.feed(sender.send(now, {"smoke-1:smoke": True}, waited=8 * M), now),
        engine.feed(Tick(), now + 2 * S),
        engine.feed(
            sender.send(now + 3 * S, {"smoke-1:smoke": False}, waited=8 * M + 3 * S - seconds * S), now + 3 * S
        ),
        engine.feed(Tick(), now + M),
    ]
    assert [i.cause for step in steps for i in opened(step) if i.sort is Sort.INCIDENT] == causes


def test_smoke_that_is_the_last_thing_in_a_spool_is_a_fire_when_no_more_comes() -> None:
    engine, sender = new_engine(), Sender()
    now = START + 10 * M
    engine.feed(sender.send(now, {"smoke-1:smoke": True}, waited=8 * M), now)
    assert not opened(engine.feed(Tick(), now + 5 * S))
    engine = restored(engine)
    assert [i.cause for i in opened(engine.feed(Tick(), now + 10 * S))] == ["fire"]


def test_what_waited_at_the_broker_is_as_old_as_it_waited() -> None:
    engine, sender = new_engine(), Sender(skew=-7 * 365 * 24 * H)
    engine.feed(sender.send(START, {"smoke-1:smoke": False}), START)
    kept = [
        sender.send(START + 5 * M, {"smoke-1:smoke": True}),
        sender.send(START + 5 * M + 20 * S, {"smoke-1:smoke": True}),
        sender.send(START + 6 * M, {"smoke-2:smoke": True}),
        sender.send(START + 6 * M + 5 * S, {"smoke-2:smoke": False}),
        sender.send(START + 11 * M, {"smoke-1:smoke": False}),
        sender.send(START + 12 * M, signals=[("sos-1", "pressed")]),
    ]
    engine = restored(engine)
    back = START + 30 * M
    engine.feed(Blind(START + M, back, "stopped"), back)
    steps = [engine.feed(delivery, back + number) for number, delivery in enumerate(kept)]
    found = [incident for step in steps for incident in opened(step)]
    assert [(i.cause, i.devices, i.late) for i in found] == [("fire", ("smoke-1",), True), ("sos", ("sos-1",), True)]
    assert not [effect for step in steps for effect in step.effects if isinstance(effect, Command)]


def test_what_is_live_after_a_blindness_is_never_older_than_it() -> None:
    """Somebody has set the source's clock back by a year meanwhile."""
    engine, sender = new_engine(), Sender()
    engine.feed(sender.send(START, {"smoke-1:smoke": False}), START)
    since, back = START + M, START + 5 * M
    engine.feed(Blind(since, back, "stopped"), back)
    sender.skew = -365 * 24 * H
    step = engine.feed(sender.send(back + S, signals=[("sos-1", "pressed")]), back + S)
    assert [(t.note, t.at >= since) for t in step.transitions] == [("opened", True)]
    live = back + 2 * M
    step = engine.feed(sender.send(live, signals=[("sos-2", "pressed")]), live)
    assert [t.at for t in step.transitions] == [live]


def test_a_clock_that_has_jumped_makes_nothing_late() -> None:
    engine, sender = new_engine(), Sender()
    engine.feed(sender.send(START, {"smoke-1:smoke": False}), START)
    back = START + 10 * H
    engine.feed(Blind(START + M, back, "the clock jumped", has_jumped=True), back)
    sender.skew = -10 * H
    step = engine.feed(sender.send(back + S, signals=[("sos-1", "pressed")]), back + S)
    assert [(i.cause, i.late) for i in opened(step)] == [("sos", False)]


def test_a_registry_change_is_taken_whole_or_refused_with_its_reason() -> None:
    engine = new_engine()
    step = engine.feed(
        RegistryChange("test", devices=(DEVICES[1], DEVICES[0].__class__("x", "no-such", "agent-1", "b1"))), START
    )
    assert "no-such" in step.answer
    assert not step.devices
    assert not engine.has_device("x")


def test_what_a_device_sent_before_it_was_registered_is_judged_then() -> None:
    engine, sender = new_engine([d for d in DEVICES if d.id != "smoke-1"]), Sender()
    engine.feed(sender.send(START, {"smoke-1:smoke": True}, lane=Lane.TELEMETRY), START)
    engine.feed(RegistryChange("test", devices=tuple(d for d in DEVICES if d.id == "smoke-1")), START + 5 * S)
    steps = [engine.feed(Tick(), START + 10 * S), engine.feed(Tick(), START + 20 * S)]
    assert [i.cause for step in steps for i in opened(step)] == ["fire"]


def test_a_press_from_a_page_takes_the_same_way_and_counts_once() -> None:
    engine = new_engine()
    assert opened(engine.feed(Press("page-1", "sos-1"), START))
    again = engine.feed(Press("page-1", "sos-1"), START + S)
    assert again.answer == "repeat"
    assert not again.incidents


def test_a_press_of_a_kind_that_the_device_has_not_is_told_so() -> None:
    engine = new_engine()
    assert engine.feed(Press("page-1", "sos-1", "prest"), START) == Step(answer="unknown-event")
    assert engine.feed(Press("page-1", "sos-1"), START).answer == "done"


def test_an_override_is_a_ceiling_and_shadow_to_active_opens_what_fires() -> None:
    engine, sender = new_engine(), Sender()
    engine.feed(Override("li", "fire.smoke-persists", "shadow", "trying"), START)
    engine.feed(sender.send(START, {"smoke-1:smoke": True}), START)
    step = engine.feed(Tick(), START + 10 * S)
    assert not step.incidents
    assert [t.note for t in step.transitions] == ["shadow"]
    engine.feed(Override("li", "fire.smoke-persists", None, "good"), START + M)
    steps = [engine.feed(Tick(), START + 2 * M)]
    assert [i.cause for step in steps for i in opened(step)] == ["fire"]


def test_explain_names_the_leaf_that_did_not_hold() -> None:
    engine, sender = new_engine(), Sender()
    engine.feed(sender.send(START, {"smoke-1:smoke": False}), START)
    explained = {e.rule: e for e in engine.explain("smoke-1", START)}
    smoke = explained["fire.smoke-persists"]
    assert smoke.truth is False
    assert [(text, truth) for _, text, truth, _ in smoke.leaves] == [("smoke is true", False)]


def test_what_was_refused_is_a_repeat_when_it_comes_again() -> None:
    engine, sender = new_engine(), Sender()
    delivery = sender.send(START, signals=[("sos-1", "pressed")])
    engine.feed(Refusal("agent-1", "spool1", "alarm", 1, "commit-refused", digest=delivery.message.digest), START)
    assert engine.feed(delivery, START + S).answer == "repeat"


# --- presses from pages -------------------------------------------------------------------------------------

PAGE = Device("page-1", "resident-page", "pages", "b1-u1")
PAGED = RegistryChange("test", sources=(Source("pages", "c001"),), devices=(PAGE,))


def page_engine() -> Engine:
    engine = new_engine()
    assert engine.feed(PAGED, START).answer == "done"
    return engine


def test_a_call_from_a_page_is_a_press_and_says_what_kind_of_help_is_needed() -> None:
    engine = page_engine()
    [case] = opened(engine.feed(Press("p1", "page-1", data={"need": "medical"}), START + S))
    assert (case.cause, case.level, case.rule, case.place) == ("sos", "critical", "sos.button-pressed", "b1-u1")
    assert case.timeline[0].why.endswith("; need medical")
    # Whatever else it says, somebody pressed; and what it says beyond the few words stands nowhere.
    step = engine.feed(Press("p2", "page-1", data={"need": "13800000000"}), START + 2 * S)
    assert [i.signals for i in step.incidents] == [2]
    assert "13800000000" not in step.incidents[0].timeline[-1].why
    assert [r.reason for r in step.rejected] == ["out-of-range"]


def test_a_press_over_its_pages_limit_joins_the_open_case_however_old_and_opens_one_where_none_is() -> None:
    engine = page_engine()
    [case] = opened(engine.feed(Press("p1", "page-1", joins_open=True), START))
    late = START + 3 * H
    step = engine.feed(Press("p2", "page-1", joins_open=True), late)
    [joined] = [i for i in step.incidents if i.cause == "sos"]
    assert joined.id == case.id
    assert (joined.timeline[-1].what, joined.timeline[-1].event) == ("joined", "p2")
    # An ordinary press at that time is a case of its own, linked to the old one.
    again = opened(engine.feed(Press("p3", "page-1"), late + S))
    assert [i.linked for i in again if i.cause == "sos"] == [case.id]


def test_a_press_over_its_pages_limit_joins_also_while_somebody_is_there_but_never_what_is_done() -> None:
    engine = page_engine()
    [case] = opened(engine.feed(Press("p1", "page-1"), START))
    for verb in ("accept", "arrive"):
        assert engine.feed(OperatorAction(verb, "li", case.id, verb), START + S).answer == "done"
    step = engine.feed(Press("p2", "page-1", joins_open=True), START + M)
    assert [(i.id, i.state, i.signals) for i in step.incidents] == [(case.id, "handling", 2)]
    assert engine.feed(OperatorAction("r", "li", case.id, "resolve", "已送医"), START + 2 * M).answer == "done"
    assert opened(restored(engine).feed(Press("p3", "page-1", joins_open=True), START + 3 * M))


def test_a_case_of_very_many_presses_takes_no_more_in_also_over_the_limit() -> None:
    engine = page_engine()
    found = [opened(engine.feed(Press(f"p{n}", "page-1", joins_open=True), START + n * S)) for n in range(201)]
    assert [len(new) for new in found] == [1, *[0] * 199, 1]
