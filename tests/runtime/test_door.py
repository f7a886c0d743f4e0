"""The door: what comes in gets its answer, garbage ends only its own connection, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.model import OperatorAction
from gateway.core.present import LastValue
from gateway.runtime.door import FRAME_LIMIT, DoorClient, DoorClosed, DoorRefused, DoorServer, Entering
from gateway.runtime.ports import STOPPING, UNFIT
from tests.core.worlds import DEVICES, START
from tests.runtime.world import World

ACTION = OperatorAction("a1", "wang", "incident-1", "accept")


class Gateway:
    """Answers as the pipeline does: ``done``, and ``repeat`` for what it has had."""

    def __init__(self) -> None:
        self.had: dict[str, Entering] = {}
        self.pause_s = 0.0
        self.says: list[str] = []
        """What it answers first, instead."""

    async def submit(self, community: str, event: Entering, event_id: str) -> str:
        await asyncio.sleep(self.pause_s)
        if self.says:
            return self.says.pop(0)
        if community != "c001":
            raise LookupError(community)
        if event_id in self.had:
            return "repeat"
        self.had[event_id] = event
        return "done"


@pytest.fixture(params=["door.sock", "d" * 150 + "/door.sock"], ids=["short path", "long path"])
async def door(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Gateway, DoorServer, Path]]:
    path = tmp_path / str(request.param)
    path.parent.mkdir(exist_ok=True)
    gateway = Gateway()
    server = DoorServer(path, gateway.submit)
    await server.start()
    yield gateway, server, path
    await server.stop()


Door = tuple[Gateway, DoorServer, Path]


async def test_what_comes_in_gets_its_answer_and_the_same_again_is_a_repeat(door: Door) -> None:
    gateway, _, path = door
    client = DoorClient(path)
    assert await client.is_open()
    assert await client.submit("c001", ACTION, "e1") == "done"
    assert await client.submit("c001", ACTION, "e1") == "repeat"
    assert gateway.had == {"e1": ACTION}
    answers = await asyncio.gather(*(client.submit("c001", ACTION, f"many-{n}") for n in range(30)))
    assert set(answers) == {"done"}
    await client.close()


async def test_only_its_own_user_may_come_in(door: Door) -> None:
    assert stat.S_IMODE(door[2].stat().st_mode) == 0o600


async def test_a_community_that_is_not_here_is_refused_by_name(door: Door) -> None:
    client = DoorClient(door[2])
    with pytest.raises(DoorRefused, match="unknown-community"):
        await client.submit("c999", ACTION, "e1")
    await client.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        (FRAME_LIMIT + 1).to_bytes(4, "big"),
        (0).to_bytes(4, "big"),
        (9).to_bytes(4, "big") + b"half",
        (4).to_bytes(4, "big") + b"\xff\xfe{}",
        (60).to_bytes(4, "big") + b'{"community":"c001","event_id":"e","event":{"type":"tick"}}'.ljust(60),
    ],
)
async def test_garbage_ends_its_own_connection_only(door: Door, garbage: bytes) -> None:
    gateway, _, path = door
    folder = os.open(path.parent, os.O_RDONLY)
    reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)
    writer.write(garbage)
    writer.write_eof()
    async with asyncio.timeout(5):
        answer = await reader.read()
    assert answer == b"" or b"not-a-request" in answer
    writer.close()
    client = DoorClient(path)
    assert await client.submit("c001", ACTION, "e1") == "done"
    assert set(gateway.had) == {"e1"}
    await client.close()


async def test_nobody_there_and_nobody_answering_are_said_after_the_time(door: Door, tmp_path: Path) -> None:
    gateway, server, path = door
    with pytest.raises(DoorClosed):
        await DoorClient(tmp_path / "no-such.sock").submit("c001", ACTION, "e1", timeout_s=0.5)
    gateway.pause_s = 5
    with pytest.raises(DoorClosed):
        await DoorClient(path).submit("c001", ACTION, "e1", timeout_s=0.5)
    await server.stop()
    assert not await DoorClient(path).is_open()


async def test_who_asks_while_the_gateway_starts_again_gets_the_answer(door: Door) -> None:
    gateway, server, path = door
    client = DoorClient(path)
    assert await client.submit("c001", ACTION, "e1") == "done"
    await server.stop()
    asking = asyncio.create_task(client.submit("c001", ACTION, "e2", timeout_s=10))
    await asyncio.sleep(0.5)
    again = DoorServer(path, gateway.submit)
    await again.start()
    assert await asking == "done"
    await client.close()
    await again.stop()


async def test_who_asks_a_gateway_that_is_stopping_asks_again(door: Door) -> None:
    gateway, _, path = door
    gateway.says = [STOPPING, STOPPING]
    client = DoorClient(path)
    assert await client.submit("c001", ACTION, "e1") == "done"
    await client.close()


@pytest.mark.parametrize(("says", "code"), [(f"{UNFIT}: no database holds it", "unfit"), ("unknown-community",) * 2])
async def test_what_nobody_took_in_is_no_answer_of_the_engines(door: Door, says: str, code: str) -> None:
    gateway, _, path = door
    gateway.says = [says]
    client = DoorClient(path)
    with pytest.raises(DoorRefused, match=f"^{code}$"):
        await client.submit("c001", ACTION, "e1")
    await client.close()


async def test_a_gateway_that_stops_leaves_the_door_of_the_next_one(door: Door) -> None:
    gateway, server, path = door
    another = Gateway()
    successor = DoorServer(path, another.submit)
    await successor.start()
    await server.stop()
    client = DoorClient(path)
    assert await client.submit("c001", ACTION, "e1") == "done"
    assert (list(gateway.had), list(another.had)) == ([], ["e1"])
    await client.close()
    await successor.stop()
    assert not path.exists()


async def test_who_looks_in_sees_what_the_devices_show_and_writes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    server = DoorServer(tmp_path / "door.sock", world.pipeline.submit, world.pipeline.look)
    await server.start()
    client = DoorClient(tmp_path / "door.sock")
    world.send({"smoke-1:battery": 88.0, "smoke-1:smoke": False})
    await world.receipted()
    before = world.ledger.standing(["c001"])

    present = await client.look("c001", "smoke-1")
    whole = await client.look("c001")
    with pytest.raises(DoorRefused, match="unknown-community"):
        await client.look("c999")

    [smoke] = present.devices
    assert smoke.values["battery"] == LastValue(88.0, START)
    assert smoke.heard_at == START
    assert {d.device.id for d in whole.devices} == {d.id for d in DEVICES}
    assert {d.heard_at for d in whole.devices if d.device.id not in ("smoke-1", "agent-1")} == {None}
    assert {place.id for place in whole.places} >= {"c001", "b1-u1-101"}
    world.clock.advance(25 * 3_600_000)
    [late] = (await client.look("c001", "smoke-1")).devices
    assert late.silent_since == START
    assert world.ledger.standing(["c001"]) == before
    await client.close()
    await server.stop()
    await world.close()
