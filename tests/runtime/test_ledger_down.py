"""The ledger is away for a while: nothing is read, nothing is lost, and what waited is judged in its own order."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.core.model import Press
from gateway.core.state import REMEMBERED
from gateway.wire import Lane
from tests.acceptance.stage import events_of
from tests.runtime.conftest import MakeWorld
from tests.runtime.world import POISON, World, until


@contextmanager
def ledger_held(world: World) -> Iterator[None]:
    """Somebody else holds the ledger's file for writing, as a full disk or a stopped server would."""
    holder = sqlite3.connect(world.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


async def test_down_and_up_again_loses_nothing(make_world: MakeWorld) -> None:
    world = make_world(2)
    await world.start()
    presses = []
    for _ in range(3):
        presses += [world.press("sos-1", "c001"), world.press("sos-2", "c002")]
        await world.receipted("c001")
        with ledger_held(world):
            presses += [world.press("sos-1", "c001"), world.press("sos-2", "c002")]
            last = world.last_seq("c001")
            await until(lambda: world.pipeline.counters.ledger_down > 0)
            presses.append(world.press("sos-2", "c001"))
            await asyncio.sleep(0.2)
            assert not world.is_receipted(last)
        await world.receipted("c001")
        await world.receipted("c002")
    events = events_of(world.incidents())
    assert {press: len(events.get(press, [])) for press in presses} == dict.fromkeys(presses, 1)
    assert world.is_running
    assert world.counts()["quarantined"] == {}


async def test_down_while_a_poison_is_being_isolated(world: World) -> None:
    """The engines must be read back and fed again while nothing can be written."""
    world.run_sql(POISON)
    await world.start()
    with ledger_held(world):
        presses = [world.press()]
        world.send({"room-1:temperature": 66.6})
        presses.append(world.press())
        await until(lambda: world.pipeline.counters.ledger_down > 0)
    presses.append(world.press("sos-2"))
    with ledger_held(world):
        await asyncio.sleep(0.3)
    await world.receipted()
    events = events_of(world.incidents())
    assert {press: len(events.get(press, [])) for press in presses} == dict.fromkeys(presses, 1)
    assert world.counts()["quarantined"] == {"commit-refused": 1}
    assert world.is_running


async def test_a_hold_that_was_over_before_it_ran_out_fires_nothing(world: World) -> None:
    """Smoke for five seconds; that it was over waits in the inbox while the ledger is away, and comes first."""
    await world.start()
    world.send({"smoke-1:smoke": True})
    await world.receipted()
    with ledger_held(world):
        await world.pass_time(4_000)
        world.press("sos-1")
        await until(lambda: world.pipeline.counters.ledger_down > 0)
        world.clock.advance(1_000)
        world.send({"smoke-1:smoke": False})
        world.clock.advance(20_000)
    await world.receipted()
    await world.pass_time(120_000)
    assert [incident.cause for incident in world.incidents()] == ["sos"]


async def test_a_long_outage_proves_no_silence(make_world: MakeWorld) -> None:
    """Four hours without a ledger: the sources kept everything, so nobody was silent."""
    world = make_world()
    await world.start()
    world.send({"room-1:temperature": 20.0}, lane=Lane.TELEMETRY)
    await world.receipted(lane=Lane.TELEMETRY)
    with ledger_held(world):
        world.press()
        await until(lambda: world.pipeline.counters.ledger_down > 0)
        world.clock.advance(4 * 3_600_000)
        await asyncio.sleep(0.2)
    await world.receipted()
    await world.pass_time(180_000, 10_000)
    assert {incident.cause for incident in world.incidents()} == {"sos"}


@pytest.mark.parametrize("is_same", [True, False], ids=["a repeat", "other content"])
async def test_an_alarm_that_only_the_journal_remembers_while_it_is_away(world: World, is_same: bool) -> None:
    await world.start()
    for _ in range(REMEMBERED + 2):
        world.press()
    await world.receipted()
    before = len(world.receipts())
    device = "sos-1" if is_same else "sos-2"
    with ledger_held(world):
        world.send({"smoke-1:smoke": False})
        await until(lambda: world.pipeline.counters.ledger_down > 0)
        world.send(signals=[(device, "pressed")], seq=1)
        await asyncio.sleep(0.2)
    await until(lambda: len(world.receipts()) > before + 1)
    assert world.counts()["quarantined"] == ({} if is_same else {"seq-conflict": 1})
    assert world.is_running


async def test_who_waits_for_an_answer_gets_it_when_the_ledger_is_back(world: World) -> None:
    await world.start()
    with ledger_held(world):
        waiting = asyncio.create_task(world.pipeline.submit("c001", Press("page-1", "sos-1"), "page-1"))
        await until(lambda: world.pipeline.counters.ledger_down > 0)
        assert not waiting.done()
    assert await asyncio.wait_for(waiting, 10) == "done"


async def test_stopped_while_it_is_away(world: World) -> None:
    """What was not committed was not acknowledged, so the next start finds it at the broker."""
    await world.start()
    with ledger_held(world):
        press = world.press()
        await until(lambda: world.pipeline.counters.ledger_down > 0)
        await world.crash()
    await world.start()
    await world.receipted()
    assert len(events_of(world.incidents())[press]) == 1
