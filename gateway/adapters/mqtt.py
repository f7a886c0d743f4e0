"""The MQTT inbox: two persistent sessions at a broker, read by one event loop without threads."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct
from paho.mqtt.enums import MQTTProtocolVersion

from gateway.adapters.mqtt_connection import (
    VERSIONS,
    BrokerSettings,
    ConnectFailed,
    Connection,
    Endpoint,
    SessionPlan,
    Will,
    open_socket,
    read_endpoint,
)
from gateway.adapters.mqtt_packets import Received, write_pubacks, write_publish
from gateway.runtime.ports import Arrived, Clock, Outgoing
from gateway.wire import GATEWAY_STATUS, Status, encode_status, topic_of

__all__ = ["BrokerSettings", "InboxCounters", "MqttInbox"]

log = logging.getLogger(__name__)

PLANS: Final = (
    SessionPlan(0, "alarm", (topic_of("+", "+", "alarm"),), 500),
    SessionPlan(1, "telemetry", tuple(topic_of("+", "+", leaf) for leaf in ("telemetry", "status", "reply")), 2_000),
)
"""Two sessions, because one would let unacknowledged telemetry stand before a press."""

WAITING_BYTES: Final = 64 * 1024 * 1024
"""A session is not read while so much of it waits in memory."""

IN_FLIGHT: Final = 1_000
"""Our messages that the broker has not confirmed yet; MQTT 5 brokers may ask for fewer."""

QUEUE_MOST: Final = 10_000
"""Our messages that wait for their turn; beyond, `publish` gives them back."""

RETRY_FIRST_S: Final = 0.2
RETRY_MOST_S: Final = 15.0
STEADY_S: Final = 10.0
"""A connection that lasted so long was a good one: after it, the pauses begin small again."""

_FIRST_MID: Final = 1_024
"""Packet ids from here on are ours; those below stay with paho, which counts its few subscriptions from 1."""

_NO_REFUSALS: Final = frozenset({0x00, 0x10})
"""Reason codes of a PUBACK that say nothing bad: success, and nobody subscribes."""


class InboxCounters(Struct):
    """What went through since the start. ``stale``: acknowledgements dropped because their connection was gone;
    ``not_taken``: given back by `MqttInbox.publish`; ``refused``: declined by the broker; ``cut_short``: messages
    beyond the longest that is taken whole."""

    received: int = 0
    acknowledged: int = 0
    stale: int = 0
    published: int = 0
    confirmed: int = 0
    not_taken: int = 0
    refused: int = 0
    cut_short: int = 0
    connections: int = 0


class MqttInbox:
    """Implements `gateway.runtime.ports.Inbox` at a broker that speaks MQTT 5 or 3.1.1.

    Everything happens in the event loop that calls `start`, and nothing blocks it. While there is no link, retained
    messages are kept (the newest of each topic is a state, and is published on every new connection), and all others
    are given back by `publish`.
    """

    def __init__(self, settings: BrokerSettings, clock: Clock) -> None:
        """Raises GatewayError when the settings cannot be used."""
        self._settings = settings
        self._arrival = asyncio.Event()
        self._came_up = asyncio.Event()
        self._listeners: list[Callable[[bool], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._clock = clock
        self._is_up = False
        self._is_stopping = False
        self._down_since: float | None = None
        self._said = ""
        self.counters = InboxCounters()
        self._outbound = _Outbound(self.counters)
        endpoint = read_endpoint(settings)
        self._sessions = tuple(
            _Session(settings, endpoint, plan, clock, self.counters, self._take_in, self._session_changed)
            for plan in PLANS
        )

    # --- life ------------------------------------------------------------------------------------------------

    def on_link(self, callback: Callable[[bool], None]) -> None:
        """``callback(False)`` when the gateway cannot hear any more, ``callback(True)`` when it can again."""
        self._listeners.append(callback)

    async def start(self, wait_s: float = 5.0) -> None:
        """Begins to connect, and waits at most ``wait_s`` seconds for both sessions. A broker that is not there yet is
        no error: the link counts as lost until it is, and connecting goes on."""
        for session in self._sessions:
            task = asyncio.create_task(session.run(), name=f"mqtt-{session.plan.name}")
            task.add_done_callback(_report_end)
            self._tasks.append(task)
        try:
            async with asyncio.timeout(wait_s):
                await self._came_up.wait()
        except TimeoutError:
            self._down_since = asyncio.get_running_loop().time()
            self._tell(is_up=False)

    async def stop(self) -> None:
        """Says that no gateway listens any more, waits a moment for what is on its way out, and takes leave. Messages
        that were not acknowledged stay with the broker."""
        self._is_stopping = True
        if self._outbound.is_open:
            self._outbound.put([self._status_message(is_online=False)])
            await self._outbound.drain(2.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(session.leave() for session in self._sessions))
        self._outbound.closed()
        self._is_up = False

    def is_connected(self) -> bool:
        """Whether both sessions are connected and subscribed."""
        return self._is_up

    # --- in --------------------------------------------------------------------------------------------------

    def take(self, limit: int) -> list[Arrived]:
        """What is waiting: all of the alarm lane, then at most ``limit`` of the telemetry lane."""
        alarm, telemetry = self._sessions
        taken = alarm.take(len(alarm.waiting)) + telemetry.take(limit)
        if not (alarm.waiting or telemetry.waiting):
            self._arrival.clear()
        return taken

    async def wait(self, timeout_s: float | None) -> None:
        """Returns when something is waiting, or after ``timeout_s`` seconds."""
        if self._arrival.is_set():
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._arrival.wait()
        except TimeoutError:
            return

    def acknowledge(self, arrived: Sequence[Arrived]) -> None:
        """Acknowledges to the broker, in the order given and in one write per session. What was delivered on a
        connection that is gone is dropped: its packet id may by now stand for another message."""
        acknowledged = 0
        for index, session in enumerate(self._sessions):
            generation = session.generation
            mids = [one.mid for one in arrived if one.session == index and one.generation == generation and one.mid]
            if mids and session.acknowledge(mids):
                acknowledged += len(mids)
        self.counters.acknowledged += acknowledged
        self.counters.stale += sum(1 for one in arrived if one.mid) - acknowledged

    # --- out -------------------------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Outgoing]) -> Sequence[Outgoing]:
        """Sends at QoS 1, without waiting. Returns the messages that were not taken (no link, or too many on their
        way): they are still the caller's. Retained ones are always taken."""
        return self._outbound.put(messages)

    async def publish_confirmed(self, messages: Sequence[Outgoing], timeout_s: float = 10.0) -> Sequence[Outgoing]:
        """As `publish`, but returns when the broker has confirmed them all, or after ``timeout_s`` seconds. Returns
        those not confirmed; they may still arrive, so whoever sends them again needs an idempotency key."""
        return await self._outbound.put_confirmed(messages, timeout_s)

    # --- what the sessions report ----------------------------------------------------------------------------

    def _take_in(self, received: Received) -> None:
        for mid, reason in received.confirmed:
            self._outbound.confirm(mid, reason)
        if received.arrived:
            self.counters.received += len(received.arrived)
            self._arrival.set()
        for cut in received.cut:
            self.counters.cut_short += 1
            log.error("a message of %d bytes on %s is too long and was cut short", cut.length, cut.topic[:100])

    def _session_changed(self, session: _Session, problem: str) -> None:
        """A session was connected (``problem`` is empty), lost, or not reached."""
        if self._is_stopping:
            return
        if session.plan.index == 0:
            if session.connection is not None and session.is_open:
                self._outbound.opened(session.connection)
            else:
                self._outbound.closed()
        was_up, self._is_up = self._is_up, all(one.is_open for one in self._sessions)
        if self._is_up != was_up:
            self._link_changed(problem)
        elif problem and problem != self._said:
            # Still down, for a new reason: that is worth a line, the same one again is not.
            self._said = problem
            log.warning("no link to the broker at %s: %s; trying again", self._settings.url, problem)

    def _link_changed(self, problem: str) -> None:
        now = asyncio.get_running_loop().time()
        self._said = problem
        if not self._is_up:
            self._down_since = now
            log.warning("link to the broker at %s lost: %s; trying again", self._settings.url, problem)
            self._tell(is_up=False)
        elif self._down_since is None:
            log.info("connected to the broker at %s", self._settings.url)
        else:
            log.warning("link to the broker is back after %.1f s", now - self._down_since)
            self._down_since = None
            self._tell(is_up=True)
        if self._is_up:
            self._came_up.set()
        # With one session gone the gateway does not hear everything, which for the sources is the same as nothing.
        self._outbound.put([self._status_message(is_online=self._is_up)])

    def _tell(self, *, is_up: bool) -> None:
        for listener in self._listeners:
            listener(is_up)

    def _status_message(self, *, is_online: bool) -> Outgoing:
        status = Status(is_online, self._sessions[0].connection_id, clock=self._clock())
        return Outgoing(GATEWAY_STATUS, encode_status(status), retain=True)


