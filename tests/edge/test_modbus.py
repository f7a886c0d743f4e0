"""The Modbus driver at the library's own server: over TCP, and over a serial line made of two pseudo-terminals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import struct
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import pytest
from pydantic import ValidationError
from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge.drivers.modbus import ModbusDriver, Settings, plan, read_value
from edge.ports import Carried, Order, Outcome
from gateway.core.profile import ReadingSpec, RegisterSpec
from gateway.wire import Measurement
from tests.edge.desk import ListDesk, shipped
from tests.servers import free_port

PROFILES: Final = shipped().profiles
Words = list[int]


def carry(profile: str, unit: int | str) -> Carried:
    return Carried(f"{profile}-{unit}", PROFILES[profile], "rs485", str(unit), "public-1")


class Peer:
    """A device of the library's simulator: coils, discrete inputs, holding and input registers, each from 0."""

    def __init__(
        self,
        unit: int,
        *,
        coils: int = 16,
        discrete: int = 0,
        holding: Words | None = None,
        inputs: Words | None = None,
    ) -> None:
        self.unit = unit
        self.is_mute = False
        self.requests: list[tuple[int, int, int]] = []
        self.written: list[tuple[int, int, list[int]]] = []
        self.fault: ExcCodes | None = None
        self._coils = [False] * coils
        self._discrete = [bool(discrete >> bit & 1) for bit in range(16)]
        self._holding = holding or [0]
        self.inputs = inputs or [0]

    def device(self) -> SimDevice:
        async def act(
            function: int, start: int, address: int, count: int, current: Words, values: list[int] | list[bool] | None
        ) -> ExcCodes | None:
            self.requests.append((function, address, count))
            if function == 4:
                current[: len(self.inputs)] = self.inputs
            if values is not None:
                self.written.append((function, address, [int(value) for value in values]))
            return self.fault

        return SimDevice(
            self.unit,
            (
                [SimData(0, values=self._coils, datatype=DataType.BITS)],
                [SimData(0, values=self._discrete, datatype=DataType.BITS)],
                [SimData(0, values=list(self._holding), datatype=DataType.REGISTERS)],
                [SimData(0, values=list(self.inputs), datatype=DataType.REGISTERS)],
            ),
            action=act,
        )


def electrical(unit: int, leak: int = 140) -> Peer:
    """31.2 Cel, 229.5 V, 18.4 A."""
    return Peer(unit, inputs=[leak, 312, 2295, 0, 18400])


@asynccontextmanager
async def serve(port: int, *peers: Peer) -> AsyncIterator[ModbusTcpServer]:
    def send(is_sending: bool, packet: bytes) -> bytes:
        is_mute = is_sending and any(peer.is_mute and peer.unit == packet[6] for peer in peers)
        return b"" if is_mute else packet

    server = ModbusTcpServer([peer.device() for peer in peers], address=("127.0.0.1", port), trace_packet=send)
    await server.serve_forever(background=True)
    try:
        yield server
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def running(driver: ModbusDriver, desk: ListDesk) -> AsyncIterator[None]:
    task = asyncio.create_task(driver.run(desk))
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def over_tcp(port: int, **changes: object) -> Settings:
    return Settings.model_validate(
        {"driver": "modbus", "bus": "rs485", "host": "127.0.0.1", "port": port, "poll_s": 0.05, "timeout_s": 0.2}
        | changes
    )


