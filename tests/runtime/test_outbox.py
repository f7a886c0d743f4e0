"""What was committed is performed: commands wait for no delivery, deliveries for no other, nothing ends the outbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.adapters.ledger import SqlLedger
from gateway.adapters.platform import HttpPlatform
from gateway.core.model import Incident
from gateway.runtime import outbox as outbox_module
from gateway.runtime.outbox import Outbox
from gateway.runtime.ports import CommitRefused, OutboxState, Outcome, Platform, Verdict
from gateway.wire import CommandMessage, Reply, decode_command
from tests.runtime.conftest import MakeWorld
from tests.runtime.world import World, until
from tests.simulators.platform_process import KEY, PlatformProcess, running_platform


@pytest.fixture(scope="module")
def one_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    with running_platform(tmp_path_factory.mktemp("platform")) as process:
        yield process


@pytest.fixture
def reference(one_platform: PlatformProcess) -> PlatformProcess:
    one_platform.clear()
    return one_platform


@asynccontextmanager
async def performing(world: World, platform: Platform | None, parallel: int = 16) -> AsyncIterator[Outbox]:
    """The world's gateway runs, and its outbox beside it."""
    await world.start()
    pipeline = world.pipeline
    outbox = Outbox(world.ledger, pipeline.on_ledger, pipeline.submit, platform, world.inbox, world.clock, parallel)
    pipeline._on_effects = outbox.kick
    running = asyncio.create_task(outbox.run())
    try:
        yield outbox
        assert not running.done(), running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def client_of(reference: PlatformProcess, timeout_s: float = 10.0) -> HttpPlatform:
    return HttpPlatform(reference.events_url, KEY.encode(), timeout_s=timeout_s)


def commands(world: World) -> list[CommandMessage]:
    found = [decode_command(one.payload) for one in world.inbox.published if one.topic.endswith("/command")]
    return [command for command in found if isinstance(command, CommandMessage)]


def answers(world: World) -> list[tuple[str, str]]:
    """Who answered what, as the timelines tell it."""
    lines = [line for incident in world.incidents() for line in incident.timeline if line.what == "answered"]
    return [(line.device, line.why) for line in lines]


async def burn(world: World) -> None:
    """Smoke that persists: an incident, and a broadcast."""
    world.send({"smoke-1:smoke": True})
    await world.receipted()
    await world.pass_time(11_000)


def delivered(reference: PlatformProcess) -> list[str]:
    return [entry["incident"]["cause"] for entry in reference.get("/incidents")]


async def test_a_platform_that_hangs_delays_no_command(world: World, reference: PlatformProcess) -> None:
    reference.fail(mode="hang")
    platform = client_of(reference, timeout_s=3)
    async with performing(world, platform, parallel=2):
        for _ in range(6):
            world.press("sos-1")
            world.press("sos-2")
        await world.receipted()
        await asyncio.sleep(0.3)
        started = time.monotonic()
        await burn(world)
        await until(lambda: [command.device for command in commands(world)] == ["speaker-1"])
        assert time.monotonic() - started < 2
        reference.heal()
        everything = ["fire", "sos", "sos"]
        await until(lambda: world.clock.advance(50_000) and sorted(delivered(reference)) == everything, 20)
    await platform.close()


@pytest.mark.parametrize(
    "fault",
    [{"mode": "status", "status": 503}, {"mode": "garbage"}, {"mode": "close"}, {"mode": "recorded-but-not-answered"}],
    ids=lambda fault: str(fault["mode"]),
)
async def test_what_fails_for_a_while_is_delivered_in_the_end_once(
    world: World, reference: PlatformProcess, fault: dict[str, object]
) -> None:
    reference.fail(**fault, count=2)
    platform = client_of(reference)
    async with performing(world, platform):
        world.press()
        await until(lambda: world.ledger.outbox_counts().get("waiting"))
        await until(lambda: world.clock.advance(50_000) and world.ledger.outbox_counts().get("done"), 20)
    assert delivered(reference) == ["sos"]
    await platform.close()


class Odd:
    """A platform adapter with a fault of ours; it delivers one thing at a time for each incident, or says so."""

    def __init__(self) -> None:
        self.faults = 2
        self.under_way: set[str] = set()
        self.together = 0
        self.revisions: list[tuple[str, int]] = []

    async def deliver(self, effect_id: str, incident: Incident) -> Verdict:
        if self.faults:
            self.faults -= 1
            raise ZeroDivisionError("a fault of ours")
        assert incident.id not in self.under_way
        self.under_way.add(incident.id)
        self.together = max(self.together, len(self.under_way))
        await asyncio.sleep(0.02)
        self.under_way.discard(incident.id)
        self.revisions.append((incident.key, incident.revision))
        return Verdict(accepted=True, refused=False, detail="")


