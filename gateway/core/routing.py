"""What becomes of a finding: one visible list of stages, from "it crossed" to "this body must act".

Each stage takes a `Case` and gives back the case, richer, or `Swallowed` with a stable note. The order is `STAGES`,
and nothing else decides. inhibit → silence → postpone → shade → place → deduplicate → calm → route.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.incident import Signal, takes
from gateway.core.model import Device, DeviceState, Incident, Level, Silence, Sort
from gateway.core.rule import LATE, Rule, ScopeKind, Status

LATE_MS: Final = 60_000
"""What is older than this when it arrives is late (design 4.1)."""


SILENCED: Final = "silenced"
"""The note of what a silence or a maintenance window has swallowed."""

UNSEEN: Final = "unseen"
"""The note of what time has found while the device's source was out of reach."""

STORMED: Final = "storm"
"""The note of what the community's storm has taken in."""

UNROUTED: Final = "unrouted"
"""The note of what was found while routing was switched off."""


class Finding(Struct, frozen=True):
    """A rule's condition held for long enough for one key. ``device`` is the registered device for rules that look at
    one; ``place`` is where it is; ``fields`` are the values of the rule's ``key`` fields for sightings."""

    rule: Rule
    status: Status
    key: str
    place: str
    signal: Signal
    device: Device | None = None
    source: str | None = None
    fields: tuple[str, ...] = ()
    is_deadline: bool = False
    """Time alone has found it: nothing has arrived."""

    @property
    def full_key(self) -> str:
        """The key with the values of the sighting's fields."""
        return ":".join((self.key, *self.fields))


class Case(Struct, frozen=True):
    """A finding on its way through the stages; what a stage has not settled yet is empty."""

    finding: Finding
    key: str = ""
    place: str = ""
    place_name: str = ""
    grid: str = ""
    body: str = ""
    level: Level = Level.NORMAL
    joins: Incident | None = None
    outlived: Incident | None = None
    """The open incident of the same cause and key that can no longer be joined: the new one is linked to it."""


class Swallowed(Struct, frozen=True):
    """The finding opens and joins nothing, and why, in a stable code; ``by`` is what it is swallowed by."""

    note: str
    by: str = ""


class View(Protocol):
    """What the stages may ask of the engine."""

    now: int

    def is_source_out(self, source: str) -> bool: ...
    def is_unreachable(self, source: str) -> bool: ...
    def source_device(self, source: str) -> str | None: ...
    def upstream_of(self, device: str) -> str | None: ...
    def silence_of(self, rule: str, device: str | None, place: str) -> Silence | None: ...
    def is_life_safety(self, category: str) -> bool: ...
    def is_storm(self) -> bool: ...
    def open_incident(self, cause: str, key: str) -> Incident | None: ...
    def settled_notice(self, cause: str, key: str, at: int) -> Incident | None: ...
    def within(self, place: str, kind: str) -> str: ...
    def label(self, place: str) -> str: ...
    def grid_of(self, place: str) -> str: ...
    def body_of(self, category: str) -> str: ...


Stage = Callable[[Case, View], Case | Swallowed]


def inhibit(case: Case, view: View) -> Case | Swallowed:
    """Silence is explained by the silence of the source, the panel or the power: the outage takes in its devices."""
    finding = case.finding
    device, source = finding.device, finding.source
    if device is None or source is None or not finding.rule.is_absence:
        return case
    if device.id != view.source_device(source) and view.is_source_out(source):
        return Swallowed("inhibited", source)
    upstream = view.upstream_of(device.id)
    return case if upstream is None else Swallowed("inhibited", upstream)


def silence(case: Case, view: View) -> Case | Swallowed:
    """A device in commissioning, drill or maintenance shows its signals and opens nothing real; nor does what somebody
    has silenced for a while. A press of a device that counts is never silenced."""
    finding = case.finding
    device = finding.device
    if device is not None and device.state is not DeviceState.ACTIVE:
        return Swallowed(device.state)
    if finding.signal.is_press:
        return case
    found = view.silence_of(finding.rule.id, device.id if device is not None else None, finding.place)
    return case if found is None else Swallowed(SILENCED, found.id)


