"""A TCP line of our own between two programs, which can be cut, go dead, be slow, repeat and mix up.

Of MQTT it knows where packets begin and end, so that what is repeated or mixed up is a whole PUBLISH: the connection
stays valid, and what suffers is the traffic on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import StrEnum
from random import Random
from typing import Final, Literal

_PUBLISH: Final = 3
_HELD_S: Final = 0.25
"""A packet that waits to be overtaken goes on its way after so long when nothing overtakes it."""
_RESET: Final = struct.pack("ii", 1, 0)


class Mode(StrEnum):
    """How a line behaves. ``dead`` takes all bytes and brings none over, in both directions (``deaf`` in that to the
    server alone, ``mute`` in that to the client alone): a half-open connection."""

    WHOLE = "whole"
    CUT = "cut"
    DEAD = "dead"
    DEAF = "deaf"
    MUTE = "mute"
    SLOW = "slow"
    REPEATING = "repeating"
    MIXING = "mixing"


Direction = Literal["up", "down"]
_SWALLOWS: Final[dict[Mode, tuple[Direction, ...]]] = {
    Mode.DEAD: ("up", "down"),
    Mode.DEAF: ("up",),
    Mode.MUTE: ("down",),
}


class _Line:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: _Ends, server: _Ends) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._swallowed: set[Direction] = set()

    @property
    def is_broken(self) -> bool:
        """Bytes of it are gone: it must never carry any again."""
        return bool(self._swallowed)

    async def run(self) -> None:
        """Until either side leaves."""
        up = asyncio.create_task(self._pump("up", self._client[0], self._server[1]))
        down = asyncio.create_task(self._pump("down", self._server[0], self._client[1]))
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        down.cancel()
        await asyncio.gather(up, down, return_exceptions=True)

    def reset(self) -> None:
        """Ends it at once, as a router does that has forgotten it."""
        for _, writer in (self._client, self._server):
            opened = writer.get_extra_info("socket")
            if opened is not None:
                with contextlib.suppress(OSError):
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _pump(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: _Queue = asyncio.Queue()
        writing = asyncio.create_task(self._write(queue, writer))
        reading: asyncio.Task[bytes] | None = None
        held = b""
        try:
            while True:
                reading = reading or asyncio.create_task(self._proxy.read(reader))
                await asyncio.wait((reading,), timeout=_HELD_S if held else None)
                packet = b""
                if reading.done():
                    packet, reading = reading.result(), None
                    if not packet:
                        break
                held = self._send(direction, packet, held, queue)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            # What was read before the end is still passed on.
            queue.put_nowait((0.0, b""))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(writing, 1.0)
            if reading is not None:
                reading.cancel()

    def _send(self, direction: Direction, packet: bytes, held: bytes, queue: _Queue) -> bytes:
        """Passes a packet on as the mode says; returns what is held back."""
        proxy = self._proxy
        if direction in _SWALLOWS.get(proxy.mode, ()):
            self._swallowed.add(direction)
        if direction in self._swallowed:
            return b""
        due = asyncio.get_running_loop().time() + (proxy.delay_s if proxy.mode is Mode.SLOW else 0)
        is_publish = bool(packet) and proxy.is_mqtt and packet[0] >> 4 == _PUBLISH
        if proxy.mode is Mode.MIXING and is_publish and not held and proxy.chance.random() < 0.5:
            return packet
        parts = [packet, held]
        if proxy.mode is Mode.REPEATING and is_publish and proxy.chance.random() < 0.5:
            parts.append(packet)
        for part in parts:
            if part:
                queue.put_nowait((due, part))
        return b""

    async def _write(self, queue: _Queue, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, packet = await queue.get()
            if not packet:
                return
            if (pause := due - loop.time()) > 0:
                await asyncio.sleep(pause)
            try:
                writer.write(packet)
                await writer.drain()
            except OSError:
                return


_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Queue = asyncio.Queue[tuple[float, bytes]]
"""Packets and when each is due; an empty one ends it."""


class Proxy:
    """Listens on ``port`` of loopback between `start` and `stop`, and connects through to ``upstream``."""

    def __init__(self, port: int, upstream: int, chance: Random, *, is_mqtt: bool) -> None:
        self.port = port
        self.upstream = upstream
        self.chance = chance
        self.is_mqtt = is_mqtt
        self.mode = Mode.WHOLE
        self.delay_s = 0.0
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def set(self, mode: Mode, delay_s: float = 0.0) -> None:
        """From now on the line behaves so."""
        self.mode, self.delay_s = mode, delay_s
        if mode is Mode.CUT:
            self._reset_all()

    def heal(self, *, resets: bool) -> None:
        """The line is whole again. A connection that lost bytes is reset, or left for dead until its ends notice."""
        self.mode = Mode.WHOLE
        for line in list(self._lines):
            if line.is_broken and resets:
                line.reset()

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """The next piece that is passed on as a whole; empty at the end. Raises IncompleteReadError."""
        if not self.is_mqtt:
            return await reader.read(65536)
        packet = bytearray(await reader.readexactly(1))
        length, shift = 0, 0
        while True:
            packet += await reader.readexactly(1)
            length |= (packet[-1] & 127) << shift
            shift += 7
            if packet[-1] < 128:
                break
        packet += await reader.readexactly(length)
        return bytes(packet)

    def _reset_all(self) -> None:
        for line in list(self._lines):
            line.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a callback of the server's runs in a task
        self._tasks.add(task)
        try:
            if self.mode is Mode.CUT:
                writer.transport.abort()
                return
            await self._carry(reader, writer)
        except OSError:
            writer.transport.abort()
        except asyncio.CancelledError:
            return
        finally:
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end. Raises OSError when there is none upstream."""
        server = await asyncio.open_connection("127.0.0.1", self.upstream)
        line = _Line(self, (reader, writer), server)
        self._lines.add(line)
        try:
            await line.run()
        finally:
            self._lines.discard(line)
            if line.is_broken:
                line.reset()
            server[1].close()
            writer.close()
