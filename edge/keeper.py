"""The spool, for many at once: calls go to a thread of their own, and what many bring at a time is one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from edge.ports import NotTaken
from edge.spool import Entry, Spool, Unfit

T = TypeVar("T")


class Keeper:
    """Group commit: while one write is at the disk, what comes gathers for the next."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._waiting: list[tuple[list[Entry], asyncio.Future[list[int]]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def call(self, call: Callable[..., T], *args: object) -> T:
        """A call of the spool's, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    async def take(self, entries: list[Entry]) -> list[int]:
        """Durable when it returns; the numbers of the entries. Raises NotTaken and Unfit."""
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._waiting.append((entries, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await future

    async def close(self) -> None:
        """Lets what is being written be written."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        await self.call(self.spool.close)
        self._thread.shutdown()

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                seqs = await self.call(self.spool.append_all, [entry for entries, _ in batch for entry in entries])
            except (NotTaken, Unfit):
                # One that cannot be taken takes no other with it.
                for entries, future in batch:
                    await self._write_one(entries, future)
                continue
            first = 0
            for entries, future in batch:
                _resolve(future, seqs[first : first + len(entries)])
                first += len(entries)

    async def _write_one(self, entries: list[Entry], future: asyncio.Future[list[int]]) -> None:
        try:
            _resolve(future, await self.call(self.spool.append_all, entries))
        except (NotTaken, Unfit) as error:
            if not future.done():
                future.set_exception(error)


def _resolve(future: asyncio.Future[list[int]], seqs: list[int]) -> None:
    if not future.done():
        future.set_result(seqs)
