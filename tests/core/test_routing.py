"""One cause, one incident: storms, silences, flapping, what hangs on what, and what was swallowed by whom."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.core.engine import Engine
from gateway.core.model import (
    Device,
    Incident,
    Phase,
    Presence,
    Silence,
    SilenceChange,
    Sort,
    Step,
    Tick,
)
from gateway.wire import Lane, Status
from tests.core.worlds import DEVICES, START, Sender, new_engine, real_catalog, restored

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
    found = [i for i in incidents(steps).values() if i.cause == "agent-offline"]
    assert len(found) == POLICY.flap_times
    flapping = max(found, key=lambda i: i.opened_at)
    assert [i.state for i in found if i is not flapping] == ["closed"] * (POLICY.flap_times - 1)
    assert flapping.state == "reported"
    settled = incidents(run(engine, START + 3 * H))[flapping.id]
    assert (settled.state, settled.flaps) == ("closed", 12 - POLICY.flap_times)
    assert settled.timeline[-1].why == f"the condition is over; it came and went {settled.flaps} times"
    assert any(line.what == "flapping" for line in settled.timeline)


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
