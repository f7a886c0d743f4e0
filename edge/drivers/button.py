"""A one-button alarm at the agent itself: a key of a keyboard (evdev; what a kernel's gpio-keys makes of GPIO lines is
one too) or lines of a GPIO chip.

The libraries are not among the requirements: ``evdev`` for ``keyboard``, ``gpiod`` (version 2) for ``gpio``. They are
imported when such a bus is configured, and missing they are named.

Whether a contact that went down and up was a press is decided by `Contact`, without a device and without a clock. A
press is tried until the disk takes it. A button that stands in this agent's configuration is a button even if nobody
has registered it yet: its press goes on under the name ``BUS-ADDRESS``, and the gateway knows where the agent is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from types import ModuleType
from typing import Annotated, Any, Final, Literal, Protocol, Self

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge.ports import Carried, Desk, Lamp, NotTaken, Order, Outcome, Report
from gateway.errors import GatewayError
from gateway.wire import Signal

REOPEN_S: Final = 2.0
STUCK_MS: Final = 60_000
"""Nobody presses for a minute; a thing leans against the button, or its contact is welded."""

_Address = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,15}$")]


class Settings(BaseModel):
    """``keyboard`` and ``keys`` (``KEY_F12 = "desk"``: the key's name in the kernel → the button's address), or
    ``gpio`` (the chip) and ``lines`` (``17 = "desk"``), which close to ground unless ``active_low`` is false.

    A contact that opens for less than ``debounce_ms`` has not opened. With ``hold_ms`` it must be held down so long to
    be a press: for buttons that are knocked against. ``lamps`` are lines of the same chip by address: ``recorded`` and
    ``coming``; they go out after ``lamp_s``, or at the next press."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: Literal["button"]
    bus: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    keyboard: str | None = None
    keys: dict[Annotated[str, Field(pattern=r"^(KEY|BTN)_[A-Z0-9_]{1,32}$")], _Address] = {}
    grab: bool = True
    """Whether the keyboard is the agent's alone, and types nothing elsewhere."""

    gpio: str | None = None
    lines: dict[Annotated[int, Field(ge=0, le=1023)], _Address] = {}
    active_low: bool = True
    lamps: dict[_Address, dict[Lamp, Annotated[int, Field(ge=0, le=1023)]]] = {}
    lamp_s: Annotated[float, Field(gt=0, le=86_400)] = 600
    debounce_ms: Annotated[int, Field(ge=1, le=1000)] = 50
    hold_ms: Annotated[int, Field(ge=0, le=10_000)] = 0

    @model_validator(mode="after")
    def _check_one_kind(self) -> Self:
        if (self.keyboard is None) == (self.gpio is None):
            raise ValueError("write keyboard or gpio, and not both")
        if self.keyboard is not None and (not self.keys or self.lines or self.lamps):
            raise ValueError('a keyboard has keys, such as KEY_F12 = "desk", and neither lines nor lamps')
        if self.gpio is not None and (not self.lines or self.keys):
            raise ValueError('a gpio chip has lines, such as 17 = "desk", and no keys')
        lamps = [line for of_button in self.lamps.values() for line in of_button.values()]
        if len({*lamps, *self.lines}) < len(lamps) + len(self.lines):
            raise ValueError("a gpio line is there twice")
        return self


# --- what is a press ------------------------------------------------------------------------------------------------


class Contact:
    """One contact. All times are ``int`` milliseconds of any steady clock, and never go back.

    It counts one press from the moment it goes down (or has been down for ``hold_ms``) until it has been up for
    ``debounce_ms``. It does not matter how often or how late it is asked."""

    def __init__(self, debounce_ms: int, hold_ms: int = 0) -> None:
        self._debounce_ms = debounce_ms
        self._hold_ms = hold_ms
        self._down_at: int | None = None
        self._up_at: int | None = None
        self._is_counted = False

    def change(self, is_down: bool, at: int) -> bool:
        """The contact went down or up (or is said again to be so). Whether a press was made by now."""
        was_made = self.decide(at)
        if is_down:
            self._up_at = None
            if self._down_at is None:
                self._down_at = at
        elif self._down_at is not None and self._up_at is None:
            self._up_at = at
        return self.decide(at) or was_made

    def decide(self, at: int) -> bool:
        """Whether a press was made by now; once for each press."""
        if self._down_at is None:
            return False
        held_until = at if self._up_at is None else self._up_at
        is_made = not self._is_counted and held_until - self._down_at >= self._hold_ms
        self._is_counted = self._is_counted or is_made
        if self._up_at is not None and at - self._up_at >= self._debounce_ms:
            self._down_at = self._up_at = None
            self._is_counted = False
        return is_made

    def next_at(self) -> int | None:
        """When to ask again if nothing changes; None when that would say nothing new."""
        if self._down_at is None:
            return None
        if self._up_at is not None:
            return self._up_at + self._debounce_ms
        return None if self._is_counted else self._down_at + self._hold_ms

    def is_stuck(self, at: int) -> bool:
        """Whether it has been down for longer than anybody presses."""
        return self._down_at is not None and self._up_at is None and at - self._down_at >= STUCK_MS


