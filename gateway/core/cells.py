"""What a bound condition looks at: the last values of a device, and the windows kept on them.

A cell takes values in order of time. A window keeps at most `WINDOW_POINTS` points, whatever the data rate.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway.core.model import Scalar, Value

WINDOW_POINTS: Final = 60
"""Most points of a window of amounts or rates: it is exact to 1/60 of its length."""


FAR: Final = 2**62
NEVER: Final = -1


class Heard:
    """When a device was last heard of. ``excused`` (ms) is added to its absence deadlines: time in which the gateway
    or the device's source could not have heard it. ``is_alerted``: a watch of its silence is not quiet, so that
    hearing it matters."""

    __slots__ = ("at", "excused", "heartbeat", "id", "is_alerted")

    def __init__(self, id: str, at: int, heartbeat: int | None) -> None:
        self.id = id
        self.at = at
        self.heartbeat = heartbeat
        self.excused = 0
        self.is_alerted = False


class Window:
    """A sliding window of ``span`` ms on one cell."""

    __slots__ = ("points", "span")

    def __init__(self, span: int) -> None:
        self.span = span
        self.points: deque[tuple[int, float]] = deque()

    def see(self, at: int, value: object, before: object) -> bool:
        """Takes a sample in, and the one before it (None: there was none). Whether the values that changes count from
        reach further than they did."""
        raise NotImplementedError

    def restart(self) -> None:
        """The device was silent for longer than its heartbeat: what changed meanwhile did not change in a window."""

    def dump(self) -> list[object]:
        """The content as plain values, for a checkpoint."""
        return [[[at, value] for at, value in self.points]]

    def load(self, data: Sequence[object]) -> None:
        """Takes a dump back."""
        self.points = deque((int(at), float(value)) for at, value in data[0])  # type: ignore[attr-defined]


class ChangeWindow(Window):
    """How far a number moved: ``rate`` by itself, ``total`` by the growth of a running total, ``amount`` by single
    amounts. ``newest`` is the newest value, or the amount accumulated so far; ``base`` the one at the window's start.

    ``base_at``, ``next_at`` and ``point_at`` are the times of the first, second and last point: what is asked of every
    reading stands in the window itself, because looking into the points costs more than all the arithmetic. No point
    lies outside of ``lowest`` to ``highest``."""

    __slots__ = (
        "base",
        "base_at",
        "highest",
        "how",
        "is_rate",
        "last",
        "lowest",
        "newest",
        "next_at",
        "point_at",
        "step",
    )

    def __init__(self, span: int, how: str) -> None:
        super().__init__(span)
        self.how = how
        self.is_rate = how == "rate"
        self.step = span // WINDOW_POINTS
        self.newest = 0.0
        self.last: float | None = None
        self.lowest = math.inf
        self.highest = -math.inf
        self._mark()

    def see(self, at: int, value: object, before: object) -> bool:
        if value.__class__ is not float:
            return False
        is_rate = self.is_rate
        if is_rate:
            self.newest = value
        elif self.how == "amount":
            self.newest += value
        else:
            if self.last is not None:
                # A meter that was exchanged or reset starts again below: its drop is no amount.
                self.newest += max(0.0, value - self.last)
            self.last = value
        if at - self.point_at < self.step:
            return False
        self.points.append((at, self.newest))
        self.prune(at)
        if is_rate and not self.lowest <= value <= self.highest:
            self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)
            return True
        return False

    def measure(self) -> None:
        """Finds again between which values the points lie."""
        self.lowest = min((value for _, value in self.points), default=math.inf)
        self.highest = max((value for _, value in self.points), default=-math.inf)

    def prune(self, now: int) -> None:
        """Lets go of all points at or before the window's start but the last of them, from which changes count."""
        start, points = now - self.span, self.points
        while len(points) > 1 and points[1][0] <= start:
            points.popleft()
        self._mark()

    def _mark(self) -> None:
        points = self.points
        self.base_at, self.base = points[0] if points else (NEVER, 0.0)
        self.next_at = points[1][0] if len(points) > 1 else FAR
        self.point_at = points[-1][0] if points else -FAR

    def restart(self) -> None:
        self.points.clear()
        self._mark()
        self.measure()

    def dump(self) -> list[object]:
        return [*super().dump(), self.newest, self.last]

    def load(self, data: Sequence[object]) -> None:
        super().load(data)
        self.newest = float(data[1])  # type: ignore[arg-type]
        self.last = None if data[2] is None else float(data[2])  # type: ignore[arg-type]
        self._mark()
        self.measure()


