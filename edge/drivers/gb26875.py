"""Fire alarm systems by GB/T 26875.3-2011: a server for user information transmission devices (用户信息传输装置).

A frame is acknowledged only when what it says is on the disk; what could not be stored, or is damaged, is refused
(nak), so that the device sends it again. The same frame again is acknowledged and not taken twice.

Addresses on the bus: ``889`` is the transmission device with that address, ``889/1`` a system behind it, ``889/1/10.2``
the component at zone 10, place 2 of that system. What a component reports is mapped by its profile: the state bits are
the fields ``fire``, ``fault``, ``shielded``, ``supervised``, ``started``, ``feedback``, ``delayed``, ``power_fault``
and ``test``; a fire of a component whose profile has a press is that press; an analog value goes to the reading of its
quantity.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.drivers.gb26875_frames import (
    Analog,
    Command,
    ComponentStatus,
    Condition,
    DeviceCondition,
    DeviceOperation,
    DeviceStatus,
    Frame,
    Garbage,
    Kind,
    Object,
    Operation,
    Receiver,
    SystemOperation,
    SystemStatus,
    Unreadable,
    answer,
    encode,
    encode_time,
    read_objects,
)
from edge.drivers.measuring import measure, read_fields
from edge.ports import Carried, Desk, Lamp, NotTaken, Order, Outcome, Report
from gateway.errors import GatewayError
from gateway.wire import Measurement, Signal

log = logging.getLogger(__name__)

ANSWER_S: Final = 3.0
TRIES: Final = 3
"""A command waits so long for its acknowledgement, so often (the standard: 10 s at most, three tries, in all)."""

REMEMBERED: Final = 64
"""Frames of a device that are known again when they are repeated."""

REPEAT_S: Final = 60.0
"""For so long: serials begin again at 0, and the same words may come again tomorrow."""

ALIVE_S: Final = 300.0
"""How often it is passed on that a transmission device is heard."""

CHUNK: Final = 4096
SHANGHAI: Final = timezone(timedelta(hours=8))
QUANTITIES: Final = {
    "temperature": "temperature",
    "pressure": "pressure",
    "gas": "gas_concentration",
    "voltage": "voltage",
    "current": "current",
    "flow": "flow",
    "height": "length",
    "time": "duration",
    "count": "count",
}
"""An analog value's name → the quantity of the reading that it goes to."""


class Settings(BaseModel):
    """Where it listens. ``allowed`` are the addresses of the transmission devices that are heard; empty: all that are
    registered. ``silence_s`` without a heartbeat (the standard: every 20 to 30 s), and a device is told as silent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: Literal["gb26875"]
    bus: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)]
    allowed: tuple[Annotated[int, Field(ge=0, lt=2**48)], ...] = ()
    silence_s: Annotated[float, Field(ge=1, le=3600)] = 90
    connections: Annotated[int, Field(ge=1, le=1000)] = 32
    station: Annotated[int, Field(ge=0, lt=2**48)] = 0
    """Our own address, for what we send first."""


class _Peer:
    """One connection, and what is known of the device at its other end."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.address: int | None = None
        self.station = 0
        self.heard_at = time.monotonic()
        self.told_at = -ALIVE_S
        self.serial = 0
        self.waiting: dict[int, asyncio.Future[Frame]] = {}

    def send(self, frame: Frame) -> None:
        if not self.writer.is_closing():
            self.writer.write(encode(frame))


