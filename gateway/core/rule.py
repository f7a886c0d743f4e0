"""A rule, and its state for one key: quiet → pending → firing, and back.

`Watch.advance` is the whole state machine. It is given the truth of the condition and the time, and says what turned;
what comes of it (an incident, a notice, nothing) is decided in `routing` and `incident`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Protocol

from msgspec import Struct

from gateway.core.cells import Heard
from gateway.core.condition import Condition, is_absence, is_momentary
from gateway.core.evaluator import Bound, Truth
from gateway.core.model import Level, Phase, Sort
from gateway.core.worktime import DAY_MS, SHANGHAI_MS, Calendar, local_day


class Status(StrEnum):
    """How far a rule has come; a file's status is a ceiling. Only ``active`` opens anything; ``shadow`` records."""

    RETIRED = "retired"
    DRAFT = "draft"
    SHADOW = "shadow"
    ACTIVE = "active"

    @property
    def rank(self) -> int:
        return list(Status).index(self)


class ScopeKind(StrEnum):
    """What one state of a rule stands for."""

    DEVICE = "device"
    HOUSEHOLD = "household"
    UNIT = "unit"
    BUILDING = "building"
    PLACE = "place"
    SOURCE = "source"
    COMMUNITY = "community"


class Schedule(Struct, frozen=True):
    """When a rule judges: minutes of the local day (``(1320, 360)`` is 22:00 to 06:00), days of the week (0 = Monday),
    and workdays or holidays only, by the ``calendar``. A span over midnight belongs to the day on which it begins."""

    times: tuple[tuple[int, int], ...] = ((0, 1440),)
    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    only: str | None = None
    calendar: Calendar | None = None

    def is_on(self, now: int) -> bool:
        day, minute_ms = divmod(now + SHANGHAI_MS, DAY_MS)
        for begin, end in self.times:
            if begin < end:
                if begin * 60_000 <= minute_ms < end * 60_000 and self._has(day):
                    return True
            elif minute_ms >= begin * 60_000:
                if self._has(day):
                    return True
            elif minute_ms < end * 60_000 and self._has(day - 1):
                return True
        return False

    def next_change(self, now: int) -> int:
        """The next time after ``now`` at which a span begins or ends, or the day changes."""
        day, ms = divmod(now + SHANGHAI_MS, DAY_MS)
        edges = [minute * 60_000 for span in self.times for minute in span] + [DAY_MS]
        return min(edge + day * DAY_MS for edge in edges if edge > ms) - SHANGHAI_MS

    def _has(self, day: int) -> bool:
        local = local_day(day * DAY_MS)
        if local.weekday() not in self.days:
            return False
        if self.only is None:
            return True
        is_workday = self.calendar.is_ordinary_workday(local) if self.calendar is not None else local.weekday() < 5
        return is_workday == (self.only == "workdays")


class Response(Struct, frozen=True):
    """A command that a rule gives when it opens or joins: to every device in ``zone`` whose profile has it."""

    command: str
    zone: ScopeKind
    args: dict[str, object] = {}


class Rule(Struct, frozen=True):
    """A rule as read from its file. Times in milliseconds. See docs/authoring.md for the meaning of each field."""

    id: str
    title: dict[str, str]
    status: Status
    scope: ScopeKind
    when: Condition
    sort: Sort
    cause: str
    at: ScopeKind
    category: str
    level: Level
    incident_title: dict[str, str]
    was: str | None = None
    key: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    schedule: Schedule | None = None
    hold: int = 0
    clear: Condition | None = None
    clear_hold: int = 0
    missing: str = "keep"
    respond: tuple[Response, ...] = ()
    offline: bool = False
    false_alarms: tuple[str, ...] = ()
    legal: str = ""
    sources: tuple[str, ...] = ()

    def judges_like(self, other: Rule) -> bool:
        """Whether both come to the same findings: then a swap keeps the state."""
        return (
            self.when == other.when
            and self.hold == other.hold
            and self.clear == other.clear
            and self.clear_hold == other.clear_hold
            and self.scope == other.scope
            and self.missing == other.missing
            and self.schedule == other.schedule
            and self.key == other.key
            and self.kinds == other.kinds
        )

    @property
    def is_momentary(self) -> bool:
        return is_momentary(self.when)

    @property
    def is_absence(self) -> bool:
        return self.missing == "alarm" or is_absence(self.when)


