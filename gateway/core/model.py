"""The values that flow through the core: frozen, plain, and the same live, in a replay and in a test.

Every time is an ``int`` in milliseconds since 1970-01-01T00:00:00Z; every span is an ``int`` in milliseconds.
Ids are the wire's: ``[a-z0-9-]{1,48}``. Nothing here reads a clock, opens a file or makes a random number.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from gateway.wire import Message, Reply, Status

Value = float | bool | str
Scalar = float | int | bool | str
Text = Mapping[str, str]
"""A text for people by language code: ``{"zh": …, "en": …}``; ``zh`` is always there."""


class Level(StrEnum):
    """How pressing an incident is: 一般, 紧急, 特急."""

    NORMAL = "normal"
    URGENT = "urgent"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return _LEVEL_RANK[self]


_LEVEL_RANK: Final = {Level.NORMAL: 0, Level.URGENT: 1, Level.CRITICAL: 2}


class Sort(StrEnum):
    """Whom a case is for: the central platform (incident) or the property manager (maintenance notice)."""

    INCIDENT = "incident"
    NOTICE = "notice"


class DeviceState(StrEnum):
    """Where a device stands in its life.

    ``commissioning``, ``drill`` and ``maintenance`` show their signals and open nothing; each ends at ``state_until``.
    """

    ACTIVE = "active"
    COMMISSIONING = "commissioning"
    DRILL = "drill"
    MAINTENANCE = "maintenance"
    RETIRED = "retired"


class PlaceKind(StrEnum):
    """The kinds of place inside a community."""

    COMMUNITY = "community"
    BUILDING = "building"
    UNIT = "unit"
    HOUSEHOLD = "household"
    PUBLIC = "public"


class Place(Struct, frozen=True, omit_defaults=True):
    """A place of a community. ``parent`` is None only for the community itself; ``grid`` is a base grid's code."""

    id: str
    kind: PlaceKind
    name: str
    parent: str | None = None
    grid: str | None = None
    lon: float | None = None
    lat: float | None = None
    attributes: dict[str, Scalar] = {}


class Device(Struct, frozen=True, omit_defaults=True):
    """A device as registered: what it is (``profile``), who publishes for it (``source``), and where it is."""

    id: str
    profile: str
    source: str
    place: str
    name: str = ""
    address: str = ""
    state: DeviceState = DeviceState.ACTIVE
    state_until: int | None = None
    attributes: dict[str, Scalar] = {}


class Source(Struct, frozen=True, omit_defaults=True):
    """An MQTT identity: an edge agent or a device that speaks for itself; ``place`` is where it stands."""

    id: str
    place: str
    device: str | None = None
    """The device id under which the source itself is watched (an edge agent is a device too)."""


# --- events: everything that enters the engine --------------------------------------------------------------


class Delivery(Struct, frozen=True, tag="delivery"):
    """One MQTT message of the alarm or the telemetry lane, as received; ``body`` is what the journal keeps."""

    message: Message
    body: bytes


class Presence(Struct, frozen=True, tag="presence"):
    """A source's birth, death or regular status, from its ``status`` topic."""

    source: str
    status: Status


class Answer(Struct, frozen=True, tag="answer"):
    """The outcome of a command, from a source's ``reply`` topic."""

    source: str
    reply: Reply


class Tick(Struct, frozen=True, tag="tick"):
    """Time has passed: every deadline up to ``now`` fires."""


class Blind(Struct, frozen=True, tag="blind"):
    """The gateway could not see from ``since`` to ``until`` (stopped, link lost, clock jumped)."""

    since: int
    until: int
    why: str = ""


class RegistryChange(Struct, frozen=True, tag="registry", omit_defaults=True):
    """Places, sources and devices added or changed (by id), and devices taken out."""

    actor: str
    places: tuple[Place, ...] = ()
    sources: tuple[Source, ...] = ()
    devices: tuple[Device, ...] = ()
    retired: tuple[str, ...] = ()
    community: Community | None = None


class ListChange(Struct, frozen=True, tag="list"):
    """The entries of a watch list (for plates: keyed hashes) from now on; an empty tuple ends it."""

    actor: str
    name: str
    entries: tuple[str, ...]


class Override(Struct, frozen=True, tag="override"):
    """A rule's status as set by a person; the lower of this and the file's status holds; None takes it back."""

    actor: str
    rule: str
    status: str | None
    reason: str


class OperatorAction(Struct, frozen=True, tag="action"):
    """A person's (or the platform's) act on an incident. ``verb`` is one of the table of moves."""

    id: str
    actor: str
    incident: str
    verb: str
    reason: str = ""


