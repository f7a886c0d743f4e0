"""Runs the tests that stand beside the rules, through the same engine that judges in earnest.

Every case gets a small community of its own with all rules of the catalog in it, because what a resident, a property
manager or a dispatcher sees is what all rules do together. Beside pass and fail it is measured which leaves of the
rule's condition were seen true and seen false: a leaf that never was either is not tested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.catalog import Catalog
from gateway.core.condition import Seen, names, show, show_duration
from gateway.core.engine import Engine
from gateway.core.model import (
    Command,
    Community,
    Delivery,
    Device,
    DeviceState,
    Event,
    Incident,
    ListChange,
    Phase,
    Presence,
    RegistryChange,
    Sort,
    Source,
    Step,
    Tick,
    Transition,
)
from gateway.core.rule import Rule, Status
from gateway.core.state import CommunityState
from gateway.core.trial import AGENT, DEVICE_UNDER_TEST, PLACES, Expectation, Occurrence, RuleTest, Sample, Trial
from gateway.wire import Lane, Measurement, Message, Signal
from gateway.wire import Status as SourceStatus

COMMUNITY: Final = Community("community", 1, "测试小区", ("370215",))

_INSTANT: Final = re.compile(r"\b\d{13}\b")
Timed = TypeVar("Timed", Sample, Occurrence)
_ORDER: Final = {Phase.QUIET: 0, Phase.PENDING: 1, Phase.FIRING: 2}


class Failure(Struct, frozen=True):
    """One expectation that did not come true, in words."""

    file: str
    line: int
    rule: str
    case: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.case}: {self.what}"


class LeafCoverage(Struct, frozen=True):
    """Whether the tests saw one leaf of the condition true, and false."""

    path: str
    text: str
    was_true: bool
    was_false: bool


class Report(Struct, frozen=True):
    """What the tests of one rule showed. ``fired``: in some case it found something; ``stayed_quiet``: in some case it
    was fed and found nothing."""

    rule: str
    cases: int
    failures: tuple[Failure, ...]
    leaves: tuple[LeafCoverage, ...]
    fired: bool
    stayed_quiet: bool

    @property
    def failed(self) -> int:
        """How many cases failed."""
        return len({failure.case for failure in self.failures})

    @property
    def gaps(self) -> list[str]:
        """What the tests do not show, in words."""
        found = [] if self.fired else ["never fires"]
        if not self.stayed_quiet:
            found.append("never stays quiet")
        for leaf in self.leaves:
            if not leaf.was_true:
                found.append(f"{leaf.path} never true")
            if not leaf.was_false:
                found.append(f"{leaf.path} never false")
        return found


def run_tests(catalog: Catalog, pattern: str = "*") -> Iterator[Report]:
    """A report for each rule that has tests and whose id matches the pattern (``fire.*``), by id."""
    for id in sorted(catalog.tests):
        if fnmatchcase(id, pattern):
            yield run_test(catalog, catalog.tests[id])


def run_test(catalog: Catalog, test: RuleTest) -> Report:
    """Runs all cases of one rule. A draft or retired rule is tested as if it were active."""
    rule = catalog.rule(test.rule)
    if rule is None:
        raise LookupError(f"the catalog has no rule {test.rule}")
    if rule.status in (Status.DRAFT, Status.RETIRED):
        active = replace(rule, status=Status.ACTIVE)
        catalog = replace(catalog, rules=tuple(active if r.id == rule.id else r for r in catalog.rules))
        rule = active
    runs = [_Run(catalog, rule, trial, test.file) for trial in test.trials]
    failures = [failure for run in runs for failure in run.perform()]
    leaves: dict[tuple[str, str], set[bool]] = {}
    for run in runs:
        for leaf, truths in run.seen.items():
            leaves.setdefault(leaf, set()).update(truths)
    return Report(
        rule.id,
        len(runs),
        tuple(failures),
        tuple(LeafCoverage(path, text, True in truths, False in truths) for (path, text), truths in leaves.items()),
        any(run.has_found for run in runs),
        any(not run.has_found and run.was_fed for run in runs),
    )


def play_as_drill(catalog: Catalog, test: RuleTest) -> list[str]:
    """Plays all cases again with every device in a drill. A drill opens nothing and commands nothing: returned is what
    happened all the same, in words."""
    rule = catalog.rule(test.rule)
    if rule is None:
        raise LookupError(f"the catalog has no rule {test.rule}")
    found: list[str] = []
    for trial in test.trials:
        run = _Run(catalog, rule, trial, test.file, DeviceState.DRILL)
        run.perform()
        found.extend(f"{trial.name}: {case.rule} opened {case.cause}" for case in run.incidents.values())
        found.extend(f"{trial.name}: {command} was commanded" for command in run.commands)
    return found


class _Run:
    """One case on its way. ``everywhere``: the state of all devices, whatever the case says of the one under test."""

    def __init__(
        self, catalog: Catalog, rule: Rule, trial: Trial, file: str, everywhere: DeviceState | None = None
    ) -> None:
        self.catalog = catalog
        self.rule = rule
        self.trial = trial
        self.file = file
        self.everywhere = everywhere
        self.engine = Engine(catalog, CommunityState(COMMUNITY))
        self.incidents: dict[str, Incident] = {}
        self.commands: list[str] = []
        self.transitions: list[Transition] = []
        self.rejected: list[str] = []
        self.seen: dict[tuple[str, str], set[bool]] = {}
        self.momentary = {
            named.path: named.leaf
            for named in names(rule.when)
            if isinstance(named.leaf, Seen) and named.leaf.within is None
        }
        self.seq = {Lane.ALARM: 0, Lane.TELEMETRY: 0}
        self.is_online = True
        self.spooled: list[Message] = []
        self.connection = 1
        self.was_fed = bool(trial.samples or trial.occurrences or trial.presence)

    @property
    def has_found(self) -> bool:
        return any(transition.phase is Phase.FIRING for transition in self.transitions)

    def perform(self) -> list[Failure]:
        trial = self.trial
        self._begin()
        failures: list[Failure] = []
        expected: dict[int, list[Expectation]] = {}
        for expectation in trial.expectations:
            expected.setdefault(expectation.at, []).append(expectation)
        arriving = _by_time(trial.samples), _by_time(trial.occurrences)
        presence = dict(trial.presence)
        last = max(expected)
        times = sorted({*expected, *arriving[0], *arriving[1], *presence})
        for time in times:
            if time > last:
                break
            now = trial.start + time
            self._pass(now - 1)
            if time in presence:
                self._meet(presence[time], now)
            self._arrive(arriving[0].get(time, ()), arriving[1].get(time, ()), now)
            if time in expected:
                self._feed(Tick(), now)
                failures.extend(failure for e in expected[time] if (failure := self._check(e)) is not None)
        return failures

    # --- feeding ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        trial = self.trial
        devices = tuple(
            Device(
                device.id,
                device.profile,
                AGENT,
                device.place,
                state=self._state_of(device.id),
                attributes=device.attributes,
            )
            for device in trial.devices
        )
        source = Source(AGENT, "public-1", AGENT if any(d.id == AGENT for d in devices) else None)
        step = self._feed(RegistryChange("test", PLACES, (source,), devices), trial.start)
        if step.answer != "done":
            raise ValueError(f"{self.file}: {trial.name}: the test community was refused: {step.answer}")
        self._feed(Presence(AGENT, SourceStatus(online=True, connection="1")), trial.start)
        for name, entries in trial.lists.items():
            self._feed(ListChange("test", name, entries), trial.start)

    def _state_of(self, device: str) -> DeviceState:
        if self.everywhere is not None:
            return self.everywhere
        is_agent_tested = all(other.id != DEVICE_UNDER_TEST for other in self.trial.devices)
        is_under_test = device == (AGENT if is_agent_tested else DEVICE_UNDER_TEST)
        return DeviceState(self.trial.state) if is_under_test else DeviceState.ACTIVE

    def _pass(self, until: int) -> None:
        """Lets time pass as the runtime does: a tick at every deadline."""
        before = None
        while (deadline := self.engine.next_deadline()) is not None and deadline <= until:
            moment = (deadline, self.engine.now)
            if moment == before:
                break  # the engine has seen this deadline and keeps it: nothing more happens by waiting
            before = moment
            self._feed(Tick(), max(deadline, self.engine.now))

    def _meet(self, is_online: bool, now: int) -> None:
        """The source goes, or comes back and sends what it could not send before."""
        if is_online == self.is_online:
            return
        self.is_online = is_online
        if is_online:
            self.connection += 1
        self._feed(Presence(AGENT, SourceStatus(online=is_online, connection=str(self.connection))), now)
        if is_online:
            for message in self.spooled:
                self._feed(Delivery(replace(message, sent_at=now), b""), now)
            self.spooled.clear()

    def _arrive(self, samples: Iterable[Sample], occurrences: Iterable[Occurrence], now: int) -> None:
        lanes: dict[Lane, tuple[list[Measurement], list[Signal]]] = {Lane.ALARM: ([], []), Lane.TELEMETRY: ([], [])}
        profiles = {device.id: self.catalog.profiles[device.profile] for device in self.trial.devices}
        for sample in samples:
            lane = Lane(profiles[sample.device].readings[sample.reading].lane)
            value = sample.value if isinstance(sample.value, bool | str) else float(sample.value)
            lanes[lane][0].append(Measurement(f"{sample.device}:{sample.reading}", value))
        for occurrence in occurrences:
            lane = Lane(profiles[occurrence.device].events[occurrence.kind].lane)
            lanes[lane][1].append(Signal(occurrence.device, occurrence.kind, occurrence.data))
        for lane, (measurements, signals) in lanes.items():
            if not measurements and not signals:
                continue
            self.seq[lane] += 1
            message = Message(
                community=COMMUNITY.id,
                source=AGENT,
                lane=lane,
                spool="test",
                seq=self.seq[lane],
                floor=1,
                sent_at=now,
                taken_at=now,
                signals=tuple(signals),
                measurements=measurements,
                bad=(),
                digest=self.seq[lane],
            )
            if self.is_online:
                self._feed(Delivery(message, b""), now)
            else:
                self.spooled.append(message)

    def _feed(self, event: Event, now: int) -> Step:
        step = self.engine.feed(event, now)
        found = [transition for transition in step.transitions if transition.rule == self.rule.id]
        self.transitions.extend(found)
        self.incidents.update((incident.id, incident) for incident in step.incidents)
        self.commands.extend(effect.name for effect in step.effects if isinstance(effect, Command))
        self.rejected.extend(f"{bad.reading} {bad.value}: {bad.reason}" for bad in step.rejected)
        self._cover(event, any(transition.phase is Phase.FIRING for transition in found), now)
        return step

    # --- looking ---------------------------------------------------------------------------------------------

    def _cover(self, event: Event, has_fired: bool, now: int) -> None:
        kinds = {signal.kind for signal in event.message.signals} if isinstance(event, Delivery) else set()
        for path, text, truth, _ in self._leaves(now):
            leaf = self.momentary.get(path)
            truths = self.seen.setdefault((path, text), set())
            if leaf is None:
                if truth is not None:
                    truths.add(truth)
            elif leaf.name in kinds:
                truths.add(has_fired)
            elif not leaf.where:
                truths.add(False)

    def _leaves(self, now: int) -> Iterator[tuple[str, str, bool | None, str]]:
        """What each leaf of the rule says at ``now``, for every key, each key once."""
        keys: set[str] = set()
        for device in self.trial.devices:
            for explained in self.engine.explain(device.id, now):
                if explained.rule == self.rule.id and explained.key not in keys:
                    keys.add(explained.key)
                    yield from explained.leaves

    def _phase(self) -> Phase:
        """The highest phase over all keys of the rule."""
        phases = [self.engine.phase(self.rule.id, key) for key in self.engine.keys(self.rule.id)]
        return max(phases, key=lambda phase: _ORDER[phase], default=Phase.QUIET)

    def _check(self, expected: Expectation) -> Failure | None:
        cases = list(self.incidents.values())
        own = [case for case in cases if case.cause == self.rule.cause]
        newest = own[-1] if own else None
        notes = [transition.note for transition in self.transitions if transition.note]
        got: dict[str, object] = {
            "phase": self._phase(),
            "incidents": sum(1 for case in cases if case.sort is Sort.INCIDENT),
            "notices": sum(1 for case in cases if case.sort is Sort.NOTICE),
            "signals": newest.signals if newest is not None else 0,
            "level": newest.level if newest is not None else None,
            "category": newest.category if newest is not None else None,
            "commands": tuple(self.commands),
            "note": notes[-1] if notes else None,
            "key": newest.key if newest is not None else None,
        }
        wrong = [
            f"{word} {_show(wanted)}, got {_show(got[word])}"
            for word in got
            if (wanted := getattr(expected, word)) is not None and wanted != got[word]
        ]
        if not wrong:
            return None
        what = f"at {show_duration(expected.at)} expected {'; '.join(wrong)}; {self._describe()}"
        return Failure(self.file, expected.line, self.rule.id, self.trial.name, what)

    def _describe(self) -> str:
        """Where the rule stands and what its leaves see, with times counted from the start of the case."""
        now = self.engine.now
        standing = []
        for key in self.engine.keys(self.rule.id):
            begun = [t for t in self.transitions if t.key == key and t.phase is self.engine.phase(self.rule.id, key)]
            phase = self.engine.phase(self.rule.id, key)
            since = f" since {self._relative(begun[-1].since)}" if begun and phase is not Phase.QUIET else ""
            standing.append(f"the rule is {phase} for {key}{since}")
        leaves = [f"{text} is {show(truth)} ({look})" for _, text, truth, look in self._leaves(now)]
        opened = [f"{case.rule or 'no rule'} opened {case.sort} {case.cause}" for case in self.incidents.values()]
        rejected = [f"not believed: {', '.join(dict.fromkeys(self.rejected))}"] if self.rejected else []
        text = "; ".join([*(standing or ["the rule looks at no device here"]), *leaves, *opened, *rejected])
        return _INSTANT.sub(lambda found: self._relative(int(found[0])), text)

    def _relative(self, moment: int) -> str:
        return show_duration(moment - self.trial.start) if moment > self.trial.start else "0s"


def _by_time(items: Iterable[Timed]) -> dict[int, list[Timed]]:
    found: dict[int, list[Timed]] = {}
    for item in items:
        found.setdefault(item.at, []).append(item)
    return found


def _show(value: object) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else "none" if value is None else str(value)
