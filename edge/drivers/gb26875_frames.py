"""Frames of GB/T 26875.3-2011: bytes in, frames and objects out. No I/O, no clock.

A user information transmission device (用户信息传输装置) and its centre exchange frames ``@@ … ##`` with a serial, both
addresses and a checksum; the integers are little-endian. `Receiver` finds them in a stream that may be glued, torn or
damaged; `read_objects` reads what they carry. Layouts and codes as in the standard (docs: domain facts 2.4).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import IntEnum, IntFlag
from typing import Final

from msgspec import Struct

HEAD: Final = 27
"""Bytes before the application data: start, serial, versions, time, addresses, length, command."""

TAIL: Final = 3
DATA_MOST: Final = 1024
_START: Final = b"@@"
_END: Final = b"##"
TEXT_BYTES: Final = 31
TIME_BYTES: Final = 6


class Command(IntEnum):
    """What a frame is; 7 to 127 are reserved, 128 to 255 the user's own."""

    CONTROL = 1
    SEND = 2
    ACK = 3
    REQUEST = 4
    ANSWER = 5
    NAK = 6


class Kind(IntEnum):
    """The type flag of application data."""

    SYSTEM_STATUS = 1
    COMPONENT_STATUS = 2
    ANALOG = 3
    OPERATION = 4
    SOFTWARE_VERSION = 5
    SYSTEM_CONFIGURATION = 6
    COMPONENT_CONFIGURATION = 7
    SYSTEM_TIME = 8
    DEVICE_STATUS = 21
    DEVICE_OPERATION = 24
    DEVICE_VERSION = 25
    DEVICE_CONFIGURATION = 26
    DEVICE_TIME = 28
    READ_DEVICE_STATUS = 81
    INITIALISE = 89
    SYNC_CLOCK = 90
    INSPECT = 91


class Condition(IntFlag):
    """Bits of a system's or a component's state; ``NORMAL`` unset means that it is being tested."""

    NORMAL = 1 << 0
    FIRE = 1 << 1
    FAULT = 1 << 2
    SHIELDED = 1 << 3
    SUPERVISED = 1 << 4
    STARTED = 1 << 5
    FEEDBACK = 1 << 6
    DELAYED = 1 << 7
    POWER_FAULT = 1 << 8


class DeviceCondition(IntFlag):
    """Bits of the transmission device's own state; ``NORMAL`` unset means that it is being tested."""

    NORMAL = 1 << 0
    FIRE = 1 << 1
    FAULT = 1 << 2
    MAIN_POWER_FAULT = 1 << 3
    BACKUP_POWER_FAULT = 1 << 4
    LINK_FAULT = 1 << 5
    LINE_FAULT = 1 << 6


class Operation(IntFlag):
    """Bits of an operation; of the transmission device ``CONFIRMED`` is an inspection (查岗) that was answered."""

    RESET = 1 << 0
    MUTED = 1 << 1
    MANUAL_ALARM = 1 << 2
    ALARM_CLEARED = 1 << 3
    SELF_CHECK = 1 << 4
    CONFIRMED = 1 << 5
    TEST = 1 << 6


ANALOG: Final = {
    1: ("count", "count", 1.0),
    2: ("height", "m", 0.01),
    3: ("temperature", "Cel", 0.1),
    4: ("pressure", "MPa", 0.1),
    5: ("pressure", "kPa", 0.1),
    6: ("gas", "%LEL", 0.1),
    7: ("time", "s", 1.0),
    8: ("voltage", "V", 0.1),
    9: ("current", "A", 0.1),
    10: ("flow", "l/s", 0.1),
    11: ("flow", "m3/min", 0.1),
    12: ("speed", "m/s", 1.0),
}
"""Analog type → what it is, its unit, its step; 128 to 255 are the user's own."""


class Frame(Struct, frozen=True):
    """One frame. ``time`` are its six bytes as they came: second, minute, hour, day, month, year of the century."""

    serial: int
    source: int
    destination: int
    command: int
    data: bytes = b""
    time: bytes = bytes(TIME_BYTES)
    version: tuple[int, int] = (1, 1)


class Garbage(Struct, frozen=True):
    """Bytes that were passed over: why, how many, and the frame's head where it could be read, to be answered by."""

    reason: str
    count: int
    frame: Frame | None = None


# --- objects ------------------------------------------------------------------------------------------------------


class SystemStatus(Struct, frozen=True):
    """A building's fire system, for example its alarm control unit."""

    system: int
    address: int
    condition: Condition
    at: str | None


class ComponentStatus(Struct, frozen=True):
    """``zone`` and ``place`` are the two halves of the component's address (区号, 位号)."""

    system: int
    address: int
    component: int
    zone: int
    place: int
    condition: Condition
    text: str
    at: str | None


