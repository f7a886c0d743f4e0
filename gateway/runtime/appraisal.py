"""The appraisal (考核): how many cases there were, how soon people came and finished, and what was late, returned or
false. Pure arithmetic over incidents; `gateway.runtime.appraising` reads them, docs/appraisal.md says what counts.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct, field

from gateway.core.model import GridLevel, Incident, Sort
from gateway.core.moves import GATEWAY, State
from gateway.core.worktime import SHANGHAI_MS, local_day

NONE: Final = "none"
"""The key of what lies in no grid, is nobody's, or was found by no rule or device."""

TOTAL: Final = "total"

MINUTE_MS: Final = 60_000

_UNTIMED: Final = frozenset({"resume", "rate"})
"""Awaited too, but nobody's duty: the date that something is parked until, and the resident's opinion."""

_ENDING: Final = frozenset(
    {"dispatch", "arrive", "resolve", "verify", "close", "return", "false_alarm", "cancel", "merge", "reopen"}
)
"""Acts that end whatever step was awaited: by doing it, or by making it needless."""

_TAKING: Final = frozenset({"accept", "call_back"})
"""These end only a step of the same kind: later on they say that somebody knows, and the step goes on."""

_OF_BODIES: Final = frozenset({"arrive", "resolve"})
"""The steps that are the responsible body's; the others are the desk's and the grid workers'."""


class By(StrEnum):
    """What the rows are."""

    GRID = "grid"
    BODY = "body"
    COMMUNITY = "community"
    CATEGORY = "category"
    RULE = "rule"
    DEVICE = "device"


class Every(StrEnum):
    """How long the periods are into which the rows are divided, in local days; a week begins on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Question(Struct, frozen=True):
    """What is asked: the incidents opened from ``since`` to before ``until`` (ms UTC), in ``grid`` or below. ``level``
    leaves only the grids of that level as rows; ``every`` gives a row for each key and period. ``simulated``: what
    comes of simulated devices counts, too."""

    by: By
    since: int
    until: int
    grid: str = ""
    level: GridLevel | None = None
    every: Every | None = None
    simulated: bool = False


class Names(Struct, frozen=True):
    """What people call the keys, which responsible bodies there are, (body, grid) → name, and each grid's level."""

    titles: Mapping[str, str] = {}
    bodies: Mapping[str, str] = {}
    responsible: Mapping[tuple[str, str], str] = {}
    levels: Mapping[str, GridLevel] = {}


class StepFigures(Struct):
    """A step of the closed loop: how often it was done or is late, and how often it was in time."""

    number: int = 0
    in_time: int = 0


class Figures(Struct):
    """One row. Times are by nearest rank, and None when there is none; a rate is 0 to 1, and None of nothing."""

    period: str
    key: str
    name: str
    number: int
    open: int
    overdue: int
    responded: int
    response_median_ms: int | None
    response_p90_ms: int | None
    closed: int
    closing_median_ms: int | None
    closing_p90_ms: int | None
    false_alarms: int
    false_alarm_rate: float | None
    in_time: int
    in_time_rate: float | None
    merged: int
    returned: int
    returns: int
    reopened: int
    extended: int
    whistles: int
    whistles_answered: int
    whistles_in_time: int
    whistles_in_time_rate: float | None
    steps: int
    steps_in_time: int
    steps_in_time_rate: float | None
    by_step: dict[str, StepFigures]


class Appraisal(Struct):
    """The rows, and all incidents once: they may stand in several rows."""

    rows: list[Figures]
    total: Figures


class Step(Struct):
    """A step that was awaited, or a whistle for a ``grid``. ``until`` (ms) is the end of the minute of its date, which
    is what the timeline says. It is late when it was marked red, or done after that."""

    name: str
    until: int
    grid: str = ""
    is_done: bool = False
    is_late: bool = False
    is_passed_on: bool = False
    """Another body has the incident now."""

    @property
    def is_judged(self) -> bool:
        """Whether it is known to be in time or late."""
        return self.is_done or self.is_late


class Track(Struct):
    """What an incident's timeline says of its steps and its whistles, each in order."""

    steps: list[Step]
    whistles: list[Step]

    @property
    def is_late(self) -> bool:
        """Whether anything was late in it."""
        return any(step.is_late for step in (*self.steps, *self.whistles))


def appraise(incidents: Iterable[Incident], question: Question, names: Names, now: int) -> Appraisal:
    """The answer. ``incidents`` are read once, one after the other; notices, and what does not lie in the period and
    the grid, are passed over. Open and overdue are as at ``now`` (ms UTC)."""
    sums: dict[tuple[str, str], _Sum] = {}
    total = _Sum("", TOTAL, "合计 total")
    for incident in incidents:
        if incident.sort is not Sort.INCIDENT or not question.since <= incident.opened_at < question.until:
            continue
        if question.grid and question.grid not in chain_of(incident):
            continue
        if incident.simulated and not question.simulated:
            continue
        track = follow(incident)
        period = name_period(incident.opened_at, question.every)
        for key in keys_of(incident, question, names):
            if (period, key) not in sums:
                sums[period, key] = _Sum(period, key, name_of(key, question.by, names))
            sums[period, key].add(incident, _share(incident, track, question.by, key), track.is_late, now)
        total.add(incident, track, track.is_late, now)
    rows = [each.figures() for each in sums.values()]
    # Grids and communities keep the order of their codes, which is the map's; elsewhere the most stand first.
    is_map = question.by in (By.GRID, By.COMMUNITY)
    rows.sort(key=lambda row: (row.period, row.key == NONE, 0 if is_map else -row.number, row.key))
    return Appraisal(rows, total.figures())


