"""What the test stand plays is held against what came of it, and it plays in communities of simulated devices alone."""

from __future__ import annotations

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
    Run,
    RunWish,
    StandAway,
    StandDesk,
    StandView,
    Verdict,
    judge,
)
from tests.runtime.test_simulated import first_is_simulated
from tests.runtime.world import World

S = 1_000
BEGAN = 1_795_435_200_000
ACTOR = Actor("a1", "tao", Role.TESTER, ("370215",))
PRESS = Expected(
    "sos-pressed", "一键报警按下", "c001", "sos-1", BEGAN, BEGAN + 300 * S, "ext:21-03", "b1-u1-101", 5 * S
)
PUFF = Expected("smoke-puff", "短暂烟雾", "c001", "smoke-1", BEGAN, BEGAN + 300 * S)
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


def verdicts(run: Run, *incidents: Incident) -> list[Verdict]:
    return [one.verdict for one in judge(run, incidents, 1.0)[0]]


async def pressed(world: World) -> Incident:
    """The incident of a press on sos-1, as opened three seconds after the run's first act."""
    await world.start()
    world.press()
    await world.receipted()
    return replace(incident_of(world), opened_at=BEGAN + 3 * S)


async def test_each_expectation_gets_its_verdict(world: World) -> None:
    opened = await pressed(world)
    done = replace(RUN, state="done")
    burnt = replace(opened, id="f1", category="ext:21-01", place="b1", devices=("smoke-1",))

    assert verdicts(RUN) == [Verdict.WAITING, Verdict.WAITING]
    assert verdicts(done) == [Verdict.MISSING, Verdict.QUIET]
    assert verdicts(done, opened) == [Verdict.OPENED, Verdict.QUIET]
    assert verdicts(done, replace(opened, opened_at=BEGAN + 8 * S)) == [Verdict.LATE, Verdict.QUIET]
    assert verdicts(done, replace(opened, opened_at=BEGAN - 60 * S)) == [Verdict.JOINED, Verdict.QUIET]
    assert verdicts(done, opened, burnt) == [Verdict.OPENED, Verdict.FALSE]


async def test_what_nobody_expected_is_named(world: World) -> None:
    opened = await pressed(world)
    again = replace(opened, id="f2", opened_at=BEGAN + 4 * S)

    judged, unexpected = judge(replace(RUN, state="done"), [opened, again], 1.0)

    assert judged[0].incident == opened
    assert [incident.id for incident in unexpected] == ["f2"]


async def test_a_run_is_held_against_the_ledger(tmp_path: Path) -> None:
    world = World(tmp_path, first_is_simulated())
    await world.start()
    door = DoorServer(tmp_path / "door.sock", world.pipeline.submit, world.pipeline.look)
    await door.start()
    stand = KeptStand()
    client = DoorClient(tmp_path / "door.sock")
    desk = StandDesk(stand, world.ledger, client, 1.0)
    first, second = sorted(world.ledger.communities(), key=lambda community: community.id)
    wish = RunWish("a-run-of-the-stand", ("sos-pressed",), ("c001",), 1.0, {"garbage": 1, "duplicate": 1})
    try:
        with pytest.raises(Refused, match="c002 is not marked"):
            await desk.start(ACTOR, wish, [first, second])
        assert stand.runs == {}
        run = await desk.start(ACTOR, wish, [first])
        run = replace(run, started_at=world.clock(), expected=[replace(PRESS, begins=world.clock())])
        before = await desk.watch(run)
        world.press()
        await world.receipted()
        world.inbox.send("sc/v1/c001/agent-1/telemetry", b"\xff\x00")
        await world.settle()
        world.press(community="c002")
        await world.receipted("c002")
        after = await desk.watch(replace(run, state="done", injected={"garbage": 1}))
    finally:
        await client.close()
        await door.stop()
        await world.close()

    assert (run.note.owner, run.note.position) == ("a1", 0)
    assert ([one.verdict for one in before.judged], before.is_good) == ([Verdict.WAITING], None)
    assert [one.verdict for one in after.judged] == [Verdict.OPENED]
    assert [incident.community for incident in after.incidents] == ["c001"]
    assert after.refused == {"not-utf8": 1}
    assert [(one.kind, one.met, one.is_good) for one in after.faults] == [("garbage", 1, True), ("duplicate", 0, True)]
    assert after.is_good


async def test_without_a_stand_there_is_none_to_ask(world: World) -> None:
    desk = StandDesk(None, world.ledger, DoorClient(Path("/nowhere/door.sock")), 1.0)

    assert not desk.is_there
    with pytest.raises(StandAway):
        await desk.look()