class Analog(Struct, frozen=True):
    """``name`` and ``unit`` are empty for a type of the user's own; then ``value`` is the number as it came."""

    system: int
    address: int
    component: int
    zone: int
    place: int
    kind: int
    name: str
    value: float
    unit: str
    at: str | None


class SystemOperation(Struct, frozen=True):
    """What somebody did at a system's panel."""

    system: int
    address: int
    operation: Operation
    operator: int
    at: str | None


class Version(Struct, frozen=True):
    """Of a system (``system`` and ``address``), or of the device itself (both None)."""

    system: int | None
    address: int | None
    major: int
    minor: int


class Configuration(Struct, frozen=True):
    """Of a system, of a component (``zone`` and ``place`` too), or of the device itself (all None)."""

    text: str
    system: int | None = None
    address: int | None = None
    component: int | None = None
    zone: int | None = None
    place: int | None = None


class Time(Struct, frozen=True):
    """Of a system, or of the device itself."""

    system: int | None
    address: int | None
    at: str | None


class DeviceStatus(Struct, frozen=True):
    """The transmission device itself."""

    condition: DeviceCondition
    at: str | None


class DeviceOperation(Struct, frozen=True):
    """What somebody did at the transmission device."""

    operation: Operation
    operator: int
    at: str | None


Object = (
    SystemStatus
    | ComponentStatus
    | Analog
    | SystemOperation
    | Version
    | Configuration
    | Time
    | DeviceStatus
    | DeviceOperation
)


class Unreadable(ValueError):
    """Application data that is not as the standard says; in words why."""


# --- frames -------------------------------------------------------------------------------------------------------


class Receiver:
    """Finds frames in a stream, in the manner of h11: feed bytes, take what they complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame | Garbage]:
        """What these bytes complete. What is no frame comes out as `Garbage`, and the search goes on behind it."""
        self._buffer += data
        found: list[Frame | Garbage] = []
        skipped = 0
        while (one := self._next()) is not None:
            if isinstance(one, int):
                skipped += one
                continue
            if skipped:
                found.append(Garbage("no-frame", skipped))
                skipped = 0
            found.append(one)
        if skipped:
            found.append(Garbage("no-frame", skipped))
        return found

    @property
    def waiting(self) -> int:
        """Bytes of a frame that has not ended: never more than one frame's."""
        return len(self._buffer)

    def _next(self) -> Frame | Garbage | int | None:
        """A frame or garbage, the number of bytes passed over, or None when more must come."""
        buffer = self._buffer
        start = buffer.find(_START)
        if start != 0:
            # The first half of a start may stand at the end.
            keep = 1 if start < 0 and buffer.endswith(b"@") else 0
            return self._drop(len(buffer) - keep if start < 0 else start) or None
        if len(buffer) < HEAD:
            return None
        length = int.from_bytes(buffer[24:26], "little")
        if length > DATA_MOST:
            return self._drop(1)
        total = HEAD + length + TAIL
        if len(buffer) < total:
            return None
        raw = bytes(buffer[:total])
        if not raw.endswith(_END):
            return self._drop(1)
        frame = Frame(
            int.from_bytes(raw[2:4], "little"),
            int.from_bytes(raw[12:18], "little"),
            int.from_bytes(raw[18:24], "little"),
            raw[26],
            raw[HEAD : HEAD + length],
            raw[6:12],
            (raw[4], raw[5]),
        )
        self._drop(total)
        if raw[-3] != checksum(raw[2:-3]):
            return Garbage("bad-checksum", total, frame)
        return frame

    def _drop(self, count: int) -> int:
        del self._buffer[:count]
        return count


def checksum(body: bytes) -> int:
    """The sum of all bytes from the serial to the end of the data, its low eight bits."""
    return sum(body) & 0xFF


def encode(frame: Frame) -> bytes:
    """The frame's bytes. Raises ValueError for more data than a frame holds."""
    if len(frame.data) > DATA_MOST:
        raise ValueError(f"{len(frame.data)} bytes of data; a frame holds {DATA_MOST}")
    body = b"".join(
        (
            frame.serial.to_bytes(2, "little"),
            bytes(frame.version),
            frame.time,
            frame.source.to_bytes(6, "little"),
            frame.destination.to_bytes(6, "little"),
            len(frame.data).to_bytes(2, "little"),
            bytes((frame.command,)),
            frame.data,
        )
    )
    return b"".join((_START, body, bytes((checksum(body),)), _END))


def encode_time(moment: datetime) -> bytes:
    """Six bytes: second, minute, hour, day, month, year of the century."""
    return bytes((moment.second, moment.minute, moment.hour, moment.day, moment.month, moment.year % 100))