class Gb26875Driver:
    """Implements `edge.ports.Driver`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._desk: Desk | None = None
        self._peers: set[_Peer] = set()
        self._known: dict[int, OrderedDict[bytes, float]] = {}
        """Of each device, the frames that are on the disk, and since when."""
        self._taking: dict[int, asyncio.Lock] = {}

    # --- listening ---------------------------------------------------------------------------------------------------

    async def run(self, desk: Desk) -> None:
        """Listens until cancelled. Raises GatewayError for a port that is taken."""
        self._desk = desk
        settings = self._settings
        try:
            server = await asyncio.start_server(self._meet, settings.host, settings.port)
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise GatewayError(
                "port-taken", f"cannot listen there: {error.strerror}", where, "choose another"
            ) from error
        try:
            while True:
                await asyncio.sleep(min(1.0, settings.silence_s / 4))
                await self._look_for_silence()
        finally:
            server.close()
            for peer in list(self._peers):
                peer.writer.close()

    async def _tell_connected(self, address: int, *, is_so: bool) -> None:
        carried = self._find(str(address))
        if carried is not None:
            report = _make_report(carried, {"connected": is_so})
            with contextlib.suppress(NotTaken):
                await self._take_all([report])

    async def _take_all(self, reports: Iterable[Report | None]) -> None:
        assert self._desk is not None  # noqa: S101 - set before anybody can connect
        await self._desk.take(*(report for report in reports if report is not None))

    async def _look_for_silence(self) -> None:
        now = time.monotonic()
        for peer in list(self._peers):
            if now - peer.heard_at > self._settings.silence_s:
                self._tell(peer.address, f"no word for {self._settings.silence_s:g} s")
                peer.writer.close()
                if peer.address is not None:
                    await self._tell_connected(peer.address, is_so=False)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _Peer(writer)
        if len(self._peers) >= self._settings.connections:
            self._tell(None, f"more than {self._settings.connections} connections; one was turned away")
            writer.close()
            return
        self._peers.add(peer)
        receiver = Receiver()
        try:
            while data := await reader.read(CHUNK):
                for found in receiver.feed(data):
                    await self._hear(peer, found)
                await writer.drain()
        except OSError as error:
            log.info("a transmission device hung up: %s", error)
        finally:
            self._peers.discard(peer)
            for waiting in peer.waiting.values():
                waiting.cancel()
            writer.close()

    async def _hear(self, peer: _Peer, found: Frame | Garbage) -> None:
        if isinstance(found, Garbage):
            self._tell(peer.address, f"{found.count} bytes are no frame ({found.reason})")
            if found.frame is not None and self._is_heard(found.frame.source):
                peer.send(answer(found.frame, Command.NAK, self._moment()))
            return
        if not self._is_heard(found.source):
            self._tell(found.source, "it is not allowed here: register it, or name it under allowed")
            return
        peer.address, peer.station, peer.heard_at = found.source, found.destination, time.monotonic()
        if peer.heard_at - peer.told_at > ALIVE_S:
            peer.told_at = peer.heard_at
            await self._tell_connected(found.source, is_so=True)
        match found.command:
            case Command.SEND:
                peer.send(answer(found, await self._take(found), self._moment()))
            case Command.ANSWER:
                self._resolve(peer, found)
                peer.send(answer(found, await self._take(found), self._moment()))
            case Command.ACK | Command.NAK:
                self._resolve(peer, found)
            case _:
                peer.send(answer(found, Command.NAK, self._moment()))

    @staticmethod
    def _resolve(peer: _Peer, frame: Frame) -> None:
        waiting = peer.waiting.get(frame.serial)
        if waiting is not None and not waiting.done():
            waiting.set_result(frame)

    def _is_heard(self, address: int) -> bool:
        if self._settings.allowed:
            return address in self._settings.allowed
        assert self._desk is not None  # noqa: S101 - set before anybody can connect
        first = str(address)
        return any(carried.address.split("/", 1)[0] == first for carried in self._desk.carried())

    # --- taking ------------------------------------------------------------------------------------------------------

    async def _take(self, frame: Frame) -> Command:
        """Acknowledges what is on the disk, and refuses what is not. A heartbeat has nothing to store."""
        if not frame.data:
            self._tell(frame.source, "")
            return Command.ACK
        # One after the other, also from two connections of a device: the same frame again is acknowledged only when the
        # first is on the disk.
        async with self._taking.setdefault(frame.source, asyncio.Lock()):
            if self._is_repeat(frame):
                return Command.ACK
            try:
                _, objects = read_objects(frame.data)
                await self._take_all(self._report(frame.source, objects))
            except Unreadable as error:
                self._tell(frame.source, f"a frame cannot be read: {error}")
                return Command.NAK
            except NotTaken as error:
                self._tell(frame.source, f"what it says cannot be stored: {error}")
                return Command.NAK
            self._remember(frame)
        self._tell(frame.source, "")
        return Command.ACK

    def _is_repeat(self, frame: Frame) -> bool:
        """Whether this very frame was taken a moment ago, and its acknowledgement lost."""
        taken_at = self._known.get(frame.source, OrderedDict()).get(_digest(frame))
        return taken_at is not None and time.monotonic() - taken_at < REPEAT_S

    def _remember(self, frame: Frame) -> None:
        known = self._known.setdefault(frame.source, OrderedDict())
        known[_digest(frame)] = time.monotonic()
        known.move_to_end(_digest(frame))
        while len(known) > REMEMBERED:
            known.popitem(last=False)

    def _report(self, source: int, objects: Iterable[Object]) -> list[Report | None]:
        reports: list[Report | None] = []
        for found in objects:
            match found:
                case ComponentStatus():
                    reports.append(self._report_component(source, found))
                case SystemStatus():
                    body = _fields_of(found.condition)
                    reports.append(self._report_fields(f"{source}/{found.address}", body))
                case Analog():
                    reports.append(self._report_analog(source, found))
                case DeviceStatus():
                    reports.append(self._report_fields(f"{source}", _device_fields_of(found.condition)))
                case DeviceOperation() | SystemOperation():
                    reports.append(self._report_operation(source, found))
                case _:
                    log.info("transmission device %d: %s", source, found)
        return reports

    def _report_component(self, source: int, found: ComponentStatus) -> Report | None:
        address = f"{source}/{found.address}/{found.zone}.{found.place}"
        is_fire = Condition.FIRE in found.condition
        carried = self._find(address)
        if carried is None:
            self._tell_unknown(address, found.text)
            # Nobody registered it, but it burns: the gateway opens a case at the agent's place.
            return _unknown_fire(address) if is_fire else None
        press = next((kind for kind, spec in carried.profile.events.items() if spec.press), None)
        signals = (Signal(carried.id, press),) if is_fire and press is not None else ()
        return _make_report(carried, _fields_of(found.condition), signals)

    def _report_fields(self, address: str, body: dict[str, object]) -> Report | None:
        carried = self._find(address)
        if carried is not None:
            return _make_report(carried, body)
        self._tell_unknown(address, "")
        return _unknown_fire(address) if body["fire"] else None

    def _report_analog(self, source: int, found: Analog) -> Report | None:
        address = f"{source}/{found.address}/{found.zone}.{found.place}"
        carried = self._find(address)
        if carried is None:
            self._tell_unknown(address, "")
            return None
        wanted = QUANTITIES.get(found.name)
        spec = next((s for s in carried.profile.readings.values() if wanted and s.quantity == wanted), None)
        if spec is None:
            self._tell(source, f"{address} sends analog values of type {found.kind}, its profile has no such reading")
            return None
        one = measure(carried.id, spec, found.value, found.unit)
        return None if one is None else Report(carried.id, (), (one,))

    def _report_operation(self, source: int, found: DeviceOperation | SystemOperation) -> Report | None:
        address = f"{source}" if isinstance(found, DeviceOperation) else f"{source}/{found.address}"
        carried = self._find(address)
        log.info("%s: operator %d: %s", address, found.operator, found.operation)
        is_alarm = Operation.MANUAL_ALARM in found.operation
        if carried is None:
            return _unknown_fire(address) if is_alarm else None
        kinds = {"manual_alarm": is_alarm, "inspected": Operation.CONFIRMED in found.operation}
        kinds |= {"reset": Operation.RESET in found.operation, "self_test": Operation.SELF_CHECK in found.operation}
        events = carried.profile.events
        signals = tuple(
            Signal(carried.id, kind, {"operator": found.operator} if "operator" in events[kind].data else {})
            for kind, is_so in kinds.items()
            if is_so and kind in events
        )
        return Report(carried.id, signals) if signals else None

    def _find(self, address: str) -> Carried | None:
        assert self._desk is not None  # noqa: S101 - set before anybody can connect
        return self._desk.find(address)

    # --- commands ----------------------------------------------------------------------------------------------------

    async def perform(self, order: Order) -> Outcome:
        data = _order_data(order)
        if data is None:
            return Outcome("refused", f"a transmission device knows no {order.name}")
        command = Command.REQUEST if data[0] == Kind.READ_DEVICE_STATUS else Command.CONTROL
        address = int(order.device.address) if order.device.address.isdecimal() else -1
        peer = next((peer for peer in self._peers if peer.address == address), None)
        if peer is None:
            return Outcome("failed", "the transmission device is not connected")
        peer.serial = peer.serial % 0xFFFF + 1
        if order.name == "sync_clock":
            data += encode_time(self._moment())
        station = peer.station or self._settings.station
        frame = Frame(peer.serial, station, address, command, data, encode_time(self._moment()))
        waiting = peer.waiting[frame.serial] = asyncio.get_running_loop().create_future()
        try:
            for _ in range(TRIES):
                peer.send(frame)
                try:
                    async with asyncio.timeout(ANSWER_S):
                        found = await asyncio.shield(waiting)
                except TimeoutError:
                    continue
                return Outcome("refused", "it answered no") if found.command == Command.NAK else Outcome("done")
        except asyncio.CancelledError:
            if not waiting.cancelled():
                raise
            return Outcome("failed", "the transmission device hung up")
        finally:
            peer.waiting.pop(frame.serial, None)
        return Outcome("failed", f"no answer in {TRIES} tries")

    async def show(self, device: Carried, lamp: Lamp) -> None:
        """Its devices have no lamps of ours."""

    # --- words -------------------------------------------------------------------------------------------------------

    def _moment(self) -> datetime:
        assert self._desk is not None  # noqa: S101 - set before anybody can connect
        return datetime.fromtimestamp(self._desk.now() / 1000, SHANGHAI)

    def _tell(self, address: int | None, trouble: str) -> None:
        assert self._desk is not None  # noqa: S101 - set before anybody can connect
        self._desk.tell("" if address is None else str(address), trouble)

    def _tell_unknown(self, address: str, text: str) -> None:
        assert self._desk is not None  # noqa: S101 - set before anybody can connect
        self._desk.tell(address, f"not registered{f' ({text})' if text else ''}")


def _fields_of(condition: Condition) -> dict[str, object]:
    """The state bits as a device's own message."""
    return {
        "test": Condition.NORMAL not in condition,
        "fire": Condition.FIRE in condition,
        "fault": Condition.FAULT in condition,
        "shielded": Condition.SHIELDED in condition,
        "supervised": Condition.SUPERVISED in condition,
        "started": Condition.STARTED in condition,
        "feedback": Condition.FEEDBACK in condition,
        "delayed": Condition.DELAYED in condition,
        "power_fault": Condition.POWER_FAULT in condition,
    }


