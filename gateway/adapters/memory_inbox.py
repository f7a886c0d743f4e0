"""An inbox without a broker, for tests: it delivers, redelivers and forgets as a broker's two sessions do."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from gateway.runtime.ports import Arrived, Clock, Outgoing
from gateway.wire import UP, parse_topic

WINDOWS: Final = (500, 2_000)
"""How many messages of the alarm and the telemetry session are delivered and unacknowledged at a time at most."""


class MemoryInbox:
    """Implements `gateway.runtime.ports.Inbox`. `send` is what a source publishes, `published` what the gateway did."""

    def __init__(self, clock: Clock) -> None:
        self.published: list[Outgoing] = []
        """What was published, in order; what is retained once again after each loss of the link."""
        self._clock = clock
        self._sessions = (_MemorySession(0, WINDOWS[0]), _MemorySession(1, WINDOWS[1]))
        self._states: dict[str, Outgoing] = {}
        self._listeners: list[Callable[[bool], None]] = []
        self._arrival = asyncio.Event()
        self._is_up = False

    async def start(self) -> None:
        """Connects."""
        self.mend()

    async def stop(self) -> None:
        """Disconnects; what is not acknowledged stays."""
        self._is_up = False

    def on_link(self, callback: Callable[[bool], None]) -> None:
        """``callback(False)`` when the link is cut, ``callback(True)`` when it is back."""
        self._listeners.append(callback)

    def is_connected(self) -> bool:
        return self._is_up

    # --- what the world does ----------------------------------------------------------------------------------------

    def send(self, topic: str, payload: bytes) -> None:
        """A source publishes. Where the gateway does not subscribe, nothing happens."""
        address = parse_topic(topic)
        if address is not None and address.leaf in UP:
            self._sessions[address.leaf != "alarm"].queue.append((topic, payload, False))
            self._deliver()

    def cut(self) -> None:
        """The link is lost."""
        self._is_up = False
        for session in self._sessions:
            session.take_back()
        self._tell(is_up=False)

    def mend(self) -> None:
        """The link is there (again)."""
        is_first = self._sessions[0].generation == 0
        self._is_up = True
        for session in self._sessions:
            session.generation += 1
        self.published += self._states.values()
        self._deliver()
        if not is_first:
            self._tell(is_up=True)

    def forget(self) -> None:
        """The broker dies, and its sessions with it; another one takes its place."""
        self.cut()
        for session in self._sessions:
            session.queue.clear()
        self.mend()

    # --- what the gateway does --------------------------------------------------------------------------------------

    def take(self, limit: int) -> list[Arrived]:
        """What is waiting: all of the alarm lane, then at most ``limit`` of the telemetry lane."""
        alarm, telemetry = self._sessions
        taken = alarm.take(len(alarm.waiting)) + telemetry.take(limit)
        if not (alarm.waiting or telemetry.waiting):
            self._arrival.clear()
        return taken

    async def wait(self, timeout_s: float | None) -> None:
        """Returns when something is waiting, or after ``timeout_s`` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._arrival.wait()
        except TimeoutError:
            return

    def acknowledge(self, arrived: Sequence[Arrived]) -> None:
        """Stale ones, of a link that was lost since, are dropped."""
        for one in arrived:
            session = self._sessions[one.session]
            if self._is_up and one.generation == session.generation:
                session.settle(one.mid)
        self._deliver()

    def publish(self, messages: Sequence[Outgoing]) -> Sequence[Outgoing]:
        """Returns what was not taken because there is no link; retained messages are always taken."""
        self._states |= {message.topic: message for message in messages if message.retain}
        if not self._is_up:
            return [message for message in messages if not message.retain]
        self.published += messages
        return []

    async def publish_confirmed(self, messages: Sequence[Outgoing], timeout_s: float = 10.0) -> Sequence[Outgoing]:
        """As `publish`; without a link nothing is confirmed."""
        self.publish(messages)
        return [] if self._is_up else list(messages)

    def _deliver(self) -> None:
        if not self._is_up:
            return
        for session in self._sessions:
            session.deliver(self._clock())
            if session.waiting:
                self._arrival.set()

    def _tell(self, *, is_up: bool) -> None:
        for listener in self._listeners:
            listener(is_up)


class _MemorySession:
    """What a broker keeps of one session: a queue, and what is in flight by packet id."""

    def __init__(self, index: int, window: int) -> None:
        self.generation = 0
        self.queue: deque[tuple[str, bytes, bool]] = deque()
        self.in_flight: dict[int, tuple[str, bytes]] = {}
        self.waiting: list[Arrived] = []
        self._index = index
        self._window = window
        self._free: list[int] = []

    def deliver(self, now: int) -> None:
        """Moves messages from the queue to the gateway, as far as the window reaches."""
        while self.queue and len(self.in_flight) < self._window:
            topic, payload, is_repeat = self.queue.popleft()
            # The lowest free id, so that ids are used again as soon as they can be: the hardest case for the gateway.
            mid = heapq.heappop(self._free) if self._free else len(self.in_flight) + 1
            self.in_flight[mid] = (topic, payload)
            self.waiting.append(Arrived(topic, payload, mid, self.generation, self._index, now, is_repeat))

    def settle(self, mid: int) -> None:
        """Acknowledged: the message is gone, and its packet id free again."""
        if self.in_flight.pop(mid, None) is not None:
            heapq.heappush(self._free, mid)

    def take_back(self) -> None:
        """The link is gone: what was in flight will be delivered again, before everything else."""
        self.queue.extendleft((topic, payload, True) for topic, payload in reversed(self.in_flight.values()))
        self.in_flight.clear()
        self._free.clear()

    def take(self, limit: int) -> list[Arrived]:
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken
