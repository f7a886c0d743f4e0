"""Both sides are compared: each difference is found and repaired, once, and what is on its way is none."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.adapters.ledger import open_ledger
from gateway.adapters.memory_platform import Fault, MemoryPlatform
from gateway.core.casebook import TOLD_LINES
from gateway.core.model import Incident, OperatorAction, Told
from gateway.core.worktime import DAY_MS
from gateway.runtime.callbacks import make_action, read_callback
from gateway.runtime.door import DoorClient, DoorServer, Entering
from gateway.runtime.outbox import Outbox
from gateway.runtime.ports import Held, PlatformAway
from gateway.runtime.reconciling import Code, Difference, Reconciler, Summary
from tests.ports.incidents import FIRE, make_callback
from tests.runtime.conftest import MakeWorld
from tests.runtime.world import World, until


class Impatient(DoorClient):
    """Waits for half a second where the real one waits for ten."""

    async def submit(self, community: str, event: Entering, event_id: str, timeout_s: float = 0.5) -> str:
        return await super().submit(community, event, event_id, timeout_s)


class Sides:
    """A running gateway with its door, and a platform. Nothing goes over before `deliver`, and of what people do at
    the platform nobody tells."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.platform = MemoryPlatform()
        self.ledger = open_ledger(world.url)
        self.path = world.path.parent / "door.sock"
        self.found: list[Difference] = []
        self._acts = 0

    async def open(self) -> None:
        pipeline = await self.world.start()
        self.server = DoorServer(self.path, pipeline.submit)
        await self.server.start()
        self.door: DoorClient = Impatient(self.path)

    async def close(self) -> None:
        await self.door.close()
        await self.server.stop()
        self.ledger.close()

    async def press(self, device: str = "sos-1", community: str = "c001") -> str:
        """A press; the id of the incident that it opens."""
        press = self.world.press(device, community)
        await self.world.receipted(community)
        return next(incident.id for incident in self.world.incidents() if incident.opened_by == press)

    async def deliver(self) -> None:
        """The outbox works until nothing waits any more."""
        world, pipeline = self.world, self.world.pipeline
        outbox = Outbox(world.ledger, pipeline.on_ledger, pipeline.submit, self.platform, world.inbox, world.clock)
        running = asyncio.create_task(outbox.run())
        try:
            await until(lambda: not self.ledger.outbox_counts().get("waiting"))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def act_here(self, id: str, verb: str, **more: Any) -> None:
        """Somebody acts on this side."""
        self._acts += 1
        action = OperatorAction(f"here-{self._acts}", "wang", id, verb, **more)
        assert await self.door.submit(self.ours(id).community, action, action.id) == "done"

    def act_there(self, id: str, action: str, state: str, user: str = "li", **data: Any) -> bytes:
        """Somebody acts at the platform; the callback that would tell of it."""
        self._acts += 1
        at = data.pop("at", self.world.clock())
        callback = make_callback(f"there-{self._acts}", id, action, user, at, **data)
        self.platform.act(id, callback, state, at)
        return callback

    async def tell(self, callback: bytes) -> str:
        """The callback comes in; the answer."""
        action = make_action(read_callback(callback), self.world.catalog.mapping.actions)
        return await self.door.submit(self.ours(action.incident).community, action, action.id)

    async def reconcile(self, since: int = 0, *, repair: bool = True) -> Summary:
        """`found` holds what it told of this time."""
        self.found = []
        mapping = self.world.catalog.mapping
        reconciler = Reconciler(self.ledger, self.platform, self.door, mapping, self.found.append)
        return await reconciler.run(since, self.world.clock(), repair=repair)

    def ours(self, id: str) -> Incident:
        found = self.ledger.incident(id)
        assert found is not None
        return found

    async def assert_same(self, *ids: str) -> None:
        """Both sides hold the same."""
        for id in ids:
            held, ours = await self.platform.find_held(id), self.ours(id)
            assert held is not None
            assert (held.content, held.state) == (ours, ours.state)

    def rows(self) -> dict[str, list[Any]]:
        """All that the ledger holds of incidents and effects."""
        tables = ("journal", "incident", "timeline", "outbox")
        with closing(sqlite3.connect(self.world.path)) as db:
            return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables}


