"""Rules for those who answer for them: how each stands, what its tests show, what it found of late and how much of that
was false, and lowering its status, with a reason, or taking that back. For pages and programs alike.

A file's status is the ceiling: here a rule can be lowered below it, never raised above it. An override goes in through
the door, once for each community in the actor's scope, and stands in that community's journal.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Struct

from gateway.core.catalog import Catalog
from gateway.core.model import Community, Incident, Level, Override, Phase, Sort, Text
from gateway.core.rule import Rule, Status
from gateway.core.ruletest import Report, run_test
from gateway.core.worktime import DAY_MS
from gateway.runtime.access import Actor
from gateway.runtime.appraisal import By, Figures, Names, Question, appraise, keys_of
from gateway.runtime.appraising import read_opened
from gateway.runtime.device_desk import PATIENCE_S, Refused
from gateway.runtime.door import DoorClient, DoorRefused
from gateway.runtime.ports import OVERRIDES, Clock, Finding, Ledger

LATELY_MS: Final = 30 * DAY_MS
"""The incidents that were opened in this span count for a rule's figures."""

FRESH_S: Final = 60.0
"""Reading a month takes seconds where there are many incidents: its figures may be so old."""

SHOWN: Final = 20
SCOPES: Final = 16
AT_ONCE: Final = 8
LONGEST_REASON: Final = 200


class Standing(Struct, frozen=True):
    """How a rule stands in somebody's scope. ``ceiling`` is its file's status; ``in_force`` tells in how many
    communities each status holds. ``cases`` are those of its tests, of which so many ``failed``; ``gaps`` is what they
    do not show. ``pending`` and ``firing`` count keys now; the rest is of the incidents of the last 30 days
    (`Figures`)."""

    id: str
    title: Text
    sort: Sort
    level: Level
    category: str
    ceiling: Status
    in_force: dict[Status, int]
    cases: int
    failed: int
    gaps: list[str]
    pending: int
    firing: int
    incidents: int
    false_alarms: int
    false_alarm_rate: float | None

    @property
    def is_lowered(self) -> bool:
        """Whether it is held below its file's status anywhere."""
        return any(status != self.ceiling for status in self.in_force)


class Decision(Struct, frozen=True):
    """A status that somebody set; None takes the one before back. In so many ``communities`` of the scope."""

    at: int
    actor: str
    status: Status | None
    reason: str
    communities: int


class Case(Struct, frozen=True):
    """An incident that a rule opened, or had a part in."""

    id: str
    number: str
    title: Text
    community: str
    place_name: str
    level: Level
    state: str
    opened_at: int


class RuleAccount(Struct, frozen=True):
    """All about a rule: ``findings`` are what it waits for, holds and noted now, ``cases`` the newest incidents of the
    last 30 days, ``decisions`` the newest first. ``file`` is its text."""

    standing: Standing
    decisions: list[Decision]
    findings: list[Finding]
    cases: list[Case]
    path: str
    file: str


class Ruling(Struct, frozen=True):
    """A wish to set a rule's status; ``status`` None takes an override back. ``id`` is made by whoever asks, before it
    is sent, and makes it happen once."""

    id: str
    rule: str
    status: Status | None
    reason: str


class Ruled(Struct, frozen=True):
    """What came of it: in how many communities it holds now. ``missed`` are those that this gateway does not hold."""

    standing: Standing
    communities: int
    missed: list[str]


class _Lately(Struct, frozen=True):
    """The last 30 days in one scope, as read at ``at`` (`time.monotonic`)."""

    at: float
    figures: dict[str, Figures]
    cases: dict[str, deque[Case]]


_REPORTS: Final[dict[str, dict[str, Report]]] = {}
"""What the tests of a catalog show, by its hash and the rule's id."""

_overrides: Final = msgspec.json.Decoder(Override)


