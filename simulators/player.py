"""Plays the fleet and the scenarios over MQTT, each source as a real one would: spooled, in lanes, until receipted.

A source keeps what it sent until the gateway's receipt and sends again what stays without one (design 4.1); it puts
nothing aside, so that what a gateway passes over is seen, because the playing never ends. The simulated clock runs
``speed`` times as fast as real time; resends and latencies are in real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import json
import math
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final
from urllib.parse import urlsplit

import aiomqtt
from msgspec import Struct
from msgspec.structs import replace

from gateway.wire import (
    GATEWAY_STATUS,
    CommandMessage,
    Lane,
    Measurement,
    Message,
    Receipt,
    Reply,
    Signal,
    Status,
    decode_command,
    decode_gateway_status,
    decode_receipt,
    encode_message,
    encode_reply,
    encode_status,
    topic_of,
)
from simulators.catalog import alarm_readings
from simulators.district import District, Settlement
from simulators.fleet import streams_of
from simulators.habits import Stream
from simulators.scenario import Instance
from simulators.scenario_file import Sending

WITHOUT_RECEIPT: Final = {Lane.ALARM: 32, Lane.TELEMETRY: 8}
"""Messages of a source's lane that may be under way (design 4.1)."""

OUTGOING: Final = 200
"""Publishes of a source that may wait for the broker at a time: both lanes, and what is sent again."""

RESEND_S: Final = {Lane.ALARM: 2.0, Lane.TELEMETRY: 30.0}
RESEND_MOST_S: Final = 60.0
ABOVE_MOST: Final = 128
"""So many messages may be receipted above one that is not: then nothing new is sent until it is, because a gateway
closes a gap below 256 as lost."""

PACK_MS: Final = 30_000
"""Telemetry is packed for so long, in simulated time."""

PACK_MOST: Final = 200
STEP_S: Final = 0.02
"""How often, in real seconds, the sources look at their clocks."""

RESEND_STEP_S: Final = 0.25
"""How often they look for what has waited for too long."""

OFFSETS: Final = (0, 0, 0, 0, 0, 40, -900, 2_000, 25_000, -3_600_000, -7 * 365 * 86_400_000)
"""How far sources' clocks are off (ms), each drawn alike: mostly not at all, one in eleven by years, as after a start
without a network. The gateway judges none of it (design 4.1)."""


