"""The agent between a bus and a real gateway: nothing lost, lamps lit, commands obeyed, fires judged alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import paho.mqtt.publish as publish
import pytest

from edge import link
from edge.ports import Lamp, Outcome
from gateway.wire import CommandMessage, Lane, encode_command, topic_of
from tests.acceptance.stage import Stage, events_of
from tests.conftest import StartMosquitto
from tests.edge.agents import BUS_DEVICES, AgentHouse, AgentProcess, until
from tests.edge.test_outage import count_received
from tests.ports.tcp_line import TcpLine

MakeHouse = Callable[..., AgentHouse]


@pytest.fixture
def stage(tmp_path: Path, start_mosquitto: StartMosquitto) -> Iterator[Stage]:
    with closing(Stage(tmp_path, start_mosquitto("max_inflight_messages 0"))) as made:
        made.register(devices=BUS_DEVICES)
        yield made


@pytest.fixture
async def make_house(stage: Stage, tmp_path: Path) -> AsyncIterator[MakeHouse]:
    houses: list[AgentHouse] = []

    def make(**options: object) -> AgentHouse:
        houses.append(AgentHouse(stage, tmp_path / "agent", **options))
        return houses[-1]

    yield make
    for house in houses:
        await house.stop()


def assert_once(presses: list[str], stage: Stage) -> None:
    events = events_of(stage.incidents())
    assert {press: len(events.get(press, [])) for press in presses} == dict.fromkeys(presses, 1)


async def test_a_press_is_an_incident_and_its_lamp_is_lit(stage: Stage, make_house: MakeHouse) -> None:
    stage.start()
    house = make_house()
    wall = await house.start()
    await house.wait_linked()
    press = await wall.press()
    await wall.read("room-1", "temperature", 21.5)
    await house.wait_settled()
    assert_once([press], stage)
    await until(lambda: wall.lamps == [("sos-1", Lamp.RECORDED)])


async def test_nothing_is_lost_while_gateway_agent_and_broker_come_and_go(stage: Stage, make_house: MakeHouse) -> None:
    stage.start()
    house = make_house()
    wall = await house.start()
    await house.wait_linked()
    presses = []
    for number in range(90):
        presses.append(await wall.press(("sos-1", "sos-2")[number % 2]))
        await wall.read("room-1", "temperature", 20.0 + number % 3)
        await asyncio.sleep(0.01)
        match number:
            case 15:
                await asyncio.to_thread(stage.kill)
            case 30:
                await asyncio.to_thread(stage.start)
            case 45:
                stage.broker.kill()
            case 55:
                await asyncio.to_thread(stage.broker.start)
            case 70:
                await house.stop()
                wall = await house.start()
    await house.wait_settled()
    assert_once(list(dict.fromkeys(presses)), stage)


async def test_a_command_is_done_once_and_its_outcome_told(stage: Stage, make_house: MakeHouse) -> None:
    stage.start()
    house = make_house()
    wall = await house.start()
    await house.wait_linked()
    await wall.press()
    await house.wait_settled()  # The receipt tells the gateway's time.

    def command(id: str, device: str, name: str, expires_in: int = 60_000, **args: object) -> None:
        message = CommandMessage(id, device, name, args, stage.now() + expires_in)
        topic = topic_of("c001", "agent-1", "command")
        publish.single(topic, encode_command(message), 1, hostname=stage.broker.host, port=stage.broker.port)

    def told() -> dict[str, tuple[str, str]]:
        import sqlite3

        with closing(sqlite3.connect(house.config.data / "orders.db")) as db:
            return {row[0]: (row[1], row[2]) for row in db.execute("SELECT id, outcome, detail FROM acted WHERE told")}

    for _ in range(3):
        command("one", "speaker-1", "broadcast", text="请撤离")
    command("two", "speaker-1", "dance")
    command("three", "nobody", "broadcast", text="a")
    command("four", "speaker-1", "broadcast", text=5)
    command("five", "speaker-1", "broadcast", expires_in=-1_000, text="太迟了")
    await until(lambda: set(told()) == {"one", "two", "three", "four", "five"})
    outcomes = told()
    assert outcomes["one"] == ("done", "as asked")
    assert outcomes["two"] == ("refused", "ip-speaker has no command dance")
    assert outcomes["three"][0] == "refused"
    assert outcomes["four"] == ("refused", "the argument text is wrong-type")
    assert outcomes["five"][0] == "expired"
    assert [order.id for order in wall.orders] == ["one"]
    wall.answer = Outcome("failed", "the amplifier is off")
    command("six", "speaker-1", "broadcast", text="b")
    await until(lambda: told().get("six") == ("failed", "the amplifier is off"))
    await house.stop()
    wall = await house.start()
    await house.wait_linked()
    command("one", "speaker-1", "broadcast", text="请撤离")
    command("seven", "speaker-1", "broadcast", text="c")
    await until(lambda: "seven" in told())
    assert [order.id for order in wall.orders] == ["seven"]


async def test_a_fire_is_answered_while_nobody_hears_and_is_one_incident_after(
    stage: Stage, make_house: MakeHouse
) -> None:
    stage.move_clock(speed=10)
    stage.start()
    house = make_house()
    wall = await house.start()
    await house.wait_linked()
    await asyncio.to_thread(stage.kill)
    await until(lambda: not house.is_hearing)
    await wall.read("smoke-1", "smoke", True)
    await until(lambda: [order.device.id for order in wall.orders] == ["speaker-1"])
    await asyncio.to_thread(stage.start)
    await house.wait_linked()
    await house.wait_settled()

    def fires() -> list[list[str]]:
        return [[line.what for line in i.timeline] for i in stage.incidents() if i.cause == "fire"]

    await until(lambda: fires() and "answered" in fires()[0])
    assert len(fires()) == 1
    assert len(wall.orders) == 1
    [fire] = [incident for incident in stage.incidents() if incident.cause == "fire"]
    [answered] = [line for line in fire.timeline if line.what == "answered"]
    assert "by the agent itself" in answered.why


def told_for(stage: Stage, cause: str) -> int:
    """How many answers of the agent's own stand in the timelines of a cause."""
    lines = [line for incident in stage.incidents() if incident.cause == cause for line in incident.timeline]
    return sum(line.what == "answered" and "by the agent itself" in line.why for line in lines)