async def test_devices_are_read_as_their_profiles_say_in_one_request_for_what_lies_together() -> None:
    port = free_port()
    hydrant_words = list(struct.unpack(">HH", struct.pack(">f", 0.25)))
    hydrant = Peer(3, discrete=0b01, holding=[*hydrant_words, 95])
    meter = Peer(4, holding=[0] * 16 + [0xE240, 0x0001, 70])
    board = electrical(17)
    desk = ListDesk("rs485", carry("electrical-fire", 17), carry("hydrant-pressure", 3), carry("cold-water-meter", 4))
    async with serve(port, board, hydrant, meter), running(ModbusDriver(over_tcp(port)), desk):
        await desk.wait_until(lambda: len(desk.reports) >= 3)
    assert desk.reports[0].measurements == (
        Measurement("electrical-fire-17:residual_current", 140.0, "mA"),
        Measurement("electrical-fire-17:cable_temperature", 31.2, "Cel"),
        Measurement("electrical-fire-17:voltage", 229.5, "V"),
        Measurement("electrical-fire-17:current", 18.4, "A"),
    )
    assert sorted(desk.reports[1].measurements, key=lambda one: one.name) == [
        Measurement("hydrant-pressure-3:battery", 95.0, "%EL"),
        Measurement("hydrant-pressure-3:flowing", True),
        Measurement("hydrant-pressure-3:pressure", 0.25, "MPa"),
        Measurement("hydrant-pressure-3:tilted", False),
    ]
    assert desk.values("cold-water-meter-4") == {"volume": 123.456, "battery": 70.0}
    assert board.requests[0] == (4, 0, 5)
    assert hydrant.requests[:2] == [(2, 0, 1), (3, 0, 3)]  # the simulator counts bits by sixteens
    assert meter.requests[0] == (3, 16, 3)
    assert desk.told == []


@pytest.mark.parametrize("type", ["int16", "uint16", "int32", "uint32", "float32"])
@pytest.mark.parametrize("order", ["abcd", "cdab"])
def test_a_value_comes_out_of_its_registers_as_the_library_put_it_in(
    type: Literal["int16", "uint16", "int32", "uint32", "float32"], order: Literal["abcd", "cdab"]
) -> None:
    kinds = ModbusClientMixin.DATATYPE
    kind = {one.name.lower(): one for one in kinds}[type]
    values = {"int16": [-32768, -1, 0, 300], "uint16": [0, 65535], "int32": [-(2**31), -7, 70000]}
    values |= {"uint32": [0, 2**32 - 1], "float32": [0, 1, -2]}
    for value in values[type]:
        number = float(value) if type == "float32" else value
        words = ModbusClientMixin.convert_to_registers(number, kind, "big" if order == "abcd" else "little")
        assert read_value(RegisterSpec(0, "holding", type, order=order), words) == number


def test_bytes_may_be_swapped_bits_picked_and_numbers_scaled() -> None:
    assert read_value(RegisterSpec(0, "holding", "uint32", order="badc"), [0x0200, 0x0403]) == 0x00020304
    assert read_value(RegisterSpec(0, "holding", "uint32", order="dcba"), [0x0403, 0x0201]) == 0x01020304
    assert read_value(RegisterSpec(0, "holding", "bit", bit=15), [0x8000]) is True
    assert read_value(RegisterSpec(0, "holding", "bit", bit=14), [0x8000]) is False
    assert read_value(RegisterSpec(0, "coil", "bit"), [1]) is True
    assert read_value(RegisterSpec(0, "input", "int16", 0.1), [0x10000 - 231]) == -23.1
    words = list(struct.unpack(">HH", struct.pack(">f", 21.6)))
    assert read_value(RegisterSpec(0, "input", "float32"), words) == 21.6


def at(*registers: RegisterSpec) -> list[ReadingSpec]:
    return [ReadingSpec(f"r{i}", f"r{i}", "number", modbus=register) for i, register in enumerate(registers)]


def test_what_has_a_gap_or_is_too_long_or_of_another_kind_is_a_request_of_its_own() -> None:
    blocks = plan(
        at(
            RegisterSpec(10, "input", "uint32"),
            RegisterSpec(12, "input"),
            RegisterSpec(14, "input"),
            RegisterSpec(12, "holding", "bit", bit=1),
            RegisterSpec(12, "holding", "bit", bit=2),
        )
    )
    assert [(block.kind, block.start, block.count, len(block.specs)) for block in blocks] == [
        ("holding", 12, 1, 2),
        ("input", 10, 3, 2),
        ("input", 14, 1, 1),
    ]
    many = plan(at(*(RegisterSpec(register) for register in range(300))))
    assert [(block.start, block.count) for block in many] == [(0, 125), (125, 125), (250, 50)]
    wide = plan(at(*(RegisterSpec(register, type="uint32") for register in range(0, 128, 2))))
    assert [(block.start, block.count) for block in wide] == [(0, 124), (124, 4)]
    assert [block.count for block in plan(at(*(RegisterSpec(bit, "coil", "bit") for bit in range(2100))))] == [
        2000,
        100,
    ]


