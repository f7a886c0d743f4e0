"""What the runtime asks of the world outside: the ledger, the broker, the central platform.

Adapters implement these; the in-memory ones pass the same conformance suites as the real ones. All times are
``int`` milliseconds UTC. Ledger and platform calls may block: the runtime calls the ledger from one thread of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

from msgspec import Struct

from gateway.core.model import (
    Community,
    Device,
    Effect,
    Grid,
    Incident,
    Level,
    Notify,
    Phase,
    Responsible,
    Step,
)
from gateway.wire import Status

STOPPING: Final = "the gateway is stopping; ask again"
UNFIT: Final = "the gateway cannot take it in"
"""Answers to what was submitted that are none of the engine's: nothing was written. ``UNFIT`` goes on with why."""

OVERRIDES: Final = "override/"
"""The ids of overrides begin with this, the rule's id and a slash: so they are found among millions of events."""


class LedgerDown(Exception):
    """The ledger cannot be reached or written now (disk full, server gone): nothing was written; it may pass."""


class CommitRefused(Exception):
    """The ledger is up and refused this batch because of what is in it: nothing of it was written."""


class FenceLost(Exception):
    """Another writer has taken these communities; nothing of the batch was written."""

    def __init__(self, communities: Sequence[str]) -> None:
        super().__init__("another writer has taken " + ", ".join(communities))
        self.communities = tuple(communities)


class Entry(Struct, frozen=True):
    """One journal row and the step that it caused. ``kind`` is the event's tag; for deliveries ``body`` is the payload
    as received, otherwise the event as JSON. ``event_id`` is unique in the journal when given (alarm-lane messages,
    presses from pages, actions); telemetry has none, because an index entry per pack costs more than the row."""

    community: str
    seq: int
    at: int
    kind: str
    catalog: str
    body: bytes
    source: str = ""
    lane: str = ""
    event_id: str | None = None
    digest: int = 0
    step: Step = Step()


class Quarantined(Struct, frozen=True):
    """Bytes not understood or forged. Kept: a digest, the length and the first 64 bytes as text, never more."""

    at: int
    community: str
    source: str
    topic: str
    reason: str
    detail: str
    digest: str
    length: int
    head: str


class Fence(Struct, frozen=True):
    """A community's fence in this batch: head moves from ``old`` to ``new`` under ``epoch``, or nothing is written."""

    community: str
    epoch: int
    old: int
    new: int


class Checkpoint(Struct, frozen=True):
    """The state of a community after journal row ``seq``; ``schema`` is the version of its encoding."""

    community: str
    seq: int
    at: int
    schema: int
    catalog: str
    state: bytes


class Batch(Struct, frozen=True):
    """What is committed in one transaction."""

    fences: Sequence[Fence] = ()
    entries: Sequence[Entry] = ()
    quarantined: Sequence[Quarantined] = ()
    checkpoints: Sequence[Checkpoint] = ()
    alive_at: int = 0
    """When not 0: the gateway could see until then (the start of a later ``Blind``)."""
    tallies: Mapping[str, int] = {}
    """Counters that rise by so much: ``repeats/SOURCE``, messages that came again, and ``clocks/SOURCE``, messages that
    their source dated ahead of our time."""


class Claim(Struct, frozen=True):
    """A community as claimed by this writer."""

    community: Community
    epoch: int
    head: int


class JournalRow(Struct, frozen=True):
    """One journal row as read back. For deliveries ``source`` and ``lane`` name the topic that the body came in on."""

    seq: int
    at: int
    kind: str
    catalog: str
    body: bytes
    source: str
    lane: str
    digest: int = 0


class OutboxRow(Struct, frozen=True):
    """One effect waiting to be performed."""

    id: str
    community: str
    effect: Effect
    attempts: int
    due_at: int
    created_at: int


class Unanswered(Struct, frozen=True):
    """A command that was sent and that nobody has answered in its time."""

    command: str
    community: str
    source: str
    device: str


REFUSALS: Final = frozenset({400, 413, 422})
"""The answers over HTTP by which a receiver refuses for good; after any other it is tried again."""


class OutboxState(StrEnum):
    """``dead``: refused for good (`REFUSALS`), on the visible dead-letter list, can be sent again. ``held``: it
    comes of simulated devices, and whoever would get it is not declared a test; it is never sent."""

    WAITING = "waiting"
    DONE = "done"
    DEAD = "dead"
    SUPERSEDED = "superseded"
    HELD = "held"


class Outcome(Struct, frozen=True):
    """What became of one attempt at an effect; ``due_at`` is the next attempt's time when it is still waiting."""

    id: str
    state: OutboxState
    at: int
    detail: str = ""
    due_at: int = 0


