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


class Role(StrEnum):
    """Who acts: the three officers (三员: 系统管理员, 审计管理员, 安全管理员), 调度员, 网格员, 物业, 测试, 平台 (the
    central platform, a machine), 大屏 (a screen on a wall, which only watches), 居民.

    ``gateway`` is the gateway itself, which acts when time has passed."""

    ADMINISTRATOR = "administrator"
    AUDITOR = "auditor"
    SECURITY = "security"
    DISPATCHER = "dispatcher"
    GRID_WORKER = "grid_worker"
    PROPERTY_MANAGER = "property_manager"
    TESTER = "tester"
    PLATFORM = "platform"
    WALL = "wall"
    RESIDENT = "resident"
    GATEWAY = "gateway"


class GridLevel(StrEnum):
    """The levels of the grid: 区, 镇街, 部门, 社区网格中心, 网格工作站, 基础网格, 专属网格.

    A department stands beside the towns on the second level, a department grid beside the base grids on the fifth."""

    DISTRICT = "district"
    TOWN = "town"
    DEPARTMENT = "department"
    CENTRE = "centre"
    STATION = "station"
    BASE = "base"
    SPECIAL = "special"


class Grid(Struct, frozen=True, omit_defaults=True):
    """A node of the grid. ``parent`` is a code, None for the district alone."""

    code: str
    level: GridLevel
    name: str
    parent: str | None = None


class Responsible(Struct, frozen=True, omit_defaults=True):
    """Who is the body of this kind (one of ``bodies`` in rules/categories.yaml) in a grid and all below it.

    The nearest grid that has one counts."""

    body: str
    grid: str
    name: str


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


SIMULATED: Final = "simulated"
"""The attribute of a community (its topmost place) whose devices are all simulated."""


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

    @property
    def is_simulated(self) -> bool:
        """Of a community's topmost place: whether its devices are all simulated. Only ``true`` says so: real calls for
        help must never be held back by a value that somebody meant otherwise."""
        return self.attributes.get(SIMULATED) is True


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


TIMED_OUT: Final = "timed-out"
"""The outcome of a command that nobody has answered, as the gateway itself tells it."""


class Answer(Struct, frozen=True, tag="answer"):
    """The outcome of a command, from a source's ``reply`` topic; or that there was none (`TIMED_OUT`)."""

    source: str
    reply: Reply


class Tick(Struct, frozen=True, tag="tick"):
    """Time has passed: every deadline up to ``now`` fires."""


class Blind(Struct, frozen=True, tag="blind"):
    """The gateway could not see from ``since`` to ``until`` (stopped, link lost, ledger down). ``has_jumped``: that
    time never was, the clock has jumped over it."""

    since: int
    until: int
    why: str = ""
    has_jumped: bool = False


class RegistryChange(Struct, frozen=True, tag="registry", omit_defaults=True):
    """Places, sources and devices added or changed (by id), and devices taken out."""

    actor: str
    places: tuple[Place, ...] = ()
    sources: tuple[Source, ...] = ()
    devices: tuple[Device, ...] = ()
    retired: tuple[str, ...] = ()
    community: Community | None = None
    grids: tuple[Grid, ...] = ()
    """The grids that the community's places lie in, with all above them: whoever owns a step is one of these."""
    responsible: tuple[Responsible, ...] | None = None
    """The responsible bodies of those grids, all of them; None leaves them as they are."""


class Silence(Struct, frozen=True, omit_defaults=True):
    """A silence or a maintenance window (免打扰, 检修): what it covers opens nothing from ``since`` to ``until``.

    It covers what all of its given fields name: a ``device``, a ``place`` with all below it, a ``rule``; with none of
    them it would be the whole community, which is refused."""

    id: str
    until: int
    reason: str
    actor: str
    since: int = 0
    device: str | None = None
    place: str | None = None
    rule: str | None = None
    kind: str = "silence"
    """``silence``, ``maintenance``, or ``away`` (nobody is at home: 外出报备)."""


class SilenceChange(Struct, frozen=True, tag="silence", omit_defaults=True):
    """A silence begins, or the one with the id in ``ended`` is taken back before its time."""

    id: str
    actor: str
    silence: Silence | None = None
    ended: str | None = None


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


class OperatorAction(Struct, frozen=True, tag="action", omit_defaults=True):
    """A person's (or the platform's) act on an incident. ``verb`` is one of the table of moves in
    `gateway.core.incident`; what it needs stands there.

    ``role`` and ``grid`` are the actor's: with ``grid`` the actor may act on what lies in that grid or below it; an
    empty one is the whole community's. ``revision``, when given, is the one that the actor saw: if somebody else has
    moved the incident since, the act is refused."""

    id: str
    actor: str
    incident: str
    verb: str
    reason: str = ""
    role: Role = Role.DISPATCHER
    grid: str = ""
    until: int | None = None
    """For ``park`` and ``ask_extension``: the date."""
    body: str = ""
    """For ``dispatch`` and ``return``: the responsible body that it goes to; otherwise the category's."""
    into: str = ""
    """For ``merge``: the incident that takes this one in."""
    score: int | None = None
    """For ``rate``: 1 (bad) to 5 (good)."""
    revision: int | None = None