async def test_a_device_that_falls_silent_is_told_asked_ever_less_and_holds_nobody_back() -> None:
    port = free_port()
    silent, well = electrical(17), electrical(18)
    desk = ListDesk("rs485", carry("electrical-fire", 17), carry("electrical-fire", 18))
    async with serve(port, silent, well), running(ModbusDriver(over_tcp(port)), desk):
        await desk.wait_until(lambda: desk.values("electrical-fire-17") and desk.values("electrical-fire-18"))
        silent.is_mute = True
        await desk.wait_until(lambda: "17" in desk.troubles)
        assert desk.troubles == {"17": "does not answer in 0.2 s"}
        asked, before = len(silent.requests), len(desk.reports)
        await asyncio.sleep(1.5)
        # In 1.5 s there is room for 7 questions that wait 0.2 s each; it is asked after 0.2, 0.4 and 0.8 s.
        assert 1 <= len(silent.requests) - asked <= 3
        assert len(desk.reports) - before >= 8
        assert all(report.device == "electrical-fire-18" for report in desk.reports[before:])
        silent.is_mute = False
        await desk.wait_until(lambda: not desk.troubles)
        count = len(desk.reports)
        await desk.wait_until(lambda: any(report.device.endswith("17") for report in desk.reports[count:]))
    assert [trouble for address, trouble in desk.told if address == "17"] == ["does not answer in 0.2 s", ""]


async def test_an_answer_that_comes_too_late_is_nobodys() -> None:
    """Two devices on a line that is slow at times: whatever is handed in is what its own device holds."""
    line = Line()
    async with null_modem(line) as (near, far), serve_line(far, electrical(17, leak=111), electrical(18, leak=222)):
        desk = ListDesk("rs485", carry("electrical-fire", 17), carry("electrical-fire", 18))
        async with running(ModbusDriver(over_line(near)), desk):
            for delay_s in (0.25, 0.3, 0.45):
                line.delay_s = delay_s
                await desk.wait_until(lambda: len(desk.troubles) == 2)
                line.delay_s = 0
                await desk.wait_until(lambda: not desk.troubles)
    leaks = {(report.device, report.measurements[0].value) for report in desk.reports}
    assert leaks == {("electrical-fire-17", 111.0), ("electrical-fire-18", 222.0)}


async def test_a_register_that_does_not_exist_is_named_and_the_others_are_read() -> None:
    port = free_port()
    short = Peer(17, inputs=[140, 312])
    desk = ListDesk("rs485", carry("electrical-fire", 17))
    async with serve(port, short), running(ModbusDriver(over_tcp(port)), desk):
        await desk.wait_until(lambda: len(desk.reports) >= 2)
    assert desk.values("electrical-fire-17") == {"residual_current": 140.0, "cable_temperature": 31.2}
    assert desk.told[0] == ("17", "input 0 to 4: illegal data address (exception 2)")
    assert desk.troubles["17"] == (
        "input 2: illegal data address (exception 2); input 3 to 4: illegal data address (exception 2)"
    )


async def test_a_device_that_refuses_is_named_with_its_reason() -> None:
    port = free_port()
    busy = electrical(17)
    busy.fault = ExcCodes.DEVICE_BUSY
    desk = ListDesk("rs485", carry("electrical-fire", 17))
    async with serve(port, busy), running(ModbusDriver(over_tcp(port)), desk):
        await desk.wait_until(lambda: "17" in desk.troubles)
        assert "device busy (exception 6)" in desk.troubles["17"]
        busy.fault = ExcCodes.GATEWAY_NO_RESPONSE
        await desk.wait_until(lambda: desk.troubles.get("17", "").startswith("does not answer"))
        busy.fault = None
        await desk.wait_until(lambda: desk.reports and not desk.troubles)


