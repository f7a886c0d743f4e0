"""Communities of the demo that run through real edge agents: processes of ``python -m edge``, to which the simulated
devices post as a panel would, by the agent's webhook.

An agent stamps what it hears with its own clock, so that at sixty times the speed a post that takes 50 ms comes three
simulated seconds late. What must come at its second (a puff of smoke of some seconds) is played elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from msgspec.structs import replace

from gateway.core.profile import ReadingSpec
from gateway.wire import Lane, Measurement, Message, Signal
from simulators.catalog import read_catalog
from simulators.district import District, Settlement
from simulators.habits import Stream
from simulators.player import PlayClock, Source, Tally
from simulators.processes import ROOT, Programs
from simulators.scenario import Instance

BUS: Final = "panel"
UNHURRIED_MS: Final = 60_000
"""Between two values of a reading, for a scenario that may come some seconds late."""

POST_S: Final = 10.0
PAUSE_S: Final = 0.2


def give_addresses(district: District, agents: Sequence[str]) -> District:
    """The district with the devices of these communities on their agents' bus."""
    chosen = set(agents)
    communities = tuple(
        replace(
            settlement,
            devices=tuple(replace(device, address=f"{BUS}/{device.id}") for device in settlement.devices),
        )
        if settlement.community.id in chosen
        else settlement
        for settlement in district.communities
    )
    return replace(district, communities=communities)


def is_unhurried(instance: Instance) -> bool:
    """Whether an instance stays what it is when each thing is heard some seconds late: nothing of it is sent late,
    twice or in a unit of its own, and no reading changes back soon."""
    last: dict[str, tuple[int, object]] = {}
    for sending in instance.sendings:
        if sending.late or sending.twice:
            return False
        for part in sending.parts:
            name = f"{part.device}:{part.reading}"
            at, value = last.get(name, (sending.time, part.value))
            if part.unit is not None or (value != part.value and sending.time - at < UNHURRIED_MS):
                return False
            last[name] = (sending.time, part.value)
    return True


class AgentSource(Source):
    """The devices of one community, which post to their agent; what it has not taken is posted again."""

    def __init__(self, settlement: Settlement, streams: Iterable[Stream], clock: PlayClock, tally: Tally) -> None:
        super().__init__(settlement, streams, clock, tally, "agent")
        self._queue: list[dict[str, Any]] = []
        self._wake = asyncio.Event()
        self._posting = 0

    def _append(self, lane: Lane, taken: int, signals: tuple[Signal, ...], measured: list[Measurement]) -> Message:
        posts: dict[str, dict[str, Any]] = {}
        for one in measured:
            device, _, reading = one.name.rpartition(":")
            if self._profiles[device] == "edge-agent":
                continue  # the agent tells that itself
            spec = read_catalog().profiles[self._profiles[device]].readings.get(reading)
            post = posts.setdefault(device, {"address": device})
            if spec is None:
                post[reading] = one.value  # A device says what its profile does not have: the agent leaves it out.
            else:
                post[spec.raw] = _to_raw(spec, one.value)
        for signal in signals:
            post = {"address": signal.device, "event": signal.kind, "data": signal.data}
            self._queue.append(post)
        self._queue += posts.values()
        self._tally.readings += len(measured)
        self._tally.messages += 1
        self._tally.alarms += lane is Lane.ALARM
        self._wake.set()
        return Message(self.community, self.id, lane, "agent", 1, 1, taken, taken, signals, measured, (), 0)

    async def run(self, url: str, password: str | None) -> None:
        """Posts to the agent at ``url``, with its token as the password, until cancelled."""
        headers = {"Authorization": f"Bearer {password}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=POST_S, trust_env=False) as client:
            await self._wait_for_devices(client)
            self.connected.set()
            while True:
                await self._wake.wait()
                self._wake.clear()
                batch, self._queue = self._queue[:500], self._queue[500:]
                self._posting = len(batch)
                if batch and not await self._post(client, batch):
                    self._queue[:0] = batch
                    await asyncio.sleep(PAUSE_S)
                self._posting = 0
                if self._queue:
                    self._wake.set()

    async def _post(self, client: httpx.AsyncClient, batch: list[dict[str, Any]]) -> bool:
        try:
            answer = await client.post("/", json=batch)
        except httpx.HTTPError as error:
            self.trouble = str(error)
            return False
        self.trouble = "" if answer.status_code == 202 else answer.text[:200]
        return answer.status_code == 202

    async def _wait_for_devices(self, client: httpx.AsyncClient) -> None:
        """Until the agent listens, and has its list of devices from the gateway: then it knows an address, and says of
        an empty message that there is nothing in it."""
        address = next(device for device, profile in self._profiles.items() if profile != "edge-agent")
        while True:
            with contextlib.suppress(httpx.HTTPError):
                answer = await client.post("/", json=[{"address": address}])
                if "nothing in it" in answer.text:
                    return
                self.trouble = answer.text[:200]
            await asyncio.sleep(PAUSE_S)

    def send(self) -> None:
        """Everything goes by posts."""

    def resend(self) -> None:
        """What the agent has taken is the agent's to send again."""

    @property
    def depth(self) -> int:
        """What the agent has not taken."""
        return len(self._queue) + self._posting


async def start_agents(
    programs: Programs, agents: Sequence[Settlement], broker: str, passwords: Mapping[str, str], clock: PlayClock
) -> dict[str, tuple[str, str]]:
    """Starts an agent for each community; its webhook's address and token, by source."""
    found: dict[str, tuple[str, str]] = {}
    for settlement in agents:
        source = settlement.sources[0].id
        folder = programs.folder / source
        folder.mkdir()
        token, port = secrets.token_hex(16), programs.free_port()
        (folder / "token").write_text(token)
        (folder / "password").write_text(passwords[source])
        config = folder / "agent.toml"
        config.write_text(_configure(settlement, folder, broker, port, clock))
        await programs.start_agent(source, config)
        found[source] = f"http://127.0.0.1:{port}", token
    return found


def _configure(settlement: Settlement, folder: Path, broker: str, port: int, clock: PlayClock) -> str:
    return f"""\
community = "{settlement.community.id}"
source = "{settlement.sources[0].id}"
data = "{folder / "data"}"
profiles = "{ROOT / "device_profiles"}"
rules = "{ROOT / "rules"}"

[link]
url = "{broker}"
password_file = "{folder / "password"}"
drain_per_s = 100

[spool]
pack_s = 0.5

[clock]
speed = {clock.speed}
anchor_real = {clock.anchor_real}
anchor = {clock.anchor}

[[bus]]
driver = "http"
bus = "{BUS}"
port = {port}
token_file = "{folder / "token"}"
"""


def _to_raw(spec: ReadingSpec, value: float | bool | str) -> float | bool | str:
    """The value as the device itself writes it: in its own unit."""
    if spec.raw_unit is None or spec.raw_unit == spec.unit or isinstance(value, bool | str):
        return value
    scale, offset = spec.units[spec.raw_unit]
    return round((value - offset) / scale, 9)
