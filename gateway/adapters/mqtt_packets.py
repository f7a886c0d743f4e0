"""The packets of MQTT that come and go by the thousand, read and written in bulk. No I/O here.

Only PUBLISH and PUBACK are understood; every other packet is passed on as it is, for paho.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from gateway.runtime.ports import Arrived, Outgoing
from gateway.wire import PAYLOAD_LIMIT

LONGEST_PACKET: Final = 8 * 1024 * 1024
CUT_BYTES: Final = 2 * PAYLOAD_LIMIT
"""Of a message longer than LONGEST_PACKET only so much is kept, which is still too long to be decoded: it goes the way
of all that cannot be, and is quarantined, counted and acknowledged. Were it refused here, it would come for ever."""

PINGREQ: Final = b"\xc0\x00"

_PUBLISH: Final = 0x30
_PUBACK: Final = 0x40
_PUBACK_WORD: Final = 0x4002_0000


class MalformedPacket(Exception):
    """What was received is not MQTT as agreed."""


class Cut(Struct, frozen=True):
    """A message of ``length`` bytes on ``topic`` that was cut short."""

    topic: str
    length: int


class Received(Struct):
    """What one read brought. ``size`` is the length of the arrived payloads in bytes; ``confirmed`` are (packet id,
    reason code) of our own messages; ``other`` are whole packets that are paho's business."""

    arrived: list[Arrived]
    size: int
    confirmed: list[tuple[int, int]]
    other: list[bytes]
    cut: list[Cut]


class PacketReader:
    """Takes packets off one connection's stream, wherever the network may have cut it."""

    def __init__(self, session: int, generation: int, *, is_v5: bool) -> None:
        """``session`` and ``generation`` are what arrived messages are marked with."""
        self._session = session
        self._generation = generation
        self._is_v5 = is_v5
        self._parts: list[bytes] = []
        self._missing = 0
        self._swallow = 0

    def feed(self, data: bytes, received_at: int) -> Received:
        """Reads what is complete with ``data``, and keeps the rest for the next call. Raises MalformedPacket."""
        received = Received([], 0, [], [], [])
        if self._swallow:
            swallowed = min(self._swallow, len(data))
            self._swallow -= swallowed
            data = data[swallowed:]
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return received
            data = b"".join(self._parts)
            self._parts.clear()
        self._missing = 0
        used = self._read_packets(data, received_at, received)
        if used < len(data):
            self._parts.append(data[used:])
        return received

    def _read_packets(self, data: bytes, received_at: int, received: Received) -> int:
        """Reads whole packets into ``received``, and returns where the first incomplete one begins. `_missing` is then
        at most the number of bytes that it lacks."""
        session, generation, is_v5 = self._session, self._generation, self._is_v5
        arrived = received.arrived
        at, end = 0, len(data)
        while end - at >= 2:
            head, length, body = data[at], data[at + 1], at + 2
            if length > 127:
                length, body = _read_length(data, at + 1)
                if not body:
                    break
            stop = body + length
            kind = head & 0xF0
            if stop > end:
                if kind == _PUBLISH and length > LONGEST_PACKET:
                    return self._cut(data, at, body, length, received_at, received)
                self._missing = stop - end
                break
            if kind == _PUBLISH:
                topic, payload, mid = _read_publish(data, head, body, stop, is_v5)
                arrived.append(Arrived(topic, payload, mid, generation, session, received_at, head & 0x08 != 0))
                received.size += len(payload)
            elif kind == _PUBACK and length >= 2:
                received.confirmed.append((data[body] << 8 | data[body + 1], data[body + 2] if length > 2 else 0))
            else:
                received.other.append(data[at:stop])
            at = stop
        return at

    def _cut(self, data: bytes, at: int, body: int, length: int, received_at: int, received: Received) -> int:
        """Reads the beginning of a message that is too long, once enough of it is there, and drops the rest as it
        comes, so that nobody can fill the memory with one message."""
        kept = at + CUT_BYTES
        if kept > len(data):
            self._missing = kept - len(data)
            return at
        topic, payload, mid = _read_publish(data, data[at], body, kept, self._is_v5)
        is_repeat = data[at] & 0x08 != 0
        received.arrived.append(Arrived(topic, payload, mid, self._generation, self._session, received_at, is_repeat))
        received.size += len(payload)
        received.cut.append(Cut(topic, length))
        self._swallow = body + length - len(data)
        return len(data)


def write_publish(message: Outgoing, mid: int, *, is_v5: bool) -> bytes:
    """A PUBLISH at QoS 1 with packet id ``mid``."""
    topic = message.topic.encode()
    properties = b"\x00" if is_v5 else b""
    length = 2 + len(topic) + 2 + len(properties) + len(message.payload)
    parts = (
        bytes((_PUBLISH | 0x02 | message.retain,)),
        _write_length(length),
        struct.pack("!H", len(topic)),
        topic,
        struct.pack("!H", mid),
        properties,
        message.payload,
    )
    return b"".join(parts)


def write_pubacks(mids: Sequence[int]) -> bytes:
    """One PUBACK (of success) for each packet id, in this order."""
    return struct.pack(f"!{len(mids)}I", *[_PUBACK_WORD | mid for mid in mids])


def _read_publish(data: bytes, head: int, body: int, stop: int, is_v5: bool) -> tuple[str, bytes, int]:
    """Topic, payload and packet id (0 at QoS 0) of the PUBLISH whose body lies from ``body`` to ``stop``."""
    if stop - body < 2:
        raise MalformedPacket("a PUBLISH without a topic")
    at = body + 2 + (data[body] << 8 | data[body + 1])
    topic = data[body + 2 : at]
    mid = 0
    qos = head & 0x06
    if qos:
        if qos != 0x02 or at + 2 > stop:
            raise MalformedPacket("a PUBLISH at a QoS that was never asked for, or without packet id")
        mid = data[at] << 8 | data[at + 1]
        at += 2
    if is_v5:
        if at >= stop:
            raise MalformedPacket("a PUBLISH without properties")
        skip = data[at]
        at += 1
        if skip:
            # We announced no topic aliases, so no property changes what the message means to us.
            skip, at = _read_length(data, at - 1) if skip > 127 else (skip, at)
            at += skip
    if at > stop:
        raise MalformedPacket("a PUBLISH that ends before its payload")
    # Brokers let no broken UTF-8 through; should one do so, the topic is one that no source has, and is quarantined.
    return topic.decode("utf-8", "replace"), data[at:stop], mid


def _read_length(data: bytes, at: int) -> tuple[int, int]:
    """MQTT's variable byte integer at ``at`` and where it ends; the end is 0 when there is more of it to come."""
    length = 0
    for place in range(at, min(at + 4, len(data))):
        byte = data[place]
        length |= (byte & 127) << 7 * (place - at)
        if byte < 128:
            return length, place + 1
    if len(data) - at >= 4:
        raise MalformedPacket("a length of more than four bytes")
    return 0, 0


def _write_length(length: int) -> bytes:
    digits = bytearray()
    while True:
        length, digit = length >> 7, length & 127
        digits.append(digit | 128 if length else digit)
        if not length:
            return bytes(digits)