class Refusal(Struct, frozen=True, tag="refusal", omit_defaults=True):
    """A message that was quarantined though its place in its lane is known: the cursor passes it, so that it is
    receipted as rejected and never counted as a gap. In the alarm lane it becomes an operator's incident. With the
    ``digest`` of what was refused, the same again is a repeat."""

    source: str
    spool: str
    lane: str
    seq: int
    reason: str
    detail: str = ""
    digest: int = 0


class Press(Struct, frozen=True, tag="press", omit_defaults=True):
    """A press from a page: ``id`` is made by the page before it sends. It takes the same way as a physical press."""

    id: str
    device: str
    kind: str = "pressed"
    data: dict[str, Scalar] = {}


Event = (
    Delivery
    | Presence
    | Answer
    | Tick
    | Blind
    | RegistryChange
    | ListChange
    | Override
    | OperatorAction
    | Press
    | Refusal
)


class Community(Struct, frozen=True, omit_defaults=True):
    """What identifies a community: ``serial`` (1..999) stands in its incidents' numbers, ``grids`` is its chain of
    grid codes from the district down to its grid centre."""

    id: str
    serial: int
    name: str
    grids: tuple[str, ...] = ()
    zone: str = ""


# --- what the engine decides --------------------------------------------------------------------------------


class Phase(StrEnum):
    """The state of one rule for one key. ``quiet`` is the absence of state."""

    QUIET = "quiet"
    PENDING = "pending"
    FIRING = "firing"


class Transition(Struct, frozen=True, omit_defaults=True):
    """A rule changed its phase for a key, or found something that opened nothing; ``note`` says why in a stable code
    (``shadow``, ``drill``, ``commissioning``, ``maintenance``, ``late``, ``inhibited``, ``joined``, ``opened`` …)."""

    rule: str
    key: str
    phase: Phase
    at: int
    since: int
    event: str
    note: str = ""
    incident: str | None = None


class Line(Struct, frozen=True, omit_defaults=True):
    """One line of an incident's timeline: who did what, when, why, and which signal (event id) it stands on."""

    seq: int
    at: int
    who: str
    what: str
    why: str = ""
    event: str = ""
    device: str = ""
    rule: str = ""
    late: bool = False


class Incident(Struct, frozen=True, omit_defaults=True):
    """A governance incident (or a maintenance notice) at one revision, with its whole timeline."""

    id: str
    number: str
    sort: Sort
    community: str
    cause: str
    key: str
    category: str
    level: Level
    title: dict[str, str]
    place: str
    place_name: str
    grid: str
    body: str
    rule: str
    opened_by: str
    opened_at: int
    updated_at: int
    revision: int
    state: str
    joinable: bool
    joinable_until: int | None = None
    late: bool = False
    cleared_at: int | None = None
    signals: int = 0
    devices: tuple[str, ...] = ()
    swallowed: tuple[str, ...] = ()
    linked: str | None = None
    lon: float | None = None
    lat: float | None = None
    timeline: tuple[Line, ...] = ()


class Deliver(Struct, frozen=True, tag="deliver"):
    """Tell the central platform this revision of an incident. The id is the idempotency key."""

    id: str
    incident: Incident


class Command(Struct, frozen=True, tag="command", omit_defaults=True):
    """Ask a device to do something, through the source that carries it. Not performed after ``expires_at``."""

    id: str
    community: str
    source: str
    device: str
    name: str
    args: dict[str, object]
    expires_at: int
    incident: str | None = None


Effect = Deliver | Command


class Rejected(Struct, frozen=True):
    """A value that was not believed: stored with its reason and counted; it never becomes "normal".

    ``reason`` is a stable code: ``unknown-device``, ``unknown-reading``, ``unknown-unit``, ``wrong-type``,
    ``out-of-range``, ``not-a-record``, ``unknown-event``, ``not-carried`` …"""

    source: str
    device: str
    reading: str
    reason: str
    value: str


class CursorMove(Struct, frozen=True):
    """Where the (source, spool, lane) stands after a step: all up to ``contiguous``, and ``above``, are in."""

    source: str
    spool: str
    lane: str
    contiguous: int
    above: tuple[int, ...] = ()
    lost: int = 0


class Step(Struct, frozen=True):
    """All that one event changed and asks for. Nothing of it happens before it is committed as a whole."""

    transitions: tuple[Transition, ...] = ()
    incidents: tuple[Incident, ...] = ()
    effects: tuple[Effect, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    devices: tuple[Device, ...] = ()
    cursor: CursorMove | None = None
    answer: str = ""
    """For an action: ``done``, or the reason for which it was refused."""
    judged: int = 0
    """How many readings and signals of the event were believed and judged."""


NOTHING: Final = Step()