class SourceView(Struct, frozen=True):
    """What a source last said of itself, and when."""

    community: str
    source: str
    seen_at: int
    status: Status


class Disbelieved(Struct, frozen=True):
    """Values of a reading that were not believed, counted: the last one, why, and when the first and the last came."""

    device: str
    reading: str
    reason: str
    value: str
    count: int
    first_at: int
    last_at: int


class OverrideRow(Struct, frozen=True):
    """A rule's status as a person set it in one community: a journal row with its event's id and the event as JSON."""

    community: str
    seq: int
    at: int
    event_id: str
    body: bytes


class Finding(Struct, frozen=True):
    """How a rule stands for one key, where it is not simply quiet: it waits, it fires, or it found something that
    opened nothing (``note`` says why, as in `Transition`)."""

    community: str
    key: str
    phase: Phase
    at: int
    since: int
    note: str = ""
    incident: str | None = None


class Tally(Struct, frozen=True):
    """How many incidents of one sort, as far as a map tells them apart, were opened in a time: in one community and
    grid, of one category and level."""

    community: str
    grid: str
    category: str
    level: Level
    number: int


class PlaceTally(Struct, frozen=True):
    """The same at one place, with its name and position as the newest of these incidents has them, and ``chain``, that
    incident's codes of the grid from the district down."""

    place: str
    name: str
    category: str
    level: Level
    number: int
    chain: tuple[str, ...] = ()
    lon: float | None = None
    lat: float | None = None


class CommandView(Struct, frozen=True):
    """What was asked of a device, and what became of it (``state``: pending, sent, done, failed, expired …)."""

    id: str
    name: str
    state: str
    detail: str
    created_at: int
    updated_at: int
    incident: str | None = None


class GivenCommand(Struct, frozen=True):
    """What was asked of a device for an incident, by a rule or a person, and what became of it (``state`` as in
    `CommandView`). After ``expires_at`` (ms) it is not given any more."""

    id: str
    device: str
    name: str
    args: dict[str, Any]
    state: str
    detail: str
    created_at: int
    updated_at: int
    expires_at: int


class Duty(Struct, frozen=True, omit_defaults=True):
    """When a contact is on duty: days of the week (0 = Monday) and local minutes of the day; a span over midnight
    belongs to the day on which it begins. ``since`` and ``until`` (ms) bound it when it is for a while only."""

    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    begin: int = 0
    end: int = 1440
    since: int | None = None
    until: int | None = None


class Contact(Struct, frozen=True, omit_defaults=True):
    """Somebody who can be called. ``role``: ``family`` of a household (``place``), ``property`` of a ``community``,
    ``duty`` of a ``grid``, ``body`` (the ``body`` in a ``grid``). Without ``duty`` always on duty. Numbers and
    addresses are personal: they stand in no log, no timeline and no error."""

    id: str
    name: str
    role: str
    community: str = ""
    place: str = ""
    grid: str = ""
    body: str = ""
    rank: int = 0
    phone: str = ""
    email: str = ""
    webhook: str = ""
    duty: tuple[Duty, ...] = ()