def answer(frame: Frame, command: Command, moment: datetime) -> Frame:
    """The acknowledgement or refusal of a frame: its serial, its addresses exchanged."""
    return Frame(frame.serial, frame.destination, frame.source, command, b"", encode_time(moment), frame.version)


# --- application data ---------------------------------------------------------------------------------------------


def read_objects(data: bytes) -> tuple[int, list[Object]]:
    """The type flag and the objects of application data. Raises Unreadable."""
    if len(data) < 2:
        raise Unreadable("no type flag and count")
    flag, count = data[0], data[1]
    reader = _READERS.get(flag)
    if reader is None:
        raise Unreadable(f"type flag {flag} is not read here")
    most, read = reader
    if not 1 <= count <= most:
        raise Unreadable(f"{count} objects of type {flag}; 1 to {most} are allowed")
    cursor = _Cursor(data[2:])
    objects = [read(cursor) for _ in range(count)]
    if cursor.rest:
        raise Unreadable(f"{cursor.rest} bytes are left after {count} objects of type {flag}")
    return flag, objects


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def rest(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if self.rest < count:
            raise Unreadable(f"{self.rest} bytes are left where {count} should stand")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, count: int = 1) -> int:
        return int.from_bytes(self.take(count), "little")

    def text(self, count: int) -> str:
        return self.take(count).decode("gb18030", "replace").rstrip("\0 ").lstrip()

    def time(self) -> str | None:
        """Local time in ISO form; None for six bytes that are no time."""
        second, minute, hour, day, month, year = self.take(TIME_BYTES)
        try:
            return datetime(2000 + year, month, day, hour, minute, second).isoformat()  # noqa: DTZ001 - it names none
        except ValueError:
            return None


def _system_status(c: _Cursor) -> SystemStatus:
    return SystemStatus(c.number(), c.number(), Condition(c.number(2)), c.time())


def _component_status(c: _Cursor) -> ComponentStatus:
    return ComponentStatus(
        c.number(),
        c.number(),
        c.number(),
        c.number(2),
        c.number(2),
        Condition(c.number(2)),
        c.text(TEXT_BYTES),
        c.time(),
    )


def _analog(c: _Cursor) -> Analog:
    system, address, component, zone, place = c.number(), c.number(), c.number(), c.number(2), c.number(2)
    kind = c.number()
    raw = int.from_bytes(c.take(2), "little", signed=True)
    name, unit, step = ANALOG.get(kind, ("", "", 1.0))
    return Analog(system, address, component, zone, place, kind, name, round(raw * step, 3), unit, c.time())


def _operation(c: _Cursor) -> SystemOperation:
    return SystemOperation(c.number(), c.number(), Operation(c.number()), c.number(), c.time())


def _software_version(c: _Cursor) -> Version:
    return Version(c.number(), c.number(), c.number(), c.number())


def _system_configuration(c: _Cursor) -> Configuration:
    system, address = c.number(), c.number()
    return Configuration(c.text(c.number()), system, address)


def _component_configuration(c: _Cursor) -> Configuration:
    system, address, component, zone, place = c.number(), c.number(), c.number(), c.number(2), c.number(2)
    return Configuration(c.text(TEXT_BYTES), system, address, component, zone, place)


def _system_time(c: _Cursor) -> Time:
    return Time(c.number(), c.number(), c.time())


def _device_status(c: _Cursor) -> DeviceStatus:
    return DeviceStatus(DeviceCondition(c.number()), c.time())


def _device_operation(c: _Cursor) -> DeviceOperation:
    return DeviceOperation(Operation(c.number()), c.number(), c.time())


def _device_version(c: _Cursor) -> Version:
    return Version(None, None, c.number(), c.number())


def _device_configuration(c: _Cursor) -> Configuration:
    return Configuration(c.text(c.number()))


def _device_time(c: _Cursor) -> Time:
    return Time(None, None, c.time())


_READERS: Final[dict[int, tuple[int, Callable[[_Cursor], Object]]]] = {
    Kind.SYSTEM_STATUS: (102, _system_status),
    Kind.COMPONENT_STATUS: (22, _component_status),
    Kind.ANALOG: (63, _analog),
    Kind.OPERATION: (102, _operation),
    Kind.SOFTWARE_VERSION: (1, _software_version),
    Kind.SYSTEM_CONFIGURATION: (3, _system_configuration),
    Kind.COMPONENT_CONFIGURATION: (26, _component_configuration),
    Kind.SYSTEM_TIME: (1, _system_time),
    Kind.DEVICE_STATUS: (1, _device_status),
    Kind.DEVICE_OPERATION: (127, _device_operation),
    Kind.DEVICE_VERSION: (1, _device_version),
    Kind.DEVICE_CONFIGURATION: (1, _device_configuration),
    Kind.DEVICE_TIME: (1, _device_time),
}
"""Type flag → most objects of a frame, and how one is read."""