# --- the devices ----------------------------------------------------------------------------------------------------


class Change(Struct, frozen=True):
    """A contact went down or up."""

    address: str
    is_down: bool


class Contacts(Protocol):
    """An open keyboard or chip. Everything raises OSError when it is gone."""

    def fileno(self) -> int: ...
    def read(self) -> Iterable[Change]: ...
    def light(self, address: str, lamp: Lamp | None) -> None: ...
    def close(self) -> None: ...


class _Keys:
    """A keyboard, by evdev."""

    def __init__(self, evdev: ModuleType, settings: Settings) -> None:
        self._codes = evdev.ecodes
        self._addresses = {self._codes.ecodes[key]: address for key, address in settings.keys.items()}
        self._device: Any = evdev.InputDevice(settings.keyboard)
        if settings.grab:
            self._device.grab()

    def fileno(self) -> int:
        return int(self._device.fileno())

    def read(self) -> list[Change]:
        found: list[Change] = []
        for event in self._device.read():
            if event.type == self._codes.EV_SYN and event.code == self._codes.SYN_DROPPED:
                # The kernel had to drop changes: what is down now is what counts.
                down = set(self._device.active_keys())
                found += [Change(address, code in down) for code, address in self._addresses.items()]
            elif event.type == self._codes.EV_KEY and event.code in self._addresses:
                # 0 up, 1 down, 2 still down.
                found.append(Change(self._addresses[event.code], event.value != 0))
        return found

    def light(self, address: str, lamp: Lamp | None) -> None:
        """Nothing: a keyboard has no lamp of ours."""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._device.close()


class _Lines:
    """Lines of a GPIO chip, by gpiod 2."""

    def __init__(self, gpiod: ModuleType, settings: Settings) -> None:
        line = importlib.import_module("gpiod.line")
        self._gpiod, self._values = gpiod, line.Value
        self._addresses, self._lamps = settings.lines, settings.lamps
        contact = gpiod.LineSettings(
            direction=line.Direction.INPUT,
            edge_detection=line.Edge.BOTH,
            bias=line.Bias.PULL_UP if settings.active_low else line.Bias.PULL_DOWN,
            active_low=settings.active_low,
            # Of what is left our own decision takes care; this keeps the kernel from telling every bounce.
            debounce_period=timedelta(milliseconds=min(settings.debounce_ms, 5)),
        )
        lamp = gpiod.LineSettings(direction=line.Direction.OUTPUT)
        lit = [line for of_button in settings.lamps.values() for line in of_button.values()]
        config = {**dict.fromkeys(settings.lines, contact), **dict.fromkeys(lit, lamp)}
        self._request: Any = gpiod.request_lines(settings.gpio, config=config, consumer=f"edge {settings.bus}")

    def fileno(self) -> int:
        return int(self._request.fd)

    def read(self) -> list[Change]:
        rising = self._gpiod.EdgeEvent.Type.RISING_EDGE
        return [
            Change(self._addresses[event.line_offset], event.event_type is rising)
            for event in self._request.read_edge_events()
        ]

    def light(self, address: str, lamp: Lamp | None) -> None:
        for shown, line in self._lamps.get(address, {}).items():
            self._request.set_value(line, self._values.ACTIVE if shown is lamp else self._values.INACTIVE)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._request.release()


# --- the driver -----------------------------------------------------------------------------------------------------


