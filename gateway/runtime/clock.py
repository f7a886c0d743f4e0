"""The only place that reads the clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

log = logging.getLogger(__name__)

BEHIND_RATE: Final = 0.75
"""How fast a clock goes on that is ahead: slowly enough to be caught up with, fast enough that ten seconds of smoke are
an alarm after thirteen."""

SAID_MS: Final = 1_000


class RunningClock(Struct, frozen=True):
    """A clock that runs ``speed`` times as fast as real time from ``anchor_real`` on, when it shows ``anchor`` (both ms
    UTC). Before, it stands: what is being set up for that moment is not late for it, nor past it.

    The defaults are real time. Processes that are given the same anchors show the same time. Holds and deadlines come
    out right on it at any speed; latencies are measured in real time, elsewhere."""

    speed: float = 1.0
    anchor_real: int = 0
    anchor: int = 0

    def __call__(self) -> int:
        real = time.time_ns() // 1_000_000
        if self.speed == 1.0 and self.anchor == self.anchor_real:
            return real
        return self.anchor + round(max(0, real - self.anchor_real) * self.speed)

    def steady(self) -> int:
        """Real milliseconds that only go forward, and stand while this clock does."""
        return read_steady() + max(0, self.anchor_real - time.time_ns() // 1_000_000)

    def to_real_s(self, span_ms: int) -> float:
        """How long a span of this clock lasts in real seconds."""
        return span_ms / 1000 / self.speed


class ForwardClock:
    """A clock that never goes back, and never stands still: what waits for a time is not kept waiting because the wall
    clock was ahead and was put right. Until that has caught up, this one goes on at three quarters of the pace.

    ``clock`` is the wall clock and ``steady`` real milliseconds that only go forward; ``speed`` is the clock's."""

    def __init__(self, clock: Callable[[], int], speed: float = 1.0, steady: Callable[[], int] | None = None) -> None:
        self.speed = speed
        self._clock = clock
        self._steady = steady or read_steady
        self._is_ahead = False
        self._anchor = clock()
        self._anchored_at = self._steady()

    def __call__(self) -> int:
        wall, steady = self._clock(), self._steady()
        least = self._anchor + int(max(0, steady - self._anchored_at) * self.speed * BEHIND_RATE)
        if wall >= least:
            self._anchor, self._anchored_at, self._is_ahead = wall, steady, False
            return wall
        if not self._is_ahead and least - wall > SAID_MS:
            self._is_ahead = True
            log.warning("the wall clock is behind by %.1f s and will be waited for", (least - wall) / 1000)
        return least

    def advance_to(self, moment: int) -> None:
        """It has shown that moment before, in an earlier run."""
        if moment > self():
            self._anchor, self._anchored_at = moment, self._steady()


def read_steady() -> int:
    """Real milliseconds that only go forward, for telling a jump of the wall clock."""
    return time.monotonic_ns() // 1_000_000
