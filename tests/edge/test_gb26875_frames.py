"""Frames of GB/T 26875.3: the standard's examples, torn and glued streams, and whatever else may arrive."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    Operation,
    Receiver,
    Unreadable,
    answer,
    checksum,
    encode,
    read_objects,
)

_HEAD: Final = "40 40 01 00 01 01 {time} {source} {destination} "
_CENTRE, _DEVICE = "38 5B 01 00 00 00", "79 03 00 00 00 00"
_AT, _LATER = "20 3A 09 1A 09 0C", "23 3A 09 1A 09 0C"


def up(rest: str, time: str = _AT) -> bytes:
    return bytes.fromhex(_HEAD.format(time=time, source=_DEVICE, destination=_CENTRE) + rest)


def down(rest: str, time: str = _AT) -> bytes:
    return bytes.fromhex(_HEAD.format(time=time, source=_CENTRE, destination=_DEVICE) + rest)


SMOKE: Final = up("30 00 02 02 01 01 01 28 0A 00 02 00 02 00" + " 20" * 30 + " 00 02 3A 09 1A 09 0C 46 23 23")
ACK: Final = down("00 00 03 AB 23 23", _LATER)
NAK: Final = down("00 00 06 AE 23 23", _LATER)
POWER: Final = up("09 00 02 15 01 08 02 3A 09 1A 09 0C 42 23 23")
INSPECTED: Final = up("0A 00 02 18 01 20 01 02 3A 09 1A 09 0C 5F 23 23")
READ: Final = down("03 00 04 51 01 00 FE 23 23")
ANSWER: Final = up("09 00 05 15 01 08 02 3A 09 1A 09 0C 45 23 23")
INITIALISE: Final = down("03 00 01 59 01 00 03 23 23")
INSPECT: Final = down("03 00 01 5B 01 0A 0F 23 23")
DEVICE_ACK: Final = up("00 00 03 AB 23 23", _LATER)
EXAMPLES: Final = (SMOKE, ACK, NAK, POWER, INSPECTED, READ, ANSWER, INITIALISE, INSPECT, DEVICE_ACK)


def one(raw: bytes) -> Frame:
    [frame] = Receiver().feed(raw)
    assert isinstance(frame, Frame)
    return frame


@pytest.mark.parametrize("raw", EXAMPLES)
def test_every_example_is_a_frame_and_is_written_as_it_stands(raw: bytes) -> None:
    frame = one(raw)
    assert encode(frame) == raw
    assert {frame.source, frame.destination} == {889, 88_888}
    assert frame.serial == 1


def test_smoke_in_zone_ten_place_two_is_on_fire() -> None:
    flag, [found] = read_objects(one(SMOKE).data)
    assert flag == 2
    assert found == ComponentStatus(1, 1, 40, 10, 2, Condition.FIRE, "", "2012-09-26T09:58:02")


def test_the_devices_own_state_and_an_inspection_that_was_answered() -> None:
    at = "2012-09-26T09:58:02"
    assert read_objects(one(POWER).data) == (21, [DeviceStatus(DeviceCondition.MAIN_POWER_FAULT, at)])
    assert read_objects(one(ANSWER).data) == (21, [DeviceStatus(DeviceCondition.MAIN_POWER_FAULT, at)])
    assert read_objects(one(INSPECTED).data) == (24, [DeviceOperation(Operation.CONFIRMED, 1, at)])


def test_an_acknowledgement_has_the_serial_and_the_addresses_exchanged() -> None:
    moment = datetime(2012, 9, 26, 9, 58, 35, tzinfo=UTC)
    assert encode(answer(one(SMOKE), Command.ACK, moment)) == ACK
    assert encode(answer(one(SMOKE), Command.NAK, moment)) == NAK


def test_analog_values_have_their_units_and_signs() -> None:
    body = bytes.fromhex("01 01 28 0A 00 02 00 03 9C FF 02 3A 09 1A 09 0C")
    _, [cold] = read_objects(bytes((3, 1)) + body)
    assert cold == Analog(1, 1, 40, 10, 2, 3, "temperature", -10.0, "Cel", "2012-09-26T09:58:02")
    _, [own] = read_objects(bytes((3, 1)) + body[:7] + bytes((200,)) + body[8:])
    assert isinstance(own, Analog)
    assert (own.name, own.value) == ("", -100.0)


def test_descriptions_are_chinese() -> None:
    text = "三层走廊感烟".encode("gb18030").ljust(31, b"\0")
    body = bytes((1, 1, 40, 10, 0, 2, 0, 0, 0)) + text + bytes.fromhex("02 3A 09 1A 09 0C")
    _, [found] = read_objects(bytes((2, 1)) + body)
    assert isinstance(found, ComponentStatus)
    assert found.text == "三层走廊感烟"


@pytest.mark.parametrize(
    "data",
    [b"", b"\x02", bytes((2, 0)), bytes((2, 23)) + bytes(46 * 23), bytes((2, 1)) + bytes(45), bytes((2, 1)) + bytes(47),
     bytes((99, 1, 0)), bytes((6, 1, 1, 1, 200, 65))],
)  # fmt: skip
def test_what_is_not_as_the_standard_says_is_told_in_words(data: bytes) -> None:
    with pytest.raises(Unreadable):
        read_objects(data)


def test_a_time_that_is_none_takes_nothing_else_with_it() -> None:
    data = one(POWER).data[:-6] + bytes((99, 99, 99, 99, 99, 99))
    assert read_objects(data) == (21, [DeviceStatus(DeviceCondition.MAIN_POWER_FAULT, None)])


@given(st.lists(st.sampled_from(EXAMPLES), max_size=6), st.lists(st.integers(1, 40), max_size=60))
def test_however_a_stream_is_torn_it_has_the_same_frames(frames: list[bytes], cuts: list[int]) -> None:
    stream, receiver, found = b"".join(frames), Receiver(), []
    for cut in cuts:
        found += receiver.feed(stream[:cut])
        stream = stream[cut:]
    found += receiver.feed(stream)
    assert [encode(frame) for frame in found if isinstance(frame, Frame)] == frames
    assert receiver.waiting == 0


@given(st.binary(max_size=80), st.sampled_from(EXAMPLES))
def test_behind_garbage_the_next_frames_are_found(garbage: bytes, raw: bytes) -> None:
    # Two frames more than any half of one in the garbage can hide.
    found = Receiver().feed(garbage + raw * 40)
    assert any(isinstance(one, Frame) and encode(one) == raw for one in found)


def test_a_damaged_frame_is_told_with_its_head_and_hides_no_other() -> None:
    spoilt = bytearray(SMOKE)
    spoilt[40] ^= 0xFF
    garbage, frame = Receiver().feed(bytes(spoilt) + POWER)
    assert garbage == Garbage(
        "bad-checksum", len(SMOKE), one(bytes(spoilt[:-3]) + bytes((checksum(bytes(spoilt[2:-3])),)) + b"##")
    )
    assert isinstance(frame, Frame)
    assert encode(frame) == POWER


def test_a_hundred_thousand_streams_raise_nothing() -> None:
    rng = random.Random(26875)
    receiver = Receiver()
    frames = 0
    for _ in range(100_000):
        match rng.randrange(4):
            case 0:
                raw = bytearray(rng.randbytes(rng.randrange(60)))
            case 1:
                raw = bytearray(rng.choice(EXAMPLES))
                for _ in range(rng.randrange(1, 4)):
                    raw[rng.randrange(len(raw))] = rng.randrange(256)
            case 2:
                raw = bytearray(rng.choice(EXAMPLES)[: rng.randrange(40)])
            case _:
                data = rng.randbytes(rng.randrange(80))
                raw = bytearray(encode(Frame(rng.randrange(65536), rng.randrange(2**48), 0, rng.randrange(256), data)))
        for found in receiver.feed(bytes(raw)):
            if isinstance(found, Frame):
                frames += 1
                try:
                    flag, objects = read_objects(found.data)
                except Unreadable:
                    continue
                assert objects, flag
        assert receiver.waiting <= 2048
    assert frames > 20_000