class ButtonDriver:
    """The buttons of one keyboard or chip, or of what ``open_contacts`` opens. `edge.ports.Driver`."""

    def __init__(self, settings: Settings, open_contacts: Callable[[], Contacts] | None = None) -> None:
        self._settings = settings
        self._addresses = tuple(dict.fromkeys([*settings.keys.values(), *settings.lines.values()]))
        self._open_contacts = open_contacts
        self._open: Contacts | None = None
        self._lit: dict[str, asyncio.TimerHandle] = {}

    async def run(self, desk: Desk) -> None:
        """Listens until cancelled. Raises GatewayError for a library that is missing and a key that there is not."""
        open_contacts = self._open_contacts or self._import()
        presses: asyncio.Queue[str] = asyncio.Queue()
        taking = asyncio.create_task(self.take_presses(desk, presses))
        try:
            while True:
                await self._listen(desk, presses, open_contacts)
                await asyncio.sleep(REOPEN_S)
        finally:
            taking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await taking

    def _import(self) -> Callable[[], Contacts]:
        name = "evdev" if self._settings.keyboard is not None else "gpiod"
        try:
            library = importlib.import_module(name)
        except ImportError as error:
            what = f"the Python package {name} is missing ({error})"
            mend = f"install it: pip install {name}, or Debian's python3-{'libgpiod' if name == 'gpiod' else name}"
            raise GatewayError("driver-missing", what, f"bus {self._settings.bus}", mend) from error
        if name == "evdev":
            for key in self._settings.keys:
                if key not in library.ecodes.ecodes:
                    where = f"bus {self._settings.bus}"
                    raise GatewayError("unknown-key", f"the kernel knows no key {key}", where, "see `evtest`")
            return partial(_Keys, library, self._settings)
        return partial(_Lines, library, self._settings)

    async def _listen(self, desk: Desk, presses: asyncio.Queue[str], open_contacts: Callable[[], Contacts]) -> None:
        """Until the device is gone, or cannot be opened."""
        where = self._settings.keyboard or self._settings.gpio
        try:
            opened = open_contacts()
        except OSError as error:
            desk.tell("", f"{where} cannot be opened: {error.strerror or error}")
            return
        desk.tell("", "")
        self._open = opened
        try:
            await self._watch(desk, presses, opened)
        except OSError as error:
            desk.tell("", f"{where} is gone: {error.strerror or error}")
        finally:
            self._open = None
            opened.close()

    async def _watch(self, desk: Desk, presses: asyncio.Queue[str], opened: Contacts) -> None:
        loop = asyncio.get_running_loop()
        contacts = {one: Contact(self._settings.debounce_ms, self._settings.hold_ms) for one in self._addresses}
        stuck: set[str] = set()
        readable = asyncio.Event()
        number = opened.fileno()
        loop.add_reader(number, readable.set)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(readable.wait(), _pause(contacts, round(loop.time() * 1000)))
                now = round(loop.time() * 1000)
                if readable.is_set():
                    readable.clear()
                    with contextlib.suppress(BlockingIOError):  # there was nothing after all
                        for change in opened.read():
                            if contacts[change.address].change(change.is_down, now):
                                presses.put_nowait(change.address)
                for address, contact in contacts.items():
                    if contact.decide(now):
                        presses.put_nowait(address)
                    if contact.is_stuck(now) != (address in stuck):
                        stuck ^= {address}
                        desk.tell(address, "it has been down for a minute; is it stuck?" if address in stuck else "")
        finally:
            loop.remove_reader(number)

    async def take_presses(self, desk: Desk, presses: asyncio.Queue[str]) -> None:
        """Makes the presses of these addresses durable, in order, each until the disk takes it; until cancelled."""
        while True:
            address = await presses.get()
            self._light(address, None)
            report = make_press(desk, address)
            pause_s = 0.2
            while True:
                try:
                    await desk.take(report)
                    break
                except NotTaken as refused:
                    desk.tell("", f"a press cannot be stored: {refused}")
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, 5.0)
            if pause_s > 0.2:
                desk.tell("", "")

    async def perform(self, order: Order) -> Outcome:
        """The command ``lamp`` shows a lamp (or none, for ``off``); there is no other."""
        shown = order.args.get("show")
        if order.name != "lamp" or shown not in (*Lamp, "off"):
            return Outcome("refused", f"a button on this bus cannot {order.name}")
        if order.device.address not in self._settings.lamps:
            return Outcome("refused", f"the button {order.device.address} has no lamp; add it under lamps")
        if self._open is None:
            return Outcome("failed", f"{self._settings.gpio} is not open")
        lamp = None if shown == "off" else Lamp(str(shown))
        return Outcome("done") if self._light(order.device.address, lamp) else Outcome("failed", "the line is gone")

    async def show(self, device: Carried, lamp: Lamp) -> None:
        self._light(device.address, lamp)

    def _light(self, address: str, lamp: Lamp | None) -> bool:
        """Lights one lamp of a button and puts out the other; for None both. Whether that could be done."""
        if address in self._lit:
            self._lit.pop(address).cancel()
        if self._open is None:
            return False
        try:
            self._open.light(address, lamp)
        except OSError:
            return False
        if lamp is not None:
            loop = asyncio.get_running_loop()
            self._lit[address] = loop.call_later(self._settings.lamp_s, self._light, address, None)
        return True


def make_press(desk: Desk, address: str) -> Report:
    """The press of a button: of the device that is registered there, and otherwise under the name of its place."""
    device = desk.find(address)
    if device is None:
        desk.tell(address, f"it is pressed, and no device is registered as {desk.bus}/{address}")
        name = f"{desk.bus}-{address}"
        return Report(name, (Signal(name, "pressed"),))
    press = next((event.id for event in device.profile.events.values() if event.press), None)
    lacking = f"it is pressed, and the profile {device.profile.id} has no event with press: true"
    desk.tell(address, lacking if press is None else "")
    return Report(device.id, (Signal(device.id, press or "pressed"),))


def _pause(contacts: Mapping[str, Contact], now: int) -> float:
    """Seconds until one of them must be asked again; a second at most, for who is stuck."""
    due = min((at for one in contacts.values() if (at := one.next_at()) is not None), default=math.inf)
    return max(0.0, min(1.0, (due - now) / 1000))
