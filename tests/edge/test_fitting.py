"""What no message can hold: made to fit by itself, and taken with all that was said beside it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge.fitting import TEXT_MOST, make_fit
from edge.ports import NotTaken, Report
from edge.spool import Entry, Unfit
from gateway.wire import Lane, Measurement, Signal
from tests.acceptance.stage import Stage
from tests.edge.agents import AgentHouse
from tests.edge.spools import T0, at_gateway
from tests.servers import Mosquitto

LONG = "x" * 1000
NAME = "sos-1"
PRESS = Signal(NAME, "pressed")


def test_what_fits_stays_as_it_is() -> None:
    entry = Entry(Lane.TELEMETRY, T0, (PRESS,), (Measurement("room-1:temperature", 21.5),))
    assert make_fit(entry) == [entry]


def test_a_press_loses_its_data_and_takes_nothing_with_it() -> None:
    entry = Entry(
        Lane.ALARM,
        T0,
        (Signal(NAME, "pressed", {"note": LONG}), PRESS),
        (Measurement("smoke-1:smoke", True), Measurement("smoke-1:note", LONG), Measurement("smoke-1:text", "\ud800")),
    )
    parts = make_fit(entry)
    assert [part.signals for part in parts[:2]] == [(PRESS,), (PRESS,)]
    assert [part.measurements for part in parts[2:]] == [
        (Measurement("smoke-1:smoke", True),),
        (Measurement("smoke-1:note", LONG[:TEXT_MOST]),),
        (Measurement("smoke-1:text", "?"),),
    ]
    assert {part.lane for part in parts} == {Lane.ALARM}


def test_what_does_not_fit_even_then_is_left_out_of_telemetry_and_refused_as_an_alarm() -> None:
    hopeless, fine = Measurement(f"room-1:{LONG}", 1.0), Measurement("room-1:temperature", 21.5)
    assert [part.measurements for part in make_fit(Entry(Lane.TELEMETRY, T0, (), (hopeless, fine)))] == [(fine,)]
    with pytest.raises(Unfit):
        make_fit(Entry(Lane.ALARM, T0, (), (hopeless, fine)))


async def test_an_agent_takes_the_press_beside_what_does_not_fit(mosquitto: Mosquitto, tmp_path: Path) -> None:
    house = AgentHouse(Stage(tmp_path, mosquitto), tmp_path / "agent")
    wall = await house.start()
    try:
        assert wall.desk is not None
        assert house.agent is not None
        ids = await wall.desk.take(
            Report(NAME, (Signal(NAME, "pressed", {"note": LONG}),), (Measurement("room-1:note", LONG),)),
            Report("room-1", (), (Measurement("room-1:temperature", 21.5),)),
        )
        assert [id.split("/")[2:] for id in ids] == [["alarm", "1", "0"]]
        keeper = house.agent._keeper
        [stored] = await keeper.call(keeper.spool.waiting, Lane.ALARM)
        assert at_gateway(stored).signals == (PRESS,)
        async with asyncio.timeout(5):
            while not (packs := await keeper.call(keeper.spool.waiting, Lane.TELEMETRY)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert [m.name for pack in packs for m in pack.measurements] == ["room-1:note", "room-1:temperature"]
        with pytest.raises(NotTaken):
            await wall.desk.take(Report("x", (Signal("x" * 1000, "pressed"),)))
        assert await keeper.call(keeper.spool.depth, Lane.ALARM) == 1
    finally:
        await house.stop()
