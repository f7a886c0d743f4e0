"""What the tests of the spool share: a clock moved by hand, alarms and readings, and the gateway's own decoder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge.spool import Entry, Limits, Spool, Stored
from gateway.core.state import Cursor
from gateway.wire import Lane, Measurement, Message, Receipt, Signal, decode, encode_message, topic_of

MIB = 1024 * 1024
SMALL = Limits(max_bytes=2 * MIB, alarm_reserve_bytes=MIB)
"""The smallest spool that there is."""

UNPACKED = Limits(max_bytes=2 * MIB, alarm_reserve_bytes=MIB, pack_ms=0)
"""Each call's telemetry is a message of its own at once."""

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A folder for many short lives that need no disk, where the machine has one."""

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


class Gateway:
    """What the gateway does with a source's messages: its own cursor and its own decoder, and what it took in."""

    def __init__(self) -> None:
        self._cursors: dict[tuple[str, Lane], Cursor] = {}
        self.taken: list[Message] = []

    def receive(self, stored: Stored, floor: int) -> Receipt:
        """The receipt for a message that arrived."""
        return self.take(at_gateway(stored, floor))

    def take(self, message: Message) -> Receipt:
        """The receipt for a message."""
        key = message.spool, message.lane
        cursor = self._cursors.setdefault(key, Cursor("agent-1", message.spool, message.lane))
        answer = cursor.admit(message.seq, message.digest, message.floor)
        if answer == "fresh":
            cursor.take(message.seq, message.digest, message.floor)
            self.taken.append(message)
        rejected = () if answer in ("fresh", "repeat") else ((message.seq, f"seq-{answer}"),)
        return Receipt(message.lane, message.spool, cursor.contiguous, tuple(sorted(cursor.above)), rejected)

    def drain(self, spool: Spool, window: int = 32) -> int:
        """Sends all that a spool holds, ``window`` messages at a time, until nothing is left; returns how often the
        spool took a new id."""
        renewals = 0
        for lane in Lane:
            while found := spool.waiting(lane, limit=window):
                spool.note_sent(lane, [one.seq for one in found])
                floor = spool.floor(lane)
                # All of a window arrive before the first receipt does.
                for answer in [self.receive(one, floor) for one in found]:
                    renewals += spool.settle(answer).renewed
        return renewals

    @property
    def events(self) -> list[str]:
        """The ids of all events, as they came."""
        return [
            f"{message.source}/{message.spool}/{message.lane}/{message.seq}/{index}"
            for message in self.taken
            for index in range(len(message.signals))
        ]

    @property
    def lost(self) -> int:
        """Messages that a gap was closed over."""
        return sum(cursor.lost for cursor in self._cursors.values())

    @property
    def pressed(self) -> list[str]:
        """The buttons of all presses, as they came."""
        return [signal.device for message in self.taken for signal in message.signals]

    @property
    def readings(self) -> int:
        return sum(len(message.measurements) for message in self.taken)
