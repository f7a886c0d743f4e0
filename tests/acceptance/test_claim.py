"""A device from its maker's list: it connects before anybody claims it, and is told where it is when somebody does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt

from gateway.adapters.ledger import open_ledger
from gateway.core.model import Role
from gateway.runtime.access import Actor
from gateway.runtime.clock import RunningClock
from gateway.runtime.device_desk import DeviceDesk, Registration
from gateway.runtime.door import DoorClient
from gateway.wire import Lane, Message, Signal, encode_message, parse_topic, topic_of
from tests.acceptance.stage import Stage
from tests.core.worlds import real_catalog

SECRET = "printed-on-the-box-0001"
KEEPER = Actor("a1", "keeper", Role.PROPERTY_MANAGER, communities=("c001",))


async def test_a_claimed_device_learns_where_it_is_and_its_first_press_is_seen(stage: Stage, tmp_path: Path) -> None:
    del stage.settings["SCG_BROKER__URL"]  # the gateway's own broker
    table = tmp_path / "maker.csv"
    table.write_text(f"code,secret\nSN-7,{SECRET}\n", encoding="utf-8")
    assert stage.run("device", "list-beforehand", str(table)).returncode == 0
    ready = stage.start().wait_for_line(r'"broker": "([^"]+)"')
    address = urlsplit(ready[1])
    ledger = open_ledger(stage.ledger_url)
    door = DoorClient(tmp_path / "data" / "door.sock")
    desk = DeviceDesk(ledger, door, real_catalog(), RunningClock())

    async with aiomqtt.Client(address.hostname or "", address.port or 0, username="sn-7", password=SECRET) as device:
        await device.subscribe(topic_of("+", "sn-7", "config"), qos=1)
        wish = Registration("claim-0001", "SN-7", "fixed-sos", "b1-u1-102", secret=SECRET)
        await desk.register(KEEPER, "c001", wish)
        async with asyncio.timeout(10):
            told = await anext(device.messages)
        topic = parse_topic(str(told.topic))
        assert topic is not None
        assert (topic.community, topic.source) == ("c001", "sn-7")
        now = stage.now()
        pressed = Message("c001", "sn-7", Lane.ALARM, "own1", 1, 1, now, now, (Signal("sn-7", "pressed"),), [], (), 0)
        await device.publish(topic_of("c001", "sn-7", Lane.ALARM), encode_message(pressed), qos=1)
        async with asyncio.timeout(10):
            while ledger.find_event("sn-7/own1/alarm/1") is None:  # noqa: ASYNC110 - the journal has no event
                await asyncio.sleep(0.02)
        [shown] = (await door.look("c001", "sn-7")).devices

    assert set(shown.events) == {"pressed"}
    assert ledger.incidents() == []  # it is being tried
    await door.close()
    ledger.close()
