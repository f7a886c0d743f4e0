from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from gateway.adapters.mqtt_packets import (
    CUT_BYTES,
    LONGEST_PACKET,
    MalformedPacket,
    PacketReader,
    Received,
    write_pubacks,
    write_publish,
)
from gateway.runtime.ports import Arrived, Outgoing
from gateway.wire import PAYLOAD_LIMIT


class _Publish(Struct, frozen=True):
    topic: str
    payload: bytes
    mid: int
    qos: int = 1
    dup: bool = False
    retain: bool = False
    properties: bytes = b""

    def encode(self, *, is_v5: bool) -> bytes:
        """Straight from the tables of the MQTT specifications (3.1.1 and 5, section 3.3)."""
        topic = self.topic.encode()
        body = struct.pack("!H", len(topic)) + topic
        if self.qos:
            body += struct.pack("!H", self.mid)
        if is_v5:
            body += _length(len(self.properties)) + self.properties
        return bytes([0x30 | self.dup << 3 | self.qos << 1 | self.retain]) + _length(
            len(body) + len(self.payload)
        ) + body + self.payload  # fmt: skip


def _length(number: int) -> bytes:
    found = bytearray()
    while True:
        number, digit = divmod(number, 128)
        found.append(digit + 128 if number else digit)
        if not number:
            return bytes(found)


def _feed(reader: PacketReader, parts: Sequence[bytes]) -> Received:
    whole = Received([], 0, [], [], [])
    for part in parts:
        found = reader.feed(part, 7)
        whole.arrived += found.arrived
        whole.size += found.size
        whole.confirmed += found.confirmed
        whole.other += found.other
        whole.cut += found.cut
    return whole


def _split(stream: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({min(place, len(stream)) for place in places}), len(stream)]
    return [stream[start:stop] for start, stop in pairwise(edges) if stop > start]


_TOPICS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=40)
# A property is an identifier and its value; 0x0B with one byte is a subscription identifier, 0x26 a user property.
_PROPERTIES = st.sampled_from([b"", b"\x0b\x05", b"\x26\x00\x01k\x00\x81" + b"v" * 129])
_PUBLISHES = st.builds(
    _Publish,
    topic=_TOPICS,
    payload=st.binary(max_size=300),
    mid=st.integers(1, 65_535),
    qos=st.sampled_from([0, 1]),
    dup=st.booleans(),
    retain=st.booleans(),
    properties=_PROPERTIES,
)


@given(
    st.booleans(),
    st.lists(st.one_of(_PUBLISHES, st.integers(1, 65_535), st.just("ping")), max_size=12),
    st.lists(st.integers(0, 4_000), max_size=30),
)
def test_the_same_packets_are_read_wherever_the_stream_is_cut(
    is_v5: bool, sent: list[_Publish | int | str], places: list[int]
) -> None:
    stream = b""
    for packet in sent:
        match packet:
            case _Publish():
                stream += packet.encode(is_v5=is_v5)
            case int():
                stream += struct.pack("!BBH", 0x40, 2, packet)
            case _:
                stream += b"\xd0\x00"

    read = _feed(PacketReader(1, 3, is_v5=is_v5), _split(stream, places))

    publishes = [packet for packet in sent if isinstance(packet, _Publish)]
    assert [_fields(one) for one in read.arrived] == [
        (packet.topic, packet.payload, packet.mid if packet.qos else 0, 3, 1, 7, packet.dup) for packet in publishes
    ]
    assert read.size == sum(len(packet.payload) for packet in publishes)
    assert read.confirmed == [(packet, 0) for packet in sent if isinstance(packet, int)]
    assert read.other == [b"\xd0\x00" for packet in sent if packet == "ping"]
    assert read.cut == []


def _fields(one: Arrived) -> tuple[object, ...]:
    return (one.topic, one.payload, one.mid, one.generation, one.session, one.received_at, one.dup)


@given(st.booleans(), st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=10))
def test_any_bytes_are_read_or_refused_and_nothing_else_happens(is_v5: bool, stream: bytes, places: list[int]) -> None:
    reader = PacketReader(0, 1, is_v5=is_v5)
    try:
        read = _feed(reader, _split(stream, places))
    except MalformedPacket:
        return
    assert read.size == sum(len(one.payload) for one in read.arrived) <= len(stream)


@pytest.mark.parametrize(
    "stream",
    [
        b"\x34\x07\x00\x01a\x00\x01xx",  # QoS 2
        b"\x32\x03\x00\x01a",  # no packet id
        b"\x32\x04\x00\xffab",  # a topic longer than the packet
        b"\x30\x01\x00",  # half a topic length
        b"\x32\xff\xff\xff\xff\x01",  # a length of five bytes
    ],
)
def test_what_is_no_publish_as_agreed_is_refused(stream: bytes) -> None:
    with pytest.raises(MalformedPacket):
        PacketReader(0, 1, is_v5=False).feed(stream, 0)


def test_reason_codes_of_refusals_are_read() -> None:
    read = PacketReader(0, 1, is_v5=True).feed(b"\x40\x04\x00\x09\x97\x00" + b"\x40\x03\x00\x0a\x10", 0)

    assert read.confirmed == [(9, 0x97), (10, 0x10)]


@given(st.booleans(), _TOPICS, st.binary(max_size=400), st.integers(1, 65_535), st.booleans())
def test_what_is_written_is_a_publish_at_qos_1(is_v5: bool, topic: str, payload: bytes, mid: int, retain: bool) -> None:
    written = write_publish(Outgoing(topic, payload, retain), mid, is_v5=is_v5)

    assert written == _Publish(topic, payload, mid, retain=retain).encode(is_v5=is_v5)


@given(st.lists(st.integers(1, 65_535), min_size=1, max_size=50))
def test_acknowledgements_are_written_in_their_order(mids: list[int]) -> None:
    assert write_pubacks(mids) == b"".join(struct.pack("!BBH", 0x40, 2, mid) for mid in mids)


@pytest.mark.parametrize("is_v5", [False, True])
@pytest.mark.parametrize("step", [4_096, 65_536, 1_000_003])
def test_a_message_that_is_too_long_is_cut_and_the_stream_goes_on_after_it(is_v5: bool, step: int) -> None:
    long = _Publish("sc/v1/c/a/alarm", b"x" * (LONGEST_PACKET + 5), 5)
    stream = long.encode(is_v5=is_v5) + _Publish("sc/v1/c/a/alarm", b"next", 6).encode(is_v5=is_v5)

    read = _feed(PacketReader(0, 1, is_v5=is_v5), _split(stream, range(0, len(stream), step)))

    assert [(one.mid, len(one.payload) > PAYLOAD_LIMIT) for one in read.arrived] == [(5, True), (6, False)]
    assert len(read.arrived[0].payload) < CUT_BYTES
    assert read.arrived[1].payload == b"next"
    assert [(cut.topic, cut.length > LONGEST_PACKET) for cut in read.cut] == [("sc/v1/c/a/alarm", True)]


def test_a_message_of_five_megabytes_is_read_whole() -> None:
    sent = _Publish("sc/v1/c/a/telemetry", b"y" * 5_000_000, 5)
    stream = sent.encode(is_v5=False)

    read = _feed(PacketReader(1, 1, is_v5=False), _split(stream, range(0, len(stream), 65_536)))

    assert [one.payload for one in read.arrived] == [sent.payload]
