"""The door: how another process (the console, the platform's callbacks) brings an event in, and gets its answer.

A Unix socket in the gateway's data folder, for its own user alone. A frame is four bytes of length (big endian) and
JSON: ``{community, event_id, event}`` in, ``{answer}`` or ``{error}`` back, after the commit. Whoever gets no answer
asks again with the same ``event_id``: what is in the journal already is answered ``repeat`` and changes nothing.

Who only wants to know what a community shows now sends a `Look` as the event, and gets ``{present}``: the engine is
asked, nothing is fed and nothing is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from gateway.core.model import ListChange, OperatorAction, Order, Override, Press, RegistryChange, SilenceChange, Told
from gateway.core.present import Present
from gateway.errors import GatewayError
from gateway.runtime.faults import pass_point
from gateway.runtime.ports import STOPPING, UNFIT

log = logging.getLogger(__name__)

SOCKET: Final = "door.sock"
FRAME_LIMIT: Final = 4 * 1024 * 1024
CONNECTIONS: Final = 64
PATH_LIMIT: Final = 100
"""Bytes: a socket's address has room for 108; a longer path is reached by its folder's descriptor."""

AGAIN_S: Final = 0.2

Entering = Press | OperatorAction | Order | SilenceChange | Override | RegistryChange | ListChange | Told
"""What may come in by the door. (`Told` is a line of `reconcile`'s.)"""


class Look(Struct, frozen=True, tag="look", omit_defaults=True):
    """What the community's devices show now, or what one ``device`` shows."""

    device: str = ""


class Request(Struct, frozen=True):
    """``event_id`` is unique for ever: whoever asks makes it. A `Look` needs none."""

    community: str
    event_id: str
    event: Entering | Look


class Reply(Struct, frozen=True, omit_defaults=True):
    """``answer`` is the engine's (``done``, ``repeat``, or the reason for which it refused); ``error`` says that the
    request came to nothing (``unknown-community``, ``not-a-request``, ``unfit``, or ``busy``: ask again)."""

    answer: str = ""
    error: str = ""
    present: Present | None = None


class DoorClosed(Exception):
    """The gateway is not there, or did not answer in time. What was asked may yet have happened: ask again with the
    same event id."""


class DoorRefused(Exception):
    """The request itself is wrong; asking again changes nothing. ``str()`` is the code."""


_requests: Final = msgspec.json.Decoder(Request)
_replies: Final = msgspec.json.Decoder(Reply)
_encode: Final = msgspec.json.encode

Submit = Callable[[str, Entering, str], Awaitable[str]]
LookIn = Callable[[str, str], Present]
"""What a community shows, or one device of it; raises LookupError for a community that is not here."""


def see_nothing(community: str, device: str) -> Present:
    """For a door behind which nobody looks."""
    raise LookupError(community)


class DoorServer:
    """The gateway's side. ``submit`` and ``look`` are the pipeline's."""

    def __init__(self, path: Path, submit: Submit, look: LookIn = see_nothing) -> None:
        self._path = path
        self._submit = submit
        self._look = look
        self._open = 0
        self._inode = 0
        self._server: asyncio.Server | None = None
        self._visits: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        """Opens the door. Raises GatewayError where no socket can be."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        before = os.umask(0o177)
        try:
            with _shorten(self._path) as address:
                self._server = await asyncio.start_unix_server(self._let_in, address)
        except OSError as error:
            raise GatewayError(
                "door", f"cannot open it: {error.strerror}", str(self._path), "use a folder that may be written"
            ) from error
        finally:
            os.umask(before)
        self._inode = self._path.stat().st_ino

    async def stop(self) -> None:
        """Closes the door, also for those who stand in it."""
        if self._server is not None:
            self._server.close()
        visits = dict(self._visits)
        for task in visits:
            task.cancel()
        await asyncio.gather(*visits, return_exceptions=True)
        for writer in visits.values():
            writer.close()  # of one who had just come, and whose visit had not begun
        with contextlib.suppress(OSError):
            # Another gateway may have opened its own door there meanwhile.
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._meet(reader, writer))
        self._visits[task] = writer
        task.add_done_callback(self._visits.pop)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > CONNECTIONS:
                await _write(writer, Reply(error="busy"))
                return
            while (frame := await _read(reader)) is not None:
                await _write(writer, await self._answer(frame))
        except (ConnectionError, _NoFrame) as error:
            log.info("the door: a connection ended: %s", error)
        except asyncio.CancelledError:
            log.debug("the door was closed")  # asyncio's streams would log a cancelled task as a fault
        finally:
            self._open -= 1
            await _close(writer)

    async def _answer(self, frame: bytes) -> Reply:
        try:
            request = _requests.decode(frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("the door: no request: %s", error)
            return Reply(error="not-a-request")
        try:
            if isinstance(request.event, Look):
                return Reply(present=self._look(request.community, request.event.device))
            answer = await self._submit(request.community, request.event, request.event_id)
        except LookupError:
            return Reply(error="unknown-community")
        pass_point("before-answering")
        if answer == STOPPING:
            return Reply(error="busy")
        if answer == "unknown-community":
            return Reply(error=answer)
        if answer.startswith(UNFIT):
            return Reply(error="unfit")
        return Reply(answer=answer)


class DoorClient:
    """The other side. Any number of tasks may ask at once; each has a connection of its own, kept for the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._is_closed = False

    async def submit(self, community: str, event: Entering, event_id: str, timeout_s: float = 10.0) -> str:
        """The engine's answer. Asks again until ``timeout_s`` is over; then DoorClosed. Raises DoorRefused."""
        frame = _encode(Request(community, event_id, event))
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return (await self._ask(frame)).answer
                    except (OSError, EOFError, _NoFrame):
                        await asyncio.sleep(AGAIN_S)
        except TimeoutError:
            raise DoorClosed(f"the gateway did not answer within {timeout_s:g} s") from None

    async def look(self, community: str, device: str = "", timeout_s: float = 3.0) -> Present:
        """What the community shows now, or one device of it. Who looks does not wait for a gateway that is not there.
        Raises DoorClosed, DoorRefused."""
        frame = _encode(Request(community, "", Look(device)))
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    reply = await self._ask(frame)
                except (OSError, EOFError, _NoFrame):
                    # A connection that was kept may be an earlier gateway's.
                    await self._let_go()
                    reply = await self._ask(frame)
        except (OSError, EOFError, _NoFrame, TimeoutError) as error:
            raise DoorClosed("the gateway does not answer") from error
        if reply.present is None:
            raise DoorRefused("no-view")
        return reply.present

    async def is_open(self) -> bool:
        """Whether somebody stands behind it."""
        try:
            _, writer = await self._connect()
        except OSError:
            return False
        await _close(writer)
        return True

    async def close(self) -> None:
        """Ends the connections; one that is in use ends after its answer."""
        self._is_closed = True
        await self._let_go()

    async def _let_go(self) -> None:
        while self._idle:
            await _close(self._idle.pop()[1])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        with _shorten(self._path) as address:
            return await asyncio.open_unix_connection(address)

    async def _ask(self, frame: bytes) -> Reply:
        connection = self._idle.pop() if self._idle else await self._connect()
        reader, writer = connection
        is_good = False
        try:
            writer.write(len(frame).to_bytes(4, "big") + frame)
            await writer.drain()
            answer = await _read(reader)
            if answer is None:
                raise EOFError
            reply = _decode_reply(answer)
            is_good = True
        finally:
            if is_good and not self._is_closed:
                self._idle.append(connection)
            else:
                writer.close()
        if reply.error == "busy":
            raise EOFError
        if reply.error:
            raise DoorRefused(reply.error)
        return reply


@contextlib.contextmanager
def _shorten(path: Path) -> Iterator[str]:
    """An address of the socket that is short enough: the folder of a long path is named by its open descriptor."""
    if len(os.fsencode(path)) <= PATH_LIMIT:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class _NoFrame(Exception):
    """What came is no frame."""


def _decode_reply(frame: bytes) -> Reply:
    try:
        return _replies.decode(frame)
    except msgspec.MsgspecError as error:
        raise _NoFrame(str(error)) from error


async def _read(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame; None at the end."""
    try:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if not 0 < length <= FRAME_LIMIT:
            raise _NoFrame(f"a frame of {length} bytes")
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise _NoFrame("a torn frame") from error
        return None


async def _write(writer: asyncio.StreamWriter, reply: Reply) -> None:
    frame = _encode(reply)
    writer.write(len(frame).to_bytes(4, "big") + frame)
    await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
