"""What is told once: a fault that comes with every message gets one line in the log, and is counted elsewhere."""

from __future__ import annotations

from typing import Final

MOST: Final = 10_000
"""So many faults are remembered; then all are told once more, rather than none."""


class Firsts:
    """Tells the first of a kind from those after it."""

    def __init__(self, most: int = MOST) -> None:
        self._known: set[tuple[str, ...]] = set()
        self._most = most

    def is_first(self, *key: str) -> bool:
        """Whether nothing with this key was asked for before."""
        if key in self._known:
            return False
        if len(self._known) >= self._most:
            self._known.clear()
        self._known.add(key)
        return True
