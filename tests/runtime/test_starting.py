"""A start: what is damaged or does not fit together is named, and holds nothing else back."""

from __future__ import annotations

import pytest

from gateway.core.catalog import build_catalog
from gateway.core.model import Device
from gateway.core.worktime import format_time
from gateway.errors import GatewayError
from gateway.wire import Lane
from tests.acceptance.stage import events_of
from tests.core.worlds import DEVICES, real_catalog
from tests.runtime.conftest import MakeWorld
from tests.runtime.world import World, district_of


async def test_a_community_that_cannot_be_read_back_holds_no_other_back(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world(3)
    await world.start()
    for community in ("c001", "c002", "c003"):
        world.press("sos-1", community)
        await world.receipted(community)
    await world.crash()
    world.run_sql("UPDATE journal SET body = CAST('{' AS BLOB) WHERE community = 'c002' AND kind = 'delivery'")
    await world.start()
    assert set(world.pipeline.writers) == {"c001", "c003"}
    assert "c002" in caplog.text
    assert "backup" in caplog.text
    before = len(world.receipts("c002"))
    press, kept = world.press("sos-2", "c001"), world.press("sos-2", "c002")
    await world.receipted("c001")
    assert press in events_of(world.incidents())
    # Its source keeps it until somebody has mended the ledger.
    assert kept not in events_of(world.incidents())
    assert len(world.receipts("c002")) == before
    assert world.counts()["quarantined"] == {}


async def test_a_profile_that_a_device_still_has_cannot_be_taken_away(make_world: MakeWorld) -> None:
    files = real_catalog().files
    spare = files["device_profiles/climate/temperature-humidity.yaml"].replace("id: temperature-humidity", "id: spare")
    wider = build_catalog({**files, "device_profiles/climate/spare.yaml": spare})
    devices = (*DEVICES, Device("room-2", "spare", "agent-1", "gate"))
    world = make_world(district=district_of(2, devices), catalog=wider)
    await world.start()
    await world.stop()
    world.catalog = real_catalog()
    with pytest.raises(
        GatewayError, match=r"device room-2 of c001 has profile spare, which is gone; put the profile's"
    ):
        await world.start()
    world.pipeline._thread.shutdown()
    world.forget_gateway()
    world.catalog = wider
    await world.start()
    press = world.press()
    await world.receipted()
    assert press in events_of(world.incidents())


MINUTE = 60_000
HOUR = 60 * MINUTE


async def test_a_deadline_across_a_weekend_and_a_crash_is_exact(world: World) -> None:
    """What is read back from the ledger awaits the same, by the same time: 1 working hour from Friday 16:40 has 20 min
    of Friday and 40 min of Monday, until 09:40; it is yellow after 45 min, at 09:25."""
    world.clock.advance(3 * 24 * HOUR + 20 * HOUR + 30 * MINUTE)
    assert format_time(world.clock()) == "2026-11-27 16:30"
    await world.start()
    world.send({"room-1:temperature": 60.0}, lane=Lane.TELEMETRY)
    await world.receipted(lane=Lane.TELEMETRY)
    await world.pass_time(10 * MINUTE, MINUTE)
    await world.pass_time(19 * HOUR + 20 * MINUTE, 20 * MINUTE)
    assert format_time(world.clock()) == "2026-11-28 12:00"
    [before] = world.incidents(cause="room-climate")
    await world.crash()

    world.clock.advance(45 * HOUR)
    assert format_time(world.clock()) == "2026-11-30 09:00"
    await world.start()
    await world.pass_time(41 * MINUTE, MINUTE)

    [after] = world.incidents(cause="room-climate")
    assert before.due is not None
    assert after.due is not None
    assert (after.due.due_at, after.due.how) == (before.due.due_at, before.due.how)
    spoken = [(line.what, format_time(line.at)) for line in after.timeline[len(before.timeline) :]]
    assert spoken == [("warn", "2026-11-30 09:25"), ("overdue", "2026-11-30 09:40")]
