"""A control room in which a few days have passed: incidents of all levels, most of them dealt with, some late, some
open; for pictures, and for tests that want to see full pages.

The district's names are the simulators'; devices are few, and all report. Time is the hand clock's, so that it takes
seconds, and the same seed makes the same days.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

from msgspec.structs import replace

from gateway.core.model import Device, Incident, OperatorAction, Press, Role, Scalar, Silence, SilenceChange
from gateway.core.moves import FINAL
from gateway.runtime.registrar import CommunityFile, DistrictFile
from gateway.wire import Lane, Measurement, Message, Signal, encode_message, topic_of
from simulators.district import District, Settlement, generate
from tests.web.control_room import ControlRoom

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
KEPT: Final = {"fixed-sos": 2, "nb-smoke": 4, "manhole-cover": 2, "water-immersion": 2}
"""Of each community. All of them report three times a day, and are offline after a day of silence."""

CALM: Final[dict[str, dict[str, float | bool]]] = {
    "fixed-sos": {"battery": 88.0},
    "nb-smoke": {"smoke": False, "battery": 91.0},
    "manhole-cover": {"tilt": 1.5, "water_level": 0.2, "battery": 90.0},
    "water-immersion": {"wet": False, "battery": 97.0},
}
CAUSES: Final = (("fixed-sos", 5), ("nb-smoke", 3), ("manhole-cover", 4), ("water-immersion", 5), ("lift", 6))
"""What goes off, and how often among so many."""

STEPS: Final = (
    ("accept", 1, 6, ""),
    ("dispatch", 1, 8, ""),
    ("arrive", 4, 25, ""),
    ("resolve", 8, 90, "已到场处置，隐患排除"),
    ("verify", 10, 120, ""),
    ("close", 2, 30, "核查属实，结案"),
)
"""What people do, from and to how many minutes after the step before."""

MISTAKEN: Final = ("false_alarm", 5, 30, "现场查看，做饭油烟")
"""Sometimes nothing was the matter."""

PEOPLE: Final = ("li", "wang")

Act = Callable[[], Awaitable[None]]


def make_district(seed: int, communities: int) -> DistrictFile:
    """A district as the simulators make it, of fewer devices."""
    made: District = generate(seed, communities, 60)
    return DistrictFile(made.grids, tuple(_thin(number, one) for number, one in enumerate(made.communities)), {})


def _thin(number: int, settlement: Settlement) -> CommunityFile:
    left = dict(KEPT)
    # A lift reports all the time: here it is silent, so every fourth community has a device that is sick.
    left |= {"lift": 1} if number % 4 == 0 else {}
    devices: list[Device] = []
    for device in settlement.devices:
        if device.profile == "edge-agent":
            devices.append(device)
        elif left.get(device.profile, 0):
            left[device.profile] -= 1
            devices.append(device)
    return CommunityFile(settlement.community, settlement.places, settlement.sources, tuple(devices))


class Days:
    """What happens, in the order of its times. ``room`` holds the district of `make_district`."""

    def __init__(self, room: ControlRoom, district: DistrictFile, seed: int) -> None:
        self._room = room
        self._district = district
        self._random = Random(seed)
        self._order = count()
        self._queue: list[tuple[int, int, Act]] = []
        self._seqs: dict[str, int] = {}

    @property
    def communities(self) -> list[str]:
        """Their ids, the one with the most incidents first."""
        return [file.community.id for file in self._district.communities]

    def list_names(self) -> set[str]:
        """Of grids, communities, places and devices, and whatever people say."""
        names = {grid.name for grid in self._district.grids} | {reason for *_, reason in (*STEPS, MISTAKEN) if reason}
        for file in self._district.communities:
            names |= {file.community.name} | {one.name for one in file.places} | {one.name for one in file.devices}
        return names

    async def live_through(self, days: int, causes: int, *, hour: int = 10) -> None:
        """So many days with so many causes; they end in the morning at ``hour``. Raises AssertionError when nothing
        came of them."""
        clock = self._room.world.clock
        begins = clock()
        ends = begins + days * DAY - (20 - hour) * HOUR
        for file in self._district.communities:
            for at in range(begins + MINUTE, ends, 8 * HOUR):
                self._plan(at, partial(self._report, file))
        kinds = [kind for kind, times in CAUSES for _ in range(times)]
        for number in range(causes):
            # Half of them in the last day: a day that is looked at is a full one.
            since = begins if number % 2 else max(begins, ends - DAY)
            at = self._random.randrange(since + 2 * MINUTE, ends - 3 * MINUTE)
            kind, is_done = self._random.choice(kinds), number % 5 != 0
            self._plan(at, partial(self._break, kind, is_done))
        while self._queue:
            at, _, act = heapq.heappop(self._queue)
            if at >= ends:
                continue
            await self._wait_until(at)
            await act()
        await self._wait_until(ends)
        await self._room.caught_up()
        assert self._room.world.incidents()

    async def _wait_until(self, at: int) -> None:
        world = self._room.world
        while world.clock() < at:
            world.clock.advance(min(4 * HOUR, at - world.clock()))
            await world.settle()

    def _plan(self, at: int, act: Act) -> None:
        heapq.heappush(self._queue, (at, next(self._order), act))

    # --- devices --------------------------------------------------------------------------------------------------

    async def _report(self, file: CommunityFile) -> None:
        """All devices say that nothing is the matter."""
        readings = {
            f"{device.id}:{name}": value
            for device in file.devices
            for name, value in CALM.get(device.profile, {}).items()
        }
        self.say(file, readings, Lane.TELEMETRY)
        await self._room.world.settle()

    async def _break(self, kind: str, is_done: bool) -> None:
        """Something goes off; the people get to it, and if it ``is_done`` they finish."""
        having = [file for file in self._district.communities if any(one.profile == kind for one in file.devices)]
        # The first ones have more of it: a map on which all is alike tells nothing.
        file = having[min(int(self._random.expovariate(2.5 / len(having))), len(having) - 1)]
        device = self._random.choice([one for one in file.devices if one.profile == kind])
        world, known = self._room.world, {one.id for one in self._room.world.incidents()}
        signals: list[tuple[str, str, dict[str, Scalar]]] = []
        readings: dict[str, float | bool] = {}
        match kind:
            case "fixed-sos":
                signals = [(device.id, "pressed", {})]
            case "lift":
                signals = [(device.id, "ebike_seen", {"score": 0.93})]
            case "nb-smoke":
                readings = {f"{device.id}:smoke": True}
            case "manhole-cover":
                readings = {f"{device.id}:tilt": 38.0}
            case _:
                readings = {f"{device.id}:wet": True}
        self.say(file, readings, Lane.ALARM, signals)
        await world.settle()
        await self._wait_until(world.clock() + 40_000)
        fresh = [one for one in world.incidents() if one.id not in known and one.community == file.community.id]
        for incident in fresh:
            self._handle(incident, is_done)
        if kind in CALM:
            calm = {f"{device.id}:{name}": value for name, value in CALM[kind].items()}
            self._plan(world.clock() + 20 * MINUTE, partial(self._calm, file, calm))

    async def _calm(self, file: CommunityFile, readings: dict[str, float | bool]) -> None:
        self.say(file, readings, Lane.ALARM)
        await self._room.world.settle()

    def say(
        self,
        file: CommunityFile,
        readings: dict[str, float | bool],
        lane: Lane,
        signals: list[tuple[str, str, dict[str, Scalar]]] | None = None,
    ) -> None:
        """A message of the community's source reaches the broker."""
        source, community = file.sources[0].id, file.community.id
        now = self._room.world.clock()
        seq = self._seqs[f"{source}/{lane}"] = self._seqs.get(f"{source}/{lane}", 0) + 1
        spoken = tuple(Signal(*one) for one in signals or ())
        measured = [Measurement(name, value) for name, value in readings.items()]
        message = Message(community, source, lane, "spool1", seq, 1, now, now, spoken, measured, (), 0)
        self._room.world.inbox.send(topic_of(community, source, lane), encode_message(message))

    # --- people ---------------------------------------------------------------------------------------------------

    def _handle(self, incident: Incident, is_done: bool) -> None:
        at = self._room.world.clock()
        who = self._random.choice(PEOPLE)
        steps = STEPS if is_done else STEPS[: self._random.randrange(len(STEPS) - 1)]
        if is_done and self._random.random() < 0.12:
            steps = (*STEPS[:2], MISTAKEN)
        for verb, least, most, reason in steps:
            at += self._random.randrange(least * MINUTE, most * MINUTE)
            self._plan(at, partial(self._act, incident.id, verb, who, reason))

    async def _act(self, id: str, verb: str, who: str, reason: str) -> None:
        room = self._room
        incident = room.ledger.incident(id)
        if incident is None or incident.state in FINAL:
            return
        event = f"act/{id}/{verb}/{incident.revision}"
        action = OperatorAction(event, who, id, verb, reason, Role.DISPATCHER, incident.chain[0])
        await room.world.pipeline.submit(incident.community, action, event)

    async def fall_ill(self, number: int) -> None:
        """Some devices of a community are not well, each in its own way."""
        file = self._district.communities[number]
        smokes = [one.id for one in file.devices if one.profile == "nb-smoke"]
        button = next(one.id for one in file.devices if one.profile == "fixed-sos")
        self.say(
            file, {f"{smokes[0]}:fault": True, f"{smokes[1]}:battery": 9.0, f"{button}:battery": 240.0}, Lane.ALARM
        )
        await self._wait_until(self._room.world.clock() + 3 * MINUTE)

    async def silence(self, number: int, reason: str, hours: int) -> None:
        """A maintenance window of the first device of a community."""
        file = self._district.communities[number]
        now = self._room.world.clock()
        device = next(one for one in file.devices if one.profile != "edge-agent")
        silence = Silence(f"window-{number}", now + hours * HOUR, reason, "li", now, device.id, kind="maintenance")
        change = SilenceChange(f"window-{number}", "li", silence)
        await self._room.world.pipeline.submit(file.community.id, change, f"silence/window-{number}")

    async def call(self, number: int, need: str) -> str:
        """A resident calls from a help page of a community's first building. Returns the page's address."""
        file = self._district.communities[number]
        place = next(one.id for one in file.places if one.kind == "building")
        address = await self._room.issue_page(file.community.id, place)
        device = next(one.id for one in self._room.ledger.devices(file.community.id) if one.profile == "resident-page")
        press = Press(f"page/{number:032x}", device, data={"need": need})
        await self._room.world.pipeline.submit(file.community.id, press, press.id)
        await self._room.world.settle()
        await self._room.caught_up()
        return address


def open_lively(folder: Path, seed: int, communities: int) -> tuple[ControlRoom, Days]:
    """A control room to enter, and the days to live through then."""
    district = make_district(seed, communities)
    room = ControlRoom(folder, replace(district))
    room.ledger.put_district(district.grids, [], [])
    return room, Days(room, district, seed)
