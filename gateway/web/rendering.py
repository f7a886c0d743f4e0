"""Parts of pages that many streams send: written once for all who see the same in the same language."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct

from gateway.core.model import Incident
from gateway.runtime.access import Actor
from gateway.runtime.board import Board, Counts, Filter, rank
from gateway.web.pages import Pages

RENDERED: Final = 20_000
COUNTS_S: Final = 1.0
STALE_S: Final = 5.0
"""Numbers of what is late change though no incident does."""

Words = Callable[[str], dict[str, Any]]
"""What templates need, in a language."""

Scope = tuple[Sequence[str], Sequence[str]]
"""Two with the same see the same."""


class Viewer(Struct, frozen=True):
    """Who looks, at what, in which language."""

    actor: Actor
    wanted: Filter
    language: str


class Rendering:
    """Rows and counts that many streams send: written once."""

    def __init__(self, pages: Pages, board: Board, words: Words) -> None:
        self._pages = pages
        self._board = board
        self._words = words
        self._rows: dict[tuple[str, int, str], str] = {}
        self._counts: dict[tuple[Scope, str, str], tuple[int, float, str]] = {}
        self._alarms: dict[tuple[Scope, str], tuple[int, str]] = {}

    def row(self, incident: Incident, language: str) -> str:
        """An incident's row of the list."""
        key = (incident.id, incident.revision, language)
        known = self._rows.get(key)
        if known is None:
            if len(self._rows) >= RENDERED:
                self._rows.clear()
            words = self._words(language)
            known = self._pages.fragment(language, "_case.html", incident=incident, **words)
            self._rows[key] = known
        return known

    def counts(self, viewer: Viewer) -> str:
        """The numbers above the list, at most a second old."""
        board, language = self._board, viewer.language
        key = _counts_key(viewer)
        known = self._counts.get(key)
        now = time.monotonic()
        if known is None or (known[0] != board.position and now - known[1] >= COUNTS_S) or now - known[1] > STALE_S:
            found: Counts = board.count(viewer.actor.covers, viewer.wanted.sort)
            words = self._words(language)
            html = self._pages.fragment(language, "_counts.html", counts=found, wanted=viewer.wanted, **words)
            known = self._counts[key] = (board.position, now, html)
        return known[2]

    def owes_counts(self, viewer: Viewer) -> bool:
        """Whether the numbers that were given last are older than the board."""
        known = self._counts.get(_counts_key(viewer))
        return known is None or known[0] != self._board.position

    def alarms(self, viewer: Viewer) -> str:
        """The critical incidents that nobody has taken on."""
        board, language = self._board, viewer.language
        key = (scope_of(viewer.actor), language)
        known = self._alarms.get(key)
        if known is None or known[0] != board.position:
            unanswered = board.unanswered(viewer.actor.covers)
            words = self._words(language)
            html = self._pages.fragment(language, "_alarms.html", unanswered=unanswered, **words)
            known = self._alarms[key] = (board.position, html)
        return known[1]


def _counts_key(viewer: Viewer) -> tuple[Scope, str, str]:
    return scope_of(viewer.actor), viewer.wanted.sort, viewer.language


def key_of(incident: Incident) -> str:
    """The board's order as a text that scripts compare."""
    level, due, opened, id = rank(incident)
    return f"{9 + level}{min(due, 9_999_999_999_999):013d}{opened:013d}{id}"


def scope_of(actor: Actor) -> Scope:
    """What an actor sees."""
    return actor.grids, actor.communities