@pytest.fixture
async def sides(make_world: MakeWorld) -> AsyncIterator[Sides]:
    async with running(make_world(2)) as made:
        yield made


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[Sides]:
    made = Sides(world)
    await made.open()
    yield made
    await made.close()


# --- ways in which the sides come to differ --------------------------------------------------------------------------


async def refuse_it(sides: Sides, id: str) -> None:
    sides.platform.fail_next(Fault.REFUSED)
    await sides.deliver()


async def forget_the_effect(sides: Sides, id: str) -> None:
    sides.world.run_sql("DELETE FROM outbox WHERE kind = 'deliver'")


async def give_the_effect_up(sides: Sides, id: str) -> None:
    sides.world.run_sql("UPDATE outbox SET state = 'superseded' WHERE kind = 'deliver'")


async def lose_it_there(sides: Sides, id: str) -> None:
    await sides.deliver()
    sides.platform.lose(id)


async def refuse_the_newest(sides: Sides, id: str) -> None:
    await sides.deliver()
    await sides.act_here(id, "accept")
    await refuse_it(sides, id)


async def set_the_platform_back(sides: Sides, id: str) -> None:
    first = sides.ours(id)
    await sides.act_here(id, "accept")
    await lose_it_there(sides, id)
    await sides.platform.deliver(f"{id}/{first.revision}", first)


async def set_the_ledger_back(sides: Sides, id: str) -> None:
    """As if revisions up to the fourth had been made here, sent and then forgotten."""
    await sides.deliver()
    later = replace(sides.ours(id), revision=4, level="normal")
    await sides.platform.deliver(f"{id}/4", later)


async def change_it_there(sides: Sides, id: str) -> None:
    ours = sides.ours(id)
    await sides.platform.deliver(f"{id}/{ours.revision}", replace(ours, title={"zh": "改过"}, place="gate"))
    await sides.deliver()


async def lose_a_callback(sides: Sides, id: str) -> None:
    await sides.deliver()
    sides.act_there(id, "accepted", "filed")


async def lose_three_callbacks(sides: Sides, id: str) -> None:
    await lose_a_callback(sides, id)
    sides.act_there(id, "dispatched", "dispatched", body="property")
    sides.act_there(id, "arrived", "handling")


async def lose_a_callback_and_refuse_the_newest(sides: Sides, id: str) -> None:
    await refuse_the_newest(sides, id)
    sides.act_there(id, "dispatched", "dispatched")


async def refuse_an_act_that_stays_there(sides: Sides, id: str) -> None:
    """The act was told and refused; the platform does not look at the answer."""
    await sides.deliver()
    assert "not allowed" in await sides.tell(sides.act_there(id, "closed", "closed", reason="好了"))


async def lose_an_act_that_is_refused_here(sides: Sides, id: str) -> None:
    await sides.deliver()
    sides.act_there(id, "closed", "closed", reason="好了")


AGAIN = "the newest revision is delivered again"

Arrange = Callable[[Sides, str], Awaitable[None]]


