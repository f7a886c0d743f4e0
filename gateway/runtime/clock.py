"""The only place that reads the clock."""

from __future__ import annotations

import time

from msgspec import Struct


class RunningClock(Struct, frozen=True):
    """A clock that runs ``speed`` times as fast as real time; at ``anchor_real`` it showed ``anchor`` (both ms UTC).

    The defaults are real time. Processes that are given the same anchors show the same time. Holds and deadlines come
    out right on it at any speed; latencies are measured in real time, elsewhere."""

    speed: float = 1.0
    anchor_real: int = 0
    anchor: int = 0

    def __call__(self) -> int:
        real = time.time_ns() // 1_000_000
        if self.speed == 1.0 and self.anchor == self.anchor_real:
            return real
        return self.anchor + round((real - self.anchor_real) * self.speed)

    def to_real_s(self, span_ms: int) -> float:
        """How long a span of this clock lasts in real seconds."""
        return span_ms / 1000 / self.speed


def read_steady() -> int:
    """Real milliseconds that only go forward, for telling a jump of the wall clock."""
    return time.monotonic_ns() // 1_000_000
