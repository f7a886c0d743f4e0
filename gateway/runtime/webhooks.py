"""Webhooks: who outside is told of incidents, what each is told, and where that is kept.

Every change of an incident has a position in the ledger, given in the order of commits. Whoever delivers follows these
positions with a cursor of its own (`gateway.runtime.webhook_courier`), so that the engine knows nothing of webhooks and
nothing is lost after a commit. All times are ``int`` milliseconds UTC of real time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, Protocol

from msgspec import Struct, structs

from gateway.core.model import Incident
from gateway.core.moves import FINAL
from gateway.runtime.accounts import Deed
from gateway.runtime.cloud_events import encode_cloud_event, spell_out

KINDS: Final = tuple(f"{sort}.{phase}" for sort in ("incident", "notice") for phase in ("opened", "changed", "closed"))
"""What a receiver may ask for. Notices are for the property manager: a device that is not well, and well again."""

TEST: Final = "test"
TYPE: Final = "cn.jimo.gateway.{}.v1"
"""The type of an event by its kind."""

MOST: Final = 50
"""Webhooks of one installation."""

_LEFT_OUT: Final = ("timeline", "members", "whistles")
"""What people wrote about a case stays here: who may read that asks for the incident by the API."""

_PHASES: Final = {"opened": 0, "changed": 1, "closed": 2}


class Webhook(Struct, frozen=True, omit_defaults=True):
    """Somebody's address, and what is told to it. ``grids`` and ``communities`` are its scope, as an account's is.
    ``since``: only changes after this position of the ledger are told.

    ``off_at`` is set while nothing is sent, and ``off_why`` says why: ``by-hand``, ``gone`` (it answered 410) or
    ``failing``. ``failures`` are attempts since the last good one, ``failing_since`` the first of them, ``ok_at`` the
    last good one. ``earlier_until``: so long the secret before the present one signs, too."""

    id: str
    title: str
    url: str
    kinds: tuple[str, ...]
    grids: tuple[str, ...]
    communities: tuple[str, ...]
    made_by: str
    created_at: int
    since: int = 0
    off_at: int | None = None
    off_why: str = ""
    failures: int = 0
    failing_since: int | None = None
    ok_at: int | None = None
    earlier_until: int | None = None
    renewal: str = ""
    """The key of the request that made the present secret."""

    @property
    def is_on(self) -> bool:
        return self.off_at is None

    def covers(self, incident: Incident) -> bool:
        """Whether the incident lies in its scope."""
        return incident.community in self.communities or any(grid in incident.chain for grid in self.grids)


class State(StrEnum):
    """Of a delivery: it waits, was answered well, or will not be tried again."""

    WAITING = "waiting"
    DONE = "done"
    DEAD = "dead"


class Delivery(Struct, frozen=True):
    """One event for one webhook. ``id`` is the event's, the same for every receiver; ``seq`` is its place among those
    of its ``incident``; ``outcome`` is what came of the last attempt."""

    webhook: str
    id: str
    kind: str
    incident: str
    seq: int
    created_at: int
    due_at: int
    body: bytes = b""
    state: State = State.WAITING
    attempts: int = 0
    settled_at: int | None = None
    outcome: str = ""


class Ended(StrEnum):
    """How an attempt ended: it was answered well; not, and is to be tried again; it is refused for good; or the
    receiver wants nothing any more."""

    DONE = "done"
    AGAIN = "again"
    REFUSED = "refused"
    GONE = "gone"


class Outcome(Struct, frozen=True):
    """How an attempt of a delivery ended, when the next one is due, and whether the webhook is to be switched off."""

    webhook: str
    id: str
    ended: Ended
    at: int
    detail: str
    due_at: int = 0
    gives_up: bool = False


class Webhooks(Protocol):
    """Where webhooks and their deliveries are kept. Every method is one transaction; a change and its deed stand
    together. Raises LedgerDown and CommitRefused."""

    def webhooks(self) -> list[Webhook]:
        """All, the oldest first."""

    def webhook(self, id: str) -> Webhook | None: ...

    def add(self, webhook: Webhook, secret: str, deed: Deed) -> Webhook | None:
        """As it is kept: ``since`` is where the ledger stands. None where there are `MOST` already."""

    def renew(self, id: str, secret: str, renewal: str, earlier_until: int, deed: Deed) -> bool:
        """Another secret; the present one goes on until then. False where ``renewal`` has done it already."""

    def switch(self, id: str, off_at: int | None, deed: Deed) -> None:
        """Off by hand, or on again: then what waits is due, and what changed meanwhile is not told."""

    def drop(self, id: str, deed: Deed) -> None:
        """With all that waits for it."""

    def keys(self, id: str, now: int) -> list[bytes]:
        """What signs its events now, the newest first. Raises SealBroken."""

    def cursor(self) -> int | None:
        """Up to which position of the ledger events were made; None without a webhook."""

    def open_cases(self, incidents: Sequence[str]) -> dict[str, bool]:
        """Of these incidents, those that are known, and whether they were open."""

    def take(
        self, before: int, after: int, cases: Mapping[str, bool], deliveries: Sequence[Delivery], now: int
    ) -> bool:
        """Moves the cursor and keeps what comes of it. False where somebody else has moved it: nothing is kept."""

    def due(self, webhook: str, now: int, limit: int) -> list[Delivery]:
        """What is due, the earliest first; of each incident only its first that waits."""

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Writes down how attempts ended, and what that says of their webhooks."""

    def deliveries(self, webhook: str, limit: int, before: int | None = None) -> list[Delivery]:
        """The newest, without their bodies; made before a time."""

    def send(self, delivery: Delivery, most: int, deed: Deed) -> bool:
        """One more; an id that is there is left as it is. False where so many of its kind wait already."""

    def send_again(self, webhook: str, id: str, key: str, now: int, deed: Deed) -> bool:
        """Whether there is such a delivery that does not wait, and that ``key`` has not sent again already."""

    def forget(self, done_before: int, before: int) -> int:
        """Deliveries that ended well before a time go, and all that were made before another. How many went."""

    def hold(self, mine: int, until: int, now: int) -> bool:
        """Whether this process alone delivers until then. ``mine`` is what it last held, 0 for nothing."""