class CountWindow(Window):
    """Times of events, or of a boolean reading's becoming true: the newest ``limit`` of them."""

    __slots__ = ("limit", "passes")

    def __init__(self, span: int, limit: int, passes: Callable[[object], bool] | None) -> None:
        super().__init__(span)
        self.limit = limit
        self.passes = passes

    def see(self, at: int, value: object, before: object) -> bool:
        if isinstance(value, Mapping):
            if self.passes is not None and not self.passes(value):
                return False
        elif value is not True or before is True:
            return False
        self.points.append((at, 1.0))
        if len(self.points) > self.limit:
            self.points.popleft()
        return False

    def has_count(self, now: int) -> bool:
        """Whether ``limit`` of them lie in the window."""
        return len(self.points) >= self.limit and self.points[0][0] > now - self.span


class HeldWindow(Window):
    """The last moment at which something held: of an event, when it was; of a value, until when it stood."""

    __slots__ = ("passes",)

    def __init__(self, span: int, passes: Callable[[object], bool]) -> None:
        super().__init__(span)
        self.passes = passes

    def see(self, at: int, value: object, before: object) -> bool:
        if self.passes(value) or (before is not None and self.passes(before)):
            self.points.clear()
            self.points.append((at, 1.0))
        return False

    def until(self) -> int | None:
        """The moment; None when it never held."""
        return self.points[-1][0] if self.points else None


class Cell:
    """The last believed value of one reading of one device, with the windows that conditions keep on it.

    Values from ``low`` to ``high`` are of no interest to most; ``low`` is infinite where that must be found again."""

    __slots__ = ("_all", "at", "heard", "high", "low", "prev", "value", "windows")

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.low = math.inf
        self.high = math.inf
        self.at = 0
        self.value: Value | None = None
        self.prev: Value | None = None
        self.windows: dict[str, Window] = {}
        self._all: tuple[Window, ...] = ()

    def keep(self, name: str, window: Window) -> None:
        """Shows every value to this window from now on."""
        self.windows[name] = window
        self._all = tuple(self.windows.values())

    def take_windows(self) -> dict[str, Window]:
        """Takes all windows off."""
        windows, self.windows, self._all = self.windows, {}, ()
        return windows

    def put(self, at: int, value: Value) -> None:
        """Takes a believed value in, not older than the last one."""
        if self._all:
            before, heartbeat = self.value, self.heard.heartbeat
            is_gap = heartbeat is not None and at - self.at > heartbeat and before is not None
            for window in self._all:
                if is_gap:
                    window.restart()
                if window.see(at, value, before):
                    self.low = math.inf
        self.prev = self.value
        self.value = value
        self.at = at


class EventCell:
    """The events of one kind of one device: the newest one while it is judged, and the windows kept on them."""

    __slots__ = ("at", "data", "heard", "windows")

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.at = 0
        self.data: Mapping[str, Scalar] | None = None
        self.windows: dict[str, Window] = {}

    def keep(self, name: str, window: Window) -> None:
        """Shows every event to this window from now on."""
        self.windows[name] = window

    def take_windows(self) -> dict[str, Window]:
        """Takes all windows off."""
        windows, self.windows = self.windows, {}
        return windows

    def put(self, at: int, data: Mapping[str, Scalar]) -> None:
        """Takes an event in; until `forget` it is "this very event"."""
        self.data = data
        self.at = max(self.at, at)
        for window in self.windows.values():
            window.see(at, data, None)

    def forget(self) -> None:
        """The event has been judged."""
        self.data = None


class Scope:
    """The devices that one key of a rule looks at. Implemented by the engine.

    ``attribute`` looks a name up on the device and its places upward; ``listed`` is the watch list's current set.
    """

    def cells(self, name: str) -> Sequence[Cell]:
        raise NotImplementedError

    def events(self, name: str) -> Sequence[EventCell]:
        raise NotImplementedError

    def devices(self) -> Sequence[Heard]:
        raise NotImplementedError

    def attribute(self, name: str, device: str | None) -> Scalar | None:
        raise NotImplementedError

    def listed(self, name: str) -> frozenset[str]:
        raise NotImplementedError

    def accumulates(self, cell: Cell) -> str:
        raise NotImplementedError
