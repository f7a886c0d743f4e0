"""What every inbox does, whatever stands behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final, Protocol

import pytest

from gateway.runtime.ports import Arrived, Inbox, Outgoing
from gateway.wire import topic_of

ALARM: Final = topic_of("c001", "agent-1", "alarm")
TELEMETRY: Final = topic_of("c001", "agent-1", "telemetry")
STATUS: Final = topic_of("c001", "agent-1", "status")
REPLY: Final = topic_of("c001", "agent-1", "reply")
COMMAND: Final = topic_of("c001", "agent-1", "command")
RECEIPT: Final = topic_of("c001", "agent-1", "receipt")
CONFIG: Final = topic_of("c001", "agent-1", "config")

NOW: Final = 1_795_392_000_000
"""What the inbox's clock shows, in ms UTC."""

ALARM_WINDOW: Final = 500


class ConnectedInbox(Inbox, Protocol):
    """What the composition root needs beside the port."""

    def on_link(self, callback: Callable[[bool], None]) -> None: ...
    async def publish_confirmed(self, messages: Sequence[Outgoing], timeout_s: float = ...) -> Sequence[Outgoing]: ...


class Subject(Protocol):
    """A started inbox, a source that publishes and listens, and a link that can be lost."""

    @property
    def inbox(self) -> ConnectedInbox: ...

    async def send(self, *messages: tuple[str, bytes]) -> None:
        """A source publishes, and waits until the broker has confirmed."""

    def listen(self, topic: str) -> AbstractAsyncContextManager[Callable[[], Awaitable[bytes]]]:
        """A source subscribes; what it is given returns the next payload."""

    async def cut(self) -> None:
        """The link is lost, and the inbox has noticed."""

    async def mend(self) -> None:
        """The link is back, and the inbox connected."""

    async def forget(self) -> None:
        """The broker dies and comes back empty; the inbox is connected again."""


