"""The test stand (试验台): the port to it, and what became of what it plays, as the ledger tells.

The stand plays and says what must come of it; here it is held against what came. It plays on communities of simulated
devices alone (`Place.is_simulated`), and the engine itself is asked whether a community is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.model import Community, Incident, Phase, Sort, Text
from gateway.runtime.access import Actor
from gateway.runtime.device_desk import Refused
from gateway.runtime.door import DoorClient, DoorClosed, DoorRefused
from gateway.runtime.ports import Ledger

PAGE: Final = 500
KEPT: Final = 8
"""So many runs are followed at a time; one that is forgotten is read again from its beginning."""

ENDED: Final = 50
"""Of so many runs that have ended it is kept what became of them: as many as the stand remembers."""

SLACK_MS: Final = 2_000
"""Real time that a signal may be on its way, beyond the time in which a scenario says that somebody must know."""

RUNNING: Final = ("playing", "waiting")


class StandAway(Exception):
    """The stand does not answer; ``str()`` says why, for people."""


class StandRefused(Exception):
    """The stand cannot play that now: a stable code, and why in words."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class ScenarioView(Struct, frozen=True):
    """A scenario of the stand. ``category`` is None where nothing must come of it; then ``like`` is what it might be
    taken for. ``within`` and ``length`` in ms; ``hours`` (local) are those in which it may be played."""

    id: str
    title: Text
    profile: str
    length: int
    hours: str | None = None
    like: str | None = None
    category: str | None = None
    at: str | None = None
    within: int | None = None


class StandView(Struct, frozen=True):
    """What can be played, and where. ``speed`` is the clock's, ``run`` the newest run's id."""

    communities: list[str]
    connected: int
    speed: float
    now: int
    scenarios: list[ScenarioView]
    run: str | None = None


class Baseline(Struct, frozen=True):
    """How things stood in a run's communities when it began, and who began it; the stand keeps it with the run."""

    owner: str
    position: int
    quarantined: dict[str, int] = {}
    repeats: int = 0
    findings: dict[str, int] = {}


class RunWish(Struct, frozen=True):
    """What to play where. ``pace`` is how much faster than written acts follow each other; ``faults`` are
    ``duplicate``, ``late`` and ``garbage``, each so often."""

    id: str
    scenarios: tuple[str, ...]
    communities: tuple[str, ...]
    pace: float = 1.0
    faults: dict[str, int] = {}


class Expected(Struct, frozen=True):
    """What must come of one scenario at one place: an incident of this ``category`` there, or nothing (None)."""

    scenario: str
    title: Text
    community: str
    device: str
    begins: int
    ends: int
    category: str | None = None
    place: str | None = None
    within: int | None = None


class LogLine(Struct, frozen=True):
    """What the stand did. ``what`` is ``duplicate`` (``detail`` is lane and number of the message that came again),
    ``late`` (the reading that came late, of ``device``) or ``garbage`` (which, and of how many bytes)."""

    at: int
    what: str
    source: str
    detail: str
    device: str = ""


class Run(Struct, frozen=True):
    """One playing as the stand tells it. ``state``: ``playing``, ``waiting`` (all is sent), ``done``, ``stopped``.
    Times are ms of the simulated clock, latencies real ms from an alarm to its receipt."""

    id: str
    state: str
    scenarios: list[str]
    communities: list[str]
    pace: float
    faults: dict[str, int]
    note: Baseline
    started_at: int
    until: int
    now: int
    planned: int
    expected: list[Expected]
    sent: int = 0
    messages: int = 0
    alarms: int = 0
    resent: int = 0
    rejected: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    injected: dict[str, int] = {}
    log: list[LogLine] = []

    @property
    def is_over(self) -> bool:
        return self.state not in RUNNING

    @property
    def progress(self) -> float:
        """0 to 1."""
        if self.is_over:
            return 1.0
        return min(1.0, max(0.0, (self.now - self.started_at) / max(1, self.until - self.started_at)))


