"""What a ledger makes of rows that cannot be read, and of texts that no database holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from gateway.adapters.ledger import SqlLedger, open_ledger
from gateway.core.model import Command, Deliver, Step
from gateway.runtime.ports import Batch, CommitRefused, Entry, Fence, LedgerDown
from tests.ports.incidents import effect_id
from tests.ports.ledger_batches import CATALOG, NOW, found_ledger, open_case

HALF_A_PAIR = "\ud800"
CASE = open_case("c001", 1)
VALVE = Command("command-1", "c001", "agent-c001", "valve-1", "close", {}, NOW + 60_000)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlLedger]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
    else:
        url = str(request.getfixturevalue("database_url"))
    ledger = open_ledger(url)
    found_ledger(ledger, 1)
    [claim] = ledger.claim(["c001"], NOW)
    effects = (Deliver(effect_id(CASE), CASE), Deliver("another/1", CASE), VALVE)
    entry = Entry("c001", 1, NOW, "press", CATALOG, b"{}", step=Step(incidents=(CASE,), effects=effects))
    ledger.commit(Batch([Fence("c001", claim.epoch, 0, 1)], [entry]))
    yield ledger
    ledger.close()


def spoil(ledger: SqlLedger, table: str, id: str) -> None:
    """The document of a row becomes half of one, as after a fault of ours or a step back to an older program."""
    with ledger.database.writing() as session:
        assert session.run(f"UPDATE {table} SET document = ? WHERE id = ?", b'{"type":', id) == 1


def test_an_effect_that_cannot_be_read_is_a_dead_letter_and_holds_nothing_back(ledger: SqlLedger) -> None:
    spoil(ledger, "outbox", effect_id(CASE))
    spoil(ledger, "outbox", VALVE.id)

    assert [row.id for row in ledger.due_effects(NOW, 10, "deliver")] == ["another/1"]
    assert ledger.due_effects(NOW, 10, "command") == []

    assert ledger.outbox_counts() == {"dead": 2, "waiting": 1}
    assert ledger.counts()["commands"] == {"failed": 1}
    with ledger.database.reading() as session:
        details = session.select("SELECT detail FROM outbox WHERE state = 'dead'")
    assert all(detail.startswith("it cannot be read: ") for (detail,) in details)


def test_an_incident_that_cannot_be_read_is_told_and_the_others_are_read(ledger: SqlLedger) -> None:
    spoil(ledger, "incident", CASE.id)

    with pytest.raises(LedgerDown, match="DecodeError"):
        ledger.incident(CASE.id)

    assert ledger.counts()["incidents"] == {"reported": 1}


def test_what_no_database_holds_is_refused_and_nothing_else_suffers(ledger: SqlLedger) -> None:
    [claim] = ledger.claim(["c001"], NOW)
    case = structs.replace(open_case("c001", 2), title={"zh": f"烟感{HALF_A_PAIR}"})
    entry = Entry("c001", 2, NOW, "press", CATALOG, b"{}", step=Step(incidents=(case,)))
    with pytest.raises(CommitRefused, match="surrogates"):
        ledger.commit(Batch([Fence("c001", claim.epoch, 1, 2)], [entry]))
    with pytest.raises(CommitRefused, match="surrogates"):
        ledger.save_catalog("abc", {"rules/fire.yaml": HALF_A_PAIR}, NOW)
    with pytest.raises(CommitRefused, match="surrogates"):
        ledger.issue_credentials([HALF_A_PAIR], NOW)

    assert ledger.standing(["c001"]) == {"c001": (claim.epoch, 1)}
    assert ledger.incidents() == [CASE]
    assert ledger.load_catalog("abc") is None


@pytest.mark.parametrize("id", ["\x00", HALF_A_PAIR, "page-\x00-1"])
def test_an_event_id_that_no_database_holds_is_in_none(ledger: SqlLedger, id: str) -> None:
    assert ledger.find_event(id) is None


def test_times_up_to_the_year_2100_are_kept_to_the_millisecond(ledger: SqlLedger) -> None:
    at = 4_133_980_799_999
    case = structs.replace(open_case("c001", 2), opened_at=at, updated_at=at)
    [claim] = ledger.claim(["c001"], at)
    effects = (Deliver(effect_id(case), case),)
    entry = Entry("c001", 2, at, "press", CATALOG, b"{}", step=Step(incidents=(case,), effects=effects))
    ledger.commit(Batch([Fence("c001", claim.epoch, 1, 2)], [entry], alive_at=at))

    assert [row.at for row in ledger.read_journal("c001", 0)] == [NOW, at]
    assert [row.at for row in ledger.read_journal("c001", 0, at - 1)] == [NOW]
    assert ledger.incident(case.id) == case
    assert ledger.alive_at() == at
    assert [row.created_at for row in ledger.due_effects(at, 10, "deliver")] == [NOW, NOW, at]
    assert len(ledger.due_effects(at - 1, 10, "deliver")) == 2
