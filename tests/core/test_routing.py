"""One cause, one incident: storms, silences, flapping, what hangs on what, and what was swallowed by whom."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.core.engine import Engine
from gateway.core.model import (
    Device,
    DeviceState,
    Incident,
    OperatorAction,
    Phase,
    Presence,
    Role,
    Silence,
    SilenceChange,
    Sort,
    Step,
    Tick,
)
from gateway.core.routing import UNROUTED, UNROUTED_STAGES
from gateway.core.state import CommunityState
from gateway.wire import Lane, Status
from tests.core.worlds import (
    COMMUNITY,
    DEVICES,
    START,
    Sender,
    new_engine,
    real_catalog,
    registry,
    restored,
    with_state,
)

S = 1000
M = 60 * S
H = 60 * M
D = 24 * H
POLICY = real_catalog().policy

ROOMS = tuple(Device(f"lane-{n}", "fire-lane-occupancy", "agent-1", "gate") for n in range(60))


def run(engine: Engine, until: int) -> list[Step]:
    steps = []
    while (due := engine.next_deadline()) is not None and due <= until:
        steps.append(engine.feed(Tick(), due))
    return steps


def incidents(steps: list[Step]) -> dict[str, Incident]:
    return {incident.id: incident for step in steps for incident in step.incidents}


def silence(engine: Engine, now: int, **what: object) -> str:
    change = Silence("quiet-1", now + 2 * H, "检修", "property:chen")
    return engine.feed(SilenceChange("s1", "property:chen", replace(change, **what)), now).answer


# --- storms -------------------------------------------------------------------------------------------------


def block_lanes(engine: Engine, sender: Sender, count: int, now: int = START) -> list[Step]:
    """So many fire lanes of one community are blocked within a minute."""
    readings = {f"lane-{n}:occupied": True for n in range(count)}
    return [engine.feed(sender.send(now, readings), now), *run(engine, now + 20 * M)]


def test_too_many_at_once_are_one_storm_with_a_list() -> None:
    engine, sender = new_engine((*DEVICES, *ROOMS)), Sender()
    found = incidents(block_lanes(engine, sender, 60))
    storms = [i for i in found.values() if i.cause == "storm"]
    lanes = [i for i in found.values() if i.cause == "fire-lane"]
    assert len(lanes) == POLICY.storm_incidents
    [storm] = storms
    assert storm.level == "urgent"
    assert storm.due is not None
    assert len(storm.members) == 60 - POLICY.storm_incidents
    assert {member.rule for member in storm.members} == {"fire.lane-blocked"}
    assert not {member.key for member in storm.members} & {lane.key for lane in lanes}
    # Forty findings are a handful of revisions, and the storm is over when nothing more comes.
    assert storm.revision < 10
    calm = incidents(run(engine, START + H))[storm.id]
    assert calm.cleared_at is not None
    assert not calm.joinable


def test_what_lives_hang_on_and_presses_pass_every_storm() -> None:
    engine, sender = new_engine((*DEVICES, *ROOMS)), Sender()
    block_lanes(engine, sender, 60)
    now = START + 20 * M
    steps = [engine.feed(sender.send(now, {"smoke-1:smoke": True}, [("sos-1", "pressed")]), now), *run(engine, now + M)]
    assert {i.cause for i in incidents(steps).values()} >= {"fire", "sos"}


def test_explain_says_which_storm_took_a_finding_in() -> None:
    engine, sender = new_engine((*DEVICES, *ROOMS)), Sender()
    found = incidents(block_lanes(engine, sender, 30))
    [storm] = [i for i in found.values() if i.cause == "storm"]
    noted = {e.note for member in storm.members for e in engine.explain(member.key, START + 20 * M) if e.note}
    assert noted == {"storm"}


# --- silences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what",
    [{"device": "lane-1"}, {"place": "gate"}, {"rule": "fire.lane-blocked"}, {"device": "lane-1", "place": "gate"}],
)
def test_what_is_silenced_opens_nothing_until_the_silence_ends(what: dict[str, object]) -> None:
    engine, sender = new_engine((*DEVICES, *ROOMS)), Sender()
    assert silence(engine, START, **what) == "done"
    steps = [engine.feed(sender.send(START, {"lane-1:occupied": True}), START), *run(engine, START + H)]
    assert not [i for i in incidents(steps).values() if i.cause == "fire-lane"]
    [swallowed] = [t for step in steps for t in step.transitions if t.note == "silenced"]
    assert (swallowed.rule, swallowed.incident) == ("fire.lane-blocked", "quiet-1")
    engine = restored(engine)
    engine.feed(sender.send(START + H, {"lane-1:occupied": True}), START + H)
    after = run(engine, START + 2 * H + M)
    assert [i.cause for i in incidents(after).values() if i.cause == "fire-lane"] == ["fire-lane"]
    assert engine.silences() == []


def test_a_silence_is_taken_back_and_what_fired_under_it_is_judged_anew() -> None:
    engine, sender = new_engine((*DEVICES, *ROOMS)), Sender()
    silence(engine, START, rule="fire.lane-blocked")
    engine.feed(sender.send(START, {"lane-1:occupied": True}), START)
    run(engine, START + 30 * M)
    step = engine.feed(SilenceChange("s2", "property:chen", ended="quiet-1"), START + 30 * M)
    assert step.answer == "done"
    steps = [step, *run(engine, START + H)]
    assert [i.cause for i in incidents(steps).values() if i.cause == "fire-lane"] == ["fire-lane"]
    assert "no silence" in engine.feed(SilenceChange("s3", "property:chen", ended="quiet-1"), START + H).answer
    assert engine.feed(SilenceChange("s2", "property:chen", ended="quiet-1"), START + H).answer == "repeat"


def test_a_press_is_never_silenced() -> None:
    engine, sender = new_engine(), Sender()
    assert silence(engine, START, place="b1") == "done"
    step = engine.feed(sender.send(START + S, signals=[("sos-1", "pressed")]), START + S)
    assert [i.cause for i in step.incidents] == ["sos"]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({}, "the whole community cannot be silenced"),
        ({"device": "nobody"}, "there is no device nobody"),
        ({"place": "nowhere"}, "there is no place nowhere"),
        ({"rule": "no.such"}, "there is no rule no.such"),
        ({"device": "smoke-1", "until": START + 9 * H}, "it ends after 8 h"),
        ({"place": "b1", "until": START + 9 * H}, "it ends after 8 h"),
        ({"rule": "fire.smoke-persists", "until": START + 9 * H}, "it ends after 8 h"),
        ({"device": "room-1", "until": START}, "ends after it begins"),
        ({"device": "room-1", "reason": " "}, "needs a reason"),
        ({"device": "room-1", "kind": "holiday"}, "one of silence, maintenance, away"),
        ({"device": "room-1", "kind": "away"}, "name the household alone"),
    ],
)
def test_what_cannot_be_silenced(what: dict[str, object], expected: str) -> None:
    engine = new_engine()
    assert expected in silence(engine, START, **what)
    assert engine.silences() == []


@pytest.mark.parametrize("what", [{"device": "room-1"}, {"rule": "fire.lane-blocked"}])
def test_what_no_life_hangs_on_may_be_silenced_for_longer(what: dict[str, object]) -> None:
    engine = new_engine()
    assert silence(engine, START, until=START + 3 * D, **what) == "done"


def test_an_elder_who_is_away_is_not_missed() -> None:
    meter = Device("meter-1", "cold-water-meter", "agent-1", "b1-u1-101", attributes={"elder_alone": True})
    asked = []
    for is_away in (False, True):
        engine, sender = new_engine((*DEVICES, meter)), Sender()
        if is_away:
            assert silence(engine, START, kind="away", place="b1-u1-101", until=START + 10 * D) == "done"
        found: dict[str, Incident] = {}
        for hour in range(50):
            now = START + hour * H
            step = engine.feed(sender.send(now, {"meter-1:volume": 12.5}, lane=Lane.TELEMETRY), now)
            found |= incidents([step, *run(engine, now + H - 1)])
        asked.append({i.cause for i in found.values() if i.category == "ext:21-09"})
    assert asked[0] != set()
    assert asked[1] == set()


def test_an_elder_who_is_back_is_missed_only_after_half_a_day_without_water() -> None:
    meter = Device("meter-1", "cold-water-meter", "agent-1", "b1-u1-101", attributes={"elder_alone": True})
    engine, sender = new_engine((*DEVICES, meter)), Sender()
    back = START + 20 * H
    assert silence(engine, START, kind="away", place="b1-u1-101", until=back) == "done"
    found: dict[str, Incident] = {}
    for hour in range(40):
        now = START + hour * H
        step = engine.feed(sender.send(now, {"meter-1:volume": 12.5}, lane=Lane.TELEMETRY), now)
        found |= incidents([step, *run(engine, now + H - 1)])
    [missed] = [incident for incident in found.values() if incident.category == "ext:21-09"]
    assert back + 12 * H <= missed.opened_at <= back + 14 * H


# --- flapping -----------------------------------------------------------------------------------------------


def test_an_agent_that_comes_and_goes_is_one_notice_with_a_count() -> None:
    engine = new_engine()
    engine.feed(Presence("agent-1", Status(online=True, connection="c0")), START)
    steps = []
    for n in range(12):
        now = START + n * 5 * M
        steps.append(engine.feed(Presence("agent-1", Status(online=False, connection=f"c{n}")), now))
        steps += run(engine, now + 3 * M)
        steps.append(engine.feed(Presence("agent-1", Status(online=True, connection=f"c{n + 1}")), now + 4 * M))
    [flapping] = [i for i in incidents(steps).values() if i.cause == "agent-offline"]
    assert flapping.state == "reported"
    came_back = [line.what for line in flapping.timeline].count("reopen")
    assert came_back == POLICY.flap_times - 1
    settled = incidents(run(engine, START + 3 * H))[flapping.id]
    assert (settled.state, settled.flaps) == ("closed", 11)
    assert settled.timeline[-1].why == f"the condition is over; it came and went {settled.flaps} times"
    assert any(line.what == "flapping" for line in settled.timeline)


GAS = Device("gas-1", "household-gas", "agent-1", "b1-u1-101")


def set_valve(engine: Engine, sender: Sender, now: int, word: str) -> list[Step]:
    """The valve is so for two minutes."""
    return [
        engine.feed(sender.send(now, {"gas-1:valve": word}, lane=Lane.TELEMETRY), now),
        *run(engine, now + 2 * M),
    ]


def test_a_notice_whose_condition_comes_back_is_the_same_and_after_the_flapping_window_another() -> None:
    engine, sender = new_engine((*DEVICES, GAS)), Sender()
    steps: list[Step] = []
    for number in range(3):
        steps += set_valve(engine, sender, START + number * 30 * M, "fault")
        steps += set_valve(engine, sender, START + number * 30 * M + 5 * M, "open")
        engine = restored(engine)
    [notice] = [i for i in incidents(steps).values() if i.cause == "valve-fault"]
    assert (notice.state, notice.signals, notice.flaps) == ("closed", 3, 2)
    assert [line.what for line in notice.timeline].count("reopen") == 2
    over = START + 65 * M
    [again] = [
        i
        for i in incidents(set_valve(engine, sender, over + POLICY.flap_window, "fault")).values()
        if i.cause == "valve-fault"
    ]
    assert again.id != notice.id


def test_a_notice_that_somebody_has_closed_stays_closed() -> None:
    engine, sender = new_engine((*DEVICES, GAS)), Sender()
    [notice] = [i for i in incidents(set_valve(engine, sender, START, "fault")).values() if i.cause == "valve-fault"]
    act = OperatorAction("a1", "property:chen", notice.id, "close", "换阀", Role.PROPERTY_MANAGER)
    assert engine.feed(act, START + 3 * M).answer == "done"
    set_valve(engine, sender, START + 5 * M, "open")
    [again] = [
        i for i in incidents(set_valve(engine, sender, START + 10 * M, "fault")).values() if i.cause == "valve-fault"
    ]
    assert again.id != notice.id


# --- while a source is out of reach -------------------------------------------------------------------------


FIRE_DOOR = Device("door-1", "door-magnet", "agent-1", "b1-u1", attributes={"fire_door": True})


def meet(engine: Engine, now: int, connection: str, *, online: bool) -> Step:
    return engine.feed(Presence("agent-1", Status(online=online, connection=connection)), now)


def test_a_notice_waits_while_nobody_can_know_and_its_hold_begins_anew() -> None:
    engine, sender = new_engine((*DEVICES, FIRE_DOOR)), Sender()
    meet(engine, START, "c1", online=True)
    engine.feed(sender.send(START + M, {"door-1:open": True}, lane=Lane.TELEMETRY), START + M)
    meet(engine, START + 2 * M, "c1", online=False)
    assert {i.cause for i in incidents(run(engine, START + H)).values()} == {"agent-offline"}
    meet(engine, START + H, "c2", online=True)
    assert "fire-door" not in {i.cause for i in incidents(run(engine, START + 80 * M)).values()}
    heard = START + 90 * M
    engine.feed(sender.send(heard, {"door-1:open": True}, lane=Lane.TELEMETRY), heard)
    [told] = [i for i in incidents(run(engine, heard + 10 * M)).values() if i.cause == "fire-door"]
    assert told.opened_at == heard + 5 * M


def test_a_fire_is_told_of_though_its_agent_is_gone_before_the_hold_is_over() -> None:
    engine, sender = new_engine(), Sender()
    meet(engine, START, "c1", online=True)
    engine.feed(sender.send(START + M, {"smoke-1:smoke": True}), START + M)
    meet(engine, START + M + 2 * S, "c1", online=False)
    assert "fire" in {i.cause for i in incidents(run(engine, START + 2 * M)).values()}


def test_a_detector_that_is_faulty_is_told_of_while_its_agent_comes_and_goes() -> None:
    engine, sender = new_engine(), Sender()
    steps = []
    for number in range(7):
        now = START + number * 6 * M
        steps += [meet(engine, now, f"c{number}", online=True), *run(engine, now + 5 * M)]
        steps += [meet(engine, now + 5 * M, f"c{number}", online=False)]
    now = START + 42 * M
    meet(engine, now, "c7", online=True)
    assert "agent-flapping" in {i.cause for i in incidents(steps).values()}
    engine.feed(sender.send(now + M, {"smoke-1:fault": True}, lane=Lane.TELEMETRY), now + M)
    assert "device-down" in {i.cause for i in incidents(run(engine, now + 3 * M)).values()}


# --- what hangs on what -------------------------------------------------------------------------------------


PANEL = Device("panel-1", "user-transmission-device", "agent-1", "gate")
BEHIND = tuple(Device(f"pm-{n}", "pm-station", "agent-1", "gate", attributes={"panel": "panel-1"}) for n in range(200))


def test_devices_behind_a_panel_that_is_out_stand_under_it() -> None:
    engine, sender = new_engine((*DEVICES, PANEL, *BEHIND)), Sender()
    engine.feed(sender.send(START, {"panel-1:connected": True}, lane=Lane.TELEMETRY), START)
    found = incidents(run(engine, START + 12 * H))
    about_panel = [i for i in found.values() if "panel-1" in i.devices]
    assert not [i for i in found.values() if any(device.startswith("pm-") for device in i.devices)]
    [notice] = about_panel
    assert notice.sort is Sort.NOTICE
    assert {member.key for member in notice.members} == {device.id for device in BEHIND}
    assert {member.why for member in notice.members} == {"silent since panel-1 is"}
    assert notice.revision < 60


def test_a_device_is_told_of_when_what_it_hangs_on_is_there() -> None:
    engine, sender = new_engine((*DEVICES, PANEL, BEHIND[0])), Sender()
    steps: list[Step] = []
    for minute in range(0, 180, 5):
        now = START + minute * M
        steps.append(engine.feed(sender.send(now, {"panel-1:connected": True}, lane=Lane.TELEMETRY), now))
        steps += run(engine, now + 5 * M - 1)
    told = [i for i in incidents(steps).values() if "pm-0" in i.devices]
    assert [i.cause for i in told] == ["device-down"]
    assert told[0].opened_at <= START + H + 20 * M
    assert engine.phase("ops.device-offline", "pm-0") is Phase.FIRING


@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed-by-hand"])
def test_what_hangs_on_a_panel_that_is_back_has_one_heartbeat_to_be_heard(is_closed: bool) -> None:
    engine, sender = new_engine((*DEVICES, PANEL, *BEHIND[:2])), Sender()
    readings = {"panel-1:connected": True, "pm-0:pm25": 20.0, "pm-1:pm25": 20.0}
    steps = [engine.feed(sender.send(START, readings, lane=Lane.TELEMETRY), START), *run(engine, START + 5 * H - S)]
    [outage] = [i for i in incidents(steps).values() if i.devices == ("panel-1",)]
    if is_closed:
        act = OperatorAction("a1", "property:chen", outage.id, "close", "已报修", Role.PROPERTY_MANAGER)
        assert engine.feed(act, START + 5 * H - S).answer == "done"
    for minute in range(0, 120, 5):
        now = START + 5 * H + minute * M
        readings = {"panel-1:connected": True} | ({"pm-0:pm25": 20.0} if minute >= 50 else {})
        steps.append(engine.feed(sender.send(now, readings, lane=Lane.TELEMETRY), now))
        steps += run(engine, now + 5 * M - 1)
    about = {i.devices: i for i in incidents(steps).values() if i.devices[0] in ("pm-0", "pm-1")}
    assert set(about) == {("pm-1",)}, "only what stays silent is told of"
    assert START + 6 * H <= about["pm-1",].opened_at <= START + 7 * H


# --- with routing switched off ------------------------------------------------------------------------------


def test_without_routing_every_finding_is_counted_and_nothing_is_opened() -> None:
    engine = Engine(real_catalog(), CommunityState(COMMUNITY), UNROUTED_STAGES)
    engine.feed(registry((*DEVICES, *ROOMS)), START)
    engine.feed(with_state("smoke-2", DeviceState.DRILL), START)
    sender = Sender()
    steps = block_lanes(engine, sender, 60)
    now = START + 21 * M
    smokes = {"smoke-1:smoke": True, "smoke-2:smoke": True, "smoke-3:smoke": True}
    steps += [engine.feed(sender.send(now, smokes), now), *run(engine, now + M)]
    found = [t for step in steps for t in step.transitions if t.phase is Phase.FIRING and t.note == UNROUTED]
    assert len([t for t in found if t.rule == "fire.lane-blocked"]) == 60, "no storm"
    assert len([t for t in found if t.rule == "fire.smoke-persists"]) == 3, "no drill, no joining"
    assert incidents(steps) == {}
