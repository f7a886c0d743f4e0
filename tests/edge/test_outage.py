"""The network is pulled for ten hours and given back: no alarm lost, thinned readings counted, no press delayed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from edge.config import SpoolSection
from gateway.adapters.ledger import open_ledger
from gateway.wire import Lane, Message, decode, topic_of
from tests.acceptance.stage import Stage, events_of
from tests.conftest import StartMosquitto
from tests.edge.agents import BUS_DEVICES, AgentHouse, until
from tests.ports.tcp_line import TcpLine

SPEED = 3_600
"""Ten hours in ten seconds."""

HOURS_S = 10.0
STATION = "room-1"


@pytest.fixture
def stage(tmp_path: Path, start_mosquitto: StartMosquitto) -> Stage:
    made = Stage(tmp_path, start_mosquitto("max_inflight_messages 0"))
    made.register(devices=BUS_DEVICES)
    made.move_clock(speed=SPEED)
    return made


def count_received(stage: Stage) -> Counter[str]:
    """Readings of the alarm and the telemetry lane in the journal, by name."""
    ledger = open_ledger(stage.ledger_url)
    found: Counter[str] = Counter()
    for row in ledger.read_journal("c001", 0):
        if row.kind == "delivery":
            message = decode(topic_of("c001", row.source, row.lane), row.body)
            assert isinstance(message, Message)
            found.update(measured.name for measured in message.measurements)
    ledger.close()
    return found


async def test_ten_hours_without_a_network(stage: Stage, tmp_path: Path) -> None:
    async with TcpLine(stage.broker.port) as line:
        house = AgentHouse(stage, tmp_path / "agent", keepalive_s=5, drain_per_s=50)
        link = house.config.link.model_copy(update={"url": line.url})
        spool = SpoolSection(max_mb=2, alarm_reserve_mb=1, pack_s=0.2)
        house.config = house.config.model_copy(update={"link": link, "spool": spool, "status_s": 3600.0})
        stage.start()
        wall = await house.start()
        try:
            await house.wait_linked()
            usual = [await measure_press(house) for _ in range(10)]

            line.hold()
            presses, taken, smokes = [], 0, 0
            until_then = time.monotonic() + HOURS_S
            while time.monotonic() < until_then:
                presses.append(await wall.press("sos-2"))
                for _ in range(5):
                    await wall.read("smoke-3", "smoke", False)
                    smokes += 1
                await asyncio.gather(*(wall.read(STATION, "temperature", 20.0 + n % 7 / 10) for n in range(1_500)))
                taken += 1_500
            assert house.agent is not None
            keeper = house.agent._keeper
            backlog = await keeper.call(keeper.spool.describe, Lane.TELEMETRY)
            assert backlog.dropped > 0, f"{taken} readings found room: nothing was thinned"

            await line.cut()
            await line.mend()
            await until(lambda: house.is_hearing, 30)
            during = [await measure_press(house)]
            while await keeper.call(keeper.spool.depth, Lane.TELEMETRY) > 5:
                during.append(await measure_press(house))
            assert len(during) > 5, "it drained too fast to tell"
            await house.wait_settled()

            state = await keeper.call(keeper.spool.describe, Lane.TELEMETRY)
            alarms = await keeper.call(keeper.spool.describe, Lane.ALARM)
            await until(lambda: told_dropped(stage) == state.dropped)
        finally:
            await house.stop()
            stage.close()
    events = events_of(stage.incidents())
    assert {press: len(events.get(press, [])) for press in presses} == dict.fromkeys(presses, 1)
    received = count_received(stage)
    # The same alarm again within a second is one with it, and counted.
    repeated = alarms.repeats - (len(presses) - len(set(presses)))
    assert received["smoke-3:smoke"] + repeated == smokes
    # What was under way when the line was pulled may have arrived, and been dropped here all the same.
    missing = taken - received[f"{STATION}:temperature"]
    assert state.dropped - state.dropped_sent <= missing <= state.dropped
    assert max(during) < max(usual) + 1.0, f"usually {max(usual):.3f} s, during the drain {max(during):.3f} s"


async def measure_press(house: AgentHouse) -> float:
    """Real seconds from a press to its receipt."""
    lamps = len(house.wall.lamps)
    started = time.monotonic()
    await house.wall.press("sos-1")
    await until(lambda: len(house.wall.lamps) > lamps)
    return time.monotonic() - started


def told_dropped(stage: Stage) -> int:
    """What the gateway knows of it."""
    ledger = open_ledger(stage.ledger_url)
    try:
        return next((view.status.dropped for view in ledger.sources() if view.source == "agent-1"), -1)
    finally:
        ledger.close()
