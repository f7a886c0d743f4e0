"""The open incidents as a process beside the gateway knows them, and what has changed since when.

One task follows the ledger's changes, a few times a second; any number of readers look at what is held in memory, so
that two hundred open boards ask the ledger no more than one. A reader that has fallen further behind than the log of
changes reaches must look at everything again; none of them ever holds another one up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.model import Incident, Level, Sort
from gateway.core.moves import FINAL
from gateway.runtime.calls import Need, needs_of
from gateway.runtime.ports import Clock, Ledger, LedgerDown

log = logging.getLogger(__name__)

POLL_S: Final = 0.2
"""How often the ledger is asked whether anything has changed: one row by its key."""

PAGE: Final = 500
KEPT: Final = 4_000
"""Changes that are remembered: some minutes of the worst storm."""

ALIVE_MS: Final = 15_000
"""The gateway says every two seconds that it is there; beyond this silence it is not."""

Covers = Callable[[str, Sequence[str]], bool]
"""Whether somebody may see a community (its id, and the chain of grids that it lies in)."""


class Filter(Struct, frozen=True):
    """What a board shows: each field that is filled must hold. ``grid`` takes in all grids below it; ``overdue`` is
    ``warned`` (yellow or red) or ``overdue`` (red); ``text`` is looked for in number, title and place, and ``named``
    are the codes of grids and ids of communities whose names it stands in: what lies in them is found, too."""

    sort: Sort = Sort.INCIDENT
    community: str = ""
    grid: str = ""
    level: str = ""
    state: str = ""
    category: str = ""
    body: str = ""
    overdue: str = ""
    text: str = ""
    named: frozenset[str] = frozenset()

    def takes(self, incident: Incident, now: int) -> bool:
        """Whether the incident is shown."""
        return (
            incident.sort == self.sort
            and self.community in ("", incident.community)
            and (not self.grid or self.grid == incident.grid or self.grid in incident.chain)
            and self.level in ("", incident.level)
            and self.state in ("", incident.state)
            and self.category in ("", incident.category)
            and self.body in ("", incident.body)
            and (not self.overdue or self._is_late(incident, now))
            and (not self.text or self._mentions(incident) or self._lies_in(incident))
        )

    def _is_late(self, incident: Incident, now: int) -> bool:
        due = incident.due
        return due is not None and now >= (due.due_at if self.overdue == "overdue" else due.warn_at)

    def _mentions(self, incident: Incident) -> bool:
        wanted = self.text.casefold()
        texts = (incident.number, incident.place_name, *incident.title.values())
        return any(wanted in text.casefold() for text in texts)

    def _lies_in(self, incident: Incident) -> bool:
        return incident.community in self.named or not self.named.isdisjoint(incident.chain)


class Counts(Struct, frozen=True):
    """How many incidents are open in a scope: by level, by state, and how many are yellow or red."""

    total: int
    levels: dict[str, int]
    states: dict[str, int]
    warned: int
    overdue: int


Change = tuple[int, Incident]
"""An incident as it stands since a position; one that is over is gone from the board."""


def rank(incident: Incident) -> tuple[int, int, int, str]:
    """The order of the board: the highest level first, then what is due first, then the oldest."""
    due = incident.due.due_at if incident.due is not None else _NEVER
    return (-incident.level.rank, due, incident.opened_at, incident.id)


_NEVER: Final = 2**62


def is_unanswered(incident: Incident) -> bool:
    """A critical incident that no person has taken on yet: it must not be overlooked."""
    is_critical = incident.sort is Sort.INCIDENT and incident.level is Level.CRITICAL
    return is_critical and incident.accepted_at is None and incident.state not in FINAL


class Board:
    """What is open. `run` keeps it up to date; everything else only looks. ``clock`` is the gateway's, ``speed`` how
    fast it runs."""

    def __init__(self, ledger: Ledger, clock: Clock, speed: float = 1.0) -> None:
        self.position = 0
        self._silence_ms = ALIVE_MS * max(1.0, speed)
        self._ledger = ledger
        self._clock = clock
        self._open: dict[str, Incident] = {}
        self._unanswered: dict[str, Incident] = {}
        self._needs: dict[str, tuple[Need, ...]] = {}
        self._log: deque[Change] = deque(maxlen=KEPT)
        self._oldest = 0
        """The log holds every change after this position."""
        self._moved = asyncio.Event()
        self._is_down = True
        self._alive_at: int | None = None

    async def load(self) -> None:
        """Reads all that is open. Raises LedgerDown."""
        position = await asyncio.to_thread(self._ledger.position)
        found: dict[str, Incident] = {}
        needs: dict[str, tuple[Need, ...]] = {}
        after = 0
        while page := await asyncio.to_thread(self._read_open, after):
            after = page[-1][0]
            found |= {incident.id: _strip(incident) for _, incident in page}
            needs |= {incident.id: asked for _, incident in page if (asked := needs_of(incident))}
        self._open, self._needs = found, needs
        self._unanswered = {id: incident for id, incident in found.items() if is_unanswered(incident)}
        self.position = self._oldest = position
        self._log.clear()
        self._is_down = False
        self._tell()

    def _read_open(self, after: int) -> list[Change]:
        return self._ledger.changes(after, PAGE, open_only=True)

    async def run(self) -> None:
        """Follows the ledger for ever. While it is down the board stands still and says so."""
        is_loaded = False
        while True:
            try:
                if not is_loaded:
                    await self.load()
                    is_loaded = True
                await self.follow()
            except LedgerDown as error:
                if not self._is_down:
                    log.warning("the board stands still: %s", error)
                    self._is_down = True
                    self._tell()
            await asyncio.sleep(POLL_S)

    async def follow(self) -> None:
        """Takes in what has changed. Raises LedgerDown."""
        position, alive_at = await asyncio.to_thread(self._look)
        was_down, self._is_down, self._alive_at = self._is_down, False, alive_at
        if was_down:
            self._tell()
        while self.position < position:
            page = await asyncio.to_thread(self._ledger.changes, self.position, PAGE)
            if not page:
                # The last of them was no change after all: a revision that was there already.
                self.position = position
                return
            self.take(page)

    def _look(self) -> tuple[int, int | None]:
        return self._ledger.position(), self._ledger.alive_at()

    def take(self, changes: Iterable[Change]) -> None:
        """Takes in changes in the order of their positions, and tells whoever waits for them."""
        for position, incident in changes:
            short = _strip(incident)
            if incident.state in FINAL:
                self._open.pop(incident.id, None)
                self._needs.pop(incident.id, None)
            else:
                self._open[incident.id] = short
                if asked := needs_of(incident):
                    self._needs[incident.id] = asked
            if is_unanswered(incident):
                self._unanswered[incident.id] = short
            else:
                self._unanswered.pop(incident.id, None)
            if len(self._log) == self._log.maxlen:
                self._oldest = self._log[0][0]
            self._log.append((position, short))
            self.position = position
        self._tell()

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def wait(self, timeout_s: float) -> None:
        """Returns when anything has moved, or when the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._moved.wait()
        except TimeoutError:
            return

    def since(self, position: int) -> list[Change] | None:
        """The changes after ``position``, in order; None when they are not remembered that far, or when the position
        is none of this ledger's."""
        if not self._oldest <= position <= self.position:
            return None
        found: list[Change] = []
        for change in reversed(self._log):
            if change[0] <= position:
                break
            found.append(change)
        found.reverse()
        return found

    @property
    def is_fresh(self) -> bool:
        """Whether the ledger was read just now."""
        return not self._is_down

    @property
    def is_gateway_there(self) -> bool:
        """Whether the gateway has said lately that it is running."""
        return self._alive_at is not None and self._clock() - self._alive_at < self._silence_ms

    # --- looking -------------------------------------------------------------------------------------------------

    def get(self, id: str) -> Incident | None:
        """An open incident, without its timeline."""
        return self._open.get(id)

    def needs(self, id: str) -> tuple[Need, ...]:
        """The kinds of help that callers asked for in an open incident."""
        return self._needs.get(id, ())

    def select(self, covers: Covers, wanted: Filter) -> list[Incident]:
        """What a filter shows of what somebody may see, in the board's order."""
        now = self._clock()
        found = [i for i in self._open.values() if wanted.takes(i, now) and covers(i.community, i.chain)]
        found.sort(key=rank)
        return found

    def unanswered(self, covers: Covers) -> list[Incident]:
        """The critical incidents that nobody has taken on yet, the oldest first, whatever a filter hides."""
        found = [i for i in self._unanswered.values() if covers(i.community, i.chain)]
        found.sort(key=lambda incident: (incident.opened_at, incident.id))
        return found

    def count(self, covers: Covers, sort: Sort = Sort.INCIDENT) -> Counts:
        """How many there are of what somebody may see."""
        now = self._clock()
        levels, states = dict.fromkeys(map(str, Level), 0), dict[str, int]()
        total = warned = overdue = 0
        for incident in self._open.values():
            if incident.sort != sort or not covers(incident.community, incident.chain):
                continue
            total += 1
            levels[incident.level] += 1
            states[incident.state] = states.get(incident.state, 0) + 1
            if incident.due is not None:
                overdue += now >= incident.due.due_at
                warned += incident.due.warn_at <= now < incident.due.due_at
        return Counts(total, levels, states, warned, overdue)


def _strip(incident: Incident) -> Incident:
    """What a list shows: the history stays in the ledger."""
    return replace(incident, timeline=(), members=())