class InboxConformance:
    """Subclass it with a fixture ``subject``."""

    redelivers: ClassVar[bool] = True
    """Whether the broker keeps what it has delivered and not been acknowledged, for the next connection."""

    async def test_a_message_arrives_as_it_was_sent(self, subject: Subject) -> None:
        await subject.send((TELEMETRY, b'{"v": 1}'))

        (arrived,) = await gather(subject, 1)

        assert (arrived.topic, arrived.payload, arrived.dup) == (TELEMETRY, b'{"v": 1}', False)
        assert arrived.received_at == NOW

    async def test_the_alarm_lane_comes_first_and_whole_and_the_telemetry_lane_in_portions(
        self, subject: Subject
    ) -> None:
        await subject.send(
            (TELEMETRY, b"t1"), (ALARM, b"a1"), (STATUS, b"t2"), (ALARM, b"a2"), (REPLY, b"t3"), (TELEMETRY, b"t4")
        )
        await asyncio.sleep(0.6)

        first, second = subject.inbox.take(3), subject.inbox.take(3)

        assert [one.payload for one in first] == [b"a1", b"a2", b"t1", b"t2", b"t3"]
        assert [one.payload for one in second] == [b"t4"]
        assert {one.session for one in first[:2]} == {0}
        assert {one.session for one in (*first[2:], *second)} == {1}

    async def test_what_no_source_may_say_does_not_arrive(self, subject: Subject) -> None:
        await subject.send((COMMAND, b"c"), (RECEIPT, b"r"), ("sc/v2/c001/agent-1/alarm", b"x"), (TELEMETRY, b"t"))

        (arrived,) = await gather(subject, 1)
        await asyncio.sleep(0.1)

        assert arrived.payload == b"t"
        assert subject.inbox.take(10) == []

    async def test_each_lane_keeps_its_order(self, subject: Subject) -> None:
        sent = [f"{number}".encode() for number in range(200)]
        await subject.send(*((topic, payload) for payload in sent for topic in (ALARM, TELEMETRY)))

        arrived = await gather(subject, 400)

        for topic in (ALARM, TELEMETRY):
            assert [one.payload for one in arrived if one.topic == topic] == sent

    async def test_waiting_ends_when_something_is_there(self, subject: Subject) -> None:
        waiting = asyncio.create_task(subject.inbox.wait(30))
        await asyncio.sleep(0.05)
        assert not waiting.done()

        await subject.send((ALARM, b"press"))

        await asyncio.wait_for(waiting, 5)
        assert [one.payload for one in subject.inbox.take(0)] == [b"press"]

    async def test_waiting_ends_when_its_time_is_over(self, subject: Subject) -> None:
        began = asyncio.get_running_loop().time()

        await subject.inbox.wait(0.1)

        assert 0.05 < asyncio.get_running_loop().time() - began < 5
        assert subject.inbox.take(10) == []

    async def test_what_is_acknowledged_never_comes_again(self, subject: Subject) -> None:
        await subject.send((ALARM, b"a"), (TELEMETRY, b"t"))
        subject.inbox.acknowledge(await gather(subject, 2))
        await asyncio.sleep(0.2)

        await subject.cut()
        await subject.mend()
        await asyncio.sleep(0.2)

        assert subject.inbox.take(10) == []

    async def test_what_is_not_acknowledged_comes_again_on_the_next_connection(self, subject: Subject) -> None:
        await subject.send((ALARM, b"a1"), (ALARM, b"a2"), (TELEMETRY, b"t1"), (TELEMETRY, b"t2"))
        first = await gather(subject, 4)
        subject.inbox.acknowledge([one for one in first if one.payload in (b"a1", b"t2")])
        await asyncio.sleep(0.2)

        await subject.cut()
        await subject.mend()

        if not self.redelivers:
            # amqtt forgets what was in flight when a connection ends (its issue 401). The sources' receipts make up
            # for it: whoever gets none sends again.
            await asyncio.sleep(0.5)
            assert subject.inbox.take(10) == []
            return
        again = await gather(subject, 2)
        assert sorted(one.payload for one in again) == [b"a2", b"t1"]  # the two sessions come back each in its own time
        assert all(one.dup for one in again)
        generations = {one.session: one.generation for one in first}
        assert all(one.generation > generations[one.session] for one in again)

    async def test_a_stale_acknowledgement_erases_no_new_message_with_the_same_packet_id(
        self, subject: Subject
    ) -> None:
        await subject.send((ALARM, b"old"))
        (old,) = await gather(subject, 1)
        await subject.forget()
        await subject.send((ALARM, b"new"))
        (new,) = await gather(subject, 1)
        assert (new.payload, new.mid) == (b"new", old.mid)

        subject.inbox.acknowledge([old])
        await asyncio.sleep(0.2)
        await subject.cut()
        await subject.mend()

        if not self.redelivers:
            # As above: with or without an acknowledgement, amqtt has forgotten it.
            await asyncio.sleep(0.5)
            assert subject.inbox.take(10) == []
            return
        (again,) = await gather(subject, 1)
        assert again.payload == b"new"
        subject.inbox.acknowledge([again])

    async def test_more_than_the_window_holds_arrives_once_and_in_order(self, subject: Subject) -> None:
        sent = [f"{number}".encode() for number in range(3 * ALARM_WINDOW)]
        await subject.send(*((ALARM, payload) for payload in sent))
        arrived: list[Arrived] = []
        async with asyncio.timeout(20):
            while len(arrived) < len(sent):
                await subject.inbox.wait(1)
                taken = subject.inbox.take(10)
                subject.inbox.acknowledge(taken)
                arrived += taken

        assert [one.payload for one in arrived] == sent

    async def test_a_message_reaches_its_source(self, subject: Subject) -> None:
        async with subject.listen(RECEIPT) as hear:
            refused = subject.inbox.publish([Outgoing(RECEIPT, b"r1"), Outgoing(RECEIPT, b"r2")])

            assert list(refused) == []
            assert [await hear(), await hear()] == [b"r1", b"r2"]

    async def test_a_retained_message_reaches_a_source_that_comes_later(self, subject: Subject) -> None:
        assert list(subject.inbox.publish([Outgoing(CONFIG, b"one", True), Outgoing(CONFIG, b"two", True)])) == []
        await asyncio.sleep(0.3)

        async with subject.listen(CONFIG) as hear:
            assert await hear() == b"two"

    async def test_confirmed_means_that_the_broker_has_it(self, subject: Subject) -> None:
        assert list(await subject.inbox.publish_confirmed([Outgoing(COMMAND, b"close")], 5)) == []

    async def test_without_a_link_messages_are_given_back_and_states_are_kept(self, subject: Subject) -> None:
        await subject.cut()
        command, receipt = Outgoing(COMMAND, b"close"), Outgoing(RECEIPT, b"r")
        config = Outgoing(CONFIG, b"kept", retain=True)

        refused = subject.inbox.publish([command, config, receipt])
        unconfirmed = await subject.inbox.publish_confirmed([command], 0.1)
        await subject.mend()

        assert list(refused) == [command, receipt]
        assert list(unconfirmed) == [command]
        async with subject.listen(CONFIG) as hear:
            assert await hear() == b"kept"

    async def test_states_outlive_a_broker_that_forgets_them(self, subject: Subject) -> None:
        subject.inbox.publish([Outgoing(CONFIG, b"kept", retain=True)])
        await asyncio.sleep(0.2)

        await subject.forget()

        async with subject.listen(CONFIG) as hear:
            assert await hear() == b"kept"

    async def test_a_lost_link_is_told_once_and_so_is_its_return(self, subject: Subject) -> None:
        told: list[bool] = []
        subject.inbox.on_link(told.append)
        assert subject.inbox.is_connected()

        await subject.cut()
        assert not subject.inbox.is_connected()
        await subject.mend()

        assert subject.inbox.is_connected()
        assert told == [False, True]


async def gather(subject: Subject, count: int, timeout_s: float = 10.0) -> list[Arrived]:
    """Takes until ``count`` messages are there."""
    arrived: list[Arrived] = []
    try:
        async with asyncio.timeout(timeout_s):
            while len(arrived) < count:
                await subject.inbox.wait(1)
                arrived += subject.inbox.take(1_000)
    except TimeoutError:
        pytest.fail(f"only {len(arrived)} of {count} messages arrived: {[one.payload for one in arrived][:10]}")
    return arrived