class Stand(Protocol):
    """The test stand. Every method raises StandAway."""

    async def look(self) -> StandView: ...
    async def start(self, wish: RunWish, note: Baseline) -> Run:
        """Begins a run; the same id again is the same run. Raises StandRefused."""

    async def read(self, id: str) -> Run:
        """A run as it stands. Raises LookupError."""

    async def stop(self, id: str) -> Run:
        """Plays no further. Raises LookupError."""

    async def close(self) -> None: ...


class RunVerdict(StrEnum):
    """What became of an expectation. ``opened``: its incident is there, in time. ``joined``: it joined one that was
    open already. ``late``: somebody knew later than the scenario says. ``quiet``: nothing came, and nothing should."""

    WAITING = "waiting"
    OPENED = "opened"
    JOINED = "joined"
    LATE = "late"
    MISSING = "missing"
    QUIET = "quiet"
    FALSE = "false"

    @property
    def is_good(self) -> bool:
        return self in (RunVerdict.OPENED, RunVerdict.JOINED, RunVerdict.QUIET)

    @property
    def is_bad(self) -> bool:
        return self in (RunVerdict.LATE, RunVerdict.MISSING, RunVerdict.FALSE)


class Judged(Struct, frozen=True):
    """An expectation beside what came of it; ``took`` is ms of the simulated clock from its beginning."""

    expected: Expected
    verdict: RunVerdict
    incident: Incident | None = None
    took: int | None = None


class FaultJudged(Struct, frozen=True):
    """Faults of one kind: so many ``wanted``, ``injected``, and ``met``: garbage that was quarantined, messages passed
    over as repeats, or incidents without an expectation of devices whose readings came late. The run's communities may
    have had repeats of their own, so there may be more. ``is_good`` is None as long as it cannot be told."""

    kind: str
    wanted: int
    injected: int
    met: int
    is_good: bool | None


class Moving(Struct, frozen=True):
    """How often a rule waits and fires in the run's communities now, and how that has changed since it began."""

    rule: str
    pending: int
    firing: int
    change: int


class Watched(Struct, frozen=True):
    """A run beside what the gateway made of it: ``unexpected`` incidents belong to no expectation, ``refused`` is what
    was quarantined meanwhile, by reason."""

    run: Run
    judged: list[Judged]
    faults: list[FaultJudged]
    findings: list[Moving]
    incidents: list[Incident]
    unexpected: list[Incident]
    refused: dict[str, int]
    repeats: int

    @property
    def is_good(self) -> bool | None:
        """None while it is not over, or where it was stopped or played at another pace."""
        if self.run.state != "done" or self.run.pace != 1:
            return None
        is_met = all(one.verdict.is_good for one in self.judged) and not self.unexpected
        return is_met and all(one.is_good is not False for one in self.faults)


class _Followed(Struct):
    position: int
    incidents: dict[str, Incident]