def postpone(case: Case, view: View) -> Case | Swallowed:
    """What is late is stored and marked; presses and critical levels still open. While a device's source is out of
    reach nobody can know what the device has said since: a maintenance notice that time alone would find waits until
    the device is heard again, and its hold begins anew."""
    finding = case.finding
    if finding.signal.is_late and not finding.signal.is_press and finding.rule.level is not Level.CRITICAL:
        return Swallowed(LATE)
    is_unheard = finding.is_deadline and finding.device is not None and finding.rule.sort is Sort.NOTICE
    if is_unheard and finding.source is not None and view.is_unreachable(finding.source):
        return Swallowed(UNSEEN)
    return case


def shade(case: Case, view: View) -> Case | Swallowed:
    """A rule in shadow judges and records, and opens nothing."""
    return case if case.finding.status is Status.ACTIVE else Swallowed("shadow")


def place(case: Case, view: View) -> Case | Swallowed:
    """Groups by the granularity of the cause: one fire in a building is one case, whoever smells it."""
    finding = case.finding
    match finding.rule.at:
        case ScopeKind.DEVICE:
            key, where = (finding.device.id if finding.device else finding.key), finding.place
        case ScopeKind.SOURCE:
            key, where = finding.source or finding.key, finding.place
        case ScopeKind.PLACE:
            key = where = finding.place
        case kind:
            key = where = view.within(finding.place, kind)
    # The case is grouped by the wider place, and shown where the signal is.
    return replace(
        case,
        key=":".join((key, *finding.fields)),
        place=finding.place if finding.rule.at in (ScopeKind.DEVICE, ScopeKind.SOURCE) else where,
        place_name=view.label(finding.place),
        grid=view.grid_of(where),
    )


def deduplicate(case: Case, view: View) -> Case | Swallowed:
    """Joins the open incident of the same cause and key, if it can still be joined; or the notice that was over by
    itself a moment ago: what comes and goes is one case."""
    cause = case.finding.rule.cause
    found = view.open_incident(cause, case.key)
    if found is None:
        return replace(case, joins=view.settled_notice(cause, case.key, case.finding.signal.at))
    if takes(found, case.finding.signal, view.now):
        return replace(case, joins=found)
    return replace(case, outlived=found)


def storm_counts(rule: Rule, signal: Signal, view: View) -> bool:
    """Whether a case counts towards a storm: presses and what people's lives hang on never do, nor do notices."""
    return rule.sort is Sort.INCIDENT and not signal.is_press and not view.is_life_safety(rule.category)


def calm(case: Case, view: View) -> Case | Swallowed:
    """Above a rate, one incident of the community takes in what would be a case of its own."""
    if case.joins is None and storm_counts(case.finding.rule, case.finding.signal, view) and view.is_storm():
        return Swallowed(STORMED)
    return case


def route(case: Case, view: View) -> Case | Swallowed:
    """Names the level and the responsible body."""
    rule = case.finding.rule
    body = "property" if rule.sort is Sort.NOTICE else view.body_of(rule.category)
    return replace(case, level=rule.level, body=body)


def count(case: Case, view: View) -> Case | Swallowed:
    """Nothing is decided: the finding is recorded, and that is all."""
    return Swallowed(UNROUTED)


STAGES: Final[tuple[Stage, ...]] = (inhibit, silence, postpone, shade, place, deduplicate, calm, route)

UNROUTED_STAGES: Final[tuple[Stage, ...]] = (shade, count)
"""Routing switched off: each finding of an active rule would be an alarm, and is only counted."""


def decide(finding: Finding, view: View, stages: tuple[Stage, ...] = STAGES) -> Case | Swallowed:
    """Takes a finding through all stages."""
    case: Case | Swallowed = Case(finding)
    for stage in stages:
        if isinstance(case, Swallowed):
            return case
        case = stage(case, view)
    return case
