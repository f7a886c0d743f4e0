"""What tests of several ports stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.adapters.ledger import SqlLedger, open_ledger
from tests.ports.ledger_conformance import COMMUNITIES


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlLedger]:
    """A ledger with communities, on each of the databases."""
    if request.param == "sqlite":
        made = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    else:
        made = open_ledger(str(request.getfixturevalue("database_url")))
    made.migrate()
    made.add_communities(COMMUNITIES)
    yield made
    made.close()