class PlayClock(Struct, frozen=True):
    """The simulated clock: ``anchor`` ms at real time ``anchor_real`` ms, ``speed`` times as fast."""

    speed: float
    anchor_real: int
    anchor: int

    def now(self) -> int:
        """The simulated time in ms."""
        return self.anchor + round((time.time_ns() // 1_000_000 - self.anchor_real) * self.speed)


class Tally(Struct):
    """What the players did so far. ``latencies`` are real seconds from an alarm's publishing to its receipt."""

    readings: int = 0
    messages: int = 0
    alarms: int = 0
    resent: int = 0
    rejected: int = 0
    commands: int = 0
    latencies: list[float] = []


class _Sent(Struct):
    message: Message
    first: float
    last: float
    tries: int = 1


class SpoolLane:
    """One lane of a source: a backlog, and what is under way without a receipt."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.seq = 0
        self.backlog: deque[Message] = deque()
        self.under_way: OrderedDict[int, _Sent] = OrderedDict()
        self.above = 0
        """How many messages the gateway has above a gap, as its last receipt told."""

    @property
    def has_room(self) -> bool:
        """Whether one more message may be under way."""
        is_gap_small = self.above < ABOVE_MOST or not self.under_way
        return is_gap_small and len(self.under_way) < WITHOUT_RECEIPT[self.lane]

    def begin_anew(self) -> None:
        """What is under way is sent again at once, and then as if for the first time."""
        for sent in self.under_way.values():
            sent.last, sent.tries = -math.inf, 1

    @property
    def floor(self) -> int:
        """The lowest seq that the source still holds."""
        if self.under_way:
            return next(iter(self.under_way))
        return self.backlog[0].seq if self.backlog else self.seq

    @property
    def depth(self) -> int:
        return len(self.backlog) + len(self.under_way)


class Source:
    """One simulated edge agent: its streams, its part of the scenarios, its spool and its connection.

    ``offset`` (ms) is how far its own clock is ahead of the simulated one."""

    def __init__(
        self,
        settlement: Settlement,
        streams: Iterable[Stream],
        clock: PlayClock,
        tally: Tally,
        spool: str,
        offset: int = 0,
    ) -> None:
        self.community = settlement.community.id
        self.id = settlement.sources[0].id
        self._clock = clock
        self._tally = tally
        self._spool = spool
        self._offset = offset
        self._profiles = {device.id: device.profile for device in settlement.devices}
        self._streams = list(streams)
        self._due: list[tuple[int, int]] = []
        self._next_pack = 0
        self._sendings: deque[Sending] = deque()
        self._acted: dict[str, tuple[int, int]] = {}
        self.lanes = {lane: SpoolLane(lane) for lane in Lane}
        self._connections = 0
        self._client: aiomqtt.Client | None = None
        self._gateway = ""
        """Which gateway listens, by its connection's id; empty for none."""
        self.connected = asyncio.Event()
        self.trouble = ""
        self._publishing: set[asyncio.Task[None]] = set()

    # --- taking readings in ----------------------------------------------------------------------------------------

    def cast(self, instances: Iterable[Instance]) -> None:
        """Takes its part of the scenarios. What a scenario acts, its device reports as the scenario says and not as on
        an ordinary day."""
        played = list(instances)
        self._sendings = deque(sorted((s for i in played for s in i.sendings), key=lambda s: s.time + s.late))
        self._acted = {name: (instance.begins, instance.ends) for instance in played for name in instance.acted}

    def begin(self, now: int) -> None:
        """The playing begins: every stream is due at its next time, and the source packs at a moment of its own, or
        all would send at once."""
        self._due = [(stream.first_after(now), index) for index, stream in enumerate(self._streams)]
        heapq.heapify(self._due)
        self._next_pack = now + zlib.crc32(self.id.encode()) % PACK_MS

    def step(self, now: int, *, is_playing: bool = True) -> None:
        """Takes in what is due up to ``now`` (simulated ms)."""
        while self._sendings and self._sendings[0].time + self._sendings[0].late <= now:
            self.take(self._sendings.popleft())
        if is_playing and now >= self._next_pack:
            self._next_pack += PACK_MS * (1 + (now - self._next_pack) // PACK_MS)
            self._pack(now)

    def take(self, sending: Sending) -> Message:
        """Takes one thing in at once; returns the message that goes into the spool."""
        if sending.event is not None:
            signals = (Signal(sending.device, sending.event, sending.data),)
            message = self._append(Lane.ALARM, sending.time, signals, [])
        else:
            first = sending.parts[0]
            is_alarm = first.reading in alarm_readings(self._profiles.get(first.device, ""))
            measured = [Measurement(f"{p.device}:{p.reading}", p.value, p.unit, p.offset) for p in sending.parts]
            message = self._append(Lane.ALARM if is_alarm else Lane.TELEMETRY, sending.time, (), measured)
        if sending.twice:
            # As after a receipt that was lost.
            asyncio.get_running_loop().call_later(0.2, self._publish, message)
        return message

    def _pack(self, now: int) -> None:
        by_lane: dict[bool, list[Measurement]] = {False: [], True: []}
        due, streams, acted = self._due, self._streams, self._acted
        while due and due[0][0] <= now:
            time, index = due[0]
            stream = streams[index]
            heapq.heapreplace(due, (time + stream.period, index))
            span = acted.get(stream.name)
            if span is not None and span[0] <= time <= span[1]:
                continue
            by_lane[stream.is_alarm].append(Measurement(stream.name, stream.value(time), None, time - now))
        for is_alarm, measured in by_lane.items():
            waiting = iter(measured)
            while part := list(islice(waiting, PACK_MOST)):
                self._append(Lane.ALARM if is_alarm else Lane.TELEMETRY, now, (), part)

    def _append(self, lane: Lane, taken: int, signals: tuple[Signal, ...], measured: list[Measurement]) -> Message:
        spool = self.lanes[lane]
        spool.seq += 1
        at = taken + self._offset
        message = Message(self.community, self.id, lane, self._spool, spool.seq, 1, at, at, signals, measured, (), 0)
        spool.backlog.append(message)
        self._tally.readings += len(measured)
        self._tally.messages += 1
        self._tally.alarms += lane is Lane.ALARM
        return message

    # --- sending -----------------------------------------------------------------------------------------------------

    async def run(self, url: str, password: str | None) -> None:
        """Stays connected until cancelled; reconnects after a pause. Without a password it names no user."""
        address = urlsplit(url)
        while True:
            self._connections += 1
            connection = f"{self._spool}-{self._connections}"
            will = aiomqtt.Will(
                topic_of(self.community, self.id, "status"),
                encode_status(Status(online=False, connection=connection)),
                qos=1,
                retain=True,
            )
            try:
                async with aiomqtt.Client(
                    address.hostname or "127.0.0.1",
                    address.port or 1883,
                    username=self.id if password is not None else None,
                    password=password,
                    identifier=self.id,
                    clean_session=True,
                    will=will,
                    timeout=30,
                    max_concurrent_outgoing_calls=OUTGOING,
                ) as client:
                    # More than the client's own limit may be under way by design, which is no reason for a warning.
                    client.pending_calls_threshold = OUTGOING
                    await self._serve(client, connection)
            except aiomqtt.MqttError as error:
                self.trouble = str(error)
                self._client = None
                self.connected.clear()
                await asyncio.sleep(0.5)

    async def _serve(self, client: aiomqtt.Client, connection: str) -> None:
        for leaf in ("receipt", "command"):
            await client.subscribe(topic_of(self.community, self.id, leaf), qos=1)
        await client.subscribe(GATEWAY_STATUS, qos=1)
        birth = Status(online=True, connection=connection, version="simulator", depth=self.depth, clock=self._now())
        await client.publish(topic_of(self.community, self.id, "status"), encode_status(birth), qos=1, retain=True)
        # What the lost connection carried is not waited for.
        for lane in self.lanes.values():
            lane.begin_anew()
        self._client = client
        self.connected.set()
        async for message in client.messages:
            payload = bytes(message.payload or b"")
            topic = message.topic.value
            if topic == GATEWAY_STATUS:
                self._meet(payload)
            elif topic.endswith("/receipt"):
                self._settle(payload)
            elif topic.endswith("/command"):
                await self._obey(client, payload)

    def _meet(self, payload: bytes) -> None:
        """A gateway has said whether it listens. What was sent before one began may have come to nobody."""
        status = decode_gateway_status(payload)
        before = self._gateway
        self._gateway = status.connection if isinstance(status, Status) and status.online else ""
        if self._gateway not in ("", before):
            for lane in self.lanes.values():
                lane.begin_anew()

    def _now(self) -> int:
        return self._clock.now() + self._offset

    def _settle(self, payload: bytes) -> None:
        receipt = decode_receipt(payload)
        if not isinstance(receipt, Receipt) or receipt.spool != self._spool:
            return
        lane = Lane(receipt.lane)
        rejected = {seq for seq, _ in receipt.rejected}
        self._tally.rejected += len(rejected)
        spool, above = self.lanes[lane], set(receipt.above) | rejected
        spool.above = len(receipt.above)
        now = time.perf_counter()
        for seq in [seq for seq in spool.under_way if seq <= receipt.seq or seq in above]:
            sent = spool.under_way.pop(seq)
            if lane is Lane.ALARM:
                self._tally.latencies.append(now - sent.first)
        self.send()

    async def _obey(self, client: aiomqtt.Client, payload: bytes) -> None:
        command = decode_command(payload)
        if isinstance(command, CommandMessage):
            self._tally.commands += 1
            reply = encode_reply(Reply(command.id, command.device, "done", command.name))
            await client.publish(topic_of(self.community, self.id, "reply"), reply, qos=1)

    def send(self) -> None:
        """Sends what may be under way, alarms first, and again what stays without a receipt."""
        if self._client is None:
            return
        now = time.perf_counter()
        for lane, spool in self.lanes.items():
            if lane is Lane.TELEMETRY and not self._gateway:
                continue
            while spool.backlog and spool.has_room:
                message = spool.backlog.popleft()
                spool.under_way[message.seq] = _Sent(message, now, now)
                self._publish(message)

    def resend(self) -> None:
        """Sends again what has waited for its receipt for too long."""
        now = time.perf_counter()
        for lane, spool in self.lanes.items():
            most_s = RESEND_MOST_S if spool.above < ABOVE_MOST else RESEND_S[lane]
            for sent in spool.under_way.values():
                if now - sent.last > min(most_s, RESEND_S[lane] * 2 ** min(sent.tries - 1, 10)):
                    sent.last = now
                    sent.tries += 1
                    self._tally.resent += 1
                    self._publish(sent.message)

    def _publish(self, message: Message) -> None:
        client = self._client
        if client is None:
            return
        stamped = replace(message, sent_at=max(self._now(), message.taken_at), floor=self._floor(message))
        topic = topic_of(self.community, self.id, message.lane)
        task = asyncio.ensure_future(_publish(client, topic, encode_message(stamped)))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    def _floor(self, message: Message) -> int:
        return min(self.lanes[message.lane].floor, message.seq)

    @property
    def depth(self) -> int:
        """Messages that wait or have no receipt yet."""
        return sum(lane.depth for lane in self.lanes.values())

    @property
    def has_sendings(self) -> bool:
        """Whether scenarios still have something to send."""
        return bool(self._sendings)


async def _publish(client: aiomqtt.Client, topic: str, payload: bytes) -> None:
    with contextlib.suppress(aiomqtt.MqttError):
        await client.publish(topic, payload, qos=1, timeout=30)


MakeSource = Callable[[Settlement, Iterable[Stream], PlayClock, Tally], Source]


class Player:
    """All sources of a district in one process."""

    def __init__(
        self,
        district: District,
        clock: PlayClock,
        seed: int,
        run: str = "run",
        others: Mapping[str, MakeSource] | None = None,
    ) -> None:
        """``others``: communities that have a source of another kind."""
        self.tally = Tally()
        self._clock = clock
        self._next_resend = 0.0
        self.others = dict(others or {})
        self.sources: list[Source] = []
        for settlement in district.communities:
            streams = streams_of(settlement, district.silent, seed)
            make = self.others.get(settlement.community.id)
            if make is not None:
                self.sources.append(make(settlement, streams, clock, self.tally))
                continue
            id = settlement.sources[0].id
            offset = OFFSETS[zlib.crc32(f"{seed}/{id}/clock".encode()) % len(OFFSETS)]
            self.sources.append(Source(settlement, streams, clock, self.tally, f"{run}-{id}", offset))

    async def connect(
        self, url: str, passwords: Mapping[str, str], own: Mapping[str, tuple[str, str]] | None = None
    ) -> list[asyncio.Task[None]]:
        """Connects every source; returns their tasks, which run until they are cancelled. ``own``: the address and the
        password of sources that go elsewhere."""
        tasks = []
        for index, source in enumerate(self.sources):
            to, password = (own or {}).get(source.id, (url, passwords[source.id]))
            tasks.append(asyncio.create_task(source.run(to, password)))
            if index % 20 == 19:
                await asyncio.sleep(0.02)
        return tasks

    def cast(self, instances: Iterable[Instance]) -> None:
        """Gives the sources what they have to play next."""
        by_source = _by_source(instances)
        for source in self.sources:
            source.cast(by_source.get(source.id, ()))

    async def play(self, until: int, on_step: Callable[[int], None] = lambda now: None) -> None:
        """Plays up to the simulated time ``until``."""
        begins = self._clock.now()
        for source in self.sources:
            source.begin(begins)
        # What was built so far lives as long as the player: the collector need not walk it, and pause, again and again.
        gc.collect()
        gc.freeze()
        while (now := self._clock.now()) < until:
            self._step(now, is_playing=True)
            on_step(now)
            await asyncio.sleep(STEP_S)

    async def drain(self, timeout_s: float, on_step: Callable[[int], None] = lambda now: None) -> bool:
        """Waits until everything has its receipt. Whether it has."""
        deadline = time.perf_counter() + timeout_s
        while time.perf_counter() < deadline:
            now = self._clock.now()
            self._step(now, is_playing=False)
            on_step(now)
            if self.waiting == 0:
                return True
            await asyncio.sleep(STEP_S)
        return False

    def _step(self, now: int, *, is_playing: bool) -> None:
        real = time.perf_counter()
        is_time = real >= self._next_resend
        if is_time:
            self._next_resend = real + RESEND_STEP_S
        for source in self.sources:
            source.step(now, is_playing=is_playing)
            source.send()
            if is_time:
                source.resend()

    async def wait_until_connected(self) -> None:
        """Returns when every source has its connection."""
        for source in self.sources:
            await source.connected.wait()

    @property
    def waiting(self) -> int:
        """Messages without a receipt, over all sources."""
        return sum(source.depth for source in self.sources)


def events_of(district: District, instances: Iterable[Instance]) -> Iterator[tuple[int, Message]]:
    """The scenarios' messages in order of their arrival, for feeding an engine without a broker: (ms, message)."""
    clock = PlayClock(1.0, 0, 0)
    by_source = _by_source(instances)
    found: list[tuple[int, Message]] = []
    for settlement in district.communities:
        played = by_source.get(settlement.sources[0].id)
        if not played:
            continue
        source = Source(settlement, (), clock, Tally(), "feed")
        for sending in sorted((s for i in played for s in i.sendings), key=lambda s: s.time + s.late):
            arrival = sending.time + sending.late
            message = source.take(replace(sending, twice=False))
            found.extend([(arrival, replace(message, sent_at=arrival))] * (1 + sending.twice))
    yield from sorted(found, key=lambda pair: (pair[0], pair[1].source, pair[1].seq))


def _by_source(instances: Iterable[Instance]) -> dict[str, list[Instance]]:
    found: dict[str, list[Instance]] = {}
    for instance in instances:
        found.setdefault(instance.source, []).append(instance)
    return found


def read_passwords(text: str) -> dict[str, str]:
    """The sources' passwords as the gateway's ``register`` wrote them."""
    return dict(json.loads(text))
