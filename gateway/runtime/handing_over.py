"""The shift hand-over (交接班): what is open and awaited, what happened in the shift, and what opens nothing now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from gateway.core.model import Incident, Line, Silence, Sort
from gateway.core.moves import FINAL, GATEWAY
from gateway.runtime.board import Board, Filter, rank
from gateway.runtime.ports import Ledger

Covers = Callable[[str, Sequence[str]], bool]

PAGE: Final = 500
LONGEST_LIST: Final = 300
_QUIET: Final = frozenset({"due", "told", "joined", "ring", "contact", "remind", "answered"})
"""Lines that are no news of their own at the end of a shift."""
_ENDING: Final = frozenset({"close", "false_alarm", "cancel", "merge"})


class Happening(Struct, frozen=True):
    """An incident that moved in the shift, with the lines that tell how, in their order."""

    incident: Incident
    lines: tuple[Line, ...]


class Shift(Struct, frozen=True):
    """A shift in somebody's scope. ``open`` is in the board's order, ``happened`` what moved, the newest first, of
    ``moved`` in all. The numbers are of the shift: opened, and ended."""

    since: int
    now: int
    open: list[Incident]
    happened: list[Happening]
    moved: int
    opened: int
    ended: int
    overdue: int


def read_shift(ledger: Ledger, board: Board, covers: Covers, since: int, now: int) -> Shift:
    """The shift from ``since`` to ``now`` (ms UTC). Raises LedgerDown."""
    happened: list[Happening] = []
    opened = ended = 0
    after = ""
    while page := ledger.changed_incidents(since, after, PAGE):
        after = page[-1].id
        for incident in page:
            if not covers(incident.community, incident.chain):
                continue
            opened += incident.opened_at >= since
            news = [line for line in incident.timeline if line.at >= since]
            ended += incident.state in FINAL and any(line.what in _ENDING for line in news)
            lines = tuple(line for line in news if _is_news(line))
            if lines:
                happened.append(Happening(incident, lines))
    happened.sort(key=lambda one: (-one.lines[-1].at, one.incident.id))
    standing = sorted(board.select(covers, Filter(Sort.INCIDENT)), key=rank)
    overdue = sum(one.due is not None and now >= one.due.due_at for one in standing)
    return Shift(since, now, standing, happened[:LONGEST_LIST], len(happened), opened, ended, overdue)


def in_force(silences: Sequence[Silence], now: int) -> list[Silence]:
    """Those that hold now, what ends first first."""
    return sorted((one for one in silences if one.since <= now < one.until), key=lambda one: one.until)


def _is_news(line: Line) -> bool:
    return line.who != GATEWAY or line.what not in _QUIET