@pytest.mark.parametrize(
    ("arrange", "code", "detail", "repair", "revisions"),
    [
        (refuse_it, Code.MISSING_THERE, "it has refused the newest revision", AGAIN, 0),
        (forget_the_effect, Code.MISSING_THERE, "the newest revision was never in the outbox", AGAIN, 0),
        (give_the_effect_up, Code.MISSING_THERE, "the newest revision was never sent", AGAIN, 0),
        (lose_it_there, Code.ANSWERED_NOT_HELD, "it has answered for the newest revision", AGAIN, 0),
        (refuse_the_newest, Code.OLDER_THERE, "it has refused the newest revision", AGAIN, 0),
        (set_the_platform_back, Code.OLDER_THERE, "it has answered for the newest revision", AGAIN, 0),
        (set_the_ledger_back, Code.NEWER_THERE, "was the ledger set back to an older copy?", "revision 5 is", 4),
        (change_it_there, Code.DIFFERING, "in title, place", "revision 2 is delivered", 1),
        (
            lose_a_callback,
            Code.STATE_DIFFERS,
            "1 of its acts were never told here; reported here, filed there",
            "accepted by li is done here, too; revision 2 is delivered",
            1,
        ),
        (
            lose_three_callbacks,
            Code.STATE_DIFFERS,
            "3 of its acts were never told here; reported here, handling there",
            "dispatched by li is done here, too; arrived by li is done here, too; revision 4 is delivered",
            3,
        ),
        (
            lose_a_callback_and_refuse_the_newest,
            Code.STATE_DIFFERS,
            "1 of its acts were never told here; filed here, dispatched there",
            "dispatched by li is done here, too; revision 3 is delivered",
            1,
        ),
        (
            refuse_an_act_that_stays_there,
            Code.STATE_DIFFERS,
            "reported here, closed there",
            "revision 2 is delivered",
            1,
        ),
        (
            lose_an_act_that_is_refused_here,
            Code.STATE_DIFFERS,
            "1 of its acts were never told here; reported here, closed there",
            "closed by li is refused here: close is not allowed while the incident is reported",
            1,
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_each_difference_is_found_told_and_repaired_once(
    sides: Sides, arrange: Arrange, code: Code, detail: str, repair: str, revisions: int
) -> None:
    id = await sides.press()
    await arrange(sides, id)
    before, rows = sides.ours(id), sides.rows()
    held = await sides.platform.find_held(id)

    dry = await sides.reconcile(repair=False)

    [seen] = sides.found
    assert (seen.code, seen.detail) == (code, detail)
    assert (seen.incident, seen.number, seen.ours) == (id, before.number, before.revision)
    assert seen.theirs == (0 if held is None else held.revision)
    assert (seen.repair, seen.is_left) == ("", True)
    assert dry == Summary(1, 0 if held is None else 1, 0, {code: 1}, repaired=0, left=1, dry_run=True)
    assert sides.rows() == rows

    done = await sides.reconcile()

    [mended] = sides.found
    assert repair in mended.repair
    assert replace(mended, repair="", is_left=True) == seen
    assert (done.differences, done.repaired, done.left, done.dry_run) == ({code: 1}, 1, 0, False)
    assert sides.ours(id).revision == before.revision + revisions

    # Before it has gone over, it is on the way; afterwards both sides are the same.
    rows = sides.rows()
    waiting = await sides.reconcile()
    assert (waiting.differences, waiting.on_the_way) == ({}, 1)
    await sides.deliver()
    after = await sides.reconcile()
    assert (after.differences, after.on_the_way) == ({}, 0)
    assert sides.rows()["journal"] == rows["journal"]
    await sides.assert_same(id)


async def test_where_both_sides_are_the_same_there_is_nothing_to_tell(sides: Sides) -> None:
    ids = [await sides.press(device) for device in ("sos-1", "sos-2")]
    await sides.deliver()
    callback = sides.act_there(ids[0], "accepted", "filed")
    assert await sides.tell(callback) == "done"
    await sides.deliver()

    assert await sides.reconcile() == Summary(ours=2, theirs=2)


async def test_what_waits_to_go_over_is_no_difference(sides: Sides) -> None:
    new = await sides.press("sos-1")
    old = await sides.press("sos-2")
    await sides.deliver()
    sides.platform.lose(new)
    await sides.act_here(new, "accept")
    await sides.act_here(old, "accept")

    assert await sides.reconcile() == Summary(ours=2, theirs=1, on_the_way=2)
    assert sides.found == []


async def test_what_went_over_between_two_looks_is_no_difference(sides: Sides) -> None:
    id = await sides.press()
    await sides.deliver()
    late = sides.platform = Late(sides.platform, 1)

    summary = await sides.reconcile()

    assert (summary.differences, late.asked) == ({}, [id, id])


class Late(MemoryPlatform):
    """Shows of each incident nothing at first: it arrives after so many looks."""

    def __init__(self, platform: MemoryPlatform, looks: int) -> None:
        super().__init__()
        self._later = platform
        self._looks = looks
        self.asked: list[str] = []

    async def find_held(self, incident: str) -> Held | None:
        self.asked.append(incident)
        return None if len(self.asked) <= self._looks else await self._later.find_held(incident)


async def test_what_is_held_and_is_none_of_ours_is_told_again(sides: Sides) -> None:
    await sides.press()
    await sides.deliver()

    class Foreign(Late):
        async def find_held(self, incident: str) -> Held | None:
            held = await super().find_held(incident)
            return None if held is None else replace(held, content=None)

    sides.platform = Foreign(sides.platform, 0)
    await sides.reconcile()

    [found] = sides.found
    assert (found.code, found.detail) == (Code.DIFFERING, "in everything: what it holds is no incident")
    assert found.repair == "revision 2 is delivered"


async def test_what_was_never_here_is_left_for_people(sides: Sides) -> None:
    await sides.platform.deliver(f"{FIRE.id}/1", FIRE)
    sides.act_there(FIRE.id, "accepted", "filed")
    rows = sides.rows()

    summary = await sides.reconcile()

    [found] = sides.found
    assert (found.code, found.incident, found.number) == (Code.UNKNOWN_HERE, FIRE.id, FIRE.number)
    assert (found.ours, found.theirs, found.is_left) == (0, 1, True)
    assert found.repair == "only people can tell"
    assert summary == Summary(0, 1, 0, {"unknown-here": 1}, repaired=0, left=1)
    assert sides.rows() == rows


async def test_what_changed_before_is_not_looked_at(sides: Sides) -> None:
    old = await sides.press("sos-1")
    await lose_it_there(sides, old)
    since = sides.world.clock.advance(1_000)
    new = await sides.press("sos-2")
    await lose_it_there(sides, new)

    summary = await sides.reconcile(since)

    assert [found.incident for found in sides.found] == [new]
    assert summary.ours == 1


async def test_an_act_that_was_overtaken_here_is_neither_told_nor_brought_in(sides: Sides) -> None:
    """What they decided before the case was opened again here is refused, however late it is told."""
    id = await sides.press()
    await sides.act_here(id, "false_alarm", reason="误触")
    await sides.deliver()
    earlier = sides.world.clock()
    sides.world.clock.advance(60_000)
    await sides.act_here(id, "reopen", reason="又响了")
    await sides.deliver()
    sides.act_there(id, "rated", "rated", score=5, at=earlier)

    await sides.reconcile()
    [found] = sides.found
    assert (found.code, found.detail) == (Code.STATE_DIFFERS, "filed here, rated there")
    await sides.deliver()
    await sides.assert_same(id)
    assert sides.ours(id).state == "filed"
    assert (await sides.reconcile()).differences == {}


async def test_acts_that_cannot_be_read_are_told_and_hold_nothing_back(sides: Sides) -> None:
    id, other = await sides.press("sos-1"), await sides.press("sos-2")
    await sides.deliver()
    sides.platform.act(id, b'{"specversion": "1.0"', "reported", sides.world.clock())
    sides.platform.act(id, make_callback("odd-1", id, "danced", "li"), "reported", sides.world.clock())
    sides.platform.act(id, make_callback("odd-2", other, "accepted", "li"), "reported", sides.world.clock())

    for _ in range(2):
        rows = sides.rows()
        summary = await sides.reconcile()
        [found] = sides.found
        assert (found.code, found.detail) == (Code.STATE_DIFFERS, "it has acts that cannot be read")
        reasons = [reason.split(":")[0] for reason in found.repair.split("; ")]
        assert reasons == ["not-a-callback", "unknown-action", "wrong-subject"]
        assert (summary.repaired, summary.left) == (0, 1)
        assert sides.rows() == rows

    sides.act_there(id, "accepted", "filed")
    summary = await sides.reconcile()
    assert "accepted by li is done here, too; revision 2 is delivered" in sides.found[0].repair
    assert summary.left == 1
    assert [sides.ours(one).state for one in (id, other)] == ["filed", "reported"]


async def test_an_act_that_came_in_meanwhile_and_was_refused_is_not_called_done(sides: Sides) -> None:
    """The callback is slow, and reaches the gateway after the comparison has missed it."""
    id = await sides.press()
    await sides.deliver()
    callback = sides.act_there(id, "closed", "closed", reason="好了")
    door = sides.door

    class Overtaken(DoorClient):
        async def submit(self, community: str, event: Entering, event_id: str, timeout_s: float = 10.0) -> str:
            if isinstance(event, OperatorAction):
                await door.submit(community, event, event_id)
            return await door.submit(community, event, event_id, timeout_s)

    sides.door = Overtaken(sides.path)
    await sides.reconcile()
    sides.door = door

    assert "closed by li is refused here: it was refused when it came first" in sides.found[0].repair
    assert await sides.tell(callback) == "repeat"
    assert sides.ours(id).state == "reported"


async def test_without_a_gateway_deliveries_are_repaired_and_the_rest_is_left(sides: Sides) -> None:
    lost, told, changed = await sides.press("sos-1"), await sides.press("sos-2"), await sides.press("sos-1", "c002")
    await sides.deliver()
    sides.platform.lose(lost)
    sides.act_there(told, "accepted", "filed")
    sides.act_there(changed, "accepted", "filed")
    await sides.server.stop()
    begun = asyncio.get_running_loop().time()

    summary = await sides.reconcile()

    by_id = {found.incident: found for found in sides.found}
    assert by_id[lost].repair == AGAIN
    for id in (told, changed):
        assert (by_id[id].repair, by_id[id].is_left) == (AWAY, True)
        assert sides.ours(id).state == "reported"
    assert (summary.repaired, summary.left) == (1, 2)
    assert asyncio.get_running_loop().time() - begun < 0.9, "it has waited for the gateway more than once"
    # With the gateway there again, what was left is done.
    await sides.server.start()
    summary = await sides.reconcile()
    assert (summary.repaired, summary.left) == (2, 0)
    await sides.deliver()
    await sides.assert_same(lost, told, changed)


AWAY = "the gateway is not there: start it, and run this again"


async def test_a_community_that_the_gateway_does_not_hold_is_left(sides: Sides) -> None:
    id = await sides.press()
    await lose_a_callback(sides, id)
    await sides.server.stop()

    async def refuse(community: str, event: Entering, event_id: str) -> str:
        raise LookupError(community)

    sides.server = DoorServer(sides.path, refuse)
    await sides.server.start()
    summary = await sides.reconcile()

    assert sides.found[0].repair == "the gateway refuses it: unknown-community"
    assert summary.left == 1


async def test_a_case_that_takes_no_more_lines_is_left_with_the_reason(sides: Sides) -> None:
    """It ended so long ago that it is in the ledger alone: nothing can be done to it, and no revision be made."""
    id = await sides.press()
    await sides.act_here(id, "false_alarm", reason="误触")
    await sides.deliver()
    await sides.world.pass_time(8 * DAY_MS, 12 * 3_600_000)
    sides.act_there(id, "reopened", "filed", reason="又响了")
    before = sides.ours(id)

    await sides.reconcile()

    [found] = sides.found
    assert "reopened by li is refused here: no such open incident in this community" in found.repair
    assert found.repair.endswith("it takes no more lines, so that no newer revision tells the platform")
    assert found.is_left
    assert sides.ours(id) == before


async def test_a_ledger_that_was_set_back_far_catches_up_over_several_runs(sides: Sides) -> None:
    id = await sides.press()
    await sides.deliver()
    await sides.platform.deliver(f"{id}/150", replace(sides.ours(id), revision=150))

    first = await sides.reconcile()
    assert (first.repaired, first.left) == (0, 1)
    assert sides.found[0].repair == "it stands at revision 101 now: run this again"
    second = await sides.reconcile()
    assert (second.repaired, second.left) == (1, 0)
    assert sides.found[0].repair == "revision 151 is delivered"
    assert len(sides.ours(id).timeline) < TOLD_LINES
    await sides.deliver()
    await sides.assert_same(id)


async def test_a_line_of_the_comparisons_is_a_line_and_nothing_else(sides: Sides) -> None:
    id = await sides.press()
    await change_it_there(sides, id)
    before = sides.ours(id)
    await sides.reconcile()

    line = sides.ours(id).timeline[-1]
    assert (line.what, line.why) == ("told", "reconcile: differing: in title, place")
    after = sides.ours(id)
    assert replace(after, timeline=before.timeline, revision=1, updated_at=before.updated_at) == before
    # Whoever asks again because no answer came writes no second line.
    again = Told(f"reconcile/{id}/1", id, line.why)
    assert await sides.door.submit("c001", again, again.id) == "repeat"
    assert sides.ours(id) == after


async def test_a_platform_that_goes_away_in_the_middle_keeps_what_was_repaired(sides: Sides) -> None:
    ids = sorted([await sides.press("sos-1"), await sides.press("sos-2")])
    for id in ids:
        await lose_it_there(sides, id)

    class Leaving(Late):
        async def find_held(self, incident: str) -> Held | None:
            if incident == ids[1]:
                raise PlatformAway("no answer")
            return await super().find_held(incident)

    platform, sides.platform = sides.platform, Leaving(sides.platform, 0)
    with pytest.raises(PlatformAway):
        await sides.reconcile()
    sides.platform = platform
    assert [found.incident for found in sides.found] == [ids[0]]
    summary = await sides.reconcile()
    assert (summary.differences, summary.on_the_way) == ({"answered-not-held": 1}, 1)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_went_wrong_two_runs_make_both_sides_the_same(make_world: MakeWorld, seed: int) -> None:
    """Two dozen incidents, each with its own chain of faults. The platform may refuse what the first run sends, too;
    after the second nothing is left."""
    chance = random.Random(seed)
    world = make_world(12)
    async with running(world) as sides:
        ids = [await sides.press(sos, f"c{n:03d}") for n in range(1, 13) for sos in ("sos-1", "sos-2")]
        for id in ids:
            for fault in chance.choices(FAULTS, k=chance.randint(0, 4)):
                await fault(sides, id)
                world.clock.advance(chance.randrange(2_000))
        for _ in range(2):
            await sides.reconcile()
            await sides.deliver()
        assert (await sides.reconcile()) == Summary(len(ids), len(ids))
        await sides.assert_same(*ids)


async def press_here(sides: Sides, id: str) -> None:
    case = sides.ours(id)
    sides.world.press(case.key, case.community)
    await sides.world.receipted(case.community)


async def move_here(sides: Sides, id: str) -> None:
    verb = {"reported": "accept", "filed": "arrive"}.get(sides.ours(id).state)
    if verb is not None:
        await sides.act_here(id, verb)


async def act_there_in_vain(sides: Sides, id: str) -> None:
    if await sides.platform.find_held(id) is not None:
        sides.act_there(id, *random.Random(id).choice([("accepted", "filed"), ("closed", "closed")]), reason="…")


async def send(sides: Sides, id: str) -> None:
    await sides.deliver()


async def lose_if_held(sides: Sides, id: str) -> None:
    if await sides.platform.find_held(id) is not None:
        sides.platform.lose(id)


async def refuse_the_next(sides: Sides, id: str) -> None:
    sides.platform.fail_next(Fault.REFUSED)


FAULTS: list[Arrange] = [press_here, move_here, act_there_in_vain, send, send, lose_if_held, refuse_the_next]
