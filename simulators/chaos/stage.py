"""Everything that a run starts: broker, gateway, platform, an agent for each community, and the lines between them."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from simulators.chaos.disk import Disk
from simulators.chaos.presser import Presser
from simulators.chaos.programs import (
    ROOT,
    Broker,
    Program,
    ProgramFailed,
    free_port,
    make_agent,
    make_gateway,
    make_platform,
    run_to_end,
)
from simulators.chaos.proxy import Proxy
from simulators.chaos.world import BUS, build_quarter, write_district

SPEED: Final = 4
"""All clocks run so many times as fast: after a fault, no deadline fires for a minute of theirs."""

_AGENT: Final = """\
community = "{community}"
source = "{source}"
data = "{data}"
profiles = "{root}/device_profiles"
rules = "{root}/rules"
status_s = 20

[link]
url = "mqtt://127.0.0.1:{link}"
keepalive_s = 5

[spool]
max_mb = 8
alarm_reserve_mb = 1
pack_s = 1

[clock]
speed = {speed}
anchor_real = {anchor}
anchor = {anchor}

[[bus]]
driver = "http"
bus = "{bus}"
port = {door}
token_file = "{token}"
"""


class Stage:
    """The parts of a run below ``folder``. ``library`` is the one that disks need; without it they cannot be hurt."""

    def __init__(self, folder: Path, communities: int, seed: int, library: Path | None) -> None:
        self.folder = folder
        self.library = library
        self.quarters = [build_quarter(serial) for serial in range(1, communities + 1)]
        broker_port, self.platform_port = free_port(), free_port()
        self.broker = Broker(folder, broker_port)
        self.platform, self.store, key = make_platform(folder, self.platform_port)
        self.gateway_link = Proxy(free_port(), broker_port, Random(f"{seed}/gateway"), is_mqtt=True)
        self.platform_link = Proxy(free_port(), self.platform_port, Random(f"{seed}/platform"), is_mqtt=False)
        self.agent_links = [
            Proxy(free_port(), broker_port, Random(f"{seed}/{quarter.source}"), is_mqtt=True)
            for quarter in self.quarters
        ]
        anchor = time.time_ns() // 1_000_000
        self.settings = {
            "SCG_DATA": str(folder / "gateway"),
            "SCG_PROFILES": str(ROOT / "device_profiles"),
            "SCG_RULES": str(ROOT / "rules"),
            "SCG_BROKER__URL": f"mqtt://127.0.0.1:{self.gateway_link.port}",
            "SCG_PLATFORM__URL": f"http://127.0.0.1:{self.platform_link.port}/events",
            "SCG_PLATFORM__KEY_FILE": str(key),
            "SCG_CLOCK__SPEED": str(SPEED),
            "SCG_CLOCK__ANCHOR_REAL": str(anchor),
            "SCG_CLOCK__ANCHOR": str(anchor),
        }
        disk = Disk(folder / "gateway", library)
        self.gateway = make_gateway(disk, folder / "gateway.log", self.settings)
        self.agents: list[Program] = []
        self.pressers: list[Presser] = []
        token = secrets.token_hex(16)
        (folder / "token").touch(0o600)
        (folder / "token").write_text(token)
        for quarter, link in zip(self.quarters, self.agent_links, strict=True):
            door, config, data = free_port(), folder / f"{quarter.source}.toml", folder / quarter.source
            text = _AGENT.format(
                community=quarter.id,
                source=quarter.source,
                data=data,
                root=ROOT,
                link=link.port,
                bus=BUS,
                door=door,
                token=folder / "token",
                speed=SPEED,
                anchor=anchor,
            )
            config.write_text(text, encoding="utf-8")
            log = folder / f"{quarter.source}.log"
            self.agents.append(make_agent(quarter.source, config, log, Disk(data, library)))
            self.pressers.append(Presser(quarter, door, token, Random(f"{seed}/{quarter.id}")))

    @property
    def links(self) -> list[Proxy]:
        """All lines."""
        return [self.gateway_link, self.platform_link, *self.agent_links]

    @property
    def programs(self) -> list[Program]:
        """All programs, in the order in which they are started."""
        return [self.broker, self.platform, self.gateway, *self.agents]

    async def start(self) -> None:
        """Registers the communities and starts everything. Raises ProgramFailed."""
        district = self.folder / "district.json"
        write_district(self.quarters, district)
        assert self.gateway.disk is not None  # noqa: S101 - made with one
        arguments = ["-m", "gateway", "register", str(district), "--credentials", str(self.folder / "passwords.json")]
        await run_to_end(arguments, self.settings | self.gateway.disk.environment)
        for link in self.links:
            await link.start()
        await asyncio.gather(self.broker.start(), self.platform.start())
        await self.gateway.start()
        await asyncio.gather(*(agent.start() for agent in self.agents))

    async def stop(self) -> None:
        """Ends everything in good order, whoever speaks first."""
        await asyncio.gather(*(agent.stop() for agent in self.agents))
        for program in (self.gateway, self.platform, self.broker):
            await program.stop()
        for link in self.links:
            await link.stop()

    async def list_cases(self) -> list[dict[str, Any]]:
        """Incidents and notices in the gateway's ledger. Raises ProgramFailed when it cannot be read."""
        told = await run_to_end(["-m", "gateway", "incidents", "--limit", "1000000"], self.settings)
        return [msgspec.json.decode(line) for line in told.splitlines()]

    async def count_waiting(self) -> int:
        """Messages that still lie in spools, as the agents told last. Raises ProgramFailed."""
        told = await run_to_end(["-m", "gateway", "sources"], self.settings)
        return sum(msgspec.json.decode(line)["status"].get("depth", 0) for line in told.splitlines())

    def falls(self) -> list[str]:
        """Which programs ended without having been asked to."""
        return [fall for program in self.programs for fall in program.falls]


__all__ = ["ProgramFailed", "Stage"]