class Turn(StrEnum):
    """What a watch did: its wait began, ended without a finding, ended with one; it cleared."""

    PENDING = "pending"
    LAPSED = "lapsed"
    FIRED = "fired"
    CLEARED = "cleared"


LATE: Final = "late"
"""The note of a watch whose finding was late: it fires only on a live reading for which the condition holds."""

BEHIND: Final = "behind"
"""The note of a watch that began to wait by a late reading: as long as its source goes on telling of the past, that its
hold ran out proves nothing, because the next message may say that the condition was over."""

BLIND: Final = "blind"
"""The note of a watch that was pending when the gateway could not see: that its hold ran out meanwhile proves nothing,
so it fires only when the condition is found to hold still."""


class WatchState(Struct, omit_defaults=True):
    """What is kept of a watch that is not quiet, or waits for a time. ``event`` began it; ``note`` says why a finding
    opened nothing; ``wake_at`` is when it is looked at though nothing arrives; ``recheck_at`` when what explained its
    finding away is looked at again; ``cleared_at`` is when it was last over, of a watch on several devices."""

    rule: str
    key: str
    phase: Phase
    since: int
    event: str
    clear_since: int | None = None
    incident: str | None = None
    note: str = ""
    wake_at: int | None = None
    recheck_at: int | None = None
    cleared_at: int = 0

    @property
    def says_anything(self) -> bool:
        """Whether there is more to keep than that the watch is quiet."""
        return self.phase is not Phase.QUIET or self.wake_at is not None or bool(self.note or self.cleared_at)


class Guarded(Protocol):
    """A cell that spares its quiet watches values which cannot matter; ``is_busy`` says that one is not quiet."""

    is_busy: bool


