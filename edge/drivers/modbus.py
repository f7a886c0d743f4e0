"""Modbus, over TCP or a serial line: registers are read in turn, and written when a device is asked for something.

A bus is one TCP connection (to a device, or to a gateway that has many behind it) or one serial line; an address on it
is the unit's number. Where a reading stands is the profile's to say (``modbus:``, docs/authoring.md).

Only one request is under way on a bus at a time. A device that does not answer costs its time-out once, is told, and is
asked again after a pause that doubles; the others come first. On a serial line an answer carries no number, and one
that comes too late could be taken for the answer to the next question: so a question is never repeated at once, a
device that was silent is left alone for that pause, and an answer of another length is not believed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Final, Literal, Self

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.pdu import ModbusPDU

from edge.drivers.measuring import measure
from edge.ports import Carried, Desk, Lamp, NotTaken, Order, Outcome, Report
from gateway.core.profile import Profile, ReadingSpec, RegisterSpec, RegisterWrite
from gateway.wire import Measurement

# What goes wrong is told at the desk, once, and not again at every question.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

WORDS_AT_ONCE: Final = 125
BITS_AT_ONCE: Final = 2000
"""The most that one request may ask for (Modbus application protocol V1.1b3, sections 6.1 to 6.4)."""

BACK_OFF_MOST_S: Final = 60.0
"""A device that is repaired is heard again within a minute."""

PERFORM_S: Final = 9.0
"""A driver has ten seconds for an order."""

EXCEPTIONS: Final[Mapping[int, str]] = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledged, still busy with it",
    6: "device busy",
    7: "refused",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "the gateway's target does not answer",
}
"""Exception codes in words (Modbus application protocol V1.1b3, section 7)."""

UNREACHABLE: Final = frozenset({10, 11})
"""With these a gateway says that the device behind it is silent."""


class Settings(BaseModel):
    """One bus: ``host`` and ``port`` of a TCP connection, or the ``serial`` port of a line (with its ``baudrate``,
    ``parity`` and ``stopbits``). ``framing: rtu`` is for serial servers that pass the line's bytes through TCP.

    All devices are read every ``poll_s``. ``report: change`` hands in what changed, and everything after ``silence_s``
    at the latest; ``always`` hands in everything that was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: Literal["modbus"]
    bus: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 502
    framing: Literal["tcp", "rtu"] = "tcp"
    serial: str | None = None
    baudrate: Annotated[int, Field(ge=300, le=4_000_000)] = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1
    poll_s: Annotated[float, Field(ge=0.05, le=3600)] = 10.0
    timeout_s: Annotated[float, Field(ge=0.05, le=5)] = 1.0
    report: Literal["always", "change"] = "always"
    silence_s: Annotated[float, Field(ge=0.1, le=86400)] = 300.0

    @model_validator(mode="after")
    def _check_one_way(self) -> Self:
        if (self.host is None) == (self.serial is None):
            raise ValueError("write host (Modbus TCP) or serial (a serial port), and not both")
        return self


class Block(Struct, frozen=True):
    """Readings that are read in one request: ``count`` registers or bits from ``start``."""

    kind: str
    start: int
    count: int
    specs: tuple[ReadingSpec, ...]

    def __str__(self) -> str:
        last = self.start + self.count - 1
        return f"{self.kind} {self.start}" + (f" to {last}" if last > self.start else "")


def plan(specs: Iterable[ReadingSpec]) -> tuple[Block, ...]:
    """The requests that read these readings. Only what lies without a gap is joined: many devices refuse a request that
    touches a register which they do not have."""
    blocks: list[Block] = []
    for spec, at in sorted(_placed(specs), key=lambda placed: (placed[1].kind, placed[1].register)):
        end = at.register + _width(at)
        last = blocks[-1] if blocks else None
        most = BITS_AT_ONCE if at.kind in ("coil", "discrete") else WORDS_AT_ONCE
        if last is not None and last.kind == at.kind and at.register <= last.start + last.count:
            count = max(last.count, end - last.start)
            if count <= most:
                blocks[-1] = Block(last.kind, last.start, count, (*last.specs, spec))
                continue
        blocks.append(Block(at.kind, at.register, end - at.register, (spec,)))
    return tuple(blocks)


