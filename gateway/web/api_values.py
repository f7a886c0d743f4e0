"""The values of the API that are no part of the rest: what its answers are made of, for the document and for routes."""

from __future__ import annotations

from msgspec import Struct

from gateway.core.model import (
    Community,
    Device,
    GridLevel,
    Incident,
    Role,
    Silence,
)
from gateway.runtime.acting import Choice
from gateway.runtime.board import Counts
from gateway.runtime.calls import Need
from gateway.runtime.commanding import Given, Offer, Sight
from gateway.runtime.device_history import Chapter
from gateway.runtime.products import Awaited, Product
from gateway.runtime.rule_desk import Standing
from gateway.runtime.sick import Patient
from gateway.runtime.signals import Heard
from gateway.runtime.stand import (
    FaultJudged,
    Judged,
    Moving,
    Run,
)
from gateway.runtime.today import Day
from gateway.runtime.webhooks import State, Webhook


class IncidentPage(Struct, frozen=True):
    """A page of incidents; ``next`` is the cursor of the next one, or null."""

    items: list[Incident]
    next: str | None
    position: int


class ChangePage(Struct, frozen=True):
    """Incidents in the order of their last change, up to ``position``."""

    items: list[Incident]
    position: int
    is_complete: bool


class IncidentWithMoves(Struct, frozen=True):
    """An incident, and the moves that are open to whoever asks."""

    incident: Incident
    moves: list[Choice]


class GivenList(Struct, frozen=True):
    """Commands that were given for an incident."""

    items: list[Given]


class OfferList(Struct, frozen=True):
    """Commands that may be given for an incident."""

    items: list[Offer]


class Leaf(Struct, frozen=True):
    """One test of a rule's condition: where it stands in the file, its words there, whether it held (null: unknown),
    and what it saw."""

    path: str
    text: str
    truth: bool | None
    saw: str


class Why(Struct, frozen=True):
    """Why an incident's rule fired at ``at`` (ms UTC): what it said then, and each test of its condition.
    ``is_momentary``: it held for that moment alone, such as a press. Without leaves, ``silent`` says why there are
    none: the journal of that time is gone, or nobody but a person opened it."""

    rule: str
    at: int
    device: str
    said: str
    is_momentary: bool
    leaves: list[Leaf]
    silent: str = ""


class SightList(Struct, frozen=True):
    """Cameras near an incident."""

    items: list[Sight]


class DevicePage(Struct, frozen=True):
    """A page of devices; ``next`` is the cursor of the next one, or null."""

    items: list[Device]
    next: str | None


class SickList(Struct, frozen=True):
    """Devices that are not well, by how much it hurts."""

    items: list[Patient]


class WindowList(Struct, frozen=True):
    """Maintenance windows, silences and absences."""

    items: list[Silence]


class Point(Struct, frozen=True):
    """A reading's number at a time (ms UTC); true is 1."""

    at: int
    value: float


class Curve(Struct, frozen=True):
    """A reading's numbers, in order."""

    points: list[Point]


class IncidentCurve(Struct, frozen=True):
    """A reading from ``since`` to ``until`` around an incident, and when its signals came (``marks``); ms UTC."""

    points: list[Point]
    marks: list[int]
    since: int
    until: int


class SignalList(Struct, frozen=True):
    """What a device sent, the newest first."""

    items: list[Heard]


class AskList(Struct, frozen=True):
    """Devices that asked for their password in vain, the last one first."""

    items: list[Awaited]


class CallerLine(Struct, frozen=True):
    """A press on a help page at ``at`` (ms UTC), which took ``waited`` ms to arrive; the kind of help, a number to call
    back and words, as far as they were said. ``is_unreadable``: something was said, and the key to it is lost."""

    at: int
    waited: int
    need: Need | None
    phone: str
    words: str
    is_unreadable: bool


class CallerList(Struct, frozen=True):
    """The callers of an incident, the newest first."""

    items: list[CallerLine]


class RunWatched(Struct, frozen=True):
    """A run of the test stand beside what the gateway made of it. ``is_good`` is the verdict, null while it is not over
    or has none. ``unexpected`` incidents belong to no expectation; ``refused`` is what was quarantined, by reason."""

    run: Run
    is_good: bool | None
    judged: list[Judged]
    faults: list[FaultJudged]
    findings: list[Moving]
    incidents: list[Incident]
    unexpected: list[Incident]
    refused: dict[str, int]
    repeats: int


class RunSignal(Struct, frozen=True):
    """A signal of one of a run's devices."""

    community: str
    device: str
    signal: Heard


class RunSignalList(Struct, frozen=True):
    """Signals of a run's devices, the newest first."""

    items: list[RunSignal]


class GridCount(Struct, frozen=True):
    """A grid with what is in it: open incidents by level, communities, devices, and those of them that are sick."""

    code: str
    level: GridLevel
    name: str
    parent: str | None
    levels: dict[str, int]
    communities: int
    devices: int
    sick: int


class GridCountList(Struct, frozen=True):
    """Grids by code."""

    items: list[GridCount]