class Watch:
    """One rule for one key. ``test`` is the condition with the schedule and the ``missing`` policy around it.

    Devices of one place report at different speeds. When a watch on several devices is over, an older reading of one of
    them would find again what the newest reading of the other has ended: such a watch is never asked about a time
    before ``cleared_at``."""

    __slots__ = (
        "bound",
        "cells",
        "clear",
        "clear_since",
        "cleared_at",
        "event",
        "heard",
        "hold",
        "incident",
        "is_momentary",
        "key",
        "needs_wake",
        "note",
        "phase",
        "place",
        "recheck_at",
        "rule",
        "since",
        "test",
        "wake_at",
    )

    def __init__(
        self, rule: Rule, key: str, place: str, bound: Bound, clear: Bound | None, heard: tuple[Heard, ...]
    ) -> None:
        self.rule = rule
        self.key = key
        self.place = place
        self.bound = bound
        self.clear = clear
        self.heard = heard
        self.cells: list[Guarded] = []
        self.hold = rule.hold
        self.is_momentary = rule.is_momentary
        self.needs_wake = bound.wake is not None or rule.schedule is not None or rule.missing == "alarm"
        self.test = self._compose()
        self.wake_at: int | None = None
        self.cleared_at = 0
        self.reset()

    def reset(self) -> None:
        """Back to quiet."""
        self.phase = Phase.QUIET
        self.since = 0
        self.event = ""
        self.clear_since: int | None = None
        self.incident: str | None = None
        self.note = ""
        self.recheck_at: int | None = None

    @property
    def is_busy(self) -> bool:
        """Whether it is anything but quiet."""
        return self.phase is not Phase.QUIET

    def dump(self) -> WatchState:
        return WatchState(
            self.rule.id,
            self.key,
            self.phase,
            self.since,
            self.event,
            self.clear_since,
            self.incident,
            self.note,
            # As it is put off by now, whether anybody has looked at it lately or not.
            None if self.wake_at is None else self.due(self.wake_at - 1),
            self.recheck_at,
            self.cleared_at,
        )

    def load(self, state: WatchState) -> None:
        self.phase = state.phase
        self.since = state.since
        self.event = state.event
        self.clear_since = state.clear_since
        self.incident = state.incident
        self.note = state.note
        self.recheck_at = state.recheck_at
        self.cleared_at = state.cleared_at

    def _compose(self) -> Callable[[int], Truth]:
        test = self.bound.test
        schedule, missing = self.rule.schedule, self.rule.missing
        if missing == "clear":
            test = self._unless_silent(test)
        elif missing == "alarm":
            test = self._or_silent(test)
        if self.rule.scope is not ScopeKind.DEVICE:
            test = self._not_before_cleared(test)
        if schedule is not None:
            inner = test
            return lambda now: inner(now) if schedule.is_on(now) else False
        return test

    def _not_before_cleared(self, inner: Callable[[int], Truth]) -> Callable[[int], Truth]:
        return lambda now: inner(max(now, self.cleared_at))

    def _unless_silent(self, inner: Callable[[int], Truth]) -> Callable[[int], Truth]:
        def test(now: int) -> Truth:
            silent = self._silent_from(max)
            return False if silent is not None and now >= silent else inner(now)

        return test

    def _or_silent(self, inner: Callable[[int], Truth]) -> Callable[[int], Truth]:
        def test(now: int) -> Truth:
            silent = self._silent_from(min)
            return True if silent is not None and now >= silent else inner(now)

        return test

    def _silent_from(self, pick: Callable[[list[int]], int]) -> int | None:
        times = [heard.at + heard.heartbeat + heard.excused for heard in self.heard if heard.heartbeat is not None]
        return pick(times) if times else None

    def due(self, now: int) -> int | None:
        """The next time after ``now`` at which this watch must be looked at though nothing arrives."""
        times: list[int] = [] if self.recheck_at is None else [self.recheck_at]
        if self.phase is Phase.PENDING:
            times.append(self.since + self.hold)
        elif self.phase is Phase.FIRING and self.clear_since is not None:
            times.append(self.clear_since + self.rule.clear_hold)
        is_quiet = self.phase is Phase.QUIET
        if self.bound.wake is not None and (wake := self.bound.wake(now)) is not None:
            times.append(wake)
        if not is_quiet and self.clear is not None and self.clear.wake is not None:
            wake = self.clear.wake(now)
            if wake is not None:
                times.append(wake)
        if self.rule.schedule is not None:
            times.append(self.rule.schedule.next_change(now))
        if self.rule.missing == "alarm" or (self.rule.missing == "clear" and not is_quiet):
            silent = self._silent_from(min if self.rule.missing == "alarm" else max)
            if silent is not None:
                times.append(silent)
        later = [time for time in times if time > now]
        return min(later) if later else None

    def advance(self, truth: Truth, at: int, event: str) -> list[Turn]:
        """Moves on, given what the condition says at ``at``. A deadline that lies before ``at`` counts first; at its
        very moment what arrives counts first. Unknown (None) neither fires nor clears."""
        turns: list[Turn] = []
        at = max(at, self.cleared_at)
        if self.phase is Phase.PENDING and at > self.since + self.hold and self.note not in (LATE, BLIND):
            self.phase = Phase.FIRING
            turns.append(Turn.FIRED)
        if self.phase is Phase.QUIET:
            if truth:
                self.since = at
                self.event = event
                self.phase = Phase.PENDING
                if self.hold > 0:
                    turns.append(Turn.PENDING)
                    return turns
            else:
                return turns
        if self.phase is Phase.PENDING:
            if not truth:  # a hold is a time in which the condition is known to be true
                self.reset()
                turns.append(Turn.LAPSED)
            elif at >= self.since + self.hold:
                self.phase = Phase.FIRING
                turns.append(Turn.FIRED)
            return turns
        return self._clear(truth, at, turns)

    def _clear(self, truth: Truth, at: int, turns: list[Turn]) -> list[Turn]:
        is_clear: Truth = (None if truth is None else not truth) if self.clear is None else self.clear.test(at)
        if self.rule.missing == "clear" and (silent := self._silent_from(max)) is not None and at >= silent:
            is_clear = True
        due = None if self.clear_since is None else self.clear_since + self.rule.clear_hold
        if is_clear:
            if due is None:
                self.clear_since, due = at, at + self.rule.clear_hold
            if at >= due:
                turns.append(self._end(at))
        elif is_clear is False and due is not None:
            if at > due:  # the deadline lies before this sample, so it counts first
                turns.append(self._end(due))
            else:
                self.clear_since = None
        return turns

    def _end(self, at: int) -> Turn:
        if self.rule.scope is not ScopeKind.DEVICE:
            self.cleared_at = at
        return Turn.CLEARED


def format_day(now: int) -> str:
    """The local day, ``YYYYMMDD``."""
    return datetime.fromtimestamp((now + SHANGHAI_MS) / 1000, UTC).strftime("%Y%m%d")
