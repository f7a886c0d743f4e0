"""A ledger that lives in memory, for tests and trials: the same statements on SQLite without a file.

It is no second implementation, so it cannot differ from the real one in what it refuses.
"""

from __future__ import annotations

from gateway.adapters.ledger import SqlLedger


def open_memory_ledger() -> SqlLedger:
    """A fresh, migrated ledger that is gone when it is closed."""
    ledger = SqlLedger("sqlite://")
    ledger.migrate()
    return ledger
