"""Limits of how often: a bucket for each key that fills again with time. In memory, of this process alone."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

MOST_KEYS: Final = 10_000


class Rate(Struct, frozen=True):
    """``burst`` at once, and as many again in ``refill_ms``."""

    burst: int
    refill_ms: int


class Limiter:
    """Buckets by key. Where keys become too many, the one that was asked for longest ago is forgotten."""

    def __init__(self, rate: Rate) -> None:
        self._rate: Final = rate
        self._buckets: Final[dict[str, tuple[float, int]]] = {}

    def take(self, key: str, now: int) -> int:
        """Takes one. 0, or how many ms to wait when there is none; nothing is taken then."""
        left = self._left(key, now)
        if left < 1:
            return max(1, round((1 - left) * self._rate.refill_ms / self._rate.burst))
        self._put(key, left - 1, now)
        return 0

    def give_back(self, key: str, now: int) -> None:
        """What was taken turned out to be no offence."""
        self._put(key, min(self._rate.burst, self._left(key, now) + 1), now)

    def _left(self, key: str, now: int) -> float:
        left, at = self._buckets.get(key, (float(self._rate.burst), now))
        filled = max(0, now - at) * self._rate.burst / self._rate.refill_ms
        return min(self._rate.burst, left + filled)

    def _put(self, key: str, left: float, now: int) -> None:
        self._buckets.pop(key, None)
        self._buckets[key] = (left, now)
        if len(self._buckets) > MOST_KEYS:
            del self._buckets[next(iter(self._buckets))]