class Order(Struct, frozen=True, tag="order", omit_defaults=True):
    """A person asks devices for something, for the sake of an open incident: the command ``name`` with its ``args`` as
    the devices' profiles declare them. ``role`` and ``grid`` are the actor's, as in `OperatorAction`; with ``grid`` the
    devices must lie in that grid, too. `gateway.core.ordering` says what is refused."""

    id: str
    actor: str
    incident: str
    name: str
    devices: tuple[str, ...]
    reason: str
    args: dict[str, Scalar] = {}
    role: Role = Role.DISPATCHER
    grid: str = ""


class Told(Struct, frozen=True, tag="told", omit_defaults=True):
    """What became of a `Notify`: whom it reached, or why nobody. It becomes a line of the incident's timeline."""

    id: str
    incident: str
    outcome: str


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
    """A press from a page: ``id`` is made by the page before it sends. It takes the same way as a physical press.

    ``joins_open``: its page is over its limit. Then it joins its device's case that is at work, however old, and
    opens one only where there is none."""

    id: str
    device: str
    kind: str = "pressed"
    data: dict[str, Scalar] = {}
    joins_open: bool = False


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
    | Order
    | Press
    | Refusal
    | SilenceChange
    | Told
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


class Due(Struct, frozen=True, omit_defaults=True):
    """What an incident waits for (时限): the act, whose it is, by when, and what has been done about it being late.

    ``step`` is the verb that is awaited; ``role``, ``grid`` and ``body`` are its owner. ``limit`` is as the file says
    it (``30min``, ``4wh``, ``3d``, ``5wd``), and ``how`` the arithmetic from ``since`` to ``due_at`` in words.
    ``next_at`` is when the clock acts next: it warns (yellow), then marks (red), then reminds and escalates, again and
    again."""

    step: str
    role: Role
    grid: str
    body: str
    since: int
    limit: str
    how: str
    warn_at: int
    due_at: int
    next_at: int
    warned_at: int | None = None
    overdue_at: int | None = None
    reminders: int = 0


class Whistle(Struct, frozen=True, omit_defaults=True):
    """A whistle (吹哨): which grid was called, when and by whom, and when it reported in (报到)."""

    grid: str
    at: int
    actor: str
    reported_at: int | None = None


class Member(Struct, frozen=True, omit_defaults=True):
    """What an incident swallowed: a finding that would have been a case of its own, and why it is none."""

    at: int
    key: str
    rule: str
    why: str
    event: str = ""
    count: int = 1


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
    linked: str | None = None
    lon: float | None = None
    lat: float | None = None
    timeline: tuple[Line, ...] = ()
    chain: tuple[str, ...] = ()
    """Codes of the grids from the district down to ``grid``."""
    due: Due | None = None
    """What is awaited now; None only when nothing is any more, and for notices."""
    aside: Due | None = None
    """The step that waits while the incident is parked or whistled up."""
    before: str = ""
    """The state to come back to when it is parked no more."""
    accepted_at: int | None = None
    """When a person first took it on; until then the duty phones are rung for a critical one."""
    rings: int = 0
    rung_at: int | None = None
    """How many calls went out, and when the next one goes."""
    returns: int = 0
    asked_until: int | None = None
    """The date of an extension that was asked for and not yet decided on."""
    extensions: int = 0
    whistles: tuple[Whistle, ...] = ()
    merged_into: str | None = None
    members: tuple[Member, ...] = ()
    flaps: int = 0
    """How often it cleared and came back: it is flapping."""
    score: int | None = None
    closed_at: int | None = None
    """When it came to an end: closed, a false alarm, or merged."""
    acted: int = 0
    """The revision at which a person acted last: who decides by an older one decides on what is no longer so."""
    simulated: bool = False
    """It lies in a community of simulated devices: it goes to no platform and rings nobody but where both are declared
    a test."""


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


class Notify(Struct, frozen=True, tag="notify", omit_defaults=True):
    """Tell a person. Whom, the directory of contacts says at the time of telling: the engine knows no phone numbers.

    ``kind``: ``ring`` (nobody has accepted a critical incident: call number ``round`` of the chain of duty phones, from
    the place up to the district, again from the first after the last), ``contact`` (life-safety verification: the
    family, or the property's duty phone), ``warn`` (yellow), ``overdue`` (red), ``remind``, ``escalate``, ``whistle``.
    For these, ``role``, ``grid`` and ``body`` are whom it concerns. Not performed after ``expires_at``."""

    id: str
    community: str
    incident: str
    kind: str
    place: str
    grid: str
    text: dict[str, str]
    expires_at: int
    level: Level = Level.NORMAL
    role: Role | None = None
    body: str = ""
    round: int = 0
    simulated: bool = False


Effect = Deliver | Command | Notify


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
