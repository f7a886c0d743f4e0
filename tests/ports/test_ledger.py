"""The ledger's conformance suite, on SQLite in a file, on SQLite in memory and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.adapters.ledger import SqlLedger, open_ledger
from gateway.adapters.memory_ledger import open_memory_ledger
from gateway.adapters.schema import metadata
from tests.ports.ledger_conformance import LedgerConformance
from tests.servers import Postgres


@pytest.fixture(scope="module")
def migrated_postgres(request: pytest.FixtureRequest) -> Iterator[SqlLedger]:
    """One migrated database for the module; emptied for each test, because making one takes longer than most tests."""
    server: Postgres = request.getfixturevalue("postgres")
    url = server.new_database()
    ledger = open_ledger(url)
    ledger.migrate()
    yield ledger
    ledger.close()
    server.drop_database(url)


class TestLedger(LedgerConformance):
    @pytest.fixture(params=["memory", "sqlite", "postgresql"])
    def ledger(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlLedger]:
        if request.param == "postgresql":
            ledger: SqlLedger = request.getfixturevalue("migrated_postgres")
            with ledger.database.writing() as session:
                # The audit log lets nobody empty it, and this suite writes none.
                session.run("TRUNCATE " + ", ".join(f'"{name}"' for name in metadata.tables if name != "audit"))
            yield ledger
            return
        ledger = open_memory_ledger() if request.param == "memory" else open_ledger(f"sqlite:///{tmp_path}/ledger.db")
        ledger.migrate()
        yield ledger
        ledger.close()
