from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.adapters.memory_inbox import MemoryInbox
from tests.ports.inbox_conformance import NOW, InboxConformance


class _Subject:
    def __init__(self) -> None:
        self.inbox = MemoryInbox(lambda: NOW)

    async def send(self, *messages: tuple[str, bytes]) -> None:
        for topic, payload in messages:
            self.inbox.send(topic, payload)

    @asynccontextmanager
    async def listen(self, topic: str) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
        # Who subscribes is given the newest state first, and after that what is published from now on.
        published = self.inbox.published
        states = [index for index, message in enumerate(published) if message.topic == topic and message.retain]
        place = states[-1] if states else len(published)

        async def hear() -> bytes:
            nonlocal place
            async with asyncio.timeout(5):
                while True:
                    for index in range(place, len(published)):
                        if published[index].topic == topic:
                            place = index + 1
                            return published[index].payload
                    await asyncio.sleep(0.01)

        yield hear

    async def cut(self) -> None:
        self.inbox.cut()

    async def mend(self) -> None:
        self.inbox.mend()

    async def forget(self) -> None:
        self.inbox.forget()


class TestMemoryInbox(InboxConformance):
    @pytest.fixture
    async def subject(self) -> _Subject:
        subject = _Subject()
        await subject.inbox.start()
        return subject
