"""Killed in mid-stream and started again, the gateway holds every press in exactly one incident."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core.model import Device
from gateway.wire import Lane
from tests.acceptance.stage import Agent, Stage, events_of, wait_for
from tests.conftest import StartMosquitto
from tests.core.worlds import DEVICES
from tests.simulators.platform_process import PlatformProcess

PRESSES = 300


def press_through_kills(stage: Stage, agent: Agent, kills: int, seed: int) -> list[str]:
    """Presses and readings without a pause, while the gateway is killed and started again."""
    rng = random.Random(seed)
    stage.start()
    at_kill = sorted(rng.sample(range(20, PRESSES - 20), kills))
    presses = []
    for number in range(PRESSES):
        presses.append(agent.press(rng.choice(["sos-1", "sos-2"])))
        agent.read("room-1:temperature", 20.0 + number % 5)
        time.sleep(rng.random() * 0.01)
        if number in at_kill:
            time.sleep(rng.random() * 0.05)
            stage.kill()
            stage.start()
    agent.wait_settled(30)
    return presses


def assert_once(presses: list[str], stage: Stage) -> None:
    """Each press in exactly one timeline, once; and nothing else was opened for presses."""
    events = events_of(stage.incidents())
    missing = [press for press in presses if press not in events]
    doubled = {press: events[press] for press in presses if len(events.get(press, [])) > 1}
    assert not missing
    assert not doubled


def test_killed_in_mid_stream_every_press_is_found_once(
    stage: Stage, start_agent: Callable[..., Agent], platform: PlatformProcess
) -> None:
    stage.use_platform(platform)
    presses = press_through_kills(stage, start_agent(stage), kills=4, seed=7)
    assert_once(presses, stage)
    wait_delivered(stage, platform)
    stored = [entry["incident"] for entry in platform.get("/incidents")]
    lines = [line["event"] for incident in stored for line in incident["timeline"] if line["event"]]
    assert {press: lines.count(press) for press in presses} == dict.fromkeys(presses, 1)


def test_the_same_on_postgresql(
    tmp_path: Path, start_mosquitto: StartMosquitto, start_agent: Callable[..., Agent], database_url: str
) -> None:
    stage = Stage(tmp_path, start_mosquitto("max_inflight_messages 0"), {"SCG_LEDGER__URL": database_url})
    try:
        stage.register()
        assert_once(press_through_kills(stage, start_agent(stage), kills=2, seed=11), stage)
    finally:
        stage.close()


def test_a_broker_killed_without_persistence_loses_nothing(stage: Stage, start_agent: Callable[..., Agent]) -> None:
    stage.start()
    agent = start_agent(stage)
    presses = []
    for number in range(120):
        presses.append(agent.press())
        time.sleep(0.005)
        if number in (30, 80):
            stage.broker.kill()
            stage.broker.start()
    agent.wait_settled(30)
    assert_once(presses, stage)


@pytest.mark.parametrize("meanwhile", ["cleared before", "cleared after", "never cleared"])
def test_an_hour_stopped_opens_nothing_false(stage: Stage, start_agent: Callable[..., Agent], meanwhile: str) -> None:
    """A lane is occupied (hold 3 min) when the gateway is killed; an hour passes before it starts again."""
    stage.register([*DEVICES, Device("lane-1", "fire-lane-occupancy", "agent-1", "gate")])
    stage.move_clock(speed=10)
    stage.start()
    agent = start_agent(stage)
    agent.read("room-1:temperature", 21.0)
    agent.read("lane-1:occupied", True, Lane.ALARM)
    agent.wait_settled()
    stage.kill()
    if meanwhile == "cleared before":
        agent.read("lane-1:occupied", False, Lane.ALARM)
        for _ in range(50):
            agent.read("room-1:temperature", 21.5)
    stage.move_clock(forward_ms=3_600_000, speed=10)
    stage.start()
    if meanwhile == "cleared after":
        agent.read("lane-1:occupied", False, Lane.ALARM)
    agent.wait_settled()
    wanted = ["fire-lane"] if meanwhile == "never cleared" else []
    over = time.monotonic() + 8  # 80 s on its clock: the minute in which no deadline fires is over
    wait_for(lambda: time.monotonic() > over and len(stage.incidents()) >= len(wanted))
    assert [incident.cause for incident in stage.incidents()] == wanted


def wait_delivered(stage: Stage, platform: PlatformProcess, timeout_s: float = 20) -> None:
    """Until the platform holds the newest revision of every incident."""
    deadline = time.monotonic() + timeout_s
    while True:
        wanted = {i.id: i.revision for i in stage.incidents() if i.sort == "incident"}
        stored = {e["incident"]["id"]: e["revision"] for e in platform.get("/incidents")}
        if wanted == stored:
            return
        assert time.monotonic() < deadline, f"{len(wanted)} in the ledger, {len(stored)} at the platform"
        time.sleep(0.1)
