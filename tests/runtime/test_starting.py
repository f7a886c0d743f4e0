"""A start: what is damaged or does not fit together is named, and holds nothing else back."""

from __future__ import annotations

import pytest

from gateway.core.catalog import build_catalog
from gateway.core.model import Device
from gateway.errors import GatewayError
from tests.acceptance.stage import events_of
from tests.core.worlds import DEVICES, real_catalog
from tests.runtime.conftest import MakeWorld
from tests.runtime.world import district_of


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