class _Session:
    """One persistent session: connects again and again, and holds what arrived until it is taken."""

    def __init__(
        self,
        settings: BrokerSettings,
        endpoint: Endpoint,
        plan: SessionPlan,
        clock: Clock,
        counters: InboxCounters,
        take_in: Callable[[Received], None],
        changed: Callable[[_Session, str], None],
    ) -> None:
        self.plan = plan
        self.generation = 0
        self.waiting: list[Arrived] = []
        self.connection: Connection | None = None
        self.connection_id = ""
        self.is_open = False
        self._waiting_bytes = 0
        self._versions = list(VERSIONS[settings.version])
        self._settings = settings
        self._endpoint = endpoint
        self._clock = clock
        self._counters = counters
        self._take_in = take_in
        self._changed = changed

    async def run(self) -> None:
        """Keeps a connection until cancelled."""
        loop = asyncio.get_running_loop()
        pause = RETRY_FIRST_S
        while True:
            try:
                connection = await self._connect()
            except ConnectFailed as failure:
                self._changed(self, str(failure))
            else:
                began = loop.time()
                self.is_open = True
                self._counters.connections += 1
                self._changed(self, "")
                why = await connection.serve()
                self.connection, self.is_open = None, False
                self._changed(self, why)
                if loop.time() - began >= STEADY_S:
                    pause = RETRY_FIRST_S
            # Half of it is chance, so that the two sessions, and several gateways, do not knock in step.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(RETRY_MOST_S, pause * 2)

    async def leave(self) -> None:
        """Takes leave of the broker, which keeps the session."""
        if self.connection is not None:
            await self.connection.leave()
        self.connection, self.is_open = None, False

    async def _connect(self) -> Connection:
        """A connection that is subscribed, in the version that was right the last time if that still is. Raises
        ConnectFailed."""
        try:
            return await self._connect_as(self._versions[0])
        except ConnectFailed as failure:
            if not failure.other_version or len(self._versions) == 1:
                raise
        connection = await self._connect_as(self._versions[1])
        self._versions.reverse()
        return connection

    async def _connect_as(self, version: MQTTProtocolVersion) -> Connection:
        sock = await open_socket(self._endpoint)
        self.generation += 1
        self.connection_id = uuid.uuid4().hex[:12]
        will = None
        if self.plan.index == 0:
            will = Will(GATEWAY_STATUS, encode_status(Status(online=False, connection=self.connection_id)))
        connection = Connection(
            sock, self._settings, self.plan, self.generation, version, will, self._clock, self._receive
        )
        # From here on messages may come: a broker that knows the session does not wait for us to subscribe.
        self.connection = connection
        try:
            await connection.open(self._endpoint)
        except BaseException:
            self.connection = None
            connection.close()
            raise
        return connection

    def _receive(self, received: Received) -> None:
        self.waiting += received.arrived
        self._waiting_bytes += received.size
        self._take_in(received)
        if self.connection is not None and not self._has_room(1):
            # MQTT 5 brokers stop by themselves, through Receive Maximum; 3.1.1 has no such thing, and bytes are counted
            # by neither, so the socket is left alone until there is room.
            self.connection.pause()

    def take(self, limit: int) -> list[Arrived]:
        """The first ``limit`` of what waits."""
        if limit >= len(self.waiting):
            taken, self.waiting, self._waiting_bytes = self.waiting, [], 0
        else:
            taken = self.waiting[:limit]
            del self.waiting[:limit]
            self._waiting_bytes -= sum(len(one.payload) for one in taken)
        if self.connection is not None and self._has_room(2):
            self.connection.resume()
        return taken

    def _has_room(self, share: int) -> bool:
        """Whether less waits than one ``share``-th of the most."""
        return len(self.waiting) * share < self.plan.receive_maximum and self._waiting_bytes * share < WAITING_BYTES

    def acknowledge(self, mids: Sequence[int]) -> bool:
        """Sends one PUBACK each. False when there is no connection to send them on."""
        if self.connection is None:
            return False
        self.connection.write(write_pubacks(mids))
        return True


