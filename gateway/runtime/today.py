"""What the day brought so far (今日): opened, ended, in time, and how soon people took cases on; for a screen that is
looked at all day.

Read once from the ledger, and from then on only what has changed. A day is the local one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct

from gateway.core.model import Incident, Sort
from gateway.core.moves import State
from gateway.core.worktime import day_start, local_day
from gateway.runtime.appraisal import follow
from gateway.runtime.ports import Clock, Ledger

Covers = Callable[[str, Sequence[str]], bool]

PAGE: Final = 500
_ENDED: Final = frozenset({State.CLOSED, State.RATED, State.FALSE_ALARM})
"""As the appraisal counts what was in time: a merged case is another one's."""


class Day(Struct, frozen=True):
    """The figures of a day. ``in_time`` counts those of the ``ended`` of which no step was late; ``accept_ms`` is the
    mean from opening to acceptance of the ``accepted``. A rate or a mean of nothing is None."""

    opened: int
    ended: int
    in_time: int
    accepted: int
    accept_ms: int | None

    @property
    def in_time_percent(self) -> int | None:
        """In time, of a hundred; rounded down, for 100 is to mean all."""
        return 100 * self.in_time // self.ended if self.ended else None


class _Trace(Struct, frozen=True):
    """What of an incident is counted."""

    community: str
    chain: tuple[str, ...]
    opened_at: int
    accepted_at: int | None
    ended_at: int | None
    is_late: bool


class Today:
    """One for the web process. ``clock`` is the gateway's; ``is_test``: what is simulated counts, too."""

    def __init__(self, ledger: Ledger, clock: Clock, *, is_test: bool = False) -> None:
        self._ledger = ledger
        self._clock = clock
        self._is_test = is_test
        self._turn = asyncio.Lock()
        self._since = -1
        self._position = 0
        self._traces: dict[str, _Trace] = {}

    async def read(self, covers: Covers) -> Day:
        """As it stands now, of what ``covers`` takes in. Raises LedgerDown."""
        async with self._turn:
            await asyncio.to_thread(self._follow)
        return self.sum(covers)

    def sum(self, covers: Covers) -> Day:
        """As it stood at the last reading."""
        opened = ended = in_time = accepted = spent = 0
        for trace in self._traces.values():
            if not covers(trace.community, trace.chain):
                continue
            opened += trace.opened_at >= self._since
            if trace.ended_at is not None and trace.ended_at >= self._since:
                ended += 1
                in_time += not trace.is_late
            if trace.accepted_at is not None and trace.accepted_at >= self._since:
                accepted += 1
                spent += trace.accepted_at - trace.opened_at
        return Day(opened, ended, in_time, accepted, spent // accepted if accepted else None)

    def _follow(self) -> None:
        since = day_start(local_day(self._clock()))
        if since != self._since:
            position = self._ledger.position()
            traces: dict[str, _Trace] = {}
            after = ""
            while page := self._ledger.changed_incidents(since, after, PAGE):
                after = page[-1].id
                self._take(traces, page)
            self._traces, self._since, self._position = traces, since, position
        while changes := self._ledger.changes(self._position, PAGE):
            self._position = changes[-1][0]
            self._take(self._traces, (incident for _, incident in changes if incident.sort is Sort.INCIDENT))

    def _take(self, traces: dict[str, _Trace], incidents: Iterable[Incident]) -> None:
        for incident in incidents:
            if incident.simulated and not self._is_test:
                traces.pop(incident.id, None)
                continue
            has_ended = incident.state in _ENDED
            traces[incident.id] = _Trace(
                incident.community,
                incident.chain,
                incident.opened_at,
                incident.accepted_at,
                incident.closed_at if has_ended else None,
                has_ended and follow(incident).is_late,
            )
