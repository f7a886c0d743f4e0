"""The MQTT inbox at a real broker, with a line between the two that can be cut, and a source beside it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Self

import aiomqtt

from gateway.adapters.mqtt import MqttInbox
from tests.ports.inbox_conformance import NOW
from tests.ports.tcp_line import TcpLine

PASSWORD: Final = "correct horse"


def hash_password(password: str, iterations: int = 101) -> str:
    """As mosquitto_passwd(1) does."""
    salt = os.urandom(12)
    found = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(found).decode()}"


class MqttSubject:
    """See `tests.ports.inbox_conformance.Subject`. ``restart`` kills the broker and starts another in its place."""

    def __init__(
        self, inbox: MqttInbox, line: TcpLine, broker_port: int, restart: Callable[[], Awaitable[None]]
    ) -> None:
        self.inbox = inbox
        self.line = line
        self._port = broker_port
        self._restart = restart
        self._link = asyncio.Event()
        self._no_link = asyncio.Event()
        inbox.on_link(self._note)

    def _note(self, is_up: bool) -> None:
        self._link.clear() if not is_up else self._link.set()
        self._no_link.set() if not is_up else self._no_link.clear()

    async def __aenter__(self) -> Self:
        await self.line.__aenter__()
        await self.inbox.start()
        assert self.inbox.is_connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.inbox.stop()
        await self.line.__aexit__()

    def source(self, name: str = "agent-1", password: str = PASSWORD) -> aiomqtt.Client:
        """A source's client; it speaks when entered."""
        return aiomqtt.Client("127.0.0.1", self._port, username=name, password=password, identifier=name)

    async def send(self, *messages: tuple[str, bytes]) -> None:
        async with self.source() as source:
            for topic, payload in messages:
                await source.publish(topic, payload, qos=1)

    @asynccontextmanager
    async def listen(self, topic: str) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
        async with self.source() as source:
            await source.subscribe(topic, qos=1)

            async def hear() -> bytes:
                async with asyncio.timeout(5):
                    message = await anext(source.messages)
                assert isinstance(message.payload, bytes)
                return message.payload

            yield hear

    async def cut(self) -> None:
        await self.line.cut()
        await asyncio.wait_for(self._no_link.wait(), 10)

    async def mend(self) -> None:
        await self.line.mend()
        await asyncio.wait_for(self._link.wait(), 20)

    async def forget(self) -> None:
        await self._restart()
        await asyncio.wait_for(self._no_link.wait(), 10)
        await asyncio.wait_for(self._link.wait(), 20)


def read_fixed_clock() -> int:
    """The clock of the inboxes under test."""
    return NOW
