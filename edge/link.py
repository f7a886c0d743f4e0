"""The agent's link to the gateway: what lies in the spool goes up until the gateway's receipt, and commands come down.

**Nothing leaves the spool before its receipt.** At most so many messages of a lane are without one at a time; what
stays without is sent again (alarms after 2 s, telemetry after 30 s, longer each time), and all at once when a gateway
begins to listen. Telemetry waits while no gateway listens, and drains at a limited rate. An alarm that is taken while a
backlog of alarms drains is sent at once, ahead of its turn.

**What a listening gateway passes over** 20 times, while it receipts newer ones, is put aside and reported, so that it
holds up nothing; it is sent again after each connect, each beginning of a gateway and every ten minutes. It keeps its
number as long as that is possible: a gateway remembers so many numbers above a gap, and then closes the gap as lost.
Before it comes to that, nothing new is sent until the gap is filled; a message that was put aside gives up its number,
and gets a new one when the gateway says that it never had it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import aiomqtt
from msgspec import Struct

from edge.config import AgentConfig
from edge.ending import end
from edge.keeper import Keeper
from edge.spool import SpoolDown, Stored
from gateway.errors import GatewayError
from gateway.runtime.faults import pass_point
from gateway.wire import (
    GATEWAY_STATUS,
    CommandMessage,
    Lane,
    Quarantine,
    Receipt,
    Reply,
    Status,
    decode_command,
    decode_gateway_status,
    decode_receipt,
    encode_message,
    encode_reply,
    encode_status,
    topic_of,
)

log = logging.getLogger(__name__)

WITHOUT_RECEIPT: Final = {Lane.ALARM: 32, Lane.TELEMETRY: 8}
"""Messages of a lane that may be without a receipt at a time (design 4.1)."""

AHEAD: Final = 8
"""How many of them are kept free for alarms that are taken while older ones drain."""

RESEND_S: Final = {Lane.ALARM: 2.0, Lane.TELEMETRY: 30.0}
RESEND_MOST_S: Final = 60.0
PARK_AFTER: Final = 20
"""Sends after which a message is put aside: those of this connection that a gateway could hear and that came after the
receipt of a newer message (design 4.1)."""

TRY_AGAIN_S: Final = 600.0
"""What was put aside is sent again after so long."""

ABOVE_MOST: Final = 128
"""So many messages may be receipted above the oldest one without a receipt: then nothing goes ahead of its turn, and
what fills the gap is sent again without back-off. With all that may be under way it stays well below the 256 at which
a gateway closes the gap."""

DEAF_AFTER_S: Final = 6.0
"""An alarm that is without a receipt for so long, after it was sent again, means that nobody hears, whatever the link
says: then the agent judges by itself."""

PAUSE_MOST_S: Final = 10.0


class _Sent(Struct):
    """``passed_over`` counts the sends that a gateway could hear, after the receipt of a newer message."""

    stored: Stored
    first: float
    last: float
    tries: int = 1
    passed_over: int = 0


class _LaneSender:
    """What of a lane is under way, and what was put aside."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.under_way: dict[int, _Sent] = {}
        self.aside: set[int] = set()
        """Numbers that are passed over when the backlog is sent."""
        self.next_after = 0
        """The backlog is sent up to this number."""
        self.newest_receipted = 0
        """In this connection, and since the gateway began."""
        self.above = 0
        """How many messages the gateway has above the first that it has not, as its last receipt told."""
        self.asks = False
        """Whether the gateway is to be asked for what has given up its number."""
        self.tried_at = time.monotonic()

    @property
    def is_crowded(self) -> bool:
        """Whether a gap must be filled before the gateway closes it."""
        return self.above >= ABOVE_MOST

    def reset(self) -> None:
        """After a new connection, a gateway that began, or a renewed spool: all is sent again, from the oldest."""
        self.under_way.clear()
        self.newest_receipted = 0
        self.try_again()
        self.next_after = 0

    def try_again(self) -> None:
        """What was put aside is sent in its turn again."""
        self.next_after = min([self.next_after, *(seq - 1 for seq in self.aside)])
        self.aside.clear()
        self.asks = True
        self.tried_at = time.monotonic()


