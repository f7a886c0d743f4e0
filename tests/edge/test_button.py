"""What is a press, decided without a device; and the driver as far as there is a real device to press."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.drivers import button
from edge.drivers.button import STUCK_MS, ButtonDriver, Change, Contact, Settings, make_press
from edge.ports import Carried, Lamp, Order, Outcome, Report
from gateway.errors import GatewayError
from gateway.wire import Signal
from tests.edge.desk import ListDesk, shipped

PROFILES: Final = shipped().profiles
DESK: Final = Carried("sos-desk", PROFILES["fixed-sos"], "counter", "desk", "public-1")


def presses(contact: Contact, *changes: tuple[int, bool], until: int = 10_000, every: int = 1) -> list[int]:
    """At what times presses were made, if the contact changes so and is asked every so often."""
    waiting = list(changes)
    found = []
    for now in range(until):
        while waiting and waiting[0][0] <= now:
            if contact.change(waiting.pop(0)[1], now):
                found.append(now)
        if now % every == 0 and contact.decide(now):
            found.append(now)
    return found


def test_a_press_counts_when_the_contact_goes_down_and_once() -> None:
    assert presses(Contact(50), (100, True), (400, False)) == [100]
    assert presses(Contact(50), (100, True), (100, True), (5000, True)) == [100]


def test_a_tap_shorter_than_the_debounce_counts() -> None:
    assert presses(Contact(50), (100, True), (101, False)) == [100]


def test_bounces_are_one_press_and_a_second_press_is_another() -> None:
    bouncing = (
        (100, True),
        (104, False),
        (106, True),
        (110, False),
        (111, True),
        (300, False),
        (303, True),
        (305, False),
    )
    assert presses(Contact(50), *bouncing) == [100]
    assert presses(Contact(50), *bouncing, (355, True), (400, False)) == [100, 355]
    assert presses(Contact(50), *bouncing, (354, True), (400, False)) == [100]


def test_what_must_be_held_counts_when_it_was_held() -> None:
    assert presses(Contact(50, 1000), (100, True), (1500, False)) == [1100]
    assert presses(Contact(50, 1000), (100, True), (1099, False)) == []
    assert presses(Contact(50, 1000), (100, True), (1100, False)) == [1100]
    # It may bounce while it is held; a real release begins anew.
    assert presses(Contact(50, 1000), (100, True), (600, False), (630, True), (1500, False)) == [1100]
    assert presses(Contact(50, 1000), (100, True), (600, False), (660, True), (1500, False)) == []


def test_it_does_not_matter_that_it_is_asked_late() -> None:
    assert presses(Contact(50, 1000), (100, True), (1500, False), every=4000) == [1500]
    contact = Contact(50, 1000)
    assert not contact.change(True, 0)
    assert not contact.change(False, 1000 - 1)
    assert not contact.decide(99_000)
    assert not contact.change(True, 99_000)
    assert contact.decide(200_000)
    assert not contact.decide(200_001)


def test_it_says_when_it_is_to_be_asked_again() -> None:
    contact = Contact(50, 1000)
    assert contact.next_at() is None
    contact.change(True, 100)
    assert contact.next_at() == 1100
    assert contact.decide(1100)
    assert contact.next_at() is None
    contact.change(False, 1200)
    assert contact.next_at() == 1250
    contact.decide(1250)
    assert contact.next_at() is None


def test_what_stays_down_is_stuck() -> None:
    contact = Contact(50)
    contact.change(True, 100)
    assert not contact.is_stuck(100 + STUCK_MS - 1)
    assert contact.is_stuck(100 + STUCK_MS)
    contact.change(False, 100 + STUCK_MS)
    assert not contact.is_stuck(100 + STUCK_MS)


CHANGES = st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=12)


@given(CHANGES, st.integers(1, 100), st.integers(0, 400), st.lists(st.integers(0, 4000), max_size=12))
def test_asking_more_often_makes_no_press_more_and_none_less(
    gaps: list[tuple[int, bool]], debounce_ms: int, hold_ms: int, asked: list[int]
) -> None:
    now = 0
    changes = []
    for gap, is_down in gaps:
        now += gap
        changes.append((now, is_down))
    last = now + hold_ms + debounce_ms
    seldom, often = Contact(debounce_ms, hold_ms), Contact(debounce_ms, hold_ms)
    few = sum(seldom.change(is_down, at) for at, is_down in changes) + seldom.decide(last)
    many = 0
    moments = sorted([(at, 0, is_down) for at, is_down in changes] + [(at, 1, False) for at in asked if at <= last])
    # Among equal times changes keep their order: what happened at one instant happened as it was said.
    moments.sort(key=lambda moment: (moment[0], moment[1]))
    order = iter(changes)
    for at, kind, _ in moments:
        many += often.decide(at) if kind else often.change(next(order)[1], at)
    assert few == many + often.decide(last)
    assert few <= sum(is_down for _, is_down in changes)
    assert few or hold_ms or not any(is_down for _, is_down in changes)


def test_a_press_is_the_registered_devices_and_otherwise_under_the_name_of_its_place() -> None:
    desk = ListDesk("counter", DESK)
    assert make_press(desk, "desk") == Report("sos-desk", (Signal("sos-desk", "pressed"),))
    assert make_press(desk, "door") == Report("counter-door", (Signal("counter-door", "pressed"),))
    assert desk.troubles == {"door": "it is pressed, and no device is registered as counter/door"}
    desk.devices.append(Carried("lamp", PROFILES["lift"], "counter", "door", "public-1"))
    assert make_press(desk, "door") == Report("lamp", (Signal("lamp", "pressed"),))
    assert "no event with press: true" in desk.troubles["door"]


async def test_a_press_that_the_disk_refuses_is_tried_until_it_is_taken() -> None:
    desk, waiting = ListDesk("counter", DESK), asyncio.Queue[str]()
    desk.full = True
    taking = asyncio.create_task(ButtonDriver(keyboard()).take_presses(desk, waiting))
    for _ in range(2):
        waiting.put_nowait("desk")
    await desk.wait_until(lambda: len(desk.refused) >= 2)
    assert desk.troubles == {"": "a press cannot be stored: the disk is full"}
    desk.full = False
    await desk.wait_until(lambda: len(desk.reports) == 2 and not desk.troubles)
    assert desk.signals("sos-desk") == [Signal("sos-desk", "pressed")] * 2
    taking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await taking


def keyboard(path: str = "/dev/input/event0", **changes: object) -> Settings:
    return Settings.model_validate(
        {"driver": "button", "bus": "counter", "keyboard": path, "keys": {"KEY_F12": "desk"}} | changes
    )


def chip(**changes: object) -> Settings:
    return Settings.model_validate(
        {"driver": "button", "bus": "counter", "gpio": "/dev/gpiochip0", "lines": {"17": "desk"}} | changes
    )


class Board:
    """Two buttons, ``desk`` and ``door``, at the end of a real pipe: ``D`` is the desk's down and ``d`` its up, ``O``
    and ``o`` the door's. It can be pulled out and plugged in again."""

    def __init__(self) -> None:
        self.opened = 0
        self.lamps: list[tuple[str, Lamp | None]] = []
        self._writer = -1

    def open(self) -> _Plugged:
        """What the driver asks for. Raises OSError while it is pulled out."""
        if self._writer < 0:
            raise OSError(19, "No such device")
        self.opened += 1
        return _Plugged(self, self._reader)

    def plug_in(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)

    def pull_out(self) -> None:
        os.close(self._writer)
        self._writer = -1

    def move(self, changes: bytes) -> None:
        os.write(self._writer, changes)


