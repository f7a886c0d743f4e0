"""The fire alarm driver at a transmission device that speaks real TCP and checks answers byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from edge.drivers.gb26875 import Gb26875Driver, Settings
from edge.ports import Carried, Order, Outcome, Report
from gateway.errors import GatewayError
from gateway.wire import Measurement, Signal
from tests.edge.desk import ListDesk, shipped
from tests.edge.test_gb26875_frames import ANSWER, INSPECTED, POWER, SMOKE, up
from tests.servers import free_port

PROFILES = shipped().profiles
HEARTBEAT = up("00 00 02 AA 23 23", "23 3A 09 1A 09 0C")


def carry(id: str, profile: str, address: str) -> Carried:
    return Carried(id, PROFILES[profile], "fire", address, "b1")


DEVICES = (
    carry("panel-1", "user-transmission-device", "889"),
    carry("smoke-1", "loop-smoke", "889/1/10.2"),
    carry("point-1", "manual-call-point", "889/1/10.3"),
    carry("heat-1", "heat-detector", "889/1/10.4"),
)


def component(place: int, condition: int, kind: int = 40, serial: int = 1) -> bytes:
    """A component's state, as the smoke of the standard's example."""
    raw = bytearray(SMOKE)
    raw[2] = serial
    raw[31], raw[34], raw[36] = kind, place, condition
    return seal(raw)


def seal(raw: bytearray) -> bytes:
    raw[-3] = sum(raw[2:-3]) & 0xFF
    return bytes(raw)


def reports_of(desk: ListDesk, device: str) -> list[Report]:
    return [report for report in desk.reports if report.device == device]


class Device:
    """A transmission device: it sends bytes, and keeps what it is answered, cut into frames by their length alone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def hear(self) -> bytes:
        async with asyncio.timeout(5):
            head = await self._reader.readexactly(27)
            assert head[:2] == b"@@"
            rest = await self._reader.readexactly(int.from_bytes(head[24:26], "little") + 3)
        raw = head + rest
        assert raw[-2:] == b"##"
        assert raw[-3] == sum(raw[2:-3]) & 0xFF
        return raw

    async def ask(self, data: bytes) -> tuple[int, int]:
        """Command and serial of the answer, whose addresses must be ours exchanged."""
        self.send(data)
        raw = await self.hear()
        assert (raw[12:18], raw[18:24]) == (data[18:24], data[12:18])
        return raw[26], int.from_bytes(raw[2:4], "little")


@asynccontextmanager
async def running(
    desk: ListDesk, **changes: object
) -> AsyncIterator[tuple[Gb26875Driver, Callable[[], Awaitable[Device]]]]:
    settings = Settings.model_validate({"driver": "gb26875", "bus": "fire", "port": free_port()} | changes)
    driver = Gb26875Driver(settings)
    task = asyncio.create_task(driver.run(desk))
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> Device:
        for _ in range(200):
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
                writers.append(writer)
                return Device(reader, writer)
            await asyncio.sleep(0.01)
        raise AssertionError("it does not listen")

    try:
        yield driver, connect
        assert not task.done(), task
    finally:
        for writer in writers:
            writer.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_fire_is_acknowledged_when_it_is_on_the_disk() -> None:
    desk = ListDesk("fire", *DEVICES)
    async with running(desk) as (_, connect):
        device = await connect()
        assert await device.ask(SMOKE) == (3, 1)
        assert desk.values("smoke-1") == {"smoke": True, "fault": False, "shielded": False}
        assert await device.ask(component(3, 0b11, 23, 2)) == (3, 2)
        assert desk.signals("point-1") == [Signal("point-1", "pressed")]
        assert await device.ask(POWER.replace(b"@@\x01", b"@@\x03", 1)[:-3] + b"\x44##") == (3, 3)
        assert desk.values("panel-1")["main_power_fault"] is True


async def test_what_cannot_be_stored_is_refused_and_taken_when_it_comes_again() -> None:
    desk = ListDesk("fire", *DEVICES)
    desk.full = True
    async with running(desk) as (_, connect):
        device = await connect()
        assert await device.ask(SMOKE) == (6, 1)
        assert "cannot be stored" in desk.troubles["889"]
        desk.full = False
        assert await device.ask(SMOKE) == (3, 1)
        assert len(reports_of(desk, "smoke-1")) == 1
        # The acknowledgement was lost: acknowledged again, and not taken twice.
        assert await device.ask(SMOKE) == (3, 1)
        assert len(reports_of(desk, "smoke-1")) == 1
        assert "889" not in desk.troubles


async def test_a_frame_that_cannot_be_read_is_refused_each_time() -> None:
    desk = ListDesk("fire", *DEVICES)
    two_of_one = bytearray(SMOKE)
    two_of_one[28] = 2
    async with running(desk) as (_, connect):
        device = await connect()
        assert await device.ask(seal(two_of_one)) == (6, 1)
        assert await device.ask(seal(two_of_one)) == (6, 1)
    assert reports_of(desk, "smoke-1") == []


async def test_a_frame_is_not_acknowledged_because_it_is_on_its_way_to_the_disk() -> None:
    desk = ListDesk("fire", *DEVICES)
    async with running(desk) as (_, connect):
        first, second = await connect(), await connect()
        for device in (first, second):
            assert await device.ask(HEARTBEAT) == (3, 1)
        desk.disk.clear()
        first.send(SMOKE)
        second.send(SMOKE)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(second.hear(), 0.2)
        desk.full = True
        desk.disk.set()
        assert [(await device.hear())[26] for device in (first, second)] == [6, 6]
        desk.full = False
        assert await second.ask(SMOKE) == (3, 1)
        assert await first.ask(SMOKE) == (3, 1)
    assert len(reports_of(desk, "smoke-1")) == 1


