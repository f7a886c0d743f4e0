"""Calls in the ledger's database: sealed, written once, forgotten in time; on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.calls import SqlCalls
from gateway.adapters.ledger import SqlLedger
from gateway.core.model import Line, Step
from gateway.runtime.accounts import AuditFilter, Deed
from gateway.runtime.calls import Call, CallElsewhere
from tests.ports.ledger_conformance import NOW, Hand, opened, select

CALL = Call("page/1", "c001", "b1", "page-c001-b1", NOW, 1_500, "medical", "139 0000 1111", "三楼，门没锁")
DEED = Deed(NOW, "", "press", "c001/b1", "10.0.0.1", detail="page/1", role="resident")


@pytest.fixture
def calls(ledger: SqlLedger) -> SqlCalls:
    return SqlCalls(ledger.database, b"k" * 32)


def test_what_was_said_is_read_back_whole_and_lies_there_sealed(ledger: SqlLedger, calls: SqlCalls) -> None:
    assert calls.keep(CALL) == CALL
    assert calls.find("page/1") == CALL
    assert calls.find("page/2") is None
    [[said]] = select(ledger, "SELECT said FROM call")
    assert b"139" not in bytes(said)
    calls.keep(replace(CALL, id="page/2"))
    assert len({bytes(row[0]) for row in select(ledger, "SELECT said FROM call")}) == 2
    other = SqlCalls(ledger.database, b"x" * 32).find("page/1")
    assert other is not None
    assert (other.phone, other.words, other.is_unreadable) == ("", "", True)


def test_sealed_words_are_one_calls_own(ledger: SqlLedger, calls: SqlCalls) -> None:
    calls.keep(CALL)
    calls.keep(replace(CALL, id="page/2", phone="110", words=""))
    with ledger.database.writing() as session:
        session.run("UPDATE call SET said = (SELECT said FROM call WHERE id = 'page/1') WHERE id = 'page/2'")
    moved = calls.find("page/2")
    assert moved is not None
    assert moved.is_unreadable


def test_kept_again_a_call_is_the_first_one_with_what_was_said_anew(calls: SqlCalls) -> None:
    calls.keep(replace(CALL, phone=""))
    again = replace(CALL, at=NOW + 9, waited=9, need="", phone="110", words="")
    kept = calls.keep(again)
    assert kept == replace(CALL, at=NOW + 9, waited=9, phone="110")
    calls.enter("page/1", NOW + 9, DEED)
    calls.keep(replace(again, at=NOW + 99, waited=99))
    assert calls.find("page/1") == replace(kept, entered_at=NOW + 9)


def test_an_id_is_one_places(calls: SqlCalls) -> None:
    calls.keep(CALL)
    for other in (replace(CALL, community="c002"), replace(CALL, device="page-c001-b2", place="b2")):
        with pytest.raises(CallElsewhere):
            calls.keep(other)
    assert calls.find("page/1") == CALL


def test_a_press_has_its_line_in_the_audit_log_once(ledger: SqlLedger, calls: SqlCalls) -> None:
    calls.keep(CALL)
    assert [call.id for call in calls.unsettled(NOW + 1)] == ["page/1"]
    assert calls.unsettled(NOW) == []
    assert [calls.enter("page/1", NOW + 5, DEED) for _ in range(2)] == [True, False]
    assert not calls.enter("page/9", NOW, DEED)
    calls.record(replace(DEED, outcome="refused: too-often"))
    assert calls.unsettled(NOW + 1) == []
    rows = SqlAccounts(ledger.database).find_audit(AuditFilter(what="press"), 9)
    assert [row.deed.outcome for row in rows] == ["refused: too-often", "done"]
    calls.drop("page/1")
    assert calls.find("page/1") == replace(CALL, entered_at=NOW + 5)


def test_one_that_never_arrived_is_dropped(calls: SqlCalls) -> None:
    calls.keep(CALL)
    calls.drop("page/1")
    assert calls.find("page/1") is None


def test_an_incident_has_its_callers_in_the_order_of_their_presses(ledger: SqlLedger, calls: SqlCalls) -> None:
    lines = [Line(n, NOW + n, "gateway", "joined", event=f"page/{n}") for n in (1, 2, 3)]
    Hand(ledger).step(Step(incidents=(opened(key="page-c001-b1", timeline=tuple(lines)),)))
    for number in (3, 1):
        calls.keep(replace(CALL, id=f"page/{number}", words=str(number)))
    assert [call.words for call in calls.calls_of(opened().id)] == ["1", "3"]
    assert calls.calls_of("of-nobody") == []


def test_what_was_said_is_forgotten_where_the_case_is_over_and_calls_when_they_are_old(
    ledger: SqlLedger, calls: SqlCalls
) -> None:
    states = {"page/1": "handling", "page/2": "closed"}
    Hand(ledger).step(
        Step(
            incidents=tuple(
                opened(
                    n,
                    key=event,
                    state=state,
                    joinable=False,
                    timeline=(Line(1, NOW, "gateway", "opened", event=event),),
                )
                for n, (event, state) in enumerate(states.items(), 1)
            )
        )
    )
    for id in ("page/1", "page/2", "page/3"):
        calls.keep(replace(CALL, id=id))

    assert calls.forget(NOW, 0) == 0
    assert calls.forget(NOW + 1, 0) == 2
    found = {id: calls.find(id) for id in ("page/1", "page/2", "page/3")}
    assert {id: call.phone for id, call in found.items() if call} == {"page/1": CALL.phone, "page/2": "", "page/3": ""}
    assert {call.need for call in found.values() if call} == {"medical"}
    # A call goes altogether only when nothing of what was said is left.
    assert calls.forget(NOW + 1, NOW + 1) == 2
    assert [id for id in found if calls.find(id)] == ["page/1"]
