"""A person's order through the door's way in: committed once, published once, answered or timed out, and replayed."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.model import Incident, Order
from gateway.core.ordering import ORDER_TTL_MS
from gateway.runtime import outbox as outbox_module
from gateway.wire import Reply
from tests.runtime.test_outbox import commands, performing
from tests.runtime.world import World, until


def order(incident: Incident, /, **fields: Any) -> Order:
    plain = Order("o-1", "li", incident.id, "broadcast", ("speaker-1",), "演示", {"text": "请撤离"})
    return replace(plain, **fields)


async def press(world: World) -> Incident:
    event = world.press()
    await world.receipted()
    [incident] = [i for i in world.incidents() if any(line.event == event for line in i.timeline)]
    return incident


async def test_an_order_is_published_once_and_its_outcome_told(world: World) -> None:
    async with performing(world, None):
        incident = await press(world)
        wish = order(incident)
        answers = [await world.pipeline.submit("c001", wish, "order/1") for _ in range(2)]
        await until(lambda: commands(world))
        [command] = commands(world)
        world.say_reply(Reply(command.id, "speaker-1", "failed", "no power"))
        await until(lambda: world.ledger.commands_for(incident.id)[0].state == "failed")

        assert answers == ["done", "repeat"]
        assert (command.device, command.name, command.args) == ("speaker-1", "broadcast", {"text": "请撤离"})
        assert command.expires_at == world.clock() + ORDER_TTL_MS
        assert len(commands(world)) == 1
        told = world.ledger.incident(incident.id)
        assert told is not None
        assert [(line.who, line.what) for line in told.timeline[-2:]] == [("li", "commanded"), ("gateway", "answered")]
        assert world.state() == world.read_back()


async def test_an_order_that_was_committed_before_a_crash_is_not_taken_again(world: World) -> None:
    async with performing(world, None):
        incident = await press(world)
        assert await world.pipeline.submit("c001", order(incident), "order/1") == "done"
    await world.crash()
    async with performing(world, None):
        again = await world.pipeline.submit("c001", order(incident), "order/1")
        refused = await world.pipeline.submit("c001", order(incident, id="o-2", devices=("nobody",)), "order/2")

        assert again == "repeat"
        assert refused == "there is no device nobody in this community"
        assert len(world.ledger.commands_for(incident.id)) == 1
        assert world.state() == world.read_back()


async def test_an_order_that_nobody_answers_times_out_in_words(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "UNANSWERED_EVERY_S", 0.05)
    async with performing(world, None):
        incident = await press(world)
        assert await world.pipeline.submit("c001", order(incident), "order/1") == "done"
        await until(lambda: world.ledger.commands_for(incident.id)[0].state == "sent")
        world.clock.advance(ORDER_TTL_MS + 61_000)
        await until(lambda: world.ledger.commands_for(incident.id)[0].state == "timed-out")

        told = world.ledger.incident(incident.id)
        assert told is not None
        assert ("answered", "speaker-1", "timed-out") in [(line.what, line.device, line.why) for line in told.timeline]
