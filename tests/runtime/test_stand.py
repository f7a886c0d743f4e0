"""What the test stand plays is held against what came of it, and it plays in communities of simulated devices alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.core.model import Incident, Role
from gateway.runtime.access import Actor
from gateway.runtime.device_desk import Refused
from gateway.runtime.door import DoorClient, DoorServer
from gateway.runtime.stand import (
    Baseline,
    Expected,
    LogLine,
    Run,
    RunVerdict,
    RunWish,
    StandAway,
    StandDesk,
    StandView,
    judge,
)
from tests.runtime.test_simulated import first_is_simulated
from tests.runtime.world import World, until

S = 1_000
BEGAN = 1_795_435_200_000
ACTOR = Actor("a1", "tao", Role.TESTER, ("370215",))
PRESS = Expected(
    "sos-pressed", {"zh": "一键报警按下"}, "c001", "sos-1", BEGAN, BEGAN + 300 * S, "ext:21-03", "b1-u1-101", 5 * S
)
PUFF = Expected("smoke-puff", {"zh": "短暂烟雾"}, "c001", "smoke-1", BEGAN, BEGAN + 300 * S)
RUN = Run(
    "a-run-of-the-stand",
    "playing",
    ["sos-pressed", "smoke-puff"],
    ["c001"],
    1.0,
    {},
    Baseline("a1", 0),
    BEGAN - S,
    BEGAN + 300 * S,
    BEGAN,
    2,
    [PRESS, PUFF],
)


class KeptStand:
    """A stand that begins whatever it is asked to."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}

    async def look(self) -> StandView:
        return StandView(["c001", "c002"], 2, 1.0, BEGAN, [], next(iter(self.runs), None))

    async def start(self, wish: RunWish, note: Baseline) -> Run:
        return self.runs.setdefault(wish.id, replace(RUN, id=wish.id, note=note, faults=wish.faults))

    async def read(self, id: str) -> Run:
        return self.runs[id]

    async def stop(self, id: str) -> Run:
        return self.runs[id]

    async def close(self) -> None: ...


def incident_of(world: World) -> Incident:
    [found] = world.incidents("c001")
    return found


def verdicts(run: Run, *incidents: Incident) -> list[RunVerdict]:
    return [one.verdict for one in judge(run, incidents, 1.0)[0]]


async def pressed(world: World) -> Incident:
    """The incident of a press on sos-1, as opened three seconds after the run's first act."""
    await world.start()
    world.press()
    await world.receipted()
    return replace(incident_of(world), opened_at=BEGAN + 3 * S)


async def test_each_expectation_gets_its_verdict(world: World) -> None:
    opened = await pressed(world)
    done = replace(RUN, state="done", now=RUN.until)
    burnt = replace(opened, id="f1", category="ext:21-01", place="b1", devices=("smoke-1",))

    assert verdicts(RUN) == [RunVerdict.WAITING, RunVerdict.WAITING]
    assert verdicts(done) == [RunVerdict.MISSING, RunVerdict.QUIET]
    assert verdicts(done, opened) == [RunVerdict.OPENED, RunVerdict.QUIET]
    assert verdicts(done, replace(opened, opened_at=BEGAN + 8 * S)) == [RunVerdict.LATE, RunVerdict.QUIET]
    assert verdicts(done, replace(opened, opened_at=BEGAN - 60 * S)) == [RunVerdict.JOINED, RunVerdict.QUIET]
    assert verdicts(done, opened, burnt) == [RunVerdict.OPENED, RunVerdict.FALSE]


async def test_what_nobody_expected_is_named(world: World) -> None:
    opened = await pressed(world)
    again = replace(opened, id="f2", opened_at=BEGAN + 4 * S)

    judged, unexpected = judge(replace(RUN, state="done", now=RUN.until), [opened, again], 1.0)

    assert judged[0].incident == opened
    assert [incident.id for incident in unexpected] == ["f2"]


async def test_what_is_opened_after_the_end_is_none_of_the_run(world: World) -> None:
    opened = await pressed(world)
    next_one = replace(opened, id="f2", opened_at=RUN.until + 60 * S)

    _, unexpected = judge(replace(RUN, state="done", now=RUN.until), [opened, next_one], 1.0)

    assert unexpected == []


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[tuple[World, StandDesk, KeptStand]]:
    """A gateway of which c001 is of simulated devices, and the desk of the web process beside it."""
    world = World(folder, first_is_simulated())
    await world.start()
    door = DoorServer(folder / "door.sock", world.pipeline.submit, world.pipeline.look)
    await door.start()
    stand = KeptStand()
    client = DoorClient(folder / "door.sock")
    try:
        yield world, StandDesk(stand, world.ledger, client, 1.0), stand
    finally:
        await client.close()
        await door.stop()
        await world.close()