def chain_of(incident: Incident) -> tuple[str, ...]:
    """The grids that it counts for, from the district down."""
    return incident.chain or ((incident.grid,) if incident.grid else ())


def name_period(at: int, every: Every | None) -> str:
    """``2026-11-23``, ``2026-W48`` or ``2026-11``; empty without periods."""
    if every is None:
        return ""
    day = local_day(at)
    match every:
        case Every.DAY:
            return str(day)
        case Every.WEEK:
            year, week, _ = day.isocalendar()
            return f"{year}-W{week:02d}"
        case Every.MONTH:
            return f"{day:%Y-%m}"


def keys_of(incident: Incident, question: Question, names: Names) -> tuple[str, ...]:
    """The rows that an incident counts in: each grid above its own (not above the one asked for), each device and rule
    that had a part in it, otherwise one. A device is ``community/device``, because its id is its community's. A
    responsible body is the kind and the nearest grid that has one: ``street@370215001``."""
    keys: Sequence[str]
    match question.by:
        case By.GRID:
            chain = chain_of(incident)
            keys = chain[chain.index(question.grid) :] if question.grid in chain else chain
            if question.level is not None:
                keys = [code for code in keys if names.levels.get(code) is question.level]
        case By.DEVICE:
            keys = [f"{incident.community}/{device}" for device in incident.devices]
        case By.BODY:
            having = [code for code in reversed(chain_of(incident)) if (incident.body, code) in names.responsible]
            keys = (f"{incident.body}@{having[0]}" if having else incident.body,)
        case By.COMMUNITY:
            keys = (incident.community,)
        case By.CATEGORY:
            keys = (incident.category,)
        case By.RULE:
            found = (line.rule for line in incident.timeline if line.what in ("opened", "joined"))
            keys = (incident.rule, *found)
    return tuple(dict.fromkeys(key for key in keys if key)) or (NONE,)


def name_of(key: str, by: By, names: Names) -> str:
    """What people call it; empty when nobody has named it."""
    if key == NONE:
        return "未定 none"
    if by is By.BODY:
        body, _, grid = key.partition("@")
        return names.responsible.get((body, grid)) or names.bodies.get(body, "")
    return names.titles.get(key, "")


