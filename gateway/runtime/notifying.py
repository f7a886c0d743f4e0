"""Tells people: finds whom a notification concerns, tries the ways that reach them, and says what became of it.

Whom: family and property first, the duty phones from the place up to the district, or the duty of a grid (`find`). The
numbers and addresses leave here only towards the ways themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from gateway.core.model import Grid, Notify, Told
from gateway.core.worktime import DAY_MS, SHANGHAI_MS
from gateway.runtime.clock import ForwardClock, RunningClock
from gateway.runtime.ports import Contact, Duty, Ledger, LedgerDown, Notifier, OutboxRow, OutboxState, Outcome, Verdict

log = logging.getLogger(__name__)

KNOWN_FOR_S: Final = 30.0
"""How long contacts and grids are remembered before they are read again."""

AGAIN_MS: Final = 5_000
AGAIN_MOST_MS: Final = 120_000
"""What reached nobody is tried again after so long, doubling, until it expires."""

NOBODY: Final = "nobody: no contact is on duty for it"
SIMULATED: Final = "nobody: it comes of simulated devices"
NO_WAY: Final = "nobody: no way of telling people is configured"

Submit = Callable[[str, Told, str], Awaitable[str]]


def is_on_duty(contact: Contact, at: int) -> bool:
    """Whether the contact can be called at that time."""
    return not contact.duty or any(_covers(duty, at) for duty in contact.duty)


def _covers(duty: Duty, at: int) -> bool:
    if (duty.since is not None and at < duty.since) or (duty.until is not None and at >= duty.until):
        return False
    day, ms = divmod(at + SHANGHAI_MS, DAY_MS)
    weekday, minute = (day + 3) % 7, ms // 60_000
    if duty.begin < duty.end:
        return weekday in duty.days and duty.begin <= minute < duty.end
    return (weekday in duty.days and minute >= duty.begin) or ((weekday - 1) % 7 in duty.days and minute < duty.end)


def find(notify: Notify, contacts: Sequence[Contact], grids: Sequence[Grid], at: int) -> list[Contact]:
    """Whom to tell, the first one first. A ring goes to the next number of the chain with each round."""
    there = [contact for contact in contacts if is_on_duty(contact, at)]
    chain = _chain(notify.grid, {grid.code: grid for grid in grids})
    family = [c for c in there if c.role == "family" and c.place == notify.place]
    keepers = [c for c in there if c.role == "property" and c.community == notify.community]
    duties = [c for code in chain for c in there if c.role == "duty" and c.grid == code]
    match notify.kind:
        case "contact":
            return [*family, *keepers]
        case "ring":
            everybody = [*keepers, *duties]
            turn = notify.round % len(everybody) if everybody else 0
            return [*everybody[turn:], *everybody[:turn]]
    bodies = [c for code in chain for c in there if c.role == "body" and (c.body, c.grid) == (notify.body, code)]
    if notify.body == "property":
        return [*keepers, *duties]
    return [*bodies, *duties]


def _chain(code: str, grids: dict[str, Grid]) -> list[str]:
    """The grid and those above it."""
    chain: list[str] = []
    here: str | None = code
    while here and here not in chain:
        chain.append(here)
        here = grids[here].parent if here in grids else None
    return chain


class Teller:
    """Performs notifications. ``submit`` brings who was told into the incident's timeline. ``is_test``: its ways lead
    to nobody real; otherwise no simulated device rings anybody."""

    def __init__(
        self,
        ledger: Ledger,
        on_ledger: Callable[..., Awaitable[Any]],
        ways: Sequence[Notifier],
        submit: Submit,
        clock: RunningClock | ForwardClock,
        *,
        is_test: bool = False,
    ) -> None:
        self._ledger = ledger
        self._on_ledger = on_ledger
        self._ways = tuple(ways)
        self._submit = submit
        self._clock = clock
        self._is_test = is_test
        self._contacts: list[Contact] = []
        self._grids: list[Grid] = []
        self._read_at = -KNOWN_FOR_S

    async def perform(self, row: OutboxRow) -> Outcome:
        """Tells once, or says when again."""
        notify, now = row.effect, self._clock()
        if not isinstance(notify, Notify):
            return Outcome(row.id, OutboxState.DEAD, now, "no notification")
        if now > notify.expires_at:
            return Outcome(row.id, OutboxState.DEAD, now, "expired")
        if notify.simulated and not self._is_test:
            return Outcome(row.id, OutboxState.HELD, now, SIMULATED)
        if not self._ways:
            return Outcome(row.id, OutboxState.DONE, now, NO_WAY)
        await self._read()
        people = find(notify, self._contacts, self._grids, now)
        if not people:
            return await self._tell(row, notify, NOBODY)
        problems: list[str] = []
        for contact in people[:1] if notify.kind == "ring" else people:
            for way in self._ways:
                if way.reaches(contact):
                    verdict = await self._try(way, contact, notify)
                    if verdict.accepted:
                        return await self._tell(row, notify, f"{way.name} to {contact.name} ({contact.id})")
                    problems.append(f"{way.name} to {contact.id}: {verdict.detail}")
        detail = "; ".join(problems) or "nobody: none of them has an address"
        pause = min(AGAIN_MOST_MS, AGAIN_MS << min(row.attempts, 8))
        again = now + round(pause * self._clock.speed)
        if not problems or again > notify.expires_at:
            return await self._tell(row, notify, f"not reached: {detail}")
        return Outcome(row.id, OutboxState.WAITING, now, detail, again)

    async def _tell(self, row: OutboxRow, notify: Notify, outcome: str) -> Outcome:
        """The timeline first: told twice is better than never, and the same id counts once."""
        try:
            await self._submit(
                row.community, Told(row.id, notify.incident, f"{notify.kind}: {outcome}"), f"told/{row.id}"
            )
        except LookupError:
            log.warning("notification %s: its community is not here", row.id)
        return Outcome(row.id, OutboxState.DONE, self._clock(), outcome)

    async def _try(self, way: Notifier, contact: Contact, notify: Notify) -> Verdict:
        try:
            return await way.send(contact, notify)
        except Exception as error:  # Whatever one way trips over, the next one is tried.
            log.exception("telling %s by %s failed", contact.id, way.name)
            return Verdict(accepted=False, refused=False, detail=type(error).__name__)

    async def _read(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._read_at < KNOWN_FOR_S:
            return
        try:
            self._contacts = await self._on_ledger(self._ledger.contacts)
            self._grids = await self._on_ledger(self._ledger.grids)
            self._read_at = now
        except LedgerDown as error:
            log.warning("contacts cannot be read now: %s", error)