class _Plugged:
    """Implements `edge.drivers.button.Contacts`."""

    def __init__(self, board: Board, reader: int) -> None:
        self._board = board
        self._reader = reader

    def fileno(self) -> int:
        return self._reader

    def read(self) -> list[Change]:
        changes = os.read(self._reader, 100)
        if not changes:
            raise OSError(19, "No such device")
        return [Change("desk" if chr(one) in "Dd" else "door", chr(one).isupper()) for one in changes]

    def light(self, address: str, lamp: Lamp | None) -> None:
        self._board.lamps.append((address, lamp))

    def close(self) -> None:
        os.close(self._reader)


@pytest.fixture
async def board(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Board, ListDesk, ButtonDriver]]:
    """A board that is not plugged in yet, and the driver that waits for it."""
    monkeypatch.setattr(button, "REOPEN_S", 0.05)
    made, desk = Board(), ListDesk("counter", DESK)
    lines = {"17": "desk", "27": "door"}
    driver = ButtonDriver(chip(lines=lines, lamps={"desk": {"recorded": 22}}, lamp_s=0.3), made.open)
    task = asyncio.create_task(driver.run(desk))
    try:
        await desk.wait_until(lambda: desk.troubles == {"": "/dev/gpiochip0 cannot be opened: No such device"})
        made.plug_in()
        await desk.wait_until(lambda: not desk.troubles)
        yield made, desk, driver
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_contact_that_moves_is_a_press_on_the_disk(board: tuple[Board, ListDesk, ButtonDriver]) -> None:
    made, desk, driver = board
    made.move(b"DdDdD")  # it bounces
    await desk.wait_until(lambda: desk.signals("sos-desk"))
    made.move(b"d")
    made.move(b"O")
    await desk.wait_until(lambda: desk.signals("counter-door"))
    await asyncio.sleep(2 * 0.05)  # the desk's contact is up for longer than it may bounce
    made.move(b"Dd")
    await desk.wait_until(lambda: len(desk.signals("sos-desk")) == 2)
    assert desk.signals("counter-door") == [Signal("counter-door", "pressed")]
    # Its lamp is put out by the press, lit by the receipt, and goes out by itself.
    await driver.show(DESK, Lamp.RECORDED)
    await desk.wait_until(lambda: made.lamps[-2:] == [("desk", Lamp.RECORDED), ("desk", None)])