async def test_a_peer_that_goes_away_and_comes_back_is_found_again() -> None:
    port = free_port()
    desk = ListDesk("rs485", carry("electrical-fire", 17))
    async with running(ModbusDriver(over_tcp(port)), desk):
        await desk.wait_until(lambda: "" in desk.troubles)
        assert f"127.0.0.1:{port} cannot be opened" in desk.troubles[""]
        async with serve(port, electrical(17)):
            await desk.wait_until(lambda: desk.reports)
            assert desk.troubles == {}
        await desk.wait_until(lambda: "" in desk.troubles)
        count = len(desk.reports)
        async with serve(port, electrical(17)):
            await desk.wait_until(lambda: len(desk.reports) > count)
            await desk.wait_until(lambda: desk.troubles == {})


async def test_what_cannot_be_stored_is_read_again() -> None:
    port = free_port()
    desk = ListDesk("rs485", carry("electrical-fire", 17))
    desk.full = True
    async with serve(port, electrical(17)), running(ModbusDriver(over_tcp(port, report="change")), desk):
        await desk.wait_until(lambda: len(desk.refused) > 1)
        assert desk.troubles == {"": "what devices say cannot be stored: the disk is full"}
        desk.full = False
        await desk.wait_until(lambda: desk.values("electrical-fire-17").get("voltage") == 229.5)
        await desk.wait_until(lambda: desk.troubles == {})


async def test_only_what_changed_is_handed_in_and_all_of_it_now_and_then() -> None:
    port = free_port()
    desk = ListDesk("rs485", carry("electrical-fire", 17))
    settings = over_tcp(port, report="change", silence_s=0.4)
    board = electrical(17)
    async with serve(port, board), running(ModbusDriver(settings), desk):
        await desk.wait_until(lambda: desk.reports)
        polls = len(board.requests)
        board.inputs[0] = 500
        await desk.wait_until(lambda: len(desk.reports) >= 2)
        assert desk.reports[1].measurements == (Measurement("electrical-fire-17:residual_current", 500.0, "mA"),)
        await desk.wait_until(lambda: len(desk.reports) >= 3)
        assert len(desk.reports[2].measurements) == 4
        assert len(board.requests) - polls > 3


async def test_commands_write_coils_and_registers() -> None:
    port = free_port()
    meter, siren = Peer(4, holding=[0] * 19), Peer(5, holding=[0], inputs=[0b10])
    desk = ListDesk("rs485", carry("cold-water-meter", 4), carry("sound-light-siren", 5))
    driver = ModbusDriver(over_tcp(port))
    valve, sounder = desk.devices
    assert await driver.perform(Order("c0", valve, "open_water_valve", {})) == Outcome(
        "failed", f"127.0.0.1:{port} is not open"
    )
    async with serve(port, meter, siren), running(driver, desk):
        await desk.wait_until(lambda: desk.values("sound-light-siren-5"))
        assert desk.values("sound-light-siren-5") == {"sounding": False, "fault": True}
        assert await driver.perform(Order("c1", valve, "open_water_valve", {})) == Outcome("done", "coil 0 is 1")
        assert await driver.perform(Order("c2", valve, "close_water_valve", {})) == Outcome("done", "coil 0 is 0")
        assert await driver.perform(Order("c3", sounder, "sound", {"seconds": 30})) == Outcome(
            "done", "holding 0 is 30"
        )
        assert await driver.perform(Order("c4", sounder, "sound", {"seconds": 30.0})) == Outcome(
            "done", "holding 0 is 30"
        )
        for wrong in (None, "30", 30.5, -1, 70000, float("nan"), float("inf")):
            refused = await driver.perform(Order("c5", sounder, "sound", {"seconds": wrong}))
            assert refused.outcome == "refused"
        assert (await driver.perform(Order("c6", sounder, "dance", {}))).outcome == "refused"
        siren.fault = ExcCodes.ILLEGAL_VALUE
        assert await driver.perform(Order("c7", sounder, "sound", {"seconds": 1})) == Outcome(
            "failed", "holding 0: illegal data value (exception 3)"
        )
        siren.is_mute = True
        assert await driver.perform(Order("c8", sounder, "sound", {"seconds": 2})) == Outcome(
            "failed", "the device does not answer"
        )
    assert meter.written == [(5, 0, [1]), (5, 0, [0])]
    assert [values for _, _, values in siren.written[:2]] == [[30], [30]]