class StandDesk:
    """One for the web process; without a ``stand`` there is none to ask."""

    def __init__(self, stand: Stand | None, ledger: Ledger, door: DoorClient, speed: float) -> None:
        self._stand = stand
        self._ledger = ledger
        self._door = door
        self._speed = speed
        self._followed: dict[str, _Followed] = {}
        self._ended: dict[str, Watched] = {}

    @property
    def is_there(self) -> bool:
        """Whether a stand is configured."""
        return self._stand is not None

    async def look(self) -> StandView:
        """What can be played. Raises StandAway."""
        return await self._ask().look()

    async def start(self, actor: Actor, wish: RunWish, communities: Sequence[Community]) -> Run:
        """Begins a run in communities of the actor's scope (whoever calls has seen to that). Raises Refused where one
        of them is real, StandRefused, StandAway, and DoorClosed."""
        for community in communities:
            await self._demand_simulated(community)
        note = await asyncio.to_thread(self._stand_now, actor, {one.id for one in communities})
        return await self._ask().start(wish, note)

    async def stop(self, id: str) -> Run:
        """Plays no further. Raises LookupError and StandAway."""
        return await self._ask().stop(id)

    async def read(self, id: str) -> Run:
        """A run as the stand tells it. Raises LookupError and StandAway."""
        return await self._ask().read(id)

    async def watch(self, run: Run) -> Watched:
        """The run beside what the ledger has of it; once it is over, as it was found at the first look after its end,
        but for the rules' findings, which are told as they are now. Raises LedgerDown."""
        return await asyncio.to_thread(self._hold_against, run)

    async def close(self) -> None:
        """Hangs up."""
        if self._stand is not None:
            await self._stand.close()

    def _ask(self) -> Stand:
        if self._stand is None:
            raise StandAway("no test stand is configured")
        return self._stand

    async def _demand_simulated(self, community: Community) -> None:
        """The engine is asked: what it calls simulated is held back from the platform."""
        try:
            present = await self._door.look(community.id)
        except DoorRefused as error:
            raise DoorClosed(str(error)) from error
        roots = [place for place in present.places if place.parent is None]
        if not roots or not all(root.is_simulated for root in roots):
            raise Refused("not-simulated", f"{community.id} is not marked as a community of simulated devices", "")

    def _stand_now(self, actor: Actor, communities: set[str]) -> Baseline:
        findings = self._count_findings(communities)
        return Baseline(
            actor.id,
            self._ledger.position(),
            self._count_quarantined(communities),
            self._count_repeats(communities),
            {rule: pending + firing for rule, (pending, firing) in findings.items()},
        )

    def _count_quarantined(self, communities: set[str]) -> dict[str, int]:
        """Reason → how many messages of these communities were ever put aside for it."""
        found: dict[str, int] = {}
        for community, reason, number in self._ledger.quarantine_counts():
            if community in communities:
                found[reason] = found.get(reason, 0) + number
        return found

    def _count_repeats(self, communities: set[str]) -> int:
        """How many messages of these communities' sources ever came again."""
        repeats = self._ledger.counts().get("repeats", {})
        sources = {device.source for community in communities for device in self._ledger.devices(community)}
        return sum(number for source, number in repeats.items() if source in sources)

    def _count_findings(self, communities: set[str]) -> dict[str, tuple[int, int]]:
        """Rule → how many keys wait and fire."""
        found: dict[str, tuple[int, int]] = {}
        for community, rule, phase, number in self._ledger.finding_counts():
            if community in communities:
                pending, firing = found.get(rule, (0, 0))
                found[rule] = (pending + number * (phase is Phase.PENDING), firing + number * (phase is Phase.FIRING))
        return found

    def _follow(self, run: Run) -> list[Incident]:
        """The incidents of the run's communities that have changed since it began, as they stand."""
        known = self._followed.get(run.id)
        if known is None:
            if len(self._followed) >= KEPT:
                del self._followed[next(iter(self._followed))]
            known = self._followed[run.id] = _Followed(run.note.position, {})
        while page := self._ledger.changes(known.position, PAGE):
            known.position = page[-1][0]
            known.incidents |= {incident.id: incident for _, incident in page if incident.community in run.communities}
        return [incident for incident in known.incidents.values() if incident.sort is Sort.INCIDENT]

    def _hold_against(self, run: Run) -> Watched:
        moving = self._tell_findings(run)
        ended = self._ended.get(run.id)
        if ended is not None:
            return replace(ended, findings=moving)
        communities = set(run.communities)
        incidents = self._follow(run)
        before = run.note.quarantined
        refused = {
            reason: number - before.get(reason, 0)
            for reason, number in self._count_quarantined(communities).items()
            if number > before.get(reason, 0)
        }
        repeats = self._count_repeats(communities) - run.note.repeats
        judged, unexpected = judge(run, incidents, self._speed)
        own = (incident for incident in incidents if _is_of(run, incident, self._speed))
        watched = Watched(
            run,
            judged,
            list(_judge_faults(run, sum(refused.values()), repeats, judged, unexpected)),
            moving,
            sorted(own, key=lambda incident: incident.opened_at),
            unexpected,
            refused,
            repeats,
        )
        if run.is_over:
            # What comes later in these communities, as of the next run, is none of this one's.
            if len(self._ended) >= ENDED:
                del self._ended[next(iter(self._ended))]
            self._ended[run.id] = watched
            self._followed.pop(run.id, None)
        return watched

    def _tell_findings(self, run: Run) -> list[Moving]:
        return [
            Moving(rule, pending, firing, pending + firing - run.note.findings.get(rule, 0))
            for rule, (pending, firing) in sorted(self._count_findings(set(run.communities)).items())
            if pending or firing
        ]