class Spot(Struct, frozen=True):
    """A community on the map. ``sick`` devices have an open maintenance notice, ``silent`` sources are not there;
    ``health`` is ``good``, ``poor`` or ``bad``."""

    id: str
    name: str
    lon: float
    lat: float
    grids: tuple[str, ...]
    devices: int
    sick: int
    silent: int
    levels: dict[str, int]
    health: str


class MapView(Struct, frozen=True):
    """The communities of one's scope, and the grids that they lie in, as they stand at ``position``."""

    communities: list[Spot]
    grids: list[GridCount]
    position: int


class DeviceMark(Struct, frozen=True):
    """A device on the map: ``health`` is ``good``, ``idle`` (in a test, a drill, maintenance), ``poor`` or ``bad``;
    ``why`` says it in words, in the account's language."""

    id: str
    name: str
    health: str
    why: str


class DevicePoint(Struct, frozen=True):
    """The devices that are in one point."""

    lon: float
    lat: float
    name: str
    devices: list[DeviceMark]


class DevicePoints(Struct, frozen=True):
    """A community's devices by where they are; ``elsewhere`` are those whose place has no position."""

    points: list[DevicePoint]
    elsewhere: list[DeviceMark]


class HeatRow(Struct, frozen=True):
    """A community or a place with the incidents that were opened there. ``weight`` counts each as its level weighs."""

    id: str
    name: str
    lon: float | None
    lat: float | None
    levels: dict[str, int]
    number: int
    weight: int


class HeatTable(Struct, frozen=True):
    """Communities, the warmest first."""

    days: int
    category: str
    number: int
    items: list[HeatRow]


class HeatPlaces(Struct, frozen=True):
    """Places of a community, the warmest first."""

    items: list[HeatRow]


class Health(Struct):
    """Devices in use, those that an open notice is about, and the communities whose gateway is silent."""

    devices: int = 0
    sick: int = 0
    communities: int = 0
    silent: int = 0


class TownShare(Struct, frozen=True):
    """A town with what is open in it; ``share`` is in % of the first one's, weighed by level."""

    code: str
    name: str
    levels: dict[str, int]
    share: int


class WallFigures(Struct, frozen=True):
    """What the wall screen shows. ``alarms`` are the newest of those ``unanswered``; ``dues`` those whose time runs out
    next, below some whose time is over."""

    counts: Counts
    unanswered: int
    alarms: list[Incident]
    dues: list[Incident]
    towns: list[TownShare]
    health: Health
    today: Day


class PlaceChoice(Struct, frozen=True):
    """A place to choose: its whole name from the community down, and where it lies."""

    id: str
    name: str
    kind: str
    lon: float | None
    lat: float | None


class PlaceList(Struct, frozen=True):
    """The places of a community, each with its whole name."""

    items: list[PlaceChoice]


class CommunityPage(Struct, frozen=True):
    """Communities by id; ``next`` is the cursor of the next page, or null."""

    items: list[Community]
    next: str | None


class Registered(Struct, frozen=True):
    """What came of one device of a list: ``device`` as it is now (and its ``password``, told this once), or by
    ``code`` and in words why it is not registered."""

    device: Device | None
    password: str = ""
    is_repeat: bool = False
    code: str = ""
    detail: str = ""
    field: str = ""


class RegisteredList(Struct, frozen=True):
    """One for each device of the list, in its order."""

    items: list[Registered]


class ChapterList(Struct, frozen=True):
    """What was done to a device, the newest first."""

    items: list[Chapter]


class AuditLine(Struct, frozen=True):
    """A line of the audit log; how ``hash`` is made, docs/security.md says."""

    seq: int
    at: int
    who: str
    role: str
    what: str
    about: str
    where: str
    outcome: str
    detail: str
    hash: str


class AuditPage(Struct, frozen=True):
    """Lines of the audit log, the newest first; ``next`` is the cursor of the next page, or null."""

    items: list[AuditLine]
    next: str | None


class AccountLine(Struct, frozen=True):
    """An account, without what it signs in with."""

    id: str
    name: str
    title: str
    role: Role | None
    grids: tuple[str, ...]
    communities: tuple[str, ...]
    created_at: int
    signed_in_at: int | None
    is_disabled: bool
    is_locked: bool
    has_second_factor: bool


class AccountPage(Struct, frozen=True):
    """Accounts by name; ``next`` is the cursor of the next page, or null."""

    items: list[AccountLine]
    next: str | None


class RuleList(Struct, frozen=True):
    """Rules by id."""

    items: list[Standing]


class WebhookList(Struct, frozen=True):
    """Webhooks, the oldest first."""

    items: list[Webhook]


class DeliveryTold(Struct, frozen=True):
    """A delivery, without what was sent; ``outcome`` is what came of its last attempt."""

    id: str
    kind: str
    state: State
    attempts: int
    created_at: int
    due_at: int
    settled_at: int | None
    outcome: str


class DeliveryPage(Struct, frozen=True):
    """A page of deliveries, the newest first; ``next`` is the cursor of the next one, or null."""

    items: list[DeliveryTold]
    next: int | None


class ProductList(Struct, frozen=True):
    """Models that have a secret."""

    items: list[Product]
