"""The appraisal for those who look at pages or ask by programs: in their scope, one reading at a time."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.catalog import Catalog
from gateway.core.worktime import DAY_MS
from gateway.runtime.access import Actor
from gateway.runtime.appraisal import Appraisal, Question
from gateway.runtime.appraising import appraise_ledger
from gateway.runtime.ports import Clock, Ledger

FRESH_S: Final = 30.0
KEPT: Final = 32
LONGEST_MS: Final = 366 * DAY_MS
"""A year takes a minute where there are many incidents; more is for the command line."""


class Answer(Struct, frozen=True):
    """An appraisal, and the moment (ms UTC) as at which it is."""

    appraisal: Appraisal
    as_at: int


class Appraiser:
    """One for the web process. ``clock`` is the gateway's; ``is_test``: what is simulated counts, too. A page and the
    export beside it are one reading."""

    def __init__(self, ledger: Ledger, catalog: Catalog, clock: Clock, *, is_test: bool = False) -> None:
        self._ledger = ledger
        self._catalog = catalog
        self._clock = clock
        self._is_test = is_test
        self._turn = asyncio.Lock()
        self._known: dict[tuple[tuple[str, ...], tuple[str, ...], Question], tuple[float, Answer]] = {}

    async def appraise(self, actor: Actor, question: Question) -> Answer:
        """What the actor may know of it. Raises GatewayError and LedgerDown."""
        question = replace(question, simulated=self._is_test)
        key = (actor.grids, actor.communities, question)
        async with self._turn:
            known = self._known.get(key)
            if known is not None and time.monotonic() - known[0] < FRESH_S:
                return known[1]
            now = self._clock()
            found = await asyncio.to_thread(
                appraise_ledger, self._ledger, self._catalog, question, now, covers=actor.covers
            )
            if len(self._known) >= KEPT:
                self._known.clear()
            answer = Answer(found, now)
            self._known[key] = (time.monotonic(), answer)
            return answer
