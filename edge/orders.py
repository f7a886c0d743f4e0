"""Commands: each at most once, whatever comes twice, whatever crashes in between.

An id is written down, durably, before anything is done; a command that a crash interrupted is answered ``failed`` and
not tried again, because nobody knows how far it came. The outcome is kept until the gateway's broker has it.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Final

from msgspec import Struct

log = logging.getLogger(__name__)

REMEMBERED_MS: Final = 2 * 86_400_000
"""Ids are remembered for two days: commands live for minutes."""


class Outcome(Struct, frozen=True):
    """A command's outcome that is still to be told. ``incident`` names the incident for which the agent acted by
    itself; such an outcome is told only when the alarms before it are receipted."""

    id: str
    device: str
    outcome: str
    detail: str
    incident: str


class Orders:
    """Which commands were begun, and what became of them: one small SQLite file. Calls come from one thread."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS acted (id TEXT PRIMARY KEY, device TEXT NOT NULL, at INTEGER NOT NULL, "
            "outcome TEXT NOT NULL DEFAULT '', detail TEXT NOT NULL DEFAULT '', incident TEXT NOT NULL DEFAULT '', "
            "told INTEGER NOT NULL DEFAULT 0)"
        )
        # What a crash interrupted.
        self._db.execute(
            "UPDATE acted SET outcome = 'failed', detail = 'interrupted: the agent was stopped meanwhile' "
            "WHERE outcome = ''"
        )

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def begin(self, id: str, device: str, now: int, incident: str = "") -> bool:
        """Writes down that the command is begun. False when it was begun before: then nothing may be done, and its
        outcome is told again."""
        self._db.execute("DELETE FROM acted WHERE at < ? AND told", (now - REMEMBERED_MS,))
        done = self._db.execute(
            "INSERT INTO acted (id, device, at, incident) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            (id, device, now, incident),
        )
        if done.rowcount:
            return True
        self._db.execute("UPDATE acted SET told = 0 WHERE id = ? AND outcome != ''", (id,))
        return False

    def end(self, id: str, outcome: str, detail: str) -> None:
        """Writes down what became of it."""
        self._db.execute("UPDATE acted SET outcome = ?, detail = ? WHERE id = ?", (outcome, detail[:256], id))

    def untold(self) -> list[Outcome]:
        """Outcomes that the gateway has not heard yet, oldest first."""
        rows = self._db.execute(
            "SELECT id, device, outcome, detail, incident FROM acted WHERE outcome != '' AND NOT told "
            "ORDER BY at LIMIT 100"
        )
        return [Outcome(*row) for row in rows]

    def told(self, id: str) -> None:
        """The broker has it."""
        self._db.execute("UPDATE acted SET told = 1 WHERE id = ?", (id,))
