"""A ledger that lives in memory, for tests: the same statements on SQLite without a file."""

from __future__ import annotations

from gateway.adapters.ledger import SqlLedger


def open_memory_ledger() -> SqlLedger:
    """A fresh, migrated ledger that is gone when it is closed."""
    ledger = SqlLedger("sqlite://")
    ledger.migrate()
    return ledger