def judge(run: Run, incidents: Iterable[Incident], speed: float) -> tuple[list[Judged], list[Incident]]:
    """Each expectation with what came of it, and the incidents of the run that belong to none. Every expected incident
    takes one of its own; with ``speed`` the slack of real time is that of the simulated clock."""
    changed = sorted(incidents, key=lambda incident: (incident.opened_at, incident.number))
    own = [incident for incident in changed if _is_of(run, incident, speed)]
    earlier = [incident for incident in changed if incident.opened_at < run.started_at]
    left = {incident.id: incident for incident in own}
    slack = round(SLACK_MS * speed)

    def is_its(expected: Expected) -> Callable[[Incident], bool]:
        wanted = (expected.community, expected.category, expected.place)
        return lambda incident: (incident.community, incident.category, incident.place) == wanted

    judged: list[Judged] = []
    for expected in run.expected:
        if expected.category is None:
            judged.append(_judge_silence(expected, left, run))
            continue
        found = next(filter(is_its(expected), left.values()), None)
        if found is not None:
            del left[found.id]
            took = found.opened_at - expected.begins
            is_late = expected.within is not None and took > expected.within + slack
            judged.append(Judged(expected, RunVerdict.LATE if is_late else RunVerdict.OPENED, found, took))
            continue
        joined = next(filter(is_its(expected), earlier), None)
        if joined is not None:
            judged.append(Judged(expected, RunVerdict.JOINED, joined))
        else:
            judged.append(Judged(expected, RunVerdict.MISSING if run.is_over else RunVerdict.WAITING))
    claimed = {one.incident.id for one in judged if one.incident is not None}
    return judged, [incident for incident in own if incident.id not in claimed]


def _is_of(run: Run, incident: Incident, speed: float) -> bool:
    """Whether an incident was opened while the run was played."""
    ended = run.now + round(SLACK_MS * speed) if run.is_over else None
    return run.started_at <= incident.opened_at and (ended is None or incident.opened_at <= ended)


def _judge_silence(expected: Expected, left: dict[str, Incident], run: Run) -> Judged:
    for incident in left.values():
        if expected.device in incident.devices and incident.community == expected.community:
            return Judged(expected, RunVerdict.FALSE, incident, incident.opened_at - expected.begins)
    return Judged(expected, RunVerdict.QUIET if run.is_over else RunVerdict.WAITING)


def _judge_faults(
    run: Run, refused: int, repeats: int, judged: Iterable[Judged], unexpected: Iterable[Incident]
) -> Iterable[FaultJudged]:
    false = [one.incident for one in judged if one.verdict is RunVerdict.FALSE and one.incident is not None]
    late = {line.device for line in run.log if line.what == "late"}
    opened = sum(not late.isdisjoint(incident.devices) for incident in (*false, *unexpected))
    for kind, wanted in run.faults.items():
        if not wanted:
            continue
        injected = run.injected.get(kind, 0)
        if kind == "late":
            # Whether they open nothing is known at the end; of none that came there is nothing to say.
            is_good = False if opened else True if run.is_over and injected else None
            yield FaultJudged(kind, wanted, injected, opened, is_good)
            continue
        met = refused if kind == "garbage" else repeats
        yield FaultJudged(kind, wanted, injected, met, met >= injected if run.is_over or met >= wanted else None)
