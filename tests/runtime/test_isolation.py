"""What cannot be committed, or not even fed, is found and put aside alone; everything beside it goes on."""

from __future__ import annotations

import asyncio

import pytest

from gateway.adapters.ledger import SqlLedger
from gateway.core.model import OperatorAction, Press
from gateway.runtime.plates import PlateSeal
from gateway.runtime.ports import Batch, CommitRefused
from gateway.wire import Lane, Message
from tests.acceptance.stage import events_of
from tests.runtime.conftest import MakeWorld
from tests.runtime.world import KEY, POISON, World, until

COMMUNITIES = ("c001", "c002", "c003")


@pytest.mark.parametrize("lane", list(Lane))
async def test_a_poison_message_is_put_aside_alone(make_world: MakeWorld, lane: Lane) -> None:
    world = make_world(3)
    world.run_sql(POISON)
    await world.start()
    presses = [world.press("sos-1", community) for community in COMMUNITIES for _ in range(5)]
    world.send({"room-1:temperature": 66.6}, lane=lane, community="c002")
    poison = world.last_seq("c002", lane)
    presses += [world.press("sos-2", community) for community in COMMUNITIES for _ in range(5)]
    for community in COMMUNITIES:
        await world.receipted(community)
    await world.receipted("c002", lane)
    events = events_of(world.incidents())
    assert {press: len(events.get(press, [])) for press in presses} == dict.fromkeys(presses, 1)
    assert world.counts()["quarantined"] == {"commit-refused": 1}
    refused = [dict(receipt.rejected) for receipt in world.receipts("c002", lane) if receipt.rejected]
    assert refused == [{poison: "commit-refused"}]
    cases = world.incidents(cause="refused")
    assert [case.community for case in cases] == (["c002"] if lane is Lane.ALARM else [])
    assert world.state("c002") == world.read_back("c002")


async def test_poison_that_comes_again_is_a_repeat(world: World) -> None:
    world.run_sql(POISON)
    await world.start()
    world.send({"room-1:temperature": 66.6})
    await world.receipted()
    before = len(world.receipts())
    world.send({"room-1:temperature": 66.6}, seq=1)
    await until(lambda: len(world.receipts()) > before)
    assert world.counts()["quarantined"] == {"commit-refused": 1}
    assert [case.signals for case in world.incidents(cause="refused")] == [1]


class RefusingOnce(SqlLedger):
    """Refuses one batch for a reason that passes."""

    refusals = 1

    def commit(self, batch: Batch) -> None:
        if batch.entries and self.refusals:
            self.refusals -= 1
            raise CommitRefused("a passing reason")
        super().commit(batch)


async def test_a_batch_that_is_refused_for_a_passing_reason_is_taken_in_whole(make_world: MakeWorld) -> None:
    world = make_world(2)
    ledger = RefusingOnce(world.url)
    world.ledger.close()
    world.ledger = ledger
    ledger.refusals = 0
    await world.start()
    ledger.refusals = 1
    presses = [world.press("sos-1", "c001"), world.press("sos-1", "c002")]
    await world.receipted("c001")
    await world.receipted("c002")
    assert sorted(events_of(world.incidents())) == sorted(presses)
    assert world.counts()["quarantined"] == {}
    assert world.pipeline.counters.refused_commits == 1


class Stumbling(PlateSeal):
    """Stands for a fault of ours: it trips over one message, on its way into the engine."""

    def apply(self, message: Message, body: bytes) -> tuple[Message, bytes]:
        if any(measured.value == 66.6 for measured in message.measurements):
            raise ZeroDivisionError("a fault of ours")
        return super().apply(message, body)


async def test_a_message_that_our_own_code_trips_over_is_put_aside_alone(make_world: MakeWorld) -> None:
    world = make_world(2)
    world.seal = Stumbling(KEY, {})
    await world.start()
    presses = [world.press("sos-1", "c001") for _ in range(3)]
    world.send({"room-1:temperature": 66.6}, community="c001")
    presses += [world.press("sos-1", community) for community in ("c001", "c002")]
    await world.receipted("c001")
    await world.receipted("c002")
    assert world.is_running
    events = events_of(world.incidents())
    assert {press: len(events.get(press, [])) for press in presses} == dict.fromkeys(presses, 1)
    assert world.counts()["quarantined"] == {"not-fed": 1}
    assert [case.community for case in world.incidents(cause="refused")] == ["c001"]
    assert world.state("c001") == world.read_back("c001")


async def test_an_action_that_no_commit_takes_is_told_so(world: World) -> None:
    world.run_sql(
        "CREATE TRIGGER no_press BEFORE INSERT ON journal WHEN NEW.kind = 'press' "
        "BEGIN SELECT RAISE(ABORT, 'no presses here'); END"
    )
    await world.start()
    answer = await asyncio.wait_for(world.pipeline.submit("c001", Press("page-1", "sos-1"), "page-1"), 10)
    assert "no presses here" in answer
    press = world.press()
    await world.receipted()
    assert press in events_of(world.incidents())


async def test_an_event_submitted_twice_counts_once(world: World) -> None:
    await world.start()
    press = Press("page-1", "sos-1")
    at_once = await asyncio.gather(*(world.pipeline.submit("c001", press, "page-1") for _ in range(3)))
    assert sorted(at_once) == ["done", "repeat", "repeat"]
    assert await world.pipeline.submit("c001", press, "page-1") == "repeat"
    assert events_of(world.incidents()) == {"page-1": [world.incidents()[0].id]}
    assert world.pipeline.counters.refused_commits == 0
    await world.crash()
    await world.start()
    assert await world.pipeline.submit("c001", press, "page-1") == "repeat"
    assert [incident.signals for incident in world.incidents()] == [1]


async def test_an_action_is_answered_after_its_commit(world: World) -> None:
    await world.start()
    world.press()
    await world.receipted()
    [incident] = world.incidents()
    assert await world.pipeline.submit("c001", OperatorAction("a-1", "li", incident.id, "accept"), "a-1") == "done"
    assert world.incidents()[0].state == "filed"
    why = await world.pipeline.submit("c001", OperatorAction("a-2", "li", incident.id, "accept"), "a-2")
    assert "not allowed" in why
    with pytest.raises(LookupError):
        await world.pipeline.submit("c999", OperatorAction("a-3", "li", incident.id, "accept"), "a-3")