class RuleDesk:
    """One for the web process. ``clock`` is the gateway's; ``is_test``: what is simulated counts, too."""

    def __init__(
        self, ledger: Ledger, door: DoorClient, catalog: Catalog, clock: Clock, *, is_test: bool = False
    ) -> None:
        self._ledger = ledger
        self._door = door
        self._catalog = catalog
        self._clock = clock
        self._is_test = is_test
        self._turn = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._reports: dict[str, Report] = _REPORTS.setdefault(catalog.hash, {})
        self._lately: dict[tuple[tuple[str, ...], tuple[str, ...]], _Lately] = {}

    # --- looking --------------------------------------------------------------------------------------------------

    async def list_standing(self, actor: Actor) -> list[Standing]:
        """All rules, by id. Raises LedgerDown."""
        mine = await asyncio.to_thread(self._find_communities, actor)
        lately = await self._read_lately(actor)
        await self._run_tests()
        return await asyncio.to_thread(self._stand, self._catalog.rules, mine, lately)

    async def read(self, actor: Actor, id: str) -> RuleAccount:
        """All about one. Raises LookupError for a rule that the catalog does not have, and LedgerDown."""
        rule = self._find(id)
        mine = await asyncio.to_thread(self._find_communities, actor)
        lately = await self._read_lately(actor)
        await self._run_tests()
        [standing] = await asyncio.to_thread(self._stand, [rule], mine, lately)
        ids = {community.id for community in mine}
        findings = await asyncio.to_thread(self._ledger.findings, id)
        path = f"rules/{id.replace('.', '/', 1)}.yaml"
        return RuleAccount(
            standing,
            await asyncio.to_thread(self._read_decisions, id, ids),
            [finding for finding in findings if finding.community in ids],
            list(reversed(lately.cases.get(id, ()))),
            path,
            self._catalog.files.get(path, ""),
        )

    async def read_report(self, id: str) -> Report | None:
        """What a rule's tests show; None for one without."""
        await self._run_tests()
        return self._reports.get(id)

    def _find(self, id: str) -> Rule:
        rule = self._catalog.rule(id)
        if rule is None:
            raise LookupError(id)
        return rule

    def _find_communities(self, actor: Actor) -> list[Community]:
        return [one for one in self._ledger.communities() if actor.covers(one.id, one.grids)]

    async def _run_tests(self) -> None:
        """All tests, once: the same files always show the same."""
        async with self._reading:
            if not self._reports:
                self._reports |= await asyncio.to_thread(
                    lambda: {id: run_test(self._catalog, test) for id, test in self._catalog.tests.items()}
                )

    def _stand(self, rules: Iterable[Rule], mine: list[Community], lately: _Lately) -> list[Standing]:
        ids = {community.id for community in mine}
        set_by_hand = self._read_overrides(ids)
        counts: Counter[tuple[str, Phase]] = Counter()
        for community, rule_id, phase, number in self._ledger.finding_counts():
            if community in ids:
                counts[rule_id, phase] += number
        return [self._describe(rule, ids, set_by_hand, counts, lately) for rule in rules]

    def _describe(
        self,
        rule: Rule,
        communities: set[str],
        set_by_hand: dict[tuple[str, str], Status],
        counts: Counter[tuple[str, Phase]],
        lately: _Lately,
    ) -> Standing:
        held = (set_by_hand.get((community, rule.id), rule.status) for community in communities)
        in_force = Counter(min(rule.status, status, key=lambda s: s.rank) for status in held)
        report = self._reports.get(rule.id)
        figures = lately.figures.get(rule.id)
        return Standing(
            rule.id,
            rule.title,
            rule.sort,
            rule.level,
            rule.category,
            rule.status,
            {status: in_force[status] for status in reversed(Status) if in_force[status]},
            report.cases if report is not None else 0,
            report.failed if report is not None else 0,
            report.gaps if report is not None else [],
            counts[rule.id, Phase.PENDING],
            counts[rule.id, Phase.FIRING],
            figures.number if figures is not None else 0,
            figures.false_alarms if figures is not None else 0,
            figures.false_alarm_rate if figures is not None else None,
        )

    def _read_overrides(self, communities: set[str]) -> dict[tuple[str, str], Status]:
        """(community, rule) → the status that a person set last."""
        found: dict[tuple[str, str], Status] = {}
        for row in self._ledger.override_rows():
            if row.community in communities:
                override = _overrides.decode(row.body)
                found.pop((row.community, override.rule), None)
                if override.status is not None:
                    found[row.community, override.rule] = Status(override.status)
        return found

    def _read_decisions(self, rule: str, communities: set[str]) -> list[Decision]:
        """One for each act, whose events differ in their communities alone."""
        acts: dict[str, Decision] = {}
        for row in self._ledger.override_rows(rule):
            if row.community not in communities:
                continue
            override = _overrides.decode(row.body)
            status = Status(override.status) if override.status is not None else None
            act = row.event_id.rpartition("/")[0]
            before = acts.get(act)
            acts[act] = Decision(
                min(row.at, before.at) if before is not None else row.at,
                override.actor,
                status,
                override.reason,
                before.communities + 1 if before is not None else 1,
            )
        return sorted(acts.values(), key=lambda decision: -decision.at)

    async def _read_lately(self, actor: Actor) -> _Lately:
        scope = (actor.grids, actor.communities)
        async with self._reading:
            known = self._lately.get(scope)
            if known is None or time.monotonic() - known.at > FRESH_S:
                if scope not in self._lately and len(self._lately) >= SCOPES:
                    self._lately.clear()
                known = self._lately[scope] = await asyncio.to_thread(self._count, actor)
            return known

    def _count(self, actor: Actor) -> _Lately:
        now = self._clock()
        question = Question(By.RULE, now - LATELY_MS, now + 1, simulated=self._is_test)
        cases: dict[str, deque[Case]] = {}

        def follow() -> Iterator[Incident]:
            for incident in read_opened(self._ledger, question.since, question.until):
                if actor.covers(incident.community, incident.chain):
                    for rule in keys_of(incident, question, Names()):
                        cases.setdefault(rule, deque(maxlen=SHOWN)).append(_shorten(incident))
                    yield incident

        found = appraise(follow(), question, Names(), now)
        return _Lately(time.monotonic(), {row.key: row for row in found.rows}, cases)

    # --- deciding -------------------------------------------------------------------------------------------------

    async def decide(self, actor: Actor, wish: Ruling) -> Ruled:
        """Sets the status in every community of the actor's scope. Whoever gets no answer asks again with the same
        ``id``: where it happened already, nothing happens twice. Raises Refused, LookupError for an unknown rule,
        DoorClosed (then it may hold in some communities), and LedgerDown."""
        rule = self._find(wish.rule)
        reason = wish.reason.strip()
        if not reason or len(reason) > LONGEST_REASON or not reason.isprintable():
            raise Refused("no-reason", f"say why, in a line of at most {LONGEST_REASON} characters", "reason")
        if wish.status is not None and wish.status.rank >= rule.status.rank:
            words = f"the file says {rule.status}, and that is the ceiling: what is set here lies below it"
            raise Refused("above-ceiling", words, "status")
        override = Override(actor.name, rule.id, wish.status, reason)
        act = f"{OVERRIDES}{rule.id}/{actor.id}/{wish.id}"
        async with self._turn:
            mine = await asyncio.to_thread(self._find_communities, actor)
            if not mine:
                raise Refused("no-community", "there is no community in your scope", "")
            rows = await asyncio.to_thread(self._ledger.override_rows, rule.id)
            before = [_overrides.decode(row.body) for row in rows if row.event_id.startswith(f"{act}/")]
            if any(earlier != override for earlier in before):
                raise Refused("key-used", "another decision was made with this key; make a new one", "id")
            missed: list[str] = []
            ids = [community.id for community in mine]
            for some in (ids[first : first + AT_ONCE] for first in range(0, len(ids), AT_ONCE)):
                answers = await asyncio.gather(*(self._submit(one, override, f"{act}/{one}") for one in some))
                missed += [one for one, is_in in zip(some, answers, strict=True) if not is_in]
        lately = await self._read_lately(actor)
        await self._run_tests()
        [standing] = await asyncio.to_thread(self._stand, [rule], mine, lately)
        return Ruled(standing, len(mine) - len(missed), missed)

    async def _submit(self, community: str, override: Override, event_id: str) -> bool:
        """Whether it holds there; not, where no gateway behind this door holds the community, or it knows no such
        rule."""
        try:
            return await self._door.submit(community, override, event_id, PATIENCE_S) in ("done", "repeat")
        except DoorRefused:
            return False


def _shorten(incident: Incident) -> Case:
    return Case(
        incident.id,
        incident.number,
        incident.title,
        incident.community,
        incident.place_name,
        incident.level,
        incident.state,
        incident.opened_at,
    )