def _placed(specs: Iterable[ReadingSpec]) -> list[tuple[ReadingSpec, RegisterSpec]]:
    return [(spec, spec.modbus) for spec in specs if spec.modbus is not None]


def _width(at: RegisterSpec) -> int:
    return 2 if at.type in ("int32", "uint32", "float32") else 1


_FORMATS: Final[Mapping[str, str]] = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "float32": ">f",
}


def read_value(at: RegisterSpec, words: list[int]) -> float | bool:
    """What the registers of a reading hold; for a coil or a discrete input, one word that is 0 or 1. ``words`` are 16
    bits each. Scaled values are rounded to nine decimals, so that 231 tenths are 23.1."""
    if at.type == "bit":
        return bool(words[0] >> (at.bit or 0) & 1)
    raw = b"".join(word.to_bytes(2, "big") for word in words)
    if at.order in ("badc", "dcba"):
        raw = bytes(raw[position ^ 1] for position in range(len(raw)))
    if at.order in ("cdab", "dcba"):
        raw = raw[2:] + raw[:2]
    (number,) = struct.unpack(_FORMATS[at.type], raw)
    if at.type == "float32":
        number = _shorten(number)
    return float(number) if at.scale == 1.0 else round(number * at.scale, 9)


def _shorten(number: float) -> float:
    """The shortest decimal number that is this one in 32 bits: 21.6, not 21.600000381."""
    if not math.isfinite(number):
        return number
    wanted = struct.pack(">f", number)
    for digits in range(6, 9):
        candidate = float(f"{number:.{digits}g}")
        try:
            if struct.pack(">f", candidate) == wanted:
                return candidate
        except OverflowError:
            pass
    return number


class Silent(Exception):
    """The device did not answer."""


class Refused(Exception):
    """The device answered that it will not; in words why."""


class _Bus:
    """One connection. Raises Silent and Refused; knows nothing of devices and profiles."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: AsyncModbusTcpClient | AsyncModbusSerialClient | None = None

    @property
    def name(self) -> str:
        settings = self._settings
        return settings.serial if settings.serial is not None else f"{settings.host}:{settings.port}"

    def is_open(self) -> bool:
        return self._client is not None and self._client.connected

    async def open(self) -> bool:
        """Whether the bus can be used now."""
        if self.is_open():
            return True
        self.close()
        client = self._make_client()
        # A client that tries again by itself would do so behind our back: the next round tries again.
        if not await client.connect():
            client.close()
            return False
        client.set_max_no_responses(1_000_000)
        self._client = client
        return True

    def _make_client(self) -> AsyncModbusTcpClient | AsyncModbusSerialClient:
        settings = self._settings
        if settings.serial is not None:
            return AsyncModbusSerialClient(
                settings.serial,
                baudrate=settings.baudrate,
                parity=settings.parity,
                stopbits=settings.stopbits,
                timeout=settings.timeout_s,
                retries=0,
                reconnect_delay=0,
            )
        return AsyncModbusTcpClient(
            settings.host or "",
            port=settings.port,
            framer=FramerType.RTU if settings.framing == "rtu" else FramerType.SOCKET,
            timeout=settings.timeout_s,
            retries=0,
            reconnect_delay=0,
        )

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    async def read(self, unit: int, block: Block) -> list[int]:
        """The words (or bits, 0 or 1) of a block."""
        client = self._client
        if client is None:
            raise Silent
        start, count = block.start, block.count
        match block.kind:
            case "coil":
                answer = await self._ask(1, partial(client.read_coils, start, count=count, device_id=unit))
            case "discrete":
                answer = await self._ask(2, partial(client.read_discrete_inputs, start, count=count, device_id=unit))
            case "holding":
                answer = await self._ask(3, partial(client.read_holding_registers, start, count=count, device_id=unit))
            case _:
                answer = await self._ask(4, partial(client.read_input_registers, start, count=count, device_id=unit))
        # Bits come in whole bytes, with some to spare.
        is_bits = block.kind in ("coil", "discrete")
        words = [int(bit) for bit in answer.bits[:count]] if is_bits else list(answer.registers)
        if len(words) != count:
            raise Refused(f"it was asked for {count} and answered with {len(words)}")
        return words

    async def write(self, unit: int, write: RegisterWrite, value: int) -> None:
        """Returns when the device has said that it is written."""
        client = self._client
        if client is None:
            raise Silent
        if write.kind == "coil":
            await self._ask(5, partial(client.write_coil, write.register, bool(value), device_id=unit))
        else:
            await self._ask(6, partial(client.write_register, write.register, value, device_id=unit))

    async def _ask(self, function: int, ask: Callable[[], Awaitable[ModbusPDU]]) -> ModbusPDU:
        try:
            answer = await ask()
        except (ModbusException, OSError):
            raise Silent from None
        if answer.isError():
            code = getattr(answer, "exception_code", 0)
            if code in UNREACHABLE:
                raise Silent
            raise Refused(f"{EXCEPTIONS.get(code, 'an exception that has no name')} (exception {code})")
        if answer.function_code != function:
            raise Refused(f"it was asked for function {function} and answered with {answer.function_code}")
        return answer


class _Unit:
    """What the driver remembers of a device between rounds."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.blocks = plan(profile.readings.values())
        self.misses = 0
        self.again_at = 0.0
        self.reported: dict[str, Measurement] = {}
        self.whole_at = -math.inf

    def is_silent(self) -> bool:
        return self.misses > 0

    def split(self, block: Block) -> None:
        """Reads the readings of a block one by one from now on: one of its registers does not exist."""
        singles = [single for spec in block.specs for single in plan([spec])]
        self.blocks = tuple(one for old in self.blocks for one in (singles if old is block else [old]))


