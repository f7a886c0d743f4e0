"""Nonsense of all kinds for the mappers of drivers, and what must hold for whatever they make of it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from typing import Final

from edge.ports import Report
from gateway.wire import Lane, Message, decode, encode_message, topic_of

# fmt: off
VALUES: Final[tuple[object, ...]] = (
    None, True, False, 0, 1, -1, 21.5, -0.0, 1e308, 10**400, -(2**70), 2**63, float("nan"), float("-inf"), "", "on",
    "OFF", "single", "release", "鲁B12345", "x" * 255, "x" * 5000, "a\0b", "\ud800", "21.5", "NaN", "/9j/4A" * 80,
    [], {}, [[]], [1, 2], ["鲁B12345", 0.9], [0.1] * 128, {"Action": "SINGLE"}, {"Temperature": 5}, {"a": {"b": {}}},
)
# fmt: on


def random_json(chance: random.Random, keys: Sequence[str], depth: int = 2) -> object:
    """A value as a device might send it: mostly an object with some of ``keys``."""
    kind = chance.random()
    if kind < 0.75 and depth:
        some = chance.sample(keys, chance.randrange(0, min(6, len(keys)) + 1))
        return {key: random_json(chance, keys, depth - 1) for key in some}
    if kind < 0.8 and depth:
        return [random_json(chance, keys, depth - 1) for _ in range(chance.randrange(3))]
    return chance.choice(VALUES)


def random_bytes(chance: random.Random, keys: Sequence[str]) -> bytes:
    """The same as bytes, one in four torn, garbled or no JSON at all."""
    payload = json.dumps(random_json(chance, keys)).encode()
    match chance.randrange(16):
        case 0:
            return payload[: chance.randrange(len(payload) + 1)]
        case 1:
            return chance.randbytes(chance.randrange(40))
        case 2:
            at = chance.randrange(len(payload))
            return payload[:at] + chance.randbytes(2) + payload[at + 1 :]
        case 3:
            return b"[" * chance.choice((10, 2000))
        case _:
            return payload


def check_fit(reports: Iterable[Report]) -> None:
    """The gateway's own decoder takes all of it: nothing in it is bad, and nothing is missing."""
    signals = tuple(signal for report in reports for signal in report.signals)
    measurements = [one for report in reports for one in report.measurements]
    if not signals and not measurements:
        return
    message = Message("c001", "agent-1", Lane.ALARM, "spool", 1, 1, 1000, 1000, signals, measurements, (), 0)
    found = decode(topic_of("c001", "agent-1", "alarm"), encode_message(message))
    assert isinstance(found, Message), (found, message)
    assert not found.bad, (found.bad, message)
    assert found.signals == signals
    assert [(one.name, one.value) for one in found.measurements] == [(one.name, one.value) for one in measurements]