class Link:
    """`run` stays connected until cancelled. ``clock`` is the agent's, in ms; latencies and pauses are in real time."""

    def __init__(
        self,
        config: AgentConfig,
        keeper: Keeper,
        clock: Callable[[], int],
        describe: Callable[[], Awaitable[Status]],
        on_settled: Callable[[tuple[Stored, ...]], Awaitable[None]],
        on_command: Callable[[CommandMessage], None],
        on_config: Callable[[bytes], None],
        on_hearing: Callable[[bool], None],
    ) -> None:
        self._config = config
        self._keeper = keeper
        self._clock = clock
        self._describe = describe
        self._on_settled = on_settled
        self._on_command = on_command
        self._on_config = on_config
        self._on_hearing = on_hearing
        self._endpoint = urlsplit(config.link.url)
        self._password = _read_password(config)
        self._tls = _make_tls(config)
        self._lanes = {lane: _LaneSender(lane) for lane in Lane}
        self._ahead: list[int] = []
        self._wake = asyncio.Event()
        self._publishing: set[asyncio.Task[bool]] = set()
        self._client: aiomqtt.Client | None = None
        self._has_gateway = False
        self._gateway: str | None = None
        """Which one listens, by its connection's id: empty for none, None before we heard of any."""
        self._was_hearing: bool | None = None
        self._connections = 0
        self._allowance = 1.0
        self._allowed_at = time.monotonic()
        self.offset: int | None = None
        """The gateway's clock less the agent's, in ms, as the last receipt told it."""
        self.resent = 0

    # --- what others tell and ask ------------------------------------------------------------------------------------

    def wake(self, alarms: tuple[int, ...] = ()) -> None:
        """Something was taken in; ``alarms`` are the numbers of alarms among it."""
        self._ahead += alarms
        self._wake.set()

    @property
    def is_hearing(self) -> bool:
        """Whether the gateway hears us, as far as we can tell."""
        if self._client is None or not self._has_gateway:
            return False
        now = time.monotonic()
        alarms = self._lanes[Lane.ALARM].under_way.values()
        return not any(sent.tries > 1 and now - sent.first > DEAF_AFTER_S for sent in alarms)

    def count_aside(self, lane: Lane) -> int:
        """How many messages of a lane were put aside and still have their number."""
        return len(self._lanes[lane].aside)

    def to_gateway_time(self, at: int) -> int:
        """A time of the agent's clock by the gateway's."""
        return at + (self.offset or 0)

    async def publish_reply(self, reply: Reply) -> bool:
        """Tells a command's outcome. Whether the broker has it."""
        return await self._publish("reply", encode_reply(reply))

    async def publish_status(self) -> bool:
        """Tells the agent's state, retained."""
        return await self._publish("status", encode_status(await self._describe()), retain=True)

    @property
    def connection(self) -> str:
        """The id of this connection: a last will counts for its own alone."""
        return f"{self._keeper.spool.id}-{self._connections}"

    # --- the connection ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connects, again and again."""
        pause = 0.5
        sender = asyncio.create_task(self._send_forever())
        try:
            while True:
                # New with each start too, so that a will of the run before counts for nothing.
                self._connections = time.time_ns() // 1_000_000
                try:
                    async with self._make_client() as client:
                        await self._serve(client)
                    pause = 0.5
                except (aiomqtt.MqttError, OSError, ValueError) as error:
                    log.warning("no link to %s: %s", self._endpoint.netloc, error)
                finally:
                    pause = 0.5 if self._client is not None else pause
                    self._client = None
                    self._has_gateway = False
                    self._tell_hearing()
                await asyncio.sleep(pause)
                pause = min(PAUSE_MOST_S, pause * 2)
        finally:
            await end([sender])

    def _make_client(self) -> aiomqtt.Client:
        config = self._config
        will = Status(online=False, connection=self.connection)
        client = aiomqtt.Client(
            self._endpoint.hostname or "127.0.0.1",
            self._endpoint.port or (8883 if self._endpoint.scheme == "mqtts" else 1883),
            username=config.source if self._password is not None else None,
            password=self._password,
            identifier=config.source,
            # The broker keeps commands for us while we are away; each has its own end.
            clean_session=False,
            will=aiomqtt.Will(self._topic("status"), encode_status(will), qos=1, retain=True),
            keepalive=config.link.keepalive_s,
            timeout=10,
            max_concurrent_outgoing_calls=sum(WITHOUT_RECEIPT.values()) * 2,
            tls_context=self._tls,
        )
        client.pending_calls_threshold = sum(WITHOUT_RECEIPT.values()) * 2
        return client

    async def _serve(self, client: aiomqtt.Client) -> None:
        for leaf in ("receipt", "command", "config"):
            await client.subscribe(self._topic(leaf), qos=1)
        await client.subscribe(GATEWAY_STATUS, qos=1)
        birth = encode_status(await self._describe())
        await client.publish(self._topic("status"), birth, qos=1, retain=True)
        for lane in self._lanes.values():
            lane.reset()
        self._client = client
        self._gateway = None
        self._wake.set()
        log.info("linked to %s as %s", self._endpoint.netloc, self.connection)
        async for message in client.messages:
            payload = bytes(message.payload or b"")
            match message.topic.value.rsplit("/", 1)[-1]:
                case "receipt":
                    await self._settle(payload)
                case "command":
                    self._take_command(payload)
                case "config":
                    self._on_config(payload)
                case _:
                    self._meet(payload)
            self._tell_hearing()

    def _meet(self, payload: bytes) -> None:
        """A gateway has said whether it listens. What was sent before one began may have come to nobody."""
        status = decode_gateway_status(payload)
        before = self._gateway
        self._gateway = status.connection if isinstance(status, Status) and status.online else ""
        self._has_gateway = bool(self._gateway)
        if self._has_gateway and before is not None and before != self._gateway:
            for lane in self._lanes.values():
                lane.reset()
        self._wake.set()

    def _take_command(self, payload: bytes) -> None:
        command = decode_command(payload)
        if isinstance(command, Quarantine):
            log.error("a command is not legible: %s", command.detail)
        else:
            self._on_command(command)

    async def _settle(self, payload: bytes) -> None:
        receipt = decode_receipt(payload)
        if not isinstance(receipt, Receipt) or receipt.spool != self._keeper.spool.id:
            return
        if receipt.clock is not None:
            self.offset = receipt.clock - self._clock()
        pass_point("before-settling")
        try:
            settled = await self._keeper.call(self._keeper.spool.settle, receipt)
        except SpoolDown as error:
            log.error("a receipt cannot be noted, its messages will be sent again: %s", error)
            return
        lane = self._lanes[Lane(receipt.lane)]
        lane.above = len(receipt.above)
        for stored in (*settled.committed, *(stored for stored, _ in settled.rejected)):
            lane.under_way.pop(stored.seq, None)
            lane.aside.discard(stored.seq)
            lane.newest_receipted = max(lane.newest_receipted, stored.seq)
        for stored, reason in settled.rejected:
            log.error("the gateway rejected message %d of %s: %s", stored.seq, stored.lane, reason)
        if settled.renewed:
            for one in self._lanes.values():
                one.reset()
                one.above = 0
        self._wake.set()
        if settled.committed:
            await self._on_settled(settled.committed)

    # --- sending -----------------------------------------------------------------------------------------------------

    async def _send_forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(0.25):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            self._tell_hearing()
            if self._client is None:
                self._ahead.clear()
                continue
            try:
                await self._send_due()
            except SpoolDown as error:
                log.error("the spool cannot be read: %s", error)
                await asyncio.sleep(1)

    async def _send_due(self) -> None:
        ahead, self._ahead = self._ahead, []
        alarm = self._lanes[Lane.ALARM]
        for seq in ahead:
            has_room = len(alarm.under_way) < WITHOUT_RECEIPT[Lane.ALARM] and not alarm.is_crowded
            if seq not in alarm.under_way and has_room:
                await self._send_next(alarm, seq - 1, 1)
        for lane in self._lanes.values():
            if time.monotonic() - lane.tried_at > TRY_AGAIN_S:
                lane.try_again()
            if lane.asks and lane.newest_receipted:
                await self._ask(lane)
            await self._resend(lane)
            if lane.is_crowded:
                await self._make_way(lane)
            most = WITHOUT_RECEIPT[lane.lane]
            if lane.lane is Lane.ALARM:
                most -= AHEAD
            elif not self._has_gateway:
                continue
            else:
                most = min(most, len(lane.under_way) + self._take_allowance())
            # The oldest one always has room: it is the one that fills the gap.
            most = min(most, max(1, ABOVE_MOST + most - lane.above))
            if len(lane.under_way) < most:
                await self._send_next(lane, lane.next_after, most - len(lane.under_way), is_turn=True)

    async def _send_next(self, lane: _LaneSender, after: int, limit: int, *, is_turn: bool = False) -> None:
        """Sends the next messages of a lane; ``is_turn``: those whose turn it is."""
        spool = self._keeper.spool
        found = await self._keeper.call(spool.waiting, lane.lane, after, limit)
        if is_turn and lane.next_after != after:
            return  # All begins anew, from the oldest.
        if is_turn and found:
            lane.next_after = found[-1].seq
            if lane.lane is Lane.TELEMETRY:
                self._allowance -= len(found)
            if len(found) == limit:
                self._wake.set()
        now = time.monotonic()
        # Noted before anything else is awaited, so that a receipt that comes meanwhile finds them.
        fresh = [
            _Sent(stored, now, now)
            for stored in found
            if stored.seq not in lane.under_way and stored.seq not in lane.aside
        ]
        if not fresh:
            return
        lane.under_way |= {sent.stored.seq: sent for sent in fresh}
        await self._keeper.call(spool.note_sent, lane.lane, [sent.stored.seq for sent in fresh])
        floor = await self._keeper.call(spool.floor, lane.lane)
        pass_point("mid-drain")
        for sent in fresh:
            if lane.under_way.get(sent.stored.seq) is sent:
                self._send(sent.stored, floor)

    async def _resend(self, lane: _LaneSender) -> None:
        now = time.monotonic()
        first_s = RESEND_S[lane.lane]
        most_s = first_s if lane.is_crowded else RESEND_MOST_S
        due = [
            sent
            for sent in lane.under_way.values()
            if now - sent.last > min(most_s, first_s * 2 ** min(sent.tries - 1, 10))
        ]
        if not due:
            return
        floor = await self._keeper.call(self._keeper.spool.floor, lane.lane)
        await self._keeper.call(self._keeper.spool.note_sent, lane.lane, [sent.stored.seq for sent in due])
        for sent in due:
            seq = sent.stored.seq
            if lane.under_way.get(seq) is not sent:
                continue  # It has its receipt by now.
            if sent.passed_over >= PARK_AFTER:
                lane.under_way.pop(seq, None)
                lane.aside.add(seq)
                log.error(
                    "message %d of %s was passed over %d times; it is put aside for a while",
                    seq,
                    lane.lane,
                    sent.passed_over,
                )
                continue
            sent.passed_over += self._has_gateway and lane.newest_receipted > seq
            sent.tries += 1
            sent.last = now
            self.resent += 1
            self._send(sent.stored, floor)

    async def _make_way(self, lane: _LaneSender) -> None:
        """When the gap begins with a message that was put aside, it gives up its number."""
        lowest = await self._keeper.call(self._keeper.spool.floor, lane.lane)
        if lowest not in lane.aside:
            return
        await self._keeper.call(self._keeper.spool.park, lane.lane, lowest)
        log.error("message %d of %s gives up its number, %d newer ones are receipted", lowest, lane.lane, lane.above)
        lane.aside.discard(lowest)
        # The next receipt tells it anew.
        lane.above = 0

    async def _ask(self, lane: _LaneSender) -> None:
        """Sends once what has given up its number: the receipt says whether the gateway ever had it."""
        lane.asks = False
        found = await self._keeper.call(self._keeper.spool.parked, lane.lane)
        await self._keeper.call(self._keeper.spool.note_sent, lane.lane, [stored.seq for stored in found])
        floor = await self._keeper.call(self._keeper.spool.floor, lane.lane)
        for stored in found:
            self._send(stored, floor)

    def _send(self, stored: Stored, floor: int) -> None:
        """Hands a message to the broker, and does not wait for its word: that means little, the receipt counts."""
        config = self._config
        # Only the difference to ``taken_at`` counts, so a clock that is set in between must not be in it.
        lain_ms = self._keeper.spool.lain(stored)
        sent_at = max(self._clock(), stored.taken_at)
        if lain_ms is not None:
            sent_at = stored.taken_at + round(lain_ms * config.clock.speed)
        message = stored.stamp(config.community, config.source, sent_at, floor)
        task = asyncio.ensure_future(self._publish(stored.lane, encode_message(message)))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _publish(self, leaf: str, payload: bytes, *, retain: bool = False) -> bool:
        client = self._client
        if client is None:
            return False
        try:
            await client.publish(self._topic(leaf), payload, qos=1, retain=retain)
        except (aiomqtt.MqttError, TimeoutError, ValueError) as error:
            log.debug("not published to %s: %s", leaf, error)
            return False
        return True

    def _take_allowance(self) -> int:
        """How many messages of telemetry may go now: a bucket that fills at the drain's rate."""
        now = time.monotonic()
        rate = self._config.link.drain_per_s
        self._allowance = min(max(1.0, rate), self._allowance + (now - self._allowed_at) * rate)
        self._allowed_at = now
        return math.floor(self._allowance)

    def _tell_hearing(self) -> None:
        is_hearing = self.is_hearing
        if is_hearing is not self._was_hearing:
            self._was_hearing = is_hearing
            self._on_hearing(is_hearing)

    def _topic(self, leaf: str) -> str:
        return topic_of(self._config.community, self._config.source, leaf)


def _read_password(config: AgentConfig) -> str | None:
    file = config.link.password_file
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayError("password-unreadable", str(error), str(file), "give a readable file") from error


def _make_tls(config: AgentConfig) -> ssl.SSLContext | None:
    if not config.link.url.startswith("mqtts:"):
        return None
    file = config.link.ca_file
    try:
        return ssl.create_default_context(cafile=str(file) if file is not None else None)
    except OSError as error:
        raise GatewayError("ca-unreadable", str(error), str(file), "give a readable PEM file") from error
