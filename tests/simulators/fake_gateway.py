"""A gateway in a test: it reads what sources publish at a real broker, and receipts only as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import aiomqtt

from gateway.wire import (
    GATEWAY_STATUS,
    Lane,
    Message,
    Quarantine,
    Receipt,
    Status,
    decode,
    encode_receipt,
    encode_status,
    topic_of,
)

ROOT = "sc/v1"


class FakeGateway:
    """Every copy that arrived, in order. ``on_message`` may call `receipt`; by default nothing is receipted."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self.copies: list[Message] = []
        self.settled: dict[Lane, set[int]] = defaultdict(set)
        self.on_message: Callable[[Message], list[Receipt]] = lambda message: []

    def seqs(self, lane: Lane) -> list[int]:
        """The seqs that arrived in this lane, each copy in its order."""
        return [message.seq for message in self.copies if message.lane is lane]

    def receipt_of(self, message: Message, *more: int) -> Receipt:
        """A receipt for this message and these others of its lane, with what was settled before."""
        settled = self.settled[message.lane]
        settled |= {message.seq, *more}
        contiguous = 0
        while contiguous + 1 in settled:
            contiguous += 1
        above = tuple(seq for seq in sorted(settled, reverse=True) if seq > contiguous)
        return Receipt(message.lane, message.spool, contiguous, above)

    async def send(self, receipt: Receipt) -> None:
        source = self.copies[-1]
        await self._client.publish(topic_of(source.community, source.source, "receipt"), encode_receipt(receipt), qos=1)

    async def say_listening(self, online: bool = True) -> None:
        status = Status(online=online, connection="fake-1")
        await self._client.publish(GATEWAY_STATUS, encode_status(status), qos=1, retain=True)

    async def read(self) -> None:
        async for raw in self._client.messages:
            message = decode(raw.topic.value, bytes(raw.payload))
            assert not isinstance(message, Quarantine), message
            if isinstance(message, Message):
                self.copies.append(message)
                for receipt in self.on_message(message):
                    await self.send(receipt)


async def wait_for(is_so: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Until it is so; an AssertionError when that takes too long."""
    async with asyncio.timeout(timeout_s):
        while not is_so():  # noqa: ASYNC110 - it is many things, and none of them tells
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def fake_gateway(url: str, community: str, *, listening: bool = True) -> AsyncIterator[FakeGateway]:
    """A gateway for one community; its retained status is taken back at the end."""
    address = urlsplit(url)
    async with aiomqtt.Client(
        address.hostname or "",
        address.port or 1883,
        identifier="fake-gateway",
        # A receipt does not wait until the broker has the acknowledgement before it.
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    ) as client:
        gateway = FakeGateway(client)
        for leaf in Lane:
            await client.subscribe(f"{ROOT}/{community}/+/{leaf}", qos=1)
        await gateway.say_listening(listening)
        reading = asyncio.create_task(gateway.read())
        try:
            yield gateway
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await client.publish(GATEWAY_STATUS, b"", qos=1, retain=True)
