"""Webhooks in the ledger's database: sealed secrets, a cursor that is moved once, deliveries in order; on SQLite and on
PostgreSQL."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.ledger import SqlLedger
from gateway.adapters.webhooks import SqlWebhooks
from gateway.core.model import Sort, Step
from gateway.runtime.accounts import AuditFilter, Deed, SealBroken
from gateway.runtime.webhooks import (
    KINDS,
    MOST,
    Delivery,
    Ended,
    Outcome,
    State,
    Webhook,
    find_events,
    make_test,
)
from tests.ports.ledger_conformance import NOW, Hand, opened, select

HOOK = Webhook("hook1", "大屏", "https://receiver.test/a", KINDS, ("370215",), ("c001",), "wang", NOW)
DEED = Deed(NOW, "wang", "webhook.add", "hook1")
INCIDENT = opened(chain=("370215", "370215001"))


@pytest.fixture
def webhooks(ledger: SqlLedger) -> SqlWebhooks:
    return SqlWebhooks(ledger.database, b"k" * 32)


def waiting(id: str, incident: str = "i1", seq: int = 1, **fields: object) -> Delivery:
    return replace(Delivery("hook1", id, "incident.changed", incident, seq, NOW, NOW, b"{}"), **fields)


def test_a_webhook_is_read_back_and_its_secret_lies_there_sealed(ledger: SqlLedger, webhooks: SqlWebhooks) -> None:
    assert webhooks.cursor() is None
    assert webhooks.add(HOOK, "a-secret", DEED) == HOOK
    assert webhooks.webhooks() == [HOOK]
    assert webhooks.cursor() == 0
    assert webhooks.keys("hook1", NOW) == [b"a-secret"]
    [[sealed]] = select(ledger, "SELECT secret FROM webhook")
    assert b"a-secret" not in bytes(sealed)
    with pytest.raises(SealBroken):
        SqlWebhooks(ledger.database, b"x" * 32).keys("hook1", NOW)
    webhooks.add(replace(HOOK, id="hook2"), "another", DEED)
    with ledger.database.writing() as session:
        session.run("UPDATE webhook SET secret = (SELECT secret FROM webhook WHERE id = 'hook1') WHERE id = 'hook2'")
    with pytest.raises(SealBroken):
        webhooks.keys("hook2", NOW)
    assert len(SqlAccounts(ledger.database).find_audit(AuditFilter(what="webhook.add"), 9)) == 2


def test_after_a_renewal_both_secrets_sign_for_a_while(webhooks: SqlWebhooks) -> None:
    webhooks.add(HOOK, "first", DEED)
    assert webhooks.renew("hook1", "second", "key-1", NOW + 10, DEED)
    assert not webhooks.renew("hook1", "third", "key-1", NOW + 10, DEED)
    assert webhooks.keys("hook1", NOW + 9) == [b"second", b"first"]
    assert webhooks.keys("hook1", NOW + 10) == [b"second"]
    assert webhooks.keys("nobody", NOW) == []


def test_there_are_not_more_than_so_many(webhooks: SqlWebhooks) -> None:
    made = [webhooks.add(replace(HOOK, id=f"h{number}"), "s", DEED) for number in range(MOST + 1)]
    assert made[-1] is None
    assert len(webhooks.webhooks()) == MOST


def test_what_was_open_before_anybody_was_told_is_no_opening(ledger: SqlLedger, webhooks: SqlWebhooks) -> None:
    hand = Hand(ledger)
    hand.step(Step(incidents=(INCIDENT,)))
    made = webhooks.add(HOOK, "s", DEED)
    assert made is not None
    assert made.since == webhooks.cursor() == ledger.position() == 1
    assert webhooks.open_cases([INCIDENT.id, "other"]) == {INCIDENT.id: True}
    webhooks.drop("hook1", DEED)
    assert (webhooks.cursor(), webhooks.open_cases([INCIDENT.id])) == (None, {})


def test_each_step_is_taken_once(webhooks: SqlWebhooks) -> None:
    webhooks.add(HOOK, "s", DEED)
    gone = replace(waiting("b"), webhook="taken-away")
    assert webhooks.take(0, 5, {"i1": True, "i2": False}, [waiting("a"), gone], NOW)
    assert not webhooks.take(0, 5, {"i1": False}, [waiting("c")], NOW)
    assert webhooks.cursor() == 5
    assert webhooks.open_cases(["i1", "i2", "i3"]) == {"i1": True, "i2": False}
    assert [one.id for one in webhooks.due("hook1", NOW, 9)] == ["a"]


def test_of_each_incident_the_first_is_due_and_what_is_put_off_goes_when_the_receiver_is_back(
    webhooks: SqlWebhooks,
) -> None:
    webhooks.add(HOOK, "s", DEED)
    rows = [waiting("b", seq=2), waiting("a", seq=1), waiting("c", "i2", 3), waiting("d", "i3", 4, due_at=NOW + 1)]
    webhooks.take(0, 9, {}, rows, NOW)
    assert [one.id for one in webhooks.due("hook1", NOW, 9)] == ["a", "c"]
    assert webhooks.due("hook1", NOW, 1) == [waiting("a")]
    webhooks.settle([Outcome("hook1", "a", Ended.AGAIN, NOW, "503", NOW + 90_000)])
    assert [one.id for one in webhooks.due("hook1", NOW, 9)] == ["c"]
    [hook] = webhooks.webhooks()
    assert (hook.failures, hook.failing_since, hook.ok_at) == (1, NOW, None)
    webhooks.settle([Outcome("hook1", "c", Ended.DONE, NOW + 5, "200 ok")])
    [hook] = webhooks.webhooks()
    assert (hook.failures, hook.failing_since, hook.ok_at) == (0, None, NOW + 5)
    assert [one.id for one in webhooks.due("hook1", NOW + 5, 9)] == ["d", "a"]
    webhooks.settle([Outcome("hook1", "a", Ended.REFUSED, NOW + 6, "422 no")])
    assert [one.id for one in webhooks.due("hook1", NOW + 6, 9)] == ["b", "d"]
    shown = {one.id: (one.state, one.attempts, one.outcome) for one in webhooks.deliveries("hook1", 9)}
    assert (shown["a"], shown["c"]) == ((State.DEAD, 2, "422 no"), (State.DONE, 1, "200 ok"))
    assert webhooks.send_again("hook1", "a", "k1", NOW + 7, DEED)
    assert not webhooks.send_again("hook1", "a", "k2", NOW + 7, DEED), "it waits"
    assert [one.id for one in webhooks.due("hook1", NOW + 7, 9)] == ["d", "a"]


def test_who_wants_nothing_or_never_answers_is_switched_off_and_on_again(
    ledger: SqlLedger, webhooks: SqlWebhooks
) -> None:
    webhooks.add(HOOK, "s", DEED)
    webhooks.take(0, 9, {}, [waiting("a")], NOW)
    webhooks.settle([Outcome("hook1", "a", Ended.AGAIN, NOW + 9, "503", NOW + 99, gives_up=True)])
    [hook] = webhooks.webhooks()
    assert (hook.off_at, hook.off_why) == (NOW + 9, "failing")
    [line] = SqlAccounts(ledger.database).find_audit(AuditFilter(what="webhook.off"), 9)
    assert (line.deed.about, line.deed.detail) == ("hook1", "failing")
    Hand(ledger).step(Step(incidents=(INCIDENT,)))
    webhooks.switch("hook1", None, replace(DEED, at=NOW + 20))
    [hook] = webhooks.webhooks()
    assert (hook.is_on, hook.failures, hook.failing_since, hook.since) == (True, 0, None, 1)
    assert [one.id for one in webhooks.due("hook1", NOW + 20, 9)] == ["a"]
    webhooks.settle([Outcome("hook1", "a", Ended.GONE, NOW + 30, "410")])
    [hook] = webhooks.webhooks()
    assert (hook.off_at, hook.off_why) == (NOW + 30, "gone")
    webhooks.switch("hook1", NOW + 40, DEED)
    assert webhooks.webhooks() == [hook]


def test_one_delivers_at_a_time_and_another_goes_on_when_its_time_is_over(webhooks: SqlWebhooks) -> None:
    assert webhooks.hold(0, NOW + 10, NOW)
    assert not webhooks.hold(0, NOW + 11, NOW + 1)
    assert webhooks.hold(NOW + 10, NOW + 20, NOW + 5)
    assert webhooks.hold(0, NOW + 31, NOW + 20)
    assert not webhooks.hold(NOW + 20, NOW + 30, NOW + 21)


def test_old_deliveries_are_forgotten_and_few_tests_wait(webhooks: SqlWebhooks) -> None:
    webhooks.add(HOOK, "s", DEED)
    webhooks.take(0, 9, {"i1": True, "i2": False}, [waiting("a"), waiting("b", "i2"), waiting("c", "i3")], NOW)
    webhooks.settle([Outcome("hook1", "a", Ended.DONE, NOW, "200")])
    assert webhooks.forget(NOW, NOW) == 0
    assert webhooks.forget(NOW + 1, NOW) == 1
    assert webhooks.forget(NOW + 1, NOW + 1) == 2
    assert webhooks.open_cases(["i1", "i2"]) == {"i1": True}
    assert [webhooks.send(make_test(HOOK, f"t{n}", NOW), 2, DEED) for n in range(3)] == [True, True, False]


# --- what is told -------------------------------------------------------------------------------------------------


def kinds_of(*changes: tuple[int, object], known: dict[str, bool] | None = None, hook: Webhook = HOOK) -> list[str]:
    deliveries, _ = find_events(changes, known or {}, [hook], NOW)  # type: ignore[arg-type]
    return [one.kind for one in deliveries]


def test_an_incident_is_opened_changed_closed_and_perhaps_opened_again() -> None:
    later, closed = replace(INCIDENT, revision=2), replace(INCIDENT, revision=3, state="closed")
    deliveries, cases = find_events([(1, INCIDENT), (2, later), (3, closed), (4, later)], {}, [HOOK], NOW)
    assert [one.kind.partition(".")[2] for one in deliveries] == ["opened", "changed", "closed", "opened"]
    assert cases == {INCIDENT.id: True}
    assert [one.seq for one in deliveries] == sorted({one.seq for one in deliveries})
    assert kinds_of((5, closed)) == ["incident.opened", "incident.closed"]
    assert kinds_of((5, closed), known={INCIDENT.id: False}) == ["incident.changed"]


def test_only_what_is_asked_for_in_its_scope_and_its_time_is_told() -> None:
    elsewhere = replace(INCIDENT, community="c002", chain=("370215002",))
    assert kinds_of((1, elsewhere)) == []
    assert kinds_of((1, replace(elsewhere, community="c001"))) == ["incident.opened"]
    assert kinds_of((1, INCIDENT), hook=replace(HOOK, kinds=("incident.closed",))) == []
    assert kinds_of((1, INCIDENT), hook=replace(HOOK, since=1)) == []
    assert kinds_of((1, INCIDENT), hook=replace(HOOK, off_at=NOW)) == []
    assert kinds_of((1, replace(INCIDENT, sort=Sort.NOTICE))) == ["notice.opened"]


def test_what_people_wrote_stays_here() -> None:
    [one], _ = find_events([(7, INCIDENT)], {}, [HOOK], NOW)
    assert INCIDENT.timeline
    assert one.id == f"{INCIDENT.id}/{INCIDENT.revision}/opened"
    assert b"timeline" not in one.body
    assert b'"type":"cn.jimo.gateway.incident.opened.v1"' in one.body
    assert b'"position":"7"' in one.body
    assert f'"revision":{INCIDENT.revision}'.encode() in one.body