class ModbusDriver:
    """One bus. `edge.ports.Driver`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bus = _Bus(settings)
        self._units: dict[str, _Unit] = {}
        self._is_refused = False

    async def run(self, desk: Desk) -> None:
        loop = asyncio.get_running_loop()
        wait_s = self._settings.timeout_s
        try:
            while True:
                begin = loop.time()
                if await self._bus.open():
                    wait_s = self._settings.timeout_s
                    if not self._is_refused:
                        desk.tell("", "")
                    await self._poll(desk, begin + self._settings.poll_s)
                    await asyncio.sleep(max(0.0, begin + self._settings.poll_s - loop.time()))
                else:
                    desk.tell("", f"{self._bus.name} cannot be opened; is the address right, and is it there?")
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, max(self._settings.poll_s, self._settings.timeout_s))
        finally:
            self._bus.close()

    async def _poll(self, desk: Desk, next_round: float) -> None:
        """One round. Who answered last time comes first; who did not is asked while there is time, one at least."""
        loop = asyncio.get_running_loop()
        devices = [(device, self._remember(device)) for device in desk.carried()]
        for id in self._units.keys() - {device.id for device, _ in devices}:
            del self._units[id]
        answers = questions = 0
        for device, unit in [one for one in devices if not one[1].is_silent()]:
            if not self._bus.is_open():
                return
            answered = await self._poll_device(desk, device, unit)
            questions += answered is not None
            answers += answered is True
        due = [one for one in devices if one[1].is_silent() and one[1].again_at <= loop.time()]
        for count, (device, unit) in enumerate(sorted(due, key=lambda one: one[1].again_at)):
            if not self._bus.is_open() or (count and loop.time() + self._settings.timeout_s > next_round):
                break
            questions += 1
            answers += await self._poll_device(desk, device, unit) is True
        if questions and not answers and self._settings.serial is None:
            # Nobody answers: the connection may be one that only this side believes in.
            self._bus.close()

    def _remember(self, device: Carried) -> _Unit:
        unit = self._units.get(device.id)
        if unit is None or unit.profile != device.profile:
            unit = self._units[device.id] = _Unit(device.profile)
        return unit

    async def _poll_device(self, desk: Desk, device: Carried, unit: _Unit) -> bool | None:
        """Whether the device answered; None when there is nothing to ask it."""
        number = self._number(device.address)
        if number is None:
            desk.tell(device.address, f"{device.address!r} is no unit's number; register the device as {desk.bus}/17")
            return None
        if not unit.blocks:
            has_write = any(command.modbus is not None for command in device.profile.commands.values())
            lack = f"the profile {device.profile.id} does not say where its readings are; add modbus: to it"
            desk.tell(device.address, "" if has_write else lack)
            return None
        measurements: list[Measurement] = []
        troubles: list[str] = []
        for block in unit.blocks:
            try:
                words = await self._bus.read(number, block)
            except Silent:
                self._miss(desk, device, unit)
                # What it said before it fell silent is true all the same.
                await self._report(desk, device, unit, measurements)
                return False
            except Refused as refused:
                troubles.append(f"{block}: {refused}")
                if len(block.specs) > 1:
                    unit.split(block)
                continue
            measurements += _read_block(device.id, block, words)
        unit.misses = 0
        desk.tell(device.address, "; ".join(troubles))
        await self._report(desk, device, unit, measurements)
        return True

    def _number(self, address: str) -> int | None:
        """The unit's number; over TCP 0 and 255 are a device that stands alone (Modbus messaging on TCP/IP, 4.4.2)."""
        low, high = (1, 247) if self._settings.serial is not None else (0, 255)
        if not address.isascii() or not address.isdigit() or len(address) > 3:
            return None
        number = int(address)
        return number if low <= number <= high else None

    def _miss(self, desk: Desk, device: Carried, unit: _Unit) -> None:
        pause = max(self._settings.poll_s, self._settings.timeout_s)
        pause = min(pause * 2 ** min(unit.misses, 16), max(BACK_OFF_MOST_S, pause))
        unit.misses += 1
        unit.again_at = asyncio.get_running_loop().time() + pause
        # Otherwise what it says when it is back could be what it last said, and would not be told.
        unit.whole_at = -math.inf
        desk.tell(device.address, f"does not answer in {self._settings.timeout_s:g} s")

    async def _report(self, desk: Desk, device: Carried, unit: _Unit, measurements: list[Measurement]) -> None:
        now = asyncio.get_running_loop().time()
        is_whole = self._settings.report == "always" or now - unit.whole_at >= self._settings.silence_s
        due = [one for one in measurements if is_whole or unit.reported.get(one.name) != one]
        if not due:
            return
        try:
            await desk.take(Report(device.id, measurements=tuple(due)))
        except NotTaken as refused:
            # The next round reads it again; a register is not forgotten because nobody took it down.
            self._is_refused = True
            desk.tell("", f"what devices say cannot be stored: {refused}")
            return
        self._is_refused = False
        unit.reported.update({one.name: one for one in due})
        if is_whole:
            unit.whole_at = now

    async def perform(self, order: Order) -> Outcome:
        spec = order.device.profile.commands.get(order.name)
        write = spec.modbus if spec is not None else None
        number = self._number(order.device.address)
        if write is None:
            return Outcome("refused", f"{order.device.profile.id} has no modbus: for {order.name}")
        if number is None:
            return Outcome("refused", f"{order.device.address!r} is no unit's number")
        value = order.args.get(write.value) if isinstance(write.value, str) else write.value
        most = 1 if write.kind == "coil" else 65535
        if not isinstance(value, int | float) or not 0 <= value <= most or value != int(value):
            return Outcome("refused", f"{write.value} is {value!r}; a {write.kind} takes 0 to {most}")
        if not self._bus.is_open():
            return Outcome("failed", f"{self._bus.name} is not open")
        try:
            async with asyncio.timeout(PERFORM_S):
                await self._bus.write(number, write, int(value))
        except (Silent, TimeoutError):
            return Outcome("failed", "the device does not answer")
        except Refused as refused:
            return Outcome("failed", f"{write.kind} {write.register}: {refused}")
        return Outcome("done", f"{write.kind} {write.register} is {int(value)}")

    async def show(self, device: Carried, lamp: Lamp) -> None:
        """Nothing: no profile of a Modbus device has a lamp."""


def _read_block(device: str, block: Block, words: list[int]) -> list[Measurement]:
    found = []
    for spec, at in _placed(block.specs):
        first = at.register - block.start
        one = measure(device, spec, read_value(at, words[first : first + _width(at)]))
        if one is not None:
            found.append(one)
    return found