async def test_what_is_pulled_out_is_told_and_found_again(board: tuple[Board, ListDesk, ButtonDriver]) -> None:
    made, desk, driver = board
    made.move(b"D")
    made.pull_out()
    await desk.wait_until(lambda: "" in desk.troubles)
    assert ("", "/dev/gpiochip0 is gone: No such device") in desk.told
    assert desk.signals("sos-desk") == [Signal("sos-desk", "pressed")], "what was said before is not lost"
    assert (await driver.perform(Order("c", DESK, "lamp", {"show": "recorded"}))).outcome == "failed"
    made.plug_in()
    await desk.wait_until(lambda: not desk.troubles)
    made.move(b"D")
    await desk.wait_until(lambda: len(desk.signals("sos-desk")) == 2)
    assert made.opened == 2
    assert (await driver.perform(Order("c", DESK, "lamp", {"show": "recorded"}))).outcome == "done"


async def test_a_contact_that_stays_down_is_told(
    board: tuple[Board, ListDesk, ButtonDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(button, "STUCK_MS", 100)
    made, desk, _ = board
    made.move(b"D")
    await desk.wait_until(lambda: "is it stuck?" in desk.troubles.get("desk", ""))
    made.move(b"d")
    await desk.wait_until(lambda: not desk.troubles)
    assert desk.signals("sos-desk") == [Signal("sos-desk", "pressed")]


@pytest.mark.parametrize(("settings", "package"), [(keyboard(), "evdev"), (chip(), "gpiod")])
async def test_a_missing_library_is_named_and_how_to_get_it(settings: Settings, package: str) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed here, so it is not missing")
    with pytest.raises(GatewayError, match=f"the Python package {package} is missing.*pip install {package}"):
        await ButtonDriver(settings).run(ListDesk("counter"))


async def test_a_button_is_given_no_command_but_for_its_lamp() -> None:
    driver = ButtonDriver(keyboard())
    assert (await driver.perform(Order("c", DESK, "sing", {}))).outcome == "refused"
    assert (await driver.perform(Order("c", DESK, "lamp", {"show": "blink"}))).outcome == "refused"
    lacking = await driver.perform(Order("c", DESK, "lamp", {"show": "coming"}))
    assert lacking == Outcome("refused", "the button desk has no lamp; add it under lamps")
    driver = ButtonDriver(chip(lamps={"desk": {"recorded": 22, "coming": 23}}))
    closed = await driver.perform(Order("c", DESK, "lamp", {"show": "coming"}))
    assert closed == Outcome("failed", "/dev/gpiochip0 is not open")
    await driver.show(DESK, Lamp.RECORDED)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"keyboard": "/dev/input/event0"},
        {"keyboard": "/dev/input/event0", "keys": {"F12": "desk"}},
        {"keyboard": "/dev/input/event0", "keys": {"KEY_F12": "Desk"}},
        {"keyboard": "/dev/input/event0", "keys": {"KEY_F12": "desk"}, "gpio": "/dev/gpiochip0"},
        {"gpio": "/dev/gpiochip0"},
        {"gpio": "/dev/gpiochip0", "lines": {"-1": "desk"}},
        {"gpio": "/dev/gpiochip0", "lines": {"17": "desk"}, "lamps": {"desk": {"recorded": 17}}},
        {"gpio": "/dev/gpiochip0", "lines": {"17": "desk"}, "lamps": {"desk": {"green": 18}}},
        {"keyboard": "/dev/input/event0", "keys": {"KEY_F12": "desk"}, "hold": 5},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"driver": "button", "bus": "counter", **wrong})


async def test_a_key_of_a_real_keyboard_is_pressed() -> None:
    """By a keyboard that the kernel makes of our own key strokes (uinput)."""
    if not os.access("/dev/uinput", os.W_OK) or importlib.util.find_spec("evdev") is None:
        pytest.skip("no /dev/uinput that may be written, or no evdev: no real key was pressed")
    evdev: Any = importlib.import_module("evdev")
    codes = evdev.ecodes
    with evdev.UInput({codes.EV_KEY: [codes.KEY_F12, codes.KEY_A]}, name="edge-button-test") as keys:
        path = keys.device.path
        await asyncio.to_thread(_wait_for_file, Path(path))
        desk = ListDesk("counter", DESK)
        task = asyncio.create_task(ButtonDriver(keyboard(path)).run(desk))
        try:
            await asyncio.sleep(0.3)
            for key, value in ((codes.KEY_A, 1), (codes.KEY_F12, 1), (codes.KEY_F12, 0), (codes.KEY_F12, 1)):
                keys.write(codes.EV_KEY, key, value)
                keys.syn()
            await desk.wait_until(lambda: desk.reports)
            await asyncio.sleep(0.2)
            assert desk.signals("sos-desk") == [Signal("sos-desk", "pressed")]
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _wait_for_file(path: Path) -> None:
    end = time.monotonic() + 5
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)