@pytest.mark.parametrize("address", ["", "a", "-1", "256", "1.5", "٣", "0017", "bus/17"])
async def test_an_address_that_is_no_unit_is_told_and_the_others_are_read(address: str) -> None:
    port = free_port()
    desk = ListDesk("rs485", carry("electrical-fire", address), carry("electrical-fire", 17), carry("nb-smoke", 3))
    async with serve(port, electrical(17)), running(ModbusDriver(over_tcp(port)), desk):
        await desk.wait_until(lambda: desk.values("electrical-fire-17"))
        await desk.wait_until(lambda: "3" in desk.troubles)
    assert "is no unit's number" in desk.troubles[address]
    assert "nb-smoke does not say where its readings are" in desk.troubles["3"]


async def test_devices_come_and_go_while_it_runs() -> None:
    port = free_port()
    desk = ListDesk("rs485")
    async with serve(port, electrical(17)), running(ModbusDriver(over_tcp(port)), desk):
        await asyncio.sleep(0.1)
        assert desk.reports == []
        desk.devices.append(carry("electrical-fire", 17))
        await desk.wait_until(lambda: desk.reports)
        desk.devices.clear()
        await asyncio.sleep(0.2)
        count = len(desk.reports)
        await asyncio.sleep(0.2)
        assert len(desk.reports) == count


# --- the serial line ------------------------------------------------------------------------------------------


class Line:
    """How a serial line is: what comes from its far end takes ``delay_s``."""

    delay_s = 0.0


@asynccontextmanager
async def null_modem(line: Line | None = None) -> AsyncIterator[tuple[str, str]]:
    """Two pseudo-terminals, what is written to the one is read from the other: a serial line without a line."""
    line = line or Line()
    loop = asyncio.get_running_loop()
    masters, slaves = zip(*(os.openpty() for _ in range(2)), strict=True)
    for slave in slaves:
        tty.setraw(slave)
    for master in masters:
        os.set_blocking(master, False)

    def carry_out() -> None:
        os.write(masters[1], os.read(masters[0], 4096))

    def carry_back() -> None:
        loop.call_later(line.delay_s, write_back, os.read(masters[1], 4096))

    def write_back(words: bytes) -> None:
        with contextlib.suppress(OSError):  # the test may be over
            os.write(masters[0], words)

    loop.add_reader(masters[0], carry_out)
    loop.add_reader(masters[1], carry_back)
    try:
        yield os.ttyname(slaves[0]), os.ttyname(slaves[1])
    finally:
        for master in masters:
            loop.remove_reader(master)
        for end in (*masters, *slaves):
            os.close(end)


@asynccontextmanager
async def serve_line(port: str, *peers: Peer) -> AsyncIterator[ModbusSerialServer]:
    server = ModbusSerialServer([peer.device() for peer in peers], port=port, baudrate=9600)
    await server.serve_forever(background=True)
    try:
        yield server
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


def over_line(port: str) -> Settings:
    return Settings.model_validate(
        {"driver": "modbus", "bus": "rs485", "serial": port, "poll_s": 0.05, "timeout_s": 0.2}
    )


async def test_a_serial_line_is_read_and_written() -> None:
    async with null_modem() as (near, far):
        meter = Peer(4, holding=[0] * 16 + [0xE240, 0x0001, 70])
        desk = ListDesk("rs485", carry("cold-water-meter", 4), carry("electrical-fire", 17))
        driver = ModbusDriver(over_line(near))
        async with serve_line(far, meter, electrical(17)), running(driver, desk):
            await desk.wait_until(lambda: len(desk.reports) >= 4)
            done = await driver.perform(Order("c1", desk.devices[0], "open_water_valve", {}))
            assert done == Outcome("done", "coil 0 is 1")
    assert desk.values("cold-water-meter-4") == {"volume": 123.456, "battery": 70.0}
    assert desk.values("electrical-fire-17")["current"] == 18.4
    assert desk.told == []


