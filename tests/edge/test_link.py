"""The link to a gateway that misses messages: no alarm is given up for it, and none holds the others up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import paho.mqtt.subscribe as subscribe
import pytest

from edge import link
from gateway.wire import Lane, Message, Receipt, StatusFrom, decode, topic_of
from tests.acceptance.stage import Stage
from tests.conftest import StartMosquitto
from tests.edge.agents import AgentHouse, until
from tests.edge.spools import Gateway
from tests.ports.tcp_line import TcpLine
from tests.simulators.fake_gateway import FakeGateway, fake_gateway


class Ear:
    """The gateway's own cursor over what the test lets it hear."""

    def __init__(self) -> None:
        self.gateway = Gateway()
        self.misses: Callable[[Message], bool] = lambda message: False

    def hear(self, message: Message) -> list[Receipt]:
        return [] if self.misses(message) else [self.gateway.take(message)]


class Town:
    """One agent in the test's process, the gateway that it talks to over a real broker, and the line between them."""

    def __init__(self, house: AgentHouse, gateway: FakeGateway, line: TcpLine, stage: Stage) -> None:
        self.house = house
        self.gateway = gateway
        self.line = line
        self.ear = Ear()
        self._stage = stage
        gateway.on_message = self.ear.hear

    async def press(self, *buttons: str) -> list[str]:
        return list(await asyncio.gather(*(self.house.wall.press(button) for button in buttons)))

    def count(self, seq: int) -> int:
        """How often this alarm came to the gateway's door."""
        return self.gateway.seqs(Lane.ALARM).count(seq)

    async def parked(self) -> int:
        """What the agent's status says, as it stands at the broker."""
        topic = topic_of("c001", "agent-1", "status")
        broker = self._stage.broker
        said = await asyncio.to_thread(subscribe.simple, topic, hostname=broker.host, port=broker.port)
        found = decode(topic, said.payload)
        assert isinstance(found, StatusFrom)
        return found.status.parked

    async def wait_parked(self, count: int) -> None:
        async with asyncio.timeout(10):
            while await self.parked() != count:  # noqa: ASYNC110 - the status comes every second
                await asyncio.sleep(0.1)


@pytest.fixture
async def town(tmp_path: Path, start_mosquitto: StartMosquitto) -> AsyncIterator[Town]:
    stage = Stage(tmp_path, start_mosquitto("max_inflight_messages 0\nset_tcp_nodelay true"))
    async with TcpLine(stage.broker.port) as line, fake_gateway(stage.broker.url, "c001") as gateway:
        house = AgentHouse(stage, tmp_path / "agent")
        section = house.config.link.model_copy(update={"url": line.url})
        house.config = house.config.model_copy(update={"link": section})
        await house.start()
        try:
            await until(lambda: house.is_hearing)
            yield Town(house, gateway, line, stage)
        finally:
            await house.stop()


def hasten(monkeypatch: pytest.MonkeyPatch, first_s: float, most_s: float) -> None:
    """Alarms are sent again sooner than in life, and put aside sooner."""
    monkeypatch.setattr(link, "PARK_AFTER", 5)
    monkeypatch.setitem(link.RESEND_S, Lane.ALARM, first_s)
    monkeypatch.setattr(link, "RESEND_MOST_S", most_s)


async def test_sends_that_no_gateway_could_hear_count_for_nothing(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch, 0.02, 0.02)
    await town.gateway.say_listening(False)
    town.ear.misses = lambda message: True
    old = await town.press("sos-1")
    await until(lambda: town.count(1) > 2 * link.PARK_AFTER)
    # The gateway comes in the middle of a long pause, and hears a press of its own time first.
    monkeypatch.setattr(link, "RESEND_MOST_S", 1.0)
    await asyncio.sleep(0.1)
    town.ear.misses = lambda message: False
    new = await town.press("sos-2")
    await until(lambda: town.ear.gateway.pressed)
    await town.gateway.say_listening()
    await town.house.wait_settled()
    assert set(town.ear.gateway.events) == {*old, *new}
    assert await town.parked() == 0


async def begin_gateway(town: Town) -> None:
    await town.gateway.say_listening(False)
    await town.gateway.say_listening()


async def begin_link(town: Town) -> None:
    await town.line.cut()
    await town.line.mend()


async def begin_agent(town: Town) -> None:
    await town.house.stop()
    await town.house.start()


@pytest.mark.parametrize("begin", [begin_gateway, begin_link, begin_agent])
async def test_what_a_gateway_passes_over_is_put_aside_told_and_tried_again(
    town: Town, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Town], Awaitable[None]]
) -> None:
    hasten(monkeypatch, 0.02, 0.02)
    town.ear.misses = lambda message: message.seq == 2
    events = await town.press("sos-1")
    events += await town.press("sos-2")
    events += await town.press("sos-3")
    await until(lambda: len(town.ear.gateway.events) == 2)
    await town.wait_parked(1)
    count = town.count(2)
    events += await town.press("sos-4")
    await until(lambda: len(town.ear.gateway.events) == 3)
    assert town.gateway.copies[-1].floor == 2, "what is put aside is held"
    assert town.count(2) == count
    town.ear.misses = lambda message: False
    await begin(town)
    await town.house.wait_settled()
    assert sorted(town.ear.gateway.events) == events
    await town.wait_parked(0)


async def test_no_gap_grows_until_the_gateway_closes_it(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch, 0.3, 60.0)
    town.ear.misses = lambda message: message.seq == 1 and town.count(1) < 4
    await town.press("sos-0")
    events = await town.press(*(f"sos-{number}" for number in range(1, 300)))
    await town.house.wait_settled()
    assert town.count(1) == 4
    assert set(town.ear.gateway.events) >= set(events)
    assert len(town.ear.gateway.events) == 300
    assert town.ear.gateway.lost == 0


async def test_one_that_never_comes_through_gives_up_its_number_and_is_told_under_another(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasten(monkeypatch, 0.3, 0.3)
    town.ear.misses = lambda message: message.seq == 1
    await town.press("sos-0")
    await town.press(*(f"sos-{number}" for number in range(1, 300)))
    await until(lambda: len(town.ear.gateway.events) == 299)
    await town.wait_parked(1)
    assert town.ear.gateway.lost == 1
    town.ear.misses = lambda message: False
    await begin_gateway(town)
    await town.press("sos-300")
    await town.house.wait_settled()
    assert sorted(town.ear.gateway.pressed) == sorted(f"sos-{number}" for number in range(301))
    assert len({message.spool for message in town.gateway.copies}) == 1


@pytest.mark.parametrize("by_s", [86_400, -86_400])
async def test_a_clock_that_is_set_makes_no_live_alarm_late(
    town: Town, monkeypatch: pytest.MonkeyPatch, by_s: int
) -> None:
    await town.line.cut()
    await town.press("sos-1")
    ahead = SimpleNamespace(time_ns=lambda: time.time_ns() + by_s * 10**9, monotonic_ns=time.monotonic_ns)
    monkeypatch.setattr("gateway.runtime.clock.time", ahead)
    await town.line.mend()
    await town.house.wait_settled()
    [message] = town.ear.gateway.taken
    assert 0 <= message.sent_at - message.taken_at < 20_000