class AddressRefused(Exception):
    """Nothing is sent there. ``code``: ``bad-address``, ``plain-http``, ``unknown-host`` or ``private-address``."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class Answer(Struct, frozen=True):
    """What a receiver said: an HTTP status (0 for none), and the beginning of its words or what went wrong."""

    status: int
    detail: str


class Receivers(Protocol):
    """The way to the addresses."""

    async def check(self, url: str) -> None:
        """Raises AddressRefused."""

    async def post(self, url: str, id: str, body: bytes, keys: Sequence[bytes], now: int) -> Answer:
        """One attempt; it ends in some seconds whatever the other side does, and raises nothing."""

    async def close(self) -> None: ...


# --- what is told -------------------------------------------------------------------------------------------------


def find_events(
    changes: Iterable[tuple[int, Incident]], known: Mapping[str, bool], webhooks: Sequence[Webhook], now: int
) -> tuple[list[Delivery], dict[str, bool]]:
    """What these changes mean for those webhooks, and which of their incidents are open afterwards. ``known``: whether
    an incident was open, as far as anybody was told.

    An incident that opened and closed between two looks is told as both."""
    cases = dict(known)
    deliveries: list[Delivery] = []
    told = [webhook for webhook in webhooks if webhook.is_on]
    for position, incident in changes:
        was_open, is_open = cases.get(incident.id), incident.state not in FINAL
        phases = []
        if is_open and not was_open:
            phases.append("opened")
        elif not is_open and was_open is not False:
            phases += ["closed"] if was_open else ["opened", "closed"]
        else:
            phases.append("changed")
        cases[incident.id] = is_open
        for webhook in told:
            if position <= webhook.since or not webhook.covers(incident):
                continue
            for phase in phases:
                kind = f"{incident.sort}.{phase}"
                if kind in webhook.kinds:
                    deliveries.append(_deliver(webhook.id, kind, phase, position, incident, now))
    return deliveries, cases


def _deliver(webhook: str, kind: str, phase: str, position: int, incident: Incident, now: int) -> Delivery:
    id = f"{incident.id}/{incident.revision}/{phase}"
    body = encode_cloud_event(
        id,
        TYPE.format(kind),
        f"/gateway/{incident.community}",
        incident.id,
        incident.updated_at,
        _strip(incident),
        {"position": str(position)},
    )
    return Delivery(webhook, id, kind, incident.id, position * 4 + _PHASES[phase], now, now, body)


def _strip(incident: Incident) -> dict[str, object]:
    return {name: spell_out(part) for name, part in structs.asdict(incident).items() if name not in _LEFT_OUT}


def make_test(webhook: Webhook, id: str, now: int) -> Delivery:
    """A test event."""
    whole = f"test/{id}"
    body = encode_cloud_event(whole, TYPE.format(TEST), "/gateway", webhook.id, now, {"webhook": webhook.id})
    return Delivery(webhook.id, whole, TEST, whole, now, now, now, body)
