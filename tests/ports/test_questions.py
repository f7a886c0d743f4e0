"""Whatever is asked for, a database answers."""

from __future__ import annotations

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.ledger import SqlLedger
from gateway.runtime.accounts import Deed
from tests.ports.ledger_conformance import NOW


def test_a_text_that_no_database_holds_finds_nothing(ledger: SqlLedger) -> None:
    accounts = SqlAccounts(ledger.database)
    assert ledger.incident("\x00") is None
    assert ledger.device("c001", "sos\x00") is None
    assert accounts.find_account("li\x00") is None
    assert accounts.account("\x00") is None
    assert not accounts.drop_token("\x00", "\x00", Deed(NOW, "li", "token.drop", "\x00"))