async def test_glued_torn_and_damaged_frames_and_heartbeats() -> None:
    desk = ListDesk("fire", *DEVICES)
    async with running(desk) as (_, connect):
        device = await connect()
        assert await device.ask(HEARTBEAT) == (3, 1)
        stream = b"noise" + component(2, 0b11, serial=5) + INSPECTED + component(2, 0b01, serial=6)
        for start in range(0, len(stream), 7):
            device.send(stream[start : start + 7])
            await asyncio.sleep(0)
        answers = [await device.hear() for _ in range(3)]
        assert [raw[26] for raw in answers] == [3, 3, 3]
        assert desk.values("smoke-1")["smoke"] is False
        assert desk.signals("panel-1") == [Signal("panel-1", "inspected", {"operator": 1})]
        damaged = bytearray(SMOKE)
        damaged[2], damaged[50] = 9, 0x55
        assert await device.ask(bytes(damaged)) == (6, 9)
        assert await device.ask(HEARTBEAT) == (3, 1)


async def test_an_analog_value_goes_to_the_reading_of_its_quantity() -> None:
    desk = ListDesk("fire", *DEVICES)
    body = bytes((3, 1, 1, 1, 30, 10, 0, 4, 0, 3)) + (715).to_bytes(2, "little") + bytes((2, 58, 9, 26, 9, 12))
    raw = bytearray(SMOKE[:24] + len(body).to_bytes(2, "little") + b"\x02" + body + b"\x00##")
    async with running(desk) as (_, connect):
        device = await connect()
        assert await device.ask(seal(raw)) == (3, 1)
    [report] = reports_of(desk, "heat-1")
    assert report.measurements == (Measurement("heat-1:temperature", 71.5, "Cel"),)


async def test_a_fire_nobody_registered_is_passed_on_all_the_same() -> None:
    desk = ListDesk("fire", *DEVICES)
    async with running(desk) as (_, connect):
        device = await connect()
        assert await device.ask(component(99, 0b11)) == (3, 1)
        assert await device.ask(component(98, 0b101, serial=2)) == (3, 2)
    [report] = reports_of(desk, "fire-889-1-10-99")
    assert report.signals == (Signal("fire-889-1-10-99", "fire"),)
    assert desk.troubles["889/1/10.98"].startswith("not registered")


async def test_a_device_that_nobody_knows_is_not_heard() -> None:
    desk = ListDesk("fire")
    async with running(desk) as (_, connect):
        device = await connect()
        device.send(SMOKE)
        await desk.wait_until(lambda: "not allowed" in desk.troubles.get("889", ""))
    assert desk.reports == []


async def test_silence_is_told_and_the_line_is_given_up() -> None:
    desk = ListDesk("fire", *DEVICES)
    async with running(desk, silence_s=1) as (_, connect):
        device = await connect()
        assert await device.ask(HEARTBEAT) == (3, 1)
        assert desk.values("panel-1") == {"connected": True}
        await desk.wait_until(lambda: "no word" in desk.troubles.get("889", ""))
        await desk.wait_until(lambda: desk.values("panel-1") == {"connected": False})
        async with asyncio.timeout(5):
            assert await device._reader.read() == b""


def order(name: str, **args: object) -> Order:
    return Order("o-1", DEVICES[0], name, args)


async def test_commands_reach_the_device_and_come_back_with_its_word() -> None:
    desk = ListDesk("fire", *DEVICES)
    async with running(desk) as (driver, connect):
        assert (await driver.perform(order("inspect", minutes=10))).outcome == "failed"
        device = await connect()
        await device.ask(HEARTBEAT)

        async def give(name: str, reply: Callable[[bytes], bytes], **args: object) -> tuple[bytes, Outcome]:
            performing = asyncio.create_task(driver.perform(order(name, **args)))
            raw = await device.hear()
            device.send(reply(raw))
            return raw[26:-3], await performing

        def say(command: int) -> Callable[[bytes], bytes]:
            return lambda raw: seal(bytearray(raw[:12] + raw[18:24] + raw[12:18] + bytes((0, 0, command, 0)) + b"##"))

        assert await give("inspect", say(3), minutes=10) == (bytes.fromhex("01 5B 01 0A"), Outcome("done"))
        assert await give("initialise", say(6)) == (bytes.fromhex("01 59 01 00"), Outcome("refused", "it answered no"))
        clock, outcome = await give("sync_clock", say(3))
        assert (clock[:3], len(clock), outcome.outcome) == (bytes.fromhex("01 5A 01"), 9, "done")

        def tell_status(raw: bytes) -> bytes:
            found = bytearray(ANSWER)
            found[2:4] = raw[2:4]
            return seal(found)

        asked, outcome = await give("read_status", tell_status)
        assert (asked, outcome) == (bytes.fromhex("04 51 01 00"), Outcome("done"))
        await desk.wait_until(lambda: desk.values("panel-1").get("main_power_fault") is True)
        assert (await driver.perform(order("dance"))).outcome == "refused"


async def test_a_device_that_does_not_answer_is_asked_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.drivers.gb26875.ANSWER_S", 0.05)
    desk = ListDesk("fire", *DEVICES)
    async with running(desk) as (driver, connect):
        device = await connect()
        await device.ask(HEARTBEAT)
        outcome = await driver.perform(order("inspect", minutes=5))
        assert (outcome.outcome, outcome.detail) == ("failed", "no answer in 3 tries")
        frames = [await device.hear() for _ in range(3)]
        assert frames[0] == frames[1] == frames[2]


async def test_a_port_that_is_taken_is_said() -> None:
    desk = ListDesk("fire", *DEVICES)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(GatewayError, match="cannot listen there"):
        await Gb26875Driver(Settings(driver="gb26875", bus="fire", port=port)).run(desk)
    server.close()
