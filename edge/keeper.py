"""The spool, for many at once: calls go to a thread of their own, and what many bring at a time is one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from edge.ports import NotTaken
from edge.spool import Entry, Spool, Unfit

T = TypeVar("T")

Places = tuple[str, list[int]]
"""The spool's id, and the entries' numbers under it."""


class Keeper:
    """Group commit: while one write is at the disk, what comes gathers for the next."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._waiting: list[tuple[list[Entry], asyncio.Future[Places]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def call(self, call: Callable[..., T], *args: object) -> T:
        """A call of the spool's, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    async def take(self, entries: list[Entry]) -> Places:
        """Durable when it returns; where the entries lie. Raises NotTaken and Unfit."""
        future: asyncio.Future[Places] = asyncio.get_running_loop().create_future()
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
                spool, seqs = await self.call(self._append, [entry for entries, _ in batch for entry in entries])
            except (NotTaken, Unfit):
                # One that cannot be taken takes no other with it.
                for entries, future in batch:
                    await self._write_one(entries, future)
                continue
            first = 0
            for entries, future in batch:
                _resolve(future, (spool, seqs[first : first + len(entries)]))
                first += len(entries)

    def _append(self, entries: list[Entry]) -> Places:
        # The id may change with any call, so that it is read in the same one.
        seqs = self.spool.append_all(entries)
        return self.spool.id, seqs

    async def _write_one(self, entries: list[Entry], future: asyncio.Future[Places]) -> None:
        try:
            _resolve(future, await self.call(self._append, entries))
        except (NotTaken, Unfit) as error:
            if not future.done():
                future.set_exception(error)


def _resolve(future: asyncio.Future[Places], places: Places) -> None:
    if not future.done():
        future.set_result(places)