async def test_a_fault_of_ours_is_tried_again_and_ends_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    platform = Odd()
    async with performing(world, platform):
        world.press()
        await world.receipted()
        await until(lambda: not platform.faults or not world.clock.advance(600_000))
        await until(lambda: world.clock.advance(600_000) and world.ledger.outbox_counts().get("done"))
    assert "a fault of ours" in caplog.text


async def test_incidents_go_side_by_side_and_revisions_in_order(make_world: MakeWorld) -> None:
    world, platform = make_world(4), Odd()
    platform.faults = 0
    async with performing(world, platform):
        for _ in range(15):
            for community in ("c001", "c002", "c003", "c004"):
                world.press("sos-1", community)
            await asyncio.sleep(0.01)
        await world.receipted("c004")
        await until(lambda: "waiting" not in world.ledger.outbox_counts())
    assert platform.together == 4
    seen = [revision for _, revision in platform.revisions]
    assert seen
    assert max(seen) == 15
    by_community = [incident.revision for incident in world.incidents()]
    assert by_community == [15] * 4


class Choosy(SqlLedger):
    """Does not write down how one effect ended, and refuses whatever it comes with."""

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        if any(outcome.state is OutboxState.DEAD for outcome in outcomes):
            raise CommitRefused("not this one")
        super().settle(outcomes)


async def test_an_end_that_cannot_be_written_down_holds_no_other_back(
    make_world: MakeWorld, reference: PlatformProcess, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world(2)
    world.ledger.close()
    world.ledger = Choosy(world.url)
    reference.fail(mode="status", status=422, count=1)
    platform = client_of(reference)
    async with performing(world, platform):
        world.press("sos-1", "c001")
        await until(lambda: "not this one" in caplog.text)
        world.press("sos-1", "c002")
        await until(lambda: world.ledger.outbox_counts().get("done", 0) >= 1)
        # What was performed is not performed again and again for that.
        await asyncio.sleep(0.6)
        said = reference.get("/stats")
        assert sum(said["answers"].values()) == 1
        assert said["faults"] == {"status": 1}
    await platform.close()


async def test_a_command_is_done_when_the_broker_says_so_and_has_an_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "UNANSWERED_EVERY_S", 0.05)
    async with performing(world, None):
        await burn(world)
        await until(lambda: world.counts()["commands"] == {"sent": 1})
        world.clock.advance(600_000)
        await until(lambda: world.counts()["commands"] == {"timed-out": 1})
        [command] = commands(world)
        assert answers(world) == [(command.device, "timed-out")]
        world.say_reply(Reply(command.id, command.device, "done", "late"))
        await until(lambda: world.counts()["commands"] == {"done": 1})
        assert answers(world) == [(command.device, "timed-out"), (command.device, "done late")]


async def test_a_command_waits_for_the_link_and_expires(world: World) -> None:
    async with performing(world, None):
        world.send({"smoke-1:smoke": True})
        await world.receipted()
        world.inbox._is_up = False
        await world.pass_time(11_000)
        await until(lambda: world.ledger.due_effects(world.clock() + 2_000_000, 9, "command"))
        assert commands(world) == []
        world.inbox._is_up = True
        world.clock.advance(1_500_000)
        await until(lambda: world.counts()["commands"] == {"expired": 1})
        assert commands(world) == []


async def test_what_was_not_settled_is_performed_again_after_a_crash(world: World, reference: PlatformProcess) -> None:
    reference.fail(mode="recorded-but-not-answered", count=1)
    platform = client_of(reference)
    async with performing(world, platform):
        world.press()
        await world.receipted()
        await until(lambda: reference.get("/incidents"))
    await world.crash()
    async with performing(world, platform):
        await until(lambda: world.clock.advance(50_000) and world.ledger.outbox_counts().get("done"), 20)
    assert delivered(reference) == ["sos"]
    await platform.close()


async def test_a_clock_that_was_ahead_and_put_right_holds_no_delivery_back(
    world: World, reference: PlatformProcess
) -> None:
    platform = client_of(reference)
    async with performing(world, platform):
        world.clock.advance(259_200_000)
        world.press("sos-1")
        await until(lambda: len(delivered(reference)) == 1)
        world.clock.advance(-259_200_000)
        world.press("sos-2")
        await until(lambda: len(delivered(reference)) == 2)
    await platform.close()
