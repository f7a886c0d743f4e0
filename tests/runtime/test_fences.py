"""Two gateways on one ledger: the older one lets go of what the newer one has taken, and nothing is written twice."""

from __future__ import annotations

import asyncio

from gateway.adapters.memory_inbox import MemoryInbox
from gateway.core.model import Press
from gateway.wire import Lane
from tests.acceptance.stage import events_of
from tests.runtime.conftest import MakeWorld
from tests.runtime.world import World, until


async def test_a_lost_fence_lets_go_of_that_community_only(make_world: MakeWorld) -> None:
    world = make_world(3)
    await world.start()
    [claim] = world.ledger.claim(["c002"], world.clock())
    presses = [world.press("sos-1", community) for community in ("c001", "c003")]
    taken = world.press("sos-1", "c002")
    await world.receipted("c001")
    await world.receipted("c003")
    await until(lambda: "c002" not in world.pipeline.writers)
    # What comes now is for whoever holds it: no receipt, no entry in the quarantine, and the broker is not blocked.
    world.press("sos-1", "c002")
    world.say_status(online=True, community="c002")
    presses.append(world.press("sos-2", "c003"))
    await world.receipted("c003")
    assert set(world.pipeline.writers) == {"c001", "c003"}
    assert world.ledger.standing(["c002"]) == {"c002": (claim.epoch, claim.head)}
    assert not world.receipts("c002")
    assert world.counts()["quarantined"] == {}
    events = events_of(world.incidents())
    assert all(len(events[press]) == 1 for press in presses)
    assert taken not in events
    assert world.is_running


async def test_an_idle_gateway_notices_that_it_was_replaced(make_world: MakeWorld) -> None:
    world = make_world(2)
    await world.start()
    world.ledger.claim(["c001"], world.clock())
    await until(lambda: set(world.pipeline.writers) == {"c002"})
    assert world.is_running


async def test_a_gateway_that_holds_nothing_any_more_ends(make_world: MakeWorld) -> None:
    world = make_world(2)
    await world.start()
    world.ledger.claim(["c001", "c002"], world.clock())
    await until(lambda: not world.is_running)
    assert world.pipeline.has_lost_all


async def test_who_waits_for_an_answer_is_told(make_world: MakeWorld) -> None:
    world = make_world(2)
    await world.start()
    world.ledger.claim(["c002"], world.clock())
    answer = await asyncio.wait_for(world.pipeline.submit("c002", Press("page-1", "sos-1"), "page-1"), 10)
    assert answer == "unknown-community"


async def test_two_gateways_hear_the_same_and_write_once(make_world: MakeWorld) -> None:
    """Each has a broker session of its own, so both hear everything; the second one started holds the ledger."""
    world = make_world(3)
    await world.start()
    older, older_inbox = world.pipeline, world.inbox
    presses = [world.press("sos-1", f"c{n:03d}") for n in (1, 2, 3) for _ in range(5)]
    await world.receipted("c003")
    newer_inbox = MemoryInbox(world.clock)
    newer = world.new_pipeline(newer_inbox)
    await newer_inbox.start()
    await newer.start()
    running = asyncio.create_task(newer.run())
    try:
        for _ in range(20):
            for community in ("c001", "c002", "c003"):
                press = world.press("sos-2", community)
                [*_, (topic, body, _dup)] = [("", b"", False), *_unread(older_inbox)]
                newer_inbox.send(topic, body)
                presses.append(press)
            await asyncio.sleep(0.01)
        await until(lambda: set(events_of(world.incidents())) >= set(presses))
        await until(lambda: not world.is_running)
    finally:
        await newer.stop()
        await asyncio.wait_for(running, 10)
        await newer.close()
    events = events_of(world.incidents())
    assert {press: len(events[press]) for press in presses} == dict.fromkeys(presses, 1)
    assert not older.writers
    assert set(newer.writers) == {"c001", "c002", "c003"}
    assert world.counts()["quarantined"] == {}


def _unread(inbox: MemoryInbox) -> list[tuple[str, bytes, bool]]:
    """What was just sent, as the other session gets it too."""
    [alarm, _] = inbox._sessions
    return [(topic, body, False) for topic, body in alarm.in_flight.values()][-1:]


async def test_what_was_committed_before_the_fence_was_lost_is_not_committed_again(world: World) -> None:
    await world.start()
    press = world.press()
    await world.receipted()
    await world.crash()
    # The broker redelivers nothing of it, but the source has no receipt in its hands and sends again.
    await world.start()
    world.send(signals=[("sos-1", "pressed")], lane=Lane.ALARM, seq=1)
    await until(lambda: world.pipeline.counters.repeats == 1)
    assert len(events_of(world.incidents())[press]) == 1
