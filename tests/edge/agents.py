"""An agent in the test's own process, on a bus of the test's own, beside a real gateway and a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from msgspec.structs import replace

from edge.agent import Agent
from edge.config import AgentConfig, ClockSection, LinkSection, SpoolSection
from edge.ports import Carried, Desk, Lamp, Order, Outcome, Report
from gateway.core.model import Device
from gateway.wire import Lane, Measurement, Signal
from tests.acceptance.stage import Stage
from tests.core.worlds import COMMUNITY, DEVICES, ROOT
from tests.servers import Process, free_port

BUS_DEVICES = tuple(
    replace(device, address=f"wall/{device.id}")
    for device in (
        *DEVICES,
        Device("gas-1", "household-gas", "agent-1", "b1-u1-101"),
        Device("mcp-1", "manual-call-point", "agent-1", "b1"),
    )
)
"""The small community's devices, and two more that are grave, all on one bus."""


class Wall:
    """A bus whose devices the test presses and reads. Implements `edge.ports.Driver`."""

    def __init__(self) -> None:
        self.desk: Desk | None = None
        self.orders: list[Order] = []
        self.lamps: list[tuple[str, Lamp]] = []
        self.answer = Outcome("done", "as asked")

    async def run(self, desk: Desk) -> None:
        self.desk = desk
        await asyncio.Event().wait()

    async def perform(self, order: Order) -> Outcome:
        self.orders.append(order)
        return self.answer

    async def show(self, device: Carried, lamp: Lamp) -> None:
        self.lamps.append((device.id, lamp))

    async def press(self, device: str = "sos-1") -> str:
        """The event id, once the press is on the disk."""
        assert self.desk is not None
        [id] = await self.desk.take(Report(device, (Signal(device, "pressed"),)))
        return id

    async def read(self, device: str, reading: str, value: float | bool) -> None:
        assert self.desk is not None
        await self.desk.take(Report(device, (), (Measurement(f"{device}:{reading}", value),)))


class AgentHouse:
    """The agent runs between `start` and `stop` or `crash`; its data folder outlives it."""

    def __init__(self, stage: Stage, folder: Path, **options: Any) -> None:
        clock = stage.settings
        self.config = AgentConfig(
            community=COMMUNITY.id,
            source="agent-1",
            data=folder,
            profiles=ROOT / "device_profiles",
            rules=ROOT / "rules",
            link=LinkSection(url=stage.broker.url, **options),
            spool=SpoolSection(pack_s=0.2),
            clock=ClockSection(
                speed=float(clock.get("SCG_CLOCK__SPEED", 1)),
                anchor_real=int(clock.get("SCG_CLOCK__ANCHOR_REAL", 0)),
                anchor=int(clock.get("SCG_CLOCK__ANCHOR", 0)),
            ),
            status_s=1,
        )
        self.wall = Wall()
        self.agent: Agent | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> Wall:
        self.wall = Wall()
        self.agent = Agent(self.config, {"wall": self.wall})
        self._running = asyncio.create_task(self.agent.run())
        await until(lambda: self.wall.desk is not None)
        return self.wall

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
            self._running = None

    @property
    def is_hearing(self) -> bool:
        assert self.agent is not None
        return self.agent._link.is_hearing

    async def wait_linked(self) -> None:
        """Until the gateway hears, and the list of devices is here."""
        assert self.agent is not None
        agent = self.agent
        await until(lambda: self.is_hearing and agent.directory.get("sos-1") is not None)

    async def wait_settled(self) -> None:
        """Until everything has its receipt."""
        assert self.agent is not None
        keeper = self.agent._keeper
        async with asyncio.timeout(30):
            while any([await keeper.call(keeper.spool.depth, lane) for lane in Lane]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


class AgentProcess:
    """The agent as it is in life: a process of its own, with a webhook as its bus."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._folder = folder
        self._url = f"http://127.0.0.1:{(port := free_port())}"
        self._token = secrets.token_hex(16)
        self._process: Process | None = None
        self._starts = 0
        folder.mkdir()
        (folder / "token").write_text(self._token)
        clock = stage.settings
        (folder / "agent.toml").write_text(
            f"""\
community = "{COMMUNITY.id}"
source = "agent-1"
data = "{folder / "data"}"
profiles = "{ROOT / "device_profiles"}"
rules = "{ROOT / "rules"}"

[link]
url = "{stage.broker.url}"

[spool]
pack_s = 0.2

[clock]
speed = {clock.get("SCG_CLOCK__SPEED", 1)}
anchor_real = {clock.get("SCG_CLOCK__ANCHOR_REAL", 0)}
anchor = {clock.get("SCG_CLOCK__ANCHOR", 0)}

[[bus]]
driver = "http"
bus = "wall"
port = {port}
token_file = "{folder / "token"}"
"""
        )

    async def start(self) -> None:
        """Until it listens, and has its list of devices."""
        self._starts += 1
        log = self._folder / f"agent-{self._starts}.log"
        self._process = Process.module("edge", "--config", str(self._folder / "agent.toml"), log=log)
        await asyncio.to_thread(self._process.wait_for_line, '"event": "ready"')
        await asyncio.to_thread(self._process.wait_for_line, "[1-9][0-9]* devices")

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()

    def close(self) -> None:
        if self._process is not None:
            self._process.close()

    async def post(self, device: str, **fields: object) -> None:
        """What a device says; it is on the disk when this returns."""
        headers = {"Authorization": f"Bearer {self._token}"}
        async with httpx.AsyncClient(base_url=self._url, headers=headers, trust_env=False) as client:
            answer = await client.post(f"/{device}", json=fields)
        assert answer.status_code == 202, answer.text


async def until(is_so: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Until something is so."""
    async with asyncio.timeout(timeout_s):
        while not is_so():  # noqa: ASYNC110 - what it waits for has no event of its own
            await asyncio.sleep(0.02)
