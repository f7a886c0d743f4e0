"""What the tests of the spool share: a clock moved by hand, alarms and readings, and the gateway's own decoder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge.spool import Entry, Limits, Spool, Stored
from gateway.wire import Lane, Measurement, Message, Receipt, Signal, decode, encode_message, topic_of

MIB = 1024 * 1024
SMALL = Limits(max_bytes=2 * MIB, alarm_reserve_bytes=MIB)
"""The smallest spool that there is."""

UNPACKED = Limits(max_bytes=2 * MIB, alarm_reserve_bytes=MIB, pack_ms=0)
"""Each call's telemetry is a message of its own at once."""

T0 = 1_763_888_888_000


class Steady:
    """Milliseconds that go forward when they are told to."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def press(button: str, taken_at: int = T0) -> Entry:
    return Entry(Lane.ALARM, taken_at, (Signal(button, "pressed", {"keys": 1}),))


def reading(name: str, value: float, taken_at: int = T0) -> Entry:
    return Entry(Lane.TELEMETRY, taken_at, (), (Measurement(name, value, "Cel"),))


def pack(count: int, taken_at: int = T0) -> Entry:
    """Some 20 bytes of content a reading."""
    return Entry(
        Lane.TELEMETRY, taken_at, (), tuple(Measurement(f"d{i:04}:temp", 20.5 + i, "Cel") for i in range(count))
    )


def at_gateway(stored: Stored, floor: int = 0, sent_at: int = T0) -> Message:
    """The message as the gateway's own decoder reads it off the wire."""
    payload = encode_message(stored.stamp("c001", "agent-1", sent_at, floor))
    found = decode(topic_of("c001", "agent-1", stored.lane), payload)
    assert isinstance(found, Message), found
    assert not found.bad
    return found


def receipt(spool: Spool, lane: Lane, seq: int, above: Iterable[int] = (), **rejected: str) -> Receipt:
    """``rejected`` as ``seq_7="reason"``."""
    refused = tuple((int(name.removeprefix("seq_")), reason) for name, reason in rejected.items())
    return Receipt(lane, spool.id, seq, tuple(above), refused)


def buttons(stored: Iterable[Stored]) -> list[str]:
    return [signal.device for one in stored for signal in one.signals]


def held(spool: Spool, lane: Lane) -> list[Stored]:
    """All messages of a lane, as far as they are handed out."""
    found: list[Stored] = []
    while more := spool.waiting(lane, found[-1].seq if found else 0, 100):
        found += more
    return found


def count_readings(stored: Iterable[Stored]) -> int:
    return sum(len(one.measurements) + len(one.signals) for one in stored)


def size_of(path: Path) -> int:
    return path.stat().st_size