def find_percentile(values: Iterable[int], percent: int) -> int | None:
    """By nearest rank: the smallest value that at least ``percent`` (1 to 100) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[-(-percent * len(ordered) // 100) - 1] if ordered else None


# --- an incident's timeline ---------------------------------------------------------------------------------------


def follow(incident: Incident) -> Track:
    """Reads the timeline. A line ``due`` begins a step, or gives the one that is awaited another date; a line
    ``overdue`` marks it as late. An extension takes the mark away when it was asked for before."""
    steps: list[Step] = []
    whistles: list[Step] = []
    is_parked, has_asked = False, False  # has_asked: for an extension, before its step was late
    for line in incident.timeline:
        step = steps[-1] if steps and not steps[-1].is_done else None
        match line.what:
            case "due":
                name, until = _read_due(line.why)
                if name == "report_in":
                    place = len(whistles)
                    grid = incident.whistles[place].grid if place < len(incident.whistles) else ""
                    whistles.append(Step(name, until, grid))
                elif step is not None and step.name == name:
                    step.until = until
                elif name not in _UNTIMED:
                    steps.append(Step(name, until))
            case "overdue":
                late = whistles[-1] if whistles and line.why.startswith("report_in ") else step
                if late is not None:
                    late.is_late = True
            case "report_in" if whistles:
                _end(whistles[-1], line.at)
            case "park":
                is_parked = True
            case "resume":
                is_parked = False
            case "ask_extension":
                has_asked = step is not None and not step.is_late and line.at < step.until
            case "grant_extension" if step is not None and has_asked:
                step.is_late = False
            case verb if verb in _ENDING or (step is not None and verb in _TAKING and step.name in _TAKING):
                if verb == "return" or (verb == "dispatch" and step is not None and step.name == "arrive"):
                    for earlier in steps:
                        earlier.is_passed_on = True
                if step is not None and not is_parked:
                    # The gateway dispatches by itself when nobody has called back in time: nothing is marked red then.
                    step.is_late = step.is_late or line.who == GATEWAY
                    _end(step, line.at)
                is_parked = False
    return Track(steps, whistles)


def is_overdue(incident: Incident, now: int) -> bool:
    """Whether a step that an open incident waits for is past its time at ``now``. A whistle that nobody has answered
    does not hide the step behind it; what is parked is not late."""
    if incident.state == State.PARKED:
        return False
    dues = (incident.due, incident.aside)
    return any(due is not None and (due.overdue_at is not None or due.due_at < now) for due in dues)


def _read_due(why: str) -> tuple[str, int]:
    """The step and the end of the minute of its date: ``arrive by 2026-11-23 20:15 (…``, as `loop` writes it."""
    name, _, day, time, _ = why.split(" ", 4)
    minute = datetime.fromisoformat(f"{day}T{time}+00:00")
    return name, round(minute.timestamp()) * 1000 - SHANGHAI_MS + MINUTE_MS


def _end(step: Step, at: int) -> None:
    step.is_done = True
    step.is_late = step.is_late or at >= step.until


# --- sums ---------------------------------------------------------------------------------------------------------


def _share(incident: Incident, track: Track, by: By, key: str) -> Track:
    """What of an incident's steps and whistles counts in a row. A body answers for its own steps, since it has the
    incident; a grid for the whistles that called it, or a grid in it, not for those that it blew."""
    if by is By.BODY:
        own = [step for step in track.steps if step.name in _OF_BODIES and not step.is_passed_on]
        return Track(own, track.whistles)
    if by is By.GRID and track.whistles:
        chain = chain_of(incident)
        return Track(track.steps, [whistle for whistle in track.whistles if _is_called(whistle.grid, key, chain)])
    return track


def _is_called(grid: str, key: str, chain: Sequence[str]) -> bool:
    return key not in chain or grid not in chain or chain.index(key) <= chain.index(grid)


class _Sum(Struct):
    """The figures of a row in the making; times as bare 64-bit numbers, because there may be very many."""

    period: str
    key: str
    name: str
    number: int = 0
    open: int = 0
    overdue: int = 0
    closed: int = 0
    false_alarms: int = 0
    in_time: int = 0
    merged: int = 0
    returned: int = 0
    returns: int = 0
    reopened: int = 0
    extended: int = 0
    whistles: int = 0
    whistles_answered: int = 0
    whistles_judged: int = 0
    whistles_in_time: int = 0
    responses: array[int] = field(default_factory=lambda: array("q"))
    closings: array[int] = field(default_factory=lambda: array("q"))
    by_step: dict[str, StepFigures] = {}

    def add(self, incident: Incident, share: Track, is_late: bool, now: int) -> None:
        self.number += 1
        if incident.accepted_at is not None:
            self.responses.append(incident.accepted_at - incident.opened_at)
        match incident.state:
            case State.CLOSED | State.RATED:
                self.closed += 1
                self.in_time += not is_late
                self.closings.append((incident.closed_at or incident.updated_at) - incident.opened_at)
            case State.FALSE_ALARM:
                self.false_alarms += 1
                self.in_time += not is_late
            case State.MERGED:
                self.merged += 1
            case _:
                self.open += 1
                self.overdue += is_overdue(incident, now)
        self.returned += incident.returns > 0
        self.returns += incident.returns
        self.reopened += any(line.what == "reopen" for line in incident.timeline)
        self.extended += incident.extensions > 0
        for whistle in share.whistles:
            self.whistles += 1
            self.whistles_answered += whistle.is_done
            self.whistles_judged += whistle.is_judged
            self.whistles_in_time += whistle.is_done and not whistle.is_late
        for step in share.steps:
            if step.is_judged:
                counted = self.by_step.setdefault(step.name, StepFigures())
                counted.number += 1
                counted.in_time += not step.is_late

    def figures(self) -> Figures:
        ended = self.closed + self.false_alarms
        steps = sum(step.number for step in self.by_step.values())
        steps_in_time = sum(step.in_time for step in self.by_step.values())
        return Figures(
            period=self.period,
            key=self.key,
            name=self.name,
            number=self.number,
            open=self.open,
            overdue=self.overdue,
            responded=len(self.responses),
            response_median_ms=find_percentile(self.responses, 50),
            response_p90_ms=find_percentile(self.responses, 90),
            closed=self.closed,
            closing_median_ms=find_percentile(self.closings, 50),
            closing_p90_ms=find_percentile(self.closings, 90),
            false_alarms=self.false_alarms,
            false_alarm_rate=_rate(self.false_alarms, ended),
            in_time=self.in_time,
            in_time_rate=_rate(self.in_time, ended),
            merged=self.merged,
            returned=self.returned,
            returns=self.returns,
            reopened=self.reopened,
            extended=self.extended,
            whistles=self.whistles,
            whistles_answered=self.whistles_answered,
            whistles_in_time=self.whistles_in_time,
            whistles_in_time_rate=_rate(self.whistles_in_time, self.whistles_judged),
            steps=steps,
            steps_in_time=steps_in_time,
            steps_in_time_rate=_rate(steps_in_time, steps),
            by_step=dict(sorted(self.by_step.items())),
        )


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