async def begin(world: World, desk: StandDesk, **faults: int) -> Run:
    """A run of a press in c001, as begun now and over in five minutes."""
    [first] = [community for community in world.ledger.communities() if community.id == "c001"]
    run = await desk.start(ACTOR, RunWish("a-run-of-the-stand", ("sos-pressed",), ("c001",), 1.0, faults), [first])
    now = world.clock()
    return replace(run, started_at=now, now=now + 300 * S, expected=[replace(PRESS, begins=now)])


async def garble(world: World, community: str = "c001", source: str = "agent-1", payload: bytes = b"\xff") -> None:
    world.inbox.send(f"sc/v1/{community}/{source}/telemetry", payload)
    await world.settle()


async def come_again(world: World, community: str) -> None:
    """The community's first message comes once more."""
    before, told = world.pipeline.counters.repeats, len(world.receipts(community))
    world.send(signals=[("sos-1", "pressed")], community=community, seq=1)
    await until(lambda: len(world.receipts(community)) > told)
    assert world.pipeline.counters.repeats == before + 1


async def test_a_run_is_held_against_the_ledger(tmp_path: Path) -> None:
    async with watching(tmp_path) as (world, desk, stand):
        first, second = sorted(world.ledger.communities(), key=lambda community: community.id)
        wish = RunWish("a-run-of-the-stand", ("sos-pressed",), ("c001",))
        with pytest.raises(Refused, match="c002 is not marked"):
            await desk.start(ACTOR, wish, [first, second])
        assert stand.runs == {}
        run = await begin(world, desk, garbage=1, duplicate=1)
        before = await desk.watch(run)
        world.press()
        await world.receipted()
        await garble(world)
        world.press(community="c002")
        await world.receipted("c002")
        after = await desk.watch(replace(run, state="done", injected={"garbage": 1}))

    assert (run.note.owner, run.note.position) == ("a1", 0)
    assert ([one.verdict for one in before.judged], before.is_good) == ([RunVerdict.WAITING], None)
    assert [one.verdict for one in after.judged] == [RunVerdict.OPENED]
    assert [incident.community for incident in after.incidents] == ["c001"]
    assert after.refused == {"not-utf8": 1}
    assert [(one.kind, one.met, one.is_good) for one in after.faults] == [("garbage", 1, True), ("duplicate", 0, True)]
    assert after.is_good


async def test_what_other_communities_send_is_not_counted(tmp_path: Path) -> None:
    async with watching(tmp_path) as (world, desk, _):
        for community in ("c001", "c002"):
            world.press(community=community)
            await world.receipted(community)
        run = await begin(world, desk, garbage=1, duplicate=1)
        for community in ("c001", "c002", "c002"):
            await come_again(world, community)
        await garble(world)
        await garble(world, "c002", "agent-2", b"\xfe")
        watched = await desk.watch(run)

    assert (watched.refused, watched.repeats) == ({"not-utf8": 1}, 1)


async def test_a_run_that_is_over_stays_as_it_was(tmp_path: Path) -> None:
    async with watching(tmp_path) as (world, desk, _):
        run = await begin(world, desk, garbage=1, duplicate=1)
        world.press()
        await world.receipted()
        await come_again(world, "c001")
        await garble(world)
        done = replace(run, state="done", injected={"garbage": 1, "duplicate": 1})
        first = await desk.watch(done)
        await come_again(world, "c001")
        await garble(world, payload=b"\xfe")
        later = await desk.watch(done)

    assert first.is_good
    assert (first.refused, first.repeats) == ({"not-utf8": 1}, 1)
    assert later == first


async def test_late_readings_must_open_nothing(tmp_path: Path) -> None:
    line = LogLine(BEGAN, "late", "agent-1", "room-1:temperature", "room-1")
    async with watching(tmp_path) as (world, desk, _):
        run = replace(await begin(world, desk, late=1), log=[line], injected={"late": 1})
        world.press()
        await world.receipted()
        playing = await desk.watch(run)
        quiet = await desk.watch(replace(run, id="as-it-must-be", state="done"))
        # The press was nothing that anybody expected, and it came from the device of the late reading.
        late = [replace(line, device="sos-1")]
        opened = await desk.watch(replace(run, id="as-it-must-not", state="done", expected=[], log=late))
        none = await desk.watch(replace(run, id="none-came", state="stopped", log=[], injected={}))

    told = [[(one.met, one.is_good) for one in watched.faults] for watched in (playing, quiet, opened, none)]
    assert told == [[(0, None)], [(0, True)], [(1, False)], [(0, None)]]
    assert (quiet.is_good, opened.is_good) == (True, False)


async def test_without_a_stand_there_is_none_to_ask(world: World) -> None:
    desk = StandDesk(None, world.ledger, DoorClient(Path("/nowhere/door.sock")), 1.0)

    assert not desk.is_there
    with pytest.raises(StandAway):
        await desk.look()