@pytest.mark.parametrize("is_known", [False, True], ids=["before the loss is noticed", "after"])
async def test_alarms_in_a_dead_line_are_answered_by_the_agent_itself(
    stage: Stage, make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    monkeypatch.setattr(link, "DEAF_AFTER_S", 1.5)
    monkeypatch.setitem(link.RESEND_S, Lane.ALARM, 0.3)
    stage.move_clock(speed=10)
    stage.start()
    async with TcpLine(stage.broker.port) as line:
        house = make_house()
        section = house.config.link.model_copy(update={"url": line.url})
        house.config = house.config.model_copy(update={"link": section})
        wall = await house.start()
        await house.wait_linked()
        await wall.read("gas-1", "gas", 0.0)
        await house.wait_settled()

        def orders() -> list[tuple[str, str]]:
            return sorted((order.device.id, order.name) for order in wall.orders)

        line.hold()
        if is_known:
            await wall.press("sos-2")
            await until(lambda: not house.is_hearing)
        # A call point is a fire at once; of gas the rule wants five seconds, so that time brings the command.
        await wall.read("gas-1", "gas", 60.0)
        await wall.press("mcp-1")
        assert house.is_hearing is not is_known
        await until(lambda: len(wall.orders) == 3)
        assert orders() == [("gas-1", "close_valve"), ("speaker-1", "broadcast"), ("speaker-1", "broadcast")]
        # The gateway comes to the same incidents, and nothing is done again.
        await line.cut()
        await line.mend()
        await house.wait_linked()
        await house.wait_settled()
        await until(lambda: (told_for(stage, "gas-leak"), told_for(stage, "fire")) == (2, 1))
        assert sorted(i.cause for i in stage.incidents() if i.cause in ("fire", "gas-leak")) == ["fire", "gas-leak"]
        assert len(wall.orders) == 3


async def test_what_the_gateway_has_receipted_is_its_own_to_answer(stage: Stage, make_house: MakeHouse) -> None:
    stage.start()
    house = make_house()
    wall = await house.start()
    await house.wait_linked()
    await wall.press("mcp-1")
    await house.wait_settled()
    await until(lambda: wall.orders)
    await asyncio.to_thread(stage.kill)
    await until(lambda: not house.is_hearing)
    assert house.agent is not None
    assert house.agent._kept == []
    assert [(order.device.id, order.name) for order in wall.orders] == [("speaker-1", "broadcast")]
    assert told_for(stage, "fire") == 0


def notices(stage: Stage) -> dict[str, tuple[str, ...]]:
    """The notices that are open, by their rules, and what is under each."""
    return {
        i.rule: tuple(member.key for member in i.members)
        for i in stage.incidents()
        if i.sort == "notice" and i.state != "closed"
    }


async def test_an_agent_that_is_killed_is_one_notice_with_its_devices_under_it(stage: Stage, tmp_path: Path) -> None:
    stage.move_clock(speed=200)
    stage.start()
    with closing(AgentProcess(stage, tmp_path / "agent")) as agent:
        await agent.start()
        for device in ("speaker-1", "speaker-2"):
            await agent.post(device, fault=False)
        await until(lambda: count_received(stage).keys() >= {"speaker-1:fault", "speaker-2:fault"})
        agent.kill()
        # The speakers report every five minutes; their quarter of an hour is over in five seconds.
        await until(lambda: {"speaker-1", "speaker-2"} <= set(notices(stage).get("ops.agent-offline", ())), 30)
        assert set(notices(stage)) == {"ops.agent-offline"}
        await agent.start()
        await until(lambda: "ops.agent-offline" not in notices(stage), 30)


async def test_a_gateway_that_was_stopped_for_an_hour_opens_nothing_false(stage: Stage, make_house: MakeHouse) -> None:
    speed, minute_ms = 20, 60_000
    stage.move_clock(speed=speed)
    stage.start()
    house = make_house()
    # The hour is made by the gateway's clock alone: the agent must not tell how far its own is off.
    house.config = house.config.model_copy(update={"status_s": 3600.0})
    wall = await house.start()
    await house.wait_linked()

    async def report() -> None:
        for device in ("speaker-1", "speaker-2"):
            await wall.read(device, "fault", False)
        await wall.read("smoke-1", "smoke", False)
        await wall.read("room-1", "temperature", 21.0)

    await report()
    await house.wait_settled()
    await asyncio.to_thread(stage.stop)
    press = await wall.press()
    await report()
    stage.move_clock(60 * minute_ms, speed=speed)
    await asyncio.to_thread(stage.start)
    began = stage.now()
    await house.wait_linked()
    # No deadline fires for a minute; then the speakers, who may be silent for a quarter of an hour, would be due if the
    # hour in which nobody heard were held against them.
    while stage.now() < began + 3 * minute_ms:
        await report()
        await asyncio.sleep(0.5)
    await house.wait_settled()
    assert [i.rule for i in stage.incidents() if i.sort == "notice"] == []
    assert_once([press], stage)