async def test_a_serial_port_that_is_not_there_is_told_and_looked_for_again(tmp_path: Path) -> None:
    desk = ListDesk("rs485", carry("electrical-fire", 17))
    missing = tmp_path / "ttyUSB0"
    async with (
        null_modem() as (near, far),
        serve_line(far, electrical(17)),
        running(ModbusDriver(over_line(str(missing))), desk),
    ):
        await desk.wait_until(lambda: "cannot be opened" in desk.troubles.get("", ""))
        missing.symlink_to(near)
        await desk.wait_until(lambda: desk.values("electrical-fire-17"))
        assert desk.troubles == {}


async def test_a_line_that_is_pulled_out_is_told_and_found_again(tmp_path: Path) -> None:
    port = tmp_path / "ttyUSB0"
    desk = ListDesk("rs485", carry("electrical-fire", 17))

    async def plug_in() -> None:
        """Until the device was heard; then pulled out."""
        async with null_modem() as (near, far), serve_line(far, electrical(17)):
            port.symlink_to(near)
            count = len(desk.reports)
            await desk.wait_until(lambda: len(desk.reports) > count and not desk.troubles)
            port.unlink()

    async with running(ModbusDriver(over_line(str(port))), desk):
        for _ in range(2):
            await plug_in()
            await desk.wait_until(lambda: "cannot be opened" in desk.troubles.get("", ""))


async def test_a_serial_port_that_is_none_is_told() -> None:
    desk = ListDesk("rs485", carry("electrical-fire", 17))
    async with running(ModbusDriver(over_line("/dev/null")), desk):
        await desk.wait_until(lambda: "/dev/null cannot be opened" in desk.troubles.get("", ""))


async def test_bytes_of_an_rtu_line_may_come_through_tcp() -> None:
    port = free_port()
    server = ModbusTcpServer([electrical(17).device()], framer="rtu", address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    desk = ListDesk("rs485", carry("electrical-fire", 17))
    try:
        async with running(ModbusDriver(over_tcp(port, framing="rtu")), desk):
            await desk.wait_until(lambda: desk.values("electrical-fire-17"))
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


# --- what nobody should send ----------------------------------------------------------------------------------


def test_a_hundred_thousand_contents_of_registers_are_read_without_a_fault() -> None:
    chance = random.Random(5)
    orders: list[Literal["abcd", "cdab", "badc", "dcba"]] = ["abcd", "cdab", "badc", "dcba"]
    specs = [
        RegisterSpec(0, "holding", type, scale, order)
        for type in ("int16", "uint16", "int32", "uint32", "float32")
        for scale in (1.0, 0.1, -1e300)
        for order in orders
    ]
    specs += [RegisterSpec(0, "holding", "bit", bit=bit) for bit in (None, 0, 15)]
    for count in range(100_000):
        spec = specs[count % len(specs)]
        width = 2 if spec.type in ("int32", "uint32", "float32") else 1
        value = read_value(spec, [chance.choice((0, 0x7F80, 0xFFFF, chance.getrandbits(16))) for _ in range(width)])
        assert isinstance(value, bool) is (spec.type == "bit")


async def test_a_peer_that_talks_nonsense_is_as_good_as_silent() -> None:
    chance = random.Random(7)
    met = 0

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal met
        met += 1
        with contextlib.suppress(ConnectionError):
            while request := await reader.read(512):
                kind = chance.randrange(4)
                if kind == 0:
                    writer.write(chance.randbytes(chance.randrange(1, 300)))
                elif kind == 1:  # the right head, and something behind it
                    writer.write(request[:4] + b"\x00\x05" + request[6:7] + chance.randbytes(4))
                elif kind == 2:
                    writer.write(request)
                else:
                    break
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    desk = ListDesk("rs485", *(carry("electrical-fire", unit) for unit in range(1, 5)))
    async with server, running(ModbusDriver(over_tcp(port, timeout_s=0.05)), desk):
        await desk.wait_until(lambda: len(desk.told) >= 8, "eight changes of what is told")
        assert met > 1


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"host": "h", "serial": "/dev/ttyS0"},
        {"host": "h", "port": 0},
        {"host": "h", "bus": "RS 485"},
        {"host": "h", "colour": "red"},
        {"host": "h", "poll_s": 0},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"driver": "modbus", "bus": "rs485", **wrong})
