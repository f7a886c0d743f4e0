"""Accounts and the audit log in the ledger's database, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.ledger import SqlLedger, open_ledger
from gateway.runtime.accounts import Accounts
from gateway.runtime.audit import verify_log
from gateway.runtime.ports import CommitRefused
from tests.ports.accounts_conformance import AccountsConformance, deed


@pytest.fixture(params=["sqlite", "postgresql"])
def open_one(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], SqlLedger]]:
    """Opens one and the same new ledger, as one process after the other would."""
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/ledger.db" if is_sqlite else request.getfixturevalue("database_url")
    made: list[SqlLedger] = []

    def open_it() -> SqlLedger:
        made.append(open_ledger(url))
        made[-1].migrate()
        return made[-1]

    yield open_it
    for ledger in made:
        ledger.close()


class TestAccounts(AccountsConformance):
    @pytest.fixture
    def accounts(self, open_one: Callable[[], SqlLedger]) -> Accounts:
        return SqlAccounts(open_one().database)

    @pytest.fixture
    def others(self, accounts: Accounts, open_one: Callable[[], SqlLedger]) -> Accounts:
        return SqlAccounts(open_one().database)


def test_the_database_itself_lets_nobody_change_the_log(open_one: Callable[[], SqlLedger]) -> None:
    ledger = open_one()
    accounts = SqlAccounts(ledger.database)
    accounts.record(deed())
    attacks = ["UPDATE audit SET who = 'wang'", "DELETE FROM audit WHERE seq = 1"]
    attacks += [] if ledger.database.is_sqlite else ["TRUNCATE audit"]

    for sql in attacks:
        with pytest.raises(CommitRefused, match="append-only"), ledger.database.writing() as session:
            session.run(sql)

    assert verify_log(accounts).lines == 1


_COPY = (
    "INSERT INTO audit SELECT 7, at, who, role, what, about, address, outcome, detail, hash FROM audit WHERE seq = 6"
)
TAMPERINGS = {
    "changed": ("UPDATE audit SET outcome = 'done' WHERE seq = 3", "line 3 was changed"),
    "taken out": ("DELETE FROM audit WHERE seq IN (3, 4)", "lines 3 to 4: missing"),
    "taken out at the end": ("DELETE FROM audit WHERE seq = 6", "line 6: missing at the end"),
    "put in at the end": (_COPY, "line 7: put in at the end"),
    "put in": ("UPDATE audit SET seq = seq * 10, who = 'wang' WHERE seq = 6", "lines 6 to 59: missing"),
}


def test_whoever_gets_past_the_database_is_found(open_one: Callable[[], SqlLedger]) -> None:
    ledger = open_one()
    accounts = SqlAccounts(ledger.database)
    for number in range(6):
        accounts.record(deed(f"t{number}", outcome="refused: wrong"))
    with ledger.database.writing() as session:
        for trigger in ("audit_keeps_update", "audit_keeps_delete") if session.is_sqlite else ("audit_keeps ON audit",):
            session.run(f"DROP TRIGGER {trigger}")
        session.run("CREATE TABLE kept AS SELECT * FROM audit")

    for kind, (sql, found) in TAMPERINGS.items():
        assert verify_log(accounts).flaws == (), kind
        with ledger.database.writing() as session:
            session.run(sql)

        flaws = verify_log(accounts).flaws

        assert any(flaw.what.startswith(found) for flaw in flaws), (kind, flaws)
        with ledger.database.writing() as session:
            session.run("DELETE FROM audit")
            session.run("INSERT INTO audit SELECT * FROM kept")