class Ledger(Protocol):
    """SQL truth. Every method is one transaction. Raises LedgerDown, CommitRefused or FenceLost, nothing else."""

    def migrate(self) -> None: ...
    def close(self) -> None: ...

    def add_communities(self, communities: Sequence[Community]) -> None:
        """Adds or renames communities; their epoch and head start at 0 and are kept when they exist."""

    def communities(self) -> list[Community]: ...

    def claim(self, communities: Sequence[str], now: int) -> list[Claim]:
        """Takes the communities for this writer: their epoch rises by one, so that an older writer loses its fence."""

    def commit(self, batch: Batch) -> None:
        """Writes fences, journal, steps (rule_state, incident, timeline, device, cursor, outbox, command), rejected
        values, quarantine and checkpoints: all or nothing."""

    def standing(self, communities: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(epoch, head) of the communities as they stand: tells a commit whose answer was lost from a lost fence."""

    def load_checkpoint(self, community: str, before: int | None = None) -> Checkpoint | None:
        """The newest checkpoint (``before``: the newest not younger than that time)."""

    def read_journal(
        self, community: str, after: int, until: int | None = None, kinds: Sequence[str] = ()
    ) -> Iterator[JournalRow]:
        """Rows with seq > ``after`` (and at ≤ ``until``) in order; with ``kinds``, only those of these."""

    def journal_before(self, community: str, at: int) -> int:
        """The number of the journal's last row that is older than ``at`` (ms); 0 where there is none."""

    def find_event(self, event_id: str) -> tuple[str, int] | None:
        """(community, digest) of the journal row with this event id."""

    def alive_at(self) -> int | None: ...

    def save_catalog(self, hash: str, files: Mapping[str, str], now: int) -> None: ...
    def load_catalog(self, hash: str) -> dict[str, str] | None: ...

    def due_effects(self, now: int, limit: int, kind: str) -> list[OutboxRow]:
        """Waiting effects of a kind (``deliver``, ``command`` or ``notify``) that are due, oldest first."""

    def settle(self, outcomes: Sequence[Outcome]) -> None: ...
    def bring_forward(self, now: int, latest: int) -> None:
        """Makes due now what a clock that was ahead has put off: waiting effects that are due after ``latest``, and
        those that were never tried and are not due yet."""

    def unanswered_commands(self, now: int, limit: int = 100) -> list[Unanswered]:
        """Commands that were sent, and not answered within a minute after their time, the oldest first. An answer that
        comes still later counts."""

    def resend_dead(self, id: str, now: int) -> bool: ...
    def deliver_again(self, incident: str, now: int) -> bool:
        """Puts the newest revision of an incident in the outbox, waiting and due now, whatever became of it before.
        False when there is no such incident (a notice is none)."""

    def outbox_state(self, id: str) -> OutboxState | None: ...
    def outbox_counts(self) -> dict[str, int]:
        """Deliveries and commands by state."""

    def put_district(
        self, grids: Sequence[Grid], responsible: Sequence[Responsible], contacts: Sequence[Contact]
    ) -> None:
        """Adds or changes grids (by code), responsible bodies (by body and grid) and contacts (by id)."""

    def drop_district(
        self, grids: Sequence[str], responsible: Sequence[tuple[str, str]], contacts: Sequence[str]
    ) -> None:
        """Takes out grids by code, responsible bodies by (body, grid) and contacts by id; nothing is left of them."""

    def grids(self) -> list[Grid]: ...
    def responsible(self) -> list[Responsible]: ...
    def contacts(self) -> list[Contact]:
        """By rank and id."""

    def issue_credentials(self, names: Sequence[str], now: int) -> dict[str, str]:
        """New random passwords for MQTT identities; only a salted hash is kept, so this is the only time they are
        seen. Replaces earlier ones."""

    def credentials(self) -> dict[str, str]:
        """Identity → password hash, in Mosquitto's ``$7$`` PBKDF2-SHA512 form."""

    def drop_credentials(self, names: Sequence[str]) -> None:
        """These identities may connect no more."""

    def list_beforehand(self, secrets: Mapping[str, str], now: int) -> list[str]:
        """Identities with the passwords that their makers put into them (一机一密), kept as hashes until somebody
        claims them. Returns the names that were known already; of those nothing is changed."""

    def is_unclaimed(self, name: str, password: str) -> bool:
        """Whether an identity was listed beforehand with this password, and is nobody's yet."""

    def is_identity_taken(self, name: str) -> bool:
        """Whether an MQTT identity is, or was, somebody's in any community: to be given to nobody else."""

    # Views
    def incidents(self, *, open_only: bool = False, limit: int = 1000) -> list[Incident]: ...
    def incident(self, id: str) -> Incident | None: ...
    def incident_of(self, event: str) -> Incident | None:
        """The incident in whose timeline the signal with this event id stands first."""

    def open_at(self, community: str, key: str) -> Incident | None:
        """The newest open incident with this key: of a device, for causes that are a device's own."""

    def changed_incidents(self, since: int, after: str = "", limit: int = 500) -> list[Incident]:
        """The incidents (no notices) that changed at ``since`` (ms) or later, by id; those beyond the id ``after``."""

    def opened_incidents(self, since: int, until: int, after: str = "", limit: int = 500) -> list[Incident]:
        """The incidents (no notices) that were opened from ``since`` to before ``until`` (ms), by that time and id; of
        those opened at ``since`` itself, the ones beyond the id ``after``. So a page goes on from the time and the id
        of the last one."""

    def tally_opened(self, since: int, until: int) -> list[Tally]:
        """How many incidents (no notices) were opened from ``since`` to before ``until`` (ms), and where."""

    def tally_places(self, community: str, since: int, until: int) -> list[PlaceTally]:
        """The same within one community, by place."""

    def position(self) -> int:
        """How many changes of incidents the ledger has seen; 0 at first. It only rises."""

    def changes(self, after: int, limit: int = 500, *, open_only: bool = False) -> list[tuple[int, Incident]]:
        """Incidents and notices as they stand, each with the position of its last change, in that order, beyond the
        position ``after``. Positions are seen in their order: whoever asks again with the last one misses nothing."""

    def devices(self, community: str | None = None) -> list[Device]: ...
    def device(self, community: str, id: str) -> Device | None:
        """One device, also a retired one."""

    def disbelieved(self, community: str, device: str | None = None) -> list[Disbelieved]:
        """Values that were not believed, the newest first."""

    def commands(self, community: str, device: str, limit: int = 50) -> list[CommandView]:
        """What was asked of a device, the newest first."""

    def commands_for(self, incident: str, limit: int = 200) -> list[GivenCommand]:
        """What was asked of devices for an incident, the newest first."""

    def incidents_of(self, community: str, device: str, limit: int = 50) -> list[Incident]:
        """Incidents and notices with a line of this device, the newest first."""

    def registry_rows(self, community: str, limit: int = 5000) -> list[JournalRow]:
        """The journal's changes of the registry and of silences, the newest first."""

    def override_rows(self, rule: str = "") -> list[OverrideRow]:
        """The journal's overrides of a rule, or of all rules, by community and in their order."""

    def findings(self, rule: str, limit: int = 500) -> list[Finding]:
        """Where a rule is not quiet or noted something, in all communities, what changed last first."""

    def finding_counts(self) -> list[tuple[str, str, Phase, int]]:
        """(community, rule, phase, how many keys), for what `findings` tells one by one."""

    def quarantine_counts(self) -> list[tuple[str, str, int]]:
        """(community that the topic names, reason, how many), for what `counts` tells of all."""

    def sources(self, community: str | None = None) -> list[SourceView]: ...
    def counts(self) -> dict[str, dict[str, int]]:
        """``quarantined`` and ``rejected`` by reason, ``repeats`` and ``clocks`` (messages that came again, or were
        dated ahead of our time) by source, ``outbox``, ``notifications`` and ``commands`` by state,
        ``lost`` by source."""


class Arrived(Struct, frozen=True, eq=False):
    """A message delivered by the broker and not yet acknowledged. ``generation`` is the connection's: acknowledging
    with a stale one is dropped, or it would erase a new message with the same packet id."""

    topic: str
    payload: bytes
    mid: int
    generation: int
    session: int
    received_at: int
    dup: bool = False


class Outgoing(Struct, frozen=True):
    """A message for the broker."""

    topic: str
    payload: bytes
    retain: bool = False


class Inbox(Protocol):
    """The broker's two sessions (alarm lane; telemetry lane with status and reply), read by one event loop."""

    def take(self, limit: int) -> list[Arrived]:
        """What is waiting, the alarm lane's first, at most ``limit`` of the telemetry lane."""

    async def wait(self, timeout_s: float | None) -> None:
        """Returns when something is waiting, or the time is over."""

    def acknowledge(self, arrived: Sequence[Arrived]) -> None: ...
    def publish(self, messages: Sequence[Outgoing]) -> Sequence[Outgoing]:
        """Hands messages to the broker. Returns those that were not taken (no link, too many in flight)."""

    async def publish_confirmed(self, messages: Sequence[Outgoing], timeout_s: float = 10.0) -> Sequence[Outgoing]:
        """Publishes, and waits for the broker's word. Returns those that it has not confirmed in time."""

    def is_connected(self) -> bool: ...


class Verdict(Struct, frozen=True):
    """What the central platform made of a delivery. ``accepted`` and ``refused`` are final; otherwise it is sent
    again later. ``detail`` is for people: a status, an error, never a secret."""

    accepted: bool
    refused: bool
    detail: str


class PlatformAway(Exception):
    """The central platform did not say what it holds; ``str()`` says why, for people."""


class Held(Struct, frozen=True):
    """What the central platform holds of an incident: our newest ``revision`` there and its ``content`` (None when that
    is none of ours), the ``state`` in its own code, and what its people did, each as the callback's bytes, in order."""

    incident: str
    revision: int
    state: str
    updated_at: int
    content: Incident | None
    acts: tuple[bytes, ...] = ()


class Notifier(Protocol):
    """One way of telling a person: a webhook, a gateway for text messages, mail."""

    name: str

    def reaches(self, contact: Contact) -> bool:
        """Whether the contact has an address for this way."""

    async def send(self, contact: Contact, notify: Notify) -> Verdict:
        """Tells once. The notification's id is the idempotency key."""

    async def close(self) -> None: ...


class Platform(Protocol):
    """The central platform."""

    async def deliver(self, effect_id: str, incident: Incident) -> Verdict: ...


class PlatformList(Protocol):
    """The central platform's list of what it holds."""

    def list_held(self, since: int) -> AsyncIterator[Held]:
        """What it holds of the incidents that changed there at ``since`` (ms) or later. Raises PlatformAway."""

    async def find_held(self, incident: str) -> Held | None:
        """What it holds of one incident; None when that never arrived. Raises PlatformAway."""


Clock = Callable[[], int]
"""The time in milliseconds UTC."""

Publish = Callable[[Sequence[Outgoing]], None]
Deliverer = Callable[[str, Incident], Awaitable[Verdict]]
