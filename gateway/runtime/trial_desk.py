"""Draft rules tried by people and programs: checked at once, then read in a thread of their own, one after the other,
with a limit of time. What came of it is kept in memory for whoever asked, and nobody else; nothing is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.catalog import Catalog
from gateway.core.model import Community, Text
from gateway.errors import GatewayError
from gateway.runtime.access import Actor
from gateway.runtime.device_desk import Refused
from gateway.runtime.ports import Clock, Ledger, LedgerDown
from gateway.runtime.trying import Tried, check_draft, list_days, recorded_days, try_rule
from gateway.runtime.writer import Catalogs

log = logging.getLogger(__name__)

LONGEST_S: Final = 120.0
"""A reading that takes longer is ended: a community's day takes seconds."""

WORK_S, REST_S = 0.02, 0.004
"""The reading rests so often and so long, so that the boards of this process go on meanwhile."""

WAITING: Final = 8
"""So many trials may wait or be read at a time."""

KEPT: Final = 64
"""So many are remembered; the oldest is forgotten first."""

SLOW: Final = "slow"
STOPPED: Final = "stopped"


class TrialState(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    READING = "reading"
    DONE = "done"
    FAILED = "failed"


class Trial(Struct, frozen=True):
    """A trial of a draft. ``progress`` is 0 to 1. Where it failed, ``failure`` is a stable code and
    ``words`` tell it."""

    id: str
    rule: str
    title: Text
    community: str
    day: date
    asked_at: int
    state: TrialState = TrialState.WAITING
    progress: float = 0.0
    result: Tried | None = None
    failure: str = ""
    words: str = ""

    @property
    def is_over(self) -> bool:
        return self.state in (TrialState.DONE, TrialState.FAILED)


class _Ended(Exception):
    """The reading takes too long, or the process ends."""


class _Job(Struct):
    owner: str
    text: str
    community: Community
    trial: Trial


class TrialDesk:
    """One for the web process. ``clock`` is the gateway's. It reads while `live` is open."""

    def __init__(self, ledger: Ledger, catalog: Catalog, catalogs: Catalogs, clock: Clock) -> None:
        self._ledger = ledger
        self._catalog = catalog
        self._catalogs = catalogs
        self._clock = clock
        self._jobs: dict[tuple[str, str], _Job] = {}
        self._queue: asyncio.Queue[_Job] = asyncio.Queue()
        self._is_leaving = False

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        """Reads what is asked for as long as this is open."""
        reading = asyncio.create_task(self._read_on())
        try:
            yield
        finally:
            self._is_leaving = True
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def list_days(self, community: str) -> list[date]:
        """The recorded days of a community, the newest first."""
        days = await asyncio.to_thread(recorded_days, self._ledger, community, self._clock())
        return [] if days is None else list_days(days)

    async def ask(self, actor: Actor, id: str, community: Community, day: date, text: str, file: str) -> Trial:
        """Takes a draft in; it is read later. The same ``id`` again is the same trial. Raises CatalogError with every
        problem of the draft, Refused, and LedgerDown."""
        known = self._jobs.get((actor.id, id))
        if known is not None:
            if (known.text, known.community.id, known.trial.day) != (text, community.id, day):
                raise Refused("key-used", "another draft was tried with this key; make a new one", "id")
            return known.trial
        rule = await asyncio.to_thread(check_draft, self._catalog, text, file)
        if day not in await self.list_days(community.id):
            raise Refused("no-journal", f"the ledger has no journal of {community.id} on {day}", "day")
        if sum(not job.trial.is_over for job in self._jobs.values()) >= WAITING:
            raise Refused("busy", "too many drafts are being tried now; try again soon", "")
        trial = Trial(id, rule.id, rule.title, community.id, day, self._clock())
        job = self._jobs[actor.id, id] = _Job(actor.id, text, community, trial)
        self._forget()
        self._queue.put_nowait(job)
        return trial

    def find(self, actor: Actor, id: str) -> Trial:
        """A trial of the actor's own. Raises LookupError."""
        return self._jobs[actor.id, id].trial

    def text_of(self, actor: Actor, id: str) -> str:
        """The draft of a trial of the actor's own. Raises LookupError."""
        return self._jobs[actor.id, id].text

    def list_own(self, actor: Actor) -> list[Trial]:
        """The actor's trials, the newest first."""
        return [job.trial for job in reversed(self._jobs.values()) if job.owner == actor.id]

    def _forget(self) -> None:
        for key in [key for key, job in self._jobs.items() if job.trial.is_over][: max(0, len(self._jobs) - KEPT)]:
            del self._jobs[key]

    async def _read_on(self) -> None:
        while True:
            job = await self._queue.get()
            job.trial = replace(job.trial, state=TrialState.READING)
            # Shielded: the thread ends by itself when the process leaves, and must not be left behind it.
            await asyncio.shield(asyncio.to_thread(self._read, job))

    def _read(self, job: _Job) -> None:
        begun = time.monotonic()
        rested = begun

        def look_up(part: float) -> None:
            nonlocal rested
            job.trial = replace(job.trial, progress=part)
            now = time.monotonic()
            if self._is_leaving:
                raise _Ended(STOPPED)
            if now - begun > LONGEST_S:
                raise _Ended(SLOW)
            if now - rested > WORK_S:
                time.sleep(REST_S)
                rested = time.monotonic()

        trial = job.trial
        try:
            result = try_rule(
                self._ledger,
                job.community,
                self._catalogs,
                self._catalog,
                job.text,
                trial.day,
                self._clock(),
                look_up,
            )
        except _Ended as error:
            job.trial = replace(job.trial, state=TrialState.FAILED, failure=str(error), words=_WORDS[str(error)])
        except GatewayError as error:
            job.trial = replace(job.trial, state=TrialState.FAILED, failure=error.code, words=str(error))
        except LedgerDown as error:
            job.trial = replace(job.trial, state=TrialState.FAILED, failure="ledger-down", words=str(error))
        except Exception as error:  # Whatever the reading trips over, whoever waits is told, and the next one is read.
            log.exception("trial of %s", trial.rule)
            job.trial = replace(job.trial, state=TrialState.FAILED, failure="fault", words=type(error).__name__)
        else:
            job.trial = replace(job.trial, state=TrialState.DONE, progress=1.0, result=result)


_WORDS: Final = {
    SLOW: f"reading the day took longer than {LONGEST_S:.0f} s and was ended; use the command line for it",
    STOPPED: "the web process was stopped; try again",
}