class _Outbound:
    """Our own messages, on the alarm session: at QoS 1, a bounded number on their way, across connections."""

    def __init__(self, counters: InboxCounters) -> None:
        self._counters = counters
        self._connection: Connection | None = None
        self._window = IN_FLIGHT
        self._queue: deque[Outgoing] = deque()
        self._unconfirmed: dict[int, Outgoing] = {}
        self._states: dict[str, Outgoing] = {}
        self._watched: dict[int, asyncio.Future[bool]] = {}
        self._next_mid = _FIRST_MID
        self._idle = asyncio.Event()
        self._refusals: Counter[int] = Counter()

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def opened(self, connection: Connection) -> None:
        """A new connection: first what was on its way or waited, then all states."""
        self._connection = connection
        self._window = min(IN_FLIGHT, connection.server_window)
        # A broker keeps no record of what it did not confirm at QoS 1, so it goes as a new message.
        waited = [message for message in (*self._unconfirmed.values(), *self._queue) if not message.retain]
        self._unconfirmed.clear()
        # A broker that was killed may have forgotten retained messages too, so all of them go again.
        self._queue = deque((*waited, *self._states.values()))
        self._pump()

    def closed(self) -> None:
        """The connection is gone."""
        self._connection = None

    def put(self, messages: Sequence[Outgoing]) -> list[Outgoing]:
        """Returns those that were not taken."""
        refused: list[Outgoing] = []
        for message in messages:
            if message.retain:
                self._states[message.topic] = message
                if self._connection is not None:
                    self._queue.append(message)
            elif self._connection is None or len(self._queue) >= QUEUE_MOST:
                refused.append(message)
            else:
                self._queue.append(message)
        self._counters.not_taken += len(refused)
        self._pump()
        return refused

    async def put_confirmed(self, messages: Sequence[Outgoing], timeout_s: float) -> list[Outgoing]:
        """Returns those that the broker did not confirm in time."""
        loop = asyncio.get_running_loop()
        watched = {id(message): loop.create_future() for message in messages}
        self._watched |= watched
        try:
            not_taken = {id(message) for message in self.put(messages)}
            pending = [future for key, future in watched.items() if key not in not_taken]
            if pending:
                await asyncio.wait(pending, timeout=timeout_s)
        finally:
            for key in watched:
                self._watched.pop(key, None)
        return [one for one in messages if not (watched[id(one)].done() and watched[id(one)].result())]

    async def drain(self, timeout_s: float) -> None:
        """Waits until the broker has confirmed everything, at most ``timeout_s`` seconds."""
        if not (self._queue or self._unconfirmed):
            return
        self._idle.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d messages were not confirmed by the broker", len(self._queue) + len(self._unconfirmed))

    def confirm(self, mid: int, reason: int) -> None:
        """The broker has answered one of ours. ``reason`` is 0 under MQTT 3.1.1, which cannot refuse."""
        message = self._unconfirmed.pop(mid, None)
        if message is None:
            return
        is_accepted = reason in _NO_REFUSALS
        if is_accepted:
            self._counters.confirmed += 1
        else:
            self._counters.refused += 1
            self._refusals[reason] += 1
            if self._refusals[reason] == 1:
                log.error("the broker refuses %s (reason %#x); more of this kind are counted", message.topic, reason)
        watcher = self._watched.get(id(message))
        if watcher is not None and not watcher.done():
            watcher.set_result(is_accepted)
        if self._queue:
            self._pump()
        elif not self._unconfirmed:
            self._idle.set()

    def _pump(self) -> None:
        """Sends as many as may be on their way, in one write."""
        connection, queue, unconfirmed = self._connection, self._queue, self._unconfirmed
        if connection is None:
            return
        packets = bytearray()
        while queue and len(unconfirmed) < self._window:
            message = queue.popleft()
            mid = self._new_mid()
            packet = write_publish(message, mid, is_v5=connection.is_v5)
            if len(packet) > connection.server_longest:
                self._counters.refused += 1
                log.error("%s: %d bytes are more than the broker takes; not sent", message.topic, len(packet))
                continue
            unconfirmed[mid] = message
            packets += packet
            self._counters.published += 1
        if packets:
            connection.write(packets)

    def _new_mid(self) -> int:
        mid = self._next_mid
        while mid in self._unconfirmed:
            mid = _FIRST_MID if mid == 65_535 else mid + 1
        self._next_mid = _FIRST_MID if mid == 65_535 else mid + 1
        return mid


def _report_end(task: asyncio.Task[None]) -> None:
    """A session goes on for ever; should a fault of ours end it, that must not go unseen."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.critical("%s has ended: nothing is received any more", task.get_name(), exc_info=fault)
