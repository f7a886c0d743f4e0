"""How long the wire takes: `python -m tests.wire.bench`.

Microseconds, the best of many short rounds, which other work on the machine disturbs least.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import msgspec

from gateway.wire import Lane, Message, decode, encode_message, topic_of
from tests.wire.worlds import envelope

ROUNDS = 100


def time_us(call: Callable[[], object]) -> float:
    timer = timeit.Timer(call)
    number = max(1, timer.autorange()[0] // 100)
    return min(timer.repeat(ROUNDS, number)) / number * 1e6


def bodies() -> dict[str, tuple[str, bytes]]:
    """Messages as sources send them, by what they are."""
    one = [{"bn": "hydrant-0042:", "n": "pressure", "u": "MPa", "v": 0.31}]
    smoke = [{"bn": "smoke-0042:", "n": "smoke", "vb": True}]
    press = [{"device": "button-0042", "kind": "pressed", "data": {}}]
    names = ("temperature", "humidity", "battery", "volume", "pressure")
    units = ("Cel", "%RH", "%EL", "m3", "MPa")
    channels = [{"n": f"channel-{i}", "u": "Cel", "v": 20 + i / 10} for i in range(50)]
    channels[0] = {"bn": "station-0042:", **channels[0]}
    devices = [
        {"bn": f"device-{i:04}:", "n": names[i % 5], "u": units[i % 5], "v": round(20 + i / 7, 2)} for i in range(50)
    ]
    timed = [{**record, "t": -round((50 - i) / 10, 1)} for i, record in enumerate(devices)]
    odd = [*devices[:-1], {**devices[-1], "v": "wet"}]
    return {
        "press": _body("alarm", events=press),
        "one reading": _body("telemetry", pack=one),
        "one boolean": _body("alarm", pack=smoke),
        "pack of 50, one device": _body("telemetry", pack=channels),
        "pack of 50, 50 devices": _body("telemetry", pack=devices),
        "pack of 50, 50 times": _body("telemetry", pack=timed),
        "pack of 50, one of them bad": _body("telemetry", pack=odd),
    }


def _body(lane: str, **parts: object) -> tuple[str, bytes]:
    return topic_of("c001", "agent-1", lane), msgspec.json.encode(envelope(lane=lane, **parts))


def main() -> None:
    for what, (topic, body) in bodies().items():
        message = decode(topic, body)
        assert isinstance(message, Message), message
        assert message.lane in Lane
        decoded, encoded = time_us(lambda t=topic, b=body: decode(t, b)), time_us(lambda m=message: encode_message(m))  # type: ignore[misc]
        print(f"{what:28} {len(body):5} bytes   decode {decoded:7.2f} µs   encode {encoded:7.2f} µs")


if __name__ == "__main__":
    main()