def _device_fields_of(condition: DeviceCondition) -> dict[str, object]:
    return {
        "test": DeviceCondition.NORMAL not in condition,
        "fire": DeviceCondition.FIRE in condition,
        "fault": DeviceCondition.FAULT in condition,
        "main_power_fault": DeviceCondition.MAIN_POWER_FAULT in condition,
        "backup_power_fault": DeviceCondition.BACKUP_POWER_FAULT in condition,
        "link_fault": DeviceCondition.LINK_FAULT in condition,
        "line_fault": DeviceCondition.LINE_FAULT in condition,
    }


def _make_report(carried: Carried, body: dict[str, object], signals: tuple[Signal, ...] = ()) -> Report | None:
    measurements: tuple[Measurement, ...] = tuple(read_fields(carried.id, carried.profile, body))
    return Report(carried.id, signals, measurements) if signals or measurements else None


def _unknown_fire(address: str) -> Report:
    device = "fire-" + "".join(c if c.isdecimal() else "-" for c in address)
    return Report(device[:48], (Signal(device[:48], "fire"),))


def _order_data(order: Order) -> bytes | None:
    minutes = order.args.get("minutes", 10)
    match order.name:
        case "inspect" if isinstance(minutes, int | float):
            return bytes((Kind.INSPECT, 1, min(255, max(1, int(minutes)))))
        case "read_status":
            return bytes((Kind.READ_DEVICE_STATUS, 1, 0))
        case "initialise":
            return bytes((Kind.INITIALISE, 1, 0))
        case "sync_clock":
            return bytes((Kind.SYNC_CLOCK, 1))
    return None


def _digest(frame: Frame) -> bytes:
    """Of what a repeat has in common: not the time at which it was sent."""
    said = frame.serial.to_bytes(2, "little") + bytes((frame.command,)) + frame.data
    return hashlib.blake2b(said, digest_size=16).digest()
